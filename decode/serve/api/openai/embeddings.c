// POST /v1/embeddings, OpenAI's, and /v1/rerank, Cohere's: texts become vectors, or the relevance of documents to a
// query, by the pooling and the classifier that the model states.
//
//     {"input": text, texts, ids or lists of ids, "encoding_format": "float" or "base64", "dimensions": ...}
//     {"query": text, "documents": [text or {"text": ...}], "top_n": ..., "return_documents": ...}
#include "decode/serve/api/dialect.h"
#include "decode/serve/api/field.h"
#include "decode/serve/api/openai/request.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static bool begin(sd_api_request *r, bool rank, const char *body, size_t len, sd_api_error *e) {
    if (sd_api_request_begin(r, SD_API_COMPLETION, body, len, e)) return false;
    r->embed = sd_alloc(1, sizeof *r->embed);
    if (!r->embed) {
        sd_api_fail(e, 500, NULL, "out of memory");
        return false;
    }
    r->embed->rank = rank;
    r->embed->kept = json_array();
    return sd_field_string(r->root, "model", &r->model, e) && sd_openai_queueing_parse(r, e);
}

static int end(sd_api_request *r, bool ok, sd_api_error *e) {
    if (!ok) sd_api_request_free(r);
    return e->status;
}

static bool reserve(sd_embed *m, const char *param, size_t n, sd_api_error *e) {
    if (n == 0 || n > SD_API_MAX_ITEMS) {
        sd_api_fail(e, 400, param, "%s has %zu entries; give 1 to %d", param, n, SD_API_MAX_ITEMS);
        return false;
    }
    m->item = sd_alloc(n, sizeof *m->item);
    if (!m->item) sd_api_fail(e, 500, param, "out of memory");
    return m->item != NULL;
}

// The text stays where `root` is not any more.
static bool add_text(sd_embed *m, const json_t *text, const char *param, sd_api_error *e) {
    if (json_string_length(text) == 0) return sd_api_refuse(e, param, "is an empty text");
    m->item[m->n++] =
        (sd_api_prompt){.text = json_string_value(text), .len = json_string_length(text)};
    if (json_array_append(m->kept, (json_t *)(uintptr_t)text) == 0) return true;
    sd_api_fail(e, 500, param, "out of memory");
    return false;
}

// ---- vectors

static bool add_input(sd_embed *m, const json_t *v, const char *param, sd_api_error *e) {
    if (v && sd_json_is_text(v)) return add_text(m, v, param, e);
    if (json_is_array(v)) return sd_openai_item_ids(&m->item[m->n++], v, "input", param, e);
    return sd_api_refuse(e, param, "is neither a string nor an array of token ids");
}

static bool read_input(sd_embed *m, const json_t *input, sd_api_error *e) {
    char param[48];
    const size_t n = json_array_size(input);
    const bool one = !json_is_array(input) || json_is_number(json_array_get(input, 0));
    if (!input) return sd_api_refuse(e, "input", "is missing; give a string or an array");
    if (!reserve(m, "input", one ? 1 : n, e)) return false;
    if (one) return add_input(m, input, "input", e);
    for (size_t i = 0; i < n; i++) {
        snprintf(param, sizeof param, "input[%zu]", i);
        if (!add_input(m, json_array_get(input, i), param, e)) return false;
    }
    return true;
}

static bool read_format(sd_embed *m, const json_t *root, sd_api_error *e) {
    const char *format = NULL;
    int64_t dimensions = 0;
    if (!sd_field_string(root, "encoding_format", &format, e) ||
        !sd_field_int(root, "dimensions", 1, 1 << 20, &dimensions, e))
        return false;
    m->dimensions = (int)dimensions;
    m->base64 = format && strcmp(format, "base64") == 0;
    if (!format || m->base64 || strcmp(format, "float") == 0) return true;
    return sd_api_refuse(e, "encoding_format", "is neither float nor base64");
}

static int parse_embeddings(sd_api_request *r, const char *body, size_t len, sd_api_error *e) {
    return end(r,
               begin(r, false, body, len, e) &&
                   read_input(r->embed, sd_field_get(r->root, "input"), e) &&
                   read_format(r->embed, r->root, e),
               e);
}

static void base64_write(sd_json_out *t, const unsigned char *p, size_t n) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char out[5] = {0};
    sd_jt_raw(t, "\"");
    for (size_t i = 0; i < n; i += 3) {
        const uint32_t bits = (uint32_t)p[i] << 16 | (i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0) |
                              (i + 2 < n ? (uint32_t)p[i + 2] : 0);
        for (int k = 0; k < 4; k++) out[k] = digits[bits >> (18 - 6 * k) & 63];
        if (i + 1 >= n) out[2] = '=';
        if (i + 2 >= n) out[3] = '=';
        sd_jt_raw(t, out);
    }
    sd_jt_raw(t, "\"");
}

// Values of four bytes, the lowest first.
static void value_bytes(unsigned char out[4], float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    for (int k = 0; k < 4; k++) out[k] = (unsigned char)(bits >> (8 * k));
}

