// A new program takes over the listening socket, so that a restart loses no request.
//
//     old                                         new
//     SIGUSR2: sd_handover_start  -- starts -->   sd_handover_socket: it does not listen anew
//     serves on                                   loads
//                                  <- "ready" --  sd_handover_report(NULL): it accepts
//     accepts no more, finishes, ends
//
// The new one finds the socket and a pipe to the old one at fixed descriptors, and the old one's process id in
// SPECDEC_HANDOVER. A new one that fails says why through the pipe, and the old one serves on.
#pragma once

#include "base/status.h"

#include <event2/event.h>
#include <sys/types.h>

typedef struct {
    pid_t pid; // of the program that is starting; 0: none
    int pipe;
    struct event *event;
    char said[512]; // through the pipe so far
    size_t n;
    void (*on_end)(void *ctx, pid_t pid, const char *why);
    void *ctx;
} sd_handover;

/// Starts `program` with these arguments and this process's environment. on_end is called once on the loop: process
/// `pid` is ready (why NULL), or `why` it is not; then h may start another. SD_EINVAL: one is starting already.
sd_status sd_handover_start(sd_handover *h, const char *program, char *const *arguments, int socket,
                            struct event_base *base, sd_error *err);
/// Ends a program that is starting, without a call of on_end. A zeroed one is fine.
void sd_handover_cancel(sd_handover *h);

/// The new program's side. *fd 0: nothing was handed over.
sd_status sd_handover_socket(int *fd, sd_error *err);
/// Tells the old program: why NULL: this one accepts. Once; without an old program, nothing.
void sd_handover_report(const char *why);
