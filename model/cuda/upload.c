// The host fills one half of its memory while the device reads the other; before a half is filled again, the event
// behind its last copy has passed.
#include "model/cuda/memory.h"

#include <string.h>

sd_status sd_cuda_upload_open(sd_cuda_upload *u, const sd_cuda_device *dev, sd_cuda_stream *stream,
                              size_t half, sd_error *err) {
    sd_status st = SD_OK;
    void *p = NULL;
    *u = (sd_cuda_upload){.dev = dev, .stream = stream, .half = half};
    SD_CUDA_TRY(dev, dev->host_alloc(&p, 2 * half), "host memory for copies");
    u->host = p;
    for (int i = 0; i < 2; i++) SD_CUDA_TRY(dev, dev->event_open(&u->done[i]), "an event");
out:
    if (st != SD_OK) sd_cuda_upload_close(u);
    return st;
}

void sd_cuda_upload_close(sd_cuda_upload *u) {
    if (!u->dev) return;
    (void)u->dev->stream_wait(u->stream); // a failure is the next call's
    for (int i = 0; i < 2; i++)
        if (u->done[i]) u->dev->event_close(u->done[i]);
    if (u->host) u->dev->host_free(u->host);
    *u = (sd_cuda_upload){0};
}

sd_status sd_cuda_upload_room(sd_cuda_upload *u, void **out, size_t bytes, sd_error *err) {
    sd_status st = SD_OK;
    bytes = (bytes + 63) / 64 * 64;
    SD_ASSERT(bytes <= u->half);
    if (u->used + bytes > u->half) {
        SD_TRY(sd_cuda_status(u->dev, u->dev->event_record(u->done[u->at], u->stream), "an event",
                              err));
        u->at = !u->at;
        u->used = 0;
        SD_TRY(sd_cuda_status(u->dev, u->dev->event_wait(u->done[u->at]), "a copy to the device",
                              err));
    }
    *out = u->host + (size_t)u->at * u->half + u->used;
    u->used += bytes;
out:
    return st;
}

sd_status sd_cuda_upload_send(sd_cuda_upload *u, void *to, const void *from, size_t bytes,
                              sd_error *err) {
    if (!bytes) return SD_OK;
    return sd_cuda_status(u->dev, u->dev->copy(to, from, bytes, u->stream), "a copy to the device",
                          err);
}

sd_status sd_cuda_upload_copy(sd_cuda_upload *u, void *to, const void *from, size_t bytes,
                              sd_error *err) {
    sd_status st = SD_OK;
    const size_t most = u->half / 64 * 64;
    for (size_t at = 0, n; at < bytes; at += n) {
        void *room;
        n = bytes - at < most ? bytes - at : most;
        SD_TRY(sd_cuda_upload_room(u, &room, n, err));
        memcpy(room, (const char *)from + at, n);
        SD_TRY(sd_cuda_upload_send(u, (char *)to + at, room, n, err));
    }
out:
    return st;
}
