// Answers questions of the parity scripts: one JSON object a line in, one out.
//
//   {"op": "open", "path": P}                      a GGUF file, or a tokenizer.json -> {"size": V}
//   {"op": "ids", "text": S, "special": B}         -> {"ids": [...], "round_trip": B}
//   {"op": "ids", "hex": H, "special": B}          the same for bytes that are not UTF-8
//   {"op": "decode", "ids": [...], "skip": B}      -> {"text": S}
//   {"op": "text", "ids": [...], "skip": B}        the same as one text: sd_tokenizer_decode
//   {"op": "template"}                             -> {"text": the opened model's template}
//   {"op": "render", "template": S, "messages": [...], "tools": ..., "extra": ..., "prompt": B,
//    "bos": S, "eos": S}                           -> {"text": S}
//
// A failure is {"error": sentence}.
#include "base/files/file.h"
#include "base/memory.h"
#include "base/utf8.h"
#include "model/load/tokenizer_gguf.h"
#include "model/template/template.h"
#include "model/tokenizer/tokenizer.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

static sd_gguf *gguf;
static sd_tokenizer *tok;

static json_t *failure(const sd_error *err) {
    return json_pack("{s:s}", "error", err->message);
}

static json_t *op_open(const json_t *q) {
    sd_error err = {0};
    const char *path = json_string_value(json_object_get(q, "path"));
    size_t n = strlen(path), len;
    char *text = NULL;
    sd_tokenizer_close(tok);
    sd_gguf_close(gguf);
    tok = NULL;
    gguf = NULL;
    sd_status st;
    if (n > 5 && strcmp(path + n - 5, ".json") == 0) {
        st = sd_file_read(&text, &len, path, 1 << 28, &err);
        if (st == SD_OK) st = sd_tokenizer_from_json(&tok, text, len, &err);
    } else {
        st = sd_gguf_open(&gguf, path, &err);
        if (st == SD_OK) st = sd_tokenizer_from_gguf(&tok, gguf, &err);
    }
    free(text);
    return st == SD_OK ? json_pack("{s:i}", "size", sd_tokenizer_size(tok)) : failure(&err);
}

static json_t *op_ids(const json_t *q) {
    sd_error err = {0};
    sd_ids ids = {0};
    sd_buf in = sd_buf_make(1 << 28), back = sd_buf_make(1 << 28);
    const json_t *text = json_object_get(q, "text");
    const char *hex = json_string_value(json_object_get(q, "hex"));
    int flags = json_is_true(json_object_get(q, "special")) ? SD_TOK_SPECIAL : 0;
    if (text) sd_buf_add(&in, json_string_value(text), json_string_length(text));
    for (; hex && hex[0] && hex[1]; hex += 2) {
        unsigned byte = 0;
        sscanf(hex, "%2x", &byte);
        sd_buf_addc(&in, (char)byte);
    }
    json_t *out;
    if (sd_tokenizer_encode(tok, in.data ? in.data : "", in.len, flags, &ids, &err) != SD_OK ||
        sd_tokenizer_decode(tok, ids.id, ids.n, false, &back, &err) != SD_OK) {
        out = failure(&err);
    } else {
        bool same = back.len == in.len && (in.len == 0 || memcmp(back.data, in.data, in.len) == 0);
        json_t *list = json_array();
        for (int i = 0; i < ids.n; i++) json_array_append_new(list, json_integer(ids.id[i]));
        out = json_pack("{s:o, s:b}", "ids", list, "round_trip", same);
    }
    sd_ids_free(&ids);
    sd_buf_free(&in);
    sd_buf_free(&back);
    return out;
}

