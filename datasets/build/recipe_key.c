// A prepared file is known by what it was made from: the bytes of its sources, the options that
// change what is in it, the tokenizer, the template and the end tokens.
#include "datasets/build/recipe_key.h"

#include "base/json.h"
#include "base/option.h"
#include "datasets/store/store.h"

#include <string.h>

sd_status sd_prepare_check(const sd_prepare_options *o, const sd_model *m, sd_error *err) {
    sd_status st = SD_OK;
    SD_CHECK(o->n_sources > 0, err, SD_EINVAL, "no data is given; name at least one file");
    SD_CHECK(o->sequence_len >= 2 && o->sequence_len <= 1 << 20, err, SD_EINVAL,
             "sequence_len %d is not between 2 and %d", o->sequence_len, 1 << 20);
    SD_CHECK(o->keep_from >= 0 && o->keep_to <= 1 && o->keep_from <= o->keep_to, err, SD_EINVAL,
             "the kept part %g..%g is not within 0..1", o->keep_from, o->keep_to);
    SD_CHECK(m->tokenizer, err, SD_EINVAL, "%s: the model has no tokenizer; give one that has",
             m->path ? m->path : "model");
out:
    return st;
}

json_t *sd_prepare_recipe(const sd_prepare_options *o) {
    size_t n_loss_on, n_overlong;
    const char *loss_on = sd_option_word(&n_loss_on, SD_LOSS_ON, o->loss_on);
    const char *overlong = sd_option_word(&n_overlong, SD_OVERLONG, o->overlong);
    return json_pack("{s:i, s:i, s:s%, s:b, s:s%, s:b, s:I, s:b, s:f, s:f}", "version",
                     o->version ? o->version : SD_DATASET_VERSION, "sequence_len", o->sequence_len,
                     "loss_on", loss_on, n_loss_on, "train_on_eot", o->train_on_eot, "overlong",
                     overlong, n_overlong, "packing", o->packing, "max_records",
                     (json_int_t)o->max_records, "skip_empty_labels", o->skip_empty_labels,
                     "keep_from", o->keep_from, "keep_to", o->keep_to);
}

sd_status sd_prepare_sources(json_t **out, int64_t *bytes, sd_file_id *id,
                             const sd_prepare_options *o, sd_error *err) {
    sd_status st = SD_OK;
    json_t *list = json_array();
    sd_map map = {0};
    *out = NULL;
    *bytes = 0;
    SD_CHECK_ALLOC(list, err);
    for (int i = 0; i < o->n_sources; i++) {
        sd_sha256 hash;
        const char *path = o->source[i].path;
        SD_TRY(sd_map_open(&map, path, err));
        SD_TRY(sd_sha256_of_map(&hash, &map, path, err));
        SD_TRY(sd_map_check(&map, path, err)); // nobody wrote meanwhile
        int64_t size = (int64_t)map.size;
        if (id) id[i] = map.id;
        sd_map_close(&map);
        json_t *about = json_pack("{s:s, s:s, s:I, s:s}", "path", path, "sha256", hash.hex, "bytes",
                                  (json_int_t)size, "format", sd_format_name(o->source[i].format));
        SD_CHECK(about || !sd_memory_lost(), err, SD_ENOMEM, "out of memory");
        SD_CHECK(about, err, SD_EINVAL, "%s: the path is not UTF-8; rename the file", path);
        SD_CHECK(json_array_append_new(list, about) == 0, err, SD_ENOMEM, "out of memory");
        *bytes += size;
    }
    *out = list, list = NULL;
out:
    sd_map_close(&map);
    json_decref(list);
    return st;
}

// Paths stay out of it: the same bytes under another name make the same data.
static sd_status make_key(sd_sha256 *out, const json_t *recipe, const json_t *sources,
                          const sd_model *m, sd_error *err) {
    sd_status st = SD_OK;
    sd_hasher *h = NULL;
    json_t *about;
    size_t i;
    char *text = NULL;
    SD_TRY(
        sd_json_dump(&text, recipe, JSON_SORT_KEYS | JSON_COMPACT | JSON_REAL_PRECISION(17), err));
    SD_TRY(sd_hasher_open(&h, err));
    sd_hasher_add(h, text, strlen(text) + 1);
    json_array_foreach(sources, i, about) {
        const char *hash = json_string_value(json_object_get(about, "sha256"));
        const char *format = json_string_value(json_object_get(about, "format"));
        sd_hasher_add(h, hash, strlen(hash) + 1);
        sd_hasher_add(h, format, strlen(format) + 1);
    }
    const char *tokenizer = sd_tokenizer_encoding(m->tokenizer);
    const char *chat = m->chat ? sd_template_source(m->chat) : "";
    sd_hasher_add(h, tokenizer, strlen(tokenizer) + 1);
    sd_hasher_add(h, chat, strlen(chat) + 1);
    sd_hasher_add(h, m->end_token, sizeof *m->end_token * (size_t)m->n_end_tokens);
    *out = sd_hasher_close(h);
out:
    free(text);
    return st;
}

sd_status sd_prepare_key(sd_sha256 *out, const sd_prepare_options *o, const json_t *sources,
                         const sd_model *m, sd_error *err) {
    json_t *recipe = sd_prepare_recipe(o);
    if (!recipe) return sd_fail(err, SD_ENOMEM, "out of memory");
    sd_status st = make_key(out, recipe, sources, m, err);
    json_decref(recipe);
    return st;
}

sd_status sd_dataset_key(sd_sha256 *out, const sd_prepare_options *o, const sd_model *m,
                         sd_error *err) {
    sd_status st = SD_OK;
    json_t *sources = NULL;
    int64_t bytes;
    SD_TRY(sd_prepare_check(o, m, err));
    SD_TRY(sd_prepare_sources(&sources, &bytes, NULL, o, err));
    SD_TRY(sd_prepare_key(out, o, sources, m, err));
out:
    json_decref(sources);
    return st;
}
