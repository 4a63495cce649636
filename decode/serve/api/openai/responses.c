// Answers of the Responses API: an object with a list of items, whole or as events.
//
//     response.created, response.in_progress,
//     for each item: response.output_item.added, its own events, response.output_item.done,
//     response.completed or response.incomplete
//
// The last event has all items again, so what has ended is kept as it was written (sd_stream_state.done). An
// answer does not repeat its request's instructions and tools. A whole one is written in one go, but for its log
// probabilities, which may be longer than its text by far.
#include "decode/serve/api/openai/responses.h"
#include "decode/serve/api/openai/response.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

// The part of the answer's id that its items share.
static const char *tail_of(const sd_answer *a) {
    const char *tail = strchr(a->id, '_');
    return tail ? tail + 1 : a->id;
}

static const char *prefix_of(sd_chunk_kind kind) {
    return kind == SD_CHUNK_CONTENT ? "msg" : kind == SD_CHUNK_REASONING ? "rs" : "fc";
}

static void id_write(sd_json_out *t, const sd_answer *a, sd_chunk_kind kind, int item) {
    sd_jt_printf(t, "\"%s_%s_%d\"", prefix_of(kind), tail_of(a), item);
}

static void text_write(sd_json_out *t, const sd_buf *text) {
    sd_jt_string(t, text->data ? text->data : "", text->len);
}

// ---- items

static const char *status_of(bool begun, bool cut) {
    return begun ? "in_progress" : cut ? "incomplete" : "completed";
}

// The message's log probabilities from token `first` on; from NULL: none.
static void logprobs_write(sd_json_out *t, const sd_answer *a, const sd_logprobs_source *from,
                           int first) {
    sd_logprobs_cursor c = {0};
    sd_jt_raw(t, "\"logprobs\":[");
    if (from) sd_logprobs_entries(t, a, from, first, &c, SIZE_MAX);
    sd_jt_raw(t, "]");
}

static void message_begin(sd_json_out *t, const sd_answer *a, int item, const char *status) {
    sd_jt_raw(t, "{\"id\":");
    id_write(t, a, SD_CHUNK_CONTENT, item);
    sd_jt_printf(t, ",\"type\":\"message\",\"status\":\"%s\",\"role\":\"assistant\",\"content\":[",
                 status);
}

// An item; text NULL: it has just begun. cut: the answer ends in it. from, first: a message's log probabilities.
static void item_write(sd_json_out *t, const sd_answer *a, sd_chunk_kind kind, int item,
                       const char *call_id, const char *name, const sd_buf *text, bool cut,
                       const sd_logprobs_source *from, int first) {
    const char *status = status_of(!text, cut);
    if (kind == SD_CHUNK_CONTENT) {
        message_begin(t, a, item, status);
        if (text) {
            sd_jt_raw(t, "{\"type\":\"output_text\",\"annotations\":[],");
            logprobs_write(t, a, from, first);
            sd_jt_raw(t, ",\"text\":");
            text_write(t, text);
            sd_jt_raw(t, "}");
        }
        sd_jt_raw(t, "]}");
        return;
    }
    sd_jt_raw(t, "{\"id\":");
    id_write(t, a, kind, item);
    if (kind == SD_CHUNK_REASONING) {
        sd_jt_printf(t, ",\"type\":\"reasoning\",\"status\":\"%s\",\"summary\":[],\"content\":[",
                     status);
        if (text) {
            sd_jt_raw(t, "{\"type\":\"reasoning_text\",\"text\":");
            text_write(t, text);
            sd_jt_raw(t, "}");
        }
        sd_jt_raw(t, "]}");
    } else {
        sd_jt_printf(t, ",\"type\":\"function_call\",\"status\":\"%s\",\"call_id\":", status);
        sd_jt_word(t, call_id);
        sd_jt_raw(t, ",\"name\":");
        sd_jt_word(t, name);
        sd_jt_raw(t, ",\"arguments\":");
        if (text)
            text_write(t, text);
        else
            sd_jt_raw(t, "\"\"");
        sd_jt_raw(t, "}");
    }
}

// ---- the object

