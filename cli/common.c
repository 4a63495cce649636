#include "cli/common.h"

#include <stdio.h>
#include <unistd.h>

void sd_progress(const char *what, int64_t done, int64_t total, double seconds) {
    static double last_line;
    static int64_t last_done = -1;
    bool tty = isatty(STDERR_FILENO), end = done >= total;
    if (done < last_done) last_line = 0;
    last_done = done;
    double eta = done > 0 ? seconds / (double)done * (double)(total - done) : 0;
    if (!tty) {
        if (!end && seconds - last_line < 10) return;
        last_line = seconds;
        fprintf(stderr, "%s %lld/%lld, %.0f s, about %.0f s left\n", what, (long long)done,
                (long long)total, seconds, eta);
        return;
    }
    enum { WIDTH = 24 };
    int full = total > 0 ? (int)(done * WIDTH / total) : WIDTH;
    fprintf(stderr, "\r%s [%.*s%*s] %lld/%lld %.0fs eta %.0fs\033[K", what, full,
            "========================", WIDTH - full, "", (long long)done, (long long)total,
            seconds, eta);
    if (end) fputc('\n', stderr);
}
