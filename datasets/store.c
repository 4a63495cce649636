// Chunks hold about a MiB of one array, so that reading one row in random order decodes little and
// zstd still sees enough. Times are not tracked: the same contents give the same bytes.
#include "datasets/store.h"

#include "base/memory.h"

#include <errno.h>
#include <hdf5.h>
#include <pthread.h>
#include <string.h>

enum { FILTER_ZSTD = 32015, ZSTD_LEVEL = 3, CHUNK_PLACES = 1 << 18, MAX_TEXT = 64 << 20 };

enum { TOKENS, LABELS, SEGMENTS, N_ARRAYS };
static const char *const array_name[N_ARRAYS] = {"tokens", "labels", "segments"};

struct sd_store {
    char *path, *name; // where it stands; what messages call it
    hid_t file, array[N_ARRAYS];
    int64_t rows;
    int T, chunk_rows;
};

// One lock for all of HDF5. Functions called *_locked expect it to be held.
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static sd_status unreadable(const sd_store *s, const char *what, sd_error *err) {
    return sd_fail(err, SD_EIO, "%s: HDF5 could not read %s; prepare the data again", s->name,
                   what);
}

static void enter(void) {
    pthread_mutex_lock(&lock);
    errno = 0;
}

// The system's reason is what errno was left at; the library's own say nothing to a user.
static sd_status unwritten(const sd_store *s, const char *what, sd_error *err) {
    int e = errno;
    const char *why = e == ENOSPC || e == EDQUOT ? "the disk is full"
                      : e                        ? strerror(e)
                                                 : "HDF5 gives no reason";
    return sd_fail(err, SD_EIO,
                   "%s: %s could not be written: %s; free space and run again, or give a path on "
                   "another disk",
                   s->name, what, why);
}

static void free_store(sd_store *s) {
    if (s) free(s->path), free(s->name);
    free(s);
}

static sd_status new_store(sd_store **out, const char *path, const char *name, sd_error *err) {
    static bool ready;
    sd_status st = SD_OK;
    sd_store *s = sd_alloc(1, sizeof *s);
    SD_CHECK_ALLOC(s, err);
    s->file = -1;
    for (int i = 0; i < N_ARRAYS; i++) s->array[i] = -1;
    s->path = sd_strdup(path);
    s->name = sd_strdup(name);
    SD_CHECK(s->path && s->name, err, SD_ENOMEM, "%s: out of memory", name);
    if (!ready) SD_TRY(sd_store_zstd_register(err));
    ready = true;
    *out = s, s = NULL;
out:
    free_store(s);
    return st;
}

static bool close_locked(sd_store *s) {
    bool ok = true;
    for (int i = 0; i < N_ARRAYS; i++)
        if (s->array[i] >= 0) ok = H5Dclose(s->array[i]) >= 0 && ok;
    if (s->file >= 0) ok = H5Fclose(s->file) >= 0 && ok;
    s->file = -1;
    for (int i = 0; i < N_ARRAYS; i++) s->array[i] = -1;
    return ok;
}

void sd_store_close(sd_store *s) {
    if (!s) return;
    enter();
    close_locked(s);
    free_store(s);
    pthread_mutex_unlock(&lock);
}

// ---- writing -----------------------------------------------------------------------------------

// A dataset [dims], in chunks and compressed unless chunk is NULL. -1 on failure.
static hid_t create_dataset(hid_t where, const char *name, hid_t type, int rank,
                            const hsize_t *dims, const hsize_t *chunk) {
    hid_t space = H5Screate_simple(rank, dims, NULL), plist = H5Pcreate(H5P_DATASET_CREATE);
    hid_t out = -1;
    unsigned level = ZSTD_LEVEL;
    bool ok = space >= 0 && plist >= 0 && H5Pset_obj_track_times(plist, false) >= 0;
    if (ok && chunk)
        ok = H5Pset_chunk(plist, rank, chunk) >= 0 && H5Pset_shuffle(plist) >= 0 &&
             H5Pset_filter(plist, FILTER_ZSTD, H5Z_FLAG_MANDATORY, 1, &level) >= 0;
    if (ok) out = H5Dcreate2(where, name, type, space, H5P_DEFAULT, plist, H5P_DEFAULT);
    if (space >= 0) H5Sclose(space);
    if (plist >= 0) H5Pclose(plist);
    return out;
}

