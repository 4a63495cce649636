// The functions that templates find by their names: Jinja's and those of transformers.
#include "model/template/builtins/builtins.h"

#include <stdio.h>
#include <time.h>

enum { MAX_RANGE = 100000 }; // as the sandbox has it

static bool call_raise(sd_render *r, sd_args *a, sd_value *out) {
    sd_str text = {0};
    (void)out;
    if (a->n < 1 || !sd_text_of(r, &a->item[0], &text)) text = SD_STR("the template refuses this");
    r->status = sd_fail(r->err, SD_EINVAL, "%.*s", (int)(text.n < 900 ? text.n : 900), text.p);
    return false;
}

static bool put_pair(sd_render *r, sd_dict *d, const sd_value *pair) {
    sd_list *l;
    if (!sd_iterate(r, pair, &l)) return false;
    if (l->n != 2) return sd_render_fail(r, "a dict is made of pairs");
    return sd_dict_put(r, d, &l->item[0], &l->item[1]);
}

// dict(mapping or pairs, name=value, ...)
static bool call_dict(sd_render *r, sd_args *a, sd_value *out) {
    sd_dict *d = sd_dict_make(r, 4);
    sd_list *l;
    if (!d) return false;
    a->used = UINT64_MAX;
    if (a->n > 1) return sd_render_fail(r, "dict takes one mapping, and names with values");
    if (a->n && a->item[0].kind == SD_V_DICT) {
        const sd_dict *from = a->item[0].dict;
        for (size_t k = 0; k < from->n; k++)
            if (!sd_dict_put(r, d, &from->key[k], &from->value[k])) return false;
    } else if (a->n) {
        if (!sd_iterate(r, &a->item[0], &l)) return false;
        for (size_t i = 0; i < l->n; i++)
            if (!put_pair(r, d, &l->item[i])) return false;
    }
    for (int i = 0; i < a->n_named; i++) {
        sd_value key = sd_string(a->name[i].p, a->name[i].n);
        if (!sd_dict_put(r, d, &key, &a->named[i])) return false;
    }
    *out = sd_dict_value(d);
    return true;
}

static bool call_namespace(sd_render *r, sd_args *a, sd_value *out) {
    if (!call_dict(r, a, out)) return false;
    for (size_t i = 0; i < out->dict->n; i++) {
        const sd_value *k = &out->dict->key[i];
        if (k->kind == SD_V_STRING && k->s.n && k->s.p[0] == '_')
            return sd_render_fail(r, "a namespace has no name that begins with _");
    }
    out->kind = SD_V_NAMESPACE;
    return true;
}

static bool call_range(sd_render *r, sd_args *a, sd_value *out) {
    int64_t bound[3] = {0, 0, 1};
    if (a->n < 1 || a->n > 3) return sd_render_fail(r, "range takes one to three numbers");
    a->asked = 3;
    for (int i = 0; i < a->n; i++) {
        int64_t *to = &bound[a->n == 1 ? 1 : i];
        if (!sd_is_int(&a->item[i]))
            return sd_render_fail(r, "range takes whole numbers, not a %s",
                                  sd_kind_name(&a->item[i]));
        if (!sd_small_int(&a->item[i], to) || *to > INT64_MAX / 4 || *to < -(INT64_MAX / 4))
            return sd_render_fail(r, "range: more than %d numbers", MAX_RANGE);
    }
    if (bound[2] == 0) return sd_render_fail(r, "range: the step cannot be 0");
    int64_t step = bound[2], span = step > 0 ? bound[1] - bound[0] : bound[0] - bound[1];
    int64_t n = span > 0 ? (span - 1) / (step > 0 ? step : -step) + 1 : 0;
    if (n > MAX_RANGE) return sd_render_fail(r, "range: more than %d numbers", MAX_RANGE);
    sd_range *g = sd_render_alloc(r, 1, sizeof *g);
    if (!g) return false;
    *g = (sd_range){.from = bound[0], .to = bound[1], .step = step, .n = (size_t)n};
    *out = (sd_value){.kind = SD_V_RANGE, .range = g};
    return true;
}

