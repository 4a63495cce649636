// The shapes around text and logprobs, written as text. Errors alone are small trees.
#include "decode/serve/api/openai/response.h"

#include <math.h>
#include <string.h>

enum { TEXT_PIECE = 4 * 1024 }; // of text; escaped it may be six times as long

void sd_error_write(sd_json_out *t, const sd_api_error *e, sd_stream_state *state) {
    (void)state;
    sd_jt_raw(t, "data: {\"error\":{\"message\":");
    sd_jt_word(t, e->message);
    sd_jt_raw(t, ",\"type\":");
    sd_jt_word(t, e->type);
    sd_jt_raw(t, ",\"param\":");
    sd_jt_word(t, e->param[0] ? e->param : NULL);
    sd_jt_raw(t, ",\"code\":");
    sd_jt_word(t, e->code);
    sd_jt_raw(t, "}}\n\n");
}

// ---- usage, speculation and time

static void usage_write(sd_json_out *t, const sd_usage *u) {
    sd_jt_printf(t,
                 "{\"prompt_tokens\":%d,\"completion_tokens\":%d,\"total_tokens\":%d,"
                 "\"prompt_tokens_details\":{\"cached_tokens\":%d}",
                 u->prompt, u->generated, u->prompt + u->generated, u->cached);
    if (u->reasons)
        sd_jt_printf(t, ",\"completion_tokens_details\":{\"reasoning_tokens\":%d}", u->reasoning);
    sd_jt_raw(t, "}");
}

static double ratio(double a, double b) {
    return b > 0 ? a / b : 0;
}

static void real(sd_json_out *t, const char *key, double x) {
    sd_jt_printf(t, "\"%s\":", key);
    sd_jt_real(t, x);
    sd_jt_raw(t, ",");
}

// Mean acceptance length counts the token that every round gives besides its accepted drafts.
static void metrics_write(sd_json_out *t, const sd_spec_stats *s, uint64_t generation) {
    int last = SD_MAX_DRAFT;
    while (last > 0 && s->accepted_at[last - 1] == 0) last--;
    sd_jt_raw(t, ",\"metrics\":{\"speculative_decoding\":{");
    real(t, "mean_acceptance_length", 1 + ratio((double)s->accepted, (double)s->rounds));
    real(t, "draft_acceptance_rate", ratio((double)s->accepted, (double)s->drafted));
    sd_jt_raw(t, "\"acceptance_histogram\":[");
    for (int i = 0; i < last; i++)
        sd_jt_printf(t, i ? ",%lld" : "%lld", (long long)s->accepted_at[i]);
    sd_jt_printf(t,
                 "],\"num_spec_steps\":%lld,\"num_accepted_draft_tokens\":%lld,"
                 "\"num_draft_tokens\":%lld}",
                 (long long)s->rounds, (long long)s->accepted, (long long)s->drafted);
    if (generation) sd_jt_printf(t, ",\"adapter_generation\":%llu", (unsigned long long)generation);
    sd_jt_raw(t, "}");
}

static void timings_write(sd_json_out *t, const sd_request_stats *s) {
    int read = s->prompt_tokens - s->cached_tokens;
    sd_jt_printf(t, ",\"timings\":{\"cache_n\":%d,\"prompt_n\":%d,", s->cached_tokens, read);
    real(t, "prompt_ms", s->prefill_ms);
    real(t, "prompt_per_token_ms", ratio(s->prefill_ms, read));
    real(t, "prompt_per_second", ratio(1000.0 * read, s->prefill_ms));
    sd_jt_printf(t, "\"predicted_n\":%d,", s->generated);
    real(t, "predicted_ms", s->decode_ms);
    real(t, "predicted_per_token_ms", ratio(s->decode_ms, s->generated));
    real(t, "predicted_per_second", ratio(1000.0 * s->generated, s->decode_ms));
    real(t, "queue_ms", s->queue_ms);
    sd_jt_printf(t, "\"draft_n\":%lld,\"draft_n_accepted\":%lld}", (long long)s->spec.drafted,
                 (long long)s->spec.accepted);
}

static void stats_write(sd_json_out *t, const sd_request_stats *sum, const sd_answer *a) {
    metrics_write(t, &sum->spec, a->generation);
    timings_write(t, sum);
}

// ---- shared by chunks and whole answers

