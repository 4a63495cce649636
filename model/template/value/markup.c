// Markup is text that counts as escaped; the filters escape and safe make it. Chat templates run
// without automatic escaping, yet text that is joined to a Markup is escaped, as in markupsafe.
#include "model/template/value/value.h"

bool sd_escape(sd_render *r, sd_buf *b, sd_str s) {
    static const struct {
        char c;
        const char *text;
    } rows[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&#34;"}, {'\'', "&#39;"}};
    size_t from = 0;
    if (!sd_spend(r, s.n / SD_TMPL_SEARCH)) return false;
    for (size_t i = 0; i < s.n; i++) {
        const char *as = NULL;
        for (size_t k = 0; k < sizeof rows / sizeof *rows; k++)
            if (rows[k].c == s.p[i]) as = rows[k].text;
        if (!as) continue;
        if (!sd_put(r, b, s.p + from, i - from) || !sd_puts(r, b, as)) return false;
        from = i + 1;
    }
    return sd_put(r, b, s.p + from, s.n - from);
}

bool sd_escaped_text(sd_render *r, const sd_value *v, sd_str *out) {
    sd_buf b = sd_buf_make(SD_TMPL_MAX_OUTPUT);
    sd_value kept;
    if (!sd_text_of(r, v, out) || (v->kind == SD_V_STRING && v->markup)) return r->status == SD_OK;
    if (!sd_escape(r, &b, *out)) return sd_drop(r, &b);
    if (!sd_keep(r, &b, &kept)) return false;
    *out = kept.s;
    return true;
}
