// A prepared file with lies in its structure, under a manifest that names its hash. Blind bytes find
// nothing in HDF5, so the input is a list of changes to a good file: 12 bytes each,
//
//     place[2] what[1] width[1] value[8]
//
// a number set, added or flipped anywhere but in the chunks' contents; a frame of any size in place
// of a chunk; a count of the manifest.
#include "base/status.h"
#include "datasets/dataset.h"
#include "datasets/store/store.h"

#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zstd.h>

enum { T = 8, MAX_ROWS = 70, MAX_FILE = 1 << 17, MAX_ENTRIES = 1024, CHANGE = 12 };

typedef struct {
    char bytes[MAX_FILE];
    size_t len;
    int rows;
    size_t entry[MAX_ENTRIES]; // where the index entries stand
    int entry_rank[MAX_ENTRIES], entries;
    uint32_t place[MAX_FILE]; // bytes outside the chunks' contents
    int places;
} base_file;
static base_file base[2]; // of three chunks an array, and of so many that the index has two levels

static void check(bool ok) {
    if (!ok) abort();
}

static uint64_t number(const char *p, int n) {
    uint64_t x = 0;
    for (int i = n; i-- > 0;) x = x << 8 | (unsigned char)p[i];
    return x;
}

static void find_structure(base_file *b) {
    static char content[MAX_FILE];
    memset(content, 0, sizeof content);
    for (size_t i = 0; i + 24 < b->len; i++) {
        if (memcmp(b->bytes + i, "TREE\1", 5) != 0) continue;
        // Keys of two dimensions end with a 0 for the element, then the address of a chunk inside.
        int n = (int)number(b->bytes + i + 6, 2);
        for (int rank = 1; rank <= 2; rank++) {
            size_t key = 8 + 8 * (size_t)(rank + 1), at = i + 24;
            uint64_t size = number(b->bytes + at, 4), where = number(b->bytes + at + key, 8);
            if (where == 0 || where > b->len || size > b->len - where) continue;
            for (int k = 0; k < n && b->entries < MAX_ENTRIES; k++, at += key + 8) {
                size = number(b->bytes + at, 4), where = number(b->bytes + at + key, 8);
                memset(content + where, 1, (size_t)size);
                b->entry_rank[b->entries] = rank;
                b->entry[b->entries++] = at;
            }
            break;
        }
    }
    for (size_t i = 0; i < b->len; i++)
        if (!content[i]) b->place[b->places++] = (uint32_t)i;
    check(b->entries >= 9 && b->places > 100);
}