// Up to the opening bracket of the choices.
static void envelope(sd_json_out *t, const sd_answer *a, const char *chat_object) {
    sd_jt_raw(t, "{\"id\":");
    sd_jt_word(t, a->id);
    sd_jt_printf(t, ",\"object\":\"%s\",\"created\":%lld,\"model\":",
                 a->kind == SD_API_CHAT ? chat_object : "text_completion", (long long)a->created);
    sd_jt_word(t, a->model);
    sd_jt_raw(t, ",\"system_fingerprint\":\"specdec-" SPECDEC_VERSION "\",\"choices\":[");
}

static void finish_write(sd_json_out *t, sd_finish f, bool calls) {
    sd_jt_raw(t, ",\"finish_reason\":");
    sd_jt_word(t, f == SD_FINISH_NONE            ? NULL
                  : f == SD_FINISH_STOP && calls ? "tool_calls"
                                                 : sd_finish_name(f));
    sd_jt_raw(t, "}");
}

// ---- a stream

static void call_write(sd_json_out *t, const sd_chunk *c) {
    sd_jt_printf(t, "\"tool_calls\":[{\"index\":%d,", c->call);
    if (c->kind == SD_CHUNK_CALL) {
        sd_jt_raw(t, "\"id\":");
        sd_jt_word(t, c->call_id);
        sd_jt_raw(t, ",\"type\":\"function\",\"function\":{\"name\":");
        sd_jt_string(t, c->text, c->len);
        sd_jt_raw(t, ",\"arguments\":\"\"}}]");
    } else {
        sd_jt_raw(t, "\"function\":{\"arguments\":");
        sd_jt_string(t, c->text, c->len);
        sd_jt_raw(t, "}}]");
    }
}

static void delta_write(sd_json_out *t, const sd_answer *a, const sd_chunk *c) {
    bool chat = a->kind == SD_API_CHAT;
    if (!chat) {
        sd_jt_raw(t, ",\"text\":");
        sd_jt_string(t, c->text ? c->text : "", c->len);
        return;
    }
    sd_jt_raw(t, ",\"delta\":{");
    if (c->first) sd_jt_raw(t, "\"role\":\"assistant\",");
    if (c->text && (c->kind == SD_CHUNK_CALL || c->kind == SD_CHUNK_ARGUMENTS)) {
        call_write(t, c);
    } else if (c->first || c->text) {
        sd_jt_raw(t, c->kind == SD_CHUNK_REASONING ? "\"reasoning_content\":" : "\"content\":");
        sd_jt_string(t, c->text ? c->text : "", c->len);
    }
    sd_jt_raw(t, "}");
}

void sd_chunk_write(sd_json_out *t, const sd_answer *a, const sd_chunk *c) {
    sd_jt_raw(t, "data: ");
    envelope(t, a, "chat.completion.chunk");
    sd_jt_printf(t, "{\"index\":%d", c->index);
    delta_write(t, a, c);
    sd_jt_raw(t, ",\"logprobs\":");
    if (c->logprobs) {
        c->cursor->part = c->cursor->at = 0;
        sd_logprobs_write(t, a, c->logprobs, c->cursor, SIZE_MAX);
    } else {
        sd_jt_raw(t, "null");
    }
    finish_write(t, c->finish, c->calls);
    sd_jt_raw(t, "]");
    if (c->usage || c->usage_null) sd_jt_raw(t, ",\"usage\":");
    if (c->usage)
        usage_write(t, c->usage);
    else if (c->usage_null)
        sd_jt_raw(t, "null");
    if (c->sum) stats_write(t, c->sum, a);
    sd_jt_raw(t, "}\n\n");
}

void sd_usage_chunk_write(sd_json_out *t, const sd_answer *a, const sd_usage *u) {
    sd_jt_raw(t, "data: ");
    envelope(t, a, "chat.completion.chunk");
    sd_jt_raw(t, "],\"usage\":");
    usage_write(t, u);
    sd_jt_raw(t, "}\n\n");
}

// ---- a whole answer

enum {
    WHOLE_HEAD,
    CHOICE_HEAD,
    CHOICE_TEXT,
    CHOICE_REASONING,
    CHOICE_CALLS,
    CHOICE_LOGPROBS,
    WHOLE_TAIL
}; // part

