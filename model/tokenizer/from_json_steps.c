// The steps around the model in Hugging Face's tokenizer.json:
//
//   normalizer      null, NFC, NFD, NFKC, NFKD; of pieces also Prepend and Replace, which write spaces
//   pre_tokenizer   Sequence of Split, Digits and, last, ByteLevel
//                   of pieces: null, Metaspace, or a Split at spaces, of which none is left by then
//   post_processor  TemplateProcessing: the token that begins a text is bos, one that ends it stands behind it
//   decoder         of pieces: Replace, ByteFallback, Fuse and perhaps Strip. ByteLevel's is not read:
//                   a vocabulary of bytes decodes in one way
//
// Pieces spell a space as U+2581, in the normalizer (Llama 2, Phi 3, Gemma) or in Metaspace (newer
// conversions). One of the two must be there, and the decoder must undo it.
#include "model/tokenizer/from_json.h"

#include "base/files/json_file.h"

#include <string.h>
#include <utf8proc.h>

static const char FILE_NAME[] = SD_TOKENIZER_JSON;

static const char *text_of(const json_t *o, const char *key) {
    const char *s = json_string_value(json_object_get(o, key));
    return s ? s : "";
}

static sd_status read_flag(bool *out, const json_t *o, const char *key, sd_error *err) {
    return sd_key_bool(out, o, key, false, FILE_NAME, err);
}

static bool is_type(const json_t *o, const char *name) {
    return strcmp(text_of(o, "type"), name) == 0;
}

static bool is_text(const json_t *o, const char *key, const char *want) {
    const json_t *v = json_object_get(o, key);
    return json_is_string(v) && json_string_length(v) == strlen(want) &&
           strcmp(json_string_value(v), want) == 0;
}

// A Replace of one text by another.
static bool replaces(const json_t *o, const char *what, const char *by) {
    return is_type(o, "Replace") && is_text(json_object_get(o, "pattern"), "String", what) &&
           is_text(o, "content", by);
}

static const char MARK[] = "\xE2\x96\x81"; // U+2581