static hid_t create_file(const char *path) {
    hid_t access = H5Pcreate(H5P_FILE_ACCESS), creation = H5Pcreate(H5P_FILE_CREATE), out = -1;
    // 1.8's format stores attributes of any size; h5py reads it everywhere.
    if (access >= 0 && creation >= 0 &&
        H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18) >= 0 &&
        H5Pset_obj_track_times(creation, false) >= 0)
        out = H5Fcreate(path, H5F_ACC_TRUNC, creation, access);
    if (access >= 0) H5Pclose(access);
    if (creation >= 0) H5Pclose(creation);
    return out;
}

static sd_status create_locked(sd_store *s, sd_error *err) {
    s->file = create_file(s->path);
    if (s->file < 0) return unwritten(s, "the file", err);
    hsize_t dims[2] = {(hsize_t)s->rows, (hsize_t)s->T};
    hsize_t chunk[2] = {(hsize_t)s->chunk_rows, (hsize_t)s->T};
    for (int i = 0; i < N_ARRAYS; i++) {
        s->array[i] = create_dataset(s->file, array_name[i], H5T_STD_I32LE, 2, dims, chunk);
        if (s->array[i] < 0) return unwritten(s, array_name[i], err);
    }
    return SD_OK;
}

sd_status sd_store_create(sd_store **out, const char *path, const char *name, int64_t rows, int T,
                          sd_error *err) {
    *out = NULL;
    sd_store *s = NULL;
    enter();
    sd_status st = new_store(&s, path, name, err);
    if (st == SD_OK) {
        s->rows = rows;
        s->T = T;
        int64_t fit = CHUNK_PLACES / T > 0 ? CHUNK_PLACES / T : 1;
        s->chunk_rows = (int)(fit < rows ? fit : rows);
        st = create_locked(s, err);
        if (st != SD_OK) close_locked(s), free_store(s);
        if (st == SD_OK) *out = s;
    }
    pthread_mutex_unlock(&lock);
    return st;
}

// Selects rows [begin, begin + n) and moves them between file and memory.
static bool transfer(sd_store *s, int which, int64_t begin, int64_t n, int32_t *into,
                     const int32_t *from) {
    hsize_t start[2] = {(hsize_t)begin, 0}, count[2] = {(hsize_t)n, (hsize_t)s->T};
    hid_t file_space = H5Dget_space(s->array[which]), memory = H5Screate_simple(2, count, NULL);
    bool ok = file_space >= 0 && memory >= 0 &&
              H5Sselect_hyperslab(file_space, H5S_SELECT_SET, start, NULL, count, NULL) >= 0;
    if (ok && from)
        ok =
            H5Dwrite(s->array[which], H5T_NATIVE_INT32, memory, file_space, H5P_DEFAULT, from) >= 0;
    if (ok && into)
        ok = H5Dread(s->array[which], H5T_NATIVE_INT32, memory, file_space, H5P_DEFAULT, into) >= 0;
    if (file_space >= 0) H5Sclose(file_space);
    if (memory >= 0) H5Sclose(memory);
    return ok;
}

sd_status sd_store_write_rows(sd_store *s, int64_t begin, int64_t n, const int32_t *tokens,
                              const int32_t *labels, const int32_t *segments, sd_error *err) {
    const int32_t *from[N_ARRAYS] = {tokens, labels, segments};
    sd_status st = SD_OK;
    enter();
    for (int i = 0; i < N_ARRAYS && st == SD_OK; i++)
        if (!transfer(s, i, begin, n, NULL, from[i])) st = unwritten(s, array_name[i], err);
    pthread_mutex_unlock(&lock);
    return st;
}