static void choice_write(sd_json_out *t, const sd_api_request *r) {
    const json_t *tool = json_array_get(r->tools, (size_t)r->tool_index);
    sd_jt_raw(t, ",\"tool_choice\":");
    if (r->tool_choice == SD_API_TOOL_NAMED) {
        sd_jt_raw(t, "{\"type\":\"function\",\"name\":");
        sd_jt_word(t,
                   json_string_value(json_object_get(json_object_get(tool, "function"), "name")));
        sd_jt_raw(t, "}");
    } else {
        sd_jt_word(t, r->tool_choice == SD_API_TOOL_REQUIRED ? "required"
                      : r->tool_choice == SD_API_TOOL_AUTO   ? "auto"
                                                             : "none");
    }
}

// Up to its items.
static void head_write(sd_json_out *t, const sd_answer *a, const char *status, bool cut) {
    const sd_api_request *r = a->request;
    sd_jt_raw(t, "{\"id\":");
    sd_jt_word(t, a->id);
    sd_jt_printf(t,
                 ",\"object\":\"response\",\"created_at\":%lld,\"status\":\"%s\",\"error\":null,"
                 "\"incomplete_details\":",
                 (long long)a->created, status);
    sd_jt_raw(t, cut ? "{\"reason\":\"max_output_tokens\"}" : "null");
    sd_jt_raw(t,
              ",\"instructions\":null,\"metadata\":{},\"previous_response_id\":null,\"tools\":[],"
              "\"store\":false,\"truncation\":\"disabled\",\"model\":");
    sd_jt_word(t, a->model);
    choice_write(t, r);
    sd_jt_printf(
        t, ",\"parallel_tool_calls\":%s,\"temperature\":", r->parallel_calls ? "true" : "false");
    sd_jt_real(t, (double)r->sampling.temperature);
    sd_jt_raw(t, ",\"top_p\":");
    sd_jt_real(t, (double)r->sampling.top_p);
    if (r->max_tokens > 0)
        sd_jt_printf(t, ",\"max_output_tokens\":%d", r->max_tokens);
    else
        sd_jt_raw(t, ",\"max_output_tokens\":null");
    sd_jt_raw(t, ",\"output\":[");
}

static void usage_write(sd_json_out *t, const sd_usage *u) {
    sd_jt_raw(t, "],\"usage\":");
    if (u)
        sd_jt_printf(t,
                     "{\"input_tokens\":%d,\"input_tokens_details\":{\"cached_tokens\":%d,"
                     "\"cache_write_tokens\":0},\"output_tokens\":%d,\"output_tokens_details\":{"
                     "\"reasoning_tokens\":%d},\"total_tokens\":%d}}",
                     u->prompt, u->cached, u->generated, u->reasoning, u->prompt + u->generated);
    else
        sd_jt_raw(t, "null}");
}

// ---- a whole answer

static sd_buf borrowed(const char *text, size_t len) {
    return (sd_buf){.data = (char *)(uintptr_t)text, .len = len};
}

// Reasoning, and the message up to its log probabilities.
static void whole_begin(sd_json_out *t, const sd_answer *a, const sd_whole_choice *c, bool cut,
                        int last) {
    const int item = c->reasoning_len > 0;
    head_write(t, a, cut ? "incomplete" : "completed", cut);
    if (item) {
        const sd_buf text = borrowed(c->reasoning, c->reasoning_len);
        item_write(t, a, SD_CHUNK_REASONING, 0, NULL, NULL, &text, cut && last == 0, NULL, 0);
    }
    if (c->len == 0) return;
    if (item) sd_jt_raw(t, ",");
    message_begin(t, a, item, status_of(false, cut && item == last));
    sd_jt_raw(t, "{\"type\":\"output_text\",\"annotations\":[],\"logprobs\":[");
}

// The message's text, and the calls.
static void whole_end(sd_json_out *t, const sd_answer *a, const sd_whole_choice *c, bool cut,
                      int last) {
    int item = (c->reasoning_len > 0) + (c->len > 0);
    if (c->len > 0) {
        sd_jt_raw(t, "],\"text\":");
        sd_jt_string(t, c->text, c->len);
        sd_jt_raw(t, "}]}");
    }
    for (int i = 0; i < c->n_calls; i++, item++) {
        if (item) sd_jt_raw(t, ",");
        item_write(t, a, SD_CHUNK_CALL, item, c->calls[i].id, c->calls[i].name,
                   &c->calls[i].arguments, cut && item == last, NULL, 0);
    }
}

