// Logprobs: kept as numbers, written as JSON in as many pieces as it takes.
//
// A chat has one list of objects. A completion has four lists side by side, so the tokens are gone
// through four times, each time from where the last piece ended.
#include "decode/serve/api/openai/response.h"

#include "base/utf8.h"

#include <math.h>
#include <string.h>

// JSON has no infinity; what is below stands for it, as in vLLM. A prompt's first token has no logprob.
static void number(sd_json_out *t, float x) {
    if (isnan(x))
        sd_jt_raw(t, "null");
    else
        sd_jt_real(t, x > -9999.0f ? (double)x : -9999.0);
}

static const char *bytes_of(const sd_answer *a, int32_t token, size_t *len) {
    *len = 0;
    return a->tokenizer ? sd_tokenizer_bytes(a->tokenizer, token, len) : NULL;
}

// ---- a chat's token: {"token", "logprob", "bytes"}

static void chat_token(sd_json_out *t, const sd_answer *a, int32_t token, float logprob) {
    size_t len;
    const char *bytes = bytes_of(a, token, &len);
    sd_jt_raw(t, "{\"token\":");
    if (bytes)
        sd_jt_string(t, bytes, len);
    else
        sd_jt_printf(t, "\"token_id:%d\"", (int)token);
    sd_jt_raw(t, ",\"logprob\":");
    number(t, logprob);
    sd_jt_raw(t, ",\"bytes\":[");
    for (size_t i = 0; bytes && i < len; i++)
        sd_jt_printf(t, i ? ",%d" : "%d", (unsigned char)bytes[i]);
    sd_jt_raw(t, "]");
}

static void chat_entry(sd_json_out *t, const sd_answer *a, const sd_token_info *info) {
    chat_token(t, a, info->token, info->logprob);
    sd_jt_raw(t, ",\"top_logprobs\":[");
    for (int k = 0; k < info->n_top; k++) {
        if (k) sd_jt_raw(t, ",");
        chat_token(t, a, info->top[k].token, info->top[k].logprob);
        sd_jt_raw(t, "}");
    }
    sd_jt_raw(t, "]}");
}

// ---- a completion's token: an entry in each of four lists

static void token_key(sd_json_out *t, const sd_answer *a, int32_t token) {
    size_t len;
    const char *bytes = bytes_of(a, token, &len);
    if (!bytes) {
        sd_jt_printf(t, "\"token_id:%d\"", (int)token);
    } else if (sd_utf8_valid_prefix(bytes, len) == len && !memchr(bytes, 0, len)) {
        sd_jt_string(t, bytes, len);
    } else { // a part of a character: its bytes, as OpenAI writes them; not every parser takes a
             // NUL
        sd_jt_raw(t, "\"bytes:");
        for (size_t i = 0; i < len; i++) sd_jt_printf(t, "\\\\x%02x", (unsigned char)bytes[i]);
        sd_jt_raw(t, "\"");
    }
}

// Is the text of alternative k that of one before it? Bytes that are also a token's, for one.
static bool is_repeated(const sd_answer *a, const sd_token_info *info, int32_t token, int k) {
    size_t len, other_len;
    const char *bytes = bytes_of(a, token, &len);
    for (int i = 0; bytes && i < k; i++) {
        const char *other = bytes_of(a, info->top[i].token, &other_len);
        if (other && other_len == len && memcmp(other, bytes, len) == 0) return true;
    }
    return false;
}

static void top_entry(sd_json_out *t, const sd_answer *a, const sd_token_info *info) {
    bool sampled = false;
    if (isnan(info->logprob)) {
        sd_jt_raw(t, "null");
        return;
    }
    for (int k = 0; k <= info->n_top; k++) {
        bool last = k == info->n_top;
        if (last && sampled) break;
        int32_t token = last ? info->token : info->top[k].token;
        sampled |= token == info->token;
        sd_jt_raw(t, k ? "," : "{");
        if (is_repeated(a, info, token, k))
            sd_jt_printf(t, "\"token_id:%d\"", (int)token);
        else
            token_key(t, a, token);
        sd_jt_raw(t, ":");
        number(t, last ? info->logprob : info->top[k].logprob);
    }
    sd_jt_raw(t, "}");
}

// The characters that are complete before the token: where its text begins, or the character that
// it completes. An answer's special tokens are no text, a prompt's are; the space that the tokenizer puts
// in front of a prompt is none.
static void offset_entry(sd_json_out *t, const sd_answer *a, int32_t token,
                         const sd_logprobs_source *from, sd_logprobs_cursor *c) {
    sd_jt_printf(t, "%lld", (long long)c->offset);
    const bool of_prompt = c->at < from->n_prompt;
    size_t len, drop = 0;
    const char *bytes = bytes_of(a, token, &len);
    if (of_prompt && bytes) drop = sd_tokenizer_prefix_bytes(a->tokenizer, c->before - 1, token);
    if (of_prompt) c->before = token + 1;
    if (!bytes || len == 0 || c->at < from->silent ||
        (!of_prompt && sd_tokenizer_is_special(a->tokenizer, token)))
        return;
    sd_buf text = sd_buf_make(64 * 1024);
    if (!sd_utf8_stream_add(&c->utf8, bytes + drop, len - drop, &text)) t->lost = true;
    for (size_t i = 0; i < text.len; i++) c->offset += ((unsigned char)text.data[i] & 0xc0) != 0x80;
    sd_buf_free(&text);
}

// ---- both

static const char *const chat_parts[] = {"{\"content\":[", "],\"refusal\":null}"};
static const char *const completion_parts[] = {"{\"tokens\":[", "],\"token_logprobs\":[",
                                               "],\"top_logprobs\":[", "],\"text_offset\":[", "]}"};

static void entry(sd_json_out *t, const sd_answer *a, const sd_token_info *info,
                  const sd_logprobs_source *from, sd_logprobs_cursor *c) {
    if (a->kind == SD_API_CHAT)
        chat_entry(t, a, info);
    else if (c->part == 1)
        token_key(t, a, info->token);
    else if (c->part == 2)
        number(t, info->logprob);
    else if (c->part == 3)
        top_entry(t, a, info);
    else
        offset_entry(t, a, info->token, from, c);
}

bool sd_logprobs_entries(sd_json_out *t, const sd_answer *a, const sd_logprobs_source *from,
                         int first, sd_logprobs_cursor *c, size_t limit) {
    if (c->at < first) c->at = first;
    for (; c->at < from->n; c->at++) {
        if (t->lost || t->buf.len >= limit) return false;
        if (c->at > first) sd_jt_raw(t, ",");
        sd_token_info info = sd_logprobs_at(from, c->at);
        chat_entry(t, a, &info);
    }
    return true;
}

bool sd_logprobs_write(sd_json_out *t, const sd_answer *a, const sd_logprobs_source *from,
                       sd_logprobs_cursor *c, size_t limit) {
    bool chat = a->kind == SD_API_CHAT;
    const char *const *parts = chat ? chat_parts : completion_parts;
    int last = chat ? 1 : 4;
    if (c->part == 0) sd_jt_raw(t, parts[c->part++]);
    for (;;) {
        for (; c->at < from->n; c->at++) {
            if (t->lost || t->buf.len >= limit) return false;
            if (c->at) sd_jt_raw(t, ",");
            sd_token_info info = sd_logprobs_at(from, c->at);
            entry(t, a, &info, from, c);
        }
        sd_jt_raw(t, parts[c->part]);
        if (c->part++ == last) return true;
        c->at = 0;
    }
}
