// Python's pprint.pformat with its 80 columns. A value that fits a line stands on it; otherwise each
// element has a line of its own, and a long string is cut between words.
#include "model/template/value/value.h"

#include "base/utf8.h"

enum { COLUMNS = 80, MAX_NESTING = 300 };

typedef struct {
    sd_render *r;
    sd_buf *b;
} printer;

static bool format(printer *p, const sd_value *v, int64_t indent, int64_t allowance, int level);

static bool sorted_members(sd_render *r, const sd_dict *d, sd_keyed **out) {
    sd_keyed *k = *out = sd_render_alloc(r, d->n, sizeof *k);
    if (!k) return false;
    for (size_t i = 0; i < d->n; i++) k[i] = (sd_keyed){d->key[i], d->value[i]};
    // Keys of several types have no order; they keep theirs.
    for (size_t i = 1; i < d->n; i++)
        if (k[i].key.kind != k[0].key.kind) return true;
    return sd_sort(r, k, d->n, false);
}

// repr(v) with every dict's keys in order.
static bool put_repr(printer *p, const sd_value *v, int depth) {
    sd_render *r = p->r;
    if (depth > MAX_NESTING) return sd_render_limit(r, "depth");
    if (v->kind != SD_V_DICT && !sd_is_sequence(v)) return sd_to_text(r, v, p->b, true, 0);
    bool dict = v->kind == SD_V_DICT, tuple = v->kind == SD_V_TUPLE;
    size_t n = dict ? v->dict->n : v->list->n;
    sd_keyed *k = NULL;
    if (!sd_spend(r, 1) || (dict && !sorted_members(r, v->dict, &k))) return false;
    bool ok = sd_putc(r, p->b, dict ? '{' : tuple ? '(' : '[');
    for (size_t i = 0; ok && i < n; i++) {
        ok = i == 0 || sd_puts(r, p->b, ", ");
        if (dict)
            ok = ok && put_repr(p, &k[i].key, depth + 1) && sd_puts(r, p->b, ": ") &&
                 put_repr(p, &k[i].item, depth + 1);
        else
            ok = ok && put_repr(p, &v->list->item[i], depth + 1);
    }
    if (ok && tuple && n == 1) ok = sd_putc(r, p->b, ',');
    return ok && sd_putc(r, p->b, dict ? '}' : tuple ? ')' : ']');
}

static bool repr_of(sd_render *r, const sd_value *v, sd_str *out) {
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    printer p = {r, &b};
    sd_value kept;
    if (!put_repr(&p, v, 0)) return sd_drop(r, &b);
    if (!sd_keep(r, &b, &kept)) return false;
    *out = kept.s;
    return true;
}

static bool new_line(printer *p, int64_t indent) {
    return sd_putc(p->r, p->b, '\n') && sd_put_times(p->r, p->b, SD_STR(" "), (size_t)indent);
}

static bool put_members(printer *p, const sd_dict *d, int64_t indent, int64_t allowance,
                        int level) {
    sd_keyed *k;
    if (!sorted_members(p->r, d, &k)) return false;
    for (size_t i = 0; i < d->n; i++) {
        bool last = i + 1 == d->n;
        sd_str key;
        if (!repr_of(p->r, &k[i].key, &key) || !sd_put(p->r, p->b, key.p, key.n) ||
            !sd_puts(p->r, p->b, ": ") ||
            !format(p, &k[i].item, indent + (int64_t)sd_count_chars(key) + 2, last ? allowance : 1,
                    level))
            return false;
        if (!last && (!sd_putc(p->r, p->b, ',') || !new_line(p, indent))) return false;
    }
    return true;
}

static bool put_items(printer *p, const sd_list *l, int64_t indent, int64_t allowance, int level) {
    for (size_t i = 0; i < l->n; i++) {
        bool last = i + 1 == l->n;
        if (i && (!sd_putc(p->r, p->b, ',') || !new_line(p, indent))) return false;
        if (!format(p, &l->item[i], indent, last ? allowance : 1, level)) return false;
    }
    return true;
}

// ---- strings

typedef struct {
    sd_list *chunks; // their reprs
    int64_t width;   // of a line
    int64_t allowance;
} cutter;

