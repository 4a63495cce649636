// Gemma's fenced block. JSON in it is read as elsewhere; calls as Python writes them are held until the
// block's end, and are calls only if all of it is.
#include "base/json.h"
#include "model/dialogue/answer_private.h"

enum { MAX_LEVELS = 32 };

sd_step sd_answer_in_block(sd_answer_parser *p) {
    static const char *const fence = "```";
    size_t first = sd_answer_skip_space(p, p->from + p->fail);
    if (p->at < first) p->at = first;
    if (first < p->held.len && p->held.data[first] == '{') {
        p->at = first;
        p->state = SD_IN_JSON;
        return SD_STEP_ON;
    }
    int which = 0;
    sd_find how = SD_FIND_NO;
    size_t at = sd_answer_search(p, p->at, &fence, 1, &which, &how);
    if (at - p->from > SD_ANSWER_HELD) return sd_answer_no_call(p);
    p->at = at;
    if (how != SD_FIND_YES && !p->ending) return SD_STEP_MORE;
    size_t from = p->from + p->fail;
    json_t *calls = sd_python_calls(p, p->held.data + from, at - from);
    if (!calls) { // a list of objects?
        if (first >= at || p->held.data[first] != '[') return sd_answer_no_call(p);
        p->at = first;
        p->state = SD_IN_JSON;
        return SD_STEP_ON;
    }
    size_t i;
    json_t *call;
    json_array_foreach(calls, i, call) {
        const json_t *arguments = json_object_get(call, "arguments");
        sd_answer_begin_call(p, json_string_value(json_object_get(call, "name")));
        sd_answer_tell(p, SD_DELTA_ARGUMENTS, json_string_value(arguments),
                       json_string_length(arguments));
    }
    json_decref(calls);
    if (how == SD_FIND_YES) p->at += strlen(fence);
    sd_answer_end_call(p);
    return SD_STEP_ON;
}

// ---- Python

typedef struct {
    const sd_answer_parser *p;
    const char *at, *end;
    sd_buf out; // JSON
    int depth;
} reader;

static void skip(reader *r, bool lines) {
    while (r->at < r->end &&
           (*r->at == ' ' || *r->at == '\t' || (lines && (*r->at == '\n' || *r->at == '\r'))))
        r->at++;
}

static bool next_is(reader *r, char c) {
    skip(r, true);
    if (r->at == r->end || *r->at != c) return false;
    r->at++;
    return true;
}

static size_t name_length(const reader *r) {
    size_t n = 0;
    while (r->at + n < r->end && sd_answer_good_name(r->at + n, 1) && r->at[n] != '-') n++;
    return n;
}

static bool put_char(sd_buf *b, unsigned char c) {
    if (c == '"' || c == '\\') return sd_buf_addc(b, '\\') && sd_buf_addc(b, (char)c);
    return c < 0x20 ? sd_buf_printf(b, "\\u%04x", c) : sd_buf_addc(b, (char)c);
}

// Digits of \x and \u; the code goes out as JSON's escape.
static bool put_code(reader *r, int digits) {
    if (r->end - r->at < digits) return false;
    for (int i = 0; i < digits; i++)
        if (!memchr("0123456789abcdefABCDEF", r->at[i], 22)) return false;
    bool ok = sd_buf_printf(&r->out, "\\u%s%.*s", digits == 2 ? "00" : "", digits, r->at);
    r->at += digits;
    return ok;
}

static bool string(reader *r) {
    static const char from[] = "nrt\\'\"", to[] = "\n\r\t\\'\"";
    char quote = *r->at++;
    bool three = r->end - r->at >= 2 && r->at[0] == quote && r->at[1] == quote;
    if (three) r->at += 2;
    if (!sd_buf_addc(&r->out, '"')) return false;
    while (r->at < r->end) {
        char c = *r->at++;
        if (c == quote) {
            if (!three) return sd_buf_addc(&r->out, '"');
            if (r->end - r->at >= 2 && r->at[0] == quote && r->at[1] == quote) {
                r->at += 2;
                return sd_buf_addc(&r->out, '"');
            }
        }
        if (c == '\n' && !three) return false;
        if (c != '\\') {
            if (!put_char(&r->out, (unsigned char)c)) return false;
            continue;
        }
        if (r->at == r->end) return false;
        c = *r->at++;
        const char *which = c ? strchr(from, c) : NULL;
        bool ok = c == 'x'   ? put_code(r, 2)
                  : c == 'u' ? put_code(r, 4)
                  : which    ? put_char(&r->out, (unsigned char)to[which - from])
                             : put_char(&r->out, '\\') && put_char(&r->out, (unsigned char)c);
        if (!ok) return false;
    }
    return false;
}

static bool value(reader *r);

// Values up to the closing bracket; with `pairs` each behind a key and a colon.
static bool items(reader *r, char close, bool pairs) {
    for (bool first = true;; first = false) {
        if (next_is(r, close)) return true;
        if (!first && !(next_is(r, ',') && sd_buf_addc(&r->out, ','))) return false;
        if (!first && next_is(r, close)) { // a comma at the end
            r->out.len--;
            return true;
        }
        skip(r, true);
        if (pairs) {
            if (r->at == r->end || (*r->at != '"' && *r->at != '\'') || !string(r)) return false;
            if (!next_is(r, ':') || !sd_buf_addc(&r->out, ':')) return false;
        }
        if (!value(r)) return false;
    }
}

