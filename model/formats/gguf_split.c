// Split models, as llama.cpp's llama-gguf-split writes them. Each part is a GGUF file of its own that
// says which one it is:
//
//   split.no             0, 1, ... of this part
//   split.count          parts in all
//   split.tensors.count  tensors of all parts together
//
// and is called NAME-00001-of-00003.gguf, by which the others are found. The metadata of a model stand
// in the first part alone. Nothing is copied: the parts' mappings stay open behind the first.
#include "base/files/path.h"
#include "model/formats/gguf_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_PARTS = 1024, MAX_TENSORS = 1 << 16 };
#define JOIN "llama.cpp's llama-gguf-split --merge FIRST_PART OUT.gguf"

bool sd_gguf_key_is_of_split(const char *key) {
    return strcmp(key, "split.no") == 0 || strcmp(key, "split.count") == 0 ||
           strcmp(key, "split.tensors.count") == 0;
}

typedef struct {
    uint32_t no, count, tensors; // count 0: no part
} place;

static sd_status read_place(place *p, const sd_gguf *g, sd_error *err) {
    sd_status st = SD_OK;
    *p = (place){0};
    SD_TRY(sd_gguf_u32(g, "split.no", &p->no, NULL, err));
    SD_TRY(sd_gguf_u32(g, "split.count", &p->count, NULL, err));
    SD_TRY(sd_gguf_u32(g, "split.tensors.count", &p->tensors, NULL, err));
    SD_CHECK(p->count <= 1 || p->no < p->count, err, SD_EFORMAT,
             "%s: says it is part %llu of %u of a split model; the file is damaged", g->path,
             (unsigned long long)p->no + 1, p->count);
out:
    return st;
}

sd_status sd_gguf_refuse_split(const sd_gguf *g, sd_error *err) {
    place p;
    sd_status st = read_place(&p, g, err);
    SD_TRY(st);
    SD_CHECK(p.count <= 1, err, SD_EFORMAT,
             "%s: is part %u of %u of a split GGUF; join the parts into one file with " JOIN
             ", and give that",
             g->path, p.no + 1, p.count);
out:
    return st;
}

// What stands behind NAME in the path of part i.
static void ending(char text[32], uint32_t i, uint32_t count) {
    snprintf(text, 32, "-%05u-of-%05u.gguf", i + 1, count);
}

// The path of part i, by that of part p; NULL: out of memory.
static char *path_of(const char *path, const place *p, uint32_t i) {
    char own[32], other[32];
    ending(own, p->no, p->count);
    ending(other, i, p->count);
    return sd_sprintf("%.*s%s", (int)(strlen(path) - strlen(own)), path, other);
}

static sd_status open_part(sd_gguf **out, const sd_gguf *by, const place *p, uint32_t i,
                           sd_error *err) {
    sd_status st = SD_OK;
    sd_path_kind kind;
    place is;
    char *path = path_of(by->path, p, i);
    SD_CHECK_ALLOC(path, err);
    SD_TRY(sd_path_look(&kind, path, err));
    SD_CHECK(kind != SD_PATH_NONE, err, SD_ENOTFOUND,
             "%s: part %u of %u of a split model is not there; put all parts into the folder of %s",
             path, i + 1, p->count, by->path);
    SD_TRY(sd_gguf_open(out, path, err));
    SD_TRY(read_place(&is, *out, err));
    SD_CHECK(is.no == i && is.count == p->count, err, SD_EFORMAT,
             "%s: is %s%u of %u by what it holds, and part %u of %u by its name; download or split "
             "the model again",
             path, is.count > 1 ? "part " : "", is.count > 1 ? is.no + 1 : 1,
             is.count > 1 ? is.count : 1, i + 1, p->count);
out:
    free(path);
    return st;
}

// The tensors of all parts become the first's.
static sd_status take_tensors(sd_gguf *g, sd_error *err) {
    sd_status st = SD_OK;
    size_t n = 0;
    for (int i = 0; i < g->n_parts; i++) n += (size_t)g->part[i]->n_tensors;
    SD_CHECK(n <= MAX_TENSORS, err, SD_EFORMAT, "%s: the parts have %zu tensors, at most %d work",
             g->path, n, MAX_TENSORS);
    sd_gguf_tensor *all = sd_arena_alloc(&g->arena, n + 1, sizeof *all);
    const sd_gguf_tensor **by_name = sd_arena_alloc(&g->arena, n + 1, sizeof *by_name);
    SD_CHECK_ALLOC(all, err);
    SD_CHECK_ALLOC(by_name, err);
    n = 0;
    for (int i = 0; i < g->n_parts; i++)
        for (int k = 0; k < g->part[i]->n_tensors; k++, n++) {
            all[n] = g->part[i]->tensor[k];
            by_name[n] = &all[n];
        }
    qsort(by_name, n, sizeof *by_name, sd_gguf_compare_names);
    for (size_t i = 1; i < n; i++)
        SD_CHECK(
            strcmp(by_name[i - 1]->name, by_name[i]->name) != 0, err, SD_EFORMAT,
            "%s: the tensor %s stands in two of the %d parts; download or split the model again",
            g->path, by_name[i]->name, g->n_parts);
    g->tensor = all;
    g->by_name = by_name;
    g->n_tensors = (int)n;
out:
    return st;
}

// *out is one of the parts, and becomes the first with all others behind it.
static sd_status join(sd_gguf **out, const place *p, sd_error *err) {
    sd_status st = SD_OK;
    sd_gguf *given = *out, **part = sd_alloc(p->count, sizeof(sd_gguf *));
    place first;
    SD_CHECK_ALLOC(part, err);
    part[p->no] = given;
    for (uint32_t i = 0; i < p->count; i++)
        if (i != p->no) SD_TRY(open_part(&part[i], given, p, i, err));
    sd_gguf *g = part[0];
    g->part = part, g->n_parts = (int)p->count;
    *out = g, part = NULL;
    SD_TRY(take_tensors(g, err));
    SD_TRY(read_place(&first, g, err));
    SD_CHECK(first.tensors == 0 || (int64_t)first.tensors == g->n_tensors, err, SD_EFORMAT,
             "%s: the %d parts hold %d tensors, and the first says %u; download or split the model "
             "again",
             g->path, g->n_parts, g->n_tensors, first.tensors);
out:
    for (uint32_t i = 0; part && i < p->count; i++)
        if (i != p->no) sd_gguf_close(part[i]);
    free(part);
    return st;
}

sd_status sd_gguf_open_whole(sd_gguf **out, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    place p;
    char own[32];
    SD_TRY(sd_gguf_open(out, path, err));
    SD_TRY(read_place(&p, *out, err));
    if (p.count <= 1) goto out;
    SD_CHECK(p.count <= MAX_PARTS, err, SD_EFORMAT,
             "%s: is part of a model split in %u, at most %d parts work; join them with " JOIN,
             path, p.count, MAX_PARTS);
    ending(own, p.no, p.count);
    size_t n = strlen(path), end = strlen(own);
    SD_CHECK(n > end && strcmp(path + n - end, own) == 0, err, SD_EFORMAT,
             "%s: is part %u of %u of a split model, and its name does not end in %s, by which the "
             "others would be found; name all parts so, or join them with " JOIN,
             path, p.no + 1, p.count, own);
    SD_TRY(join(out, &p, err));
out:
    if (st != SD_OK) {
        sd_gguf_close(*out);
        *out = NULL;
    }
    return st;
}
