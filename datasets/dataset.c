// A prepared file is opened in three steps that each distrust the one before: the manifest names
// the bytes, their hash and what they hold; the container's shape is checked, and held against it;
// then every place of every row is, as it comes into memory. Training reads only bytes that passed
// all three. Attributes inside the file say the same as the manifest: they are for others.
#include "datasets/dataset.h"

#include "base/files/json_file.h"
#include "base/files/map.h"
#include "base/files/path.h"
#include "base/json.h"
#include "base/memory.h"
#include "datasets/store/store.h"
#include "model/defaults.h"

#include <string.h>

enum { MAX_MANIFEST = 64 << 20 };
static const int64_t IN_MEMORY = 1000 * 1000 * 1000; // bytes of the three arrays

struct sd_dataset {
    char *path;
    sd_map map; // of the file, while the store is open
    sd_store_reader *store;
    sd_sha256 sha256, made_from;
    int64_t rows, records, tokens, supervised;
    int64_t vocab, largest; // tokens are below vocab; the largest that was seen
    int T;
    char *tokenizer, *chat_template, *source_text; // chat_template: may be NULL
    char *system;                                  // may be NULL
    int64_t system_records;                        // -1: not counted
    json_t *sources;
    sd_store_doc *doc;
    int64_t docs;
    int64_t *first_doc; // [rows + 1]
    // The container's rows [held, held + n_held), as they stand there.
    int32_t *chunk; // [3, chunk_rows, T]: tokens, labels, segments
    int64_t held, n_held;
    int32_t *used; // [chunk_rows]; of a dataset that is in memory [rows]
    // In memory without the padding, which without packing is most of the container; else NULL.
    int32_t *all; // [3, tokens]
    int64_t *at;  // [rows] a row's first place
};

// ---- verification ------------------------------------------------------------------------------

static bool has_count(int64_t *out, const json_t *manifest, const char *name) {
    const json_t *j = json_object_get(manifest, name);
    *out = json_integer_value(j);
    return json_is_integer(j) && *out >= 0;
}

static bool has_text(char **out, const json_t *manifest, const char *name) {
    const char *s = json_string_value(json_object_get(manifest, name));
    *out = s ? sd_strdup(s) : NULL;
    return *out;
}

// An older manifest has no system text; one that is there is whole.
static bool has_system(sd_dataset *d, const json_t *manifest) {
    const json_t *j = json_object_get(manifest, "system"), *text = json_object_get(j, "text");
    d->system_records = -1;
    if (!j) return true;
    if (!has_count(&d->system_records, j, "records") || d->system_records > d->records)
        return false;
    if (json_is_null(text)) return true;
    return json_is_string(text) && json_string_length(text) <= SD_MAX_SYSTEM_TEXT &&
           has_text(&d->system, j, "text");
}

// Takes over what the manifest says of the file.
static sd_status take_manifest(sd_dataset *d, const json_t *j, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    const char *made_from = json_string_value(json_object_get(j, "made_from_sha256"));
    int64_t T = 0;
    d->vocab = INT32_MAX; // version 1 does not say
    bool whole = has_count(&d->rows, j, "rows") && has_count(&T, j, "sequence_len") &&
                 has_count(&d->records, j, "records") && has_count(&d->tokens, j, "tokens") &&
                 has_count(&d->supervised, j, "supervised") &&
                 has_text(&d->tokenizer, j, "tokenizer_sha256") &&
                 (!json_object_get(j, "chat_template_sha256") ||
                  has_text(&d->chat_template, j, "chat_template_sha256")) &&
                 (!json_object_get(j, "vocab") || has_count(&d->vocab, j, "vocab")) &&
                 has_system(d, j);
    d->sources = json_incref(json_object_get(j, "sources"));
    SD_CHECK(whole && T <= INT32_MAX && d->vocab <= INT32_MAX && made_from &&
                 strlen(made_from) == 64 && json_is_object(json_object_get(j, "recipe")) &&
                 json_is_array(d->sources),
             err, SD_EFORMAT, "%s: is malformed; prepare the data again", path);
    d->T = (int)T;
    memcpy(d->made_from.hex, made_from, 64);
    SD_TRY(sd_json_dump(&d->source_text, d->sources, JSON_COMPACT | JSON_REAL_PRECISION(17), err));
out:
    return st;
}

