// The order: text limits, JSON, what both endpoints share, then messages or prompts. The first
// error ends it. Numbers become engine terms here (top_k -1 is 0, top_p 0 is greedy), so nothing
// behind this file knows the API's dialects.
#include "decode/serve/api/openai/request.h"

#include "base/json.h"
#include "base/utf8.h"
#include "datasets/read/record_json.h"
#include "decode/serve/api/field.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    MAX_PARSED = 256 << 20, // bytes of memory for one body's document
    MAX_MARKED = 512 << 20 // of its text when many of its numbers are odd: a digit becomes 14 bytes
};
enum { MAX_TOKENS = 1 << 24, MAX_STOP_BYTES = 1024, COMPLETION_MAX_TOKENS = 16 };

static bool load(json_t **out, const char *text, size_t len, json_error_t *at, sd_api_error *e) {
    sd_error err;
    sd_status st = sd_json_load_within(out, text, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL,
                                       MAX_PARSED, at, &err);
    if (st != SD_OK) sd_api_fail(e, st == SD_ELIMIT ? 400 : 500, NULL, "%s", err.message);
    return st == SD_OK;
}

static bool parse_root(sd_api_request *r, const char *body, size_t len, sd_api_error *e) {
    const char *over = sd_json_over_limit(body, len);
    if (over) {
        sd_api_fail(e, 400, NULL, "the JSON %s", over);
        return false;
    }
    json_error_t at;
    if (!load(&r->root, body, len, &at, e)) return false;
    if (!r->root) { // numbers that jansson cannot hold do no harm where nobody reads them
        sd_buf marked = sd_buf_make(MAX_MARKED);
        bool changed = false, ok = sd_json_mark_numbers(&marked, body, len, &changed);
        if (!ok) sd_api_fail(e, 500, NULL, "out of memory");
        ok = ok && (!changed || load(&r->root, marked.data, marked.len, &at, e));
        sd_buf_free(&marked);
        if (!ok) return false;
    }
    if (!r->root) {
        sd_api_fail(e, 400, NULL, "the body is not valid JSON: line %d, column %d: %s", at.line,
                    at.column, at.text);
        return false;
    }
    if (!json_is_object(r->root)) {
        sd_api_fail(e, 400, NULL, "the body is %s; give a JSON object",
                    sd_field_type_word(r->root));
        return false;
    }
    return true;
}

static bool parse_sampling(sd_api_request *r, sd_api_error *e) {
    double temperature = 1, top_p = 1, min_p = 0;
    int64_t top_k = 0, seed = 0;
    if (!sd_field_number(r->root, "temperature", 0, 2, &temperature, e) ||
        !sd_field_number(r->root, "top_p", 0, 1, &top_p, e) ||
        !sd_field_number(r->root, "min_p", 0, 1, &min_p, e) ||
        !sd_field_int(r->root, "top_k", -1, INT32_MAX, &top_k, e) ||
        !sd_field_int(r->root, "seed", INT64_MIN, INT64_MAX, &seed, e))
        return false;
    r->has_temperature = sd_field_get(r->root, "temperature") || top_p == 0;
    r->has_top_p = sd_field_get(r->root, "top_p") != NULL;
    r->has_top_k = sd_field_get(r->root, "top_k") != NULL;
    r->has_min_p = sd_field_get(r->root, "min_p") != NULL;
    // The smallest set of tokens that holds a mass of 0 is the likeliest token alone.
    if (top_p == 0) temperature = 0, top_p = 1;
    r->sampling = (sd_sampling){.temperature = (float)temperature,
                                .top_k = top_k < 0 ? 0 : (int)top_k,
                                .top_p = (float)top_p,
                                .min_p = (float)min_p,
                                .seed = (uint64_t)seed};
    r->has_seed = sd_field_get(r->root, "seed") != NULL;
    return true;
}

static bool add_stop(sd_api_request *r, const json_t *v, const char *where, sd_api_error *e) {
    if (!sd_json_is_text(v)) {
        sd_api_fail(e, 400, "stop", "%s is %s; give a string", where, sd_field_type_word(v));
        return false;
    }
    size_t n = json_string_length(v);
    if (n == 0 || n > MAX_STOP_BYTES) {
        sd_api_fail(e, 400, "stop", "%s has %zu bytes; give a string of 1 to %d bytes", where, n,
                    MAX_STOP_BYTES);
        return false;
    }
    if (strlen(json_string_value(v)) != n) {
        sd_api_fail(e, 400, "stop", "%s has a NUL character (\\u0000); leave it out", where);
        return false;
    }
    r->stop[r->n_stop++] = json_string_value(v);
    return true;
}

