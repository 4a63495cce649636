// jansson parses first, as it is. Only a text that it refuses is looked at again, with the numbers
// that it cannot hold written as marked strings.
#include "datasets/read/record_json.h"

#include "base/json.h"
#include "base/memory.h"
#include "base/utf8.h"

#include <errno.h>
#include <math.h>
#include <string.h>

// U+FDD0 is a noncharacter: no text that people exchange holds it.
#define ODD "\xEF\xB7\x90number "
enum { MAX_NUMBER = 400 };

bool sd_valid_utf8(const char *s, size_t len, size_t *at) {
    const unsigned char *p = (const unsigned char *)s;
    for (size_t i = 0; i < len;) {
        unsigned c = p[i], need = c < 0x80 ? 0 : c >= 0xF0 ? 3 : c >= 0xE0 ? 2 : 1;
        *at = i;
        if (c >= 0x80 && (c < 0xC2 || c > 0xF4)) return false;
        if (len - i <= need) return false;
        for (unsigned k = 1; k <= need; k++)
            if ((p[i + k] & 0xC0) != 0x80) return false;
        if (need > 1) { // overlong forms, surrogates, beyond U+10FFFF
            unsigned d = p[i + 1];
            if ((c == 0xE0 && d < 0xA0) || (c == 0xED && d > 0x9F) || (c == 0xF0 && d < 0x90) ||
                (c == 0xF4 && d > 0x8F))
                return false;
        }
        i += need + 1;
    }
    return true;
}

// ---- numbers -----------------------------------------------------------------------------------

// Bytes of the number or number-like word at s, 0 when there is none there.
static size_t number_at(const char *s, size_t len, bool *odd) {
    static const char *const words[] = {"NaN", "Infinity", "-Infinity"};
    *odd = true;
    for (size_t k = 0; k < sizeof words / sizeof *words; k++) {
        size_t n = strlen(words[k]);
        if (len >= n && memcmp(s, words[k], n) == 0) return n;
    }
    if (s[0] != '-' && (s[0] < '0' || s[0] > '9')) return 0;
    size_t n = 1;
    while (n < len && s[n] && strchr("0123456789+-.eE", s[n])) n++;
    char text[MAX_NUMBER + 1];
    size_t take = n < MAX_NUMBER ? n : MAX_NUMBER;
    memcpy(text, s, take);
    text[take] = '\0';
    errno = 0;
    if (strcspn(text, ".eE") == take)
        *odd = n > MAX_NUMBER || (strtoll(text, NULL, 10), errno == ERANGE);
    else
        *odd = n <= MAX_NUMBER && isinf(strtod(text, NULL));
    return n;
}

bool sd_json_mark_numbers(sd_buf *out, const char *s, size_t len, bool *changed) {
    bool in_string = false, ok = true;
    *changed = false;
    for (size_t i = 0; i < len && ok;) {
        size_t n = 0;
        bool odd = false;
        if (!in_string) n = number_at(s + i, len - i, &odd);
        if (n) {
            if (odd) ok = sd_buf_adds(out, "\"" ODD);
            ok = ok && sd_buf_add(out, s + i, odd && n > MAX_NUMBER ? MAX_NUMBER : n);
            if (odd) ok = ok && sd_buf_addc(out, '"');
            *changed |= odd;
            i += n;
            continue;
        }
        n = 1;
        if (in_string && s[i] == '\\' && i + 1 < len)
            n = 2;
        else if (s[i] == '"')
            in_string = !in_string;
        ok = sd_buf_add(out, s + i, n);
        i += n;
    }
    return ok;
}

const char *sd_json_odd_number(const json_t *tree) {
    const char *found = NULL, *key;
    json_t *child;
    size_t i;
    if (json_is_string(tree)) {
        const char *s = json_string_value(tree);
        return strncmp(s, ODD, sizeof ODD - 1) == 0 ? s + sizeof ODD - 1 : NULL;
    }
    if (json_is_array(tree)) {
        json_array_foreach(tree, i, child) if ((found = sd_json_odd_number(child))) return found;
    } else if (json_is_object(tree)) {
        json_t *object = (json_t *)(uintptr_t)tree;
        json_object_foreach(object, key,
                            child) if ((found = sd_json_odd_number(child))) return found;
    }
    return NULL;
}

// ---- texts -------------------------------------------------------------------------------------

static sd_status load(json_t **out, const char *bytes, size_t len, json_error_t *je,
                      sd_error *err) {
    return sd_json_load(out, bytes, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY,
                        je, err);
}

static sd_status not_json(const char *bytes, size_t len, const char *where, int64_t line,
                          const json_error_t *je, sd_error *err) {
    const char *encoding = sd_odd_encoding(bytes, len);
    size_t at = 0;
    if (encoding)
        return sd_fail(err, SD_EFORMAT,
                       "%s, line %lld: is %s, want UTF-8; convert the file (iconv -f %s -t UTF-8)",
                       where, (long long)line, encoding, encoding);
    if (!sd_valid_utf8(bytes, len, &at))
        return sd_fail(err, SD_EFORMAT,
                       "%s, line %lld: byte %zu of the record (0x%02x) is not UTF-8; convert the "
                       "file to UTF-8",
                       where, (long long)line, at + 1, (unsigned char)bytes[at]);
    if (json_error_code(je) == json_error_end_of_input_expected)
        return sd_fail(err, SD_EFORMAT,
                       "%s, line %lld: something follows the record on its line; write one record "
                       "a line",
                       where, (long long)(line + je->line - 1));
    return sd_fail(err, SD_EFORMAT, "%s, line %lld: is not JSON: %s", where,
                   (long long)(line + je->line - 1), je->text);
}

sd_status sd_json_parse(json_t **out, const char *bytes, size_t len, const char *where,
                        int64_t line, sd_error *err) {
    json_error_t je;
    sd_status st = load(out, bytes, len, &je, err);
    if (st != SD_OK || *out) return st;
    sd_buf marked = sd_buf_make((size_t)1 << 30);
    bool changed = false;
    if (!sd_json_mark_numbers(&marked, bytes, len, &changed))
        st = sd_fail(err, SD_ENOMEM, "out of memory at %s, line %lld", where, (long long)line);
    else if (changed)
        st = load(out, marked.data, marked.len, &je, err);
    sd_buf_free(&marked);
    return st != SD_OK || *out ? st : not_json(bytes, len, where, line, &je, err);
}

sd_status sd_json_record(json_t **out, const char *bytes, size_t len, const char *where,
                         int64_t line, sd_error *err) {
    sd_status st = sd_json_parse(out, bytes, len, where, line, err);
    if (st != SD_OK || json_is_object(*out)) return st;
    json_decref(*out);
    *out = NULL;
    return sd_fail(err, SD_EFORMAT,
                   "%s, line %lld: is not an object; each record is one JSON object", where,
                   (long long)line);
}

json_t *sd_json_inside(const json_t *text) {
    json_t *j = NULL;
    sd_error unwanted;
    sd_json_parse(&j, json_string_value(text), json_string_length(text), "", 1, &unwanted);
    return j;
}
