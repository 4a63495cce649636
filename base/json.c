// The reserve of a parse.
//
// When malloc fails inside a parse, the parse is lost, but jansson goes on to the end of the bytes
// that it holds. It gets its text in pieces of at most 1 KiB and no further piece once the parse is
// lost, so it asks for little more: values from less than 1 KiB of text, which SMALL covers (an
// empty array, the dearest byte, takes 112 bytes), and once a buffer for the token that it reads,
// which doubles and so needs at most twice the longest token. The reserve is taken before the parse
// and is not written to unless it is needed, so it costs address space only.
#include "base/json.h"

#include "base/memory.h"

#include <malloc.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SMALL = 192 * 1024, SMALL_REQUEST = 4096 };

typedef struct {
    bool on;            // this thread is in a parse
    bool lost, limited; // an allocation of it failed; the document is over its limit
    size_t used, max;   // bytes of the document; max 0: no limit
    char *reserve;
    size_t small_used, token_room;
    bool token_used;
} parse_memory;

static _Thread_local parse_memory parse;

static void *from_reserve(size_t bytes) {
    bytes = (bytes + 15) & ~(size_t)15;
    if (bytes <= SMALL_REQUEST) {
        if (bytes > SMALL - parse.small_used) return NULL;
        void *p = parse.reserve + parse.small_used;
        parse.small_used += bytes;
        return p;
    }
    if (parse.token_used || bytes > parse.token_room) return NULL;
    parse.token_used = true;
    return parse.reserve + SMALL;
}

static bool is_of_reserve(const void *p) {
    const char *c = p;
    return parse.on && c >= parse.reserve && c < parse.reserve + SMALL + parse.token_room;
}

static void *json_malloc(size_t bytes) {
    if (!parse.on) return sd_malloc_marked(bytes);
    void *p = parse.lost ? NULL : malloc(bytes);
    if (p && parse.max) {
        parse.used += malloc_usable_size(p) + sizeof(size_t);
        if (parse.used > parse.max) parse.lost = parse.limited = true;
    }
    if (p) return p;
    parse.lost = true;
    return from_reserve(bytes);
}

static void json_give_back(void *p) {
    if (!p || is_of_reserve(p)) return;
    if (parse.on && parse.max) {
        size_t n = malloc_usable_size(p) + sizeof(size_t);
        parse.used -= n < parse.used ? n : parse.used;
    }
    free(p);
}

// Before main, because no document may be made earlier; blocks of malloc are given back right by
// both allocators.
__attribute__((constructor)) static void take_over(void) {
    json_set_alloc_funcs(json_malloc, json_give_back);
}

// ---- reading

typedef struct {
    const char *text;
    size_t len, at;
} source;

static size_t next_piece(void *buffer, size_t room, void *ctx) {
    source *s = ctx;
    if (parse.lost) return 0;
    size_t n = s->len - s->at < room ? s->len - s->at : room;
    if (n) memcpy(buffer, s->text + s->at, n);
    s->at += n;
    return n;
}

// No token is longer than the longest way between two quotes that no backslash stands before.
static size_t longest_token(const char *text, size_t len) {
    size_t longest = 0, start = 0;
    if (len <= SMALL_REQUEST) return len;
    for (size_t at = 0; at < len;) {
        const char *quote = memchr(text + at, '"', len - at);
        size_t q = quote ? (size_t)(quote - text) : len, slashes = 0;
        at = q + 1;
        while (slashes < q - start && text[q - slashes - 1] == '\\') slashes++;
        if (quote && slashes % 2) continue;
        if (q - start > longest) longest = q - start;
        start = q;
    }
    return len - start > longest ? len - start : longest;
}

static sd_status no_memory(size_t len, sd_error *err) {
    sd_memory_lost_mark();
    return sd_fail(err, SD_ENOMEM, "out of memory while reading JSON of %zu bytes", len);
}

sd_status sd_json_load_within(json_t **out, const char *text, size_t len, size_t flags,
                              size_t max_bytes, json_error_t *why, sd_error *err) {
    *out = NULL;
    size_t token = longest_token(text, len), room;
    if (!sd_mul_size(&room, token + SMALL_REQUEST, 2)) return no_memory(len, err);
    char *reserve = malloc(SMALL + room);
    if (!reserve) return no_memory(len, err);
    parse = (parse_memory){.on = true, .max = max_bytes, .reserve = reserve, .token_room = room};
    source s = {text, len, 0};
    json_t *v = json_load_callback(next_piece, &s, flags, why);
    if (parse.lost) {
        json_decref(v);
        v = NULL;
    }
    bool lost = parse.lost, limited = parse.limited;
    parse = (parse_memory){0};
    free(reserve);
    if (limited)
        return sd_fail(err, SD_ELIMIT,
                       "JSON of %zu bytes needs more than %zu MB of memory; send fewer values", len,
                       max_bytes >> 20);
    if (lost) return no_memory(len, err);
    *out = v;
    return SD_OK;
}