static bool whole_write(sd_json_out *t, sd_whole *w, const sd_answer *a, int n,
                        sd_whole_choice (*choice)(const void *ctx, int i), const void *ctx,
                        const sd_usage *usage, const sd_request_stats *sum, size_t limit) {
    (void)n, (void)sum;
    const sd_whole_choice c = choice(ctx, 0);
    const bool cut = c.finish == SD_FINISH_LENGTH;
    const int last = (c.reasoning_len > 0) + (c.len > 0) + c.n_calls - 1;
    if (w->part == 0) {
        whole_begin(t, a, &c, cut, last);
        w->part = 1;
    }
    sd_logprobs_source message = c.logprobs;
    message.n = c.content_end;
    if (c.len > 0 && c.has_logprobs &&
        !sd_logprobs_entries(t, a, &message, c.first_content, &w->cursor, limit))
        return false;
    whole_end(t, a, &c, cut, last);
    usage_write(t, usage);
    return true;
}

// ---- a stream

static void event_begin(sd_json_out *t, sd_stream_state *s, const char *type) {
    sd_jt_printf(t, "event: %s\ndata: {\"type\":\"%s\",\"sequence_number\":%d", type, type,
                 s->events++);
}

static void event_end(sd_json_out *t) {
    sd_jt_raw(t, "}\n\n");
}

// An event of the item in hand. part: it is about its one part of content.
static void item_event(sd_json_out *t, const sd_answer *a, sd_stream_state *s, const char *type,
                       bool part) {
    event_begin(t, s, type);
    sd_jt_printf(t, ",\"output_index\":%d,\"item_id\":", s->block);
    id_write(t, a, s->kind, s->block);
    if (part) sd_jt_raw(t, ",\"content_index\":0");
}

static void part_event(sd_json_out *t, const sd_answer *a, sd_stream_state *s, const char *type,
                       const sd_buf *text, const sd_logprobs_source *all) {
    item_event(t, a, s, type, true);
    if (s->kind == SD_CHUNK_CONTENT) {
        sd_jt_raw(t, ",\"part\":{\"type\":\"output_text\",\"annotations\":[],");
        logprobs_write(t, a, all, s->first);
        sd_jt_raw(t, ",\"text\":");
    } else {
        sd_jt_raw(t, ",\"part\":{\"type\":\"reasoning_text\",\"text\":");
    }
    text_write(t, text);
    sd_jt_raw(t, "}");
    event_end(t);
}

static void end_item(sd_json_out *t, const sd_answer *a, sd_stream_state *s, bool cut,
                     const sd_logprobs_source *all) {
    if (!s->open) return;
    const bool call = s->kind == SD_CHUNK_CALL;
    item_event(t, a, s,
               call                            ? "response.function_call_arguments.done"
               : s->kind == SD_CHUNK_REASONING ? "response.reasoning_text.done"
                                               : "response.output_text.done",
               !call);
    if (call) {
        sd_jt_raw(t, ",\"name\":");
        sd_jt_word(t, s->name);
    }
    if (s->kind == SD_CHUNK_CONTENT) {
        sd_jt_raw(t, ",");
        logprobs_write(t, a, all, s->first);
    }
    sd_jt_raw(t, call ? ",\"arguments\":" : ",\"text\":");
    text_write(t, &s->text);
    event_end(t);
    if (!call) part_event(t, a, s, "response.content_part.done", &s->text, all);
    event_begin(t, s, "response.output_item.done");
    sd_jt_printf(t, ",\"output_index\":%d,\"item\":", s->block);
    const size_t from = t->buf.len;
    item_write(t, a, s->kind, s->block, s->id, s->name, &s->text, cut, all, s->first);
    if (!t->lost && ((s->block > 0 && !sd_buf_adds(&s->done, ",")) ||
                     !sd_buf_add(&s->done, t->buf.data + from, t->buf.len - from)))
        t->lost = true;
    event_end(t);
    sd_buf_clear(&s->text);
    s->block++;
    s->open = false;
}

