// Strings and numbers.
#include "model/grammar/schema/private.h"

#include "base/files/hash.h"
#include "base/list.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

// *d <- the texts of both; takes other.
static bool narrow(sd_schema_reader *r, sd_dfa **d, sd_dfa *other) {
    sd_dfa *both = NULL;
    sd_error err;
    if (!*d) return *d = other, true;
    sd_status st = sd_dfa_both(&both, *d, other, &err);
    sd_dfa_free(*d), sd_dfa_free(other);
    *d = both;
    if (st == SD_OK) return sd_gb_spend(r->b, SD_DFA_STEPS + both->work, 0);
    return sd_schema_fail_with(r, NULL, &err), false;
}

static bool add_pattern(sd_schema_reader *r, sd_dfa **d, const char *key, const char *pattern,
                        size_t len, bool whole) {
    sd_dfa *own = NULL;
    sd_error err;
    int64_t work;
    if (sd_regex_dfa(&own, pattern, len, whole, &work, &err) != SD_OK)
        sd_schema_fail_with(r, key, &err);
    if (!sd_gb_spend(r->b, SD_DFA_STEPS + work, 0)) {
        sd_dfa_free(own);
        return false;
    }
    return narrow(r, d, own);
}

// As many characters as minLength and maxLength say, where they say more than the pattern.
static bool with_length(sd_schema_reader *r, sd_dfa **d, int min, int max) {
    int shortest, longest;
    sd_error err;
    sd_dfa *fitting = NULL;
    sd_dfa_lengths(*d, &shortest, &longest);
    if (shortest >= min && (max < 0 || (longest >= 0 && longest <= max))) return true;
    if (sd_dfa_with_length(&fitting, *d, min, max, &err) != SD_OK)
        return sd_schema_fail_with(r, NULL, &err), false;
    sd_dfa_free(*d);
    *d = fitting;
    return sd_gb_spend(r->b, SD_DFA_STEPS + fitting->work, 0);
}

// ---- equal strings, made once

static char *mutable(const char *s) { // it is only read until a copy is kept
    return (char *)(uintptr_t)s;
}

static bool same_text(const char *a, const char *b) {
    return a == b || (a && b && strcmp(a, b) == 0);
}

static uint64_t hash_text(const sd_gtext *x) {
    uint64_t h = sd_mix64((uint64_t)(uint32_t)x->min << 32 | (uint32_t)x->max);
    for (const char *s = x->pattern; s && *s; s++) h = (h ^ (uint8_t)*s) * 0x100000001B3u;
    h = sd_mix64(h);
    for (const char *s = x->format; s && *s; s++) h = (h ^ (uint8_t)*s) * 0x100000001B3u;
    return h;
}

// x->e <- what equal keywords became; -1: nothing yet. False: the account is used up.
static bool find_text(sd_schema_reader *r, sd_gtext *x) {
    size_t len = (x->pattern ? strlen(x->pattern) : 0) + (x->format ? strlen(x->format) : 0);
    x->hash = hash_text(x), x->e = -1;
    for (int i = 0; i < r->b->n_texts && x->e < 0; i++) {
        const sd_gtext *y = &r->b->text[i];
        if (x->hash == y->hash && x->min == y->min && x->max == y->max &&
            same_text(x->pattern, y->pattern) && same_text(x->format, y->format))
            x->e = y->e;
    }
    return sd_gb_spend(r->b, (int64_t)len / 4 + r->b->n_texts / 8, 0);
}

// Keeps copies: the builder may outlive the schema.
static int keep_text(sd_schema_reader *r, sd_gtext x, int e) {
    if (e < 0) return -1;
    const char *pattern = x.pattern, *format = x.format;
    x.e = e;
    x.pattern = pattern ? sd_strndup(pattern, strlen(pattern)) : NULL;
    x.format = format ? sd_strndup(format, strlen(format)) : NULL;
    if ((pattern && !x.pattern) || (format && !x.format) ||
        !SD_GROW(r->b->text, r->b->n_texts + 1, r->b->cap_texts)) {
        free(x.pattern), free(x.format);
        return sd_gb_fail(r->b, SD_ENOMEM, "out of memory for a schema");
    }
    r->b->text[r->b->n_texts++] = x;
    return e;
}

// ---- strings without quotes

