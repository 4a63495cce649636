// Hostile containers, by structure: whatever an HDF5 file says about itself is held against the
// file. Each row of the table plants one lie into a good file; reading it must name the fault.
#include "base/memory.h"
#include "datasets/store/hdf5_read.h"
#include "datasets/store/store.h"
#include "tests/unit/support/files.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <zstd.h>

enum { ROWS = 5, T = 1 << 17, STEP = 2 }; // three chunks an array

static char *good;
static size_t good_len;

// HDF5 leaks what it keeps for the process: it may not clear up at exit.
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
    return "leak:libhdf5";
}

static void make_good(void) {
    const char *path = temp_file("good.h5");
    sd_store *s;
    sd_error err = {0};
    int32_t *rows = sd_alloc((size_t)ROWS * T, sizeof *rows);
    for (size_t i = 0; i < (size_t)ROWS * T; i++) rows[i] = (int32_t)(i % 251);
    sd_store_doc doc[ROWS] = {{0}};
    for (int i = 0; i < ROWS; i++) doc[i].row = i, doc[i].record = 10 + i;
    cr_assert_eq(sd_store_create(&s, path, path, ROWS, T, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_store_step(s), STEP);
    for (int i = 0; i < ROWS; i += STEP) {
        const int32_t *at = rows + (size_t)i * T;
        cr_assert_eq(sd_store_write_rows(s, i, i + STEP > ROWS ? 1 : STEP, at, at, at, NULL),
                     SD_OK);
    }
    cr_assert_eq(sd_store_write_docs(s, doc, ROWS, NULL), SD_OK);
    sd_store_set_text(s, "recipe", "{}", NULL);
    cr_assert_eq(sd_store_finish(s, &err), SD_OK, "%s", err.message);
    free(rows);
    FILE *f = fopen(path, "rb");
    good = malloc(1 << 24);
    good_len = fread(good, 1, 1 << 24, f);
    fclose(f);
}

// Everything that there is to read. The message goes to err.
static sd_status read_all(const char *path, sd_error *err) {
    sd_map map = {0};
    sd_store_reader *s = NULL;
    sd_store_doc *docs = NULL;
    int64_t n = 0;
    int32_t *to = malloc((size_t)3 * STEP * T * sizeof *to);
    sd_status st = sd_map_open(&map, path, err);
    if (st == SD_OK) st = sd_store_open(&s, &map, path, err);
    if (st == SD_OK) st = sd_store_read_docs(s, &docs, &n, err);
    for (int64_t i = 0; st == SD_OK && i < sd_store_rows(s); i += STEP)
        st = sd_store_read_rows(s, i, i + STEP > ROWS ? 1 : STEP, to, to + STEP * T,
                                to + 2 * STEP * T, err);
    free(docs);
    free(to);
    sd_store_close(s);
    sd_map_close(&map);
    return st;
}

static const char *find(const char *in, const char *what, size_t n) {
    const char *p = memmem(in, good_len - (size_t)(in - good), what, n);
    cr_assert(p);
    return p;
}

static void put(char *at, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) at[i] = (char)(value >> 8 * i);
}

typedef struct {
    const char *lie, *anchor;
    size_t n_anchor; // bytes of it
    int offset, bytes;
    uint64_t value;
    const char *want; // part of the message
} lie;

#define AT(s) s, sizeof(s) - 1
// Where things begin: the index of the first array, its first and second entry; dimensions, chunks.
#define TREE AT("TREE\1")
#define DIMS AT("\5\0\0\0\0\0\0\0\0\0\2\0\0\0\0\0")
#define CHUNKS AT("\2\0\0\0\0\0\2\0\4\0\0\0")
#define TYPE AT("\x10\x08\0\0\4\0\0\0\0\0\x20\0")
#define ZSTD AT("\x0F\x7D")

