// From text to words: a chain of steps, each cutting the pieces of the one before it. A piece goes
// down the chain as soon as it is known, so nothing is stored; a piece that leaves the last step is
// a word for BPE. A step sees only its piece: a lookahead ends where the piece ends, as in Hugging
// Face's tokenizers.
//
// PCRE2 with JIT. The text is known to be valid UTF-8, so the check that PCRE2 would repeat at each
// match (quadratic over a long text) is off.
#include "model/tokenizer/internal.h"

#include "base/utf8.h"

#include <string.h>

enum { MAX_PATTERN = 1 << 16, JIT_STACK_MAX = 8 << 20, MATCH_LIMIT_BASE = 100000 };

sd_status sd_tokenizer_add_step(sd_tokenizer *t, sd_split_step step, sd_error *err) {
    if (t->n_steps == SD_TOK_MAX_STEPS)
        return sd_fail(err, SD_EFORMAT, "the pre-tokeniser has more than %d steps; check the file",
                       SD_TOK_MAX_STEPS);
    t->step[t->n_steps++] = step;
    return SD_OK;
}

sd_status sd_tokenizer_add_regex(sd_tokenizer *t, const char *pattern, size_t len, bool literal,
                                 sd_split_behaviour behaviour, bool invert, sd_error *err) {
    sd_status st = SD_OK;
    sd_buf text = sd_buf_make(MAX_PATTERN);
    pcre2_compile_context *cc = pcre2_compile_context_create(NULL);
    pcre2_code *code = NULL;
    int number = 0;
    PCRE2_SIZE at = 0;
    SD_CHECK_ALLOC(cc, err);
    SD_CHECK(len > 0 && len <= MAX_PATTERN / 16, err, SD_EFORMAT,
             "a pre-tokeniser's pattern has %zu bytes, 1 to %d are supported; check the file", len,
             MAX_PATTERN / 16);
    if (literal)
        SD_CHECK_ALLOC(sd_buf_add(&text, pattern, len), err);
    else
        SD_TRY(sd_regex_translate(&text, pattern, len, err));
    // Oniguruma's Ruby syntax: ^ and $ match at lines.
    uint32_t options = PCRE2_UTF | (literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_MULTILINE);
    pcre2_set_newline(cc, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(cc, 100);
    code = pcre2_compile((PCRE2_SPTR)text.data, text.len, options, &number, &at, cc);
    SD_CHECK(code || number != PCRE2_ERROR_HEAP_FAILED, err, SD_ENOMEM, "out of memory");
    if (!code) {
        char why[128];
        pcre2_get_error_message(number, (PCRE2_UCHAR *)why, sizeof why);
        st =
            sd_fail(err, SD_EFORMAT, "the pre-tokeniser's pattern \"%.200s\" is not understood: %s",
                    text.data, why);
        goto out;
    }
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE); // without JIT the interpreter matches
    SD_TRY(sd_tokenizer_add_step(
        t, (sd_split_step){SD_STEP_REGEX, .behaviour = behaviour, .invert = invert, .code = code},
        err));
    code = NULL;
out:
    pcre2_code_free(code);
    pcre2_compile_context_free(cc);
    sd_buf_free(&text);
    return st;
}

sd_status sd_encoder_open(sd_encoder *e, const sd_tokenizer *t, sd_ids *out, sd_error *err) {
    sd_status st = SD_OK;
    *e = (sd_encoder){.t = t, .out = out};
    e->match = pcre2_match_data_create(1, NULL);
    e->context = pcre2_match_context_create(NULL);
    SD_CHECK_ALLOC(e->match && e->context, err);
out:
    return st;
}

void sd_encoder_close(sd_encoder *e) {
    pcre2_match_data_free(e->match);
    pcre2_match_context_free(e->context);
    pcre2_jit_stack_free(e->stack);
    sd_bpe_scratch_free(&e->scratch);
    *e = (sd_encoder){0};
}

static sd_status run_step(sd_encoder *e, int step, const char *text, size_t len);

// ---- spans that a step found become pieces

typedef struct {
    sd_encoder *e;
    int step; // the cutting one; pieces go to the next
    const char *text;
    size_t start, end; // the piece that waits for its neighbour
    bool waits, waits_match;
} cutter;

static sd_status flush(cutter *c) {
    if (!c->waits) return SD_OK;
    c->waits = false;
    return c->end > c->start ? run_step(c->e, c->step + 1, c->text + c->start, c->end - c->start)
                             : SD_OK;
}

static sd_status span(cutter *c, size_t start, size_t end, bool match) {
    const sd_split_step *s = &c->e->t->step[c->step];
    bool join = false;
    sd_status st = SD_OK;
    match ^= s->invert;
    switch (s->behaviour) {
    case SD_SPLIT_REMOVED:
        if (match) return SD_OK;
        break;
    case SD_SPLIT_ISOLATED:
        break;
    case SD_SPLIT_PREVIOUS:
        join = match && !c->waits_match;
        break;
    case SD_SPLIT_NEXT:
        join = !match && c->waits_match;
        break;
    case SD_SPLIT_CONTIGUOUS:
        join = match == c->waits_match;
        break;
    }
    if (c->waits && join) {
        c->end = end;
    } else {
        SD_TRY(flush(c));
        c->start = start;
        c->end = end;
        c->waits = true;
    }
    c->waits_match = match;
out:
    return st;
}

