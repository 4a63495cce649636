// HDF5's registered filter 32015: a chunk is one zstd frame, cd_values[0] the level. Debian's
// library brings no such filter and would look for a plug-in; ours is compiled in, so plug-in
// loading stays off and a file cannot bring code with it.
#include "base/memory.h"
#include "datasets/store/store.h"

#include <hdf5.h>
#include <zstd.h>

enum { FILTER_ZSTD = 32015 };

static size_t compress_chunk(int level, size_t n, size_t *buf_size, void **buf) {
    size_t cap = ZSTD_compressBound(n);
    void *out = H5allocate_memory(cap, false);
    if (!out) return 0;
    size_t got = ZSTD_compress(out, cap, *buf, n, level);
    if (ZSTD_isError(got)) {
        H5free_memory(out);
        return 0;
    }
    H5free_memory(*buf);
    *buf = out;
    *buf_size = cap;
    return got;
}

static size_t zstd_filter(unsigned flags, size_t n_values, const unsigned values[], size_t n,
                          size_t *buf_size, void **buf) {
    if (flags & H5Z_FLAG_REVERSE) return 0; // the library reads nothing back
    return compress_chunk(n_values > 0 ? (int)values[0] : 3, n, buf_size, buf);
}

sd_status sd_store_zstd_register(sd_error *err) {
    static const H5Z_class2_t zstd = {
        .version = H5Z_CLASS_T_VERS,
        .id = FILTER_ZSTD,
        .encoder_present = 1,
        .decoder_present = 0,
        .name = "zstd",
        .filter = zstd_filter,
    };
    // At exit the library would close what a failed close left open, and crash in it.
    if (H5dont_atexit() < 0 || H5open() < 0 || H5Eset_auto2(H5E_DEFAULT, NULL, NULL) < 0 ||
        H5PLset_loading_state(0) < 0 || H5Zregister(&zstd) < 0)
        return sd_fail(err, SD_EIO, "HDF5: the library could not be set up");
    return SD_OK;
}