// *out <- the strings that may stand there: without their end, and without NUL, as in JSON. A length is counted
// in each of its states, and refused by its name where no pattern makes it more.
static bool open_text(sd_schema_reader *r, sd_dfa **out, int min, int max, bool pattern) {
    sd_error err;
    const char *const none[] = {r->without, ""};
    const size_t len[] = {strlen(r->without), 1};
    if (sd_dfa_without(out, none, len, 2, &err) != SD_OK) return sd_gb_fail_with(r->b, &err), false;
    int most = SD_DFA_STATES / (*out)->n - 1;
    if (pattern || (min <= most && max <= most)) return true;
    return sd_gb_fail(r->b, SD_ELIMIT,
                      "json schema: #%s: \"%s\" is %d; the length of a string that calls write "
                      "without quotes is held up to %d; give at most that, or leave it out",
                      r->path, max > most ? "maxLength" : "minLength", max > most ? max : min,
                      most),
           false;
}

// The string as it is written. Takes *d, the texts that it may be (NULL: all), and *without.
static int write_text(sd_schema_reader *r, sd_dfa **d, sd_dfa **without) {
    sd_dfa *own = *without;
    *without = NULL;
    if (!narrow(r, d, own)) return -1;
    if ((*d)->n == 0) return sd_schema_never(r);
    int e = sd_gb_dfa(r->b, *d, false);
    *d = NULL;
    return e;
}

int sd_schema_string(sd_schema_reader *r, const json_t *schema) {
    const json_t *pattern = json_object_get(schema, "pattern"),
                 *format = json_object_get(schema, "format");
    int min = 0, max = -1, e = -1;
    sd_dfa *d = NULL, *without = NULL;
    if (!sd_schema_count(r, schema, "minLength", &min) ||
        !sd_schema_count(r, schema, "maxLength", &max))
        return -1;
    if (max >= 0 && max < min) return sd_schema_never(r);
    if (format && sd_format_kind_of(json_string_value(format)) != SD_FORMAT_PATTERN) format = NULL;
    bool text = r->spelling == SD_SPELL_TEXT;
    if (!pattern && !format && !text) return sd_gb_json_string(r->b, min, max);
    if (!pattern && !format && min == 0 && max < 0) return r->text;
    sd_gtext known = {.pattern = mutable(json_string_value(pattern)),
                      .format = mutable(json_string_value(format)),
                      .min = min,
                      .max = max};
    // Those that are kept have quotes.
    bool nul = text || (pattern && strlen(known.pattern) != json_string_length(pattern));
    if (!nul && (!find_text(r, &known) || known.e >= 0)) return known.e;
    if (text && !open_text(r, &without, min, max, pattern || format)) goto out;
    if (format) {
        const char *own = sd_format_pattern(json_string_value(format));
        if (!add_pattern(r, &d, "format", own, strlen(own), true)) goto out;
    }
    if (pattern && !add_pattern(r, &d, "pattern", json_string_value(pattern),
                                json_string_length(pattern), false))
        goto out;
    if (!d && (min > 0 || max >= 0) && !add_pattern(r, &d, "maxLength", "[^]*", 4, true)) goto out;
    if (d && !with_length(r, &d, min, max)) goto out;
    if (text) {
        e = write_text(r, &d, &without);
        goto out;
    }
    if (d->n == 0) {
        e = sd_schema_never(r);
        if (!nul) e = keep_text(r, known, e);
        goto out;
    }
    int quote = sd_gb_text(r->b, "\"");
    int part[] = {quote, sd_gb_dfa(r->b, d, true), quote};
    d = NULL;
    e = sd_gb_seq(r->b, part, 3);
    if (!nul) e = keep_text(r, known, e);
out:
    sd_dfa_free(d), sd_dfa_free(without);
    return e;
}

// ---- numbers

// A bound, as a decimal text, where it is tighter than what there is.
static void narrow_bound(sd_decimal *d, bool lower, bool open, const char *text) {
    bool *has = lower ? &d->has_min : &d->has_max, *none = lower ? &d->no_min : &d->no_max;
    char *bound = lower ? d->min : d->max;
    long double x = strtold(text, NULL), old = *has ? strtold(bound, NULL) : 0;
    bool tighter = !*has || (lower ? x > old : x < old);
    bool same = *has && x >= old && x <= old;
    if (tighter) snprintf(bound, sizeof d->min, "%s", text), *none = open;
    if (same && open) *none = true;
    *has = true;
}

