// Two buffers: the event loop fills one while the thread writes the other, and the lock is held for
// a copy or a swap.
//
// The thread asks poll() before each write and writes no more than a pipe takes in one piece, so
// that it sees the wish to end also while nobody reads. An error is said once, and once more when
// writing works again.
#include "decode/serve/http/access_log.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { QUEUE_BYTES = 1 << 20, LOOK_MS = 50, END_S = 1 };

struct sd_access_log {
    int fd;
    bool owned; // fd is closed at the end
    char *path;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t more;
    bool stop, reopen;
    double end; // s, when the thread gives up; set with stop
    sd_buf queue;
    atomic_llong lost;
    // The thread's own.
    bool failing, in_line; // the last write failed; the file ends within a line
};

static bool past_end(sd_access_log *log) {
    pthread_mutex_lock(&log->lock);
    bool past = log->stop && sd_now_s() >= log->end;
    pthread_mutex_unlock(&log->lock);
    return past;
}

// 0, or the error that ended it.
static int write_piece(sd_access_log *log, const char *data, size_t *len) {
    struct pollfd p = {.fd = log->fd, .events = POLLOUT};
    for (;;) {
        if (past_end(log)) return ETIMEDOUT;
        int ready = poll(&p, 1, LOOK_MS);
        if (ready < 0 && errno != EINTR) return errno;
        if (ready <= 0) continue;
        ssize_t n = write(log->fd, data, *len < PIPE_BUF ? *len : PIPE_BUF);
        if (n < 0 && errno != EAGAIN && errno != EINTR) return errno;
        if (n <= 0) continue;
        *len = (size_t)n;
        return 0;
    }
}

static void say_error(sd_access_log *log, int error) {
    if (!log->failing)
        sd_log(SD_LOG_WARN,
               "the access log %s cannot be written: %s; lines are lost and counted until it can",
               log->path, strerror(error));
    log->failing = true;
}

static int64_t count_lines(const char *data, size_t len) {
    int64_t n = 0;
    for (size_t i = 0; i < len; i++) n += data[i] == '\n';
    return n;
}

static void write_batch(sd_access_log *log, const sd_buf *batch) {
    size_t at = 0;
    int error = 0;
    if (log->failing && log->in_line) { // what follows an error begins a line
        size_t one = 1;
        if ((error = write_piece(log, "\n", &one)) == 0) log->in_line = false;
    }
    while (at < batch->len && !error) {
        size_t n = batch->len - at;
        error = write_piece(log, batch->data + at, &n);
        if (error) break;
        at += n;
        log->in_line = batch->data[at - 1] != '\n';
    }
    if (error) {
        atomic_fetch_add(&log->lost, count_lines(batch->data + at, batch->len - at));
        say_error(log, error);
    } else if (log->failing) {
        log->failing = false;
        sd_log(SD_LOG_INFO, "the access log %s is written again; %lld lines are lost so far",
               log->path, (long long)atomic_load(&log->lost));
    }
}

static int open_file(const char *path) {
    return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0666);
}

static void open_anew(sd_access_log *log) {
    int fd = open_file(log->path);
    if (fd < 0) {
        sd_log(SD_LOG_WARN, "the access log %s cannot be opened anew: %s; the old file is kept",
               log->path, strerror(errno));
        return;
    }
    close(log->fd);
    log->fd = fd;
    log->in_line = false;
}

static void *run(void *ctx) {
    sd_access_log *log = ctx;
    sd_buf batch = sd_buf_make(QUEUE_BYTES);
    pthread_mutex_lock(&log->lock);
    for (;;) {
        while (log->queue.len == 0 && !log->stop && !log->reopen)
            pthread_cond_wait(&log->more, &log->lock);
        bool reopen = log->reopen;
        log->reopen = false;
        if (reopen) {
            pthread_mutex_unlock(&log->lock);
            open_anew(log);
            pthread_mutex_lock(&log->lock);
            continue;
        }
        if (log->queue.len == 0) break;
        sd_buf full = log->queue;
        log->queue = batch;
        pthread_mutex_unlock(&log->lock);
        write_batch(log, &full);
        sd_buf_clear(&full);
        batch = full;
        pthread_mutex_lock(&log->lock);
    }
    pthread_mutex_unlock(&log->lock);
    sd_buf_free(&batch);
    return NULL;
}

sd_status sd_access_log_open(sd_access_log **out, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    sd_access_log *log = sd_alloc(1, sizeof *log);
    SD_CHECK_ALLOC(log, err);
    log->owned = strcmp(path, "-") != 0;
    log->queue = sd_buf_make(QUEUE_BYTES);
    log->path = sd_strdup(log->owned ? path : "on standard output");
    log->fd = log->owned ? open_file(path) : STDOUT_FILENO;
    SD_CHECK(log->fd >= 0, err, SD_EINVAL, "--access-log %s: %s; give a file that can be written",
             path, errno == ENXIO ? "a pipe that nobody reads" : strerror(errno));
    SD_CHECK_ALLOC(log->path, err);
    pthread_mutex_init(&log->lock, NULL);
    pthread_cond_init(&log->more, NULL);
    int rc = pthread_create(&log->thread, NULL, run, log);
    SD_CHECK(rc == 0, err, SD_EIO, "a thread for the access log: %s", strerror(rc));
    *out = log, log = NULL;
out:
    if (log) {
        if (log->owned && log->fd >= 0) close(log->fd);
        free(log->path);
        free(log);
    }
    return st;
}

void sd_access_log_add(sd_access_log *log, const char *line, size_t len) {
    pthread_mutex_lock(&log->lock);
    bool room = log->queue.len + len + 1 <= QUEUE_BYTES && sd_buf_add(&log->queue, line, len);
    if (room && !sd_buf_addc(&log->queue, '\n')) {
        log->queue.len -= len;
        room = false;
    }
    if (room) pthread_cond_signal(&log->more);
    pthread_mutex_unlock(&log->lock);
    if (!room && atomic_fetch_add(&log->lost, 1) == 0)
        sd_log(SD_LOG_WARN, "the access log %s is written too slowly; lines are lost and counted",
               log->path);
}

void sd_access_log_reopen(sd_access_log *log) {
    if (!log->owned) return;
    pthread_mutex_lock(&log->lock);
    log->reopen = true;
    pthread_cond_signal(&log->more);
    pthread_mutex_unlock(&log->lock);
}

int64_t sd_access_log_lost(const sd_access_log *log) {
    return (int64_t)atomic_load(&log->lost);
}

void sd_access_log_close(sd_access_log *log) {
    if (!log) return;
    pthread_mutex_lock(&log->lock);
    log->stop = true;
    log->end = sd_now_s() + END_S;
    pthread_cond_signal(&log->more);
    pthread_mutex_unlock(&log->lock);
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 2 * END_S;
    // Somebody else's bytes may have filled a shared pipe between poll() and write(): such a thread
    // is left to the end of the process.
    if (pthread_timedjoin_np(log->thread, NULL, &until) != 0) {
        pthread_detach(log->thread);
        return;
    }
    int64_t lost = sd_access_log_lost(log);
    if (lost)
        sd_log(SD_LOG_WARN, "the access log %s: %lld lines are lost", log->path, (long long)lost);
    if (log->owned) close(log->fd);
    pthread_cond_destroy(&log->more);
    pthread_mutex_destroy(&log->lock);
    sd_buf_free(&log->queue);
    free(log->path);
    free(log);
}