static const lie lies[] = {
    {"signature", AT("\x89HDF"), 1, 1, 'X', "is not an HDF5 file"},
    {"superblock version", AT("\x89HDF"), 8, 1, 3, "is not an HDF5 file"},
    {"base address", AT("\x89HDF"), 12, 8, 512, "is not an HDF5 file"},
    {"end of the file", AT("\x89HDF"), 28, 8, 1ull << 40, "is cut short"},
    {"root outside", AT("\x89HDF"), 36, 8, 1ull << 62, "points outside"},
    {"root at the end", AT("\x89HDF"), 36, 8, UINT64_MAX, "points outside"},
    {"root in the data", AT("\x89HDF"), 36, 8, 0, "has no header"},
    {"rows beyond the file", DIMS, 0, 8, 20000000, "more than the file has room for"},
    {"rows beyond all", DIMS, 0, 8, UINT64_MAX, "does not fit"},
    {"no rows", DIMS, 0, 8, 0, "does not fit"},
    {"one more row", DIMS, 0, 8, 7, "lacks chunks"},
    {"fewer rows", DIMS, 0, 8, 4, "chunk where none belongs"},
    {"wider rows", DIMS, 8, 8, 1 << 18, "odd chunks"},
    {"rows of nothing", DIMS, 8, 8, 0, "does not fit"},
    {"chunks of nothing", CHUNKS, 0, 4, 0, "odd chunks"},
    {"larger chunks", CHUNKS, 0, 4, 5, "where none belongs"},
    {"huge chunks", CHUNKS, 0, 4, 0xFFFFFFFF, "odd chunks"},
    {"narrower chunks", CHUNKS, 4, 4, 1 << 16, "odd chunks"},
    {"chunks of other elements", CHUNKS, 8, 4, 8, "odd chunks"},
    {"element size", TYPE, 4, 4, 8, "another type"},
    {"floats", TYPE, 0, 1, 0x11, "another type"},
    {"big-endian", TYPE, 1, 1, 0x09, "another type"},
    {"other filter", ZSTD, 0, 2, 32001, "other filters"},
    {"filter's name beyond the message", ZSTD, 2, 2, 60000, "other filters"},
    {"filter's values beyond the message", ZSTD, 6, 2, 60000, "other filters"},
    {"index node", TREE, 0, 1, 'X', "chunk index"},
    {"index type", TREE, 4, 1, 0, "chunk index"},
    {"index level", TREE, 5, 1, 1, "chunk index"},
    {"index of great depth", TREE, 5, 1, 200, "chunk index"},
    {"no entries", TREE, 6, 2, 0, "chunk index"},
    {"too few entries", TREE, 6, 2, 2, "lacks chunks"},
    {"too many entries", TREE, 6, 2, 0xFFFF, ""},
    {"stored size 0", TREE, 24, 4, 0, "outside the file"},
    {"stored size beyond", TREE, 24, 4, 0xFFFFFFFF, "outside the file"},
    {"mask of zstd", TREE, 28, 4, 2, "not compressed"},
    {"mask of all", TREE, 28, 4, 3, "not compressed"},
    {"chunk of no row", TREE, 32, 8, 1, "where none belongs"},
    {"chunk beyond the rows", TREE, 32, 8, 6, "where none belongs"},
    {"chunk beside the rows", TREE, 40, 8, 1, "where none belongs"},
    {"chunk twice", TREE, 24 + 40 + 8, 8, 0, "chunk twice"},
    {"chunk outside", TREE, 56, 8, 1ull << 60, "outside the file"},
    {"chunk across the end", TREE, 56, 8, 0, ""}, // set to the file's last byte below
    {"chunk is a header", TREE, 56, 8, 0, "another size"},
};

Test(hdf5, every_lie_about_structure_is_refused_by_name, .init = make_good) {
    sd_error err = {0};
    const char *path = temp_bytes("lie.h5", good, good_len);
    cr_assert_eq(read_all(path, &err), SD_OK, "%s", err.message);
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        const lie *l = &lies[i];
        char *copy = malloc(good_len);
        memcpy(copy, good, good_len);
        char *at = copy + (find(good, l->anchor, l->n_anchor) - good) + l->offset;
        uint64_t value = l->value;
        if (strcmp(l->lie, "chunk across the end") == 0) value = good_len - 1;
        put(at, value, l->bytes);
        path = temp_bytes("lie.h5", copy, good_len);
        err = (sd_error){0};
        cr_expect_eq(read_all(path, &err), SD_EFORMAT, "%s: %s", l->lie, err.message);
        cr_expect(strstr(err.message, l->want), "%s: '%s' has no '%s'", l->lie, err.message,
                  l->want);
        cr_expect(strstr(err.message, "prepare the data again"), "%s: %s", l->lie, err.message);
        free(copy);
    }
}

