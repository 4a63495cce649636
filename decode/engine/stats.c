// Sums over requests.
#include "decode/engine/engine.h"

#include <string.h>

void sd_spec_stats_add(sd_spec_stats *sum, const sd_spec_stats *a, int sign) {
    sum->rounds += sign * a->rounds;
    sum->drafted += sign * a->drafted;
    sum->accepted += sign * a->accepted;
    for (int i = 0; i < SD_MAX_DRAFTERS; i++) {
        if (a->by[i].name[0]) memcpy(sum->by[i].name, a->by[i].name, sizeof sum->by[i].name);
        sum->by[i].drafted += sign * a->by[i].drafted;
        sum->by[i].accepted += sign * a->by[i].accepted;
    }
    for (int i = 0; i < SD_MAX_DRAFT; i++) sum->accepted_at[i] += sign * a->accepted_at[i];
}
