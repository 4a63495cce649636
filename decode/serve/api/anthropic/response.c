// Anthropic's answers: a message of blocks, whole or as events.
//
//     message_start, (content_block_start, content_block_delta ..., content_block_stop) ..., message_delta, message_stop
//
// A whole message is written in one go: it has no log probabilities, so that it is not longer than its text.
#include "base/json.h"
#include "decode/serve/api/anthropic/request.h"
#include "decode/serve/api/dialect.h"

#include <string.h>

// ---- errors

static const char *error_type(const sd_api_error *e) {
    switch (e->status) {
    case 401:
        return "authentication_error";
    case 403:
        return "permission_error";
    case 404:
        return "not_found_error";
    case 413:
        return "request_too_large";
    case 429:
        return "rate_limit_error";
    case 503:
        return "overloaded_error";
    default:
        return e->status >= 500 ? "api_error" : "invalid_request_error";
    }
}

json_t *sd_anthropic_error_json(const sd_api_error *e) {
    json_t *message = json_string(e->message);
    if (!message) message = json_string("the request is refused"); // it quoted invalid UTF-8
    return json_pack("{s:s, s:{s:s, s:o}}", "type", "error", "error", "type", error_type(e),
                     "message", message);
}

static void error_write(sd_json_out *t, const sd_api_error *e, sd_stream_state *state) {
    (void)state;
    sd_jt_raw(t, "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":");
    sd_jt_word(t, error_type(e));
    sd_jt_raw(t, ",\"message\":");
    sd_jt_word(t, e->message);
    sd_jt_raw(t, "}}\n\n");
}

// ---- parts of a message

static void usage_write(sd_json_out *t, const sd_usage *u) {
    sd_jt_printf(t,
                 "{\"input_tokens\":%d,\"cache_creation_input_tokens\":0,"
                 "\"cache_read_input_tokens\":%d,\"output_tokens\":%d",
                 u->prompt - u->cached, u->cached, u->generated);
    if (u->reasons)
        sd_jt_printf(t, ",\"output_tokens_details\":{\"thinking_tokens\":%d}", u->reasoning);
    sd_jt_raw(t, "}");
}

// Up to the content's first block.
static void head_write(sd_json_out *t, const sd_answer *a) {
    sd_jt_raw(t, "{\"id\":");
    sd_jt_word(t, a->id);
    sd_jt_raw(t, ",\"type\":\"message\",\"role\":\"assistant\",\"model\":");
    sd_jt_word(t, a->model);
    sd_jt_raw(t, ",\"content\":[");
}

static void stop_write(sd_json_out *t, sd_finish finish, bool calls, const char *stop) {
    const char *reason = finish == SD_FINISH_LENGTH ? "max_tokens"
                         : stop                     ? "stop_sequence"
                         : calls                    ? "tool_use"
                                                    : "end_turn";
    sd_jt_raw(t, "\"stop_reason\":");
    sd_jt_word(t, finish == SD_FINISH_NONE ? NULL : reason);
    sd_jt_raw(t, ",\"stop_sequence\":");
    sd_jt_word(t, finish == SD_FINISH_STOP ? stop : NULL);
}

// An object, whatever the model wrote: what is none stands in one.
static void input_write(sd_json_out *t, const sd_buf *arguments) {
    json_t *v = NULL;
    const char *text = arguments->data ? arguments->data : "";
    if (arguments->len > 0)
        (void)sd_json_load(&v, text, arguments->len, JSON_ALLOW_NUL, NULL, NULL);
    if (json_is_object(v)) {
        if (!t->lost && !sd_buf_add(&t->buf, text, arguments->len)) t->lost = true;
    } else if (arguments->len == 0) {
        sd_jt_raw(t, "{}");
    } else {
        sd_jt_raw(t, "{\"arguments\":");
        sd_jt_string(t, text, arguments->len);
        sd_jt_raw(t, "}");
    }
    json_decref(v);
}

// ---- a whole message

static bool whole_write(sd_json_out *t, sd_whole *w, const sd_answer *a, int n,
                        sd_whole_choice (*choice)(const void *ctx, int i), const void *ctx,
                        const sd_usage *usage, const sd_request_stats *sum, size_t limit) {
    (void)w, (void)n, (void)sum, (void)limit;
    const sd_whole_choice c = choice(ctx, 0);
    const char *comma = "";
    head_write(t, a);
    if (c.reasoning_len > 0) {
        sd_jt_raw(t, "{\"type\":\"thinking\",\"thinking\":");
        sd_jt_string(t, c.reasoning, c.reasoning_len);
        sd_jt_raw(t, ",\"signature\":\"\"}");
        comma = ",";
    }
    if (c.len > 0) {
        sd_jt_printf(t, "%s{\"type\":\"text\",\"text\":", comma);
        sd_jt_string(t, c.text, c.len);
        sd_jt_raw(t, "}");
        comma = ",";
    }
    for (int i = 0; i < c.n_calls; i++) {
        sd_jt_printf(t, "%s{\"type\":\"tool_use\",\"id\":", comma);
        sd_jt_word(t, c.calls[i].id);
        sd_jt_raw(t, ",\"name\":");
        sd_jt_word(t, c.calls[i].name);
        sd_jt_raw(t, ",\"input\":");
        input_write(t, &c.calls[i].arguments);
        sd_jt_raw(t, "}");
        comma = ",";
    }
    sd_jt_raw(t, "],");
    stop_write(t, c.finish, c.n_calls > 0, c.stop);
    sd_jt_raw(t, ",\"usage\":");
    usage_write(t, usage);
    sd_jt_raw(t, "}");
    return true;
}

// ---- a stream

static void start_write(sd_json_out *t, const sd_answer *a, const sd_chunk *c) {
    sd_jt_raw(t, "event: message_start\ndata: {\"type\":\"message_start\",\"message\":");
    head_write(t, a);
    sd_jt_raw(t, "],");
    stop_write(t, SD_FINISH_NONE, false, NULL);
    sd_jt_raw(t, ",\"usage\":");
    usage_write(t, c->usage);
    sd_jt_raw(t, "}}\n\n");
}

static void delta_begin(sd_json_out *t, int block, const char *type, const char *member) {
    sd_jt_printf(t,
                 "event: content_block_delta\ndata: {\"type\":\"content_block_delta\","
                 "\"index\":%d,\"delta\":{\"type\":\"%s\",\"%s\":",
                 block, type, member);
}

static void block_end(sd_json_out *t, sd_stream_state *s) {
    if (!s->open) return;
    if (s->kind == SD_CHUNK_REASONING) { // clients wait for it; there is nothing to sign
        delta_begin(t, s->block, "signature_delta", "signature");
        sd_jt_raw(t, "\"\"}}\n\n");
    }
    sd_jt_printf(t,
                 "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":%d}"
                 "\n\n",
                 s->block++);
    s->open = false;
}