static bool number(reader *r) {
    const char *from = r->at;
    json_t *v = NULL;
    sd_error err;
    while (r->at < r->end && memchr("0123456789+-.eE", *r->at, 15)) r->at++;
    size_t n = (size_t)(r->at - from);
    if (n == 0 || sd_json_load(&v, from, n, JSON_DECODE_ANY, NULL, &err) != SD_OK || !v)
        return false;
    json_decref(v);
    return sd_buf_add(&r->out, from, n);
}

static bool value(reader *r) {
    static const char *const word[][2] = {{"True", "true"}, {"False", "false"}, {"None", "null"},
                                          {"true", "true"}, {"false", "false"}, {"null", "null"}};
    skip(r, true);
    if (r->at == r->end) return false;
    char c = *r->at;
    if (c == '"' || c == '\'') return string(r);
    if (c == '[' || c == '(' || c == '{') {
        if (r->depth == MAX_LEVELS) return false;
        r->depth++;
        r->at++;
        bool object = c == '{';
        bool ok = sd_buf_addc(&r->out, object ? '{' : '[') &&
                  items(r,
                        c == '['   ? ']'
                        : c == '(' ? ')'
                                   : '}',
                        object) &&
                  sd_buf_addc(&r->out, object ? '}' : ']');
        r->depth--;
        return ok;
    }
    size_t n = name_length(r);
    for (int i = 0; i < 6; i++)
        if (n == strlen(word[i][0]) && memcmp(r->at, word[i][0], n) == 0) {
            r->at += n;
            return sd_buf_adds(&r->out, word[i][1]);
        }
    return number(r);
}

// The name of the argument at place i of a tool, for one that is given without a name.
static const char *name_of_place(const reader *r, const char *tool, int i) {
    bool known;
    const json_t *schema = sd_answer_tool(r->p, tool, &known);
    json_t *properties = json_object_get(schema, "properties"), *v;
    const char *key;
    json_object_foreach(properties, key, v) if (i-- == 0) return key;
    return NULL;
}

static bool key(reader *r, const char *tool, int i) {
    skip(r, true);
    size_t n = name_length(r);
    const char *behind = r->at + n;
    while (behind < r->end && *behind == ' ') behind++;
    if (n > 0 && behind < r->end && *behind == '=') {
        bool ok = sd_buf_printf(&r->out, "\"%.*s\": ", (int)n, r->at);
        r->at = behind + 1;
        return ok;
    }
    const char *name = name_of_place(r, tool, i);
    if (!name) return false;
    sd_buf_addc(&r->out, '"');
    for (const char *c = name; *c; c++) put_char(&r->out, (unsigned char)*c);
    return sd_buf_adds(&r->out, "\": ");
}

// f(a=1, b="x"): its name and arguments join the list.
static bool call(reader *r, json_t *list) {
    skip(r, true);
    size_t n = name_length(r);
    if (!sd_answer_good_name(r->at, n)) return false;
    char name[SD_CALL_NAME + 1];
    memcpy(name, r->at, n);
    name[n] = '\0';
    r->at += n;
    if (r->at == r->end || *r->at != '(') return false;
    if (strcmp(name, "print") == 0) {
        r->at++;
        return call(r, list) && next_is(r, ')');
    }
    r->at++;
    sd_buf_clear(&r->out);
    if (!sd_buf_addc(&r->out, '{')) return false;
    for (int i = 0; !next_is(r, ')'); i++) {
        if (i > 0 && !next_is(r, ',')) return false;
        if (i > 0 && next_is(r, ')')) break;
        if ((i > 0 && !sd_buf_adds(&r->out, ", ")) || !key(r, name, i) || !value(r)) return false;
    }
    if (!sd_buf_addc(&r->out, '}')) return false;
    json_t *c = json_pack("{s:s, s:s%}", "name", name, "arguments", r->out.data, r->out.len);
    return c && json_array_append_new(list, c) == 0;
}

json_t *sd_python_calls(const sd_answer_parser *p, const char *text, size_t len) {
    reader r = {.p = p, .at = text, .end = text + len, .out = sd_buf_make(8 * SD_ANSWER_HELD)};
    json_t *list = json_array();
    bool listed = next_is(&r, '['), ok = list != NULL;
    for (skip(&r, true); ok && r.at < r.end; skip(&r, true)) {
        if (listed && *r.at == ']') break;
        ok = call(&r, list);
        skip(&r, false);
        if (!ok || r.at == r.end) continue;
        if (listed)
            ok = *r.at == ']' || next_is(&r, ',') || *r.at == ']';
        else if (*r.at == ';')
            r.at++;
        else
            ok = *r.at == '\n' || *r.at == '\r';
    }
    if (listed) ok = ok && next_is(&r, ']');
    skip(&r, true);
    ok = ok && r.at == r.end && json_array_size(list) > 0;
    sd_buf_free(&r.out);
    if (ok) return list;
    json_decref(list);
    return NULL;
}
