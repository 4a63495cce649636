// The pipeline: one thread reads records and checks them, the pool renders and tokenises a batch at
// a time, one thread takes the results in the order of the records. So the file is the same for any
// number of threads, and the first bad record is the one that is reported.
#include "datasets/build/prepare.h"

#include "base/files/map.h"
#include "base/files/path.h"
#include "base/json.h"
#include "base/memory.h"
#include "datasets/build/recipe_key.h"
#include "datasets/build/token_store.h"
#include "datasets/build/writer.h"
#include "datasets/read/reader.h"

#include <string.h>

enum { BATCH = 256, BATCH_BYTES = 8 << 20 };

// One record on its way.
typedef struct {
    sd_example ex;
    sd_labelled labelled;
    char *where;
    int64_t line, record;
    int32_t source;
    uint8_t sha256[32];
    sd_status st;
    sd_error err;
} slot;

typedef struct {
    const sd_prepare_options *o;
    sd_label_options label;
    sd_prepare_report *report;
    sd_token_store *g;
    slot *slot; // [BATCH]
    int n;
    size_t bytes;                    // of the records in the batch
    int64_t bytes_before, bytes_all; // of the sources: finished ones, all
    sd_file_id *hashed;              // [n_sources]
} pipeline;

static bool full(const pipeline *p) {
    return p->o->max_records > 0 && p->report->records >= p->o->max_records;
}

// Records beyond max_records are not even looked at.
static int batch_size(const pipeline *p) {
    int64_t left = p->o->max_records - p->report->records;
    return p->o->max_records > 0 && left < BATCH ? (int)left : BATCH;
}

static void raw_hash(uint8_t raw[32], const sd_sha256 *hash) {
    for (int i = 0; i < 32; i++) {
        const char *h = hash->hex + 2 * i;
        int hi = h[0] <= '9' ? h[0] - '0' : h[0] - 'a' + 10;
        int lo = h[1] <= '9' ? h[1] - '0' : h[1] - 'a' + 10;
        raw[i] = (uint8_t)(hi * 16 + lo);
    }
}

// The hash as a number in [0, 1).
static double fraction(const uint8_t raw[32]) {
    uint64_t x = 0;
    for (int i = 0; i < 8; i++) x = x << 8 | raw[i];
    return (double)(x >> 11) * 0x1p-53;
}

// ---- gathering ---------------------------------------------------------------------------------

// Supervised tokens of the segment [from, from + n). Its first token has no context that predicts
// it, so it does not count.
static int64_t count_supervised(const slot *s, int from, int n) {
    int64_t count = 0;
    for (int i = from + 1; i < from + n; i++) count += s->labelled.supervised[i];
    return count;
}

// Rules about length and labels, then into the gathered data.
static sd_status take(pipeline *p, slot *s, sd_error *err) {
    sd_status st = SD_OK;
    sd_prepare_report *r = p->report;
    const sd_prepare_options *o = p->o;
    int n = s->labelled.ids.n, T = o->sequence_len;
    if (s->st != SD_OK) {
        *err = s->err;
        return s->st;
    }
    int whole = n;
    if (n > T && s->ex.kind != SD_EXAMPLE_TEXT) {
        SD_CHECK(o->overlong != SD_OVERLONG_ERROR, err, SD_ELIMIT,
                 "%d tokens do not fit sequence_len %d; raise it, or set overlong to skip or "
                 "truncate",
                 n, T);
        if (o->overlong == SD_OVERLONG_SKIP) {
            r->skipped++, r->overlong++;
            return SD_OK;
        }
        n = T;
        r->truncated++;
    }
    int64_t supervised = 0;
    for (int from = 0; from < n; from += T)
        supervised += count_supervised(s, from, n - from < T ? n - from : T);
    if (supervised == 0) {
        SD_CHECK(o->skip_empty_labels, err, SD_EFORMAT,
                 "no token of this record is supervised (%s); mend it, or skip such records",
                 s->ex.kind == SD_EXAMPLE_CHAT ? "no assistant turn to learn from" : "it is empty");
        r->skipped++, r->empty++;
        return SD_OK;
    }
    if (whole > r->longest) r->longest = whole;
    for (int from = 0, piece = 0; from < n; from += T, piece++) {
        int len = n - from < T ? n - from : T;
        // The last token of a text may be left for itself: a row that teaches nothing.
        if (count_supervised(s, from, len) == 0 && o->version != 1) continue;
        sd_segment segment = {
            .record = s->record, .length = len, .source = s->source, .piece = piece};
        memcpy(segment.sha256, s->sha256, sizeof segment.sha256);
        SD_TRY(sd_token_store_add(p->g, &segment, s->labelled.ids.id + from,
                                  s->labelled.supervised + from, err));
        r->tokens += len;
    }
    SD_TRY(sd_system_texts_add(&p->g->systems, &s->ex, err));
    r->supervised += supervised;
    r->records++;
out:
    return st;
}

// ---- batches -----------------------------------------------------------------------------------

static void label_task(void *ctx, int task, int worker) {
    (void)worker;
    pipeline *p = ctx;
    slot *s = &p->slot[task];
    s->st = sd_label_example(&s->labelled, &s->ex, &p->label, &s->err);
}

