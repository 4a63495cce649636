// Jinja's lexer as transformers configures it: trim_blocks (the newline after a block tag goes),
// lstrip_blocks (white space between the line's start and a block tag goes), "-" strips all white
// space on its side, "+" switches either off. One trailing newline of the source is dropped; \r\n
// and \r count as \n.
#include "model/template/syntax/syntax.h"

#include "base/utf8.h"

#include <ctype.h>
#include <errno.h>

typedef struct {
    sd_arena *arena;
    sd_error *err;
    const char *p, *end;
    int line;
    bool line_starting; // the last tag's match ended with a newline
    sd_token *token;
    size_t n, cap;
    sd_status st;
} lexer;

static bool fail(lexer *x, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool fail(lexer *x, const char *fmt, ...) {
    char what[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    x->st = sd_fail(x->err, SD_EFORMAT, "chat template line %d: %s", x->line, what);
    return false;
}

static bool no_memory(lexer *x) {
    x->st = sd_fail(x->err, SD_ENOMEM, "out of memory for the chat template");
    return false;
}

static bool add(lexer *x, sd_token t) {
    if (x->n == x->cap) {
        size_t cap = x->cap ? x->cap * 2 : 256;
        sd_token *p = sd_arena_alloc(x->arena, cap, sizeof *p);
        if (!p) {
            return no_memory(x);
        }
        if (x->n) memcpy(p, x->token, x->n * sizeof *p);
        x->token = p;
        x->cap = cap;
    }
    x->token[x->n++] = t;
    return true;
}

static bool add_kind(lexer *x, sd_token_kind kind) {
    return add(x, (sd_token){.kind = kind, .line = x->line});
}

// Moves on by n bytes and counts their lines.
static void advance(lexer *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (x->p[i] == '\n') x->line++;
    x->p += n;
}

static size_t space_length(const char *p, const char *end) {
    const char *start = p;
    while (p < end) {
        int32_t cp;
        int n = sd_utf8_next(p, (size_t)(end - p), &cp, NULL);
        if (!sd_is_pyspace(cp)) break;
        p += n;
    }
    return (size_t)(p - start);
}

static void skip_space(lexer *x) {
    advance(x, space_length(x->p, x->end));
}

static bool at(const lexer *x, const char *s) {
    size_t n = strlen(s);
    return (size_t)(x->end - x->p) >= n && memcmp(x->p, s, n) == 0;
}

// Adds the text before a tag. The tag's sign and lstrip_blocks may take white space off its end.
static bool add_data(lexer *x, const char *text, size_t len, char sign, bool variable) {
    size_t keep = len;
    if (sign == '-') {
        keep = sd_strip((sd_str){text, len}, false, true, NULL).n;
    } else if (sign != '+' && !variable) {
        const char *newline = memrchr(text, '\n', len);
        size_t from = newline ? (size_t)(newline - text) + 1 : 0;
        if ((from > 0 || x->line_starting) && len > from &&
            space_length(text + from, text + len) == len - from)
            keep = from;
    }
    return keep == 0 ||
           add(x, (sd_token){.kind = SD_T_DATA, .line = x->line, .text = {text, keep}});
}

// The length of a tag's end at p ("%}", "}}" or "#}" with its sign) and of the white space that it
// swallows; 0 when no end stands there.
static size_t end_length(const char *p, const char *end, const char *close, bool block) {
    size_t left = (size_t)(end - p), n = 0;
    char sign = 0;
    if (left && (*p == '-' || (*p == '+' && block))) sign = *p, n = 1;
    if (left < n + 2 || memcmp(p + n, close, 2) != 0) return 0;
    n += 2;
    if (sign == '-')
        n += space_length(p + n, end);
    else if (block && sign != '+' && n < left && p[n] == '\n')
        n++;
    return n;
}

static bool take_end(lexer *x, size_t n) {
    x->line_starting = x->p[n - 1] == '\n';
    advance(x, n);
    return true;
}

static bool comment(lexer *x) {
    if (x->p == x->end) return true; // nothing is left, as Jinja sees it
    for (; x->p < x->end; advance(x, 1)) {
        size_t n = end_length(x->p, x->end, "#}", true);
        if (n) return take_end(x, n);
    }
    return fail(x, "a comment has no end");
}

// The length of "raw" or "endraw" with the tag's end at p, or 0.
static size_t raw_tag(const char *p, const char *end, const char *word, bool trims) {
    const char *start = p;
    size_t n = strlen(word);
    p += space_length(p, end);
    if ((size_t)(end - p) < n || memcmp(p, word, n) != 0) return 0;
    p += n;
    p += space_length(p, end);
    if (!trims && p < end && *p == '+') return 0;
    n = end_length(p, end, "%}", true);
    if (n == 0) return 0;
    if (!trims && p[0] != '-') n = 2; // "raw" keeps the newline behind it
    return (size_t)(p - start) + n;
}

static bool raw(lexer *x) {
    const char *text = x->p;
    if (x->p == x->end) return true;
    for (; x->p < x->end; advance(x, 1)) {
        if (!at(x, "{%")) continue;
        const char *p = x->p + 2;
        char sign = 0;
        if (p < x->end && (*p == '-' || *p == '+')) sign = *p++;
        size_t n = raw_tag(p, x->end, "endraw", true);
        if (n == 0) continue;
        if (!add_data(x, text, (size_t)(x->p - text), sign, false)) return false;
        return take_end(x, (size_t)(p - x->p) + n);
    }
    return fail(x, "raw has no endraw");
}

// ---- inside tags

static bool unescape_code(lexer *x, char *out, size_t *n, const char *p, int digits) {
    int32_t cp = 0;
    for (int i = 0; i < digits; i++) {
        int c = p[i];
        if (!isxdigit((unsigned char)c)) return fail(x, "an escape in a string is not finished");
        cp = cp * 16 + (isdigit(c) ? c - '0' : tolower(c) - 'a' + 10);
        if (cp > 0x10FFFF) return fail(x, "an escape in a string is beyond U+10FFFF");
    }
    if (cp >= 0xD800 && cp < 0xE000) return fail(x, "an escape in a string is a surrogate");
    *n += (size_t)sd_utf8_put(out + *n, cp);
    return true;
}

// Reads an escape: p is at the backslash; *used bytes of source give *n more bytes of out.
static bool unescape(lexer *x, char *out, size_t *n, const char *p, const char *end, size_t *used) {
    static const char from[] = "\\'\"abfnrtv", to[] = "\\'\"\a\b\f\n\r\t\v";
    char c = p[1];
    const char *k = c ? strchr(from, c) : NULL;
    *used = 2;
    if (k) {
        out[(*n)++] = to[k - from];
    } else if (c == '\n') {
        return true; // a continued line
    } else if (c == 'x' || c == 'u' || c == 'U') {
        int digits = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        if (end - p < digits + 2) return fail(x, "an escape in a string is not finished");
        *used = (size_t)digits + 2;
        return unescape_code(x, out, n, p + 2, digits);
    } else if (c >= '0' && c <= '7') {
        int32_t cp = 0;
        size_t i = 1;
        for (; i < 4 && p + i < end && p[i] >= '0' && p[i] <= '7'; i++) cp = cp * 8 + (p[i] - '0');
        *used = i;
        *n += (size_t)sd_utf8_put(out + *n, cp);
    } else if (c == 'N') {
        return fail(x, "names of characters (\\N) are not supported");
    } else { // not an escape: both stay
        out[(*n)++] = '\\';
        *used = 1;
    }
    return true;
}

static bool string(lexer *x) {
    char quote = *x->p;
    const char *start = x->p + 1, *close = start;
    while (close < x->end && *close != quote) close += *close == '\\' ? 2 : 1;
    if (close >= x->end) return fail(x, "a string has no end");
    char *out = sd_arena_alloc(x->arena, (size_t)(close - start) * 2 + 1, 1);
    size_t n = 0, used;
    if (!out) return no_memory(x);
    for (const char *p = start; p < close; p += used) {
        used = 1;
        if (*p != '\\')
            out[n++] = *p;
        else if (!unescape(x, out, &n, p, close, &used))
            return false;
    }
    if (!add(x, (sd_token){.kind = SD_T_STRING, .line = x->line, .text = {out, n}})) return false;
    advance(x, (size_t)(close + 1 - x->p));
    return true;
}

static size_t digits_length(const char *p, const char *end) {
    const char *start = p;
    while (p < end && (isdigit((unsigned char)*p) ||
                       (*p == '_' && p > start && p + 1 < end && isdigit((unsigned char)p[1]))))
        p++;
    return (size_t)(p - start);
}

// The length of a number such as 0x1F, 0o17 or 0b1, 0 when it is none of these.
static size_t prefixed_length(const char *p, const char *end) {
    static const char digits[] = "0123456789abcdef";
    if (end - p < 3 || p[0] != '0') return 0;
    char mark = (char)(p[1] | 0x20);
    size_t base = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0, n = 2;
    while (base && p + n < end) {
        size_t at = n + (p[n] == '_' && p + n + 1 < end);
        const char *d = memchr(digits, tolower((unsigned char)p[at]), base);
        if (!d) break;
        n = at + 1;
    }
    return n > 2 ? n : 0;
}

// The end of a number at p; *real: it has a fraction or an exponent.
static const char *number_end(const lexer *x, bool *real) {
    const char *p = x->p + digits_length(x->p, x->end);
    if (x->p[-1] == '.') return p; // a.0.1
    if (x->end - p > 1 && p[0] == '.' && isdigit((unsigned char)p[1])) {
        p += 1 + digits_length(p + 1, x->end);
        *real = true;
    }
    if (x->end - p > 1 && (*p == 'e' || *p == 'E')) {
        const char *e = p + 1;
        if (*e == '+' || *e == '-') e++;
        if (e < x->end && isdigit((unsigned char)*e)) {
            p = e + digits_length(e, x->end);
            *real = true;
        }
    }
    return p;
}

static bool number(lexer *x) {
    enum { MAX_NUMBER = 40000 };
    bool real = false;
    size_t prefixed = prefixed_length(x->p, x->end), k = 0;
    const char *p = prefixed ? x->p + prefixed : number_end(x, &real);
    if (p - x->p > MAX_NUMBER) return fail(x, "a number is too long");
    char *text = sd_arena_alloc(x->arena, (size_t)(p - x->p) + 1, 1);
    if (!text) return no_memory(x);
    for (const char *q = x->p; q < p; q++)
        if (*q != '_') text[k++] = *q;
    if (!real && !prefixed && k > 1 && text[0] == '0' && strspn(text, "0") != k)
        return fail(x, "the number %.40s begins with 0", text);
    sd_token t = {.kind = real ? SD_T_FLOAT : SD_T_INT, .line = x->line, .text = {text, k}};
    errno = 0;
    if (real)
        t.f = strtod(text, NULL);
    else
        t.i = strtoll(prefixed ? text + 2 : text, NULL,
                      !prefixed                 ? 10
                      : tolower(text[1]) == 'x' ? 16
                      : tolower(text[1]) == 'o' ? 8
                                                : 2);
    t.wide = !real && errno == ERANGE;
    x->p = p;
    return add(x, t);
}

static bool is_name_byte(char c, bool first) {
    unsigned char u = (unsigned char)c;
    return isalpha(u) || u == '_' || u >= 0x80 || (!first && isdigit(u));
}

static bool name(lexer *x) {
    const char *p = x->p;
    while (p < x->end && is_name_byte(*p, p == x->p)) p++;
    sd_token t = {.kind = SD_T_NAME, .line = x->line, .text = {x->p, (size_t)(p - x->p)}};
    x->p = p;
    return add(x, t);
}

static bool operator(lexer *x, char *stack, int *depth) {
    static const char *const two[] = {"//", "**", "==", "!=", ">=", "<="};
    size_t n = 0;
    char c = *x->p;
    for (size_t i = 0; i < sizeof two / sizeof *two; i++)
        if (at(x, two[i])) n = 2;
    if (!n && c && strchr("+-/*%~[](){}><=.:|,;", c)) n = 1;
    if (!n)
        return fail(x, "the character '%c' is not understood", isprint((unsigned char)c) ? c : '?');
    if (n == 1 && strchr("([{", c)) {
        if (*depth == SD_TMPL_MAX_DEPTH) return fail(x, "brackets are nested too deeply");
        stack[(*depth)++] = c == '(' ? ')' : c == '[' ? ']' : '}';
    } else if (n == 1 && strchr(")]}", c)) {
        if (*depth == 0 || stack[*depth - 1] != c) return fail(x, "'%c' closes nothing", c);
        (*depth)--;
    }
    sd_token t = {.kind = SD_T_OP, .line = x->line, .text = {x->p, n}};
    x->p += n;
    return add(x, t);
}

// Reads the tokens between a tag's begin and its end.
static bool inside(lexer *x, const char *close, sd_token_kind end_kind) {
    char stack[SD_TMPL_MAX_DEPTH];
    int depth = 0;
    bool block = end_kind == SD_T_BLOCK_END;
    for (;;) {
        skip_space(x);
        if (x->p >= x->end) return fail(x, "a tag has no end");
        size_t n = depth ? 0 : end_length(x->p, x->end, close, block);
        if (n) return add_kind(x, end_kind) && take_end(x, n);
        char c = *x->p;
        bool ok = isdigit((unsigned char)c) ? number(x)
                  : is_name_byte(c, true)   ? name(x)
                  : c == '\'' || c == '"'   ? string(x)
                                            :
                                          operator(x, stack, &depth);
        if (!ok) return false;
    }
}

static bool tag(lexer *x, const char *text) {
    char which = x->p[1], sign = 0;
    const char *p = x->p + 2;
    size_t before = (size_t)(x->p - text);
    if (p < x->end && (*p == '-' || *p == '+')) sign = *p++;
    if (!add_data(x, text, before, sign, which == '{')) return false;
    size_t n = which == '%' ? raw_tag(p, x->end, "raw", false) : 0;
    if (n) {
        take_end(x, (size_t)(p - x->p) + n);
        return raw(x);
    }
    advance(x, (size_t)(p - x->p));
    x->line_starting = false;
    if (which == '#') return comment(x);
    return add_kind(x, which == '%' ? SD_T_BLOCK_BEGIN : SD_T_VAR_BEGIN) &&
           inside(x, which == '%' ? "%}" : "}}", which == '%' ? SD_T_BLOCK_END : SD_T_VAR_END);
}

static bool run(lexer *x) {
    x->line_starting = true;
    while (x->p < x->end) {
        const char *text = x->p;
        while (x->p < x->end &&
               !(x->p + 1 < x->end && x->p[0] == '{' && strchr("%{#", x->p[1]) && x->p[1]))
            advance(x, 1);
        if (x->p < x->end) {
            if (!tag(x, text)) return false;
        } else if (!add(x, (sd_token){.kind = SD_T_DATA,
                                      .line = x->line,
                                      .text = {text, (size_t)(x->p - text)}})) {
            return false;
        }
    }
    return add_kind(x, SD_T_EOF);
}

sd_status sd_template_lex(sd_token **tokens, size_t *n, sd_arena *arena, const char *source,
                          size_t len, sd_error *err) {
    char *text = sd_arena_alloc(arena, len + 2, 1);
    size_t k = 1; // one byte before the text, so that p[-1] is always there
    if (!text) return sd_fail(err, SD_ENOMEM, "out of memory for the chat template");
    for (size_t i = 0; i < len; i++) {
        if (source[i] == '\r') {
            if (i + 1 < len && source[i + 1] == '\n') continue;
            text[k++] = '\n';
        } else {
            text[k++] = source[i];
        }
    }
    if (k > 1 && text[k - 1] == '\n') k--;
    lexer x = {.arena = arena, .err = err, .p = text + 1, .end = text + k, .line = 1};
    if (!run(&x)) return x.st == SD_OK ? SD_EFORMAT : x.st;
    *tokens = x.token;
    *n = x.n;
    return SD_OK;
}
