// Expressions: small records over three growing pools, so that building takes few allocations and
// closing none that depends on the shape.
#include "model/grammar/internal.h"

#include "base/list.h"

#include <stdio.h>
#include <string.h>

sd_grammar_builder *sd_grammar_builder_open(void) {
    sd_grammar_builder *b = sd_alloc(1, sizeof *b);
    if (!b) return NULL;
    b->json_string = b->json_char = -1;
    b->steps_left = SD_GRAMMAR_STEPS, b->bytes_left = SD_GRAMMAR_BYTES;
    return b;
}

void sd_grammar_builder_close(sd_grammar_builder *b) {
    if (!b) return;
    sd_gb_set_check(b, (sd_grammar_checker){0});
    for (int i = 0; i < b->n_dfa; i++) sd_dfa_free(b->dfa[i]);
    for (int i = 0; i < b->n_texts; i++) free(b->text[i].pattern), free(b->text[i].format);
    free(b->text);
    free(b->e), free(b->bytes), free(b->num), free(b->rule), free(b->dfa);
    free(b);
}

void sd_gb_set_check(sd_grammar_builder *b, sd_grammar_checker c) {
    if (b->checker.ctx) b->checker.free_ctx(b->checker.ctx);
    b->checker = c;
}

sd_grammar_checker sd_gb_take_check(sd_grammar_builder *b) {
    sd_grammar_checker c = b->checker;
    b->checker = (sd_grammar_checker){0};
    return c;
}

int sd_gb_fail_with(sd_grammar_builder *b, const sd_error *err) {
    if (b->err.status == SD_OK) b->err = *err;
    return -1;
}

int sd_gb_fail(sd_grammar_builder *b, sd_status st, const char *fmt, ...) {
    sd_error err;
    char text[sizeof err.message];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    sd_fail(&err, st, "%s", text);
    return sd_gb_fail_with(b, &err);
}

bool sd_gb_spend(sd_grammar_builder *b, int64_t steps, int64_t bytes) {
    b->steps_left -= steps, b->bytes_left -= bytes;
    if (b->err.status == SD_OK && (b->steps_left < 0 || b->bytes_left < 0))
        sd_gb_fail(b, SD_ELIMIT,
                   "the constraint takes more than %d steps or %d MB to compile; give fewer and "
                   "smaller parts",
                   SD_GRAMMAR_STEPS, SD_GRAMMAR_BYTES >> 20);
    return b->err.status == SD_OK;
}

static int no_memory(sd_grammar_builder *b) {
    return sd_gb_fail(b, SD_ENOMEM, "out of memory for a grammar");
}

static int depth_of(const sd_grammar_builder *b, sd_gexpr_kind kind, int a, int n) {
    int most = 0;
    if (kind == E_REPEAT) most = b->e[a].depth + 1;
    if (kind == E_SEQ || kind == E_ALT)
        for (int i = 0; i < n; i++)
            if (b->e[b->num[a + i]].depth >= most) most = b->e[b->num[a + i]].depth + 1;
    return most;
}

int sd_gb_add(sd_grammar_builder *b, sd_gexpr_kind kind, int a, int c, int d) {
    if (b->err.status) return -1;
    if (b->n >= SD_GRAMMAR_EXPRS)
        return sd_gb_fail(b, SD_ELIMIT, "the grammar has more than %d parts; make it smaller",
                          SD_GRAMMAR_EXPRS);
    if (!SD_GROW(b->e, b->n + 1, b->cap)) return no_memory(b);
    int depth = depth_of(b, kind, a, c);
    if (depth > SD_GRAMMAR_NESTING)
        return sd_gb_fail(b, SD_ELIMIT, "the grammar is nested deeper than %d; use rules",
                          SD_GRAMMAR_NESTING);
    b->e[b->n] = (sd_gexpr){kind, a, c, d, depth};
    return b->n++;
}

// Where `len` bytes now stand in the pool; -1.
static int keep_bytes(sd_grammar_builder *b, const void *bytes, size_t len) {
    if (b->err.status) return -1;
    if (len > SD_GRAMMAR_NODES || b->n_bytes + (int)len > SD_GRAMMAR_NODES)
        return sd_gb_fail(b, SD_ELIMIT, "the grammar's texts have more than %d bytes; shorten them",
                          SD_GRAMMAR_NODES);
    if (!SD_GROW(b->bytes, b->n_bytes + (int)len + 1, b->cap_bytes)) return no_memory(b);
    if (len) memcpy(b->bytes + b->n_bytes, bytes, len);
    b->n_bytes += (int)len;
    return b->n_bytes - (int)len;
}

