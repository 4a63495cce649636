// Merging: W + s B A in place of W, everything else as it stands in the base. Works tensor by
// tensor, so memory is one tensor of fp32 at a time for a GGUF; a Hugging Face folder keeps its
// merged tensors until the file is written.
//
// A tensor finds its adapter by name. The address of a weight says nothing: the binder reads a copy
// of what does not stand at a multiple of its size. What the file really holds is measured on the
// file (model/infer/merge_check.c), never here.
#include "model/adapter/basis.h"
#include "model/adapter/chat_template.h"

#include "base/files/cleanup.h"
#include "base/files/file.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/memory.h"
#include "model/chat.h"
#include "model/formats/gguf_write.h"
#include "model/load/source.h"

#include <string.h>
#include <unistd.h>

// out [rows in w's type] <- w + s B A.
static sd_status merge_weight(void *out, const sd_weight *w, const sd_lora *l, sd_error *err) {
    sd_status st = SD_OK;
    int K = w->cols;
    size_t row_bytes = sd_row_bytes(w->dtype, K);
    float *sum = sd_alloc((size_t)K * 2, sizeof *sum), *delta = sum ? sum + K : NULL;
    SD_CHECK_ALLOC(sum, err);
    for (int m = 0; m < w->rows; m++) {
        sd_dequantise(sum, w->dtype, (const char *)w->data + (size_t)m * row_bytes, K);
        sd_adapter_delta_row(delta, l, m, K);
        for (int k = 0; k < K; k++) sum[k] += delta[k];
        SD_CHECK(sd_quantise((char *)out + (size_t)m * row_bytes, w->dtype, sum, K), err, SD_EINVAL,
                 "cannot write weights of type %s; export the adapter unmerged (--to gguf-lora)",
                 sd_dtype_name(w->dtype));
    }
out:
    free(sum);
    return st;
}

// The linear map whose weights the source calls `name` and the adapter changes, or -1.
static int linear_of(const sd_adapter *a, const sd_model *base, const char *name) {
    for (int i = 0; i < base->n_linears; i++)
        if (a->lora[i].r && strcmp(base->linear[i].name, name) == 0) return i;
    return -1;
}

// ---- GGUF to GGUF

static sd_status copy_metadata(sd_gguf_writer *w, const sd_model *base, sd_error *err) {
    sd_status st = SD_OK;
    const sd_gguf *g = sd_model_gguf(base);
    bool other_template = sd_model_template_is_taken(base);
    for (int i = 0; i < sd_gguf_key_count(g); i++) {
        sd_gguf_type type;
        size_t bytes;
        const char *key = sd_gguf_key_at(g, i, &type);
        if (strcmp(key, "general.alignment") == 0) continue; // the writer has its own
        if (sd_gguf_key_is_of_split(key)) continue;          // what is written is one file
        if (other_template && strcmp(key, SD_GGUF_TEMPLATE_KEY) == 0) continue;
        const void *raw = sd_gguf_value_raw(g, i, &bytes);
        SD_TRY(sd_gguf_put_raw(w, key, type, raw, bytes, err));
    }
    if (other_template)
        SD_TRY(sd_gguf_put_str(w, SD_GGUF_TEMPLATE_KEY, sd_template_source(base->chat), err));
out:
    return st;
}

static sd_status merge_gguf(const char *path, const sd_adapter *a, const sd_model *base,
                            sd_error *err) {
    sd_status st = SD_OK;
    sd_gguf_writer *w = NULL;
    void *merged = NULL;
    const sd_gguf *g = sd_model_gguf(base);
    SD_TRY(sd_gguf_writer_open(&w, path, err));
    SD_TRY(copy_metadata(w, base, err));
    for (int i = 0; i < sd_gguf_tensor_count(g); i++) {
        const sd_gguf_tensor *t = sd_gguf_tensor_at(g, i);
        SD_TRY(sd_gguf_declare(w, t->name, t->dtype, t->n_dims, t->ne, err));
    }
    for (int i = 0; i < sd_gguf_tensor_count(g); i++) {
        const sd_gguf_tensor *t = sd_gguf_tensor_at(g, i);
        int adapted = linear_of(a, base, t->name);
        if (adapted < 0) {
            SD_TRY(sd_gguf_write_tensor(w, t->data, t->bytes, err));
            continue;
        }
        merged = sd_alloc(t->bytes, 1);
        SD_CHECK_ALLOC(merged, err);
        SD_TRY(merge_weight(merged, &base->linear[adapted].w, &a->lora[adapted], err));
        SD_TRY(sd_gguf_write_tensor(w, merged, t->bytes, err));
        free(merged);
        merged = NULL;
    }
    SD_TRY(sd_model_check(base, err)); // what was written is of the base that was opened
    sd_gguf_writer *done = w;
    w = NULL;
    SD_TRY(sd_gguf_writer_commit(done, err));
out:
    free(merged);
    sd_gguf_writer_abort(w);
    return st;
}

