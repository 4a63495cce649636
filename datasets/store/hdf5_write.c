// Writing a container through the HDF5 library. Chunks hold about a MiB of one array, so that
// reading one row in random order decodes little and zstd still sees enough. Times are not tracked:
// the same contents give the same bytes.
#include "datasets/store/store.h"

#include "base/memory.h"

#include <errno.h>
#include <hdf5.h>
#include <pthread.h>
#include <string.h>

enum { FILTER_ZSTD = 32015, ZSTD_LEVEL = 3, CHUNK_PLACES = 1 << 18 };

enum { N_ARRAYS = 3 };
const char *const sd_store_arrays[N_ARRAYS] = {"tokens", "labels", "segments"};

struct sd_store {
    char *path, *name; // where it stands; what messages call it
    hid_t file, array[N_ARRAYS];
    int64_t rows;
    int T, chunk_rows;
};

// One lock for all of HDF5. Functions called *_locked expect it to be held.
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

// HDF5 1.10 does not survive an allocation that fails inside it, not even at its exit. So a call is
// made only while the memory that it takes is there; otherwise the library is left alone.
enum { ROOM = 16 << 20 };

static sd_status enter(const char *name, size_t bytes, sd_error *err) {
    if (!sd_memory_has_room(ROOM + bytes))
        return sd_fail(err, SD_ENOMEM, "%s: out of memory while writing it", name);
    pthread_mutex_lock(&lock);
    errno = 0;
    return SD_OK;
}

// errno holds the system's reason; the library's own messages say nothing to a user.
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

void sd_store_abandon(sd_store *s) {
    if (!s) return;
    if (enter(s->name, 0, NULL) == SD_OK) {
        close_locked(s);
        pthread_mutex_unlock(&lock);
    }
    free_store(s);
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
        // Mandatory: H5Pset_shuffle's may be left out of a chunk where memory is short, in silence.
        ok = H5Pset_chunk(plist, rank, chunk) >= 0 &&
             H5Pset_filter(plist, H5Z_FILTER_SHUFFLE, H5Z_FLAG_MANDATORY, 0, NULL) >= 0 &&
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
        s->array[i] = create_dataset(s->file, sd_store_arrays[i], H5T_STD_I32LE, 2, dims, chunk);
        if (s->array[i] < 0) return unwritten(s, sd_store_arrays[i], err);
    }
    return SD_OK;
}

sd_status sd_store_create(sd_store **out, const char *path, const char *name, int64_t rows, int T,
                          sd_error *err) {
    *out = NULL;
    sd_store *s = NULL;
    sd_status st = enter(name, 0, err);
    if (st != SD_OK) return st;
    st = new_store(&s, path, name, err);
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

int sd_store_step(const sd_store *s) {
    return s->chunk_rows;
}

static bool write_array(sd_store *s, int which, int64_t begin, int64_t n, const int32_t *from) {
    hsize_t start[2] = {(hsize_t)begin, 0}, count[2] = {(hsize_t)n, (hsize_t)s->T};
    hid_t file_space = H5Dget_space(s->array[which]), memory = H5Screate_simple(2, count, NULL);
    bool ok =
        file_space >= 0 && memory >= 0 &&
        H5Sselect_hyperslab(file_space, H5S_SELECT_SET, start, NULL, count, NULL) >= 0 &&
        H5Dwrite(s->array[which], H5T_NATIVE_INT32, memory, file_space, H5P_DEFAULT, from) >= 0;
    if (file_space >= 0) H5Sclose(file_space);
    if (memory >= 0) H5Sclose(memory);
    return ok;
}

sd_status sd_store_write_rows(sd_store *s, int64_t begin, int64_t n, const int32_t *tokens,
                              const int32_t *labels, const int32_t *segments, sd_error *err) {
    const int32_t *from[N_ARRAYS] = {tokens, labels, segments};
    sd_status st = enter(s->name, (size_t)n * (size_t)s->T * sizeof *tokens, err);
    if (st != SD_OK) return st;
    for (int i = 0; i < N_ARRAYS && st == SD_OK; i++)
        if (!write_array(s, i, begin, n, from[i])) st = unwritten(s, sd_store_arrays[i], err);
    pthread_mutex_unlock(&lock);
    return st;
}

const sd_store_column sd_store_columns[SD_STORE_COLUMNS] = {
    {"row", offsetof(sd_store_doc, row), 4},       {"segment", offsetof(sd_store_doc, segment), 4},
    {"source", offsetof(sd_store_doc, source), 4}, {"piece", offsetof(sd_store_doc, piece), 4},
    {"record", offsetof(sd_store_doc, record), 8}, {"sha256", offsetof(sd_store_doc, sha256), 32},
};

static hid_t column_type(const sd_store_column *c, bool in_file) {
    if (c->size == 4) return in_file ? H5T_STD_I32LE : H5T_NATIVE_INT32;
    if (c->size == 8) return in_file ? H5T_STD_I64LE : H5T_NATIVE_INT64;
    return in_file ? H5T_STD_U8LE : H5T_NATIVE_UINT8;
}

static bool write_column(hid_t group, const sd_store_column *c, const sd_store_doc *docs, int64_t n,
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
    sd_status st = enter(s->name, (size_t)n * 32, err);
    if (st != SD_OK) {
        free(scratch);
        return st;
    }
    hid_t creation = H5Pcreate(H5P_GROUP_CREATE), group = -1;
    if (creation >= 0 && H5Pset_obj_track_times(creation, false) >= 0)
        group = H5Gcreate2(s->file, "docs", H5P_DEFAULT, creation, H5P_DEFAULT);
    if (group < 0) st = unwritten(s, "docs", err);
    for (int i = 0; i < SD_STORE_COLUMNS && st == SD_OK; i++)
        if (!write_column(group, &sd_store_columns[i], docs, n, scratch))
            st = unwritten(s, sd_store_columns[i].name, err);
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
    sd_status st = enter(s->name, 0, err);
    if (st != SD_OK) return st;
    st = set_attribute(s, name, H5T_NATIVE_INT64, &value, err);
    pthread_mutex_unlock(&lock);
    return st;
}

sd_status sd_store_set_text(sd_store *s, const char *name, const char *text, sd_error *err) {
    sd_status st = enter(s->name, strlen(text), err);
    if (st != SD_OK) return st;
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
    sd_status st = enter(s->name, 0, err);
    if (st != SD_OK) {
        free_store(s);
        return st;
    }
    if (H5Fflush(s->file, H5F_SCOPE_GLOBAL) < 0) st = unwritten(s, "the file", err);
    if (!close_locked(s) && st == SD_OK) st = unwritten(s, "the file", err);
    free_store(s);
    pthread_mutex_unlock(&lock);
    return st;
}