// A frame of `bytes` zeros in place of the first array's first chunk, `more` bytes longer than it
// is.
static void expect_frame(size_t bytes, int more, bool content_size, const char *want) {
    char *copy = malloc(good_len + (1 << 22)), *zeros = calloc(1, bytes + 1);
    sd_error err = {0};
    memcpy(copy, good, good_len);
    char *entry = copy + (find(good, TREE) - good) + 24;
    ZSTD_CCtx *c = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(c, ZSTD_c_contentSizeFlag, content_size);
    size_t n = ZSTD_compress2(c, copy + good_len, 1 << 22, zeros, bytes);
    cr_assert_not(ZSTD_isError(n));
    put(entry, n + (size_t)more, 4);
    put(entry + 32, good_len, 8);
    const char *path = temp_bytes("frame.h5", copy, good_len + n + (size_t)more);
    cr_expect_eq(read_all(path, &err), *want ? SD_EFORMAT : SD_OK, "%zu bytes: %s", bytes,
                 err.message);
    cr_expect(strstr(err.message, want), "%zu bytes: '%s' has no '%s'", bytes, err.message, want);
    ZSTD_freeCCtx(c);
    free(copy);
    free(zeros);
}

Test(hdf5, a_frame_must_be_of_exactly_the_chunks_size, .init = make_good) {
    size_t chunk = (size_t)STEP * T * 4;
    expect_frame(chunk, 0, true, "");
    expect_frame(4, 0, true, "another size");
    expect_frame(0, 0, true, "another size");
    expect_frame(chunk - 1, 0, true, "another size");
    expect_frame(chunk + 1, 0, true, "another size");
    expect_frame(4 * chunk, 0, true, "another size");
    expect_frame(chunk, 3, true, "another size");
    expect_frame(chunk, 0, false, "another size");
}

Test(hdf5, a_file_that_ends_anywhere_is_refused, .init = make_good) {
    sd_error err = {0};
    for (size_t n = 1; n < good_len; n += n < 4096 ? 61 : 9973)
        cr_expect_neq(read_all(temp_bytes("cut.h5", good, n), &err), SD_OK, "%zu bytes", n);
}

// Every byte of the description, flipped and set: an error or the same shape, never a crash. (The
// sanitizer builds look at what is read on the way.)
Test(hdf5, no_byte_of_the_description_can_crash_the_reader, .init = make_good, .timeout = 600) {
    sd_error err;
    char *copy = malloc(good_len);
    sd_hdf5_shape want = {.rank = 2, .size = 4, .max_width = 1 << 20, .is_signed = true};
    const char *path = temp_file("flip.h5");
    memcpy(copy, good, good_len);
    size_t tree = (size_t)(find(good, TREE) - good), end = tree + 24 + 3 * 40;
    for (size_t i = 0; i < end; i += i < 1200 || i >= tree ? 1 : 37) {
        static const char set[] = {0x00, 0x7F, (char)0xFF};
        for (size_t k = 0; k < sizeof set; k++) {
            copy[i] = set[k];
            FILE *f = fopen(path, "r+b");
            if (!f) f = fopen(path, "wb"), fwrite(copy, 1, good_len, f);
            fseek(f, (long)i, SEEK_SET);
            fwrite(copy + i, 1, 1, f);
            fclose(f);
            sd_map map = {0};
            uint64_t root, object;
            sd_hdf5_array a = {0};
            cr_assert_eq(sd_map_open(&map, path, &err), SD_OK);
            sd_hdf5_file file = {&map, path};
            if (sd_hdf5_root(&root, &file, &err) == SD_OK &&
                sd_hdf5_find(&object, &file, root, "tokens", &err) == SD_OK &&
                sd_hdf5_array_open(&a, &file, object, "tokens", &want, &err) == SD_OK)
                cr_expect(a.rows == ROWS || a.rows == 6, "byte %zu", i); // 6: the same chunks
            sd_hdf5_array_close(&a);
            sd_map_close(&map);
        }
        copy[i] = good[i];
        FILE *f = fopen(path, "r+b");
        fseek(f, (long)i, SEEK_SET);
        fwrite(copy + i, 1, 1, f);
        fclose(f);
    }
    free(copy);
}
