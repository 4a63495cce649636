// What goes back: events of a stream, logprobs, and whole answers written in slices.
#include "decode/serve/api/openai/response.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const sd_answer chat = {.kind = SD_API_CHAT, .id = "chatcmpl-1", .model = "m", .created = 5};
static const sd_answer text = {
    .kind = SD_API_COMPLETION, .id = "cmpl-1", .model = "m", .created = 5};

static const char *at(const json_t *v, const char *key) {
    return json_string_value(json_object_get(v, key));
}

// The JSON of one event, which must be one line and an empty line. Frees the text.
static json_t *event(sd_json_out *t) {
    cr_assert_not(t->lost);
    cr_assert_eq(strncmp(t->buf.data, "data: {", 7), 0);
    cr_assert_eq(strchr(t->buf.data, '\n'), t->buf.data + t->buf.len - 2, "%s", t->buf.data);
    cr_assert_str_eq(t->buf.data + t->buf.len - 3, "}\n\n");
    json_error_t why;
    json_t *v = json_loads(t->buf.data + 6, JSON_DISABLE_EOF_CHECK | JSON_ALLOW_NUL, &why);
    cr_assert_not_null(v, "%s in %s", why.text, t->buf.data);
    sd_buf_free(&t->buf);
    return v;
}

static json_t *chunk(const sd_answer *a, const sd_chunk *c) {
    sd_json_out t = {.buf = sd_buf_make(1 << 20)};
    sd_chunk_write(&t, a, c);
    return event(&t);
}

Test(answer, an_sse_event_is_one_line_of_json_and_an_empty_line) {
    const char *hard = "line\nfeed\r\n\"quote\" \\ \x01\x7f \xe2\x80\xa8 data: x";
    json_t *v = chunk(&chat, &(sd_chunk){.text = hard, .len = strlen(hard)});
    const json_t *choice = json_array_get(json_object_get(v, "choices"), 0);
    cr_assert_str_eq(at(json_object_get(choice, "delta"), "content"), hard);
    cr_assert(json_is_null(json_object_get(choice, "finish_reason")));
    json_decref(v);
}

Test(answer, a_piece_that_finds_no_room_is_noticed) {
    sd_json_out t = {.buf = sd_buf_make(200)};
    sd_chunk_write(&t, &chat, &(sd_chunk){.text = "some text", .len = 9});
    cr_assert(t.lost);
    sd_buf_free(&t.buf);
}

Test(answer, chunks_have_the_shapes_clients_read) {
    json_t *first = chunk(&chat, &(sd_chunk){.index = 1, .first = true, .usage_null = true});
    const json_t *choice = json_array_get(json_object_get(first, "choices"), 0);
    cr_assert_str_eq(at(first, "object"), "chat.completion.chunk");
    cr_assert_eq(json_integer_value(json_object_get(choice, "index")), 1);
    cr_assert_str_eq(at(json_object_get(choice, "delta"), "role"), "assistant");
    cr_assert_str_eq(at(json_object_get(choice, "delta"), "content"), "");
    cr_assert(json_is_null(json_object_get(first, "usage")), "usage that comes later is null now");
    json_t *last = chunk(&chat, &(sd_chunk){.finish = SD_FINISH_LENGTH});
    choice = json_array_get(json_object_get(last, "choices"), 0);
    cr_assert_str_eq(at(choice, "finish_reason"), "length");
    cr_assert_eq(json_object_size(json_object_get(choice, "delta")), 0);
    cr_assert_null(json_object_get(last, "usage"), "nobody asked");
    sd_json_out t = {.buf = sd_buf_make(4096)};
    sd_usage_chunk_write(&t, &text, &(sd_usage){.prompt = 3, .generated = 4, .cached = 1});
    json_t *usage = event(&t);
    cr_assert_str_eq(at(usage, "object"), "text_completion");
    cr_assert_eq(json_array_size(json_object_get(usage, "choices")), 0);
    const json_t *u = json_object_get(usage, "usage");
    cr_assert_eq(json_integer_value(json_object_get(u, "total_tokens")), 7);
    json_decref(first), json_decref(last), json_decref(usage);
}

