#include "base/option.h"

#include <errno.h>
#include <math.h>
#include <string.h>

static int edit_distance(const char *a, const char *b) {
    enum { MAX = 48 };
    size_t n = strlen(a), m = strlen(b);
    if (n >= MAX || m >= MAX) return MAX;
    int row[MAX + 1];
    for (size_t j = 0; j <= m; j++) row[j] = (int)j;
    for (size_t i = 1; i <= n; i++) {
        int diag = row[0];
        row[0] = (int)i;
        for (size_t j = 1; j <= m; j++) {
            int del = row[j] + 1, ins = row[j - 1] + 1, sub = diag + (a[i - 1] != b[j - 1]);
            diag = row[j];
            row[j] = del < ins ? del : ins;
            if (sub < row[j]) row[j] = sub;
        }
    }
    return row[m];
}

const char *sd_nearest(const char *word, const char *const *candidates) {
    const char *best = NULL;
    int best_distance = ((int)strlen(word) + 2) / 3 + 1; // a third of the letters may be wrong
    for (; *candidates; candidates++) {
        int d = edit_distance(word, *candidates);
        if (d < best_distance) best_distance = d, best = *candidates;
    }
    return best;
}

static int enum_index(const char *words, const char *text) {
    size_t n = strlen(text);
    int i = 0;
    for (const char *w = words;; i++) {
        size_t len = strcspn(w, "|");
        if (len == n && memcmp(w, text, n) == 0) return i;
        if (!w[len]) return -1;
        w += len + 1;
    }
}

const char *sd_option_word(size_t *len, const char *words, int i) {
    for (; i > 0; i--) {
        words += strcspn(words, "|");
        words += *words == '|';
    }
    *len = strcspn(words, "|");
    return words;
}

// The booleans of YAML 1.1 and 1.2, as words: 1, 0, or -1 for any other.
static int bool_word(const char *text) {
    static const char *const words[] = {"false", "False", "FALSE", "no",   "No",   "NO",
                                        "off",   "Off",   "OFF",   "true", "True", "TRUE",
                                        "yes",   "Yes",   "YES",   "on",   "On",   "ON"};
    enum { N = sizeof words / sizeof *words };
    for (int i = 0; i < N; i++)
        if (strcmp(text, words[i]) == 0) return i >= N / 2;
    return -1;
}

bool sd_read_decimal(double *out, const char *text, char **end) {
    *out = strtod(text, end);
    size_t len = (size_t)(*end - text);
    return len > 0 && strspn(text, "0123456789+-.eE") >= len && isfinite(*out);
}

static sd_status set_number(const sd_option *o, void *slot, const char *text, sd_error *err) {
    sd_status st = SD_OK;
    char *end;
    errno = 0;
    double d;
    bool bounded = o->min != 0 || o->max != 0;
    if (o->type == SD_OPT_INT) {
        long long v = strtoll(text, &end, 10);
        bool begins = strchr("+-0123456789", *text) != NULL; // no space
        SD_CHECK(*text && begins && !*end && errno == 0, err, SD_EINVAL,
                 "--%s: '%s' is not a whole number; give one", o->name, text);
        d = (double)v;
        *(int64_t *)slot = v;
    } else {
        SD_CHECK(sd_read_decimal(&d, text, &end) && !*end, err, SD_EINVAL,
                 "--%s: '%s' is not a number; give one", o->name, text);
        *(double *)slot = d;
    }
    SD_CHECK(!bounded || (d >= o->min && d <= o->max), err, SD_EINVAL,
             "--%s: %s is out of range; give %.16g to %.16g", o->name, text, o->min, o->max);
out:
    return st;
}

sd_status sd_option_set(const sd_option *o, void *values, const char *text, sd_error *err) {
    sd_status st = SD_OK;
    void *slot = (char *)values + o->offset;
    switch (o->type) {
    case SD_OPT_FLAG: {
        int on = bool_word(text);
        SD_CHECK(on >= 0, err, SD_EINVAL, "--%s: '%s' is neither true nor false", o->name, text);
        *(bool *)slot = on;
        break;
    }
    case SD_OPT_INT:
    case SD_OPT_FLOAT:
        SD_TRY(set_number(o, slot, text, err));
        break;
    case SD_OPT_STRING:
        *(const char **)slot = text;
        break;
    case SD_OPT_ENUM: {
        int i = enum_index(o->value, text);
        SD_CHECK(i >= 0, err, SD_EINVAL, "--%s: '%s' is unknown; choose one of %s", o->name, text,
                 o->value);
        *(int *)slot = i;
        break;
    }
    case SD_OPT_LIST: {
        sd_strings *l = slot;
        SD_CHECK(l->n < SD_MAX_LIST, err, SD_EINVAL, "--%s: given more than %d times", o->name,
                 SD_MAX_LIST);
        l->item[l->n++] = text;
        break;
    }
    }
out:
    return st;
}

