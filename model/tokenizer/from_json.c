// A tokenizer out of Hugging Face's tokenizer.json:
//
//   model           BPE: vocab {text: id}, merges ["a b"] or [["a", "b"]], ignore_merges, unk_token,
//                   byte_fallback: true for pieces of characters (SentencePiece), else byte-level
//   added_tokens    id, content, special, lstrip, rstrip, single_word, normalized
//
// and what stands around the model (from_json_steps.c). Anything else is refused by its name: a
// tokenizer that nearly fits gives wrong ids.
#include "model/tokenizer/from_json.h"

#include "base/files/file.h"
#include "base/files/json_file.h"
#include "base/files/path.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"

#include <jansson.h>
#include <string.h>

enum { MAX_JSON = 1 << 28 };

static const char FILE_NAME[] = SD_TOKENIZER_JSON;

static sd_status read_flag(bool *out, const json_t *o, const char *key, sd_error *err) {
    return sd_key_bool(out, o, key, false, FILE_NAME, err);
}

// ---- the model

static sd_status size_of_vocab(int *V, const json_t *vocab, const json_t *added, sd_error *err) {
    sd_status st = SD_OK;
    json_int_t top = -1, id;
    const char *key;
    json_t *value;
    size_t i;
    json_object_foreach((json_t *)(uintptr_t)vocab, key, value) {
        SD_CHECK(json_is_integer(value) && (id = json_integer_value(value)) >= 0, err, SD_EFORMAT,
                 "tokenizer.json: the id of \"%.64s\" is no number; check the file", key);
        if (id > top) top = id;
    }
    json_array_foreach(added, i, value) {
        id = json_integer_value(json_object_get(value, "id"));
        SD_CHECK(json_is_integer(json_object_get(value, "id")) && id >= 0, err, SD_EFORMAT,
                 "tokenizer.json: added token %zu has no id; check the file", i);
        if (id > top) top = id;
    }
    SD_CHECK(top >= 0 && top < SD_TOK_MAX_VOCAB, err, SD_EFORMAT,
             "tokenizer.json: the largest id is %lld, 0 to %d are supported", (long long)top,
             SD_TOK_MAX_VOCAB - 1);
    // A file of n entries cannot mean an id far beyond n.
    SD_CHECK((size_t)top < 16 * (json_object_size(vocab) + json_array_size(added)) + 65536, err,
             SD_EFORMAT, "tokenizer.json: id %lld is far beyond the number of tokens; check it",
             (long long)top);
    *V = (int)top + 1;
out:
    return st;
}

// Appends what a token's text in the file stands for to out: GPT-2's characters are bytes,
// U+2581 of a piece is a space. *merges false: no text in the model's alphabet, so nothing merges to
// it. A real space is none for pieces: by then it is written U+2581.
static sd_status read_text(sd_buf *out, bool *merges, const sd_tokenizer *t, const char *text,
                           size_t len, sd_error *err) {
    sd_status st = SD_OK;
    if (t->pieces) {
        *merges = !memchr(text, ' ', len);
        SD_CHECK_ALLOC(sd_tokenizer_spaces(out, text, len, false), err);
    } else {
        SD_CHECK_ALLOC(sd_bytes_from_printable(out, text, len, merges), err);
        if (!*merges) SD_CHECK_ALLOC(sd_buf_add(out, text, len), err);
    }
out:
    return st;
}

// A token that is not in the model's vocabulary stands for its own text, in which decoding still
// writes U+2581 as a space.
static sd_status set_added_text(sd_tokenizer *t, const sd_added_token *a, sd_error *err) {
    sd_status st = SD_OK;
    sd_buf text = sd_buf_make((size_t)1 << 24);
    if (t->pieces) {
        SD_CHECK_ALLOC(sd_tokenizer_spaces(&text, a->text, a->len, false), err);
        SD_TRY(sd_bpe_set(&t->bpe, a->id, text.data, text.len, false, err));
    } else {
        SD_TRY(sd_bpe_set(&t->bpe, a->id, a->text, a->len, false, err));
    }
out:
    sd_buf_free(&text);
    return st;
}

static sd_status read_added(sd_tokenizer *t, const json_t *added, const json_t *vocab,
                            sd_error *err) {
    sd_status st = SD_OK;
    size_t i;
    json_t *o;
    json_array_foreach(added, i, o) {
        const json_t *content = json_object_get(o, "content");
        SD_CHECK(json_is_string(content), err, SD_EFORMAT,
                 "tokenizer.json: added token %zu has no content; check the file", i);
        sd_added_token a = {.id = (int32_t)json_integer_value(json_object_get(o, "id")),
                            .text = (char *)(uintptr_t)json_string_value(content),
                            .len = json_string_length(content)};
        SD_TRY(read_flag(&a.special, o, "special", err));
        SD_TRY(read_flag(&a.lstrip, o, "lstrip", err));
        SD_TRY(read_flag(&a.rstrip, o, "rstrip", err));
        SD_TRY(read_flag(&a.single_word, o, "single_word", err));
        SD_TRY(read_flag(&a.normalized, o, "normalized", err));
        // A token in the model's vocabulary has the id given there, whatever its entry here says,
        // and is read with the vocabulary.
        const json_t *id = json_object_get(vocab, a.text);
        if (id)
            a.id = (int32_t)json_integer_value(id);
        else
            SD_TRY(set_added_text(t, &a, err));
        SD_TRY(sd_tokenizer_add_added_token(t, &a, err));
    }
out:
    return st;
}

