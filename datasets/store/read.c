// Reading a container: the rows by chunk, the documents whole. No call reaches the HDF5 library.
#include "datasets/store/hdf5_read.h"
#include "datasets/store/store.h"

#include "base/memory.h"

#include <string.h>

enum { TOKENS, LABELS, SEGMENTS, N_ARRAYS, MAX_LENGTH = 1 << 20 };

struct sd_store_reader {
    sd_hdf5_file file;
    char *name;
    sd_hdf5_array array[N_ARRAYS];
    uint64_t docs;  // the group's header
    void *scratch;  // for one stored and one shuffled chunk of any array
    int32_t *plain; // [chunk_rows, T]
};

static void close_arrays(sd_store_reader *s) {
    for (int i = 0; i < N_ARRAYS; i++) sd_hdf5_array_close(&s->array[i]);
}

void sd_store_close(sd_store_reader *s) {
    if (!s) return;
    close_arrays(s);
    free(s->scratch);
    free(s->plain);
    free(s->name);
    free(s);
}

static sd_status open_arrays(sd_store_reader *s, uint64_t root, sd_error *err) {
    sd_status st = SD_OK;
    sd_hdf5_shape want = {.rank = 2, .size = 4, .max_width = MAX_LENGTH, .is_signed = true};
    const sd_hdf5_array *first = &s->array[TOKENS];
    size_t stored = 0;
    for (int i = 0; i < N_ARRAYS; i++) {
        uint64_t object;
        sd_hdf5_array *a = &s->array[i];
        SD_TRY(sd_hdf5_find(&object, &s->file, root, sd_store_arrays[i], err));
        SD_TRY(sd_hdf5_array_open(a, &s->file, object, sd_store_arrays[i], &want, err));
        want.width = first->width;
        SD_CHECK(a->rows == first->rows && a->chunk_rows == first->chunk_rows, err, SD_EFORMAT,
                 "%s: %s has another shape than tokens; prepare the data again", s->name,
                 sd_store_arrays[i]);
        if (a->stored > stored) stored = a->stored;
    }
    for (int i = 0; i < N_ARRAYS; i++) s->array[i].stored = stored; // one scratch for all
    s->scratch = sd_alloc(stored + first->plain, 1);
    s->plain = sd_alloc(first->plain, 1);
    SD_CHECK(s->scratch && s->plain, err, SD_ENOMEM, "out of memory for %s", s->name);
out:
    return st;
}

sd_status sd_store_open(sd_store_reader **out, const sd_map *map, const char *name, sd_error *err) {
    sd_status st = SD_OK;
    uint64_t root;
    *out = NULL;
    sd_store_reader *s = sd_alloc(1, sizeof *s);
    SD_CHECK_ALLOC(s, err);
    s->name = sd_strdup(name);
    SD_CHECK_ALLOC(s->name, err);
    s->file = (sd_hdf5_file){map, s->name};
    SD_TRY(sd_hdf5_root(&root, &s->file, err));
    SD_TRY(open_arrays(s, root, err));
    SD_TRY(sd_hdf5_find(&s->docs, &s->file, root, "docs", err));
    *out = s, s = NULL;
out:
    sd_store_close(s);
    return st;
}

int64_t sd_store_rows(const sd_store_reader *s) {
    return s->array[TOKENS].rows;
}
int sd_store_length(const sd_store_reader *s) {
    return s->array[TOKENS].width;
}
int sd_store_chunk_rows(const sd_store_reader *s) {
    return (int)s->array[TOKENS].chunk_rows;
}

sd_status sd_store_read_rows(sd_store_reader *s, int64_t begin, int64_t n, int32_t *tokens,
                             int32_t *labels, int32_t *segments, sd_error *err) {
    sd_status st = SD_OK;
    int32_t *into[N_ARRAYS] = {tokens, labels, segments};
    size_t T = (size_t)sd_store_length(s);
    int64_t step = sd_store_chunk_rows(s);
    for (int i = 0; i < N_ARRAYS; i++)
        for (int64_t row = begin; row < begin + n;) {
            int64_t chunk = row / step, from = row % step;
            int64_t take = step - from < begin + n - row ? step - from : begin + n - row;
            SD_TRY(sd_hdf5_chunk_read(s->plain, s->scratch, &s->array[i], &s->file,
                                      sd_store_arrays[i], chunk, err));
            memcpy(into[i] + (size_t)(row - begin) * T, s->plain + (size_t)from * T,
                   (size_t)take * T * sizeof *s->plain);
            row += take;
        }
out:
    return st;
}

static sd_status read_column(sd_store_reader *s, const sd_store_column *c, sd_store_doc **docs,
                             int64_t *n, sd_error *err) {
    sd_status st = SD_OK;
    sd_hdf5_array a = {0};
    uint64_t object;
    uint8_t *plain = NULL, *scratch = NULL;
    bool hash = c->size == 32;
    sd_hdf5_shape want = {.rank = hash ? 2 : 1,
                          .size = hash ? 1 : (int)c->size,
                          .width = hash ? 32 : 1,
                          .max_width = 32,
                          .is_signed = !hash};
    SD_TRY(sd_hdf5_find(&object, &s->file, s->docs, c->name, err));
    SD_TRY(sd_hdf5_array_open(&a, &s->file, object, c->name, &want, err));
    // A row has at most T documents; each has at least one token.
    SD_CHECK(a.rows <= sd_store_rows(s) * sd_store_length(s) && (*n < 0 || a.rows == *n), err,
             SD_EFORMAT, "%s: docs/%s has %lld entries; prepare the data again", s->name, c->name,
             (long long)a.rows);
    plain = sd_alloc(a.plain, 1);
    scratch = sd_alloc(a.stored + a.plain, 1);
    SD_CHECK(plain && scratch, err, SD_ENOMEM, "out of memory for %s", s->name);
    if (*n < 0) {
        *docs = sd_alloc((size_t)a.rows, sizeof **docs);
        SD_CHECK_ALLOC(*docs, err);
        *n = a.rows;
    }
    for (int64_t i = 0; i < a.n_chunks; i++) {
        SD_TRY(sd_hdf5_chunk_read(plain, scratch, &a, &s->file, c->name, i, err));
        for (int64_t k = 0; k < a.chunk_rows && i * a.chunk_rows + k < *n; k++)
            memcpy((char *)&(*docs)[i * a.chunk_rows + k] + c->offset, plain + (size_t)k * c->size,
                   c->size);
    }
out:
    sd_hdf5_array_close(&a);
    free(plain);
    free(scratch);
    return st;
}

sd_status sd_store_read_docs(sd_store_reader *s, sd_store_doc **docs, int64_t *n, sd_error *err) {
    sd_status st = SD_OK;
    *docs = NULL;
    *n = -1;
    for (int i = 0; i < SD_STORE_COLUMNS; i++)
        SD_TRY(read_column(s, &sd_store_columns[i], docs, n, err));
out:
    if (st != SD_OK) {
        free(*docs);
        *docs = NULL;
    }
    return st;
}
