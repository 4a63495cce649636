// A kill can come between any two instructions, and a disk can be full at any write. The order of
// operations makes both harmless: nothing that a reader would accept exists before everything in it
// is on the disk. SHA256SUMS is written last into the temporary folder, so a folder without it is
// not a checkpoint, and the rename makes it one in a single operation.
#include "trainer/checkpoint.h"

#include "base/files/file.h"
#include "base/files/path.h"
#include "base/log.h"
#include "base/memory.h"
#include "trainer/checkpoint_folder.h"
#include "trainer/checkpoint_state.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char SUMS[] = "SHA256SUMS";
enum { MAX_TEXT = 1 << 20, MAX_FILES = 8 };

// ---- writing

typedef struct {
    const char *dir; // the temporary folder
    sd_buf sums;
} writer;

static sd_status write_failed(const char *path, sd_error *err) {
    int e = errno;
    return sd_fail(err, SD_EIO, "%s: write: %s; the earlier checkpoints are untouched", path,
                   e == ENOSPC || e == EDQUOT ? "the disk is full, free space and resume"
                                              : strerror(e ? e : EIO));
}

static sd_status write_file(writer *w, const char *name, const void *data, size_t len,
                            sd_error *err) {
    sd_status st = SD_OK;
    FILE *f = NULL;
    sd_sha256 hash;
    char *path = sd_path_join(w->dir, name);
    SD_CHECK_ALLOC(path, err);
    SD_TRY(sd_sha256_of(&hash, data, len, err));
    errno = 0;
    f = fopen(path, "wbex");
    if (!f || (len && fwrite(data, 1, len, f) != len) || fflush(f) != 0 || fsync(fileno(f)) != 0) {
        st = write_failed(path, err);
        goto out;
    }
    if (strcmp(name, SUMS) != 0)
        SD_CHECK(sd_buf_printf(&w->sums, "%s  %s\n", hash.hex, name), err, SD_ENOMEM,
                 "out of memory while saving a checkpoint");
out:
    if (f && fclose(f) != 0 && st == SD_OK) st = write_failed(path, err);
    free(path);
    return st;
}

static sd_status write_all(writer *w, const sd_checkpoint *c, sd_error *err) {
    sd_status st = SD_OK;
    char *text = NULL;
    SD_TRY(sd_train_state_write(&text, &c->state, c->n, err));
    size_t bytes = c->n * sizeof(float);
    SD_TRY(write_file(w, "theta.f32", c->theta, bytes, err));
    SD_TRY(write_file(w, "adam_m.f32", c->m, bytes, err));
    SD_TRY(write_file(w, "adam_v.f32", c->v, bytes, err));
    if (c->state.has_best) SD_TRY(write_file(w, "best.f32", c->best, bytes, err));
    SD_TRY(write_file(w, "state.json", text, strlen(text), err));
    SD_TRY(write_file(w, "recipe.resolved.yaml", c->recipe.data ? c->recipe.data : "",
                      c->recipe.len, err));
    SD_TRY(write_file(w, SUMS, w->sums.data, w->sums.len, err));
    SD_TRY(sd_fsync_path(w->dir, err));
out:
    free(text);
    return st;
}

sd_status sd_checkpoint_save(sd_checkpoints *all, const sd_checkpoint *c, char **path,
                             sd_error *err) {
    sd_status st = SD_OK;
    int64_t step = c->state.step;
    writer w = {.sums = sd_buf_make(4096)};
    char *tmp =
        sd_sprintf("%s/%s%08lld-%d", all->dir, SD_CHECKPOINT_TMP, (long long)step, (int)getpid());
    SD_CHECK_ALLOC(tmp, err);
    SD_TRY(sd_mkdirs(all->dir, err));
    SD_TRY(sd_checkpoints_sweep(all->dir, err));
    SD_TRY(sd_mkdirs(tmp, err));
    w.dir = tmp;
    SD_TRY(write_all(&w, c, err));
    SD_TRY(sd_checkpoints_add(all, step, tmp, err));
    w.dir = NULL;
    SD_TRY(sd_checkpoints_tidy(all, step, err));
    if (path) {
        *path = sd_checkpoint_path(all->dir, step);
        SD_CHECK_ALLOC(*path, err);
    }
out:
    if (st != SD_OK && w.dir) sd_remove_tree(w.dir, NULL);
    sd_buf_free(&w.sums);
    free(tmp);
    return st;
}

// ---- reading

/// The files of a SHA256SUMS, each of which had that hash.
typedef struct {
    char name[MAX_FILES][32];
    sd_sha256 hash[MAX_FILES];
    int n;
} verified;

static sd_status check_hash(const sd_sha256 *have, const sd_sha256 *want, const char *file,
                            sd_error *err) {
    if (sd_sha256_equal(want, have)) return SD_OK;
    return sd_fail(err, SD_EMISMATCH, "%s: its bytes are not what %s says; it is damaged", file,
                   SUMS);
}

