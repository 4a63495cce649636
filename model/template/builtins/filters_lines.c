// Filters that lay text out in lines: indent, truncate, and wordwrap as Python's textwrap does it.
#include "model/template/builtins/builtins.h"

#include "base/utf8.h"

#include <utf8proc.h>

static bool text_only(sd_render *r, const sd_value *in, const char *filter) {
    return in->kind == SD_V_STRING ||
           sd_render_fail(r, "%s takes a string, not a %s", filter, sd_kind_name(in));
}

// ---- indent

static bool read_indent(sd_render *r, sd_args *a, sd_str *by, size_t *times) {
    sd_value width = sd_int(4);
    int64_t n;
    sd_arg(a, 0, "width", &width);
    *times = 1;
    *by = width.s;
    if (width.kind == SD_V_STRING) return true;
    if (!sd_small_int(&width, &n)) return sd_render_fail(r, "indent takes a number or a string");
    *by = SD_STR(" ");
    *times = n > 0 ? (size_t)n : 0;
    return true;
}

SD_BUILTIN(filter_indent) {
    sd_str by;
    size_t times;
    bool first = sd_arg_bool(a, 1, "first", false), blank = sd_arg_bool(a, 2, "blank", false);
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    sd_list *lines;
    if (!text_only(r, in, "indent") || !read_indent(r, a, &by, &times) ||
        !sd_split_lines(r, in->s, false, &lines))
        return false;
    // A line end at the text's end counts as one more, empty line; so does an empty text.
    bool more = in->s.n == 0 || in->s.p[in->s.n - 1] == '\n';
    sd_value empty = sd_string("", 0);
    if (more && !sd_list_push(r, lines, &empty)) return false;
    bool ok = true;
    for (size_t i = 0; ok && i < lines->n; i++) {
        sd_str line = lines->item[i].s;
        bool pads = i == 0 ? first : blank || line.n;
        ok = (i == 0 || sd_putc(r, &b, '\n')) && (!pads || sd_put_times(r, &b, by, times)) &&
             sd_put(r, &b, line.p, line.n) && sd_spend(r, 1);
    }
    if (!ok) return sd_drop(r, &b);
    if (!sd_keep(r, &b, out)) return false;
    out->markup = in->markup;
    return true;
}

// ---- truncate

static bool join_end(sd_render *r, sd_str s, sd_str end, sd_value *out) {
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    if (sd_put(r, &b, s.p, s.n) && sd_put(r, &b, end.p, end.n)) return sd_keep(r, &b, out);
    return sd_drop(r, &b);
}

SD_BUILTIN(filter_truncate) {
    int64_t length = 255, leeway = 5, chars;
    sd_str end = SD_STR("...");
    bool kill = sd_arg_bool(a, 1, "killwords", false);
    if (!sd_arg_int(r, a, 0, "length", &length) || !sd_arg_string(r, a, 2, "end", &end) ||
        !sd_arg_int(r, a, 3, "leeway", &leeway) || !sd_length(r, in, &chars))
        return false;
    int64_t keep = length - (int64_t)sd_count_chars(end);
    if (keep < 0 || leeway < 0)
        return sd_render_fail(r, "truncate: the length is below that of the end, or the leeway 0");
    *out = *in;
    if (leeway > INT64_MAX - length || chars <= length + leeway) return true;
    if (!text_only(r, in, "truncate")) return false;
    sd_value bounds[3] = {sd_none(), sd_int(keep), sd_none()}, part;
    if (!sd_slice(r, in, bounds, &part)) return false;
    if (!kill) {
        const char *space = part.s.n ? memrchr(part.s.p, ' ', part.s.n) : NULL;
        if (space) part.s.n = (size_t)(space - part.s.p);
    }
    return join_end(r, part.s, end, out);
}

// ---- wordwrap

typedef struct {
    sd_render *r;
    sd_buf *b;
    sd_str wrap;
    const char *p;
    int32_t *cp;   // [n]
    uint32_t *at;  // [n + 1]: where each begins
    uint32_t *cut; // [cuts + 1]: where each chunk begins
    size_t n, cuts, width;
    bool break_words, break_hyphens, any; // any: a line was written
} wrapper;

static bool is_blank(int32_t c) {
    return c == ' ' || (c >= '\t' && c <= '\r');
}
static bool is_letter(int32_t c) {
    utf8proc_category_t k = utf8proc_category(c);
    return c == '_' || (k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_LO) ||
           k == UTF8PROC_CATEGORY_NL || k == UTF8PROC_CATEGORY_NO;
}
static bool is_word(int32_t c) {
    return is_letter(c) || utf8proc_category(c) == UTF8PROC_CATEGORY_ND;
}
static bool is_word_or_mark(int32_t c) {
    return is_word(c) || (c > 0 && c < 0x80 && strchr("!\"'&.,?", c));
}

// The number of dashes at i where there are two or more and a word follows, else 0.
static size_t dashes(const wrapper *w, size_t i) {
    size_t k = i;
    while (k < w->n && w->cp[k] == '-') k++;
    return k - i >= 2 && k < w->n && is_word(w->cp[k]) ? k - i : 0;
}

// Whether k is a hyphen inside a word, with letters before and behind.
static bool is_hyphen(const wrapper *w, size_t k, size_t start) {
    const int32_t *c = w->cp;
    if (c[k] != '-' || k == start) return false;
    bool before = (k >= 2 && is_letter(c[k - 1]) && is_letter(c[k - 2])) ||
                  (k >= 3 && is_word_or_mark(c[k - 1]) && c[k - 2] == '-' && is_letter(c[k - 3]));
    if (!before || k + 1 >= w->n || !is_letter(c[k + 1])) return false;
    size_t next = k + 2 < w->n && c[k + 2] == '-' ? k + 3 : k + 2;
    return next < w->n && is_letter(c[next]);
}

