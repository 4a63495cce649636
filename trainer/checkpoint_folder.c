// Nothing goes that this process did not make or go on from: hours of somebody's work may stand in
// a folder that this process has misunderstood. A folder that is in the way is renamed.
#include "trainer/checkpoint_folder.h"

#include "base/files/file.h"
#include "base/files/path.h"
#include "base/list.h"
#include "base/log.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

static const char STEP[] = "step-", GIVEN_UP[] = "given-up-", DROP[] = ".tmp-drop-";

static char *numbered(const char *dir, const char *prefix, int64_t step) {
    return sd_sprintf("%s/%s%08lld", dir, prefix, (long long)step);
}

char *sd_checkpoint_path(const char *dir, int64_t step) {
    return numbered(dir, STEP, step);
}

static int compare_steps(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static sd_status add_step(int64_t **list, int *n, int *cap, int64_t step, sd_error *err) {
    sd_status st = SD_OK;
    SD_CHECK_ALLOC(SD_GROW(*list, *n + 1, *cap), err);
    (*list)[(*n)++] = step;
out:
    return st;
}

sd_status sd_checkpoints_list(sd_steps *l, const char *dir, sd_error *err) {
    sd_names in;
    *l = (sd_steps){0};
    sd_status st = sd_folder_list(&in, dir, err);
    if (st == SD_ENOTFOUND) return SD_OK;
    for (int i = 0; i < in.n && st == SD_OK; i++) {
        const char *digits = in.name[i] + strlen(STEP);
        if (strncmp(in.name[i], STEP, strlen(STEP)) != 0) continue;
        if (!*digits || strspn(digits, "0123456789") != strlen(digits) || strlen(digits) > 18)
            continue;
        st = add_step(&l->step, &l->n, &l->cap, strtoll(digits, NULL, 10), err);
    }
    if (l->n) qsort(l->step, (size_t)l->n, sizeof *l->step, compare_steps);
    sd_names_free(&in);
    return st;
}

/// .tmp-STEP-PROCESS or .tmp-drop-STEP, as a save names them, and nothing else.
static bool is_leftover(const char *name) {
    size_t tmp = strlen(SD_CHECKPOINT_TMP), drop = strlen(DROP);
    if (strncmp(name, DROP, drop) == 0)
        return name[drop] && strspn(name + drop, "0123456789") == strlen(name + drop);
    if (strncmp(name, SD_CHECKPOINT_TMP, tmp) != 0) return false;
    size_t step = strspn(name + tmp, "0123456789");
    const char *pid = name + tmp + step;
    return step && *pid == '-' && pid[1] && strspn(pid + 1, "0123456789") == strlen(pid + 1);
}

sd_status sd_checkpoints_sweep(const char *dir, sd_error *err) {
    sd_names in;
    sd_status st = sd_folder_list(&in, dir, err);
    if (st == SD_ENOTFOUND) return SD_OK;
    for (int i = 0; i < in.n && st == SD_OK; i++) {
        if (!is_leftover(in.name[i])) continue;
        char *path = sd_path_join(dir, in.name[i]);
        st = path ? sd_remove_tree(path, err) : sd_fail(err, SD_ENOMEM, "out of memory");
        free(path);
    }
    sd_names_free(&in);
    return st;
}

// ---- one's own, and others'

static bool is_own(const sd_checkpoints *all, int64_t step) {
    for (int i = 0; i < all->n; i++)
        if (all->own[i] == step) return true;
    return false;
}

static sd_status own(sd_checkpoints *all, int64_t step, sd_error *err) {
    return is_own(all, step) ? SD_OK : add_step(&all->own, &all->n, &all->cap, step, err);
}

sd_status sd_checkpoints_own(sd_checkpoints *all, int64_t step, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    char *here = sd_checkpoint_path(all->dir, step);
    SD_CHECK_ALLOC(here, err);
    if (sd_same_file(here, path)) SD_TRY(own(all, step, err));
out:
    free(here);
    return st;
}

void sd_checkpoints_free(sd_checkpoints *all) {
    free(all->own);
    all->own = NULL;
    all->n = all->cap = 0;
}

static sd_status give_up(const char *dir, int64_t step, sd_error *err) {
    sd_status st = SD_OK;
    char *from = sd_checkpoint_path(dir, step), *to = numbered(dir, GIVEN_UP, step), *got = NULL;
    SD_CHECK_ALLOC(from, err);
    SD_CHECK_ALLOC(to, err);
    SD_TRY(sd_rename_aside(&got, from, to, err));
    sd_log(SD_LOG_INFO, "%s is given up and kept as %s", from, got);
out:
    free(from);
    free(to);
    free(got);
    return st;
}

sd_status sd_checkpoints_give_up(int *n, const char *dir, sd_error *err) {
    sd_steps l;
    sd_status st = sd_checkpoints_list(&l, dir, err);
    *n = l.n;
    for (int i = 0; i < l.n && st == SD_OK; i++) st = give_up(dir, l.step[i], err);
    free(l.step);
    return st;
}

/// Takes a folder out of sight in one rename before its files go one by one.
static sd_status drop(const char *dir, int64_t step, sd_error *err) {
    sd_status st = SD_OK;
    char *path = sd_checkpoint_path(dir, step), *gone = numbered(dir, DROP, step);
    SD_CHECK_ALLOC(path, err);
    SD_CHECK_ALLOC(gone, err);
    SD_TRY(sd_remove_tree(gone, err));
    SD_TRY(sd_rename_new(path, gone, err));
    SD_TRY(sd_remove_tree(gone, err));
out:
    free(path);
    free(gone);
    return st;
}

/// One's own of the same step (saved once more after an interruption) changes places with the new
/// one in one operation, so that there is no moment without either. Where the file system cannot
/// (NFS), a kill between the renames sends the run to the step before.
static sd_status exchange(const char *dir, int64_t step, const char *tmp, const char *to,
                          sd_error *err) {
    if (renameat2(AT_FDCWD, tmp, AT_FDCWD, to, RENAME_EXCHANGE) == 0) {
        sd_status st = sd_fsync_path(dir, err);
        return st != SD_OK ? st : sd_remove_tree(tmp, err);
    }
    if (errno != EINVAL && errno != ENOSYS) return sd_fail_errno(err, to, "rename");
    sd_status st = drop(dir, step, err);
    return st != SD_OK ? st : sd_rename_new(tmp, to, err);
}

sd_status sd_checkpoints_add(sd_checkpoints *all, int64_t step, const char *tmp, sd_error *err) {
    sd_status st = SD_OK;
    sd_path_kind kind;
    char *to = sd_checkpoint_path(all->dir, step);
    SD_CHECK_ALLOC(to, err);
    SD_TRY(sd_path_look(&kind, to, err));
    if (kind != SD_PATH_NONE && is_own(all, step)) {
        SD_TRY(exchange(all->dir, step, tmp, to, err));
    } else {
        if (kind != SD_PATH_NONE) SD_TRY(give_up(all->dir, step, err));
        SD_TRY(sd_rename_new(tmp, to, err));
    }
    SD_TRY(own(all, step, err));
out:
    free(to);
    return st;
}

sd_status sd_checkpoints_tidy(sd_checkpoints *all, int64_t step, sd_error *err) {
    sd_steps l;
    sd_status st = sd_checkpoints_list(&l, all->dir, err);
    int kept = 0;
    for (int i = l.n - 1; i >= 0 && st == SD_OK; i--) {
        if (l.step[i] > step)
            st = give_up(all->dir, l.step[i], err);
        else if (is_own(all, l.step[i]) && ++kept > all->keep)
            st = drop(all->dir, l.step[i], err);
    }
    free(l.step);
    return st;
}