static sd_status verify(verified *files, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    char *sums = NULL, *text = NULL;
    size_t len;
    files->n = 0;
    sums = sd_path_join(path, SUMS);
    SD_CHECK_ALLOC(sums, err);
    SD_TRY(sd_file_read(&text, &len, sums, 4096, err));
    SD_CHECK(strlen(text) == len && len > 0, err, SD_EFORMAT, "%s: is damaged", sums);
    for (char *line = text; *line;) {
        char *end = strchr(line, '\n');
        SD_CHECK(end && end - line > 66 && line[64] == ' ' && line[65] == ' ' &&
                     end - line - 66 < 32 && files->n < MAX_FILES &&
                     !memchr(line, '/', (size_t)(end - line)),
                 err, SD_EFORMAT, "%s: is damaged", sums);
        *end = '\0';
        char *name = line + 66, *file = sd_path_join(path, name);
        sd_sha256 want = {{0}}, have;
        memcpy(want.hex, line, 64);
        SD_CHECK_ALLOC(file, err);
        st = sd_sha256_of_file(&have, file, err);
        if (st == SD_OK) st = check_hash(&have, &want, file, err);
        free(file);
        if (st != SD_OK) goto out;
        files->hash[files->n] = want;
        snprintf(files->name[files->n++], sizeof files->name[0], "%s", name);
        line = end + 1;
    }
out:
    free(text);
    free(sums);
    return st;
}

/// Hashed once more, so that the bytes in use are the verified ones even if the file has changed.
static sd_status read_verified(char **data, size_t *len, const verified *files, const char *dir,
                               const char *name, size_t max, sd_error *err) {
    sd_status st = SD_OK;
    sd_sha256 have;
    int i = 0;
    char *path = sd_path_join(dir, name);
    *data = NULL;
    SD_CHECK_ALLOC(path, err);
    while (i < files->n && strcmp(files->name[i], name) != 0) i++;
    SD_CHECK(i < files->n, err, SD_EFORMAT, "%s: has no %s in its %s; it is damaged", dir, name,
             SUMS);
    SD_TRY(sd_file_read(data, len, path, max, err));
    SD_TRY(sd_sha256_of(&have, *data, *len, err));
    SD_TRY(check_hash(&have, &files->hash[i], path, err));
out:
    if (st != SD_OK) {
        free(*data);
        *data = NULL;
    }
    free(path);
    return st;
}

static sd_status peek(sd_checkpoint *c, verified *files, size_t *n, const char *path,
                      sd_error *err) {
    sd_status st = SD_OK;
    char *text = NULL, *recipe = NULL;
    size_t len;
    SD_TRY(verify(files, path, err));
    SD_TRY(read_verified(&text, &len, files, path, "state.json", MAX_TEXT, err));
    SD_TRY(sd_train_state_read(&c->state, n, text, path, err));
    SD_TRY(read_verified(&recipe, &len, files, path, "recipe.resolved.yaml", MAX_TEXT, err));
    sd_buf_free(&c->recipe);
    c->recipe = sd_buf_make(MAX_TEXT);
    SD_CHECK(sd_buf_add(&c->recipe, recipe, len), err, SD_ENOMEM,
             "out of memory while reading a checkpoint");
out:
    free(text);
    free(recipe);
    return st;
}

sd_status sd_checkpoint_peek(sd_checkpoint *c, const char *path, sd_error *err) {
    verified files;
    size_t n;
    return peek(c, &files, &n, path, err);
}

static sd_status read_floats(float *to, size_t n, const verified *files, const char *dir,
                             const char *name, sd_error *err) {
    char *data;
    size_t len, want = n * sizeof(float);
    sd_status st = read_verified(&data, &len, files, dir, name, want, err);
    if (st != SD_OK) return st;
    if (len == want)
        memcpy(to, data, want);
    else
        st = sd_fail(err, SD_EFORMAT, "%s/%s: has %zu bytes, want %zu", dir, name, len, want);
    free(data);
    return st;
}

sd_status sd_checkpoint_load(sd_checkpoint *c, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    verified files;
    size_t n;
    SD_TRY(peek(c, &files, &n, path, err));
    SD_CHECK(n == c->n, err, SD_EMISMATCH,
             "%s: holds %zu parameters, this recipe has %zu; resume with the run's own recipe",
             path, n, c->n);
    SD_TRY(read_floats(c->theta, n, &files, path, "theta.f32", err));
    SD_TRY(read_floats(c->m, n, &files, path, "adam_m.f32", err));
    SD_TRY(read_floats(c->v, n, &files, path, "adam_v.f32", err));
    if (c->state.has_best) SD_TRY(read_floats(c->best, n, &files, path, "best.f32", err));
out:
    return st;
}

sd_status sd_checkpoint_newest(char **path, int *others, const char *dir, sd_error *err) {
    sd_steps l;
    *path = NULL;
    sd_status st = sd_checkpoints_list(&l, dir, err);
    for (int i = l.n - 1; i >= 0 && st == SD_OK && !*path; i--) {
        sd_checkpoint c = {0};
        sd_error why = {0};
        char *p = sd_checkpoint_path(dir, l.step[i]);
        st = p ? sd_checkpoint_peek(&c, p, &why)
               : sd_fail(&why, SD_ENOMEM, "out of memory while looking for checkpoints");
        if (st == SD_OK) {
            *path = p, p = NULL;
        } else if (sd_status_is_damage(st)) {
            sd_log(SD_LOG_WARN, "passing over a checkpoint: %s", why.message);
            st = SD_OK;
        } else if (err) { // it may be good: an older one would give its steps up
            *err = why;
        }
        sd_checkpoint_free_recipe(&c);
        free(p);
    }
    if (others) *others = l.n - (*path != NULL);
    free(l.step);
    return st;
}

void sd_checkpoint_free_recipe(sd_checkpoint *c) {
    sd_buf_free(&c->recipe);
}
