#include "decode/engine/fair.h"

bool sd_fair_room(const sd_share *s, int64_t more) {
    if (more <= s->limit - s->total) return true;
    return more <= sd_fair_share(s) - s->own && more <= 2 * s->limit - s->total;
}
