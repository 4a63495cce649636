// JSON is built with jansson, which refuses invalid UTF-8; text of single tokens, which may be part
// of a code point, is made valid first and its exact bytes stand beside it.
#include "decode/serve/api_response.h"

#include <math.h>
#include <string.h>

json_t *sd_error_json(const sd_api_error *e) {
    json_t *message = json_string(e->message);
    if (!message) message = json_string("the request is refused"); // it quoted invalid UTF-8
    return json_pack("{s:{s:o, s:s, s:s?, s:s?}}", "error", "message", message, "type", e->type,
                     "param", e->param[0] ? e->param : NULL, "code", e->code);
}

json_t *sd_usage_json(int prompt, int generated, int cached) {
    return json_pack("{s:i, s:i, s:i, s:{s:i}}", "prompt_tokens", prompt, "completion_tokens",
                     generated, "total_tokens", prompt + generated, "prompt_tokens_details",
                     "cached_tokens", cached);
}

// ---- logprobs

static json_t *number(double x) {
    // JSON has no infinity.
    return json_real(isfinite(x) ? x : -9999.0);
}

static json_t *token_text(const sd_tokenizer *tok, int32_t token) {
    size_t len = 0;
    const char *bytes = tok ? sd_tokenizer_bytes(tok, token, &len) : NULL;
    if (!bytes) return json_sprintf("token_id:%d", (int)token);
    sd_utf8_stream s = {0};
    sd_buf text = sd_buf_make(64 * 1024);
    json_t *out = NULL;
    if (sd_utf8_stream_add(&s, bytes, len, &text) && sd_utf8_stream_add(&s, NULL, 0, &text))
        out = json_stringn(text.data ? text.data : "", text.len);
    sd_buf_free(&text);
    return out;
}

static json_t *token_bytes(const sd_tokenizer *tok, int32_t token) {
    size_t len = 0;
    const char *bytes = tok ? sd_tokenizer_bytes(tok, token, &len) : NULL;
    json_t *out = json_array();
    for (size_t i = 0; bytes && i < len; i++)
        json_array_append_new(out, json_integer((unsigned char)bytes[i]));
    return out;
}

static json_t *chat_token(const sd_tokenizer *tok, int32_t token, float logprob) {
    return json_pack("{s:o, s:o, s:o}", "token", token_text(tok, token), "logprob", number(logprob),
                     "bytes", token_bytes(tok, token));
}

static json_t *chat_logprobs(const sd_token_info *tokens, int n, const sd_tokenizer *tok) {
    json_t *content = json_array();
    for (int i = 0; i < n; i++) {
        json_t *top = json_array();
        for (int k = 0; k < tokens[i].n_top; k++)
            json_array_append_new(
                top, chat_token(tok, tokens[i].top[k].token, tokens[i].top[k].logprob));
        json_t *entry = chat_token(tok, tokens[i].token, tokens[i].logprob);
        json_object_set_new(entry, "top_logprobs", top);
        json_array_append_new(content, entry);
    }
    return json_pack("{s:o, s:n}", "content", content, "refusal");
}