static bool parse_stop(sd_api_request *r, sd_api_error *e) {
    const json_t *stop = sd_field_get(r->root, "stop");
    if (!stop) return true;
    if (!json_is_array(stop)) return add_stop(r, stop, "stop", e);
    size_t n = json_array_size(stop);
    if (n > SD_MAX_STOPS) {
        sd_api_fail(e, 400, "stop", "stop has %zu strings; at most %d are possible", n,
                    SD_MAX_STOPS);
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        char where[32];
        snprintf(where, sizeof where, "stop[%zu]", i);
        if (!add_stop(r, json_array_get(stop, i), where, e)) return false;
    }
    return true;
}

// Copies token ids; which ids the model has is checked against the model later.
static bool copy_ids(int32_t *out, const json_t *list, const char *param, sd_api_error *e) {
    size_t i;
    json_t *v;
    json_array_foreach(list, i, v) {
        int64_t id;
        if (!sd_json_whole(v, &id) || id < 0 || id > INT32_MAX) {
            sd_api_fail(e, 400, param, "%s[%zu] is not a token id", param, i);
            return false;
        }
        out[i] = (int32_t)id;
    }
    return true;
}

static bool parse_stop_tokens(sd_api_request *r, sd_api_error *e) {
    const json_t *list = sd_field_get(r->root, "stop_token_ids");
    if (!list) return true;
    if (!json_is_array(list) || json_array_size(list) > SD_API_MAX_STOP_TOKENS) {
        sd_api_fail(e, 400, "stop_token_ids",
                    "stop_token_ids is not an array of at most %d token ids",
                    SD_API_MAX_STOP_TOKENS);
        return false;
    }
    r->n_stop_token = (int)json_array_size(list);
    return copy_ids(r->stop_token, list, "stop_token_ids", e);
}

static bool parse_stream(sd_api_request *r, sd_api_error *e) {
    if (!sd_field_bool(r->root, "stream", &r->stream, e)) return false;
    const json_t *o = sd_field_get(r->root, "stream_options");
    if (!o) return true;
    if (!json_is_object(o)) {
        sd_api_fail(e, 400, "stream_options", "stream_options is %s; give an object",
                    sd_field_type_word(o));
        return false;
    }
    if (!r->stream) {
        sd_api_fail(e, 400, "stream_options", "stream_options is given without \"stream\": true");
        return false;
    }
    return sd_field_bool(o, "include_usage", &r->include_usage, e) &&
           sd_field_bool(o, "continuous_usage_stats", &r->continuous_usage, e);
}

// Chat: logprobs is a boolean and top_logprobs the count. Completions: logprobs is the count.
static bool parse_logprobs(sd_api_request *r, sd_api_error *e) {
    int64_t count = -1;
    if (r->kind == SD_API_COMPLETION) {
        if (!sd_field_int(r->root, "logprobs", 0, 20, &count, e)) return false;
    } else {
        bool wanted = false;
        int64_t top = -1;
        if (!sd_field_bool(r->root, "logprobs", &wanted, e) ||
            !sd_field_int(r->root, "top_logprobs", 0, 20, &top, e))
            return false;
        if (top > 0 && !wanted) {
            sd_api_fail(e, 400, "top_logprobs", "top_logprobs is given without \"logprobs\": true");
            return false;
        }
        if (wanted) count = top < 0 ? 0 : top;
    }
    r->logprobs = (int)count;
    return true;
}

static bool parse_speculation(sd_api_request *r, sd_api_error *e) {
    r->speculate = true;
    const json_t *o = sd_field_get(r->root, "speculative");
    int64_t k = -1;
    if (!o) return true;
    if (!json_is_object(o)) {
        sd_api_fail(e, 400, "speculative",
                    "speculative is %s; give {\"enabled\": true|false, \"k\": 0 to %d}",
                    sd_field_type_word(o), SD_MAX_DRAFT);
        return false;
    }
    if (!sd_field_bool(o, "enabled", &r->speculate, e) ||
        !sd_field_int(o, "k", 0, SD_MAX_DRAFT, &k, e))
        return false;
    if (k == 0) r->speculate = false;
    if (k > 0) r->max_draft = (int)k;
    return true;
}