static void block_begin(sd_json_out *t, const sd_chunk *c) {
    sd_stream_state *s = c->state;
    block_end(t, s);
    s->open = true;
    s->kind = c->kind;
    sd_jt_printf(t,
                 "event: content_block_start\ndata: {\"type\":\"content_block_start\","
                 "\"index\":%d,\"content_block\":",
                 s->block);
    if (c->kind == SD_CHUNK_CALL) {
        sd_jt_raw(t, "{\"type\":\"tool_use\",\"id\":");
        sd_jt_word(t, c->call_id);
        sd_jt_raw(t, ",\"name\":");
        sd_jt_string(t, c->text, c->len);
        sd_jt_raw(t, ",\"input\":{}}");
    } else if (c->kind == SD_CHUNK_REASONING) {
        sd_jt_raw(t, "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}");
    } else {
        sd_jt_raw(t, "{\"type\":\"text\",\"text\":\"\"}");
    }
    sd_jt_raw(t, "}\n\n");
}

static void text_write(sd_json_out *t, const sd_chunk *c) {
    sd_stream_state *s = c->state;
    if (c->kind == SD_CHUNK_CALL) {
        block_begin(t, c);
        return;
    }
    if (c->len == 0) return;
    // Arguments belong to the call that has begun.
    if (c->kind != SD_CHUNK_ARGUMENTS && (!s->open || s->kind != c->kind)) block_begin(t, c);
    if (c->kind == SD_CHUNK_ARGUMENTS)
        delta_begin(t, s->block, "input_json_delta", "partial_json");
    else if (c->kind == SD_CHUNK_REASONING)
        delta_begin(t, s->block, "thinking_delta", "thinking");
    else
        delta_begin(t, s->block, "text_delta", "text");
    sd_jt_string(t, c->text, c->len);
    sd_jt_raw(t, "}}\n\n");
}

static void chunk_write(sd_json_out *t, const sd_answer *a, const sd_chunk *c) {
    if (c->first) start_write(t, a, c);
    if (c->text) text_write(t, c);
    if (c->finish == SD_FINISH_NONE) return;
    block_end(t, c->state);
    sd_jt_raw(t, "event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{");
    stop_write(t, c->finish, c->calls, c->stop);
    sd_jt_raw(t, "},\"usage\":");
    usage_write(t, c->usage);
    sd_jt_raw(t, "}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n");
}

// ---- the two endpoints

static int parse_messages(sd_api_request *out, const char *body, size_t len, sd_api_error *e) {
    return sd_anthropic_parse(out, false, body, len, e);
}

static int parse_count(sd_api_request *out, const char *body, size_t len, sd_api_error *e) {
    return sd_anthropic_parse(out, true, body, len, e);
}

static void count_write(sd_json_out *t, const sd_read_prompt *p) {
    sd_jt_printf(t, "{\"input_tokens\":%d}", p->n);
}

const sd_dialect sd_anthropic_messages = {.kind = SD_API_CHAT,
                                          .id_prefix = "msg_",
                                          .call_prefix = "toolu_",
                                          .prompt_field = "messages",
                                          .parse = parse_messages,
                                          .whole_type = "application/json",
                                          .stream_type = "text/event-stream; charset=utf-8",
                                          .stream_end = "",
                                          .opens_choices = true,
                                          .names_stop = true,
                                          .chunk = chunk_write,
                                          .error = error_write,
                                          .whole = whole_write};
const sd_dialect sd_anthropic_count = {.kind = SD_API_CHAT,
                                       .id_prefix = "msg_",
                                       .prompt_field = "messages",
                                       .parse = parse_count,
                                       .whole_type = "application/json",
                                       .read = count_write};
