// A call that is a JSON object. Its bytes are looked at once: until the name and the beginning of the
// arguments are known they are held, afterwards the arguments are passed on as they come.
//
// Other keys are skipped, {"type": "function", "function": {...}} is read through, and arguments that are
// written as a string are told as the text that the string holds.
#include "base/utf8.h"
#include "model/dialogue/answer_private.h"

enum { MAX_LEVELS = 256 };

sd_value_end sd_json_value_byte(sd_json_call *j, char c) {
    if (j->in_string) {
        if (j->escape)
            j->escape = false;
        else if (c == '\\')
            j->escape = true;
        else if (c == '"')
            j->in_string = false;
        if ((unsigned char)c < 0x20) return SD_VALUE_BROKEN;
        return j->in_string || j->depth > 0 ? SD_VALUE_MORE : SD_VALUE_DONE;
    }
    if (c == '"') {
        j->in_string = true;
        return SD_VALUE_MORE;
    }
    int d = j->depth;
    if (c == '{' || c == '[') {
        if (d == MAX_LEVELS) return SD_VALUE_BROKEN;
        uint64_t bit = (uint64_t)1 << (d & 63);
        j->brackets[d >> 6] = c == '[' ? j->brackets[d >> 6] | bit : j->brackets[d >> 6] & ~bit;
        j->depth++;
        return SD_VALUE_MORE;
    }
    if (c == '}' || c == ']') {
        if (d == 0) return SD_VALUE_BEFORE;
        d = --j->depth;
        if ((j->brackets[d >> 6] >> (d & 63) & 1) != (c == ']')) return SD_VALUE_BROKEN;
        return d == 0 ? SD_VALUE_DONE : SD_VALUE_MORE;
    }
    if (d == 0 && (c == ',' || sd_answer_space(c))) return SD_VALUE_BEFORE;
    return c && strchr("0123456789+-.eEtrufalsn:, \t\r\n", c) ? SD_VALUE_MORE : SD_VALUE_BROKEN;
}

// ---- arguments within a string

// The first half of a pair whose second half did not come.
static void tell_lone(sd_answer_parser *p, sd_json_call *j) {
    if (j->high) sd_answer_tell(p, SD_DELTA_ARGUMENTS, "\xEF\xBF\xBD", 3);
    j->high = 0;
}

static void tell_code(sd_answer_parser *p, sd_json_call *j) {
    char out[4];
    int32_t cp = j->code;
    if (j->high && cp >= 0xDC00 && cp < 0xE000)
        cp = 0x10000 + ((j->high - 0xD800) << 10) + (cp - 0xDC00), j->high = 0;
    tell_lone(p, j);
    j->high = cp >= 0xD800 && cp < 0xDC00 ? cp : 0;
    if (j->high) return;
    if (cp >= 0xDC00 && cp < 0xE000) cp = SD_REPLACEMENT;
    sd_answer_tell(p, SD_DELTA_ARGUMENTS, out, (size_t)sd_utf8_put(out, cp));
}

