// The corpus index against brute force, and against files that were tampered with.
#include "base/clock.h"
#include "base/files/file.h"
#include "base/files/replace.h"
#include "base/memory.h"
#include "base/rng.h"
#include "datasets/corpus/corpus_index.h"
#include "datasets/corpus/suffix_array.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *temp_path(void) {
    static char path[64];
    snprintf(path, sizeof path, "/tmp/specdec_corpus_%d", (int)getpid());
    return path;
}

static uint32_t draw(uint64_t i) {
    uint32_t r[4];
    sd_philox(r, 7, 1, i);
    return r[0];
}

// A text of `kinds` tokens in completions of about `length`, half of them copies of earlier pieces.
static int32_t *make_text(int n, int kinds, int length, uint64_t seed) {
    int32_t *t = malloc((size_t)n * 4);
    for (int i = 0; i < n; i++) {
        uint32_t r = draw(seed * 1000003 + i);
        t[i] = (int32_t)(r % kinds);
        if (i > 20 && r % 3) t[i] = t[i - 7 - (int)(seed % 3)];
        if (draw(seed * 7000003 + i) % length == 0 || i == n - 1) t[i] = -1;
    }
    return t;
}

static sd_corpus *open_index(const int32_t *t, int n) {
    sd_corpus *c = NULL;
    sd_error err = {0};
    cr_assert_eq(sd_corpus_write(temp_path(), t, n, NULL, 0, "abc", NULL, &err), SD_OK, "%s",
                 err.message);
    cr_assert_eq(sd_corpus_open(&c, temp_path(), &err), SD_OK, "%s", err.message);
    unlink(temp_path());
    return c;
}

static bool occurs_at(const int32_t *t, int n, int at, const int32_t *p, int len) {
    for (int k = 0; k < len; k++)
        if (at + k >= n || p[k] < 0 || t[at + k] != p[k]) return false;
    return true;
}

// The longest suffix of context that occurs, how often, and what follows most often.
static void brute(const int32_t *t, int n, const int32_t *context, int len, int max_match,
                  int *depth, int64_t *occurrences, int32_t *next, int64_t *most) {
    *depth = 0, *occurrences = 0, *next = -1, *most = 0;
    for (int d = len < max_match ? len : max_match; d > 0 && !*occurrences; d--) {
        int64_t follow[64] = {0};
        for (int i = 0; i < n; i++) {
            if (!occurs_at(t, n, i, context + len - d, d)) continue;
            ++*occurrences;
            if (i + d < n && t[i + d] >= 0) follow[t[i + d]]++;
        }
        if (!*occurrences) continue;
        *depth = d;
        for (int k = 0; k < 64; k++)
            if (follow[k] > *most) *most = follow[k], *next = k;
    }
}

Test(corpus_index, match_and_next_equal_brute_force) {
    for (uint64_t seed = 0; seed < 40; seed++) {
        int n = 1 + (int)(draw(seed) % 300), kinds = 1 + (int)(draw(seed + 100) % 12);
        int32_t *t = make_text(n, kinds, 2 + (int)(draw(seed + 200) % 40), seed);
        sd_corpus *c = open_index(t, n);
        cr_assert_eq(sd_corpus_tokens(c), n);
        for (int q = 0; q < 200; q++) {
            int32_t context[12];
            int len = 1 + (int)(draw(seed * 999 + q) % 12), from = (int)(draw(q) % n);
            for (int k = 0; k < len; k++)
                context[k] = from + k < n && draw(seed + q * 31 + k) % 9
                                 ? t[from + k]
                                 : (int32_t)(draw(q * 17 + k) % 14);
            int max_match = 1 + q % 10, depth;
            int64_t occurrences, most, count;
            int32_t next;
            float share;
            brute(t, n, context, len, max_match, &depth, &occurrences, &next, &most);
            sd_corpus_state s = sd_corpus_match(c, context, len, max_match);
            cr_assert_eq(s.depth, depth);
            cr_assert_eq(s.hi - s.lo, occurrences);
            cr_assert_eq(sd_corpus_next(c, &s, &share, &count), next, "seed %d query %d", (int)seed,
                         q);
            cr_assert_eq(count, most);
            if (occurrences) cr_assert_float_eq(share, (double)most / (double)occurrences, 1e-6);
        }
        sd_corpus_close(c);
        free(t);
    }
}