// *spaces: spaces are written U+2581 from here on.
static sd_status read_normaliser(sd_tokenizer *t, const json_t *o, bool *spaces, sd_error *err) {
    static const struct {
        const char *name;
        int form;
    } forms[] = {{"NFC", UTF8PROC_STABLE | UTF8PROC_COMPOSE},
                 {"NFD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE},
                 {"NFKC", UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
                 {"NFKD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT}};
    sd_status st = SD_OK;
    if (!o || json_is_null(o)) return SD_OK;
    if (is_type(o, "Sequence")) {
        size_t i;
        json_t *inner;
        json_array_foreach(json_object_get(o, "normalizers"), i, inner) {
            SD_CHECK(!is_type(inner, "Sequence"), err, SD_EFORMAT,
                     "tokenizer.json: nested sequences of normalizers are not supported");
            SD_TRY(read_normaliser(t, inner, spaces, err));
        }
        return SD_OK;
    }
    if (t->pieces && replaces(o, " ", MARK)) {
        *spaces = true;
        return SD_OK;
    }
    if (t->pieces && is_type(o, "Prepend") && t->prefix == SD_PREFIX_NONE &&
        (is_text(o, "prepend", MARK) || (is_text(o, "prepend", " ") && !*spaces))) {
        t->prefix = SD_PREFIX_ALWAYS;
        return SD_OK;
    }
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (!is_type(o, forms[i].name)) continue;
        SD_CHECK(!*spaces && t->prefix == SD_PREFIX_NONE, err, SD_EFORMAT,
                 "tokenizer.json: normalizer \"%s\" after Prepend or Replace is not supported",
                 forms[i].name);
        SD_CHECK(!t->normalises || t->normal_form == forms[i].form, err, SD_EFORMAT,
                 "tokenizer.json: two normalization forms are not supported");
        t->normalises = true;
        t->normal_form = forms[i].form;
        return SD_OK;
    }
    st = sd_fail(err, SD_EFORMAT,
                 "tokenizer.json: normalizer \"%.64s\" is not supported as it stands; NFC, NFD, "
                 "NFKC and NFKD "
                 "are, and with byte_fallback Prepend and Replace of U+2581 for a space",
                 text_of(o, "type"));
out:
    return st;
}

static sd_status read_split(sd_tokenizer *t, const json_t *o, sd_error *err) {
#define SPLIT_WORD(name, word) word,
    static const char *const names[] = {SD_SPLIT_LIST(SPLIT_WORD)};
#undef SPLIT_WORD
    sd_status st = SD_OK;
    const json_t *pattern = json_object_get(o, "pattern"), *regex, *literal;
    int behaviour = -1;
    bool invert;
    for (int i = 0; i < (int)(sizeof names / sizeof *names); i++)
        if (strcmp(text_of(o, "behavior"), names[i]) == 0) behaviour = i;
    SD_CHECK(behaviour >= 0, err, SD_EFORMAT,
             "tokenizer.json: behavior \"%.64s\" of Split is not known", text_of(o, "behavior"));
    regex = json_object_get(pattern, "Regex");
    literal = json_object_get(pattern, "String");
    SD_CHECK(json_is_string(regex) || json_is_string(literal), err, SD_EFORMAT,
             "tokenizer.json: Split has neither a Regex nor a String as its pattern");
    const json_t *p = json_is_string(regex) ? regex : literal;
    SD_TRY(read_flag(&invert, o, "invert", err));
    SD_TRY(sd_tokenizer_add_regex(t, json_string_value(p), json_string_length(p), p == literal,
                                  (sd_split_behaviour)behaviour, invert, err));
out:
    return st;
}

// *bytes: ByteLevel was met. It writes bytes as other characters, so nothing may split after it.
static sd_status read_pre(sd_tokenizer *t, const json_t *o, bool *bytes, int depth, sd_error *err) {
    sd_status st = SD_OK;
    SD_CHECK(!*bytes, err, SD_EFORMAT,
             "tokenizer.json: a pre_tokenizer after ByteLevel is not supported");
    if (is_type(o, "Sequence") && depth < 8) {
        size_t i;
        json_t *inner;
        json_array_foreach(json_object_get(o, "pretokenizers"), i, inner)
            SD_TRY(read_pre(t, inner, bytes, depth + 1, err));
    } else if (is_type(o, "Split")) {
        SD_TRY(read_split(t, o, err));
    } else if (is_type(o, "Digits")) {
        bool each;
        SD_TRY(read_flag(&each, o, "individual_digits", err));
        sd_split_behaviour b = each ? SD_SPLIT_ISOLATED : SD_SPLIT_CONTIGUOUS;
        SD_TRY(
            sd_tokenizer_add_step(t, (sd_split_step){.kind = SD_STEP_DIGITS, .behaviour = b}, err));
    } else if (is_type(o, "ByteLevel")) {
        bool regex, prefix;
        // Files that are older than the option mean true.
        SD_TRY(sd_key_bool(&regex, o, "use_regex", true, FILE_NAME, err));
        SD_TRY(read_flag(&prefix, o, "add_prefix_space", err));
        *bytes = true;
        if (prefix) SD_TRY(sd_tokenizer_add_step(t, (sd_split_step){.kind = SD_STEP_PREFIX}, err));
        if (regex)
            SD_TRY(sd_tokenizer_add_regex(t, SD_REGEX_GPT2, strlen(SD_REGEX_GPT2), false,
                                          SD_SPLIT_ISOLATED, false, err));
    } else {
        st = sd_fail(err, SD_EFORMAT,
                     "tokenizer.json: pre_tokenizer \"%.64s\" is not supported; Split, Digits and "
                     "ByteLevel are",
                     text_of(o, "type"));
    }
out:
    return st;
}

// Metaspace writes spaces as U+2581 and puts one in front. Files that are older than prepend_scheme
// say add_prefix_space.
static sd_status read_metaspace(sd_tokenizer *t, const json_t *o, sd_error *err) {
    sd_status st = SD_OK;
    bool add, split;
    const char *scheme;
    SD_CHECK(is_text(o, "replacement", MARK), err, SD_EFORMAT,
             "tokenizer.json: replacement \"%.16s\" of Metaspace is not supported; U+2581 is",
             text_of(o, "replacement"));
    SD_TRY(sd_key_bool(&add, o, "add_prefix_space", true, FILE_NAME, err));
    SD_TRY(sd_key_str(&scheme, o, "prepend_scheme", add ? "always" : "never", FILE_NAME, err));
    SD_TRY(sd_key_bool(&split, o, "split", true, FILE_NAME, err));
    if (strcmp(scheme, "always") == 0)
        t->prefix = SD_PREFIX_MISSING;
    else if (strcmp(scheme, "first") == 0)
        t->prefix = SD_PREFIX_FIRST;
    else
        SD_CHECK(
            strcmp(scheme, "never") == 0, err, SD_EFORMAT,
            "tokenizer.json: prepend_scheme \"%.64s\" is not known; always, first and never are",
            scheme);
    t->spaces_late = true;
    if (split) SD_TRY(sd_tokenizer_add_regex(t, " ", 1, true, SD_SPLIT_NEXT, false, err));
out:
    return st;
}

// The pre-tokeniser of pieces. spaces: the normalizer has written them already.
static sd_status read_pieces_pre(sd_tokenizer *t, const json_t *o, bool spaces, sd_error *err) {
    sd_status st = SD_OK;
    const json_t *inner = json_object_get(o, "pretokenizers");
    if (o && is_type(o, "Sequence") && json_array_size(inner) == 1) o = json_array_get(inner, 0);
    bool none = !o || json_is_null(o), metaspace = !none && is_type(o, "Metaspace");
    // A Split at spaces finds none: Gemma's.
    bool idle = !none && spaces && is_type(o, "Split") &&
                is_text(json_object_get(o, "pattern"), "String", " ") &&
                !json_is_true(json_object_get(o, "invert"));
    SD_CHECK(
        spaces || metaspace, err, SD_EFORMAT,
        "tokenizer.json: nothing writes spaces as U+2581, so byte_fallback is not supported; a "
        "Replace or a Metaspace does it elsewhere");
    SD_CHECK(none || idle || (metaspace && !spaces), err, SD_EFORMAT,
             "tokenizer.json: pre_tokenizer \"%.64s\" is not supported as it stands with "
             "byte_fallback; none, Metaspace, and a Split at spaces are",
             text_of(o, "type"));
    SD_CHECK(!metaspace || t->prefix == SD_PREFIX_NONE, err, SD_EFORMAT,
             "tokenizer.json: Prepend and Metaspace together are not supported");
    if (metaspace) SD_TRY(read_metaspace(t, o, err));
out:
    return st;
}

static sd_status read_pieces_decoder(sd_tokenizer *t, const json_t *o, sd_error *err) {
    sd_status st = SD_OK;
    const json_t *list = json_object_get(o, "decoders"), *strip = json_array_get(list, 3);
    size_t n = json_array_size(list);
    t->strip_prefix = is_type(strip, "Strip") && is_text(strip, "content", " ") &&
                      json_integer_value(json_object_get(strip, "start")) == 1 &&
                      json_integer_value(json_object_get(strip, "stop")) == 0;
    SD_CHECK(
        is_type(o, "Sequence") && (n == 3 || (n == 4 && t->strip_prefix)) &&
            replaces(json_array_get(list, 0), MARK, " ") &&
            is_type(json_array_get(list, 1), "ByteFallback") &&
            is_type(json_array_get(list, 2), "Fuse"),
        err, SD_EFORMAT,
        "tokenizer.json: the decoder is not supported with byte_fallback; a Sequence of Replace "
        "of U+2581 by a space, ByteFallback, Fuse and perhaps Strip of one space in front is");
out:
    return st;
}

// *id <- the special token that part of a template is; -1: it is the text, or nothing.
static sd_status special_of(int32_t *id, const sd_tokenizer *t, const json_t *o, const json_t *part,
                            sd_error *err) {
    sd_status st = SD_OK;
    const json_t *token = json_object_get(part, "SpecialToken");
    *id = -1;
    if (!token) return SD_OK;
    const json_t *entry =
        json_object_get(json_object_get(o, "special_tokens"), text_of(token, "id"));
    const json_t *v = json_array_get(json_object_get(entry, "ids"), 0);
    SD_CHECK(json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) < t->bpe.V,
             err, SD_EFORMAT, "tokenizer.json: post_processor names \"%.64s\", which has no id",
             text_of(token, "id"));
    *id = (int32_t)json_integer_value(v);
out:
    return st;
}

static sd_status read_post(sd_tokenizer *t, const json_t *o, int depth, sd_error *err) {
    sd_status st = SD_OK;
    if (!o || json_is_null(o) || is_type(o, "ByteLevel")) return SD_OK;
    if (is_type(o, "Sequence") && depth < 8) {
        size_t i;
        json_t *inner;
        json_array_foreach(json_object_get(o, "processors"), i, inner)
            SD_TRY(read_post(t, inner, depth + 1, err));
    } else if (is_type(o, "TemplateProcessing")) {
        const json_t *single = json_object_get(o, "single");
        const size_t n = json_array_size(single);
        int32_t first, last = -1;
        SD_TRY(special_of(&first, t, o, json_array_get(single, 0), err));
        if (n > 1) SD_TRY(special_of(&last, t, o, json_array_get(single, n - 1), err));
        if (first >= 0) t->bos = first, t->add_bos = true;
        if (last >= 0) t->last = last, t->add_last = true;
    } else {
        st = sd_fail(err, SD_EFORMAT, "tokenizer.json: post_processor \"%.64s\" is not supported",
                     text_of(o, "type"));
    }
out:
    return st;
}

sd_status sd_tokenizer_read_steps(sd_tokenizer *t, const json_t *root, sd_error *err) {
    sd_status st = SD_OK;
    bool bytes = false, spaces = false;
    const json_t *pre = json_object_get(root, "pre_tokenizer");
    SD_TRY(read_normaliser(t, json_object_get(root, "normalizer"), &spaces, err));
    if (t->pieces) {
        SD_TRY(read_pieces_pre(t, pre, spaces, err));
        SD_TRY(read_pieces_decoder(t, json_object_get(root, "decoder"), err));
    } else {
        SD_TRY(read_pre(t, pre, &bytes, 0, err));
        SD_CHECK(bytes, err, SD_EFORMAT,
                 "tokenizer.json: the pre_tokenizer has no ByteLevel; byte-level BPE and BPE with "
                 "byte_fallback are supported");
    }
    SD_TRY(read_post(t, json_object_get(root, "post_processor"), 0, err));
out:
    return st;
}