static sd_status check_manifest(sd_dataset *d, sd_error *err) {
    sd_status st = SD_OK;
    char *path = sd_sprintf("%s.manifest.json", d->path);
    json_t *j = NULL;
    SD_CHECK_ALLOC(path, err);
    sd_path_kind there;
    SD_TRY(sd_path_look(&there, d->path, err));
    SD_CHECK(there != SD_PATH_NONE, err, SD_ENOTFOUND, "%s: no such file; check the path", d->path);
    SD_TRY(sd_path_look(&there, path, err));
    SD_CHECK(there != SD_PATH_NONE, err, SD_ENOTFOUND,
             "%s: is missing, so %s cannot be verified; prepare the data again", path, d->path);
    SD_TRY(sd_json_read(&j, path, MAX_MANIFEST, JSON_REJECT_DUPLICATES, "prepare the data again",
                        err));
    const char *kind = json_string_value(json_object_get(j, "kind"));
    const char *hash = json_string_value(json_object_get(j, "sha256"));
    SD_CHECK(kind && strcmp(kind, "specdec dataset") == 0 && hash && strlen(hash) == 64, err,
             SD_EFORMAT, "%s: is not the manifest of a dataset; prepare the data again", path);
    json_int_t version = json_integer_value(json_object_get(j, "version"));
    SD_CHECK(version >= 1 && version <= SD_DATASET_VERSION, err, SD_EFORMAT,
             "%s: version %lld, this program reads versions 1 to %d; prepare the data again", path,
             (long long)version, SD_DATASET_VERSION);
    SD_TRY(take_manifest(d, j, path, err));
    SD_TRY(sd_map_open(&d->map, d->path, err));
    SD_TRY(sd_sha256_of_map(&d->sha256, &d->map, d->path, err));
    SD_CHECK(strcmp(d->sha256.hex, hash) == 0, err, SD_EMISMATCH,
             "%s: its SHA-256 is not the one in its manifest; the file is damaged or was replaced, "
             "prepare the data again",
             d->path);
out:
    json_decref(j);
    free(path);
    return st;
}

static sd_status check_docs(sd_dataset *d, sd_error *err) {
    sd_status st = SD_OK;
    d->first_doc = sd_alloc((size_t)d->rows + 2, sizeof *d->first_doc);
    SD_CHECK_ALLOC(d->first_doc, err);
    int32_t row = 0, segment = 0;
    for (int64_t i = 0; i < d->docs; i++) {
        const sd_store_doc *c = &d->doc[i];
        bool next_row = i > 0 && c->row == row + 1 && c->segment == 0;
        bool same_row = c->row == row && c->segment == segment;
        const json_t *source =
            json_array_get(d->sources, (size_t)(c->source >= 0 ? c->source : -1));
        SD_CHECK((same_row || next_row) && c->row < d->rows && c->record >= 0 && c->piece >= 0 &&
                     json_string_value(json_object_get(source, "path")),
                 err, SD_EFORMAT, "%s: entry %lld of docs is malformed; prepare the data again",
                 d->path, (long long)i);
        row = c->row;
        segment = c->segment + 1;
        d->first_doc[row + 1] = i + 1;
    }
    SD_CHECK(row == d->rows - 1, err, SD_EFORMAT,
             "%s: docs end at row %d of %lld; prepare the data again", d->path, row,
             (long long)d->rows);
out:
    return st;
}

static size_t chunk_plane(const sd_dataset *d) {
    return (size_t)sd_store_chunk_rows(d->store) * (size_t)d->T;
}

// Segments count up from 0 and padding comes last, labels are the token or none, tokens are tokens.
static sd_status check_row(int32_t *places, sd_dataset *d, int64_t row, sd_error *err) {
    size_t plane = chunk_plane(d);
    const int32_t *token = d->chunk + (size_t)(row - d->held) * (size_t)d->T,
                  *label = token + plane, *segment = label + plane;
    int32_t segments = (int32_t)(d->first_doc[row + 1] - d->first_doc[row]), before = -1;
    int i = 0;
    for (; i < d->T && segment[i] >= 0; i++) {
        bool begins = segment[i] == before + 1;
        if ((segment[i] != before && !begins) || token[i] < 0 || token[i] >= d->vocab ||
            (label[i] != SD_NO_LABEL && (label[i] != token[i] || begins)))
            break;
        before = segment[i];
        if (token[i] > d->largest) d->largest = token[i];
    }
    int used = i;
    for (; i < d->T && segment[i] == -1 && label[i] == SD_NO_LABEL && token[i] == 0;) i++;
    if (i < d->T || before + 1 != segments)
        return sd_fail(err, SD_EFORMAT,
                       "%s: row %lld is malformed at place %d; prepare the data again", d->path,
                       (long long)row, i);
    *places = used;
    return SD_OK;
}

/// The chunk that begins at row `begin`; used [n] gets each row's places before the padding.
static sd_status hold_chunk(sd_dataset *d, int32_t *used, int64_t begin, sd_error *err) {
    sd_status st = SD_OK;
    size_t plane = chunk_plane(d);
    int64_t cap = sd_store_chunk_rows(d->store), n = d->rows - begin < cap ? d->rows - begin : cap;
    int32_t *to = d->chunk;
    d->n_held = 0;
    SD_TRY(sd_store_read_rows(d->store, begin, n, to, to + plane, to + 2 * plane, err));
    d->held = begin;
    for (int64_t r = 0; r < n; r++) SD_TRY(check_row(&used[r], d, begin + r, err));
    d->n_held = n;
out:
    return st;
}