// Through the stream, token by token, as a server sends it.
static json_t *op_decode(const json_t *q) {
    sd_buf out = sd_buf_make(1 << 28);
    sd_utf8_stream stream = {0};
    size_t i, len;
    json_t *id;
    json_array_foreach(json_object_get(q, "ids"), i, id) {
        int32_t x = (int32_t)json_integer_value(id);
        if (json_is_true(json_object_get(q, "skip")) && sd_tokenizer_is_special(tok, x)) continue;
        const char *bytes = sd_tokenizer_bytes(tok, x, &len);
        sd_utf8_stream_add(&stream, bytes, len, &out);
    }
    sd_utf8_stream_add(&stream, NULL, 0, &out);
    json_t *o = json_pack("{s:s%}", "text", out.data ? out.data : "", out.len);
    sd_buf_free(&out);
    return o;
}

static json_t *op_text(const json_t *q) {
    sd_error err = {0};
    sd_ids ids = {0};
    sd_buf raw = sd_buf_make(1 << 28), out = sd_buf_make(1 << 28);
    size_t i;
    json_t *id, *o;
    json_array_foreach(json_object_get(q, "ids"), i, id) {
        int32_t x = (int32_t)json_integer_value(id);
        sd_ids_add(&ids, &x, 1);
    }
    if (sd_tokenizer_decode(tok, ids.id, ids.n, json_is_true(json_object_get(q, "skip")), &raw,
                            &err) == SD_OK &&
        sd_utf8_lossy(&out, raw.data ? raw.data : "", raw.len))
        o = json_pack("{s:s%}", "text", out.data ? out.data : "", out.len);
    else
        o = failure(&err);
    sd_ids_free(&ids);
    sd_buf_free(&raw);
    sd_buf_free(&out);
    return o;
}

static json_t *op_template(void) {
    sd_gguf_string s;
    bool has = false;
    if (!gguf || sd_gguf_str(gguf, "tokenizer.chat_template", &s, &has, NULL) != SD_OK || !has)
        return json_pack("{s:s}", "error", "no template");
    return json_pack("{s:s%}", "text", s.data, s.len);
}

static const json_t *not_null(const json_t *j) {
    return json_is_null(j) ? NULL : j;
}

static json_t *op_render(const json_t *q) {
    sd_error err = {0};
    sd_template *t = NULL;
    sd_buf out = sd_buf_make(1 << 28);
    const json_t *source = json_object_get(q, "template");
    json_t *o;
    sd_status st =
        sd_template_open(&t, json_string_value(source), json_string_length(source), &err);
    if (st == SD_OK)
        st = sd_template_render(
            t, json_object_get(q, "messages"), not_null(json_object_get(q, "tools")),
            not_null(json_object_get(q, "extra")), json_is_true(json_object_get(q, "prompt")),
            json_string_value(json_object_get(q, "bos")),
            json_string_value(json_object_get(q, "eos")), &out, &err);
    o = st == SD_OK ? json_pack("{s:s%}", "text", out.data ? out.data : "", out.len)
                    : failure(&err);
    sd_template_close(t);
    sd_buf_free(&out);
    return o;
}

static json_t *answer(const json_t *q) {
    const char *op = json_string_value(json_object_get(q, "op"));
    if (op && strcmp(op, "open") == 0) return op_open(q);
    if (op && strcmp(op, "ids") == 0 && tok) return op_ids(q);
    if (op && strcmp(op, "decode") == 0 && tok) return op_decode(q);
    if (op && strcmp(op, "text") == 0 && tok) return op_text(q);
    if (op && strcmp(op, "template") == 0) return op_template();
    if (op && strcmp(op, "render") == 0) return op_render(q);
    return json_pack("{s:s}", "error", "no such question");
}

int main(void) {
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    while ((n = getline(&line, &cap, stdin)) > 0) {
        json_error_t why;
        json_t *q = json_loadb(line, (size_t)n, JSON_ALLOW_NUL, &why);
        json_t *a = q ? answer(q) : json_pack("{s:s}", "error", why.text);
        char *text = json_dumps(a, JSON_COMPACT);
        puts(text ? text : "{\"error\": \"no JSON\"}");
        fflush(stdout);
        free(text);
        json_decref(a);
        json_decref(q);
    }
    free(line);
    sd_tokenizer_close(tok);
    sd_gguf_close(gguf);
    return 0;
}