// vLLM's names and meanings, and OpenAI's user.
bool sd_openai_queueing_parse(sd_api_request *r, sd_api_error *e) {
    int64_t priority = 0;
    const char *user = "";
    if (!sd_field_int(r->root, "priority", INT32_MIN, INT32_MAX, &priority, e) ||
        !sd_field_string(r->root, "user", &user, e) ||
        !sd_field_string(r->root, "cache_salt", &r->cache_salt, e))
        return false;
    size_t kept = strlen(user) < SD_API_MAX_USER ? strlen(user) : SD_API_MAX_USER;
    memcpy(r->user, user, sd_utf8_valid_prefix(user, kept));
    size_t n = r->cache_salt ? strlen(r->cache_salt) : 1;
    if (n == 0 || n > SD_API_MAX_SALT) {
        sd_api_fail(e, 400, "cache_salt",
                    "cache_salt has %zu bytes; give a string of 1 to %d bytes", n, SD_API_MAX_SALT);
        return false;
    }
    r->priority = (int)priority;
    return true;
}

// 0 asks for the prompt alone, which a completion may echo.
static bool parse_max_tokens(sd_api_request *r, sd_api_error *e) {
    const bool chat = r->kind == SD_API_CHAT;
    int64_t most = chat ? 0 : COMPLETION_MAX_TOKENS;
    if (!chat && !sd_field_bool(r->root, "echo", &r->echo, e)) return false;
    const int least = r->echo ? 0 : 1;
    if (!sd_field_int(r->root, "max_tokens", least, MAX_TOKENS, &most, e) ||
        !sd_field_int(r->root, "max_completion_tokens", least, MAX_TOKENS, &most, e))
        return false;
    r->max_tokens = (int)most;
    r->has_max_tokens =
        sd_field_get(r->root, "max_tokens") || sd_field_get(r->root, "max_completion_tokens");
    r->no_answer = r->has_max_tokens && most == 0;
    return true;
}

static bool parse_shared(sd_api_request *r, sd_api_error *e) {
    int64_t n = 1, best_of = 0;
    if (!sd_field_string(r->root, "model", &r->model, e) || !parse_sampling(r, e) ||
        !parse_stop(r, e) || !parse_stop_tokens(r, e) || !parse_stream(r, e) ||
        !parse_logprobs(r, e) || !parse_speculation(r, e) || !sd_openai_queueing_parse(r, e) ||
        !sd_field_bool(r->root, "ignore_eos", &r->ignore_end, e) ||
        !sd_field_int(r->root, "n", 1, SD_API_MAX_CHOICES, &n, e) ||
        !sd_field_int(r->root, "best_of", 1, SD_API_MAX_CHOICES, &best_of, e) ||
        !parse_max_tokens(r, e) || !sd_field_refuse_unsupported(r->root, e) ||
        !sd_openai_constraint_parse(r, e))
        return false;
    if (best_of && best_of != n) {
        sd_api_fail(e, 400, "best_of", "best_of is %lld and n is %lld; only best_of = n works here",
                    (long long)best_of, (long long)n);
        return false;
    }
    r->n = (int)n;
    return sd_openai_shaping_parse(r, e);
}

bool sd_openai_item_ids(sd_api_prompt *item, const json_t *list, const char *field,
                        const char *path, sd_api_error *e) {
    size_t n = json_array_size(list);
    if (n == 0) {
        sd_api_fail(e, 400, field, "%s is empty; give at least one token", path);
        return false;
    }
    item->ids = sd_alloc(n, sizeof *item->ids);
    if (!item->ids) {
        sd_api_fail(e, 500, field, "out of memory");
        return false;
    }
    item->n_ids = (int)n;
    return copy_ids(item->ids, list, path, e);
}

static bool add_prompt_ids(sd_api_request *r, const json_t *list, const char *path,
                           sd_api_error *e) {
    return sd_openai_item_ids(&r->prompt[r->n_prompts++], list, "prompt", path, e);
}

bool sd_openai_ids_parse(sd_api_request *r, const char *key, sd_api_error *e) {
    const json_t *list = sd_field_get(r->root, key);
    if (!list || !json_is_array(list)) {
        sd_api_fail(e, 400, key, "%s is %s; give an array of token ids", key,
                    list ? sd_field_type_word(list) : "missing");
        return false;
    }
    if (json_array_size(list) > 0) return add_prompt_ids(r, list, key, e);
    r->n_prompts = 1;
    return true;
}

static bool add_prompt(sd_api_request *r, const json_t *v, const char *param, sd_api_error *e) {
    if (sd_json_is_text(v)) {
        r->prompt[r->n_prompts++] =
            (sd_api_prompt){.text = json_string_value(v), .len = json_string_length(v)};
        return true;
    }
    if (json_is_array(v)) return add_prompt_ids(r, v, param, e);
    sd_api_fail(e, 400, "prompt", "%s is %s; give a string or an array of token ids", param,
                sd_field_type_word(v));
    return false;
}