sd_status sd_json_load(json_t **out, const char *text, size_t len, size_t flags, json_error_t *why,
                       sd_error *err) {
    return sd_json_load_within(out, text, len, flags, 0, why, err);
}

// An object begins with 8 buckets, an array with 8 places; both double. Blocks of malloc have 16 bytes more.
size_t sd_json_bytes(const json_t *v) {
    enum { OBJECT = 304, MEMBER = 112, ARRAY = 144, STRING = 80, NUMBER = 48 };
    const char *key;
    json_t *of;
    size_t i, sum;
    switch (v ? json_typeof(v) : JSON_NULL) {
    case JSON_OBJECT:
        sum = OBJECT;
        json_object_foreach((json_t *)(uintptr_t)v, key, of) sum +=
            MEMBER + strlen(key) + sd_json_bytes(of);
        return sum;
    case JSON_ARRAY:
        sum = ARRAY + 2 * sizeof(json_t *) * json_array_size(v);
        json_array_foreach(v, i, of) sum += sd_json_bytes(of);
        return sum;
    case JSON_STRING:
        return STRING + json_string_length(v);
    case JSON_INTEGER:
    case JSON_REAL:
        return NUMBER;
    default:
        return 0; // one for all
    }
}

// ---- writing

sd_status sd_json_dump(char **out, const json_t *v, size_t flags, sd_error *err) {
    *out = v && !sd_memory_lost() ? json_dumps(v, flags) : NULL;
    if (*out && !sd_memory_lost()) return SD_OK;
    free(*out);
    *out = NULL;
    return sd_fail(err, SD_ENOMEM, "out of memory while writing JSON");
}

sd_status sd_json_print(FILE *f, const json_t *v, size_t flags, sd_error *err) {
    char *text = NULL;
    sd_status st = sd_json_dump(&text, v, flags, err);
    if (st == SD_OK) fputs(text, f);
    free(text);
    return st;
}

// ---- keys

json_t *sd_key(const json_t *o, const char *key) {
    json_t *v = json_object_get(o, key);
    return json_is_null(v) ? NULL : v;
}

sd_status sd_key_refuse(const json_t *value, const char *key, const char *want, const char *file,
                        sd_error *err) {
    char *text = NULL;
    sd_status st = sd_json_dump(&text, value, JSON_COMPACT | JSON_ENCODE_ANY, err);
    if (st != SD_OK) return st;
    st = sd_fail(err, SD_EFORMAT, "%s: %s is %.80s, where %s is needed; correct it", file, key,
                 text, want);
    free(text);
    return st;
}

bool sd_json_whole(const json_t *v, int64_t *out) {
    if (json_is_integer(v)) return *out = json_integer_value(v), true;
    double d = json_real_value(v);
    if (!json_is_real(v) || d != floor(d) || !(fabs(d) <= 0x1p53)) return false;
    return *out = (int64_t)d, true;
}

sd_status sd_key_bool(bool *out, const json_t *o, const char *key, bool def, const char *file,
                      sd_error *err) {
    const json_t *v = sd_key(o, key);
    *out = v ? json_is_true(v) : def;
    return !v || json_is_boolean(v) ? SD_OK : sd_key_refuse(v, key, "true or false", file, err);
}

sd_status sd_key_int(int64_t *out, const json_t *o, const char *key, int64_t def, int64_t min,
                     int64_t max, const char *file, sd_error *err) {
    const json_t *v = sd_key(o, key);
    *out = def;
    if (!v) return SD_OK;
    if (!sd_json_whole(v, out) || *out < min || *out > max) {
        *out = def;
        return sd_key_refuse(v, key, "a whole number in range", file, err);
    }
    return SD_OK;
}

sd_status sd_key_number(double *out, const json_t *o, const char *key, double def, const char *file,
                        sd_error *err) {
    const json_t *v = sd_key(o, key);
    double d = json_number_value(v);
    *out = v ? d : def;
    if (!v || (json_is_number(v) && isfinite(d) && fabs(d) <= 1e30)) return SD_OK;
    return sd_key_refuse(v, key, "a number in range", file, err);
}

sd_status sd_key_str(const char **out, const json_t *o, const char *key, const char *def,
                     const char *file, sd_error *err) {
    const json_t *v = sd_key(o, key);
    *out = v ? json_string_value(v) : def;
    return !v || json_is_string(v) ? SD_OK : sd_key_refuse(v, key, "a text", file, err);
}

sd_status sd_key_object(json_t **out, const json_t *o, const char *key, const char *file,
                        sd_error *err) {
    *out = sd_key(o, key);
    if (!*out || json_is_object(*out)) return SD_OK;
    return sd_key_refuse(*out, key, "an object", file, err);
}

sd_status sd_key_array(json_t **out, const json_t *o, const char *key, const char *file,
                       sd_error *err) {
    *out = sd_key(o, key);
    if (!*out || json_is_array(*out)) return SD_OK;
    return sd_key_refuse(*out, key, "an array", file, err);
}

const char *sd_json_type_word(const json_t *v) {
    if (!v) return "missing";
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_NULL:
        return "null";
    default:
        return "true or false";
    }
}