// ---- logprobs

// Byte-level BPE of 256 bytes: token i is the byte of GPT-2's alphabet with that number.
static sd_model *with_tokenizer(void) {
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    sd_model *m = sd_tiny_open(&t, true);
    cr_assert_not_null(m);
    return m;
}

// The token that stands for exactly these bytes.
static int32_t token_of(const sd_model *m, const char *bytes, size_t n) {
    for (int32_t i = 0; i < sd_tokenizer_size(m->tokenizer); i++) {
        size_t len;
        const char *b = sd_tokenizer_bytes(m->tokenizer, i, &len);
        if (len == n && memcmp(b, bytes, n) == 0) return i;
    }
    cr_assert(false, "no token of these %zu bytes", n);
    return -1;
}

static sd_token_info info_of(int32_t token, float logprob, int n, const int32_t *top) {
    sd_token_info info = {.token = token, .logprob = logprob, .n_top = n};
    for (int i = 0; i < n; i++) {
        info.top[i].token = top[i];
        info.top[i].logprob = -0.5f * (float)(i + 1);
    }
    return info;
}

Test(answer, a_completions_alternatives_are_distinct_and_hold_the_sampled_token) {
    sd_model *m = with_tokenizer();
    sd_answer a = text;
    a.tokenizer = m->tokenizer;
    int32_t e2 = token_of(m, "\xe2", 1), x82 = token_of(m, "\x82", 1), ac = token_of(m, "\xac", 1),
            nul = token_of(m, "\0", 1), letter = token_of(m, "a", 1), end = 286;
    cr_assert(sd_tokenizer_is_special(m->tokenizer, end));
    const sd_token_info tokens[] = {
        info_of(letter, -9, 3, (int32_t[]){e2, x82, ac}), // not among the three
        info_of(e2, -0.5f, 3, (int32_t[]){e2, nul, e2}),  // an id twice stands for equal bytes
        info_of(x82, -INFINITY, 0, NULL),
        info_of(ac, -1e30f, 1, (int32_t[]){nul}),
        info_of(end, -1, 1, (int32_t[]){end}),
        info_of(nul, -1, 1, (int32_t[]){nul}),
        info_of(letter, -1, 1, (int32_t[]){letter}),
    };
    sd_logprobs_cursor cursor = {0};
    json_t *v = chunk(&a, &(sd_chunk){.logprobs = &(sd_logprobs_source){.tokens = tokens, .n = 7},
                                      .cursor = &cursor});
    const json_t *lp =
        json_object_get(json_array_get(json_object_get(v, "choices"), 0), "logprobs");
    const json_t *top = json_object_get(lp, "top_logprobs");
    const json_t *first = json_array_get(top, 0);
    cr_assert_eq(json_object_size(first), 4);
    cr_assert_float_eq(json_real_value(json_object_get(first, "a")), -9, 0);
    cr_assert_float_eq(json_real_value(json_object_get(first, "bytes:\\xe2")), -0.5, 0);
    cr_assert_float_eq(json_real_value(json_object_get(first, "bytes:\\xac")), -1.5, 0);
    char id[32];
    snprintf(id, sizeof id, "token_id:%d", e2);
    cr_assert_not_null(json_object_get(json_array_get(top, 1), id));
    cr_assert_eq(json_object_size(json_array_get(top, 2)), 1, "the sampled token alone");
    static const int offsets[] = {0, 1, 1, 1, 2, 2, 3}; // a, the euro sign in three, none, NUL, a
    static const double logprobs[] = {-9, -0.5, -9999, -9999, -1, -1, -1};
    for (int i = 0; i < 7; i++) {
        const json_t *offset = json_array_get(json_object_get(lp, "text_offset"), (size_t)i);
        const json_t *p = json_array_get(json_object_get(lp, "token_logprobs"), (size_t)i);
        cr_assert_eq(json_integer_value(offset), offsets[i], "token %d at %d", i,
                     (int)json_integer_value(offset));
        cr_assert_float_eq(json_real_value(p), logprobs[i], 0);
    }
    const json_t *names = json_object_get(lp, "tokens");
    cr_assert_str_eq(json_string_value(json_array_get(names, 5)), "bytes:\\x00");
    cr_assert_str_eq(json_string_value(json_array_get(names, 1)), "bytes:\\xe2");
    json_decref(v);
    sd_model_release(m);
}

