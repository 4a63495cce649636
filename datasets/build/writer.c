// Segments get a row and a place in it, rows are written in order, a chunk's worth at a time; then
// the file is flushed, hashed, renamed, and the manifest follows. A crash between the two renames
// leaves a file whose manifest does not match, which is refused when opened.
#include "datasets/build/writer.h"

#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/json.h"
#include "base/memory.h"
#include "datasets/build/recipe_key.h"
#include "datasets/build/sequence_packing.h"
#include "datasets/store/store.h"
#include "model/chat.h"

#include <string.h>
#include <sys/stat.h>

typedef struct {
    int32_t rows;
    int32_t *row, *place; // [segments]
    int32_t *order;       // [segments] by row, then place
    int32_t *first;       // [rows + 1] of a row, in order
} layout;

static void layout_free(layout *l) {
    free(l->row);
    free(l->place);
    free(l->order);
    free(l->first);
}

static sd_status lay_out(layout *l, const sd_token_store *g, const sd_prepare_options *o,
                         sd_error *err) {
    sd_status st = SD_OK;
    int32_t n = (int32_t)g->n_segments, *length = sd_alloc((size_t)n, 4);
    l->row = sd_alloc((size_t)n, 4);
    l->place = sd_alloc((size_t)n, 4);
    l->order = sd_alloc((size_t)n, 4);
    l->first = sd_alloc((size_t)n + 2, 4);
    SD_CHECK(length && l->row && l->place && l->order && l->first, err, SD_ENOMEM,
             "out of memory for packing %d records", n);
    for (int32_t i = 0; i < n; i++) length[i] = g->segment[i].length;
    SD_TRY(
        sd_sequence_pack(l->row, l->place, &l->rows, length, n, o->sequence_len, o->packing, err));
    for (int32_t i = 0; i < n; i++) l->first[l->row[i] + 1]++;
    for (int32_t r = 0; r < l->rows; r++) l->first[r + 1] += l->first[r];
    for (int32_t i = 0; i < n; i++) l->order[l->first[l->row[i]] + l->place[i]] = i;
out:
    free(length);
    return st;
}

static void fill_row(int32_t *token, int32_t *label, int32_t *segment, const layout *l, int32_t row,
                     const sd_token_store *g, int T) {
    int at = 0;
    for (int32_t k = l->first[row]; k < l->first[row + 1]; k++) {
        const sd_segment *p = &g->segment[l->order[k]];
        for (int32_t i = 0; i < p->length; i++, at++) {
            int32_t t = g->token[p->offset + i];
            token[at] = t & ~SD_SUPERVISED_BIT;
            label[at] = t & SD_SUPERVISED_BIT ? token[at] : SD_NO_LABEL;
            segment[at] = k - l->first[row];
        }
    }
    for (; at < T; at++) token[at] = 0, label[at] = SD_NO_LABEL, segment[at] = -1;
}

static sd_status write_rows(sd_store *s, const layout *l, const sd_token_store *g, int T,
                            sd_error *err) {
    sd_status st = SD_OK;
    int32_t step = sd_store_step(s);
    size_t places;
    int32_t *buf = NULL;
    SD_CHECK(sd_mul_size(&places, (size_t)step, (size_t)T), err, SD_ELIMIT, "rows are too long");
    buf = sd_alloc(places, 3 * sizeof *buf);
    SD_CHECK_ALLOC(buf, err);
    int32_t *token = buf, *label = buf + places, *segment = buf + 2 * places;
    for (int32_t r = 0; r < l->rows; r += step) {
        int32_t n = l->rows - r < step ? l->rows - r : step;
        for (int32_t k = 0; k < n; k++) {
            size_t at = (size_t)k * (size_t)T;
            fill_row(token + at, label + at, segment + at, l, r + k, g, T);
        }
        SD_TRY(sd_store_write_rows(s, r, n, token, label, segment, err));
    }
out:
    free(buf);
    return st;
}

static sd_status write_docs(sd_store *s, const layout *l, const sd_token_store *g, sd_error *err) {
    sd_store_doc *docs = sd_alloc((size_t)g->n_segments, sizeof *docs);
    if (!docs) return sd_fail(err, SD_ENOMEM, "out of memory");
    for (int64_t k = 0; k < g->n_segments; k++) {
        int32_t i = l->order[k];
        const sd_segment *p = &g->segment[i];
        docs[k] = (sd_store_doc){.row = l->row[i],
                                 .segment = l->place[i],
                                 .source = p->source,
                                 .piece = p->piece,
                                 .record = p->record};
        memcpy(docs[k].sha256, p->sha256, 32);
    }
    sd_status st = sd_store_write_docs(s, docs, g->n_segments, err);
    free(docs);
    return st;
}

static sd_status set_json(sd_store *s, const char *name, const json_t *value, sd_error *err) {
    char *text = NULL;
    sd_status st = sd_json_dump(&text, value, JSON_COMPACT | JSON_REAL_PRECISION(17), err);
    if (st == SD_OK) st = sd_store_set_text(s, name, text, err);
    free(text);
    return st;
}