Test(corpus_index, a_state_advances_as_if_the_longer_context_had_been_matched) {
    int n = 400;
    int32_t *t = make_text(n, 5, 30, 3);
    sd_corpus *c = open_index(t, n);
    for (int from = 0; from + 8 < n; from++) {
        if (t[from] < 0) continue;
        sd_corpus_state s = sd_corpus_match(c, t + from, 1, 1);
        for (int len = 2; len < 8; len++) {
            s = sd_corpus_advance(c, &s, t[from + len - 1]);
            if (t[from + len - 1] < 0) { // nothing matches across a separator
                cr_assert_eq(s.depth, 0);
                cr_assert_eq(s.lo, s.hi);
                break;
            }
            sd_corpus_state m = sd_corpus_match(c, t + from, len, len);
            cr_assert(s.lo == m.lo && s.hi == m.hi && s.depth == len);
        }
    }
    sd_corpus_close(c);
    free(t);
}

Test(corpus_index, ties_go_to_the_lowest_token_and_ends_do_not_count) {
    const int32_t t[] = {5, 9, -1, 5, 3, -1, 5, 3, -1, 5, 9, -1, 5, -1, 5, -1, 5, -1, 8, -1};
    sd_corpus *c = open_index(t, 20);
    int32_t five = 5, eight = 8;
    float share;
    int64_t count;
    sd_corpus_state s = sd_corpus_match(c, &five, 1, 4);
    cr_assert_eq(s.hi - s.lo, 7);
    cr_assert_eq(sd_corpus_next(c, &s, &share, &count), 3);
    cr_assert_eq(count, 2);
    cr_assert_float_eq(share, 2.0 / 7, 1e-6);
    s = sd_corpus_match(c, &eight, 1, 4);
    cr_assert_eq(sd_corpus_next(c, &s, &share, &count), -1);
    cr_assert_eq(s.depth, 1);
    sd_corpus_close(c);
}

Test(corpus_index, an_empty_corpus_matches_nothing) {
    sd_corpus *c = open_index(NULL, 0);
    int32_t x = 0;
    sd_corpus_state s = sd_corpus_match(c, &x, 1, 8);
    cr_assert_eq(s.depth, 0);
    cr_assert_eq(sd_corpus_next(c, &s, NULL, NULL), -1);
    sd_corpus_close(c);
}

Test(corpus_index, hashes_of_tokenizer_and_adapter_are_kept) {
    const int32_t t[] = {1, -1};
    sd_sha256 adapter;
    sd_error err;
    sd_corpus *c;
    sd_sha256_of(&adapter, "adapter", 7, NULL);
    cr_assert_eq(sd_corpus_write(temp_path(), t, 2, NULL, 0, adapter.hex, &adapter, &err), SD_OK);
    cr_assert_eq(sd_corpus_open(&c, temp_path(), &err), SD_OK);
    unlink(temp_path());
    cr_assert_str_eq(sd_corpus_tokenizer(c), adapter.hex);
    cr_assert(sd_sha256_equal(sd_corpus_adapter(c), &adapter));
    sd_corpus_close(c);
}

Test(corpus_index, tokens_that_are_no_tokens_are_refused) {
    const int32_t below[] = {1, -2, -1}, above[] = {1 << 24, -1}, open_end[] = {1, 2};
    sd_error err;
    cr_assert_eq(sd_corpus_write(temp_path(), below, 3, NULL, 0, NULL, NULL, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "-2"));
    cr_assert_eq(sd_corpus_write(temp_path(), above, 2, NULL, 0, NULL, NULL, &err), SD_EINVAL);
    cr_assert_eq(sd_corpus_write(temp_path(), open_end, 2, NULL, 0, NULL, NULL, &err), SD_EINVAL);
    cr_assert(access(temp_path(), F_OK) != 0);
}

// Puts the right hash on a changed file, as an attacker would.
static void rehash(char *data, size_t len) {
    char *both = malloc(len);
    memcpy(both, data, 152);
    memcpy(both + 152, data + 256, len - 256);
    sd_sha256 sum;
    sd_sha256_of(&sum, both, len - 104, NULL);
    memcpy(data + 152, sum.hex, 64);
    free(both);
}

