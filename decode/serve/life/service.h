// What the manager of services is told, and the socket that it opened: systemd's protocols (sd_notify(3),
// sd_listen_fds(3)), which are a datagram and three variables of the environment. Without them, nothing.
#pragma once

#include "base/status.h"

/// Sends "READY=1" and the like to NOTIFY_SOCKET. What cannot be sent is lost: nobody depends on it.
void sd_service_notify(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/// "RELOADING=1", with the time that Type=notify-reload asks for.
void sd_service_notify_reloading(void);

/// The listening socket of LISTEN_FDS, when LISTEN_PID is this process; *fd 0: there is none. SD_EINVAL: there are
/// several, or it is no listening TCP socket. The variables are removed, so that no child takes them for its own.
sd_status sd_service_socket(int *fd, sd_error *err);
/// Is the descriptor a TCP socket that listens? Sets it up as the server's own: it does not block, and no program that is
/// started has it. `from` names it in the error.
sd_status sd_service_check_socket(int fd, const char *from, sd_error *err);