static int hex_value(char c) {
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

// A byte of an escape, which began at p->from.
static sd_value_end escape_byte(sd_answer_parser *p, sd_json_call *j, char c) {
    static const char from[] = "nrtbf\"\\/", to[] = "\n\r\t\b\f\"\\/";
    if (j->hex == 0) {
        const char *which = c ? strchr(from, c) : NULL;
        if (c == 'u') {
            j->hex = 4, j->code = 0;
            return SD_VALUE_MORE;
        }
        if (!which) return SD_VALUE_BROKEN;
        tell_lone(p, j);
        sd_answer_tell(p, SD_DELTA_ARGUMENTS, &to[which - from], 1);
    } else {
        int v = hex_value(c);
        if (v < 0) return SD_VALUE_BROKEN;
        j->code = j->code * 16 + v;
        if (--j->hex > 0) return SD_VALUE_MORE;
        tell_code(p, j);
    }
    j->escape = false;
    p->from = p->at + 1;
    return SD_VALUE_MORE;
}

// A byte of the string at p->at; what lies before it from p->from on is plain and not told yet.
static sd_value_end string_byte(sd_answer_parser *p, sd_json_call *j, char c) {
    if (j->escape) return escape_byte(p, j, c);
    if (c != '\\') tell_lone(p, j);
    if ((unsigned char)c < 0x20) return SD_VALUE_BROKEN;
    if (c != '\\' && c != '"') return SD_VALUE_MORE;
    sd_answer_tell_held(p, SD_DELTA_ARGUMENTS, p->at);
    j->escape = c == '\\';
    if (c == '"') p->from = p->at + 1;
    return c == '"' ? SD_VALUE_DONE : SD_VALUE_MORE;
}

// ---- the object

typedef enum { GO_ON, AGAIN, NO_CALL, BROKEN, DONE } verdict;

static void begin(sd_answer_parser *p, sd_json_call *j) {
    j->begun = true;
    sd_answer_begin_call(p, j->name);
}

static verdict begin_arguments(sd_answer_parser *p, sd_json_call *j, char c) {
    if (c == 'n') { // null: as if there were none
        j->at = SD_J_SKIP;
        return AGAIN;
    }
    if (c != '{' && c != '"') return NO_CALL;
    j->has_arguments = true;
    if (j->n_name == 0) {
        j->from = p->at;
        j->late = true;
        j->at = SD_J_SKIP;
        return AGAIN;
    }
    begin(p, j);
    j->at = c == '{' ? SD_J_OBJECT : SD_J_STRING;
    p->from = c == '{' ? p->at : p->at + 1;
    return c == '{' ? AGAIN : GO_ON;
}

// A key that a call may have in front of its name.
static bool is_key_of_call(const char *key) {
    static const char *const keys[] = {"name", "arguments", "parameters", "function", "type", "id"};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        if (strcmp(key, keys[i]) == 0) return true;
    return false;
}

static verdict begin_value(sd_answer_parser *p, sd_json_call *j, char c) {
    j->key[j->n_key] = '\0';
    j->depth = 0;
    // Without a marker it is an answer in JSON, which is not to be held back.
    if (p->known && !j->begun && !is_key_of_call(j->key)) return NO_CALL;
    if (strcmp(j->key, "name") == 0 && j->n_name == 0) {
        j->at = SD_J_IN_NAME;
        return c == '"' ? GO_ON : NO_CALL;
    }
    if (!j->has_arguments &&
        (strcmp(j->key, "arguments") == 0 || strcmp(j->key, "parameters") == 0))
        return begin_arguments(p, j, c);
    if (strcmp(j->key, "function") == 0 && c == '{' && j->nested == 0) {
        j->nested++;
        j->at = SD_J_KEY;
        return GO_ON;
    }
    j->at = SD_J_SKIP;
    return AGAIN;
}

static verdict name_byte(sd_answer_parser *p, sd_json_call *j, char c) {
    if (c != '"') {
        if (j->n_name == SD_CALL_NAME) return NO_CALL;
        j->name[j->n_name++] = c;
        return GO_ON;
    }
    j->name[j->n_name] = '\0';
    if (!sd_answer_good_name(j->name, (size_t)j->n_name)) return NO_CALL;
    const json_t *function = sd_answer_function(p, j->name);
    j->at = SD_J_COMMA;
    return (p->known && !function) || sd_answer_escapes(p, function, p->at) ? NO_CALL : GO_ON;
}

static verdict skip_byte(sd_answer_parser *p, sd_json_call *j, char c) {
    sd_value_end end = sd_json_value_byte(j, c);
    if (end == SD_VALUE_MORE) return GO_ON;
    if (end == SD_VALUE_BROKEN) return NO_CALL;
    if (j->late && j->to == 0) j->to = p->at + (end == SD_VALUE_DONE);
    j->at = SD_J_COMMA;
    return end == SD_VALUE_DONE ? GO_ON : AGAIN;
}

static verdict arguments_byte(sd_answer_parser *p, sd_json_call *j, char c) {
    sd_value_end end = j->at == SD_J_OBJECT ? sd_json_value_byte(j, c) : string_byte(p, j, c);
    if (end == SD_VALUE_BROKEN) return BROKEN;
    if (end == SD_VALUE_MORE) return GO_ON;
    if (j->at == SD_J_OBJECT) sd_answer_tell_held(p, SD_DELTA_ARGUMENTS, p->at + 1);
    p->at = p->from - 1; // this byte is the last of them
    j->at = SD_J_COMMA;
    return j->bare ? DONE : GO_ON;
}

static verdict take(sd_answer_parser *p, sd_json_call *j, char c) {
    switch (j->at) {
    case SD_J_SKIP:
        return skip_byte(p, j, c);
    case SD_J_OBJECT:
    case SD_J_STRING:
        return arguments_byte(p, j, c);
    case SD_J_IN_NAME:
        return name_byte(p, j, c);
    case SD_J_IN_KEY:
        if (c == '"') {
            j->at = SD_J_COLON;
            return GO_ON;
        }
        if (c == '\\' || (unsigned char)c < 0x20) return NO_CALL;
        if (j->n_key < SD_CALL_NAME) j->key[j->n_key++] = c; // a longer one is none of ours
        return GO_ON;
    default:
        break;
    }
    if (sd_answer_space(c)) return GO_ON;
    switch (j->at) {
    case SD_J_LIST:
        if (c == '[') p->list = true;
        j->at = c == '[' ? SD_J_OPEN : SD_J_KEY;
        return c == '[' || c == '{' ? GO_ON : NO_CALL;
    case SD_J_OPEN:
        j->at = SD_J_KEY;
        return c == '{' ? GO_ON : NO_CALL;
    case SD_J_COLON:
        j->at = SD_J_VALUE;
        return c == ':' ? GO_ON : NO_CALL;
    case SD_J_VALUE:
        return begin_value(p, j, c);
    default: // a key, or behind a value
        if (c == '}') {
            if (j->nested == 0) return DONE;
            j->nested--;
            j->at = SD_J_COMMA;
            return GO_ON;
        }
        if (j->at == SD_J_KEY) {
            j->at = SD_J_IN_KEY;
            j->n_key = 0;
            return c == '"' ? GO_ON : NO_CALL;
        }
        j->at = SD_J_KEY;
        return c == ',' ? GO_ON : NO_CALL;
    }
}

// The object is whole; a call that has not begun begins here, with arguments that came early or none.
static bool complete(sd_answer_parser *p, sd_json_call *j) {
    if (j->begun) return true;
    if (j->n_name == 0) return false;
    begin(p, j);
    if (!j->late) {
        sd_answer_tell(p, SD_DELTA_ARGUMENTS, "{}", 2);
        return true;
    }
    size_t after = p->at;
    if (p->held.data[j->from] == '"') {
        p->from = j->from + 1;
        sd_value_end end = SD_VALUE_MORE;
        for (p->at = p->from; p->at < j->to && end == SD_VALUE_MORE; p->at++)
            end = string_byte(p, j, p->held.data[p->at]);
        if (end == SD_VALUE_BROKEN) // as it is, without the closing quote
            sd_answer_tell(p, SD_DELTA_ARGUMENTS, p->held.data + p->from, j->to - 1 - p->from);
    } else {
        sd_answer_tell(p, SD_DELTA_ARGUMENTS, p->held.data + j->from, j->to - j->from);
    }
    p->at = after;
    return true;
}

static sd_step stop_call(sd_answer_parser *p, sd_answer_state next) {
    p->state = next;
    return SD_STEP_ON;
}

sd_step sd_answer_in_json(sd_answer_parser *p) {
    sd_json_call *j = &p->json;
    verdict v = GO_ON;
    while (p->at < p->held.len && (v == GO_ON || v == AGAIN)) {
        v = take(p, j, p->held.data[p->at]);
        if (v == GO_ON || v == DONE) p->at++;
        if (v == GO_ON && !j->begun && p->at - p->from > SD_ANSWER_HELD) v = NO_CALL;
    }
    if (v == DONE && !complete(p, j)) v = NO_CALL;
    bool arguments = j->at == SD_J_OBJECT || j->at == SD_J_STRING;
    if (v == DONE) {
        p->from = p->at;
        return stop_call(p, SD_IN_JSON_TAIL);
    }
    if (v == BROKEN) return stop_call(p, SD_IN_RAW);
    if (v == NO_CALL && j->begun) {
        p->from = p->at;
        return stop_call(p, SD_IN_TAIL);
    }
    if (v == NO_CALL || (!j->begun && p->ending)) return sd_answer_no_call(p);
    if (arguments && (!j->escape || j->at == SD_J_OBJECT || p->ending))
        sd_answer_tell_held(p, SD_DELTA_ARGUMENTS, p->at);
    else if (j->begun && !arguments)
        p->from = p->at;
    return SD_STEP_MORE;
}

// ---- behind an object

static sd_step next_object(sd_answer_parser *p, size_t at) {
    p->from = at;
    p->fail = 1; // the separator
    p->at = at + 1;
    p->json = (sd_json_call){.at = SD_J_OPEN};
    p->state = SD_IN_JSON;
    return SD_STEP_ON;
}

sd_step sd_answer_in_json_tail(sd_answer_parser *p) {
    size_t at = sd_answer_skip_space(p, p->at);
    if (at == p->held.len && at - p->at <= SD_CALL_SPACE && !p->ending) return SD_STEP_MORE;
    char c = at < p->held.len && at - p->at <= SD_CALL_SPACE ? p->held.data[at] : '\0';
    if (p->list && c == ',') return next_object(p, at);
    if (!p->list && c == ';' && p->o.format == SD_TOOL_LLAMA3) return next_object(p, at);
    if (p->list && c == ']') p->at = at + 1;
    return stop_call(p, SD_IN_TAIL);
}

sd_step sd_answer_in_raw(sd_answer_parser *p) {
    const char *end[3];
    int n = 0, which = 0;
    if (p->close) end[n++] = p->close;
    if (p->close2) end[n++] = p->close2;
    if (p->o.format == SD_TOOL_MISTRAL) end[n++] = "[TOOL_CALLS]";
    sd_find how = SD_FIND_NO;
    // From the byte that broke the JSON on: what lies before it may have been told already.
    p->at = sd_answer_search(p, p->at, end, n, &which, &how);
    sd_answer_tell_held(p, SD_DELTA_ARGUMENTS, p->at);
    if (how != SD_FIND_YES) return SD_STEP_MORE;
    if (end[which][0] == '[') { // the next call's
        sd_answer_end_call(p);
        return SD_STEP_ON;
    }
    p->at += strlen(end[which]);
    sd_answer_close_call(p);
    return SD_STEP_ON;
}

// ---- mistral: a list, or a name in front of its arguments

sd_step sd_answer_in_mistral(sd_answer_parser *p) {
    size_t begin_at = sd_answer_skip_space(p, p->at), at = begin_at;
    if (at - p->at > SD_CALL_SPACE) return sd_answer_no_call(p);
    if (at == p->held.len && !p->ending) return SD_STEP_MORE;
    if (at < p->held.len && (p->held.data[at] == '[' || p->held.data[at] == '{'))
        return stop_call(p, SD_IN_JSON);
    while (at < p->held.len && at - begin_at <= SD_CALL_NAME &&
           sd_answer_good_name(p->held.data + at, 1))
        at++;
    size_t n = at - begin_at;
    if (at == p->held.len && !p->ending && n <= SD_CALL_NAME) return SD_STEP_MORE;
    if (n == 0 || n > SD_CALL_NAME || at == p->held.len) return sd_answer_no_call(p);
    sd_find id = sd_answer_match(p, at, "[CALL_ID]");
    if (id == SD_FIND_YES) {
        size_t from = at += strlen("[CALL_ID]");
        while (at < p->held.len && at - from <= SD_CALL_NAME &&
               sd_answer_good_name(p->held.data + at, 1))
            at++;
        if (at == p->held.len && !p->ending && at - from <= SD_CALL_NAME) return SD_STEP_MORE;
    }
    sd_find args = sd_answer_match(p, at, "[ARGS]");
    if (id == SD_FIND_PARTLY || args == SD_FIND_PARTLY) return SD_STEP_MORE;
    if (args == SD_FIND_YES) at += strlen("[ARGS]");
    size_t open = sd_answer_skip_space(p, at);
    if (open == p->held.len && !p->ending && open - at <= SD_CALL_SPACE) return SD_STEP_MORE;
    if (open == p->held.len || open - at > SD_CALL_SPACE || p->held.data[open] != '{')
        return sd_answer_no_call(p);
    sd_json_call *j = &p->json;
    memcpy(j->name, p->held.data + begin_at, n);
    j->n_name = (int)n;
    j->bare = j->has_arguments = true;
    j->at = SD_J_OBJECT;
    begin(p, j);
    p->from = p->at = open;
    return stop_call(p, SD_IN_JSON);
}