static sd_status wrong_totals(const sd_dataset *d, int64_t tokens, int64_t supervised,
                              sd_error *err) {
    return sd_fail(err, SD_EFORMAT,
                   "%s: holds %lld tokens, %lld supervised, but says %lld, %lld; prepare the data "
                   "again",
                   d->path, (long long)tokens, (long long)supervised, (long long)d->tokens,
                   (long long)d->supervised);
}

static sd_status hold_all(sd_dataset *d, sd_error *err) {
    sd_status st = SD_OK;
    size_t plane = chunk_plane(d), cap = (size_t)d->tokens;
    int64_t tokens = 0, supervised = 0;
    for (int64_t begin = 0; begin < d->rows; begin += d->n_held) {
        SD_TRY(hold_chunk(d, d->used + begin, begin, err));
        for (int64_t r = begin; r < begin + d->n_held; r++) {
            const int32_t *from = d->chunk + (size_t)(r - begin) * (size_t)d->T;
            size_t n = (size_t)d->used[r];
            d->at[r] = tokens;
            if (n > cap - (size_t)tokens) return wrong_totals(d, tokens + (int64_t)n, 0, err);
            for (size_t i = 0; i < 3; i++)
                memcpy(d->all + i * cap + tokens, from + i * plane, n * sizeof *from);
            tokens += (int64_t)n;
        }
    }
    for (int64_t i = 0; i < d->tokens; i++) supervised += d->all[(size_t)i + cap] != SD_NO_LABEL;
    if (tokens != d->tokens || supervised != d->supervised)
        return wrong_totals(d, tokens, supervised, err);
out:
    return st;
}

static sd_status prepare_buffers(sd_dataset *d, sd_error *err) {
    sd_status st = SD_OK;
    size_t places;
    SD_CHECK(d->tokens >= 0 && d->tokens / d->T <= d->rows, err, SD_EFORMAT,
             "%s: says it holds %lld tokens in %lld rows of %d; prepare the data again", d->path,
             (long long)d->tokens, (long long)d->rows, d->T);
    bool all = d->tokens <= IN_MEMORY / (int64_t)(3 * sizeof *d->all);
    SD_CHECK(sd_mul_size(&places, (size_t)sd_store_chunk_rows(d->store), (size_t)d->T), err,
             SD_ELIMIT, "%s: rows of %d tokens are too long; prepare the data again", d->path,
             d->T);
    d->chunk = sd_alloc(places, 3 * sizeof *d->chunk);
    d->used = sd_alloc((size_t)(all ? d->rows : sd_store_chunk_rows(d->store)), sizeof *d->used);
    if (all) d->all = sd_alloc((size_t)d->tokens, 3 * sizeof *d->all);
    if (all) d->at = sd_alloc((size_t)d->rows, sizeof *d->at);
    SD_CHECK(d->chunk && d->used && (!all || (d->all && d->at)), err, SD_ENOMEM,
             "out of memory for %s", d->path);
    if (!all) goto out;
    SD_TRY(hold_all(d, err));
    SD_TRY(sd_map_check(&d->map, d->path, err)); // what was read is what was hashed
    free(d->chunk);
    d->chunk = NULL;
    sd_store_close(d->store);
    d->store = NULL;
    sd_map_close(&d->map);
out:
    return st;
}

sd_status sd_dataset_open(sd_dataset **out, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    *out = NULL;
    sd_dataset *d = sd_alloc(1, sizeof *d);
    SD_CHECK_ALLOC(d, err);
    d->path = sd_strdup(path);
    SD_CHECK_ALLOC(d->path, err);
    SD_TRY(check_manifest(d, err));
    SD_TRY(sd_store_open(&d->store, &d->map, path, err));
    SD_CHECK(
        d->rows == sd_store_rows(d->store) && d->T == sd_store_length(d->store), err, SD_EFORMAT,
        "%s: holds %lld rows of %d, its manifest says %lld of %d; prepare the data again", path,
        (long long)sd_store_rows(d->store), sd_store_length(d->store), (long long)d->rows, d->T);
    SD_TRY(sd_store_read_docs(d->store, &d->doc, &d->docs, err));
    SD_TRY(check_docs(d, err));
    SD_TRY(prepare_buffers(d, err));
    *out = d, d = NULL;
out:
    sd_dataset_close(d);
    return st;
}