Test(corpus_index, every_flipped_byte_and_every_cut_is_refused) {
    int n = 60;
    int32_t *t = make_text(n, 4, 12, 1);
    const sd_corpus_copy copy = {0, 1, {1, 2, 3}, 4, 0};
    cr_assert_eq(sd_corpus_write(temp_path(), t, n, &copy, t[0] >= 0, "fp", NULL, NULL), SD_OK);
    char *data;
    size_t len;
    cr_assert_eq(sd_file_read(&data, &len, temp_path(), 1 << 20, NULL), SD_OK);
    sd_corpus *c;
    sd_error err;
    for (size_t i = 0; i < len; i++) {
        data[i] ^= 0x20;
        sd_file_write(temp_path(), data, len, NULL);
        cr_assert_neq(sd_corpus_open(&c, temp_path(), &err), SD_OK, "byte %zu", i);
        cr_assert_null(c);
        data[i] ^= 0x20;
    }
    for (size_t cut = 0; cut < len; cut += 13) {
        sd_file_write(temp_path(), data, cut, NULL);
        cr_assert_neq(sd_corpus_open(&c, temp_path(), &err), SD_OK);
    }
    unlink(temp_path());
    free(data);
    free(t);
}

Test(corpus_index, copies_come_back_and_places_are_spread) {
    const int32_t t[] = {5, 6, 7, -1, 5, 6, 8, -1, 5, 6, 9, -1};
    const sd_corpus_copy copies[] = {{1, 2, {-1, 3, 4}, 9, 1}, {5, 1, {1, 2, 3}, -1, 0}};
    sd_corpus *c;
    sd_error err = {0};
    cr_assert_eq(sd_corpus_write(temp_path(), t, 12, copies, 2, "abc", NULL, &err), SD_OK, "%s",
                 err.message);
    cr_assert_eq(sd_corpus_open(&c, temp_path(), &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_corpus_n_copies(c), 2);
    for (int i = 0; i < 12; i++) {
        const sd_corpus_copy *at = sd_corpus_copy_at(c, i), *want = i == 1   ? &copies[0]
                                                                    : i == 5 ? &copies[1]
                                                                             : NULL;
        cr_assert(want ? at && memcmp(at, want, sizeof *at) == 0 : !at, "place %d", i);
        cr_assert_eq(sd_corpus_token(c, i), t[i]);
    }
    int64_t place[8];
    sd_corpus_state s = sd_corpus_match(c, t, 2, 2);
    cr_assert_eq(sd_corpus_places(c, &s, place, 8), 3);
    cr_assert(place[0] == 2 && place[1] == 6 && place[2] == 10, "in the order of what follows");
    cr_assert_eq(sd_corpus_places(c, &s, place, 2), 2);
    cr_assert_eq(sd_corpus_begins(c, place, 8), 2, "behind each end but the last");
    cr_assert(place[0] + place[1] == 4 + 8);
    sd_corpus_close(c);
    unlink(temp_path());
}

Test(corpus_index, copies_that_do_not_fit_are_refused_even_with_a_right_hash) {
    const int32_t t[] = {5, 6, 7, -1, 5, 6, 8, -1};
    const sd_corpus_copy good[] = {{0, 2, {-1, 3, 4}, 9, 1}, {5, 2, {1, 2, 3}, -1, 0}};
    static const sd_corpus_copy bad[] = {{1, 2, {1, 2, 3}, 4, 0},  // begins within the one before
                                         {-1, 2, {1, 2, 3}, 4, 0}, // outside
                                         {8, 1, {1, 2, 3}, 4, 0},  //
                                         {5, 0, {1, 2, 3}, 4, 0},  // of nothing
                                         {5, 3, {1, 2, 3}, 4, 0},  // over an end
                                         {2, 3, {1, 2, 3}, 4, 0},  //
                                         {5, INT32_MAX, {1, 2, 3}, 4, 0}, //
                                         {5, INT32_MIN, {1, 2, 3}, 4, 0}, //
                                         {5, 2, {1, -2, 3}, 4, 0},        // no tokens
                                         {5, 2, {1, 2, 3}, INT32_MAX, 0}, //
                                         {5, 2, {1, 2, 3}, 4, 2}};
    char *data;
    size_t len;
    sd_corpus *c;
    sd_error err;
    cr_assert_eq(sd_corpus_write(temp_path(), t, 8, good, 2, "fp", NULL, NULL), SD_OK);
    cr_assert_eq(sd_file_read(&data, &len, temp_path(), 1 << 20, NULL), SD_OK);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const sd_corpus_copy both[] = {good[0], bad[i]};
        cr_assert_eq(sd_corpus_write(temp_path(), t, 8, both, 2, "fp", NULL, &err), SD_EINVAL, "%d",
                     (int)i);
        memcpy(data + len - sizeof *bad, &bad[i], sizeof *bad);
        rehash(data, len);
        sd_file_write(temp_path(), data, len, NULL);
        cr_assert_eq(sd_corpus_open(&c, temp_path(), &err), SD_EFORMAT, "%d", (int)i);
    }
    unlink(temp_path());
    free(data);
}

