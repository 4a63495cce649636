// A parent's limits bind its children, so that the smallest up to the mount point counts.
//
//     processors  v2: cpu.max ("200000 100000", "max 100000"); v1: cpu.cfs_quota_us (-1: none) and
//                 cpu.cfs_period_us; microseconds of processor time a period
//     memory      v2: memory.max ("max": none), memory.current; v1: memory.limit_in_bytes (huge: none),
//                 memory.usage_in_bytes; and in memory.stat the pages of files that can go at once
//
//     /proc/self/cgroup     "0::/a/b" (v2), "4:cpu,cpuacct:/a/b" (v1)
//     /proc/self/mountinfo  "41 31 0:38 ROOT MOUNTPOINT rw - cgroup2 cgroup2 rw"
//                           "32 31 0:29 ROOT MOUNTPOINT rw - cgroup cgroup rw,cpu"
// ROOT is the cgroup that is mounted at MOUNTPOINT.
#include "base/cgroup.h"

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LINE = 2 * PATH_MAX, MOST = 1 << 20 };

static bool read_line(char *line, int size, const char *path) {
    FILE *f = fopen(path, "re");
    bool read = f && fgets(line, size, f);
    if (f) fclose(f);
    return read;
}

// A file that begins with a number; *rest [64] <- what follows it, unless NULL.
static bool read_number(long long *out, char *rest, const char *folder, const char *name) {
    char path[LINE + 64], text[64], *end;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!read_line(text, sizeof text, path)) return false;
    *out = strtoll(text, &end, 10);
    if (rest) memcpy(rest, end, strlen(end) + 1);
    return end != text; // "max" is no number
}

// A controller, and what a folder of its tree leaves: 0: no limit, or it cannot be read.
typedef struct {
    const char *name;
    int64_t (*left)(const char *folder, bool v2);
} controller;

static int64_t whole(long long quota, long long period) {
    if (quota <= 0 || period <= 0) return 0;
    long long n = quota / period;
    return n < 1 ? 1 : n > MOST ? MOST : n;
}

static int64_t processors_left(const char *folder, bool v2) {
    char rest[64];
    long long quota, period;
    if (v2)
        return read_number(&quota, rest, folder, "cpu.max") ? whole(quota, strtoll(rest, NULL, 10))
                                                            : 0;
    return read_number(&quota, NULL, folder, "cpu.cfs_quota_us") &&
                   read_number(&period, NULL, folder, "cpu.cfs_period_us")
               ? whole(quota, period)
               : 0;
}

// The number behind a word at a line's begin; 0: there is no such line.
static long long number_behind(const char *path, const char *word) {
    char line[256];
    long long n = 0;
    size_t len = strlen(word);
    FILE *f = fopen(path, "re");
    while (f && n == 0 && fgets(line, sizeof line, f))
        if (strncmp(line, word, len) == 0) n = strtoll(line + len, NULL, 10);
    if (f) fclose(f);
    return n;
}

static int64_t memory_left(const char *folder, bool v2) {
    char path[LINE + 64];
    long long limit, used;
    if (!read_number(&limit, NULL, folder, v2 ? "memory.max" : "memory.limit_in_bytes") ||
        !read_number(&used, NULL, folder, v2 ? "memory.current" : "memory.usage_in_bytes") ||
        limit <= 0)
        return 0;
    snprintf(path, sizeof path, "%s/memory.stat", folder);
    used -= number_behind(path, v2 ? "inactive_file " : "total_inactive_file ");
    return used < 0 ? limit : used < limit ? limit - used : 1;
}

static bool has_word(const char *list, const char *word) {
    size_t n = strlen(word);
    for (const char *p = list; p; p = strchr(p, ',')) {
        if (*p == ',') p++;
        if (strncmp(p, word, n) == 0 && (p[n] == '\0' || p[n] == ',')) return true;
    }
    return false;
}

// The process's cgroup in the v2 tree, or in the v1 tree of the controller.
static bool own_cgroup(char *out, size_t size, const char *root, const char *name, bool v2) {
    char path[LINE], line[LINE];
    bool found = false;
    snprintf(path, sizeof path, "%s/proc/self/cgroup", root);
    FILE *f = fopen(path, "re");
    while (f && !found && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = '\0';
        char *list = strchr(line, ':'), *where = list ? strchr(list + 1, ':') : NULL;
        if (!where) continue;
        *where++ = '\0';
        list++;
        if (v2 ? *list != '\0' || strncmp(line, "0:", 2) != 0 : !has_word(list, name)) continue;
        found = strlen(where) < size;
        if (found) memcpy(out, where, strlen(where) + 1);
    }
    if (f) fclose(f);
    return found;
}

static int64_t smaller(int64_t a, int64_t b) {
    return a == 0 || (b > 0 && b < a) ? b : a;
}

// From the process's cgroup up to the mount point.
static int64_t smallest(const controller *c, const char *root, const char *mount,
                        const char *mounted, const char *own, bool v2) {
    char folder[LINE];
    size_t same = strcmp(mounted, "/") == 0 ? 0 : strlen(mounted);
    bool below = strncmp(own, mounted, same) == 0 && (own[same] == '/' || own[same] == '\0');
    int base = snprintf(folder, sizeof folder, "%s%s", root, mount);
    int all = snprintf(folder, sizeof folder, "%s%s%s", root, mount, below ? own + same : "");
    if (all >= (int)sizeof folder) return 0;
    int64_t least = 0;
    for (;;) {
        least = smaller(least, c->left(folder, v2));
        char *slash = strrchr(folder, '/');
        if (!slash || slash - folder < base) return least;
        *slash = '\0';
    }
}

static int64_t left_of_mount(const controller *c, char *line, const char *root) {
    char own[PATH_MAX], mounted[PATH_MAX], mount[PATH_MAX], type[32], options[PATH_MAX];
    char *dash = strstr(line, " - ");
    if (!dash || sscanf(line, "%*s %*s %*s %4095s %4095s", mounted, mount) != 2 ||
        sscanf(dash, " - %31s %*s %4095s", type, options) != 2)
        return 0;
    bool v2 = strcmp(type, "cgroup2") == 0;
    if (!v2 && (strcmp(type, "cgroup") != 0 || !has_word(options, c->name))) return 0;
    if (!own_cgroup(own, sizeof own, root, c->name, v2)) return 0;
    return smallest(c, root, mount, mounted, own, v2);
}

static int64_t left_of(const controller *c, const char *root) {
    char path[LINE], line[LINE];
    int64_t least = 0;
    snprintf(path, sizeof path, "%s/proc/self/mountinfo", root);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f)) least = smaller(least, left_of_mount(c, line, root));
    if (f) fclose(f);
    return least;
}

int sd_cpu_quota(const char *root) {
    static const controller cpu = {"cpu", processors_left};
    return (int)left_of(&cpu, root);
}

size_t sd_memory_available(const char *root) {
    static const controller memory = {"memory", memory_left};
    char path[LINE];
    snprintf(path, sizeof path, "%s/proc/meminfo", root);
    int64_t all = number_behind(path, "MemAvailable:");
    all = all > INT64_MAX / 1024 ? INT64_MAX : all * 1024;
    return (size_t)smaller(all, left_of(&memory, root));
}
