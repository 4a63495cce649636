// Packing and the permutation of an epoch.
#include "base/rng.h"
#include "datasets/build/sequence_packing.h"
#include "datasets/dataset.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

static uint32_t draw(uint64_t i) {
    uint32_t r[4];
    sd_philox(r, 11, 2, i);
    return r[0];
}

// First-fit decreasing, said as simply as possible.
static int32_t first_fit(int32_t *row, const int32_t *length, int32_t n, int32_t T) {
    int32_t *room = malloc((size_t)n * 4 + 4), rows = 0;
    for (int32_t len = T; len >= 1; len--)
        for (int32_t i = 0; i < n; i++) {
            if (length[i] != len) continue;
            int32_t r = 0;
            while (r < rows && room[r] < len) r++;
            if (r == rows) room[rows++] = T;
            room[r] -= len;
            row[i] = r;
        }
    free(room);
    return rows;
}

Test(packing, equals_first_fit_decreasing_and_never_overfills) {
    for (int round = 0; round < 60; round++) {
        int32_t n = 1 + (int32_t)(draw((uint64_t)round) % 300), T = 16 + round, rows;
        int32_t length[300], row[300], place[300], want[300], used[300] = {0}, count[300] = {0};
        for (int32_t i = 0; i < n; i++)
            length[i] = 1 + (int32_t)(draw((uint64_t)(round * 1000 + i)) % (uint32_t)T);
        cr_assert_eq(sd_sequence_pack(row, place, &rows, length, n, T, true, NULL), SD_OK);
        cr_assert_eq(rows, first_fit(want, length, n, T));
        for (int32_t i = 0; i < n; i++) {
            cr_assert_eq(row[i], want[i]);
            used[row[i]] += length[i];
            count[row[i]]++;
        }
        for (int32_t r = 0; r < rows; r++) cr_assert(used[r] >= 1 && used[r] <= T);
        for (int32_t i = 0; i < n; i++) { // places count up without gaps
            cr_assert(place[i] >= 0 && place[i] < count[row[i]]);
            for (int32_t k = 0; k < i; k++) cr_assert(row[i] != row[k] || place[i] != place[k]);
        }
    }
}

Test(packing, off_puts_record_i_into_row_i) {
    int32_t length[] = {3, 9, 1}, row[3], place[3], rows;
    cr_assert_eq(sd_sequence_pack(row, place, &rows, length, 3, 9, false, NULL), SD_OK);
    cr_assert(rows == 3 && row[0] == 0 && row[1] == 1 && row[2] == 2 && place[2] == 0);
}

Test(packing, a_hundred_thousand_records_fill_98_percent_in_a_moment) {
    int32_t n = 100000, T = 2048, rows;
    int32_t *length = malloc((size_t)n * 4), *row = malloc((size_t)n * 4),
            *place = malloc((size_t)n * 4);
    int64_t tokens = 0;
    for (int32_t i = 0; i < n; i++) {
        length[i] = 100 + (int32_t)(draw((uint64_t)i) % 900);
        tokens += length[i];
    }
    cr_assert_eq(sd_sequence_pack(row, place, &rows, length, n, T, true, NULL), SD_OK);
    cr_assert((double)tokens / ((double)rows * T) > 0.98);
    free(length);
    free(row);
    free(place);
}

Test(permutation, is_a_bijection_for_every_size) {
    for (int64_t rows = 1; rows <= 600; rows += rows < 70 ? 1 : 53) {
        char *seen = calloc((size_t)rows, 1);
        for (int64_t i = 0; i < rows; i++) {
            int64_t r = sd_dataset_permute(rows, 42, 3, i, true);
            cr_assert(r >= 0 && r < rows && !seen[r], "%lld of %lld", (long long)i,
                      (long long)rows);
            seen[r] = 1;
        }
        free(seen);
    }
    int64_t rows = 1 << 17 | 5;
    char *seen = calloc((size_t)rows, 1);
    for (int64_t i = 0; i < rows; i++) {
        int64_t r = sd_dataset_permute(rows, 1, 0, i, true);
        cr_assert(r >= 0 && r < rows && !seen[r]);
        seen[r] = 1;
    }
    free(seen);
}

Test(permutation, depends_on_seed_and_epoch_and_spreads_evenly) {
    int same_seed = 0, same_epoch = 0, in_place = 0;
    double low_half = 0;
    for (int64_t i = 0; i < 1000; i++) {
        int64_t a = sd_dataset_permute(1000, 1, 0, i, true);
        same_seed += a == sd_dataset_permute(1000, 2, 0, i, true);
        same_epoch += a == sd_dataset_permute(1000, 1, 1, i, true);
        in_place += a == i;
        low_half += i < 500 && a < 500;
        cr_assert_eq(sd_dataset_permute(1000, 1, 0, i, false), i);
    }
    // Chance hits are Poisson with mean 1; low_half is hypergeometric, mean 250, deviation 7.9.
    cr_assert(same_seed < 10 && same_epoch < 10 && in_place < 10);
    cr_assert(low_half > 250 - 48 && low_half < 250 + 48);
}
