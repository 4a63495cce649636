// Any bytes as a request's body, in each dialect: a request or an error with a sentence, and what
// is sent back of either is JSON.
#include "base/status.h"
#include "datasets/read/record_json.h"
#include "decode/serve/api/dialect.h"
#include "decode/serve/api/openai/response.h"

#include <stdint.h>
#include <string.h>

// A string of the body as the text of an answer, in slices and as an event.
static void write_back(const char *text, size_t len) {
    sd_json_out t = {.buf = sd_buf_make(1 << 26)};
    const sd_answer a = {.kind = SD_API_COMPLETION, .id = "id", .model = "m", .created = 1};
    sd_chunk_write(&t, &a, &(sd_chunk){.text = text, .len = len});
    SD_ASSERT(!t.lost && memchr(t.buf.data, '\n', t.buf.len) == t.buf.data + t.buf.len - 2);
    json_t *v = json_loadb(t.buf.data + 6, t.buf.len - 8, JSON_ALLOW_NUL, NULL);
    const json_t *choice = json_array_get(json_object_get(v, "choices"), 0);
    const json_t *back = json_object_get(choice, "text");
    SD_ASSERT(json_string_length(back) == len && memcmp(json_string_value(back), text, len) == 0);
    json_decref(v);
    sd_buf_free(&t.buf);
}

static void check_question(const sd_decide_question *q) {
    SD_ASSERT(q->kind < SD_DECIDE_KINDS && q->instructions && q->begin[0]);
    SD_ASSERT(q->n_labels >= 2 && q->n_labels <= SD_DECIDE_MAX_LABELS);
    for (int k = 0; k < q->n_labels; k++) {
        const size_t n = strlen(q->label[k].text);
        SD_ASSERT(n >= 1 && n <= SD_DECIDE_MAX_LABEL && strcspn(q->label[k].text, "\r\n") == n);
    }
}

static void check(const sd_api_request *r) {
    for (int i = 0; i < r->n_stop; i++) SD_ASSERT(r->stop[i] && r->stop[i][0]);
    SD_ASSERT(r->n >= 1 && r->n <= SD_API_MAX_CHOICES && r->logprobs >= -1 && r->logprobs <= 20);
    SD_ASSERT(r->sampling.temperature >= 0 && r->sampling.temperature <= 2);
    size_t i;
    json_t *message;
    json_array_foreach(r->messages, i, message) {
        const json_t *content = json_object_get(message, "content");
        SD_ASSERT(json_is_string(content) && !sd_json_odd_number(message));
        if (i == 0) write_back(json_string_value(content), json_string_length(content));
    }
    for (int i = 0; r->decide && i < r->decide->n; i++) check_question(&r->decide->question[i]);
    if (r->n_prompts > 0 && r->prompt[0].text) write_back(r->prompt[0].text, r->prompt[0].len);
}

// Both forms of an error are JSON, whatever of the body it quotes.
static void check_error(const sd_api_error *e) {
    json_t *forms[] = {sd_error_json(e), sd_anthropic_error_json(e)};
    for (size_t i = 0; i < 2; i++) {
        SD_ASSERT(forms[i]);
        json_decref(forms[i]);
    }
    sd_json_out t = {.buf = sd_buf_make(1 << 16)};
    sd_error_write(&t, e, NULL);
    json_t *v = t.lost ? NULL : json_loadb(t.buf.data + 6, t.buf.len - 8, JSON_ALLOW_NUL, NULL);
    SD_ASSERT(v);
    json_decref(v);
    sd_buf_free(&t.buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    static const sd_dialect *const dialects[] = {&sd_openai_chat,
                                                 &sd_openai_completion,
                                                 &sd_openai_tokenize,
                                                 &sd_openai_detokenize,
                                                 &sd_anthropic_messages,
                                                 &sd_anthropic_count,
                                                 &sd_openai_responses,
                                                 &sd_systemone,
                                                 &sd_openai_decisions,
                                                 &sd_openai_embeddings,
                                                 &sd_rerank};
    for (size_t i = 0; i < sizeof dialects / sizeof *dialects; i++) {
        sd_api_request r;
        sd_api_error e;
        int status = dialects[i]->parse(&r, (const char *)bytes, size, &e);
        SD_ASSERT(status == e.status && (status == 0 || (status >= 400 && e.message[0])));
        if (status) {
            check_error(&e);
        } else {
            SD_ASSERT(r.kind == SD_API_CHAT ? json_array_size(r.messages) > 0
                                            : r.n_prompts > 0 || r.embed);
            for (int k = 0; r.embed && k < r.embed->n; k++)
                SD_ASSERT(r.embed->item[k].text ? r.embed->item[k].len > 0
                                                : r.embed->item[k].n_ids > 0);
            SD_ASSERT(strlen(r.skipped) < sizeof r.skipped && !strpbrk(r.skipped, "\r\n"));
            check(&r);
        }
        sd_api_request_free(&r);
    }
    return 0;
}