static void vector_write(sd_json_out *t, const float *v, int n, bool base64) {
    if (base64) {
        unsigned char *bytes = sd_alloc((size_t)n, 4);
        for (int i = 0; bytes && i < n; i++) value_bytes(bytes + 4 * (size_t)i, v[i]);
        if (bytes)
            base64_write(t, bytes, 4 * (size_t)n);
        else
            t->lost = true;
        free(bytes);
        return;
    }
    for (int i = 0; i < n; i++) {
        sd_jt_raw(t, i ? "," : "[");
        sd_jt_real(t, (double)v[i]);
    }
    sd_jt_raw(t, "]");
}

static bool vectors_write(sd_json_out *t, sd_whole *w, const sd_answer *a, const sd_readings *r,
                          const sd_usage *usage, size_t limit) {
    if (w->choice == 0) sd_jt_raw(t, "{\"object\":\"list\",\"data\":[");
    for (; w->choice < r->embed->n; w->choice++) {
        if (t->lost || t->buf.len >= limit) return false;
        sd_jt_printf(t, "%s{\"object\":\"embedding\",\"index\":%d,\"embedding\":",
                     w->choice ? "," : "", w->choice);
        vector_write(t, r->vector(r->ctx, w->choice), r->width, r->embed->base64);
        sd_jt_raw(t, "}");
    }
    sd_jt_raw(t, "],\"model\":");
    sd_jt_word(t, a->model);
    sd_jt_printf(t, ",\"usage\":{\"prompt_tokens\":%d,\"total_tokens\":%d}}", usage->prompt,
                 usage->prompt);
    return true;
}

// ---- ranks

static bool read_documents(sd_embed *m, const json_t *list, sd_api_error *e) {
    char param[48];
    if (!json_is_array(list)) return sd_api_refuse(e, "documents", "is not an array of texts");
    if (!reserve(m, "documents", json_array_size(list), e)) return false;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i);
        snprintf(param, sizeof param, "documents[%zu]", i);
        if (json_is_object(v)) v = sd_field_get(v, "text");
        if (!v || !sd_json_is_text(v))
            return sd_api_refuse(e, param, "is neither a string nor {\"text\": ...}");
        if (!add_text(m, v, param, e)) return false;
    }
    return true;
}

static bool read_query(sd_embed *m, const json_t *root, sd_api_error *e) {
    const json_t *query = sd_field_get(root, "query");
    int64_t top_n = 0;
    if (!query || !sd_json_is_text(query) || json_string_length(query) == 0)
        return sd_api_refuse(e, "query", "is not a text");
    m->query = json_string_value(query), m->query_len = json_string_length(query);
    if (json_array_append(m->kept, (json_t *)(uintptr_t)query) != 0) {
        sd_api_fail(e, 500, "query", "out of memory");
        return false;
    }
    if (!sd_field_int(root, "top_n", 1, INT32_MAX, &top_n, e)) return false;
    m->top_n = (int)top_n;
    return sd_field_bool(root, "return_documents", &m->documents, e);
}

static int parse_rerank(sd_api_request *r, const char *body, size_t len, sd_api_error *e) {
    return end(r,
               begin(r, true, body, len, e) && read_query(r->embed, r->root, e) &&
                   read_documents(r->embed, sd_field_get(r->root, "documents"), e),
               e);
}

static bool ranks_write(sd_json_out *t, sd_whole *w, const sd_answer *a, const sd_readings *r,
                        const sd_usage *usage, size_t limit) {
    const sd_embed *m = r->embed;
    const int n = m->top_n > 0 && m->top_n < m->n ? m->top_n : m->n;
    if (w->choice == 0) {
        sd_jt_raw(t, "{\"id\":");
        sd_jt_word(t, a->id);
        sd_jt_raw(t, ",\"model\":");
        sd_jt_word(t, a->model);
        sd_jt_raw(t, ",\"results\":[");
    }
    for (; w->choice < n; w->choice++) {
        const int i = r->order[w->choice];
        if (t->lost || t->buf.len >= limit) return false;
        sd_jt_printf(t, "%s{\"index\":%d,\"relevance_score\":", w->choice ? "," : "", i);
        sd_jt_real(t, r->score[i]);
        if (m->documents) {
            sd_jt_raw(t, ",\"document\":{\"text\":");
            sd_jt_string(t, m->item[i].text, m->item[i].len);
            sd_jt_raw(t, "}");
        }
        sd_jt_raw(t, "}");
    }
    sd_jt_printf(
        t,
        "],\"meta\":{\"api_version\":{\"version\":\"2\"},\"billed_units\":{\"search_units\":1}},"
        "\"usage\":{\"prompt_tokens\":%d,\"total_tokens\":%d}}",
        usage->prompt, usage->prompt);
    return true;
}

const sd_dialect sd_openai_embeddings = {.kind = SD_API_COMPLETION,
                                         .id_prefix = "emb-",
                                         .prompt_field = "input",
                                         .parse = parse_embeddings,
                                         .whole_type = "application/json",
                                         .readings = vectors_write};
const sd_dialect sd_rerank = {.kind = SD_API_COMPLETION,
                              .id_prefix = "rerank-",
                              .prompt_field = "documents",
                              .parse = parse_rerank,
                              .whole_type = "application/json",
                              .readings = ranks_write};
