#include "base/json.h"
#include "base/list.h"
#include "cli/common.h"
#include "cli/verbs/data.h"
#include "datasets/dataset.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    bool json;
} args;

static const sd_option rows[] = {SD_JSON_ROW(args, json, "as one JSON object"), {0}};

// One segment of the file.
typedef struct {
    char hash[65];
    const char *source;
    int64_t record;
    int length;
} segment;

enum { BUCKETS = 12 };
typedef struct {
    segment *seg;
    int64_t n, cap;
    int64_t duplicates; // records whose bytes stand in another record before them
    int longest, shortest, median, p95;
    int width; // of a bucket, tokens
    int64_t bucket[BUCKETS];
} stats;

static sd_status add_row(stats *s, const sd_dataset *d, int64_t row, sd_error *err) {
    sd_dataset_row r;
    sd_status st = sd_dataset_read(d, row, &r, err);
    if (st != SD_OK) return st;
    for (int i = 0, to; i < r.used; i = to) {
        for (to = i + 1; to < r.used && r.segment[to] == r.segment[i];) to++;
        if (!SD_GROW(s->seg, s->n + 1, s->cap)) return sd_fail(err, SD_ENOMEM, "out of memory");
        segment *g = &s->seg[s->n++];
        sd_sha256 hash;
        st = sd_dataset_provenance(d, row, r.segment[i], &g->source, &g->record, &hash, err);
        if (st != SD_OK) return st;
        memcpy(g->hash, hash.hex, sizeof g->hash);
        g->length = to - i;
    }
    return SD_OK;
}

static int by_length(const void *a, const void *b) {
    return ((const segment *)a)->length - ((const segment *)b)->length;
}

static int by_hash(const void *a, const void *b) {
    const segment *x = a, *y = b;
    int c = strcmp(x->hash, y->hash);
    if (c == 0) c = strcmp(x->source, y->source);
    return c ? c : (x->record > y->record) - (x->record < y->record);
}

static void summarise(stats *s) {
    qsort(s->seg, (size_t)s->n, sizeof *s->seg, by_hash);
    for (int64_t i = 1; i < s->n; i++) {
        const segment *x = &s->seg[i - 1], *y = &s->seg[i];
        bool same_record = x->record == y->record && strcmp(x->source, y->source) == 0;
        s->duplicates += strcmp(x->hash, y->hash) == 0 && !same_record; // pieces do not count
    }
    qsort(s->seg, (size_t)s->n, sizeof *s->seg, by_length);
    s->shortest = s->seg[0].length;
    s->longest = s->seg[s->n - 1].length;
    s->median = s->seg[s->n / 2].length;
    s->p95 = s->seg[s->n - 1 - s->n / 20].length;
    s->width = (s->longest - s->shortest) / BUCKETS + 1;
    for (int64_t i = 0; i < s->n; i++) s->bucket[(s->seg[i].length - s->shortest) / s->width]++;
}

static void print_text(const sd_dataset *d, const char *path, const stats *s, double efficiency) {
    printf("%s\n", path);
    printf("  records     %lld (%lld segments), %lld exact duplicates\n",
           (long long)sd_dataset_records(d), (long long)s->n, (long long)s->duplicates);
    printf("  tokens      %lld, %lld supervised (%.1f %%)\n", (long long)sd_dataset_tokens(d),
           (long long)sd_dataset_supervised(d),
           100 * (double)sd_dataset_supervised(d) / (double)sd_dataset_tokens(d));
    printf("  rows        %lld of %d, %.2f %% full\n", (long long)sd_dataset_rows(d),
           sd_dataset_sequence_len(d), 100 * efficiency);
    printf("  lengths     %d..%d tokens, median %d, 95 %% up to %d\n", s->shortest, s->longest,
           s->median, s->p95);
    printf("  tokenizer   %s\n  SHA-256     %s\n", sd_dataset_tokenizer(d),
           sd_dataset_sha256(d)->hex);
    int64_t most = 1;
    for (int k = 0; k < BUCKETS; k++)
        if (s->bucket[k] > most) most = s->bucket[k];
    for (int k = 0, from = s->shortest; k < BUCKETS && from <= s->longest; k++, from += s->width)
        printf("  %6d..%-6d %8lld %.*s\n", from, from + s->width - 1, (long long)s->bucket[k],
               (int)(40 * s->bucket[k] / most), "########################################");
}

static sd_status print_json(const sd_dataset *d, const char *path, const stats *s,
                            double efficiency, sd_error *err) {
    sd_status st = SD_OK;
    json_t *histogram = json_array(), *j = NULL;
    for (int k = 0, from = s->shortest; k < BUCKETS && from <= s->longest; k++, from += s->width)
        json_array_append_new(histogram,
                              json_pack("{s:i, s:i, s:I}", "from", from, "to", from + s->width - 1,
                                        "count", (json_int_t)s->bucket[k]));
    j = json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:f, s:{s:i, s:i, s:i, s:i}, s:O, s:s, s:s}",
        "file", path, "records", (json_int_t)sd_dataset_records(d), "segments", (json_int_t)s->n,
        "duplicates", (json_int_t)s->duplicates, "tokens", (json_int_t)sd_dataset_tokens(d),
        "supervised", (json_int_t)sd_dataset_supervised(d), "rows", (json_int_t)sd_dataset_rows(d),
        "sequence_len", sd_dataset_sequence_len(d), "efficiency", efficiency, "length", "min",
        s->shortest, "median", s->median, "p95", s->p95, "max", s->longest, "histogram", histogram,
        "tokenizer_sha256", sd_dataset_tokenizer(d), "sha256", sd_dataset_sha256(d)->hex);
    SD_TRY(sd_json_print(stdout, j, JSON_COMPACT, err));
    putchar('\n');
out:
    json_decref(histogram);
    json_decref(j);
    return st;
}

sd_status sd_data_stats(int argc, char **argv, sd_error *err) {
    sd_status st = SD_OK;
    args a = {0};
    sd_strings files;
    sd_dataset *d = NULL;
    stats s = {0};
    if (sd_verb_help("data stats FILE", "Sums up a prepared file.", rows, argc, argv)) return SD_OK;
    SD_TRY(sd_options_parse(&files, rows, &a, argc, argv, err));
    SD_CHECK(files.n == 1, err, SD_EINVAL, "data stats: %d files; give one prepared file", files.n);
    SD_TRY(sd_dataset_open(&d, files.item[0], err));
    for (int64_t r = 0; r < sd_dataset_rows(d); r++) SD_TRY(add_row(&s, d, r, err));
    summarise(&s);
    double places = (double)sd_dataset_rows(d) * sd_dataset_sequence_len(d);
    double efficiency = (double)sd_dataset_tokens(d) / places;
    if (a.json)
        SD_TRY(print_json(d, files.item[0], &s, efficiency, err));
    else
        print_text(d, files.item[0], &s, efficiency);
out:
    sd_dataset_close(d);
    free(s.seg);
    return st;
}