void sd_dataset_close(sd_dataset *d) {
    if (!d) return;
    sd_store_close(d->store);
    sd_map_close(&d->map);
    json_decref(d->sources);
    free(d->tokenizer);
    free(d->chat_template);
    free(d->system);
    free(d->source_text);
    free(d->doc);
    free(d->first_doc);
    free(d->chunk);
    free(d->used);
    free(d->all);
    free(d->at);
    free(d->path);
    free(d);
}

// ---- access ------------------------------------------------------------------------------------

int64_t sd_dataset_rows(const sd_dataset *d) {
    return d->rows;
}
int sd_dataset_sequence_len(const sd_dataset *d) {
    return d->T;
}
int64_t sd_dataset_tokens(const sd_dataset *d) {
    return d->tokens;
}
int64_t sd_dataset_supervised(const sd_dataset *d) {
    return d->supervised;
}
int64_t sd_dataset_records(const sd_dataset *d) {
    return d->records;
}
const sd_sha256 *sd_dataset_sha256(const sd_dataset *d) {
    return &d->sha256;
}
const sd_sha256 *sd_dataset_made_from(const sd_dataset *d) {
    return &d->made_from;
}
const char *sd_dataset_tokenizer(const sd_dataset *d) {
    return d->tokenizer;
}
const char *sd_dataset_chat_template(const sd_dataset *d) {
    return d->chat_template;
}
const char *sd_dataset_system(const sd_dataset *d, int64_t *records) {
    *records = d->system_records;
    return d->system;
}
const char *sd_dataset_sources(const sd_dataset *d) {
    return d->source_text;
}

sd_status sd_dataset_read(const sd_dataset *d, int64_t row, sd_dataset_row *out, sd_error *err) {
    if (row < 0 || row >= d->rows)
        return sd_fail(err, SD_EINVAL, "%s: there is no row %lld; rows are 0..%lld", d->path,
                       (long long)row, (long long)d->rows - 1);
    if (d->all) {
        const int32_t *token = d->all + d->at[row];
        *out = (sd_dataset_row){token, token + d->tokens, token + 2 * d->tokens, d->used[row]};
        return SD_OK;
    }
    if (row < d->held || row >= d->held + d->n_held) {
        sd_dataset *hold = (sd_dataset *)(uintptr_t)d; // its contents stay, what is held changes
        int64_t cap = sd_store_chunk_rows(d->store);
        sd_status st = hold_chunk(hold, d->used, row / cap * cap, err);
        if (st != SD_OK) return st;
    }
    size_t plane = chunk_plane(d);
    const int32_t *token = d->chunk + (size_t)(row - d->held) * (size_t)d->T;
    *out = (sd_dataset_row){token, token + plane, token + 2 * plane, d->used[row - d->held]};
    return SD_OK;
}

sd_status sd_dataset_expect(sd_dataset *d, const sd_tokenizer *t, sd_error *err) {
    sd_status st = SD_OK;
    int64_t vocab = sd_tokenizer_size(t);
    SD_CHECK(strcmp(d->tokenizer, sd_tokenizer_encoding(t)) == 0, err, SD_EMISMATCH,
             "%s: was made with another tokenizer than this model's; give its model, or prepare "
             "the data again",
             d->path);
    SD_CHECK(d->largest < vocab, err, SD_EFORMAT,
             "%s: holds token %lld, but the tokenizer has %lld; prepare the data again", d->path,
             (long long)d->largest, (long long)vocab);
    if (vocab < d->vocab) d->vocab = vocab; // of the rows that are read later
out:
    return st;
}

size_t sd_dataset_memory(const sd_dataset *d) {
    size_t per_row = sizeof *d->used + sizeof *d->first_doc + (d->all ? sizeof *d->at : 0);
    size_t places = d->all ? (size_t)d->tokens : chunk_plane(d);
    return places * 3 * sizeof *d->all + (size_t)d->rows * per_row +
           (size_t)d->docs * sizeof *d->doc;
}

sd_status sd_dataset_provenance(const sd_dataset *d, int64_t row, int segment, const char **source,
                                int64_t *record, sd_sha256 *hash, sd_error *err) {
    int64_t n = row >= 0 && row < d->rows ? d->first_doc[row + 1] - d->first_doc[row] : 0;
    if (segment < 0 || segment >= n)
        return sd_fail(err, SD_EINVAL, "%s: row %lld has no segment %d", d->path, (long long)row,
                       segment);
    const sd_store_doc *c = &d->doc[d->first_doc[row] + segment];
    if (source)
        *source = json_string_value(
            json_object_get(json_array_get(d->sources, (size_t)c->source), "path"));
    if (record) *record = c->record;
    if (hash) {
        static const char digit[] = "0123456789abcdef";
        *hash = (sd_sha256){{0}};
        for (int i = 0; i < 32; i++) {
            hash->hex[2 * i] = digit[c->sha256[i] >> 4];
            hash->hex[2 * i + 1] = digit[c->sha256[i] & 15];
        }
    }
    return SD_OK;
}
