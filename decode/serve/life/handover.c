#include "decode/serve/life/handover.h"

#include "base/memory.h"
#include "decode/serve/life/service.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SOCKET_FD = 3, PIPE_FD = 4, ABOVE = 10 }; // ABOVE: copies stand out of the way of both
static const char variable[] = "SPECDEC_HANDOVER";
static const char ready_word[] = "ready\n";

// ---- the old program

static void forget(sd_handover *h) {
    if (h->event) event_free(h->event);
    if (h->pipe > 0) close(h->pipe);
    h->event = NULL, h->pipe = 0, h->pid = 0, h->n = 0;
}

// A program that has closed the pipe is at its end, or none that knows what it is for.
static void reap(const sd_handover *h, char *why, size_t size) {
    int status = 0;
    kill(h->pid, SIGKILL);
    while (waitpid(h->pid, &status, 0) < 0 && errno == EINTR) {
    }
    if (h->n > 0)
        snprintf(why, size, "%.*s", (int)strcspn(h->said, "\n"), h->said);
    else if (WIFEXITED(status))
        snprintf(why, size, "it ended with exit code %d before it was ready", WEXITSTATUS(status));
    else
        snprintf(why, size, "it was ended by signal %d before it was ready", WTERMSIG(status));
}

static void on_said(evutil_socket_t fd, short what, void *ctx) {
    (void)what;
    sd_handover *h = ctx;
    char why[sizeof h->said];
    ssize_t n = read((int)fd, h->said + h->n, sizeof h->said - 1 - h->n);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    h->n += n > 0 ? (size_t)n : 0;
    h->said[h->n] = '\0';
    if (strcmp(h->said, ready_word) == 0) {
        pid_t pid = h->pid;
        forget(h);
        h->on_end(h->ctx, pid, NULL);
    } else if (n <= 0 || h->n == sizeof h->said - 1) {
        reap(h, why, sizeof why);
        forget(h);
        h->on_end(h->ctx, 0, why);
    }
}

// This process's environment, and the variable.
static char **make_environment(char *own) {
    size_t n = 0;
    while (environ[n]) n++;
    char **out = sd_alloc(n + 2, sizeof *out);
    if (!out) return NULL;
    memcpy(out, environ, n * sizeof *out);
    out[n] = own;
    return out;
}

static int spawn(pid_t *pid, const char *program, char *const *arguments, int socket, int pipe) {
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attributes;
    sigset_t none;
    char own[64];
    snprintf(own, sizeof own, "%s=%d", variable, (int)getpid());
    char **environment = make_environment(own);
    if (!environment) return ENOMEM;
    sigemptyset(&none);
    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    int rc = posix_spawn_file_actions_adddup2(&files, socket, SOCKET_FD);
    if (!rc) rc = posix_spawn_file_actions_adddup2(&files, pipe, PIPE_FD);
    if (!rc) rc = posix_spawn_file_actions_addclosefrom_np(&files, PIPE_FD + 1);
    if (!rc) rc = posix_spawn(pid, program, &files, &attributes, arguments, environment);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&files);
    free(environment);
    return rc;
}

sd_status sd_handover_start(sd_handover *h, const char *program, char *const *arguments, int socket,
                            struct event_base *base, sd_error *err) {
    sd_status st = SD_OK;
    int ends[2] = {-1, -1}, copy = -1, pipe_copy = -1;
    if (h->pid != 0)
        return sd_fail(err, SD_EINVAL, "a new program is starting already, process %d",
                       (int)h->pid);
    SD_CHECK(getpid() != 1, err, SD_EINVAL,
             "process 1 cannot hand over, since its end is its container's; start a new container");
    SD_CHECK(pipe2(ends, O_CLOEXEC) == 0, err, SD_EIO, "a pipe: %s", strerror(errno));
    copy = fcntl(socket, F_DUPFD_CLOEXEC, ABOVE);
    pipe_copy = fcntl(ends[1], F_DUPFD_CLOEXEC, ABOVE);
    h->pipe = ends[0];
    SD_CHECK(copy >= 0 && pipe_copy >= 0 && fcntl(h->pipe, F_SETFL, O_NONBLOCK) == 0, err, SD_EIO,
             "descriptors for a new program: %s", strerror(errno));
    h->event = event_new(base, h->pipe, EV_READ | EV_PERSIST, on_said, h);
    SD_CHECK(h->event && event_add(h->event, NULL) == 0, err, SD_ENOMEM, "out of memory");
    int rc = spawn(&h->pid, program, arguments, copy, pipe_copy);
    SD_CHECK(rc == 0, err, SD_EIO, "%s: %s; is it there?", program, strerror(rc));
out:
    if (ends[1] >= 0) close(ends[1]);
    if (copy >= 0) close(copy);
    if (pipe_copy >= 0) close(pipe_copy);
    if (st != SD_OK) forget(h);
    return st;
}

void sd_handover_cancel(sd_handover *h) {
    if (h->pid > 0) {
        kill(h->pid, SIGKILL);
        waitpid(h->pid, NULL, 0);
    }
    forget(h);
}

// ---- the new one

static bool is_new(void) {
    const char *old = getenv(variable);
    return old && strtol(old, NULL, 10) == (long)getppid();
}

sd_status sd_handover_socket(int *fd, sd_error *err) {
    *fd = 0;
    if (!is_new()) return SD_OK;
    fcntl(PIPE_FD, F_SETFD, FD_CLOEXEC);
    sd_status st = sd_service_check_socket(SOCKET_FD, variable, err);
    if (st == SD_OK) *fd = SOCKET_FD;
    return st;
}

void sd_handover_report(const char *why) {
    if (!is_new()) return;
    const char *text = why ? why : ready_word;
    // The old program may be gone; then nobody waits.
    ssize_t n = write(PIPE_FD, text, strlen(text));
    (void)n;
    close(PIPE_FD);
    unsetenv(variable);
}