static int64_t code_points(const char *s) {
    int64_t n = 0;
    for (; s && *s; s++) n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static json_t *completion_logprobs(const sd_token_info *tokens, int n, const sd_tokenizer *tok,
                                   int64_t *offset) {
    json_t *texts = json_array(), *logprobs = json_array(), *tops = json_array(),
           *offsets = json_array();
    for (int i = 0; i < n; i++) {
        json_t *text = token_text(tok, tokens[i].token), *top = json_object();
        for (int k = 0; k < tokens[i].n_top; k++) {
            json_t *key = token_text(tok, tokens[i].top[k].token);
            if (key)
                json_object_set_new(top, json_string_value(key), number(tokens[i].top[k].logprob));
            json_decref(key);
        }
        json_array_append_new(offsets, json_integer(*offset));
        *offset += code_points(json_string_value(text));
        json_array_append_new(texts, text);
        json_array_append_new(logprobs, number(tokens[i].logprob));
        json_array_append_new(tops, top);
    }
    return json_pack("{s:o, s:o, s:o, s:o}", "tokens", texts, "token_logprobs", logprobs,
                     "top_logprobs", tops, "text_offset", offsets);
}

json_t *sd_logprobs_json(sd_api_kind kind, const sd_token_info *tokens, int n,
                         const sd_tokenizer *tok, int64_t *offset) {
    return kind == SD_API_CHAT ? chat_logprobs(tokens, n, tok)
                               : completion_logprobs(tokens, n, tok, offset);
}

bool sd_logprobs_append(json_t **to, json_t *more) {
    if (!more) return false;
    if (!*to) {
        *to = more;
        return true;
    }
    const char *key;
    json_t *list;
    bool ok = true;
    json_object_foreach(more, key, list) {
        if (json_is_array(list)) ok = ok && json_array_extend(json_object_get(*to, key), list) == 0;
    }
    json_decref(more);
    return ok;
}

// ---- speculation and time

void sd_stats_add(sd_request_stats *sum, const sd_request_stats *s) {
    sum->queue_ms = fmax(sum->queue_ms, s->queue_ms);
    sum->prefill_ms = fmax(sum->prefill_ms, s->prefill_ms);
    sum->decode_ms = fmax(sum->decode_ms, s->decode_ms);
    sum->prompt_tokens += s->prompt_tokens;
    sum->cached_tokens += s->cached_tokens;
    sum->generated += s->generated;
    sum->spec.rounds += s->spec.rounds;
    sum->spec.drafted += s->spec.drafted;
    sum->spec.accepted += s->spec.accepted;
    for (int i = 0; i < SD_SOURCE_COUNT; i++) {
        sum->spec.drafted_by[i] += s->spec.drafted_by[i];
        sum->spec.accepted_by[i] += s->spec.accepted_by[i];
    }
    for (int i = 0; i < SD_MAX_DRAFT; i++) sum->spec.accepted_at[i] += s->spec.accepted_at[i];
}

static double ratio(double a, double b) {
    return b > 0 ? a / b : 0;
}

// Mean acceptance length counts the token that every round gives besides its accepted drafts.
static json_t *metrics_json(const sd_spec_stats *s) {
    json_t *histogram = json_array();
    int last = SD_MAX_DRAFT;
    while (last > 0 && s->accepted_at[last - 1] == 0) last--;
    for (int i = 0; i < last; i++)
        json_array_append_new(histogram, json_integer(s->accepted_at[i]));
    return json_pack("{s:{s:f, s:f, s:o, s:I, s:I, s:I}}", "speculative_decoding",
                     "mean_acceptance_length", 1 + ratio((double)s->accepted, (double)s->rounds),
                     "draft_acceptance_rate", ratio((double)s->accepted, (double)s->drafted),
                     "acceptance_histogram", histogram, "num_spec_steps", (json_int_t)s->rounds,
                     "num_accepted_draft_tokens", (json_int_t)s->accepted, "num_draft_tokens",
                     (json_int_t)s->drafted);
}

static json_t *timings_json(const sd_request_stats *s) {
    int read = s->prompt_tokens - s->cached_tokens;
    return json_pack(
        "{s:i, s:i, s:f, s:f, s:f, s:i, s:f, s:f, s:f, s:I, s:I, s:f}", "cache_n", s->cached_tokens,
        "prompt_n", read, "prompt_ms", s->prefill_ms, "prompt_per_token_ms",
        ratio(s->prefill_ms, read), "prompt_per_second", ratio(1000.0 * read, s->prefill_ms),
        "predicted_n", s->generated, "predicted_ms", s->decode_ms, "predicted_per_token_ms",
        ratio(s->decode_ms, s->generated), "predicted_per_second",
        ratio(1000.0 * s->generated, s->decode_ms), "draft_n", (json_int_t)s->spec.drafted,
        "draft_n_accepted", (json_int_t)s->spec.accepted, "queue_ms", s->queue_ms);
}

// ---- answers

static json_t *finish_json(sd_finish f) {
    return f == SD_FINISH_NONE ? json_null() : json_string(sd_finish_name(f));
}

json_t *sd_choice_json(sd_api_kind kind, int index, const char *text, size_t len, json_t *logprobs,
                       sd_finish finish) {
    json_t *value = json_stringn(text ? text : "", len);
    if (!logprobs) logprobs = json_null();
    if (kind == SD_API_CHAT)
        return json_pack("{s:i, s:{s:s, s:o}, s:o, s:o}", "index", index, "message", "role",
                         "assistant", "content", value, "logprobs", logprobs, "finish_reason",
                         finish_json(finish));
    return json_pack("{s:i, s:o, s:o, s:o}", "index", index, "text", value, "logprobs", logprobs,
                     "finish_reason", finish_json(finish));
}

static json_t *envelope(const sd_answer *a, const char *object, json_t *choices) {
    return json_pack("{s:s, s:s, s:I, s:s, s:s, s:o}", "id", a->id, "object", object, "created",
                     (json_int_t)a->created, "model", a->model, "system_fingerprint",
                     "specdec-" SPECDEC_VERSION, "choices", choices);
}

void sd_add_stats(json_t *v, const sd_request_stats *sum) {
    json_object_set_new(v, "metrics", metrics_json(&sum->spec));
    json_object_set_new(v, "timings", timings_json(sum));
}

json_t *sd_answer_json(const sd_answer *a, json_t *choices, json_t *usage,
                       const sd_request_stats *sum) {
    json_t *v =
        envelope(a, a->kind == SD_API_CHAT ? "chat.completion" : "text_completion", choices);
    json_object_set_new(v, "usage", usage);
    sd_add_stats(v, sum);
    return v;
}

static const char *chunk_object(const sd_answer *a) {
    return a->kind == SD_API_CHAT ? "chat.completion.chunk" : "text_completion";
}

json_t *sd_chunk_json(const sd_answer *a, int index, bool first, const char *text, size_t len,
                      json_t *logprobs, sd_finish finish, json_t *usage) {
    json_t *choice;
    if (!logprobs) logprobs = json_null();
    if (a->kind == SD_API_CHAT) {
        json_t *delta = json_object();
        if (first) json_object_set_new(delta, "role", json_string("assistant"));
        if (first || text)
            json_object_set_new(delta, "content", json_stringn(text ? text : "", len));
        choice = json_pack("{s:i, s:o, s:o, s:o}", "index", index, "delta", delta, "logprobs",
                           logprobs, "finish_reason", finish_json(finish));
    } else {
        choice = json_pack("{s:i, s:o, s:o, s:o}", "index", index, "text",
                           json_stringn(text ? text : "", len), "logprobs", logprobs,
                           "finish_reason", finish_json(finish));
    }
    json_t *v = envelope(a, chunk_object(a), json_pack("[o]", choice));
    if (usage) json_object_set_new(v, "usage", usage);
    return v;
}

json_t *sd_usage_chunk_json(const sd_answer *a, json_t *usage) {
    json_t *v = envelope(a, chunk_object(a), json_array());
    json_object_set_new(v, "usage", usage);
    return v;
}

static int append(const char *data, size_t len, void *out) {
    return sd_buf_add(out, data, len) ? 0 : -1;
}

bool sd_sse_frame(sd_buf *out, json_t *v) {
    bool ok = v && sd_buf_adds(out, "data: ") &&
              json_dump_callback(v, append, out, JSON_COMPACT | JSON_REAL_PRECISION(9)) == 0 &&
              sd_buf_adds(out, "\n\n") && !sd_memory_lost();
    json_decref(v);
    return ok;
}
