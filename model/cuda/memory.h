// A CUDA device beside its operations, for whatever runs a model there: the device itself, memory that goes with an
// owner, and copies of what lies anywhere. Inference and training have it from here.
//
//     SD_TRY(sd_cuda_find_device(&o.dev, device, err));
//     SD_CUDA_TRY(o.dev, o.dev->choose(device), "choosing the device");
//     SD_TRY(sd_cuda_take(&o, &p, bytes, "steps", err));
//     ...
//     sd_cuda_free_owned(&o); // whatever else happened
#pragma once

#include "base/status.h"
#include "kernels/cuda/device.h"

/// The table and the number of one of its devices. SD_EINVAL where there is no such number, else what sd_cuda_find says.
sd_status sd_cuda_find_device(const sd_cuda_device **dev, int device, sd_error *err);

/// SD_OK, or what an error number says of `doing`: SD_ENOMEM where the device has no memory for it.
sd_status sd_cuda_status(const sd_cuda_device *dev, int status, const char *doing, sd_error *err);
/// In a function with `sd_status st`, `err` and a label `out`.
#define SD_CUDA_TRY(dev, call, doing) SD_TRY(sd_cuda_status((dev), (call), (doing), err))

// ---- owned memory

/// Memory of the device and of host_alloc that goes with its owner.
typedef struct {
    const sd_cuda_device *dev;
    void **device, **host;
    int n_device, n_host, cap_device, cap_host;
    size_t bytes; // of both
} sd_cuda_owned;

/// *out <- memory that is freed with its owner. what: "weights", for messages.
sd_status sd_cuda_take(sd_cuda_owned *o, void **out, size_t bytes, const char *what, sd_error *err);
sd_status sd_cuda_take_host(sd_cuda_owned *o, void **out, size_t bytes, const char *what,
                            sd_error *err);
void sd_cuda_free_owned(sd_cuda_owned *o); // harmless on a zeroed one

// ---- upload.c

/// Copies on their way to the device, through two halves of host memory: one is written while the other is read.
typedef struct {
    const sd_cuda_device *dev;
    sd_cuda_stream *stream;
    char *host; // [2, half]
    size_t half, used;
    int at; // the half that is written
    sd_cuda_event *done[2];
} sd_cuda_upload;
sd_status sd_cuda_upload_open(sd_cuda_upload *u, const sd_cuda_device *dev, sd_cuda_stream *stream,
                              size_t half, sd_error *err);
/// Waits for the stream. A zeroed one is fine.
void sd_cuda_upload_close(sd_cuda_upload *u);
/// Room for bytes <= half; *out is written before the next call of sd_cuda_upload_send.
sd_status sd_cuda_upload_room(sd_cuda_upload *u, void **out, size_t bytes, sd_error *err);
/// to <- bytes of that room.
sd_status sd_cuda_upload_send(sd_cuda_upload *u, void *to, const void *from, size_t bytes,
                              sd_error *err);
/// to <- bytes of any memory, which may be used again at once.
sd_status sd_cuda_upload_copy(sd_cuda_upload *u, void *to, const void *from, size_t bytes,
                              sd_error *err);