static int keep_numbers(sd_grammar_builder *b, const int32_t *num, int n) {
    if (b->err.status) return -1;
    if (n > 4 * SD_GRAMMAR_EXPRS - b->n_num)
        return sd_gb_fail(b, SD_ELIMIT, "the grammar has more than %d parts; make it smaller",
                          SD_GRAMMAR_EXPRS);
    if (!SD_GROW(b->num, b->n_num + n + 1, b->cap_num)) return no_memory(b);
    if (n) memcpy(b->num + b->n_num, num, (size_t)n * sizeof *num);
    b->n_num += n;
    return b->n_num - n;
}

int sd_gb_empty(sd_grammar_builder *b) {
    return sd_gb_add(b, E_EMPTY, 0, 0, 0);
}

int sd_gb_literal(sd_grammar_builder *b, const char *bytes, size_t len) {
    int at = keep_bytes(b, bytes, len);
    return at < 0 ? -1 : sd_gb_add(b, E_LITERAL, at, (int)len, 0);
}

int sd_gb_text(sd_grammar_builder *b, const char *text) {
    return sd_gb_literal(b, text, strlen(text));
}

int sd_gb_bytes(sd_grammar_builder *b, const uint32_t set[8]) {
    int at = keep_bytes(b, set, 32);
    return at < 0 ? -1 : sd_gb_add(b, E_CLASS, at, 0, 0);
}

int sd_gb_chars(sd_grammar_builder *b, const int32_t (*range)[2], int n) {
    int at = keep_numbers(b, n ? range[0] : NULL, 2 * n);
    return at < 0 ? -1 : sd_gb_add(b, E_CHARS, at, n, 0);
}

static int combine(sd_grammar_builder *b, sd_gexpr_kind kind, const int *e, int n) {
    if (b->err.status) return -1;
    if (n == 1) return e[0];
    for (int i = 0; i < n; i++)
        if (e[i] < 0 || e[i] >= b->n)
            return sd_gb_fail(b, SD_EINVAL, "part %d of an expression is none", i);
    int at = keep_numbers(b, e, n);
    return at < 0 ? -1 : sd_gb_add(b, kind, at, n, 0);
}

int sd_gb_seq(sd_grammar_builder *b, const int *e, int n) {
    return n == 0 ? sd_gb_empty(b) : combine(b, E_SEQ, e, n);
}

int sd_gb_any_of(sd_grammar_builder *b, const int *e, int n) {
    if (n == 0) return sd_gb_fail(b, SD_EINVAL, "a choice of nothing");
    return combine(b, E_ALT, e, n);
}

int sd_gb_choice(sd_grammar_builder *b, const char *const *text, const size_t *len, int n) {
    if (n == 0) return sd_gb_fail(b, SD_EINVAL, "a choice of nothing");
    if (n > SD_GRAMMAR_CHOICES)
        return sd_gb_fail(b, SD_ELIMIT, "a choice of %d texts; at most %d are possible", n,
                          SD_GRAMMAR_CHOICES);
    int at = -1;
    for (int i = 0; i < n; i++) {
        int32_t pair[2] = {keep_bytes(b, text[i], len[i]), (int32_t)len[i]};
        int here = pair[0] < 0 ? -1 : keep_numbers(b, pair, 2);
        if (here < 0) return -1;
        if (i == 0) at = here;
    }
    return sd_gb_add(b, E_CHOICE, at, n, 0);
}

int sd_gb_repeat(sd_grammar_builder *b, int e, int min, int max) {
    if (b->err.status) return -1;
    if (e < 0 || e >= b->n || min < 0 || (max >= 0 && max < min))
        return sd_gb_fail(b, SD_EINVAL, "a repeat of %d to %d of part %d", min, max, e);
    if (max == 0) return sd_gb_empty(b);
    return sd_gb_add(b, E_REPEAT, e, min, max);
}

int sd_gb_rule(sd_grammar_builder *b) {
    if (b->err.status) return -1;
    if (b->n_rules >= SD_GRAMMAR_EXPRS || !SD_GROW(b->rule, b->n_rules + 1, b->cap_rules))
        return no_memory(b);
    b->rule[b->n_rules] = -1;
    return b->n_rules++;
}