static void put_array(hid_t where, const char *name, hid_t type, const void *data, hsize_t rows,
                      hsize_t width, hsize_t step) {
    hsize_t dims[2] = {rows, width}, chunk[2] = {step, width};
    unsigned level = 3;
    int rank = width > 1 ? 2 : 1;
    hid_t space = H5Screate_simple(rank, dims, NULL), plist = H5Pcreate(H5P_DATASET_CREATE);
    check(H5Pset_chunk(plist, rank, chunk) >= 0 && H5Pset_shuffle(plist) >= 0 &&
          H5Pset_filter(plist, 32015, H5Z_FLAG_MANDATORY, 1, &level) >= 0);
    hid_t d = H5Dcreate2(where, name, type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    check(d >= 0 && H5Dwrite(d, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    H5Dclose(d);
    H5Pclose(plist);
    H5Sclose(space);
}

// As hdf5_write.c lays it out, but with chunks of few rows.
static void make_base(base_file *b, int rows, int step) {
    char path[64];
    static int32_t token[MAX_ROWS * T], label[MAX_ROWS * T], segment[MAX_ROWS * T];
    static int32_t row[MAX_ROWS], zero[MAX_ROWS];
    static int64_t record[MAX_ROWS];
    static uint8_t sha[MAX_ROWS * 32];
    snprintf(path, sizeof path, "/dev/shm/fuzz_base_%d.h5", (int)getpid());
    b->rows = rows;
    for (int i = 0; i < rows * T; i++)
        token[i] = i % 7, label[i] = i % T ? token[i] : SD_NO_LABEL, segment[i] = 0;
    for (int i = 0; i < rows; i++) row[i] = i, record[i] = i;
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    check(H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18) >= 0);
    hid_t f = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, access);
    hsize_t n = (hsize_t)rows, few = (hsize_t)step;
    put_array(f, "tokens", H5T_STD_I32LE, token, n, T, few);
    put_array(f, "labels", H5T_STD_I32LE, label, n, T, few);
    put_array(f, "segments", H5T_STD_I32LE, segment, n, T, few);
    hid_t docs = H5Gcreate2(f, "docs", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    put_array(docs, "row", H5T_STD_I32LE, row, n, 1, few);
    put_array(docs, "segment", H5T_STD_I32LE, zero, n, 1, few);
    put_array(docs, "source", H5T_STD_I32LE, zero, n, 1, few);
    put_array(docs, "piece", H5T_STD_I32LE, zero, n, 1, few);
    put_array(docs, "record", H5T_STD_I64LE, record, n, 1, few);
    put_array(docs, "sha256", H5T_STD_U8LE, sha, n, 32, few);
    H5Gclose(docs);
    H5Pclose(access);
    check(H5Fclose(f) >= 0);
    FILE *in = fopen(path, "rb");
    b->len = fread(b->bytes, 1, MAX_FILE, in);
    check(b->len < MAX_FILE);
    fclose(in);
    unlink(path);
    find_structure(b);
}

static void change(char *bytes, size_t *len, int64_t count[5], const base_file *b,
                   const uint8_t *c) {
    uint64_t value = number((const char *)c + 4, 8);
    unsigned place = c[0] | (unsigned)c[1] << 8;
    int width = 1 << (c[3] & 3);
    if (c[2] % 5 == 4) {
        count[place % 5] = (int64_t)value;
    } else if (c[2] % 5 == 3) { // a frame at the end, and an entry that names it
        static char zeros[1 << 12];
        char *entry = bytes + b->entry[place % (unsigned)b->entries];
        size_t key = 8 + 8 * (size_t)(b->entry_rank[place % (unsigned)b->entries] + 1);
        size_t n = ZSTD_compress(bytes + *len, MAX_FILE / 16, zeros, value % sizeof zeros, 1);
        if (ZSTD_isError(n)) return;
        for (int i = 0; i < 4; i++) entry[i] = (char)(n >> 8 * i);
        for (int i = 0; i < 8; i++) entry[key + (size_t)i] = (char)(*len >> 8 * i);
        *len += n;
    } else {
        size_t at = b->place[place % (unsigned)b->places];
        if (at + 8 > b->len) at = b->len - 8;
        uint64_t old = number(bytes + at, width);
        if (c[2] % 5 == 1) value = old + value % 512 - 256;
        if (c[2] % 5 == 2) value ^= old;
        for (int i = 0; i < width; i++) bytes[at + (size_t)i] = (char)(value >> 8 * i);
    }
}

static void write_manifest(const char *path, const char *bytes, size_t len,
                           const int64_t count[5]) {
    char text[1024], zero[65] = {0};
    sd_sha256 hash;
    sd_error err;
    memset(zero, '0', 64);
    check(sd_sha256_of(&hash, bytes, len, &err) == SD_OK);
    int n =
        snprintf(text, sizeof text,
                 "{\"kind\":\"specdec "
                 "dataset\",\"version\":2,\"sha256\":\"%s\",\"rows\":%lld,\"sequence_len\":"
                 "%lld,\"records\":5,\"tokens\":%lld,\"supervised\":%lld,\"vocab\":%lld,"
                 "\"tokenizer_sha256\":"
                 "\"x\",\"recipe\":{},\"sources\":[{\"path\":\"p\"}],\"made_from_sha256\":\"%s\"}",
                 hash.hex, (long long)count[0], (long long)count[1], (long long)count[2],
                 (long long)count[3], (long long)count[4], zero);
    FILE *f = fopen(path, "wb");
    check(f && fwrite(text, 1, (size_t)n, f) == (size_t)n && fclose(f) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static char bytes[MAX_FILE * 2];
    char path[64], manifest[96];
    sd_dataset *d = NULL;
    sd_error err;
    if (!base[0].len) {
        check(sd_store_zstd_register(&err) == SD_OK);
        make_base(&base[0], 5, 2), make_base(&base[1], MAX_ROWS, 1);
    }
    if (size < 1) return 0;
    const base_file *b = &base[data[0] % 4 == 3];
    size_t len = b->len;
    int64_t count[5] = {b->rows, T, b->rows * T, b->rows * (T - 1), 10};
    memcpy(bytes, b->bytes, b->len);
    for (size_t at = 1; at + CHANGE <= size && at < 1 + 16 * CHANGE; at += CHANGE)
        change(bytes, &len, count, b, data + at);
    snprintf(path, sizeof path, "/dev/shm/fuzz_dataset_%d.h5", (int)getpid());
    snprintf(manifest, sizeof manifest, "%s.manifest.json", path);
    FILE *f = fopen(path, "wb");
    check(f && fwrite(bytes, 1, len, f) == len && fclose(f) == 0);
    write_manifest(manifest, bytes, len, count);
    sd_status st = sd_dataset_open(&d, path, &err);
    if (size == 1) check(st == SD_OK); // the good file is good
    for (int64_t i = 0; st == SD_OK && i < sd_dataset_rows(d) && i < 64; i++) {
        sd_dataset_row row;
        const char *source;
        int64_t record;
        sd_sha256 hash;
        if (sd_dataset_read(d, i, &row, &err) != SD_OK) break;
        for (int k = 0; k < row.used; k++) check(row.token[k] >= 0 && row.token[k] < count[4]);
        sd_dataset_provenance(d, i, 0, &source, &record, &hash, &err);
    }
    sd_dataset_close(d);
    unlink(path);
    unlink(manifest);
    return 0;
}