// Bounds that no number without an exponent passes are left out.
static bool read_bound(sd_schema_reader *r, const json_t *schema, const char *key, bool lower,
                       bool open, sd_decimal *d) {
    const json_t *v = json_object_get(schema, key);
    char text[48];
    if (!v) return true;
    long double x = sd_json_number(v);
    if (lower ? x <= -1e18 : x >= 1e18) return true;
    if (x >= 9e18 || x <= -9e18)
        return sd_schema_fail(r, "\"%s\" lets no number of 18 digits through", key), false;
    if (json_is_integer(v))
        snprintf(text, sizeof text, "%lld", (long long)json_integer_value(v));
    else if (fabsl(x) >= 0x1p53L) // all its digits: integers beside it are no doubles
        snprintf(text, sizeof text, "%.0Lf", x);
    else if (!sd_decimal_text(text, x == 0 ? 0.0 : (double)x))
        return sd_schema_fail(r, "\"%s\": %Lg has too many digits", key, x), false;
    narrow_bound(d, lower, open, text);
    return true;
}

// *plain: no exponent, as a float has fewer digits in it than a number that is written with one may.
static void read_format(const json_t *schema, sd_decimal *d, bool *plain) {
    const char *format = json_string_value(json_object_get(schema, "format"));
    double min, max;
    bool whole;
    char text[48];
    if (!format || !sd_format_range(format, &min, &max, &whole)) return;
    d->integer |= whole;
    *plain |= max < 1e100;
    if (min > -1e18 && sd_decimal_text(text, min)) narrow_bound(d, true, false, text);
    if (max < 1e18 && sd_decimal_text(text, max)) narrow_bound(d, false, false, text);
}

static bool read_multiple(sd_schema_reader *r, const json_t *schema, sd_decimal *d) {
    const json_t *v = json_object_get(schema, "multipleOf");
    double x = json_number_value(v);
    char text[48];
    if (!v) return true;
    if (x == floor(x) && x < 1e9) {
        d->integer = true, d->multiple = (int64_t)x;
        return true;
    }
    // 0.1, 0.01, ...: so many digits behind the point.
    if (x < 1 && sd_decimal_text(text, x) && strspn(text, "0.") + 1 == strlen(text) &&
        text[strlen(text) - 1] == '1') {
        d->fraction = (int)strlen(text) - 2;
        return true;
    }
    return sd_schema_fail(
               r,
               "\"multipleOf\" %g can be enforced beside enum or const alone; give a whole number, "
               "or 0.1, 0.01, and so on",
               x),
           false;
}

int sd_schema_number(sd_schema_reader *r, const json_t *schema, bool integer) {
    sd_decimal d = {.integer = integer, .fraction = 16};
    sd_dfa *dfa = NULL;
    sd_error err;
    bool plain = json_object_get(schema, "minimum") ||
                 json_object_get(schema, "exclusiveMinimum") ||
                 json_object_get(schema, "maximum") || json_object_get(schema, "exclusiveMaximum");
    if (!read_bound(r, schema, "minimum", true, false, &d) ||
        !read_bound(r, schema, "exclusiveMinimum", true, true, &d) ||
        !read_bound(r, schema, "maximum", false, false, &d) ||
        !read_bound(r, schema, "exclusiveMaximum", false, true, &d) ||
        !read_multiple(r, schema, &d))
        return -1;
    read_format(schema, &d, &plain);
    if (d.integer && d.fraction < 16) d.fraction = 16; // every whole number is a multiple of 0.1
    bool bounded = d.has_min || d.has_max || d.multiple > 1 || d.fraction < 16 || plain;
    if (!bounded) return d.integer ? sd_gb_json_integer(r->b) : sd_gb_json_number(r->b);
    if (sd_decimal_dfa(&dfa, &d, &err) != SD_OK) return sd_schema_fail_with(r, NULL, &err);
    if (dfa->n == 0) {
        sd_gb_spend(r->b, SD_DFA_STEPS + dfa->work, 0);
        sd_dfa_free(dfa);
        return sd_schema_never(r);
    }
    return sd_gb_dfa(r->b, dfa, false);
}
