// Values -> text: the resolved recipe, the comparison of a resume, and the help, all by the table.
// A number is written with the fewest digits that read back to the same bits.
#include "trainer/recipe/table.h"

#include <stdio.h>
#include <string.h>

static bool add_number(sd_buf *out, double v) {
    char text[40];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v) break;
    }
    return sd_buf_adds(out, text);
}

/// The code point at s (valid UTF-8, which libyaml checked) and its length.
static uint32_t code_point(const unsigned char *s, int *len) {
    if (s[0] < 0x80) return *len = 1, s[0];
    *len = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    uint32_t c = s[0] & (0xffu >> (*len + 1));
    for (int i = 1; i < *len; i++) {
        if ((s[i] & 0xc0) != 0x80) return *len = 1, 0xfffd;
        c = c << 6 | (s[i] & 0x3fu);
    }
    return c;
}

/// Writes double quotes unless the text is a word that YAML cannot take for anything else.
bool sd_recipe_add_text(sd_buf *out, const char *text) {
    static const char first[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_/";
    static const char rest[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_/0123456789.-";
    if (text[0] && strchr(first, text[0]) && strspn(text, rest) == strlen(text) &&
        strcmp(text, "null") != 0 && strcmp(text, "auto") != 0)
        return sd_buf_adds(out, text);
    bool ok = sd_buf_addc(out, '"');
    for (const unsigned char *s = (const unsigned char *)text; *s && ok;) {
        int len;
        uint32_t c = code_point(s, &len);
        if (c == '"' || c == '\\')
            ok = sd_buf_printf(out, "\\%c", (int)c);
        else if (c < 0x20 || (c >= 0x7f && c < 0xa0))
            ok = sd_buf_printf(out, "\\x%02x", (unsigned)c);
        else if (c == 0x2028 || c == 0x2029 || c == 0xfeff || (c >= 0xd800 && c < 0xe000) ||
                 c == 0xfffe || c == 0xffff)
            ok = sd_buf_printf(out, "\\u%04x", (unsigned)c);
        else
            ok = sd_buf_add(out, s, (size_t)len);
        s += len;
    }
    return ok && sd_buf_addc(out, '"');
}

static bool add_word(sd_buf *out, const char *words, int index) {
    size_t len;
    const char *word = sd_option_word(&len, words, index);
    return sd_buf_add(out, word, len);
}

static bool add_list(sd_buf *out, const sd_strings *l) {
    bool ok = sd_buf_addc(out, '[');
    for (int i = 0; i < l->n; i++)
        ok = ok && (i == 0 || sd_buf_adds(out, ", ")) && sd_recipe_add_text(out, l->item[i]);
    return ok && sd_buf_addc(out, ']');
}

static bool add_pattern(sd_buf *out, const sd_recipe_pattern *p) {
    bool ok = sd_buf_addc(out, '{');
    for (int i = 0; i < p->n; i++)
        ok = ok && (i == 0 || sd_buf_adds(out, ", ")) && sd_recipe_add_text(out, p->key[i]) &&
             sd_buf_adds(out, ": ") && add_number(out, p->value[i]);
    return ok && sd_buf_addc(out, '}');
}

static bool add_sources(sd_buf *out, const sd_recipe_sources *s) {
    bool ok = sd_buf_addc(out, '[');
    for (int i = 0; i < s->n; i++)
        ok = ok && (i == 0 || sd_buf_adds(out, ", ")) && sd_buf_adds(out, "{path: ") &&
             sd_recipe_add_text(out, s->item[i].path) && sd_buf_adds(out, ", format: ") &&
             add_word(out, SD_DATA_FORMATS, s->item[i].format) && sd_buf_adds(out, ", weight: ") &&
             add_number(out, s->item[i].weight) && sd_buf_addc(out, '}');
    return ok && sd_buf_addc(out, ']');
}

static bool add_plain(const sd_recipe_key *k, const void *slot, sd_buf *out) {
    switch (k->o.type) {
    case SD_OPT_FLAG:
        return sd_buf_adds(out, *(const bool *)slot ? "true" : "false");
    case SD_OPT_INT: {
        int64_t v = *(const int64_t *)slot;
        return v == 0 && k->empty ? sd_buf_adds(out, k->empty)
                                  : sd_buf_printf(out, "%lld", (long long)v);
    }
    case SD_OPT_FLOAT: {
        double v = *(const double *)slot;
        return v == 0 && k->empty ? sd_buf_adds(out, k->empty) : add_number(out, v);
    }
    case SD_OPT_STRING: {
        const char *s = *(const char *const *)slot;
        if (!s) return sd_buf_adds(out, k->empty ? k->empty : "\"\"");
        if (!k->empty && strcmp(s, "auto") == 0) return sd_buf_adds(out, s);
        return sd_recipe_add_text(out, s);
    }
    case SD_OPT_ENUM:
        return add_word(out, k->o.value, *(const int *)slot);
    case SD_OPT_LIST:
        break;
    }
    return false;
}

bool sd_recipe_value_text(const sd_recipe_key *k, const sd_recipe *r, sd_buf *out) {
    const void *slot = (const char *)r + k->o.offset;
    switch (k->kind) {
    case SD_KEY_PLAIN:
        return add_plain(k, slot, out);
    case SD_KEY_LIST:
        return add_list(out, slot);
    case SD_KEY_PATTERN:
        return add_pattern(out, slot);
    case SD_KEY_SOURCES:
        return add_sources(out, slot);
    case SD_KEY_SIZE: {
        int64_t v = *(const int64_t *)slot;
        return v ? sd_buf_printf(out, "%lld", (long long)v) : sd_buf_adds(out, k->empty);
    }
    case SD_KEY_EVERY: {
        const sd_recipe_every *e = slot;
        return sd_buf_printf(out, "%lld%s", (long long)e->n, e->per_epoch ? "/epoch" : "");
    }
    }
    return false;
}

sd_status sd_recipe_text(const sd_recipe *r, sd_buf *out, sd_error *err) {
    char section[48] = "";
    bool ok = true;
    for (const sd_recipe_key *k = sd_recipe_keys; k->o.name && ok; k++) {
        const char *dot = strchr(k->o.name, '.');
        size_t len = dot ? (size_t)(dot - k->o.name) : 0;
        if (dot && (strlen(section) != len || memcmp(section, k->o.name, len) != 0)) {
            SD_ASSERT(len < sizeof section);
            memcpy(section, k->o.name, len);
            section[len] = '\0';
            ok = sd_buf_printf(out, "%s:\n", section);
        }
        ok = ok && sd_buf_printf(out, "%s%s: ", dot ? "  " : "", dot ? dot + 1 : k->o.name) &&
             sd_recipe_value_text(k, r, out) && sd_buf_addc(out, '\n');
    }
    return ok ? SD_OK : sd_fail(err, SD_ENOMEM, "out of memory while writing the recipe");
}

void sd_recipe_adopt_auto(sd_recipe *r, const sd_recipe *old) {
    for (const sd_recipe_key *k = sd_recipe_keys; k->o.name; k++) {
        char *to = (char *)r + k->o.offset;
        const char *from = (const char *)old + k->o.offset;
        bool is_int = k->o.type == SD_OPT_INT && k->empty && strcmp(k->empty, "auto") == 0;
        if (is_int && k->same && *(int64_t *)(void *)to == 0) memcpy(to, from, sizeof(int64_t));
        if (k->o.type == SD_OPT_ENUM && k->same && strncmp(k->o.value, "auto|", 5) == 0 &&
            *(int *)(void *)to == 0)
            memcpy(to, from, sizeof(int));
    }
}

const char *sd_recipe_difference(const sd_recipe *old, const sd_recipe *r, sd_buf *old_value,
                                 sd_buf *new_value) {
    for (const sd_recipe_key *k = sd_recipe_keys; k->o.name; k++) {
        if (!k->same) continue;
        sd_buf_clear(old_value);
        sd_buf_clear(new_value);
        if (!sd_recipe_value_text(k, old, old_value) || !sd_recipe_value_text(k, r, new_value) ||
            strcmp(old_value->data, new_value->data) != 0)
            return k->o.name;
    }
    return NULL;
}

void sd_recipe_help(FILE *f) {
    for (const sd_recipe_key *k = sd_recipe_keys; k->o.name; k++) {
        const char *def = k->o.def ? k->o.def : k->empty ? k->empty : "";
        fprintf(f, "  %-26s %s", k->o.name, k->o.help);
        if (k->o.unit) fprintf(f, ", in %s", k->o.unit);
        if (k->o.value) fprintf(f, "; %s", k->o.value);
        if (k->o.min != 0 || k->o.max != 0) fprintf(f, "; %.16g to %.16g", k->o.min, k->o.max);
        if (def[0]) fprintf(f, " (default %s)", def);
        if (k->unbuilt) fprintf(f, "; %s", k->unbuilt);
        fputc('\n', f);
    }
}
