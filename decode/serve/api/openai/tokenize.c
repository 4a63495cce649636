// vLLM's /tokenize and /detokenize: what a prompt or a conversation becomes, and back. No model is asked.
#include "decode/serve/api/dialect.h"
#include "decode/serve/api/field.h"
#include "decode/serve/api/openai/request.h"

// What a text and a conversation have in common.
static bool parse_options(sd_api_request *r, bool special, sd_api_error *e) {
    if (!sd_field_string(r->root, "model", &r->model, e) ||
        !sd_field_bool(r->root, "add_special_tokens", &special, e) ||
        !sd_field_bool(r->root, "return_token_strs", &r->token_texts, e))
        return false;
    r->no_bos = !special;
    if (r->kind == SD_API_CHAT && special) {
        sd_api_fail(e, 400, "add_special_tokens",
                    "add_special_tokens: a conversation has those that its template writes; leave "
                    "the field out");
        return false;
    }
    return sd_field_refuse_unsupported(r->root, e);
}

static bool parse_text(sd_api_request *r, sd_api_error *e) {
    const json_t *text = sd_field_get(r->root, "prompt");
    if (!text || !sd_json_is_text(text)) {
        sd_api_fail(e, 400, "prompt", "prompt is %s; give a string, or messages",
                    text ? sd_field_type_word(text) : "missing");
        return false;
    }
    r->prompt[r->n_prompts++] =
        (sd_api_prompt){.text = json_string_value(text), .len = json_string_length(text)};
    return parse_options(r, true, e);
}

static int parse_tokenize(sd_api_request *out, const char *body, size_t len, sd_api_error *e) {
    bool ok = sd_api_request_begin(out, SD_API_COMPLETION, body, len, e) == 0;
    if (ok && sd_field_get(out->root, "messages")) {
        out->kind = SD_API_CHAT;
        ok = parse_options(out, false, e) && sd_openai_messages_parse(out, e) &&
             sd_openai_tools_parse(out, e) && sd_openai_turn_parse(out, e);
    } else if (ok) {
        ok = parse_text(out, e);
    }
    if (!ok) sd_api_request_free(out);
    return e->status;
}

static int parse_detokenize(sd_api_request *out, const char *body, size_t len, sd_api_error *e) {
    bool ok = sd_api_request_begin(out, SD_API_COMPLETION, body, len, e) == 0 &&
              sd_field_string(out->root, "model", &out->model, e) &&
              sd_openai_ids_parse(out, "tokens", e);
    if (!ok) sd_api_request_free(out);
    return e->status;
}

static void write_ids(sd_json_out *t, const sd_read_prompt *p) {
    sd_jt_printf(t, "{\"count\":%d,\"max_model_len\":%d,\"tokens\":[", p->n, p->ctx);
    for (int i = 0; i < p->n; i++) sd_jt_printf(t, i ? ",%d" : "%d", (int)p->id[i]);
    sd_jt_raw(t, "],\"token_strs\":");
    if (!p->request->token_texts || !p->tokenizer) {
        sd_jt_raw(t, "null}");
        return;
    }
    for (int i = 0; i < p->n; i++) {
        size_t len;
        const char *bytes = sd_tokenizer_bytes(p->tokenizer, p->id[i], &len);
        sd_jt_raw(t, i ? "," : "[");
        sd_jt_string(t, bytes ? bytes : "", bytes ? len : 0);
    }
    sd_jt_raw(t, p->n ? "]}" : "[]}");
}

static void write_text(sd_json_out *t, const sd_read_prompt *p) {
    sd_buf text = sd_buf_make(t->buf.max);
    if (p->tokenizer && p->n > 0 &&
        sd_tokenizer_decode(p->tokenizer, p->id, p->n, false, &text, NULL) != SD_OK)
        t->lost = true;
    sd_jt_raw(t, "{\"prompt\":");
    sd_jt_string(t, text.data ? text.data : "", text.len);
    sd_jt_raw(t, "}");
    sd_buf_free(&text);
}

const sd_dialect sd_openai_tokenize = {.kind = SD_API_COMPLETION,
                                       .id_prefix = "tok-",
                                       .prompt_field = "prompt",
                                       .parse = parse_tokenize,
                                       .whole_type = "application/json",
                                       .read = write_ids};
const sd_dialect sd_openai_detokenize = {.kind = SD_API_COMPLETION,
                                         .id_prefix = "tok-",
                                         .prompt_field = "tokens",
                                         .parse = parse_detokenize,
                                         .whole_type = "application/json",
                                         .read = write_text};
