#include "decode/draft/drafter.h"

#define ADDRESS(spec, kind, word) &sd_drafter_##kind,
const sd_drafter_kind *const sd_drafters[] = {SD_DRAFTER_LIST(ADDRESS) NULL};
#undef ADDRESS

void sd_drafter_close(sd_drafter *d) {
    if (d) d->kind->close(d);
}