// One column of the documents: its name, its place in the struct and its type.
typedef struct {
    const char *name;
    size_t offset, size; // bytes; 32 for the hash
} column;
static const column columns[] = {
    {"row", offsetof(sd_store_doc, row), 4},       {"segment", offsetof(sd_store_doc, segment), 4},
    {"source", offsetof(sd_store_doc, source), 4}, {"piece", offsetof(sd_store_doc, piece), 4},
    {"record", offsetof(sd_store_doc, record), 8}, {"sha256", offsetof(sd_store_doc, sha256), 32},
};
enum { N_COLUMNS = sizeof columns / sizeof *columns };

static hid_t column_type(const column *c, bool in_file) {
    if (c->size == 4) return in_file ? H5T_STD_I32LE : H5T_NATIVE_INT32;
    if (c->size == 8) return in_file ? H5T_STD_I64LE : H5T_NATIVE_INT64;
    return in_file ? H5T_STD_U8LE : H5T_NATIVE_UINT8;
}

static bool write_column(hid_t group, const column *c, const sd_store_doc *docs, int64_t n,
                         char *scratch) {
    for (int64_t i = 0; i < n; i++)
        memcpy(scratch + (size_t)i * c->size, (const char *)&docs[i] + c->offset, c->size);
    int64_t fit = n < CHUNK_PLACES / 8 ? n : CHUNK_PLACES / 8;
    hsize_t dims[2] = {(hsize_t)n, 32}, chunk[2] = {(hsize_t)fit, 32};
    int rank = c->size == 32 ? 2 : 1;
    hid_t d = create_dataset(group, c->name, column_type(c, true), rank, dims, chunk);
    bool ok =
        d >= 0 && H5Dwrite(d, column_type(c, false), H5S_ALL, H5S_ALL, H5P_DEFAULT, scratch) >= 0;
    if (d >= 0) ok = H5Dclose(d) >= 0 && ok;
    return ok;
}

sd_status sd_store_write_docs(sd_store *s, const sd_store_doc *docs, int64_t n, sd_error *err) {
    char *scratch = sd_alloc((size_t)n, 32);
    if (!scratch) return sd_fail(err, SD_ENOMEM, "out of memory");
    sd_status st = SD_OK;
    enter();
    hid_t creation = H5Pcreate(H5P_GROUP_CREATE), group = -1;
    if (creation >= 0 && H5Pset_obj_track_times(creation, false) >= 0)
        group = H5Gcreate2(s->file, "docs", H5P_DEFAULT, creation, H5P_DEFAULT);
    if (group < 0) st = unwritten(s, "docs", err);
    for (int i = 0; i < N_COLUMNS && st == SD_OK; i++)
        if (!write_column(group, &columns[i], docs, n, scratch))
            st = unwritten(s, columns[i].name, err);
    if (creation >= 0) H5Pclose(creation);
    if (group >= 0 && H5Gclose(group) < 0 && st == SD_OK) st = unwritten(s, "docs", err);
    pthread_mutex_unlock(&lock);
    free(scratch);
    return st;
}