// ---- the steps

// Finds the next match at or after `from`. *found false: none.
static sd_status find(sd_encoder *e, const pcre2_code *code, const char *text, size_t len,
                      size_t from, bool *found, sd_error *err) {
    sd_status st = SD_OK;
    int rc =
        pcre2_match(code, (PCRE2_SPTR)text, len, from, PCRE2_NO_UTF_CHECK, e->match, e->context);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT && !e->stack) {
        e->stack = pcre2_jit_stack_create(32 << 10, JIT_STACK_MAX, NULL);
        SD_CHECK_ALLOC(e->stack, err);
        pcre2_jit_stack_assign(e->context, NULL, e->stack);
        rc = pcre2_match(code, (PCRE2_SPTR)text, len, from, PCRE2_NO_UTF_CHECK, e->match,
                         e->context);
    }
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(code, (PCRE2_SPTR)text, len, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT,
                         e->match, e->context);
    SD_CHECK(rc != PCRE2_ERROR_NOMEMORY, err, SD_ENOMEM, "out of memory");
    SD_CHECK(
        rc >= 0 || rc == PCRE2_ERROR_NOMATCH, err, SD_ELIMIT,
        "the pre-tokeniser's pattern needs too many steps at byte %zu of the text (PCRE2 error "
        "%d); split the text",
        from, rc);
    *found = rc >= 0;
out:
    return st;
}

static sd_status cut_by_regex(cutter *c, const char *text, size_t len, sd_error *err) {
    sd_encoder *e = c->e;
    const pcre2_code *code = e->t->step[c->step].code;
    sd_status st = SD_OK;
    size_t done = 0, from = 0; // everything before `done` was handed on
    while (from <= len) {
        bool found = false;
        SD_TRY(find(e, code, text, len, from, &found, err));
        if (!found) break;
        const PCRE2_SIZE *o = pcre2_get_ovector_pointer(e->match);
        size_t a = o[0], b = o[1];
        if (b < a || a < done) break; // \K in a lookahead
        if (a > done) SD_TRY(span(c, done, a, false));
        if (b > a) SD_TRY(span(c, a, b, true));
        done = from = b;
        if (b == a) { // an empty match: on by one character
            int32_t cp;
            from += a < len ? (size_t)sd_utf8_next(text + a, len - a, &cp, NULL) : 1;
        }
    }
    if (done < len) SD_TRY(span(c, done, len, false));
out:
    return st;
}

static sd_status cut_by_digits(cutter *c, const char *text, size_t len) {
    sd_status st = SD_OK;
    size_t plain = 0; // start of the run without digits
    for (size_t i = 0; i < len;) {
        int32_t cp;
        size_t n = (size_t)sd_utf8_next(text + i, len - i, &cp, NULL);
        if (sd_is_numeric(cp)) {
            if (i > plain) SD_TRY(span(c, plain, i, false));
            SD_TRY(span(c, i, i + n, true));
            plain = i + n;
        }
        i += n;
    }
    if (len > plain) SD_TRY(span(c, plain, len, false));
out:
    return st;
}

static sd_status with_prefix(sd_encoder *e, int step, const char *text, size_t len, sd_error *err) {
    sd_status st = SD_OK;
    if (text[0] == ' ') return run_step(e, step + 1, text, len);
    char *copy = sd_malloc_marked(len + 1);
    SD_CHECK_ALLOC(copy, err);
    copy[0] = ' ';
    memcpy(copy + 1, text, len);
    st = run_step(e, step + 1, copy, len + 1);
out:
    free(copy);
    return st;
}

static sd_status run_step(sd_encoder *e, int step, const char *text, size_t len) {
    const sd_tokenizer *t = e->t;
    sd_status st = SD_OK;
    if (step == t->n_steps) return sd_bpe_word(&t->bpe, text, len, &e->scratch, e->out, e->err);
    cutter c = {.e = e, .step = step, .text = text};
    switch (t->step[step].kind) {
    case SD_STEP_PREFIX:
        return with_prefix(e, step, text, len, e->err);
    case SD_STEP_REGEX:
        SD_TRY(cut_by_regex(&c, text, len, e->err));
        break;
    case SD_STEP_DIGITS:
        SD_TRY(cut_by_digits(&c, text, len));
        break;
    }
    SD_TRY(flush(&c));
out:
    return st;
}

sd_status sd_encoder_text(sd_encoder *e, const char *text, size_t len, sd_error *err) {
    if (len == 0) return SD_OK;
    e->err = err;
    pcre2_set_match_limit(e->context, MATCH_LIMIT_BASE + (uint32_t)len * 8);
    return run_step(e, 0, text, len);
}
