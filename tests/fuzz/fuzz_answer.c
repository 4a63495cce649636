// Answers of any bytes in any cuts: the machine that finds calls and reasoning. The first byte is the format
// and what is looked for, the second seeds the cuts, the rest is the answer. However it is cut, the deltas
// joined are the same; an answer without calls and reasoning is content byte for byte; calls have names.
#include "base/memory.h"
#include "model/dialogue/answer.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct {
    sd_buf text; // kinds and texts, joined
    sd_buf content;
    sd_delta_kind kind;
    int call, calls;
    bool any;
} told;

static bool tell(void *ctx, const sd_delta *d) {
    told *t = ctx;
    if (d->len == 0) __builtin_trap();
    bool same = t->any && t->kind == d->kind && t->call == d->call && d->kind != SD_DELTA_CALL;
    if (d->kind == SD_DELTA_CALL && d->call != t->calls++) __builtin_trap();
    if (d->kind == SD_DELTA_ARGUMENTS && d->call != t->calls - 1) __builtin_trap();
    if (!same && !sd_buf_printf(&t->text, "\n%c%d:", "CRFA"[d->kind], d -> call)) __builtin_trap();
    t->any = true, t->kind = d->kind, t->call = d->call;
    if (d->kind == SD_DELTA_CONTENT && !sd_buf_add(&t->content, d->text, d->len)) __builtin_trap();
    return sd_buf_add(&t->text, d->text, d->len);
}

static told parse(const sd_answer_options *o, const char *text, size_t len, uint32_t seed) {
    told t = {.text = sd_buf_make(64 << 20), .content = sd_buf_make(64 << 20)};
    sd_answer_parser *p = NULL;
    sd_error err;
    if (sd_answer_parser_open(&p, o, tell, &t, &err) != SD_OK) __builtin_trap();
    for (size_t at = 0; at < len;) {
        seed = seed * 1664525 + 1013904223;
        size_t n = seed >> 24 < 200 ? 1 + (seed >> 16) % 7 : 1 + (seed >> 8) % 9000;
        if (n > len - at || seed == 0) n = len - at;
        if (!sd_answer_parser_add(p, text + at, n)) __builtin_trap();
        at += n;
    }
    if (!sd_answer_parser_end(p)) __builtin_trap();
    if (sd_answer_parser_calls(p) != t.calls) __builtin_trap();
    sd_answer_parser_close(p);
    return t;
}

static void drop(told *t) {
    sd_buf_free(&t->text);
    sd_buf_free(&t->content);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static json_t *tools;
    if (!tools)
        tools =
            json_pack("[{s:{s:s, s:{s:{s:{s:s}, s:{s:s}}}}}]", "function", "name", "f",
                      "parameters", "properties", "a", "type", "string", "n", "type", "integer");
    if (!tools || size < 2) return 0;
    sd_answer_options o = {.format = (sd_tool_format)(data[0] % SD_TOOL_FORMAT_COUNT),
                           .think = (sd_think_style)(data[0] / 8 % 3),
                           .calls = !(data[0] & 64),
                           .in_reasoning = data[0] & 128,
                           .tools = tools};
    const char *text = (const char *)data + 2;
    told one = parse(&o, text, size - 2, 1), other = parse(&o, text, size - 2, data[1] * 7919u + 3);
    if (one.text.len != other.text.len ||
        (one.text.len && memcmp(one.text.data, other.text.data, one.text.len) != 0))
        __builtin_trap();
    bool plain = o.format != SD_TOOL_HARMONY && o.think == SD_THINK_NONE && one.calls == 0;
    if (plain && (one.content.len != size - 2 ||
                  (size > 2 && memcmp(one.content.data, text, size - 2) != 0)))
        __builtin_trap();
    drop(&one);
    drop(&other);
    return 0;
}