static sd_status flush(pipeline *p, sd_error *err) {
    sd_status st = SD_OK;
    sd_pool_run(p->o->pool, p->n, label_task, p);
    for (int i = 0; i < p->n; i++) {
        slot *s = &p->slot[i];
        if (st == SD_OK && !full(p)) {
            st = take(p, s, err);
            if (st != SD_OK) sd_error_prefix(err, "%s, line %lld", s->where, (long long)s->line);
        }
        sd_example_free(&s->ex);
        free(s->where);
        s->where = NULL;
    }
    p->n = 0;
    p->bytes = 0;
    return st;
}

static sd_status accept_record(pipeline *p, const sd_record *rec, int32_t source,
                               sd_data_format *format, sd_error *err) {
    sd_status st = SD_OK;
    slot *s = &p->slot[p->n];
    sd_sha256 hash;
    SD_TRY(sd_sha256_of(&hash, rec->bytes, rec->len, err));
    raw_hash(s->sha256, &hash);
    double u = fraction(s->sha256);
    const sd_prepare_options *o = p->o;
    if ((o->keep_from != 0 || o->keep_to != 0) && (u < o->keep_from || u >= o->keep_to)) {
        p->report->left_out++;
        return SD_OK;
    }
    s->line = rec->line;
    s->record = rec->number;
    s->source = source;
    st = sd_example_make(&s->ex, rec, format, err);
    if (st != SD_OK) {
        sd_error_prefix(err, "%s, line %lld", rec->where, (long long)rec->line);
        goto out;
    }
    s->where = sd_strdup(rec->where);
    SD_CHECK_ALLOC(s->where, err);
    p->n++;
    p->bytes += rec->len;
out:
    if (st != SD_OK) sd_example_free(&s->ex);
    return st;
}

static sd_status read_source(pipeline *p, int32_t source, sd_error *err) {
    sd_status st = SD_OK;
    sd_reader *r = NULL;
    sd_data_format format = p->o->source[source].format;
    int64_t before = p->report->records;
    SD_TRY(sd_reader_open(&r, p->o->source[source].path, err));
    while (!full(p)) {
        const sd_record *rec;
        st = sd_reader_next(r, &rec, err);
        if (st == SD_OK && rec) st = accept_record(p, rec, source, &format, err);
        if (st != SD_OK) { // unless a record before this one is bad as well
            sd_error earlier = {0};
            sd_status other = flush(p, &earlier);
            if (other != SD_OK) st = other, *err = earlier;
            goto out;
        }
        if (rec && p->n < batch_size(p) && p->bytes < BATCH_BYTES) continue;
        SD_TRY(flush(p, err));
        if (p->o->progress)
            p->o->progress(p->o->progress_ctx, p->report->records,
                           p->bytes_before + sd_reader_position(r), p->bytes_all);
        if (!rec) break;
    }
    // The bytes read must be the bytes hashed; otherwise the file would be found again under
    // another key.
    SD_CHECK(sd_reader_is(r, &p->hashed[source]), err, SD_EMISMATCH,
             "%s: changed while it was read; run again when it is finished",
             p->o->source[source].path);
    p->bytes_before += sd_reader_size(r);
    json_t *about = json_array_get(p->g->sources, (size_t)source);
    SD_CHECK(json_object_set_new(about, "format", json_string(sd_format_name(format))) == 0 &&
                 json_object_set_new(about, "records", json_integer(p->report->records - before)) ==
                     0,
             err, SD_ENOMEM, "out of memory");
out:
    sd_reader_close(r);
    return st;
}

// ---- all of it ---------------------------------------------------------------------------------

sd_status sd_dataset_prepare(const char *out, const sd_prepare_options *o, sd_model *m,
                             sd_prepare_report *report, sd_error *err) {
    sd_status st = SD_OK;
    sd_error own = {0};
    sd_token_store g = {0};
    sd_prepare_report unwanted;
    if (!err) err = &own;
    if (!report) report = &unwanted;
    *report = (sd_prepare_report){0};
    pipeline p = {.o = o,
                  .label = {m, o->loss_on, o->train_on_eot, o->version == 1},
                  .report = report,
                  .g = &g,
                  .slot = sd_alloc(BATCH, sizeof(slot))};
    SD_CHECK_ALLOC(p.slot, err);
    SD_TRY(sd_prepare_check(o, m, err));
    for (int i = 0; i < o->n_sources; i++)
        SD_CHECK(!sd_same_file(out, o->source[i].path), err, SD_EINVAL,
                 "%s: is both the data and the file to write; give another output", out);
    p.hashed = sd_alloc((size_t)o->n_sources, sizeof *p.hashed);
    SD_CHECK_ALLOC(p.hashed, err);
    SD_TRY(sd_prepare_sources(&g.sources, &p.bytes_all, p.hashed, o, err));
    SD_TRY(sd_prepare_key(&g.key, o, g.sources, m, err));
    for (int i = 0; i < o->n_sources; i++) SD_TRY(read_source(&p, i, err));
    SD_CHECK(report->records > 0, err, SD_EFORMAT,
             "no record is left of %d source%s: %lld skipped, %lld outside the kept part",
             o->n_sources, o->n_sources == 1 ? "" : "s", (long long)report->skipped,
             (long long)report->left_out);
    SD_TRY(sd_dataset_write(out, &g, o, m, report, err));
out:
    for (int i = 0; p.slot && i < BATCH; i++) {
        sd_example_free(&p.slot[i].ex);
        sd_labelled_free(&p.slot[i].labelled);
        free(p.slot[i].where);
    }
    free(p.slot);
    free(p.hashed);
    sd_token_store_free(&g);
    return st;
}