static sd_status read_vocab(sd_tokenizer *t, const json_t *vocab, sd_error *err) {
    sd_status st = SD_OK;
    sd_buf bytes = sd_buf_make((size_t)1 << 24);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)vocab, key, value) {
        int id = (int)json_integer_value(value), byte = -1;
        size_t len = strlen(key);
        bool merges = false;
        sd_buf_clear(&bytes);
        if (t->pieces) byte = sd_byte_of_piece(key, len);
        if (byte >= 0) {
            SD_CHECK_ALLOC(sd_buf_addc(&bytes, (char)byte), err);
            t->bpe.byte_id[byte] = id;
        } else {
            SD_TRY(read_text(&bytes, &merges, t, key, len, err));
        }
        SD_TRY(sd_bpe_set(&t->bpe, id, bytes.data, bytes.len, merges, err));
    }
out:
    sd_buf_free(&bytes);
    return st;
}

// The two parts of a merge, borrowed from the JSON.
static bool merge_parts(const json_t *m, const char *part[2], size_t len[2]) {
    if (json_is_array(m) && json_array_size(m) == 2) {
        for (size_t i = 0; i < 2; i++) {
            part[i] = json_string_value(json_array_get(m, i));
            len[i] = json_string_length(json_array_get(m, i));
        }
        return part[0] && part[1];
    }
    const char *s = json_string_value(m), *space = s && *s ? strchr(s + 1, ' ') : NULL;
    if (!space) return false;
    part[0] = s, len[0] = (size_t)(space - s);
    part[1] = space + 1, len[1] = strlen(space + 1);
    return true;
}

static sd_status read_merges(sd_tokenizer *t, const json_t *merges, sd_error *err) {
    sd_status st = SD_OK;
    sd_buf left = sd_buf_make((size_t)1 << 24), right = left;
    size_t i, n = json_array_size(merges);
    json_t *m;
    SD_CHECK(json_is_array(merges) && n <= SD_TOK_MAX_VOCAB, err, SD_EFORMAT,
             "tokenizer.json: model.merges is missing or has more than %d entries",
             SD_TOK_MAX_VOCAB);
    SD_TRY(sd_bpe_reserve_merges(&t->bpe, (int)n, err));
    json_array_foreach(merges, i, m) {
        const char *part[2];
        size_t len[2];
        bool ok1 = false, ok2 = false;
        SD_CHECK(merge_parts(m, part, len), err, SD_EFORMAT,
                 "tokenizer.json: merge %zu is not two tokens", i);
        sd_buf_clear(&left);
        sd_buf_clear(&right);
        SD_TRY(read_text(&left, &ok1, t, part[0], len[0], err));
        SD_TRY(read_text(&right, &ok2, t, part[1], len[1], err));
        SD_CHECK(ok1 && ok2, err, SD_EFORMAT, "tokenizer.json: merge %zu is not written in %s", i,
                 t->pieces ? "pieces, which write a space as U+2581" : "GPT-2's characters");
        SD_TRY(sd_bpe_add_merge(&t->bpe, left.data, left.len, right.data, right.len, err));
    }
out:
    sd_buf_free(&left);
    sd_buf_free(&right);
    return st;
}

// Reads the options that a BPE model may have beside its tokens and merges.
static sd_status read_model_options(sd_tokenizer *t, const json_t *model, const json_t *vocab,
                                    sd_error *err) {
    sd_status st = SD_OK;
    const char *prefix, *suffix, *unk;
    double dropout;
    SD_TRY(sd_key_str(&prefix, model, "continuing_subword_prefix", "", FILE_NAME, err));
    SD_TRY(sd_key_str(&suffix, model, "end_of_word_suffix", "", FILE_NAME, err));
    SD_CHECK(!*prefix && !*suffix, err, SD_EFORMAT,
             "tokenizer.json: subword prefixes and suffixes are not supported; byte-level BPE and "
             "BPE with byte_fallback are");
    SD_TRY(sd_key_number(&dropout, model, "dropout", 0, FILE_NAME, err));
    SD_CHECK(dropout == 0, err, SD_EFORMAT,
             "tokenizer.json: model.dropout is not supported; set it to null");
    SD_TRY(read_flag(&t->pieces, model, "byte_fallback", err));
    t->bpe.by_character = t->pieces;
    SD_TRY(read_flag(&t->bpe.ignore_merges, model, "ignore_merges", err));
    SD_TRY(read_flag(&t->bpe.fuse_unk, model, "fuse_unk", err));
    SD_TRY(sd_key_str(&unk, model, "unk_token", NULL, FILE_NAME, err));
    const json_t *id = unk ? json_object_get(vocab, unk) : NULL;
    if (id) t->bpe.unk = (int32_t)json_integer_value(id);
out:
    return st;
}