static sd_status write_attributes(sd_store *s, const sd_token_store *g, const sd_prepare_options *o,
                                  const sd_model *m, const sd_prepare_report *r, sd_error *err) {
    sd_status st = SD_OK;
    const char *chat = m->chat ? sd_template_source(m->chat) : "";
    sd_sha256 chat_hash;
    json_t *recipe = sd_prepare_recipe(o);
    SD_CHECK_ALLOC(recipe, err);
    SD_TRY(sd_sha256_of(&chat_hash, chat, strlen(chat), err));
    SD_TRY(sd_store_set_int(s, "version", SD_DATASET_VERSION, err));
    SD_TRY(sd_store_set_int(s, "vocab", sd_tokenizer_size(m->tokenizer), err));
    SD_TRY(sd_store_set_int(s, "records", r->records, err));
    SD_TRY(sd_store_set_int(s, "skipped", r->skipped, err));
    SD_TRY(sd_store_set_int(s, "tokens", r->tokens, err));
    SD_TRY(sd_store_set_int(s, "supervised", r->supervised, err));
    SD_TRY(sd_store_set_text(s, "tokenizer_sha256", sd_tokenizer_encoding(m->tokenizer), err));
    SD_TRY(sd_store_set_text(s, "chat_template", chat, err));
    SD_TRY(sd_store_set_text(s, "chat_template_sha256", chat_hash.hex, err));
    SD_TRY(set_json(s, "recipe", recipe, err));
    SD_TRY(set_json(s, "sources", g->sources, err));
    SD_TRY(sd_store_set_text(s, "made_from_sha256", g->key.hex, err));
out:
    json_decref(recipe);
    return st;
}

static sd_status write_manifest(const char *out, const sd_sha256 *file, int64_t bytes,
                                const sd_token_store *g, const sd_prepare_options *o,
                                const sd_model *m, const sd_prepare_report *r, sd_error *err) {
    sd_status st = SD_OK;
    char *path = NULL, *text = NULL, *page = NULL;
    json_t *j = json_pack(
        "{s:s, s:i, s:s, s:I, s:s, s:s, s:s, s:i, s:I, s:i, s:I, s:I, s:I, s:{s:s?, s:I}, s:o, "
        "s:O}",
        "kind", "specdec dataset", "version", SD_DATASET_VERSION, "file", sd_path_name(out),
        "bytes", (json_int_t)bytes, "sha256", file->hex, "made_from_sha256", g->key.hex,
        "tokenizer_sha256", sd_tokenizer_encoding(m->tokenizer), "vocab",
        sd_tokenizer_size(m->tokenizer), "rows", (json_int_t)r->rows, "sequence_len",
        o->sequence_len, "records", (json_int_t)r->records, "tokens", (json_int_t)r->tokens,
        "supervised", (json_int_t)r->supervised, "system", "text", g->systems.text, "records",
        (json_int_t)g->systems.records, "recipe", sd_prepare_recipe(o), "sources", g->sources);
    SD_CHECK(j || sd_memory_lost(), err, SD_EINVAL, "%s: the path is not UTF-8; choose another",
             out);
    if (j && sd_model_template_is_taken(m)) {
        const char *chat = sd_template_source(m->chat);
        sd_sha256 hash;
        SD_TRY(sd_sha256_of(&hash, chat, strlen(chat), err));
        SD_CHECK(json_object_set_new(j, "chat_template_sha256", json_string(hash.hex)) == 0, err,
                 SD_ENOMEM, "out of memory");
    }
    SD_TRY(sd_json_dump(&text, j, JSON_INDENT(1) | JSON_REAL_PRECISION(17), err));
    path = sd_sprintf("%s.manifest.json", out);
    SD_CHECK_ALLOC(path, err);
    page = sd_sprintf("%s\n", text);
    SD_CHECK_ALLOC(page, err);
    SD_TRY(sd_file_write(path, page, strlen(page), err));
out:
    json_decref(j);
    free(text);
    free(page);
    free(path);
    return st;
}

sd_status sd_dataset_write(const char *out, const sd_token_store *g, const sd_prepare_options *o,
                           const sd_model *m, sd_prepare_report *r, sd_error *err) {
    sd_status st = SD_OK;
    layout l = {0};
    sd_store *s = NULL;
    sd_replace file = {0};
    sd_sha256 hash;
    struct stat sb;
    SD_TRY(lay_out(&l, g, o, err));
    r->rows = l.rows;
    r->efficiency = (double)r->tokens / ((double)l.rows * o->sequence_len);
    SD_TRY(sd_replace_open_whole(&file, out, err));
    SD_TRY(sd_store_create(&s, file.tmp, out, l.rows, o->sequence_len, err));
    SD_TRY(write_rows(s, &l, g, o->sequence_len, err));
    SD_TRY(write_docs(s, &l, g, err));
    SD_TRY(write_attributes(s, g, o, m, r, err));
    sd_store *done = s;
    s = NULL;
    SD_TRY(sd_store_finish(done, err));
    SD_TRY(sd_sha256_of_file(&hash, file.tmp, err));
    SD_CHECK(stat(file.tmp, &sb) == 0, err, SD_EIO, "%s: cannot be read back", out);
    SD_TRY(sd_replace_commit(&file, err));
    SD_TRY(write_manifest(out, &hash, sb.st_size, g, o, m, r, err));
out:
    sd_store_abandon(s);
    sd_replace_abort(&file);
    layout_free(&l);
    return st;
}
