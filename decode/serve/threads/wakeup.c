#include "decode/serve/threads/wakeup.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static void on_signal(evutil_socket_t fd, short what, void *ctx) {
    (void)what;
    sd_wakeup *w = ctx;
    uint64_t count;
    if (read((int)fd, &count, sizeof count) < 0 && errno != EAGAIN) return;
    w->fn(w->ctx);
}

sd_status sd_wakeup_open(sd_wakeup *w, struct event_base *base, void (*fn)(void *ctx), void *ctx,
                         sd_error *err) {
    sd_status st = SD_OK;
    *w = (sd_wakeup){.fn = fn, .ctx = ctx};
    w->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    SD_CHECK(w->fd >= 0, err, SD_EIO, "eventfd: %s", strerror(errno));
    w->event = event_new(base, w->fd, EV_READ | EV_PERSIST, on_signal, w);
    if (!w->event) close(w->fd);
    SD_CHECK_ALLOC(w->event, err);
    event_add(w->event, NULL);
out:
    return st;
}

void sd_wakeup_signal(sd_wakeup *w) {
    uint64_t one = 1;
    if (write(w->fd, &one, sizeof one) < 0) return; // full is awake
}

void sd_wakeup_close(sd_wakeup *w) {
    if (!w->event) return;
    event_free(w->event);
    close(w->fd);
    *w = (sd_wakeup){0};
}