bool sd_option_equal(const sd_option *o, const void *a, const void *b) {
    const void *p = (const char *)a + o->offset, *q = (const char *)b + o->offset;
    switch (o->type) {
    case SD_OPT_FLAG:
        return *(const bool *)p == *(const bool *)q;
    case SD_OPT_INT:
        return *(const int64_t *)p == *(const int64_t *)q;
    case SD_OPT_FLOAT:
        return *(const double *)p == *(const double *)q;
    case SD_OPT_STRING: {
        const char *s = *(const char *const *)p, *t = *(const char *const *)q;
        return s && t ? strcmp(s, t) == 0 : s == t;
    }
    case SD_OPT_ENUM:
        return *(const int *)p == *(const int *)q;
    case SD_OPT_LIST: {
        const sd_strings *l = p, *m = q;
        bool same = l->n == m->n;
        for (int i = 0; same && i < l->n; i++) same = strcmp(l->item[i], m->item[i]) == 0;
        return same;
    }
    }
    return false;
}

void sd_options_defaults(const sd_option *rows, void *values) {
    for (const sd_option *o = rows; o->name; o++) {
        if (!o->def) continue;
        sd_error err;
        SD_ASSERT(sd_option_set(o, values, o->def, &err) == SD_OK);
    }
}

const sd_option *sd_option_find(const sd_option *rows, const char *name, size_t len) {
    for (const sd_option *o = rows; o->name; o++)
        if (strlen(o->name) == len && memcmp(o->name, name, len) == 0) return o;
    return NULL;
}

static sd_status unknown(const sd_option *rows, const char *arg, sd_error *err) {
    const char *names[SD_MAX_OPTIONS + 1] = {0};
    int n = 0;
    char word[64];
    snprintf(word, sizeof word, "%.*s", (int)strcspn(arg, "="), arg);
    for (const sd_option *o = rows; o->name && n < SD_MAX_OPTIONS; o++) names[n++] = o->name;
    const char *near = sd_nearest(word + strspn(word, "-"), names);
    if (near) return sd_fail(err, SD_EINVAL, "unknown option %s; did you mean --%s?", word, near);
    return sd_fail(err, SD_EINVAL, "unknown option %s; --help lists the options", word);
}

sd_status sd_options_parse(sd_strings *rest, const sd_option *rows, void *values, int argc,
                           char **argv, sd_error *err) {
    sd_options_defaults(rows, values);
    return sd_options_parse_over(rest, rows, values, NULL, argc, argv, err);
}

