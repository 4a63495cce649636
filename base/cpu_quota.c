// cgroup v2 says it in cpu.max ("200000 100000", "max 100000"), v1 in two files whose quota is -1
// for none; microseconds of processor time a period. A parent's quota binds its children.
//
//     /proc/self/cgroup     "0::/a/b" (v2), "4:cpu,cpuacct:/a/b" (v1)
//     /proc/self/mountinfo  "41 31 0:38 ROOT MOUNTPOINT rw - cgroup2 cgroup2 rw"
//                           "32 31 0:29 ROOT MOUNTPOINT rw - cgroup cgroup rw,cpu"
// ROOT is the cgroup that is mounted at MOUNTPOINT.
#include "base/cpu_quota.h"

#include <limits.h>
#include <stdbool.h>
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

static int whole(long long quota, long long period) {
    if (quota <= 0 || period <= 0) return 0;
    long long n = quota / period;
    return n < 1 ? 1 : n > MOST ? MOST : (int)n;
}

static int quota_at(const char *folder, bool v2) {
    char path[LINE + 32], text[64], *end;
    long long quota, period;
    if (v2) {
        snprintf(path, sizeof path, "%s/cpu.max", folder);
        if (!read_line(text, sizeof text, path)) return 0;
        quota = strtoll(text, &end, 10); // "max" is no number
        return end == text ? 0 : whole(quota, strtoll(end, NULL, 10));
    }
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", folder);
    if (!read_line(text, sizeof text, path)) return 0;
    quota = strtoll(text, NULL, 10);
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
    if (!read_line(text, sizeof text, path)) return 0;
    period = strtoll(text, NULL, 10);
    return whole(quota, period);
}

static bool has_word(const char *list, const char *word) {
    size_t n = strlen(word);
    for (const char *p = list; p; p = strchr(p, ',')) {
        if (*p == ',') p++;
        if (strncmp(p, word, n) == 0 && (p[n] == '\0' || p[n] == ',')) return true;
    }
    return false;
}

// The process's cgroup in the v2 tree, or in the v1 tree of the controller cpu.
static bool own_cgroup(char *out, size_t size, const char *root, bool v2) {
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
        if (v2 ? *list != '\0' || strncmp(line, "0:", 2) != 0 : !has_word(list, "cpu")) continue;
        found = strlen(where) < size;
        if (found) memcpy(out, where, strlen(where) + 1);
    }
    if (f) fclose(f);
    return found;
}

static int smaller(int a, int b) {
    return a == 0 || (b > 0 && b < a) ? b : a;
}

// From the process's cgroup up to the mount point.
static int smallest(const char *root, const char *mount, const char *mounted, const char *own,
                    bool v2) {
    char folder[LINE];
    size_t same = strcmp(mounted, "/") == 0 ? 0 : strlen(mounted);
    bool below = strncmp(own, mounted, same) == 0 && (own[same] == '/' || own[same] == '\0');
    int base = snprintf(folder, sizeof folder, "%s%s", root, mount);
    int all = snprintf(folder, sizeof folder, "%s%s%s", root, mount, below ? own + same : "");
    if (all >= (int)sizeof folder) return 0;
    int least = 0;
    for (;;) {
        least = smaller(least, quota_at(folder, v2));
        char *slash = strrchr(folder, '/');
        if (!slash || slash - folder < base) return least;
        *slash = '\0';
    }
}

static int quota_of_mount(char *line, const char *root) {
    char own[PATH_MAX], mounted[PATH_MAX], mount[PATH_MAX], type[32], options[PATH_MAX];
    char *dash = strstr(line, " - ");
    if (!dash || sscanf(line, "%*s %*s %*s %4095s %4095s", mounted, mount) != 2 ||
        sscanf(dash, " - %31s %*s %4095s", type, options) != 2)
        return 0;
    bool v2 = strcmp(type, "cgroup2") == 0;
    if (!v2 && (strcmp(type, "cgroup") != 0 || !has_word(options, "cpu"))) return 0;
    if (!own_cgroup(own, sizeof own, root, v2)) return 0;
    return smallest(root, mount, mounted, own, v2);
}

int sd_cpu_quota(const char *root) {
    char path[LINE], line[LINE];
    int least = 0;
    snprintf(path, sizeof path, "%s/proc/self/mountinfo", root);
    FILE *f = fopen(path, "re");
    while (f && fgets(line, sizeof line, f)) least = smaller(least, quota_of_mount(line, root));
    if (f) fclose(f);
    return least;
}