// ---- folder to folder

static sd_status copy_side_files(const char *dir, const sd_model *base, sd_error *err) {
    static const char *const names[] = {"config.json",         "generation_config.json",
                                        "tokenizer.json",      "tokenizer_config.json",
                                        "chat_template.jinja", "special_tokens_map.json",
                                        "added_tokens.json",   "vocab.json",
                                        "merges.txt"};
    sd_status st = SD_OK;
    char *from = NULL, *to = NULL, *data = NULL;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        size_t len;
        from = sd_path_join(base->path, names[i]);
        to = sd_path_join(dir, names[i]);
        SD_CHECK_ALLOC(from, err);
        SD_CHECK_ALLOC(to, err);
        sd_path_kind kind;
        SD_TRY(sd_path_look(&kind, from, err));
        if (kind != SD_PATH_NONE) {
            SD_TRY(sd_file_read(&data, &len, from, (size_t)256 << 20, err));
            SD_TRY(sd_file_write(to, data, len, err));
        }
        free(from), free(to), free(data);
        from = to = data = NULL;
    }
out:
    free(from), free(to), free(data);
    return st;
}

static sd_status merge_folder(const char *dir, const sd_adapter *a, const sd_model *base,
                              sd_error *err) {
    sd_status st = SD_OK;
    const sd_safetensors *s = sd_model_safetensors(base);
    int n = sd_safetensors_count(s);
    bool made = false, written = false;
    sd_path_kind there;
    char *folder = NULL;
    sd_st_tensor *t = sd_alloc((size_t)n, sizeof *t);
    void **merged = sd_alloc((size_t)n, sizeof *merged);
    json_t *metadata = json_pack("{s:s}", "format", "pt");
    char *weights = sd_path_join(dir, "model.safetensors");
    SD_CHECK_ALLOC(t, err);
    SD_CHECK_ALLOC(merged, err);
    SD_CHECK_ALLOC(metadata, err);
    SD_CHECK_ALLOC(weights, err);
    for (int i = 0; i < n; i++) {
        t[i] = *sd_safetensors_at(s, i);
        int adapted = linear_of(a, base, t[i].name);
        if (adapted < 0) continue;
        merged[i] = sd_alloc(t[i].bytes, 1);
        SD_CHECK_ALLOC(merged[i], err);
        SD_TRY(merge_weight(merged[i], &base->linear[adapted].w, &a->lora[adapted], err));
        t[i].data = merged[i];
    }
    SD_TRY(sd_path_look(&there, dir, err));
    made = there == SD_PATH_NONE;
    folder = made ? sd_strdup(dir) : NULL;
    sd_cleanup_add(folder);
    SD_TRY(sd_mkdirs(dir, err));
    SD_TRY(sd_safetensors_write(weights, t, n, metadata, err));
    written = true;
    SD_TRY(sd_model_check(base, err)); // what was written is of the base that was opened
    SD_TRY(copy_side_files(dir, base, err));
    SD_TRY(sd_adapter_write_template(dir, base, err)); // goes before tokenizer_config.json's
out:
    if (st != SD_OK && written) unlink(weights);
    if (st != SD_OK && made) (void)sd_remove_tree(dir, NULL); // nothing half-written stays
    sd_cleanup_drop(folder);
    free(folder);
    for (int i = 0; merged && i < n; i++) free(merged[i]);
    free(merged);
    free(t);
    free(weights);
    json_decref(metadata);
    return st;
}

sd_status sd_adapter_write_merged(const char *path, const sd_adapter *a, sd_model *base,
                                  sd_error *err) {
    return sd_model_is_gguf(base) ? merge_gguf(path, a, base, err)
                                  : merge_folder(path, a, base, err);
}