sd_status sd_options_parse_over(sd_strings *rest, const sd_option *rows, void *values,
                                const bool *had, int argc, char **argv, sd_error *err) {
    sd_status st = SD_OK;
    bool seen[SD_MAX_OPTIONS] = {false}, only_rest = false;
    rest->n = 0;
    for (int i = 0; i < argc; i++) {
        const char *a = argv[i], *value = NULL;
        const sd_option *o = NULL;
        bool negated = false;
        if (only_rest || a[0] != '-' || !a[1]) {
            SD_CHECK(rest->n < SD_MAX_LIST, err, SD_EINVAL, "more than %d arguments; give fewer",
                     SD_MAX_LIST);
            rest->item[rest->n++] = a;
            continue;
        }
        if (strcmp(a, "--") == 0) {
            only_rest = true;
            continue;
        }
        if (a[1] == '-') {
            size_t len = strcspn(a + 2, "=");
            o = sd_option_find(rows, a + 2, len);
            if (!o && strncmp(a, "--no-", 5) == 0 &&
                (o = sd_option_find(rows, a + 5, len - 3)) != NULL) {
                if (o->type != SD_OPT_FLAG) o = NULL;
                negated = true;
            }
            if (a[2 + len] == '=') value = a + 3 + len;
        } else {
            for (o = rows; o->name && o->letter != a[1]; o++) {
            }
            if (!o->name) o = NULL;
            if (o && a[2]) value = a + 2;
        }
        if (!o) return unknown(rows, a, err);
        SD_CHECK(!seen[o - rows] || o->type == SD_OPT_LIST, err, SD_EINVAL,
                 "--%s is given twice; keep one", o->name);
        if (o->type == SD_OPT_LIST && !seen[o - rows])
            *(sd_strings *)(void *)((char *)values + o->offset) = (sd_strings){0};
        seen[o - rows] = true;
        if (o->given) *(bool *)((char *)values + o->given) = true;
        if (o->type == SD_OPT_FLAG) {
            SD_CHECK(!negated || !value, err, SD_EINVAL, "%s: takes no value; leave '=%s' out", a,
                     value);
            if (!value) value = negated ? "false" : "true";
        } else if (!value) {
            SD_CHECK(i + 1 < argc, err, SD_EINVAL, "--%s: a value is missing; give --%s %s",
                     o->name, o->name, o->value ? o->value : "VALUE");
            value = argv[++i];
        }
        SD_TRY(sd_option_set(o, values, value, err));
    }
    for (const sd_option *o = rows; o->name; o++)
        SD_CHECK(!o->required || seen[o - rows] || (had && had[o - rows]), err, SD_EINVAL,
                 "--%s is missing; give --%s %s", o->name, o->name, o->value ? o->value : "VALUE");
out:
    return st;
}

void sd_options_help(FILE *f, const sd_option *rows) {
    for (const sd_option *o = rows; o->name; o++) {
        char left[96];
        const char *value = o->value ? o->value : o->type == SD_OPT_FLAG ? "" : "N";
        char letter[8] = "    ";
        if (o->letter) snprintf(letter, sizeof letter, "-%c, ", o->letter);
        snprintf(left, sizeof left, "  %s--%s %s", letter, o->name,
                 o->type == SD_OPT_FLAG ? "" : value);
        fprintf(f, "%-38s %s%s%s%s", left,
                strlen(left) > 38 ? "\n                                       " : "",
                o->help ? o->help : "", o->unit ? ", in " : "", o->unit ? o->unit : "");
        if (o->def && o->type != SD_OPT_FLAG) fprintf(f, " (default %s)", o->def);
        fputc('\n', f);
    }
}

void sd_man_text(FILE *f, const char *text) {
    bool begins = true; // a line that begins with '.' or ' is a command
    for (; *text; text++) {
        if (begins && (*text == '.' || *text == '\'')) fputs("\\&", f);
        if (*text == '-')
            fputs("\\-", f);
        else if (*text == '\\')
            fputs("\\e", f);
        else
            fputc(*text, f);
        begins = *text == '\n';
    }
}

static void man_word(FILE *f, const char *font, const char *before, const char *text) {
    fprintf(f, "\\f%s", font);
    sd_man_text(f, before);
    sd_man_text(f, text);
    fputs("\\fR", f);
}

void sd_options_man(FILE *f, const sd_option *rows) {
    for (const sd_option *o = rows; o->name; o++) {
        const char letter[2] = {o->letter, '\0'};
        fputs(".TP\n", f);
        if (o->letter) man_word(f, "B", "-", letter), fputs(", ", f);
        man_word(f, "B", "--", o->name);
        if (o->type != SD_OPT_FLAG) man_word(f, "I", " ", o->value ? o->value : "N");
        fputc('\n', f);
        sd_man_text(f, o->help ? o->help : "");
        if (o->unit) fputs(", in ", f), sd_man_text(f, o->unit);
        if (o->def && o->type != SD_OPT_FLAG)
            fputs(" (default ", f), sd_man_text(f, o->def), fputc(')', f);
        fputc('\n', f);
    }
}

void sd_options_words(FILE *f, const sd_option *rows) {
    for (const sd_option *o = rows; o->name; o++)
        fprintf(f, "--%s\t%s\t%s\n", o->name,
                o->type == SD_OPT_FLAG ? ""
                : o->value             ? o->value
                                       : "N",
                o->help ? o->help : "");
}
