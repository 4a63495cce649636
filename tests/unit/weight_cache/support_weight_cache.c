#include "tests/unit/weight_cache/support_weight_cache.h"

#include "base/files/path.h"
#include "base/log.h"
#include "base/memory.h"
#include "model/load/source.h"

#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

bool pack_nothing_to_test(void) {
    return sd_ops_best()->layout == 0;
}

pack_place pack_make_place(void) {
    pack_place p = {.dir = sd_tiny_dir(), .t = sd_tiny_default(&sd_arch_qwen2)};
    sd_error err;
    sd_log_set_level(SD_LOG_ERROR);
    p.model = sd_path_join(p.dir, "tiny.gguf");
    p.cache = sd_path_join(p.dir, "cache/packed");
    SD_ASSERT(sd_tiny_write_gguf(p.model, &p.t, &err) == SD_OK);
    return p;
}
void pack_drop_place(pack_place *p) {
    sd_tiny_remove(p->dir);
    free(p->model);
    free(p->cache);
}

float *pack_start(const pack_place *p, const char *cache, sd_compute compute) {
    sd_error err = {0};
    sd_model *m;
    sd_context *cx;
    sd_kv *kv;
    sd_row row[PACK_T];
    SD_ASSERT(sd_model_open(&m, p->model, &err) == SD_OK);
    if (cache) sd_weight_cache_attach(m, cache);
    sd_context_options o = {.max_rows = PACK_T, .compute = compute, .cache = {.dir = cache}};
    SD_ASSERT(sd_context_open(&cx, m, NULL, &o, &err) == SD_OK);
    SD_ASSERT(sd_kv_open(&kv, cx, PACK_T, &err) == SD_OK);
    for (int i = 0; i < PACK_T; i++)
        row[i] = (sd_row){(i * 37 + 5) % m->hp.V, i, kv, NULL, i == PACK_T - 1, NULL, NULL};
    float *out = sd_alloc((size_t)m->hp.V, sizeof *out);
    SD_ASSERT(sd_forward(cx, row, PACK_T, out, &err) == SD_OK);
    sd_kv_close(kv);
    sd_context_close(cx);
    sd_model_release(m);
    return out;
}

sd_model *pack_open_model(const pack_place *p, const char *cache) {
    sd_error err = {0};
    sd_model *m;
    SD_ASSERT(sd_model_open(&m, p->model, &err) == SD_OK);
    if (cache) sd_weight_cache_attach(m, cache);
    return m;
}

const sd_map *pack_file_of(const sd_model *m) {
    return sd_model_source(m, 0);
}

sd_status pack_list_status(const char *dir) {
    sd_weight_cache_entry *e;
    int n;
    sd_status st = sd_weight_cache_list(&e, &n, dir, NULL);
    sd_weight_cache_list_free(e, n);
    return st;
}

int pack_files_in(const char *dir) {
    int n = 0;
    DIR *d = opendir(dir);
    for (struct dirent *f; d && (f = readdir(d));) n += f->d_name[0] != '.';
    if (d) closedir(d);
    return n;
}

uint64_t pack_inode_of(const char *path) {
    struct stat sb;
    SD_ASSERT(stat(path, &sb) == 0);
    return sb.st_ino;
}
off_t pack_size_of(const char *path) {
    struct stat sb;
    SD_ASSERT(stat(path, &sb) == 0);
    return sb.st_size;
}

sd_weight_cache_state pack_only_state(const pack_place *p) {
    sd_weight_cache_entry *e;
    int n;
    SD_ASSERT(sd_weight_cache_list(&e, &n, p->cache, NULL) == SD_OK);
    SD_ASSERT(n == 1);
    sd_weight_cache_state state = e[0].state;
    sd_weight_cache_list_free(e, n);
    return state;
}

bool pack_same_logits(const pack_place *p, const float *a, const float *b) {
    return memcmp(a, b, (size_t)p->t.V * sizeof *a) == 0;
}

char *pack_only_file(const pack_place *p) {
    sd_weight_cache_entry *e;
    int n;
    SD_ASSERT(sd_weight_cache_list(&e, &n, p->cache, NULL) == SD_OK);
    SD_ASSERT(n == 1);
    char *path = sd_strdup(e[0].path);
    sd_weight_cache_list_free(e, n);
    return path;
}

void pack_change_byte(const char *path, long at, int change) {
    FILE *f = fopen(path, "r+b");
    SD_ASSERT(f);
    fseek(f, at, at < 0 ? SEEK_END : SEEK_SET);
    int c = fgetc(f);
    fseek(f, at, at < 0 ? SEEK_END : SEEK_SET);
    fputc(c + change, f);
    fclose(f);
}