Test(corpus_index, a_file_of_the_first_version_opens_and_has_no_copies) {
    const int32_t t[] = {5, 6, 7, -1};
    char *data;
    size_t len;
    sd_corpus *c;
    cr_assert_eq(sd_corpus_write(temp_path(), t, 4, NULL, 0, "fp", NULL, NULL), SD_OK);
    cr_assert_eq(sd_file_read(&data, &len, temp_path(), 1 << 20, NULL), SD_OK);
    data[8] = 1;
    rehash(data, len);
    sd_file_write(temp_path(), data, len, NULL);
    cr_assert_eq(sd_corpus_open(&c, temp_path(), NULL), SD_OK);
    cr_assert_eq(sd_corpus_n_copies(c), 0);
    cr_assert_null(sd_corpus_copy_at(c, 0));
    sd_corpus_close(c);
    unlink(temp_path());
    free(data);
}

Test(corpus_index, a_suffix_array_out_of_bounds_or_out_of_order_is_refused_even_with_a_right_hash) {
    int n = 60;
    int32_t *t = make_text(n, 4, 12, 1);
    cr_assert_eq(sd_corpus_write(temp_path(), t, n, NULL, 0, "fp", NULL, NULL), SD_OK);
    char *data;
    size_t len;
    cr_assert_eq(sd_file_read(&data, &len, temp_path(), 1 << 20, NULL), SD_OK);
    sd_corpus *c;
    sd_error err;
    int32_t *sa = (int32_t *)(void *)(data + 256) + n, wrong[] = {n, -1, INT32_MAX, INT32_MIN};
    for (int i = 0; i < n; i++) {
        int32_t keep = sa[i];
        for (int k = 0; k < 4; k++) {
            sa[i] = wrong[k];
            rehash(data, len);
            sd_file_write(temp_path(), data, len, NULL);
            cr_assert_eq(sd_corpus_open(&c, temp_path(), &err), SD_EFORMAT);
        }
        sa[i] = sa[(i + 1) % n]; // twice the same
        rehash(data, len);
        sd_file_write(temp_path(), data, len, NULL);
        cr_assert_eq(sd_corpus_open(&c, temp_path(), &err), SD_EFORMAT);
        sa[(i + 1) % n] = keep; // swapped
        rehash(data, len);
        sd_file_write(temp_path(), data, len, NULL);
        cr_assert_eq(sd_corpus_open(&c, temp_path(), &err), SD_EFORMAT);
        sa[(i + 1) % n] = sa[i];
        sa[i] = keep;
    }
    rehash(data, len); // and the untouched file opens
    sd_file_write(temp_path(), data, len, NULL);
    cr_assert_eq(sd_corpus_open(&c, temp_path(), &err), SD_OK);
    sd_corpus_close(c);
    unlink(temp_path());
    free(data);
    free(t);
}

Test(suffix_array, repetitive_texts_are_sorted_in_linear_time) {
    // 2 million letters that repeat with period 3: sorting by comparison would take hours.
    int n = 2000000;
    int32_t *t = malloc((size_t)n * 4), *sa = malloc((size_t)n * 4);
    for (int i = 0; i < n; i++) t[i] = i % 3;
    double begin = sd_now_s();
    cr_assert_eq(sd_suffix_array(sa, t, n, 3, NULL), SD_OK);
    cr_assert(sd_now_s() - begin < 20);
    // With period 3 the shorter of two suffixes of one phase is the smaller.
    for (int i = 1; i < n; i++)
        cr_assert(t[sa[i - 1]] < t[sa[i]] || (t[sa[i - 1]] == t[sa[i]] && sa[i - 1] > sa[i]));
    free(t);
    free(sa);
}