Test(answer, a_chats_tokens_have_their_bytes) {
    sd_model *m = with_tokenizer();
    sd_answer a = chat;
    a.tokenizer = m->tokenizer;
    int32_t e2 = token_of(m, "\xe2", 1);
    const sd_token_info info = info_of(e2, -1, 2, (int32_t[]){e2, token_of(m, "a", 1)});
    sd_logprobs_cursor cursor = {0};
    json_t *v = chunk(&a, &(sd_chunk){.logprobs = &(sd_logprobs_source){.tokens = &info, .n = 1},
                                      .cursor = &cursor});
    const json_t *lp =
        json_object_get(json_array_get(json_object_get(v, "choices"), 0), "logprobs");
    const json_t *entry = json_array_get(json_object_get(lp, "content"), 0);
    cr_assert_str_eq(at(entry, "token"), "\xef\xbf\xbd");
    cr_assert_eq(json_integer_value(json_array_get(json_object_get(entry, "bytes"), 0)), 0xe2);
    const json_t *top = json_object_get(entry, "top_logprobs");
    cr_assert_eq(json_array_size(top), 2);
    cr_assert_str_eq(at(json_array_get(top, 1), "token"), "a");
    json_decref(v);
    sd_model_release(m);
}

// ---- a whole answer, in slices

enum { CHOICES = 3, TOKENS = 40, TOP = 5 };
typedef struct {
    sd_buf text[CHOICES], kept[CHOICES];
} whole;

static sd_whole_choice whole_choice(const void *ctx, int i) {
    const whole *w = ctx;
    return (sd_whole_choice){.index = i,
                             .text = w->text[i].data ? w->text[i].data : "",
                             .len = w->text[i].len,
                             .has_logprobs = i != 1,
                             .logprobs = {.kept = &w->kept[i], .top = TOP, .n = TOKENS},
                             .finish = SD_FINISH_LENGTH};
}

static sd_buf write_whole(const sd_answer *a, const whole *w, size_t slice) {
    static const sd_request_stats sum = {.generated = TOKENS};
    static const sd_usage usage = {.prompt = 7, .generated = TOKENS};
    sd_buf all = sd_buf_make(1 << 24);
    sd_whole state = {0};
    for (bool done = false; !done;) {
        sd_json_out t = {.buf = sd_buf_make(1 << 24)};
        done = sd_whole_write(&t, &state, a, CHOICES, whole_choice, w, &usage, &sum, slice);
        cr_assert_not(t.lost);
        cr_assert(t.buf.len > 0 || done, "a slice without progress");
        cr_assert_lt(t.buf.len, slice + 6 * 4096 + 2048, "a slice of %zu bytes", t.buf.len);
        sd_buf_add(&all, t.buf.data, t.buf.len);
        sd_buf_free(&t.buf);
    }
    return all;
}