static void begin_item(sd_json_out *t, const sd_answer *a, const sd_chunk *c) {
    static const sd_buf nothing;
    sd_stream_state *s = c->state;
    // The tokens of this chunk are among all of them.
    const int before = (c->all ? c->all->n : 0) - (c->logprobs ? c->logprobs->n : 0);
    const sd_logprobs_source earlier = {
        .kept = c->all ? c->all->kept : NULL, .top = c->all ? c->all->top : 0, .n = before};
    end_item(t, a, s, false, c->all ? &earlier : NULL);
    s->open = true;
    s->kind = c->kind;
    s->first = before;
    if (c->kind == SD_CHUNK_CALL) {
        snprintf(s->id, sizeof s->id, "%s", c->call_id);
        snprintf(s->name, sizeof s->name, "%.*s", (int)c->len, c->text);
    }
    event_begin(t, s, "response.output_item.added");
    sd_jt_printf(t, ",\"output_index\":%d,\"item\":", s->block);
    item_write(t, a, s->kind, s->block, s->id, s->name, NULL, false, NULL, 0);
    event_end(t);
    if (c->kind != SD_CHUNK_CALL)
        part_event(t, a, s, "response.content_part.added", &nothing, NULL);
}

static void delta_write(sd_json_out *t, const sd_answer *a, const sd_chunk *c) {
    sd_stream_state *s = c->state;
    const bool arguments = c->kind == SD_CHUNK_ARGUMENTS;
    if (c->kind == SD_CHUNK_CALL) {
        begin_item(t, a, c);
        return;
    }
    if (c->len == 0) return;
    if (!arguments && (!s->open || s->kind != c->kind)) begin_item(t, a, c);
    item_event(t, a, s,
               arguments                       ? "response.function_call_arguments.delta"
               : c->kind == SD_CHUNK_REASONING ? "response.reasoning_text.delta"
                                               : "response.output_text.delta",
               !arguments);
    if (c->kind == SD_CHUNK_CONTENT) {
        sd_jt_raw(t, ",");
        logprobs_write(t, a, c->logprobs, 0);
    }
    sd_jt_raw(t, ",\"delta\":");
    sd_jt_string(t, c->text, c->len);
    event_end(t);
    if (!sd_buf_add(&s->text, c->text, c->len)) t->lost = true;
}

static void response_event(sd_json_out *t, const sd_answer *a, sd_stream_state *s, const char *type,
                           const char *status, bool cut, const sd_usage *usage) {
    event_begin(t, s, type);
    sd_jt_raw(t, ",\"response\":");
    head_write(t, a, status, cut);
    if (s->done.len && !t->lost && !sd_buf_add(&t->buf, s->done.data, s->done.len)) t->lost = true;
    usage_write(t, usage);
    event_end(t);
}

static void chunk_write(sd_json_out *t, const sd_answer *a, const sd_chunk *c) {
    sd_stream_state *s = c->state;
    if (c->first) {
        response_event(t, a, s, "response.created", "in_progress", false, NULL);
        response_event(t, a, s, "response.in_progress", "in_progress", false, NULL);
    }
    if (c->text) delta_write(t, a, c);
    if (c->finish == SD_FINISH_NONE) return;
    const bool cut = c->finish == SD_FINISH_LENGTH;
    end_item(t, a, s, cut, c->all);
    response_event(t, a, s, cut ? "response.incomplete" : "response.completed",
                   cut ? "incomplete" : "completed", cut, c->usage);
}

static void error_write(sd_json_out *t, const sd_api_error *e, sd_stream_state *state) {
    sd_stream_state none = {0};
    event_begin(t, state ? state : &none, "error");
    sd_jt_raw(t, ",\"code\":");
    sd_jt_word(t, e->code ? e->code : e->type);
    sd_jt_raw(t, ",\"message\":");
    sd_jt_word(t, e->message);
    sd_jt_raw(t, ",\"param\":");
    sd_jt_word(t, e->param[0] ? e->param : NULL);
    event_end(t);
}

const sd_dialect sd_openai_responses = {.kind = SD_API_CHAT,
                                        .id_prefix = "resp_",
                                        .call_prefix = "call_",
                                        .prompt_field = "input",
                                        .parse = sd_responses_parse,
                                        .whole_type = "application/json",
                                        .stream_type = "text/event-stream; charset=utf-8",
                                        .stream_end = "",
                                        .opens_choices = true,
                                        .keeps_logprobs = true,
                                        .chunk = chunk_write,
                                        .error = error_write,
                                        .whole = whole_write};