Test(corpus_index, a_lookup_takes_microseconds_even_where_thousands_of_tokens_follow) {
    // Every occurrence of token 0 is followed by another token, all but one of them different.
    int n = 400000;
    int32_t *t = malloc((size_t)n * 4);
    for (int i = 0; i < n; i += 2) t[i] = 0, t[i + 1] = 1 + i / 2;
    t[1] = t[3];
    t[n - 1] = -1;
    sd_corpus *c = open_index(t, n);
    sd_corpus_state s = sd_corpus_match(c, t, 1, 8);
    int64_t count;
    cr_assert_eq(sd_corpus_next(c, &s, NULL, &count), 2);
    cr_assert_eq(count, 2);
    double begin = sd_now_s();
    for (int i = 0; i < 10000; i++) {
        s = sd_corpus_match(c, t + (i * 37) % (n - 20), 16, 16);
        sd_corpus_next(c, &s, NULL, NULL);
    }
    cr_assert(sd_now_s() - begin < 20); // a scan of the interval would take minutes
    sd_corpus_close(c);
    free(t);
}

// A server looks things up for days; what happens to the file meanwhile is not its business.
Test(corpus_index, a_file_that_changes_after_it_was_opened_changes_no_lookup) {
    enum { N = 4000 };
    int32_t *t = make_text(N, 9, 30, 3);
    for (int how = 0; how < 2; how++) {
        sd_corpus *c;
        cr_assert_eq(sd_corpus_write(temp_path(), t, N, NULL, 0, "abc", NULL, NULL), SD_OK);
        cr_assert_eq(sd_corpus_open(&c, temp_path(), NULL), SD_OK);
        if (how == 0) {
            cr_assert_eq(truncate(temp_path(), 0), 0);
        } else {
            FILE *f = fopen(temp_path(), "r+b");
            cr_assert(f);
            for (int i = 0; i < 256 + 8 * N; i++) fputc(0x7f, f);
            fclose(f);
        }
        for (int i = 0; i < 500; i++) {
            int at = (int)(draw(i) % (N - 12)), depth;
            int64_t occurrences, most, count;
            int32_t next;
            brute(t, N, t + at, 8, 8, &depth, &occurrences, &next, &most);
            sd_corpus_state s = sd_corpus_match(c, t + at, 8, 8);
            cr_assert(s.depth == depth && s.hi - s.lo == occurrences);
            cr_assert_eq(sd_corpus_next(c, &s, NULL, &count), next);
        }
        sd_corpus_close(c);
        unlink(temp_path());
    }
    free(t);
}

// A table of where each first token begins is made only where the file is large beside it.
Test(corpus_index, a_token_of_a_high_number_is_found_without_a_table) {
    enum { N = 300, HIGH = (1 << 24) - 1 };
    int32_t *t = make_text(N, 5, 12, 9), *high = malloc(N * 4);
    for (int i = 0; i < N; i++) high[i] = t[i] == 4 ? HIGH : t[i];
    sd_corpus *low_index = open_index(t, N), *high_index = open_index(high, N);
    for (int i = 0; i < N - 8; i++) {
        sd_corpus_state a = sd_corpus_match(low_index, t + i, 6, 6),
                        b = sd_corpus_match(high_index, high + i, 6, 6);
        cr_assert(a.lo == b.lo && a.hi == b.hi && a.depth == b.depth);
        int32_t next = sd_corpus_next(low_index, &a, NULL, NULL);
        cr_assert_eq(sd_corpus_next(high_index, &b, NULL, NULL), next == 4 ? HIGH : next);
    }
    int32_t absent[] = {4, HIGH - 1, 1 << 20};
    for (int i = 0; i < 3; i++)
        cr_assert_eq(sd_corpus_match(high_index, absent + i, 1, 1).depth, 0);
    sd_corpus_close(low_index), sd_corpus_close(high_index);
    free(t), free(high);
}