static sd_status read_model(sd_tokenizer *t, const json_t *root, sd_error *err) {
    sd_status st = SD_OK;
    int V = 0;
    json_t *model, *vocab, *added;
    const char *type;
    SD_TRY(sd_key_object(&model, root, "model", FILE_NAME, err));
    SD_TRY(sd_key_object(&vocab, model, "vocab", FILE_NAME, err));
    SD_TRY(sd_key_array(&added, root, "added_tokens", FILE_NAME, err));
    SD_TRY(sd_key_str(&type, model, "type", "BPE", FILE_NAME, err));
    SD_CHECK(strcmp(type, "BPE") == 0, err, SD_EFORMAT,
             "tokenizer.json: model \"%.64s\" is not supported; byte-level BPE is", type);
    SD_CHECK(vocab, err, SD_EFORMAT, "tokenizer.json: model.vocab is missing");
    SD_TRY(size_of_vocab(&V, vocab, added, err));
    SD_TRY(sd_bpe_init(&t->bpe, V, err));
    SD_TRY(read_model_options(t, model, vocab, err));
    SD_TRY(read_added(t, added, vocab, err));
    SD_TRY(read_vocab(t, vocab, err));
    SD_TRY(read_merges(t, json_object_get(model, "merges"), err));
out:
    return st;
}

// ---- opening

// tokenizer_config.json: bos_token, eos_token (a text, or an object with content), add_bos_token.
static const char CONFIG_NAME[] = "tokenizer_config.json";

static sd_status configured(int32_t *id, const sd_tokenizer *t, const json_t *config,
                            const char *key, sd_error *err) {
    const json_t *o = sd_key(config, key);
    const char *text = "";
    sd_status st = SD_OK;
    if (json_is_object(o))
        SD_TRY(sd_key_str(&text, o, "content", "", CONFIG_NAME, err));
    else
        SD_TRY(sd_key_str(&text, config, key, "", CONFIG_NAME, err));
    if (!*text) goto out;
    int32_t found = sd_tokenizer_find(t, text);
    if (found >= 0)
        *id = found;
    else
        sd_log(SD_LOG_WARN,
               "%s: %s is \"%.64s\", which is no token of tokenizer.json; it counts "
               "as not set",
               CONFIG_NAME, key, text);
out:
    return st;
}

static sd_status open_json(sd_tokenizer **out, const char *json, size_t len, const json_t *config,
                           sd_error *err) {
    sd_status st = SD_OK;
    json_error_t why;
    *out = NULL;
    sd_tokenizer *t = sd_alloc(1, sizeof *t);
    json_t *root = NULL;
    SD_CHECK_ALLOC(t, err);
    SD_TRY(sd_json_load(&root, json, len, 0, &why, err));
    t->bos = t->eos = -1;
    SD_CHECK(json_is_object(root), err, SD_EFORMAT, "tokenizer.json: line %d: %s", why.line,
             root ? "is not an object" : why.text);
    SD_TRY(read_model(t, root, err));
    SD_TRY(sd_tokenizer_read_steps(t, root, err));
    SD_TRY(configured(&t->bos, t, config, "bos_token", err));
    SD_TRY(configured(&t->eos, t, config, "eos_token", err));
    SD_TRY(sd_key_bool(&t->add_bos, config, "add_bos_token", t->add_bos, CONFIG_NAME, err));
    SD_TRY(sd_tokenizer_finish(t, err));
    *out = t;
    t = NULL;
out:
    json_decref(root);
    sd_tokenizer_close(t);
    return st;
}

sd_status sd_tokenizer_from_json(sd_tokenizer **out, const char *json, size_t len, sd_error *err) {
    return open_json(out, json, len, NULL, err);
}

sd_status sd_tokenizer_from_folder(sd_tokenizer **out, const char *folder, sd_error *err) {
    sd_status st = SD_OK;
    char *path = sd_path_join(folder, "tokenizer.json"), *text = NULL;
    char *config_path = sd_path_join(folder, "tokenizer_config.json");
    json_t *config = NULL;
    size_t len;
    *out = NULL;
    SD_CHECK_ALLOC(path && config_path, err);
    SD_TRY(sd_file_read(&text, &len, path, MAX_JSON, err));
    sd_path_kind kind;
    SD_TRY(sd_path_look(&kind, config_path, err));
    if (kind != SD_PATH_NONE) {
        // transformers writes model_max_length as 10^30 where there is none.
        SD_TRY(sd_json_read(&config, config_path, MAX_JSON, JSON_DECODE_INT_AS_REAL, NULL, err));
    }
    st = open_json(out, text, len, config, err);
    if (st != SD_OK) sd_error_prefix(err, "%s", folder);
out:
    json_decref(config);
    free(text);
    free(path);
    free(config_path);
    return st;
}
