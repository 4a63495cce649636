// The first row with enough room is found in a tree of maxima over the rows' free places: each
// record costs one walk from the root instead of a scan over all rows (which is quadratic, and a
// minute at 100,000 records).
#include "datasets/build/sequence_packing.h"

#include "base/memory.h"

#include <string.h>

// order [n] <- record numbers, longest first, equal ones in order: a counting sort.
static sd_status longest_first(int32_t *order, const int32_t *length, int32_t n, int32_t T,
                               sd_error *err) {
    int32_t *begin = sd_alloc((size_t)T + 2, 4);
    if (!begin) return sd_fail(err, SD_ENOMEM, "out of memory");
    for (int32_t i = 0; i < n; i++) begin[T - length[i] + 1]++;
    for (int32_t k = 0; k < T; k++) begin[k + 1] += begin[k];
    for (int32_t i = 0; i < n; i++) order[begin[T - length[i]]++] = i;
    free(begin);
    return SD_OK;
}

sd_status sd_sequence_pack(int32_t *row, int32_t *place, int32_t *rows, const int32_t *length,
                           int32_t n, int32_t T, bool pack, sd_error *err) {
    sd_status st = SD_OK;
    int32_t *order = NULL, *room = NULL, *count = NULL;
    *rows = 0;
    if (!pack) {
        for (int32_t i = 0; i < n; i++) row[i] = i, place[i] = 0;
        *rows = n;
        return SD_OK;
    }
    size_t leaves = 1;
    while (leaves < (size_t)n) leaves *= 2;
    order = sd_alloc((size_t)n, 4);
    count = sd_alloc((size_t)n, 4);
    room = sd_alloc(leaves * 2, 4); // node k: the most room under it; children 2k and 2k + 1
    SD_CHECK(order && count && room, err, SD_ENOMEM, "out of memory for packing %d records", n);
    SD_TRY(longest_first(order, length, n, T, err));
    for (size_t k = 0; k < leaves * 2; k++) room[k] = T;
    for (int32_t i = 0; i < n; i++) {
        int32_t len = length[order[i]];
        size_t k = 1; // there is always an empty row left: at most one record before this per row
        while (k < leaves) k = room[2 * k] >= len ? 2 * k : 2 * k + 1;
        int32_t r = (int32_t)(k - leaves);
        row[order[i]] = r;
        place[order[i]] = count[r]++;
        if (r >= *rows) *rows = r + 1;
        room[k] -= len;
        for (k /= 2; k >= 1; k /= 2)
            room[k] = room[2 * k] > room[2 * k + 1] ? room[2 * k] : room[2 * k + 1];
    }
out:
    free(order);
    free(count);
    free(room);
    return st;
}