// The next piece of a string's inside; true when it was the last.
static bool piece_write(sd_json_out *t, sd_whole *w, const char *text, size_t len) {
    size_t n = len - w->at < TEXT_PIECE ? len - w->at : TEXT_PIECE;
    if (n) sd_jt_chars(t, text + w->at, n);
    w->at += n;
    if (w->at < len) return false;
    w->at = 0;
    return true;
}

// The text, or null where there are calls alone.
static void text_step(sd_json_out *t, sd_whole *w, const sd_whole_choice *c, bool chat) {
    w->part = CHOICE_REASONING;
    if (chat && c->len == 0 && c->n_calls > 0) {
        sd_jt_raw(t, "null");
        return;
    }
    if (w->at == 0) sd_jt_raw(t, "\"");
    if (piece_write(t, w, c->text, c->len))
        sd_jt_raw(t, "\"");
    else
        w->part = CHOICE_TEXT;
}

static void reasoning_step(sd_json_out *t, sd_whole *w, const sd_whole_choice *c) {
    w->part = CHOICE_CALLS;
    if (c->reasoning_len == 0) return;
    if (w->at == 0) sd_jt_raw(t, ",\"reasoning_content\":\"");
    if (piece_write(t, w, c->reasoning, c->reasoning_len))
        sd_jt_raw(t, "\"");
    else
        w->part = CHOICE_REASONING;
}

static void calls_step(sd_json_out *t, sd_whole *w, const sd_whole_choice *c, bool chat) {
    if (w->call < c->n_calls) {
        const sd_tool_call *call = &c->calls[w->call];
        if (w->at == 0) {
            sd_jt_raw(t, w->call ? "," : ",\"tool_calls\":[");
            sd_jt_raw(t, "{\"id\":");
            sd_jt_word(t, call->id);
            sd_jt_raw(t, ",\"type\":\"function\",\"function\":{\"name\":");
            sd_jt_word(t, call->name);
            sd_jt_raw(t, ",\"arguments\":\"");
        }
        if (!piece_write(t, w, call->arguments.data, call->arguments.len)) return;
        sd_jt_raw(t, "\"}}");
        if (++w->call < c->n_calls) return;
        sd_jt_raw(t, "]");
    }
    sd_jt_raw(t, chat ? "},\"logprobs\":" : ",\"logprobs\":");
    w->part = CHOICE_LOGPROBS;
}

// One step of the choice in hand; the part says which.
static void choice_step(sd_json_out *t, sd_whole *w, const sd_answer *a, const sd_whole_choice *c,
                        size_t limit) {
    bool chat = a->kind == SD_API_CHAT;
    switch (w->part) {
    case CHOICE_HEAD:
        sd_jt_printf(t, w->choice ? ",{\"index\":%d" : "{\"index\":%d", c->index);
        sd_jt_raw(t, chat ? ",\"message\":{\"role\":\"assistant\",\"content\":" : ",\"text\":");
        w->part = CHOICE_TEXT;
        return;
    case CHOICE_TEXT:
        text_step(t, w, c, chat);
        return;
    case CHOICE_REASONING:
        reasoning_step(t, w, c);
        return;
    case CHOICE_CALLS:
        calls_step(t, w, c, chat);
        return;
    default:
        if (!c->has_logprobs)
            sd_jt_raw(t, "null");
        else if (!sd_logprobs_write(t, a, &c->logprobs, &w->cursor, limit))
            return;
        finish_write(t, c->finish, c->n_calls > 0);
        *w = (sd_whole){.choice = w->choice + 1, .part = CHOICE_HEAD};
    }
}

bool sd_whole_write(sd_json_out *t, sd_whole *w, const sd_answer *a, int n,
                    sd_whole_choice (*choice)(const void *ctx, int i), const void *ctx,
                    const sd_usage *usage, const sd_request_stats *sum, size_t limit) {
    if (w->part == WHOLE_HEAD) {
        envelope(t, a, "chat.completion");
        w->part = CHOICE_HEAD;
    }
    while (w->choice < n && !t->lost && t->buf.len < limit) {
        sd_whole_choice c = choice(ctx, w->choice);
        choice_step(t, w, a, &c, limit);
    }
    if (w->choice < n) return false;
    if (w->part != WHOLE_TAIL) {
        sd_jt_raw(t, "],\"usage\":");
        usage_write(t, usage);
        stats_write(t, sum, a);
        sd_jt_raw(t, "}");
        w->part = WHOLE_TAIL;
    }
    return true;
}
