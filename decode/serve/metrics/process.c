#include "decode/serve/metrics/process.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

// Without the one that counts; -1: not known.
static int open_descriptors(void) {
    DIR *d = opendir("/proc/self/fd");
    int n = -2; // . and ..
    if (!d) return -1;
    while (readdir(d)) n++;
    closedir(d);
    return n - 1;
}

void sd_process_write(sd_metrics_text *t, int64_t started) {
    struct rusage used;
    if (getrusage(RUSAGE_SELF, &used) == 0)
        sd_text_single(t, "cpu_seconds_total", "counter", "Processor time, user and system.",
                       (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                           (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) * 1e-6);
    FILE *f = fopen("/proc/self/statm", "re");
    long long size, resident;
    if (f && fscanf(f, "%lld %lld", &size, &resident) == 2) {
        double page = (double)sysconf(_SC_PAGESIZE);
        sd_text_single(t, "virtual_memory_bytes", "gauge", "Address space.", (double)size * page);
        sd_text_single(t, "resident_memory_bytes", "gauge",
                       "Memory in use, with the read parts of mapped files.",
                       (double)resident * page);
    }
    if (f) fclose(f);
    int open = open_descriptors();
    if (open >= 0) sd_text_single(t, "open_fds", "gauge", "Open descriptors.", open);
    struct rlimit most;
    if (getrlimit(RLIMIT_NOFILE, &most) == 0)
        sd_text_single(t, "max_fds", "gauge", "Descriptors that may be open.",
                       (double)most.rlim_cur);
    sd_text_single(t, "start_time_seconds", "gauge", "When the server started, since 1970.",
                   (double)started);
}