static bool make_cycle(sd_render *r, sd_value_kind kind, const sd_value *items, size_t n,
                       sd_value *out) {
    sd_cycle *t = sd_render_alloc(r, 1, sizeof *t);
    if (!t || !(t->items = sd_list_make(r, n))) return false;
    for (size_t i = 0; i < n; i++)
        if (!sd_list_push(r, t->items, &items[i])) return false;
    *out = (sd_value){.kind = kind, .cycle = t};
    return true;
}

static bool call_cycler(sd_render *r, sd_args *a, sd_value *out) {
    if (a->n < 1) return sd_render_fail(r, "cycler takes values");
    a->asked = a->n;
    return make_cycle(r, SD_V_CYCLER, a->item, (size_t)a->n, out);
}

static bool call_joiner(sd_render *r, sd_args *a, sd_value *out) {
    sd_value separator = sd_string(", ", 2);
    sd_arg(a, 0, "sep", &separator);
    return make_cycle(r, SD_V_JOINER, &separator, 1, out);
}

static bool call_lipsum(sd_render *r, sd_args *a, sd_value *out) {
    (void)a, (void)out;
    return sd_render_fail(r, "lipsum makes random text, which no prompt wants");
}

// transformers calls Python's datetime.now().strftime. The C library's strftime does the same, but
// for %z and %Z, which are empty for a time without a zone, and for %f, microseconds.
static bool python_format(char *out, size_t cap, sd_str format, long us) {
    size_t n = 0;
    for (size_t i = 0; i < format.n; i++) {
        if (n + 8 >= cap || !format.p[i]) return false;
        char next = format.p[i] == '%' && i + 1 < format.n ? format.p[i + 1] : '\0';
        if (next == 'f') {
            n += (size_t)snprintf(out + n, cap - n, "%06ld", us);
        } else if (next && next != 'z' && next != 'Z') {
            out[n++] = '%';
            out[n++] = next;
        } else if (!next) {
            out[n++] = format.p[i];
        }
        i += next != '\0';
    }
    out[n++] = '.'; // so that an empty result is not taken for a failure
    out[n] = '\0';
    return true;
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
static bool call_strftime(sd_render *r, sd_args *a, sd_value *out) {
    char format[512], text[4096];
    struct timespec now;
    struct tm local;
    sd_value given = sd_none();
    clock_gettime(CLOCK_REALTIME, &now);
    localtime_r(&now.tv_sec, &local);
    size_t n = 0;
    if (sd_arg(a, 0, "format", &given) && given.kind == SD_V_STRING &&
        python_format(format, sizeof format, given.s, now.tv_nsec / 1000))
        n = strftime(text, sizeof text, format, &local);
    if (n == 0) return sd_render_fail(r, "strftime_now takes one short format");
    char *p = sd_render_alloc(r, n, 1);
    if (!p || !sd_spend(r, n)) return false;
    memcpy(p, text, --n);
    *out = sd_string(p, n);
    return true;
}
#pragma GCC diagnostic pop

bool sd_call_joiner(sd_cycle *t, sd_value *out) {
    *out = t->at ? t->items->item[0] : sd_string("", 0);
    t->at = 1;
    return true;
}

sd_function sd_find_global(sd_str name) {
    static const struct {
        const char *name;
        sd_function call;
    } rows[] = {
        {"raise_exception", call_raise}, {"namespace", call_namespace},  {"dict", call_dict},
        {"range", call_range},           {"cycler", call_cycler},        {"joiner", call_joiner},
        {"lipsum", call_lipsum},         {"strftime_now", call_strftime}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (sd_str_is(name, rows[i].name)) return rows[i].call;
    return NULL;
}
