// Attention under a window: against double, rows against each other, and that what lies outside is
// never read: its positions hold NaN, and pages of which no row sees a position do not exist.
#pragma once

#include "tests/unit/kernels/support_attention.h"

static const int att_windows[] = {1, 7, 64, 65, 512, 1000};
enum { ATT_WINDOWS = sizeof att_windows / sizeof att_windows[0] };

// The case without what the rows do not see.
typedef struct {
    att_position kept[ATT_CTX];
    bool hidden[ATT_CTX];
    int32_t page[ATT_PAGES];
} att_hidden;

static void hide(att_hidden *h, att_case *a, const int *len, int N) {
    bool page_seen[ATT_PAGES] = {false};
    for (int t = 0; t < ATT_CTX; t++) h->hidden[t] = true;
    for (int n = 0; n < N; n++)
        for (int t = att_first(a, len[n]); t < len[n]; t++)
            h->hidden[t] = false, page_seen[t / SD_KV_PAGE] = true;
    for (int t = 0; t < ATT_CTX; t++)
        if (h->hidden[t]) h->kept[t] = poison(a, t);
    memcpy(h->page, a->page, sizeof h->page);
    for (int i = 0; i < ATT_PAGES; i++)
        if (!page_seen[i]) a->page[i] = -1;
}
static void show(const att_hidden *h, att_case *a) {
    memcpy(a->page, h->page, sizeof h->page);
    for (int t = 0; t < ATT_CTX; t++)
        if (h->hidden[t]) restore(a, &h->kept[t], t);
}

static void window_equals_double(const sd_ops *ops, sd_kv_type kv) {
    static const int shapes[][3] = {{6, 2, 64}, {2, 1, 256}, {3, 3, 96}, {2, 1, 80}, {2, 2, 20}};
    static const int lengths[] = {1,   7,   63,  64,  65,   66,   70,   128,  511, 512,
                                  513, 576, 577, 640, 1000, 1001, 1024, 1025, 1100};
    static att_hidden hidden;
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        att_case a = make_att_case(shapes[s][0], shapes[s][1], shapes[s][2], kv);
        for (int w = 0; w < ATT_WINDOWS; w++)
            for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++) {
                a.s.window = att_windows[w];
                hide(&hidden, &a, &lengths[l], 1);
                row_equals_double(ops, &a, lengths[l], (int)l % a.s.G);
                show(&hidden, &a);
            }
        drop_att_case(&a);
    }
}

// Rows first to first + N together against each alone, both without what they do not see.
static void company_changes_nothing(const sd_ops *ops, att_case *a, int first, const int *len,
                                    int N, int g, const float *alone) {
    static att_hidden hidden;
    size_t one = (size_t)(a->s.H / a->s.G * a->s.D);
    float *all = sd_alloc((size_t)N * one, 4);
    hide(&hidden, a, len + first, N);
    attend_rows(ops, a, first, len + first, N, g, all);
    show(&hidden, a);
    for (int n = 0; n < N; n++)
        cr_assert_eq(memcmp(all + (size_t)n * one, alone + (size_t)(first + n) * one, one * 4), 0,
                     "%s %s D %d window %d: row %d of %d, of len %d, differs from it alone",
                     ops->name, sd_kv_name(a->s.kv), a->s.D, a->s.window, n, N, len[first + n]);
    free(all);
}

static void window_rows_are_invariant(const sd_ops *ops, sd_kv_type kv) {
    static const int shapes[][3] = {{2, 1, 64}, {2, 2, 96}}, sizes[] = {31, 64};
    static const int begin[] = {1, 450, 1000};
    static att_hidden hidden;
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        att_case a = make_att_case(shapes[s][0], shapes[s][1], shapes[s][2], kv);
        size_t one = (size_t)(a.s.H / a.s.G * a.s.D);
        float *alone = sd_alloc(ATT_MOST_ROWS * one, 4);
        for (int c = 0; c < ATT_WINDOWS * 3; c++) {
            int len[ATT_MOST_ROWS], g = c % a.s.G, from = begin[c % 3], jump = c % 2 ? 0 : 1100;
            a.s.window = att_windows[c / 3];
            // One after the other; or the last ones so far behind that pages between are not seen.
            for (int n = 0; n < ATT_MOST_ROWS; n++)
                len[n] = jump && from + 63 < 1024 && n > 50 ? 1026 + n : from + n;
            for (int n = 0; n < ATT_MOST_ROWS; n++) {
                hide(&hidden, &a, &len[n], 1);
                attend_rows(ops, &a, n, &len[n], 1, g, alone + (size_t)n * one);
                show(&hidden, &a);
            }
            for (int N = 2 + c % 3; N <= 17; N += 3)
                company_changes_nothing(ops, &a, N * 11 % (ATT_MOST_ROWS - N), len, N, g, alone);
            company_changes_nothing(ops, &a, ATT_MOST_ROWS - sizes[0], len, sizes[0], g, alone);
            company_changes_nothing(ops, &a, 0, len, sizes[1], g, alone);
        }
        free(alone);
        drop_att_case(&a);
    }
}

static void wide_window_is_none(const sd_ops *ops, sd_kv_type kv) {
    static const int lengths[] = {1, 63, 65, 512, 513, 1100};
    att_case a = make_att_case(6, 2, 64, kv);
    float with[3 * 64], without[3 * 64];
    for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++) {
        a.s.window = 0;
        attend_rows(ops, &a, 0, &lengths[l], 1, 1, without);
        a.s.window = lengths[l];
        attend_rows(ops, &a, 0, &lengths[l], 1, 1, with);
        cr_assert_eq(memcmp(with, without, sizeof with), 0, "%s %s len %d", ops->name,
                     sd_kv_name(kv), lengths[l]);
    }
    drop_att_case(&a);
}
