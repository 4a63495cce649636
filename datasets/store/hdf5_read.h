// The part of the HDF5 file format that specdec's own files use, read without the HDF5 library.
//
// The library believes what a file says about itself: a hostile file makes it read beyond its
// buffers, allocate without bound or crash. Here every address and size is held against the file
// before it is used, every chunk against the array's shape, and what specdec never writes is
// refused. Specification: "HDF5 File Format Specification Version 3.0" (The HDF Group).
//
//     superblock version 2; object headers version 2; groups whose links stand in the header;
//     arrays of whole numbers in chunks, shuffled and zstd-compressed; chunks in a B-tree version 1
#pragma once

#include "base/files/map.h"
#include "base/status.h"

enum { SD_HDF5_MAX_CHUNK = 4 << 20 }; // bytes of one decoded chunk

typedef struct {
    const sd_map *map; // its bytes are read through the descriptor
    const char *name;  // what messages call the file
} sd_hdf5_file;

typedef struct {
    uint64_t at;
    uint32_t bytes; // as stored; 0: not seen
} sd_hdf5_chunk;

// An array [rows, width] of `size`-byte integers, cut into chunks of whole rows. Zeroed is valid.
typedef struct {
    int64_t rows, chunk_rows, n_chunks;
    int width, size;
    sd_hdf5_chunk *chunk; // [n_chunks]
    size_t stored, plain; // bytes: of the largest stored chunk, of a decoded one
} sd_hdf5_array;

/// The wanted array. width 0: any up to max_width.
typedef struct {
    int rank, size, width, max_width;
    bool is_signed;
} sd_hdf5_shape;

/// The address of the root group's header; SD_EFORMAT when it is no such file.
sd_status sd_hdf5_root(uint64_t *group, const sd_hdf5_file *f, sd_error *err);
/// The address of the object with that name in a group. SD_EFORMAT: missing, or a link to
/// elsewhere.
sd_status sd_hdf5_find(uint64_t *object, const sd_hdf5_file *f, uint64_t group, const char *name,
                       sd_error *err);
/// Reads and checks the array's description and where each of its chunks lies.
sd_status sd_hdf5_array_open(sd_hdf5_array *a, const sd_hdf5_file *f, uint64_t object,
                             const char *name, const sd_hdf5_shape *want, sd_error *err);
void sd_hdf5_array_close(sd_hdf5_array *a);
/// Chunk i decoded into plain [a->plain] bytes, little-endian as in the file. scratch holds
/// a->stored + a->plain bytes.
sd_status sd_hdf5_chunk_read(void *plain, void *scratch, const sd_hdf5_array *a,
                             const sd_hdf5_file *f, const char *name, int64_t i, sd_error *err);
