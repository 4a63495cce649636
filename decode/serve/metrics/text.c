#include "decode/serve/metrics/text.h"

void sd_text_head(sd_metrics_text *t, const char *name, const char *type, const char *help) {
    t->ok = t->ok && sd_buf_printf(t->out, "# HELP %s%s %s\n# TYPE %s%s %s\n", t->prefix, name,
                                   help, t->prefix, name, type);
}

// Backslash, quote and line feed are escaped.
static bool add_label(sd_buf *out, char before, const sd_text_label *label) {
    bool ok = sd_buf_addc(out, before) && sd_buf_printf(out, "%s=\"", label->name);
    for (const char *c = label->value; *c && ok; c++) {
        if (*c == '\n')
            ok = sd_buf_adds(out, "\\n");
        else
            ok = (*c != '"' && *c != '\\') || sd_buf_addc(out, '\\'),
            ok = ok && sd_buf_addc(out, *c);
    }
    return ok && sd_buf_addc(out, '"');
}

void sd_text_line(sd_metrics_text *t, const char *name, double value, const sd_text_label *label,
                  int n_labels) {
    char before = '{';
    t->ok = t->ok && sd_buf_printf(t->out, "%s%s", t->prefix, name);
    if (t->model) {
        t->ok = t->ok && add_label(t->out, before, &(sd_text_label){"model_name", t->model});
        before = ',';
    }
    for (int i = 0; i < n_labels; i++, before = ',')
        t->ok = t->ok && add_label(t->out, before, &label[i]);
    t->ok = t->ok && sd_buf_printf(t->out, "%s %.15g\n", before == ',' ? "}" : "", value);
}

void sd_text_single(sd_metrics_text *t, const char *name, const char *type, const char *help,
                    double value) {
    sd_text_head(t, name, type, help);
    sd_text_line(t, name, value, NULL, 0);
}
