// Texts: built under the rendering's account, measured, searched and stripped.
#include "model/template/value/value.h"

#include "base/utf8.h"

#include <utf8proc.h>

// ---- being built

bool sd_put(sd_render *r, sd_buf *b, const char *p, size_t n) {
    size_t before = b->cap;
    if (n > b->max || b->len > b->max - n) return sd_render_limit(r, "output");
    size_t need = b->len + n + 1, grown = before * 2 > need ? before * 2 : need;
    if (need >= before && !sd_reserve_memory(r, 2 * (grown - before))) return false;
    if (!sd_spend_bytes(r, n)) return false;
    if (!sd_buf_add(b, p, n)) return sd_out_of_memory(r);
    r->held += b->cap - before;
    return true;
}

bool sd_puts(sd_render *r, sd_buf *b, const char *s) {
    return sd_put(r, b, s, strlen(s));
}

bool sd_putc(sd_render *r, sd_buf *b, char c) {
    return sd_put(r, b, &c, 1);
}

bool sd_put_times(sd_render *r, sd_buf *b, sd_str s, size_t times) {
    size_t total;
    if (!sd_mul_size(&total, s.n, times) || total > b->max) return sd_render_limit(r, "memory");
    if (!sd_spend_bytes(r, total)) return false; // before the first of them is written
    for (size_t i = 0; s.n && i < times; i++)
        if (!sd_put(r, b, s.p, s.n)) return false;
    return true;
}

bool sd_drop(sd_render *r, sd_buf *b) {
    r->held -= b->cap;
    sd_buf_free(b);
    return false;
}

bool sd_keep(sd_render *r, sd_buf *b, sd_value *out) {
    char *p = sd_render_alloc(r, b->len + 1, 1);
    if (!p) return sd_drop(r, b);
    if (b->len) memcpy(p, b->data, b->len);
    *out = sd_string(p, b->len);
    sd_drop(r, b);
    return true;
}

bool sd_write(sd_render *r, const char *p, size_t n) {
    return sd_put(r, r->out, p, n);
}

// ---- characters

size_t sd_count_chars(sd_str s) {
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) n += ((unsigned char)s.p[i] & 0xC0) != 0x80;
    return n;
}

bool sd_is_pyspace(int32_t cp) {
    return (cp >= 9 && cp <= 13) || (cp >= 0x1C && cp <= 0x20) || cp == 0x85 || cp == 0xA0 ||
           cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200A) || cp == 0x2028 || cp == 0x2029 ||
           cp == 0x202F || cp == 0x205F || cp == 0x3000;
}

bool sd_is_printable(int32_t cp) {
    utf8proc_category_t c = utf8proc_category(cp);
    return cp == ' ' ||
           !(c == UTF8PROC_CATEGORY_CN || c == UTF8PROC_CATEGORY_CC || c == UTF8PROC_CATEGORY_CF ||
             c == UTF8PROC_CATEGORY_CS || c == UTF8PROC_CATEGORY_CO || c == UTF8PROC_CATEGORY_ZL ||
             c == UTF8PROC_CATEGORY_ZP || c == UTF8PROC_CATEGORY_ZS);
}

static bool is_stripped(int32_t cp, const sd_str *chars) {
    if (!chars) return sd_is_pyspace(cp);
    for (size_t i = 0; i < chars->n;) {
        int32_t c;
        i += (size_t)sd_utf8_next(chars->p + i, chars->n - i, &c, NULL);
        if (c == cp) return true;
    }
    return false;
}

sd_str sd_strip(sd_str s, bool left, bool right, const sd_str *chars) {
    int32_t cp;
    while (left && s.n) {
        size_t n = (size_t)sd_utf8_next(s.p, s.n, &cp, NULL);
        if (!is_stripped(cp, chars)) break;
        s.p += n;
        s.n -= n;
    }
    while (right && s.n) {
        size_t i = sd_utf8_back(s.p, s.n);
        sd_utf8_next(s.p + i, s.n - i, &cp, NULL);
        if (!is_stripped(cp, chars)) break;
        s.n = i;
    }
    return s;
}

// ---- searching

const char *sd_search(sd_str in, sd_str what) {
    if (what.n == 0) return in.p;
    return in.n < what.n ? NULL : memmem(in.p, in.n, what.p, what.n);
}

bool sd_spend_reverse_search(sd_render *r, sd_str in, sd_str what) {
    return sd_spend(r, (1 + in.n / SD_TMPL_SEARCH) * (1 + what.n / SD_TMPL_BYTES_A_STEP));
}

bool sd_search_last(sd_render *r, sd_str in, sd_str what, const char **out) {
    *out = NULL;
    if (what.n > in.n) return true;
    if (!sd_spend_reverse_search(r, in, what)) return false;
    for (size_t i = in.n - what.n + 1; i-- > 0 && !*out;)
        if (what.n == 0 || memcmp(in.p + i, what.p, what.n) == 0) *out = in.p + i;
    return true;
}