static sd_status set_attribute(sd_store *s, const char *name, hid_t type, const void *value,
                               sd_error *err) {
    hid_t space = H5Screate(H5S_SCALAR), a = -1;
    if (space >= 0) a = H5Acreate2(s->file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    bool ok = a >= 0 && H5Awrite(a, type, value) >= 0;
    if (a >= 0) ok = H5Aclose(a) >= 0 && ok;
    if (space >= 0) H5Sclose(space);
    return ok ? SD_OK : unwritten(s, name, err);
}

sd_status sd_store_set_int(sd_store *s, const char *name, int64_t value, sd_error *err) {
    enter();
    sd_status st = set_attribute(s, name, H5T_NATIVE_INT64, &value, err);
    pthread_mutex_unlock(&lock);
    return st;
}

sd_status sd_store_set_text(sd_store *s, const char *name, const char *text, sd_error *err) {
    enter();
    sd_status st = SD_OK;
    hid_t type = H5Tcopy(H5T_C_S1);
    if (type < 0 || H5Tset_size(type, strlen(text) + 1) < 0 || H5Tset_cset(type, H5T_CSET_UTF8) < 0)
        st = unwritten(s, name, err);
    else
        st = set_attribute(s, name, type, text, err);
    if (type >= 0) H5Tclose(type);
    pthread_mutex_unlock(&lock);
    return st;
}

sd_status sd_store_finish(sd_store *s, sd_error *err) {
    sd_status st = SD_OK;
    enter();
    if (H5Fflush(s->file, H5F_SCOPE_GLOBAL) < 0) st = unwritten(s, "the file", err);
    if (!close_locked(s) && st == SD_OK) st = unwritten(s, "the file", err);
    free_store(s);
    pthread_mutex_unlock(&lock);
    return st;
}

// ---- reading -----------------------------------------------------------------------------------

static sd_status odd(const sd_store *s, const char *what, const char *why, sd_error *err) {
    return sd_fail(err, SD_EFORMAT, "%s: %s %s; prepare the data again", s->name, what, why);
}

// Chunked, nothing outside the file, no filter but ours.
static const char *layout_fault(hid_t plist) {
    if (H5Pget_layout(plist) != H5D_CHUNKED) return "is not stored in chunks";
    if (H5Pget_external_count(plist) != 0) return "has parts in other files";
    int n = H5Pget_nfilters(plist);
    if (n < 0 || n > 2) return "has other filters than zstd";
    for (int i = 0; i < n; i++) {
        unsigned flags, config, values[8];
        size_t n_values = 8;
        char name[8];
        H5Z_filter_t f = H5Pget_filter2(plist, (unsigned)i, &flags, &n_values, values, sizeof name,
                                        name, &config);
        if (f != H5Z_FILTER_SHUFFLE && f != FILTER_ZSTD) return "has other filters than zstd";
    }
    return NULL;
}

// Opens a dataset by a hard link and checks everything about it before any of it is read.
static sd_status open_dataset(const sd_store *s, hid_t *out, hid_t where, const char *name,
                              size_t size, int rank, hsize_t dims[2], hsize_t chunk[2],
                              sd_error *err) {
    sd_status st = SD_OK;
    hid_t d = -1, type = -1, space = -1, plist = -1;
    H5L_info_t link;
    *out = -1;
    if (H5Lget_info(where, name, &link, H5P_DEFAULT) < 0) return odd(s, name, "is missing", err);
    if (link.type != H5L_TYPE_HARD) return odd(s, name, "is a link to elsewhere", err);
    d = H5Dopen2(where, name, H5P_DEFAULT);
    if (d < 0) return odd(s, name, "cannot be opened", err);
    type = H5Dget_type(d);
    space = H5Dget_space(d);
    plist = H5Dget_create_plist(d);
    const char *fault = NULL;
    if (type < 0 || space < 0 || plist < 0)
        fault = "cannot be described";
    else if (H5Tget_class(type) != H5T_INTEGER || H5Tget_size(type) != size ||
             H5Tget_order(type) == H5T_ORDER_BE)
        fault = "is of another type than expected";
    else if (H5Sget_simple_extent_ndims(space) != rank ||
             H5Sget_simple_extent_dims(space, dims, NULL) != rank)
        fault = "has another number of dimensions";
    else
        fault = layout_fault(plist);
    if (!fault && H5Pget_chunk(plist, rank, chunk) != rank) fault = "has odd chunks";
    if (fault) {
        st = odd(s, name, fault, err);
        goto out;
    }
    *out = d, d = -1;
out:
    if (plist >= 0) H5Pclose(plist);
    if (space >= 0) H5Sclose(space);
    if (type >= 0) H5Tclose(type);
    if (d >= 0) H5Dclose(d);
    return st;
}

static sd_status open_locked(sd_store *s, sd_error *err) {
    sd_status st = SD_OK;
    s->file = H5Fopen(s->path, H5F_ACC_RDONLY, H5P_DEFAULT);
    SD_CHECK(s->file >= 0, err, SD_EFORMAT,
             "%s: is not an HDF5 file that can be opened; prepare the data again", s->name);
    for (int i = 0; i < N_ARRAYS; i++) {
        hsize_t dims[2], chunk[2];
        SD_TRY(open_dataset(s, &s->array[i], s->file, array_name[i], 4, 2, dims, chunk, err));
        if (i == 0) {
            SD_CHECK(dims[0] >= 1 && dims[1] >= 1 && dims[0] < INT32_MAX && dims[1] <= 1 << 24, err,
                     SD_EFORMAT, "%s: %llu rows of %llu tokens; prepare the data again", s->name,
                     (unsigned long long)dims[0], (unsigned long long)dims[1]);
            s->rows = (int64_t)dims[0];
            s->T = (int)dims[1];
            s->chunk_rows = chunk[0] < dims[0] ? (int)chunk[0] : (int)dims[0];
        }
        SD_CHECK((int64_t)dims[0] == s->rows && (int)dims[1] == s->T && chunk[0] <= dims[0] &&
                     chunk[0] * chunk[1] <= (hsize_t)1 << 26,
                 err, SD_EFORMAT, "%s: %s has another shape than tokens; prepare the data again",
                 s->name, array_name[i]);
    }
out:
    return st;
}

sd_status sd_store_open(sd_store **out, const char *path, sd_error *err) {
    sd_store *s = NULL;
    *out = NULL;
    enter();
    sd_status st = new_store(&s, path, path, err);
    if (st == SD_OK) {
        st = open_locked(s, err);
        if (st != SD_OK) close_locked(s), free_store(s);
        if (st == SD_OK) *out = s;
    }
    pthread_mutex_unlock(&lock);
    return st;
}

int64_t sd_store_rows(const sd_store *s) {
    return s->rows;
}
int sd_store_length(const sd_store *s) {
    return s->T;
}
int sd_store_chunk_rows(const sd_store *s) {
    return s->chunk_rows;
}

sd_status sd_store_read_rows(sd_store *s, int64_t begin, int64_t n, int32_t *tokens,
                             int32_t *labels, int32_t *segments, sd_error *err) {
    int32_t *into[N_ARRAYS] = {tokens, labels, segments};
    sd_status st = SD_OK;
    enter();
    for (int i = 0; i < N_ARRAYS && st == SD_OK; i++)
        if (!transfer(s, i, begin, n, into[i], NULL)) st = unreadable(s, array_name[i], err);
    pthread_mutex_unlock(&lock);
    return st;
}

static sd_status read_column(sd_store *s, hid_t group, const column *c, sd_store_doc **docs,
                             int64_t *n, sd_error *err) {
    sd_status st = SD_OK;
    hid_t d = -1;
    char *raw = NULL;
    hsize_t dims[2] = {0, 32}, chunk[2];
    int rank = c->size == 32 ? 2 : 1;
    SD_TRY(
        open_dataset(s, &d, group, c->name, c->size == 32 ? 1 : c->size, rank, dims, chunk, err));
    // A row has at most T documents; each has at least one token.
    SD_CHECK(dims[0] >= 1 && dims[0] <= (hsize_t)s->rows * (hsize_t)s->T && dims[1] == 32 &&
                 (*n < 0 || (int64_t)dims[0] == *n),
             err, SD_EFORMAT, "%s: docs/%s has %llu entries; prepare the data again", s->name,
             c->name, (unsigned long long)dims[0]);
    if (*n < 0) {
        *n = (int64_t)dims[0];
        *docs = sd_alloc((size_t)*n, sizeof **docs);
        SD_CHECK_ALLOC(*docs, err);
    }
    raw = sd_alloc((size_t)*n, c->size);
    SD_CHECK_ALLOC(raw, err);
    if (H5Dread(d, column_type(c, false), H5S_ALL, H5S_ALL, H5P_DEFAULT, raw) < 0) {
        st = unreadable(s, c->name, err);
        goto out;
    }
    for (int64_t i = 0; i < *n; i++)
        memcpy((char *)&(*docs)[i] + c->offset, raw + (size_t)i * c->size, c->size);
out:
    free(raw);
    if (d >= 0) H5Dclose(d);
    return st;
}

sd_status sd_store_read_docs(sd_store *s, sd_store_doc **docs, int64_t *n, sd_error *err) {
    sd_status st = SD_OK;
    hid_t group = -1;
    H5L_info_t link;
    *docs = NULL;
    *n = -1;
    enter();
    if (H5Lget_info(s->file, "docs", &link, H5P_DEFAULT) >= 0 && link.type == H5L_TYPE_HARD)
        group = H5Gopen2(s->file, "docs", H5P_DEFAULT);
    if (group < 0) {
        st = odd(s, "docs", "is missing or a link to elsewhere", err);
        goto out;
    }
    for (int i = 0; i < N_COLUMNS; i++) SD_TRY(read_column(s, group, &columns[i], docs, n, err));
out:
    if (group >= 0) H5Gclose(group);
    pthread_mutex_unlock(&lock);
    if (st != SD_OK) {
        free(*docs);
        *docs = NULL;
    }
    return st;
}

// An attribute of / with one element of this class, or -1.
static hid_t open_attribute(sd_store *s, const char *name, H5T_class_t class, hid_t *type) {
    *type = -1;
    if (H5Aexists(s->file, name) <= 0) return -1;
    hid_t a = H5Aopen(s->file, name, H5P_DEFAULT), space = -1;
    if (a >= 0) *type = H5Aget_type(a);
    if (a >= 0) space = H5Aget_space(a);
    bool ok = *type >= 0 && space >= 0 && H5Tget_class(*type) == class &&
              H5Tis_variable_str(*type) <= 0 && H5Sget_simple_extent_npoints(space) == 1;
    if (space >= 0) H5Sclose(space);
    if (ok) return a;
    if (*type >= 0) H5Tclose(*type);
    if (a >= 0) H5Aclose(a);
    return -1;
}

sd_status sd_store_get_int(sd_store *s, const char *name, int64_t *value, sd_error *err) {
    sd_status st = SD_OK;
    hid_t type;
    enter();
    hid_t a = open_attribute(s, name, H5T_INTEGER, &type);
    if (a < 0 || H5Aread(a, H5T_NATIVE_INT64, value) < 0)
        st = odd(s, name, "is missing or of another type", err);
    if (a >= 0) H5Tclose(type), H5Aclose(a);
    pthread_mutex_unlock(&lock);
    return st;
}

sd_status sd_store_get_text(sd_store *s, const char *name, char **text, sd_error *err) {
    sd_status st = SD_OK;
    hid_t type;
    *text = NULL;
    enter();
    hid_t a = open_attribute(s, name, H5T_STRING, &type);
    size_t size = a >= 0 ? H5Tget_size(type) : 0;
    if (a < 0 || size == 0 || size > MAX_TEXT) {
        st = odd(s, name, "is missing or of another type", err);
    } else {
        *text = sd_alloc(size + 1, 1);
        if (!*text)
            st = sd_fail(err, SD_ENOMEM, "out of memory");
        else if (H5Aread(a, type, *text) < 0)
            st = unreadable(s, name, err);
    }
    if (a >= 0) H5Tclose(type), H5Aclose(a);
    pthread_mutex_unlock(&lock);
    if (st != SD_OK) {
        free(*text);
        *text = NULL;
    }
    return st;
}