static bool push_repr(sd_render *r, cutter *c, sd_str s) {
    sd_value v = sd_string(s.p, s.n), text = {.kind = SD_V_STRING};
    return repr_of(r, &v, &text.s) && sd_list_push(r, c->chunks, &text);
}

static bool fits(sd_render *r, sd_str s, int64_t width, bool *out) {
    sd_value v = sd_string(s.p, s.n);
    sd_str repr;
    if ((int64_t)s.n > 8 * COLUMNS) { // characters have at most four bytes
        *out = false;
        return true;
    }
    if (!repr_of(r, &v, &repr)) return false;
    *out = (int64_t)sd_count_chars(repr) <= width;
    return true;
}

// The end of the word at i and of the white space behind it.
static size_t word_end(sd_str s, size_t i) {
    bool space = false;
    while (i < s.n) {
        int32_t cp;
        size_t n = (size_t)sd_utf8_next(s.p + i, s.n - i, &cp, NULL);
        bool white = sd_is_pyspace(cp);
        if (space && !white) break;
        space = white;
        i += n;
    }
    return i;
}

static bool cut_line(sd_render *r, cutter *c, sd_str line, bool last_line) {
    bool ok;
    if (!fits(r, line, c->width - (last_line ? c->allowance : 0), &ok)) return false;
    if (ok) return push_repr(r, c, line);
    size_t from = 0;
    for (size_t i = 0, end; i < line.n; i = end) {
        end = word_end(line, i);
        int64_t width = c->width - (end == line.n && last_line ? c->allowance : 0);
        if (!fits(r, (sd_str){line.p + from, end - from}, width, &ok)) return false;
        if (ok) continue;
        if (i > from && !push_repr(r, c, (sd_str){line.p + from, i - from})) return false;
        from = i;
    }
    return from == line.n || push_repr(r, c, (sd_str){line.p + from, line.n - from});
}

static bool put_string(printer *p, const sd_value *v, int64_t indent, int64_t allowance,
                       int level) {
    sd_list *lines;
    sd_render *r = p->r;
    bool top = level == 1;
    if (v->s.n == 0) return sd_puts(r, p->b, "''");
    if (top) indent++, allowance++;
    cutter c = {.chunks = sd_list_make(r, 0), .width = COLUMNS - indent, .allowance = allowance};
    if (!c.chunks || !sd_split_lines(r, v->s, true, &lines)) return false;
    for (size_t i = 0; i < lines->n; i++)
        if (!cut_line(r, &c, lines->item[i].s, i + 1 == lines->n)) return false;
    bool several = c.chunks->n > 1;
    if (several && top && !sd_putc(r, p->b, '(')) return false;
    for (size_t i = 0; i < c.chunks->n; i++) {
        if (i && !new_line(p, indent)) return false;
        if (!sd_put(r, p->b, c.chunks->item[i].s.p, c.chunks->item[i].s.n)) return false;
    }
    return !several || !top || sd_putc(r, p->b, ')');
}

// ----

static bool format(printer *p, const sd_value *v, int64_t indent, int64_t allowance, int level) {
    sd_str repr;
    if (level > MAX_NESTING) return sd_render_limit(p->r, "depth");
    if (!repr_of(p->r, v, &repr)) return false;
    bool parts = v->kind == SD_V_DICT || sd_is_sequence(v);
    bool text = v->kind == SD_V_STRING && !v->markup;
    if ((int64_t)sd_count_chars(repr) <= COLUMNS - indent - allowance || (!parts && !text))
        return sd_put(p->r, p->b, repr.p, repr.n);
    if (text) return put_string(p, v, indent, allowance, level + 1);
    bool single = v->kind == SD_V_TUPLE && v->list->n == 1;
    const char *end = v->kind == SD_V_DICT ? "}" : v->kind == SD_V_LIST ? "]" : single ? ",)" : ")";
    allowance += single ? 2 : 1;
    return sd_putc(p->r, p->b, repr.p[0]) &&
           (v->kind == SD_V_DICT ? put_members(p, v->dict, indent + 1, allowance, level + 1)
                                 : put_items(p, v->list, indent + 1, allowance, level + 1)) &&
           sd_puts(p->r, p->b, end);
}

bool sd_put_pretty(sd_render *r, sd_buf *b, const sd_value *v) {
    printer p = {r, b};
    return format(&p, v, 0, 0, 0);
}