Test(answer, slices_of_any_size_are_together_the_whole_answer) {
    sd_model *m = with_tokenizer();
    whole w = {0};
    for (int i = 0; i < CHOICES; i++) {
        w.text[i] = sd_buf_make(1 << 20);
        w.kept[i] = sd_buf_make(1 << 20);
        for (int k = 0; k < 9000 * i; k++) sd_buf_adds(&w.text[i], "\xe2\x82\xac\"");
        for (int k = 0; k < TOKENS; k++) {
            sd_token_info info = info_of(40 + k, -0.25f * (float)k, TOP,
                                         (int32_t[]){k, k + 1, k + 2, k + 3, 40 + k});
            cr_assert(sd_logprobs_keep(&w.kept[i], &info, 1, TOP));
        }
        cr_assert_eq(w.kept[i].len, TOKENS * sd_logprobs_stride(TOP));
    }
    for (int kind = 0; kind < 2; kind++) {
        sd_answer a = kind ? chat : text;
        a.tokenizer = m->tokenizer;
        sd_buf one = write_whole(&a, &w, SIZE_MAX / 2);
        json_error_t why;
        json_t *v = json_loadb(one.data, one.len, kind ? JSON_ALLOW_NUL : 0, &why);
        cr_assert_not_null(v, "%s at %d", why.text, why.position);
        const json_t *last = json_array_get(json_object_get(v, "choices"), 2);
        const json_t *message = kind ? json_object_get(last, "message") : last;
        cr_assert_eq(json_string_length(json_object_get(message, kind ? "content" : "text")),
                     w.text[2].len);
        const json_t *lp = json_object_get(last, "logprobs");
        cr_assert_eq(json_array_size(json_object_get(lp, kind ? "content" : "tokens")), TOKENS);
        cr_assert(json_is_null(
            json_object_get(json_array_get(json_object_get(v, "choices"), 1), "logprobs")));
        json_decref(v);
        for (size_t slice = 1; slice < 200000; slice = slice * 3 + 7) {
            sd_buf many = write_whole(&a, &w, slice);
            cr_assert_eq(many.len, one.len, "slice %zu", slice);
            cr_assert_eq(memcmp(many.data, one.data, one.len), 0, "slice %zu", slice);
            sd_buf_free(&many);
        }
        sd_buf_free(&one);
    }
    for (int i = 0; i < CHOICES; i++) sd_buf_free(&w.text[i]), sd_buf_free(&w.kept[i]);
    sd_model_release(m);
}

Test(answer, an_error_names_its_field_and_survives_bad_utf8) {
    sd_api_error e = {0};
    cr_assert_eq(sd_api_fail(&e, 400, "top_p", "top_p is %d", 7), 400);
    json_t *v = sd_error_json(&e);
    const json_t *o = json_object_get(v, "error");
    cr_assert_str_eq(at(o, "param"), "top_p");
    cr_assert_str_eq(at(o, "type"), "invalid_request_error");
    cr_assert(json_is_null(json_object_get(o, "code")));
    json_decref(v);
    sd_api_fail(&e, 404, NULL, "cut in a code point: \xc3");
    v = sd_error_json(&e);
    cr_assert_not_null(v);
    cr_assert(json_is_null(json_object_get(json_object_get(v, "error"), "param")));
    json_decref(v);
    sd_json_out t = {.buf = sd_buf_make(4096)};
    sd_error_write(&t, &e, NULL);
    v = event(&t);
    cr_assert_str_eq(at(json_object_get(v, "error"), "message"), "cut in a code point: ");
    json_decref(v);
}

Test(answer, speculation_and_time_are_summed_over_choices) {
    sd_request_stats a = {.decode_ms = 100, .prefill_ms = 50, .prompt_tokens = 10, .generated = 20};
    a.spec = (sd_spec_stats){.rounds = 5, .drafted = 20, .accepted = 15};
    a.spec.accepted_at[0] = 5, a.spec.accepted_at[2] = 5;
    sd_request_stats sum = {0};
    sd_stats_add(&sum, &a);
    sd_stats_add(&sum, &a);
    json_t *v = chunk(&chat, &(sd_chunk){.finish = SD_FINISH_STOP, .sum = &sum});
    const json_t *m = json_object_get(json_object_get(v, "metrics"), "speculative_decoding");
    cr_assert_float_eq(json_real_value(json_object_get(m, "mean_acceptance_length")), 4, 1e-12);
    cr_assert_float_eq(json_real_value(json_object_get(m, "draft_acceptance_rate")), 0.75, 1e-12);
    cr_assert_eq(json_array_size(json_object_get(m, "acceptance_histogram")), 3);
    const json_t *t = json_object_get(v, "timings");
    cr_assert_float_eq(json_real_value(json_object_get(t, "predicted_per_second")), 400, 1e-9);
    json_decref(v);
}
