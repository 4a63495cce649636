#include "cli/open_model.h"

#include "base/files/file.h"
#include "base/memory.h"
#include "model/infer/weight_cache/cache.h"
#include "model/infer/weight_cache/place.h"

#include <errno.h>
#include <string.h>

sd_status sd_open_model(sd_model **out, char **cache_dir, const sd_model_args *args,
                        sd_error *err) {
    *cache_dir = NULL;
    sd_status st = sd_model_open(out, args->model, err);
    if (st != SD_OK) return st;
    *cache_dir = args->no_pack_cache ? NULL : sd_weight_cache_dir();
    if (*cache_dir) sd_weight_cache_attach(*out, *cache_dir);
    return st;
}

sd_status sd_run_model_open(sd_run_model *r, const sd_model_args *args, const char *adapter,
                            int max_rows, sd_error *err) {
    sd_status st = SD_OK;
    *r = (sd_run_model){0};
    sd_context_options o = {
        .max_rows = max_rows, .compute = (sd_compute)args->compute, .kv = (sd_kv_type)args->kv};
    SD_TRY(sd_device_choose(&o.backend, &o.device, args->device, err));
    SD_TRY(sd_open_model(&r->model, &r->cache_dir, args, err));
    o.cache = (sd_weight_cache){r->cache_dir, SD_WEIGHT_CACHE_LEAST};
    SD_TRY(sd_pool_open(&r->pool, (int)args->threads, err));
    if (adapter) SD_TRY(sd_adapter_open(&r->adapter, adapter, r->model, args->other_base, err));
    SD_TRY(sd_context_open(&r->cx, r->model, r->pool, &o, err));
out:
    if (st != SD_OK) sd_run_model_close(r);
    return st;
}

void sd_run_model_close(sd_run_model *r) {
    sd_context_close(r->cx);
    sd_adapter_release(r->adapter);
    sd_pool_close(r->pool);
    sd_model_release(r->model);
    free(r->cache_dir);
    *r = (sd_run_model){0};
}

sd_status sd_parse_ids(sd_ids *out, const char *text, int V, sd_error *err) {
    const char *p = text;
    for (;;) {
        p += strspn(p, ", \t\r\n[]");
        if (!*p) break;
        char *end;
        errno = 0;
        long id = strtol(p, &end, 10);
        if (end == p || errno || id < 0 || id > INT32_MAX || (V > 0 && id >= V))
            return sd_fail(err, SD_EINVAL, "'%.24s' is not a token id below %d; give ids as 1,2,3",
                           p, V > 0 ? V : INT32_MAX);
        int32_t one = (int32_t)id;
        if (!sd_ids_add(out, &one, 1)) return sd_fail(err, SD_ENOMEM, "out of memory");
        p = end;
    }
    return SD_OK;
}

static sd_status no_tokenizer(const char *path, const char *why, sd_error *err) {
    return sd_fail(err, SD_EINVAL, "%s: has no tokenizer%s%s", path,
                   why ? " that is understood: " : "; give token ids instead", why ? why : "");
}

sd_status sd_need_tokenizer(const sd_model *m, sd_error *err) {
    return m->tokenizer ? SD_OK : no_tokenizer(m->path, m->tokenizer_error, err);
}

sd_status sd_open_vocabulary(sd_vocabulary **v, const char *path, sd_error *err) {
    sd_status st = sd_vocabulary_open(v, path, err);
    if (st != SD_OK || (*v)->tokenizer) return st;
    st = no_tokenizer(path, (*v)->tokenizer_error, err);
    sd_vocabulary_close(*v);
    *v = NULL;
    return st;
}

sd_status sd_text_argument(char **out, size_t *len, const char *text, sd_error *err) {
    enum { MAX_TEXT = 1 << 30 };
    if (strcmp(text, "-") == 0) return sd_stream_read(out, len, "/dev/stdin", MAX_TEXT, err);
    *len = strlen(text);
    *out = sd_strdup(text);
    return *out ? SD_OK : sd_fail(err, SD_ENOMEM, "out of memory");
}
