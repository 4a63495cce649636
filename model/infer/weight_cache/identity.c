#include "model/infer/weight_cache/identity.h"

#include "base/memory.h"
#include "model/load/source.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

// Inode and times as strings: JSON's numbers end at 2^63.
static json_t *describe(const char *path, const sd_file_id *id) {
    char device[32], inode[32], changed[48], inode_changed[48];
    snprintf(device, sizeof device, "%llu", (unsigned long long)id->device);
    snprintf(inode, sizeof inode, "%llu", (unsigned long long)id->inode);
    snprintf(changed, sizeof changed, "%lld.%09lld", (long long)id->changed_s,
             (long long)id->changed_ns);
    snprintf(inode_changed, sizeof inode_changed, "%lld.%09lld", (long long)id->inode_changed_s,
             (long long)id->inode_changed_ns);
    return json_pack("{s:s, s:I, s:s, s:s, s:s, s:s}", "path", path, "size", (json_int_t)id->size,
                     "device", device, "inode", inode, "changed", changed, "inode_changed",
                     inode_changed);
}

json_t *sd_weight_label(const sd_model *m) {
    json_t *all = json_array(), *label = NULL;
    bool good = all != NULL;
    for (int i = 0; good && i < sd_model_source_count(m); i++) {
        char *whole = realpath(sd_model_source_path(m, i), NULL);
        json_t *one = whole ? describe(whole, &sd_model_source(m, i)->id) : NULL;
        good = one && json_array_append_new(all, one) == 0;
        free(whole);
    }
    if (good) label = json_pack("{s:O}", "sources", all);
    json_decref(all);
    return label;
}

static const json_t *sources_of(const json_t *label) {
    return json_object_get(label, "sources");
}

// The path does not count: it may lead there by another name.
static bool is_state(const json_t *row, const sd_file_id *id) {
    const char *path = json_string_value(json_object_get(row, "path"));
    json_t *now = describe(path ? path : "", id);
    bool same = now && path && json_equal(now, row);
    json_decref(now);
    return same;
}

bool sd_weight_label_same_state(const json_t *label, const sd_model *m) {
    const json_t *all = sources_of(label);
    int n = sd_model_source_count(m);
    bool same = json_array_size(all) == (size_t)n;
    for (int i = 0; same && i < n; i++)
        same = is_state(json_array_get(all, (size_t)i), &sd_model_source(m, i)->id);
    return same;
}

bool sd_weight_label_same_sizes(const json_t *label, const sd_model *m) {
    const json_t *all = sources_of(label);
    int n = sd_model_source_count(m);
    bool same = json_array_size(all) == (size_t)n;
    for (int i = 0; same && i < n; i++)
        same = json_integer_value(json_object_get(json_array_get(all, (size_t)i), "size")) ==
               sd_model_source(m, i)->id.size;
    return same;
}

static bool id_at(sd_file_id *id, const char *path) {
    int fd = open(path, O_PATH | O_CLOEXEC);
    bool there = fd >= 0 && sd_file_id_of(id, fd, path, NULL) == SD_OK;
    if (fd >= 0) close(fd);
    return there;
}

bool sd_weight_label_is_current(const json_t *label, char **first) {
    const json_t *all = sources_of(label), *one;
    size_t i;
    bool current = json_array_size(all) > 0;
    const char *path = json_string_value(json_object_get(json_array_get(all, 0), "path"));
    *first = path ? sd_strdup(path) : NULL;
    json_array_foreach(all, i, one) {
        sd_file_id id;
        path = json_string_value(json_object_get(one, "path"));
        current = current && path && id_at(&id, path) && is_state(one, &id);
    }
    return current;
}

sd_status sd_weight_cache_check_sources(const sd_model *m, sd_error *err) {
    sd_status st = SD_OK;
    for (int i = 0; i < sd_model_source_count(m); i++) {
        const sd_map *map = sd_model_source(m, i);
        const char *path = sd_model_source_path(m, i);
        sd_file_id there;
        SD_CHECK(sd_map_look(map) == SD_MAP_SAME && id_at(&there, path) &&
                     sd_file_id_equal(&there, &map->id),
                 err, SD_EMISMATCH,
                 "%s: was replaced or touched while it was packed; its packed form is not kept",
                 path);
    }
out:
    return st;
}

uint32_t sd_weight_cache_sources_mode(const sd_model *m) {
    uint32_t mode = 0777;
    for (int i = 0; i < sd_model_source_count(m); i++) mode &= sd_model_source(m, i)->id.mode;
    return mode | 0600;
}

// The kernel's times come from a clock that moves by ticks of at most 10 ms, and some file systems
// keep whole seconds.
static int64_t age_ns(const sd_file_id *id) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return ((int64_t)now.tv_sec - id->inode_changed_s) * 1000000000 + now.tv_nsec -
           id->inode_changed_ns;
}

void sd_weight_cache_settle(const sd_model *m) {
    enum { TICK_NS = 20 * 1000 * 1000, WHOLE_NS = 2 * 1000 * 1000 * 1000 };
    for (int i = 0; i < sd_model_source_count(m); i++) {
        const sd_file_id *id = &sd_model_source(m, i)->id;
        int64_t least = id->inode_changed_ns ? TICK_NS : WHOLE_NS, age = age_ns(id);
        if (age < 0 || age >= least) continue;
        nanosleep(&(struct timespec){.tv_sec = (time_t)((least - age) / 1000000000),
                                     .tv_nsec = (long)((least - age) % 1000000000)},
                  NULL);
    }
}