// The end of the chunk that begins at i. A chunk is white space, a dash, or a word up to a hyphen.
static size_t chunk_end(const wrapper *w, size_t i) {
    size_t k = i;
    if (is_blank(w->cp[i])) {
        while (k < w->n && is_blank(w->cp[k])) k++;
        return k;
    }
    if (w->break_hyphens && i > 0 && is_word_or_mark(w->cp[i - 1]) && dashes(w, i))
        return i + dashes(w, i);
    for (k = i + 1; k < w->n && !is_blank(w->cp[k]); k++) {
        if (!w->break_hyphens) continue;
        if (is_hyphen(w, k, i)) return k + 1;
        if (is_word_or_mark(w->cp[k - 1]) && dashes(w, k)) return k;
    }
    return k;
}

static bool is_white(const wrapper *w, size_t from, size_t to) {
    for (size_t i = from; i < to; i++)
        if (!sd_is_pyspace(w->cp[i])) return false;
    return true;
}

static bool put_line(wrapper *w, size_t from, size_t to) {
    if (from == to) return true;
    if (w->any && !sd_put(w->r, w->b, w->wrap.p, w->wrap.n)) return false;
    w->any = true;
    return sd_put(w->r, w->b, w->p + w->at[from], w->at[to] - w->at[from]);
}

// The number of characters of a chunk longer than a line that go on a line with `left` room.
static size_t piece(const wrapper *w, size_t from, size_t to, size_t left) {
    if (!w->break_hyphens || to - from <= left) return left;
    bool any = false;
    size_t end = left;
    for (size_t i = 0; i < left && i < to - from; i++) {
        bool hyphen = w->cp[from + i] == '-';
        if (hyphen && any) end = i + 1;
        any |= !hyphen;
    }
    return end;
}

static bool wrap_chunks(wrapper *w) {
    size_t c = 0, done = 0; // the next chunk; what of it is on lines already
    while (c < w->cuts) {
        if (!sd_spend(w->r, 1)) return false;
        if (w->any && is_white(w, w->cut[c] + done, w->cut[c + 1])) c++, done = 0;
        if (c == w->cuts) break;
        size_t from = w->cut[c] + done, to = from, last = from;
        while (c < w->cuts && w->cut[c + 1] - from <= w->width) {
            last = w->cut[c] + done;
            to = w->cut[c + 1];
            done = 0;
            c++;
        }
        size_t begin = c < w->cuts ? w->cut[c] + done : to;
        if (c < w->cuts && w->cut[c + 1] - begin > w->width) {
            size_t part = piece(w, begin, w->cut[c + 1], w->width - (to - from));
            if (w->break_words) {
                last = begin;
                to = begin + part;
                done += part;
            } else if (to == from) {
                to = w->cut[++c];
                last = begin;
                done = 0;
            }
        }
        if (to > from && is_white(w, last, to)) to = last;
        if (!put_line(w, from, to)) return false;
    }
    return true;
}

static bool wrap_line(wrapper *w, sd_str line) {
    sd_render *r = w->r;
    w->p = line.p;
    w->n = w->cuts = 0;
    if (!sd_spend(r, line.n / 4)) return false;
    w->cp = sd_render_alloc(r, line.n + 1, sizeof *w->cp);
    w->at = sd_render_alloc(r, line.n + 1, sizeof *w->at);
    w->cut = sd_render_alloc(r, line.n + 1, sizeof *w->cut);
    if (!w->cp || !w->at || !w->cut) return false;
    for (size_t i = 0; i < line.n; w->at[w->n] = (uint32_t)i)
        i += (size_t)sd_utf8_next(line.p + i, line.n - i, &w->cp[w->n++], NULL);
    for (size_t i = 0; i < w->n; w->cut[++w->cuts] = (uint32_t)i) i = chunk_end(w, i);
    return wrap_chunks(w);
}

SD_BUILTIN(filter_wordwrap) {
    int64_t width = 79;
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    wrapper w = {.r = r, .b = &b, .wrap = SD_STR("\n")};
    sd_value wrap = sd_none();
    sd_list *lines;
    if (!text_only(r, in, "wordwrap") || !sd_arg_int(r, a, 0, "width", &width)) return false;
    w.break_words = sd_arg_bool(a, 1, "break_long_words", true);
    if (sd_arg(a, 2, "wrapstring", &wrap) && wrap.kind == SD_V_STRING) w.wrap = wrap.s;
    w.break_hyphens = sd_arg_bool(a, 3, "break_on_hyphens", true);
    if (!sd_split_lines(r, in->s, false, &lines)) return false;
    if (width < 1 && lines->n) return sd_render_fail(r, "wordwrap: the width must be above 0");
    w.width = (size_t)width;
    for (size_t i = 0; i < lines->n; i++) {
        w.any = false;
        if ((i && !sd_put(r, &b, w.wrap.p, w.wrap.n)) || !wrap_line(&w, lines->item[i].s))
            return sd_drop(r, &b);
    }
    return sd_keep(r, &b, out);
}

const sd_builtin_row sd_line_filters[] = {{"indent", filter_indent},
                                          {"truncate", filter_truncate},
                                          {"wordwrap", filter_wordwrap},
                                          {NULL, NULL}};
