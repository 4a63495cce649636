// What stands beside a model, of any bytes: the first byte says whether as specdec.json or as
// generation_config.json. What is taken is in range, is written and read again as it was, and never ends a
// header's line.
#include "base/files/path.h"
#include "base/log.h"
#include "base/memory.h"
#include "model/defaults.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *dir;

static void must(bool ok) {
    if (!ok) __builtin_trap();
}
static void remove_dir(void) {
    sd_remove_tree(dir, NULL);
    free(dir);
}
static void begin(void) {
    char place[] = "/tmp/fuzz-defaults-XXXXXX";
    must(mkdtemp(place) != NULL);
    dir = sd_strdup(place);
    sd_log_set_level(SD_LOG_ERROR);
    atexit(remove_dir);
}
static void put(const char *name, const void *p, size_t n) {
    char *path = sd_path_join(dir, name);
    FILE *f = fopen(path, "wb");
    must(f && (!n || fwrite(p, 1, n, f) == n) && fclose(f) == 0);
    free(path);
}

static void ask(const sd_defaults *d) {
    char filled[256], departs[256];
    sd_system_use use;
    sd_asked a = {.value = {1, 1, 0, 0, 0}}, b = a;
    json_t *talk = json_pack("[{s:s, s:s}]", "role", "user", "content", "hi");
    must(sd_defaults_fill_system(&use, talk, d, NULL) == SD_OK);
    must(json_array_size(talk) == (use == SD_SYSTEM_FILLED ? 2 : 1));
    for (int i = 0; i < SD_DEFAULTS; i++) b.given[i] = true;
    sd_defaults_say_filled(filled, sizeof filled, &a, d, use);
    sd_defaults_say_departs(departs, sizeof departs, &b, d, use);
    must(!strpbrk(filled, "\r\n") && !strpbrk(departs, "\r\n"));
    sd_defaults_fill(&a, d);
    must(a.value[0] >= 0 && a.value[0] <= 2 && a.value[1] > 0 && a.value[1] <= 1);
    json_decref(talk);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    sd_defaults d = {0}, same = {0};
    sd_error err;
    if (!dir) begin();
    if (size == 0) return 0;
    bool config = data[0] & 1;
    put("specdec.json", config ? (const void *)"{}" : data + 1, config ? 2 : size - 1);
    put("generation_config.json", config ? data + 1 : (const void *)"{}", config ? size - 1 : 2);
    if (sd_defaults_read_beside(&d, dir, &err) == SD_OK &&
        sd_defaults_add_config(&d, dir, SD_FROM_MODEL, &err) == SD_OK) {
        ask(&d);
        json_t *serve = sd_defaults_json(&d);
        must(serve && sd_defaults_read(&same, serve, "again", &err) == SD_OK);
        json_decref(serve);
        must(!d.system == !same.system && (!d.system || strcmp(d.system, same.system) == 0));
        for (int i = 0; i < SD_DEFAULTS; i++)
            must((d.from[i] == SD_FROM_NOTHING) == (same.from[i] == SD_FROM_NOTHING));
    }
    sd_defaults_free(&d);
    sd_defaults_free(&same);
    return 0;
}