void sd_gb_define(sd_grammar_builder *b, int rule, int e) {
    if (b->err.status) return;
    if (rule < 0 || rule >= b->n_rules || e < 0 || e >= b->n)
        sd_gb_fail(b, SD_EINVAL, "rule %d of %d cannot be part %d", rule, b->n_rules, e);
    else
        b->rule[rule] = e;
}

int sd_gb_ref(sd_grammar_builder *b, int rule) {
    if (b->err.status) return -1;
    if (rule < 0 || rule >= b->n_rules)
        return sd_gb_fail(b, SD_EINVAL, "rule %d of %d does not exist", rule, b->n_rules);
    return sd_gb_add(b, E_RULE, rule, 0, 0);
}

int sd_gb_token(sd_grammar_builder *b, int32_t id) {
    return sd_gb_add(b, E_TOKEN, id, 0, 0);
}

// ---- automata over characters

static bool has_nul(const sd_dfa *d) {
    for (int i = 0; i < d->n; i++)
        if (d->first[i] < d->first[i + 1] && d->edge[d->first[i]].lo == 0) return true;
    return false;
}

// JSON's readers need not take a NUL in a string, so that none is written.
static sd_status without_nul(sd_dfa **d, sd_error *err) {
    sd_status st = SD_OK;
    sd_dfa_maker m = {0};
    sd_dfa *rest = NULL, *both = NULL;
    SD_CHECK_ALLOC(sd_dfa_state(&m, true) && sd_dfa_edge_add(&m, 1, 0x10FFFF, 0), err);
    SD_TRY(sd_dfa_finish(&rest, &m, err));
    SD_TRY(sd_dfa_both(&both, *d, rest, err));
    sd_dfa_free(*d);
    *d = both;
out:
    free(m.first), free(m.edge), free(m.accept);
    sd_dfa_free(rest);
    return st;
}

int sd_gb_dfa(sd_grammar_builder *b, sd_dfa *d, bool json) {
    sd_error err;
    if (!d || b->err.status) {
        sd_dfa_free(d);
        return -1;
    }
    if (json && has_nul(d) && without_nul(&d, &err) != SD_OK) {
        sd_dfa_free(d);
        return sd_gb_fail_with(b, &err);
    }
    if (d->n == 0) {
        sd_dfa_free(d);
        return sd_gb_fail(b, SD_EINVAL, "no text fits the constraint");
    }
    int edges = d->first[d->n];
    bool room = sd_gb_spend(b, SD_DFA_STEPS + d->work + 4 * edges,
                            (int64_t)sizeof *d->edge * edges + 8 * (int64_t)d->n);
    if (!room || !SD_GROW(b->dfa, b->n_dfa + 1, b->cap_dfa)) {
        sd_dfa_free(d);
        return room ? no_memory(b) : -1;
    }
    b->dfa[b->n_dfa++] = d;
    return sd_gb_add(b, E_DFA, b->n_dfa - 1, json, 0);
}

int sd_gb_regex(sd_grammar_builder *b, const char *pattern, size_t len) {
    sd_error err;
    sd_dfa *d = NULL;
    int64_t work;
    if (b->err.status) return -1;
    sd_status st = sd_regex_dfa(&d, pattern, len, true, &work, &err);
    if (st != SD_OK) sd_gb_fail_with(b, &err);
    if (!sd_gb_spend(b, SD_DFA_STEPS + work, 0)) {
        sd_dfa_free(d);
        return -1;
    }
    return sd_gb_dfa(b, d, false);
}

int sd_gb_text_without(sd_grammar_builder *b, const char *text, size_t len) {
    return len == 0 ? sd_gb_empty(b)
                    : sd_gb_free_text(b, &(sd_free_text){.without = &text, .len = &len, .n = 1});
}

int sd_gb_free_text(sd_grammar_builder *b, const sd_free_text *x) {
    sd_error err;
    sd_dfa *d = NULL, *begun = NULL, *both = NULL;
    if (b->err.status) return -1;
    if (sd_dfa_without(&d, x->without, x->len, x->n, &err) != SD_OK)
        return sd_gb_fail_with(b, &err);
    if (x->begun.n_whole + x->begun.n_words == 0) return sd_gb_dfa(b, d, false);
    sd_status st = sd_dfa_not_begun(&begun, &x->begun, &err);
    if (st == SD_OK) st = sd_dfa_both(&both, d, begun, &err);
    sd_dfa_free(d), sd_dfa_free(begun);
    return st == SD_OK ? sd_gb_dfa(b, both, false) : sd_gb_fail_with(b, &err);
}