// SGLang's name: of the tokens before it no log probability is wanted, so they need not be computed again.
static bool parse_score_from(sd_api_request *r, sd_api_error *e) {
    int64_t from = -1;
    if (!sd_field_int(r->root, "logprob_start_len", 0, SD_API_MAX_READ, &from, e)) return false;
    if (from >= 0 && !r->score) {
        sd_api_fail(e, 400, "logprob_start_len",
                    "logprob_start_len is given without \"echo\": true and logprobs");
        return false;
    }
    r->score_from = from > 0 ? (int)from : 0;
    return true;
}

// A string, token ids, an array of strings, or an array of arrays of token ids.
static bool parse_prompt(sd_api_request *r, sd_api_error *e) {
    const json_t *prompt = sd_field_get(r->root, "prompt");
    if (!prompt) {
        sd_api_fail(e, 400, "prompt", "prompt is missing; give a string or token ids");
        return false;
    }
    const json_t *tools = sd_field_get(r->root, "tools");
    if (tools && !(json_is_array(tools) && json_array_size(tools) == 0)) {
        sd_api_fail(e, 400, "tools",
                    "tools: a completion calls no tools; use /v1/chat/completions");
        return false;
    }
    r->score = r->echo && r->logprobs >= 0;
    if (!parse_score_from(r, e)) return false;
    if (!json_is_array(prompt) || json_is_number(json_array_get(prompt, 0)))
        return add_prompt(r, prompt, "prompt", e);
    size_t n = json_array_size(prompt);
    if (n == 0 || n > SD_API_MAX_PROMPTS) {
        sd_api_fail(e, 400, "prompt", "prompt has %zu entries; give 1 to %d", n,
                    SD_API_MAX_PROMPTS);
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        char param[32];
        snprintf(param, sizeof param, "prompt[%zu]", i);
        if (!add_prompt(r, json_array_get(prompt, i), param, e)) return false;
    }
    if (r->n_prompts * r->n > SD_API_MAX_SEQUENCES) {
        sd_api_fail(e, 400, "n", "n is %d and there are %d prompts; together at most %d answers",
                    r->n, r->n_prompts, SD_API_MAX_SEQUENCES);
        return false;
    }
    return true;
}

// vLLM's names. The last message goes on, or the prompt simply ends behind it.
bool sd_openai_turn_parse(sd_api_request *r, sd_api_error *e) {
    const json_t *last = json_array_size(r->messages)
                             ? json_array_get(r->messages, json_array_size(r->messages) - 1)
                             : NULL;
    bool turn = true, has_turn = sd_field_get(r->root, "add_generation_prompt") != NULL;
    if (!sd_field_bool(r->root, "continue_final_message", &r->continues, e) ||
        !sd_field_bool(r->root, "add_generation_prompt", &turn, e))
        return false;
    r->no_turn = !turn;
    if (!r->continues) return true;
    if (has_turn && turn) {
        sd_api_fail(e, 400, "continue_final_message",
                    "continue_final_message goes on with the last message and "
                    "add_generation_prompt begins another one; set one of them to false");
        return false;
    }
    const char *role = json_string_value(json_object_get(last, "role"));
    if (!role || strcmp(role, "assistant") != 0 || json_object_get(last, "tool_calls")) {
        sd_api_fail(e, 400, "continue_final_message",
                    "continue_final_message: the last message is not an assistant's text; add the "
                    "text that the answer goes on with");
        return false;
    }
    return true;
}

static bool parse_chat(sd_api_request *r, sd_api_error *e) {
    return sd_openai_messages_parse(r, e) && sd_openai_tools_parse(r, e) &&
           sd_openai_turn_parse(r, e);
}

int sd_api_request_begin(sd_api_request *out, sd_api_kind kind, const char *body, size_t len,
                         sd_api_error *e) {
    *out = (sd_api_request){.kind = kind, .n = 1, .logprobs = -1, .reasoning_budget = -1};
    *e = (sd_api_error){0};
    parse_root(out, body ? body : "", len, e);
    return e->status;
}

int sd_api_request_finish(sd_api_request *r, sd_api_error *e) {
    bool ok = parse_shared(r, e) &&
              (r->kind == SD_API_CHAT ? parse_chat(r, e) : parse_prompt(r, e)) &&
              sd_openai_reasoning_parse(r, e);
    if (!ok) sd_api_request_free(r);
    return e->status;
}

int sd_api_request_parse(sd_api_request *out, sd_api_kind kind, const char *body, size_t len,
                         sd_api_error *e) {
    if (sd_api_request_begin(out, kind, body, len, e) == 0) return sd_api_request_finish(out, e);
    sd_api_request_free(out);
    return e->status;
}
