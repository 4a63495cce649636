// qwen3-coder: a function's parameters as tags. The arguments are written here, as JSON: a value is a
// string unless the tool's schema says otherwise and the text is a value of the type that it says.
//
// A string is passed on as it comes. Other values are short as a rule and held until their end; what
// grows beyond SD_ANSWER_VALUE is a string after all.
#include "base/json.h"
#include "model/dialogue/answer_private.h"
#include "model/dialogue/parameter.h"
#include "model/grammar/schema/schema.h"

// Matches one word that may be cut off: 1 it is there, 0 it is not, -1 there must be more first.
static int word_at(const sd_answer_parser *p, size_t at, const char *word) {
    sd_find f = sd_answer_match(p, at, word);
    return f == SD_FIND_YES ? 1 : f == SD_FIND_PARTLY ? -1 : 0;
}

static sd_step go(sd_answer_parser *p, sd_answer_state state, size_t at) {
    p->state = state;
    p->at = at;
    return SD_STEP_ON;
}

// Behind <tool_call>. A model may write JSON there all the same.
static sd_step in_head(sd_answer_parser *p) {
    size_t at = sd_answer_skip_space(p, p->at);
    if (at - p->at > SD_CALL_SPACE) return sd_answer_no_call(p);
    if (at == p->held.len) return p->ending ? sd_answer_no_call(p) : SD_STEP_MORE;
    if (p->held.data[at] == '{') return go(p, SD_IN_JSON, at);
    int f = word_at(p, at, "<function=");
    if (f < 0) return SD_STEP_MORE;
    return f ? go(p, SD_IN_XML_NAME, at + strlen("<function=")) : sd_answer_no_call(p);
}

static sd_step in_name(sd_answer_parser *p) {
    size_t n = 0;
    while (p->at + n < p->held.len && n <= SD_CALL_NAME && p->held.data[p->at + n] != '>') n++;
    if (n <= SD_CALL_NAME && p->at + n == p->held.len && !p->ending) return SD_STEP_MORE;
    if (p->at + n == p->held.len || !sd_answer_good_name(p->held.data + p->at, n))
        return sd_answer_no_call(p);
    memcpy(p->name, p->held.data + p->at, n);
    p->name[n] = '\0';
    if (sd_answer_escapes(p, sd_answer_function(p, p->name), p->at + n))
        return sd_answer_no_call(p);
    p->n_parameters = 0;
    sd_answer_begin_call(p, p->name);
    p->from = p->at + n + 1;
    return go(p, SD_IN_XML_NEXT, p->from);
}

// The object ends, also where the model wrote something else instead of a parameter.
static sd_step end_object(sd_answer_parser *p, size_t at) {
    if (p->n_parameters == 0) sd_answer_tell(p, SD_DELTA_ARGUMENTS, "{", 1);
    sd_answer_tell(p, SD_DELTA_ARGUMENTS, "}", 1);
    p->from = at;
    return go(p, SD_IN_TAIL, at);
}

// The answer ended within a tag: the object stays open, as the model left it, and nothing is lost.
static sd_step cut_off(sd_answer_parser *p) {
    sd_answer_tell_held(p, SD_DELTA_CONTENT, p->held.len);
    return SD_STEP_MORE;
}

static sd_step in_next(sd_answer_parser *p) {
    size_t at = sd_answer_skip_space(p, p->at);
    p->from = p->at = at;
    if (at == p->held.len) return SD_STEP_MORE; // at the end: what the model wrote is not whole
    int parameter = word_at(p, at, "<parameter="), end = word_at(p, at, "</function>");
    if (parameter < 0 || end < 0) return SD_STEP_MORE;
    if (p->ending && !parameter && !end) return cut_off(p);
    if (p->n_parameters == 0 && p->held.data[at] == '{') { // some write the arguments as JSON
        p->json =
            (sd_json_call){.at = SD_J_OBJECT, .bare = true, .begun = true, .has_arguments = true};
        p->close = "</function>", p->then = "</tool_call>";
        p->list = false;
        return go(p, SD_IN_JSON, at);
    }
    if (parameter) return go(p, SD_IN_XML_KEY, at + strlen("<parameter="));
    return end_object(p, at + (end ? strlen("</function>") : 0));
}

// ---- values

static const json_t *parameters_of(const sd_answer_parser *p) {
    bool known;
    return sd_answer_tool(p, p->name, &known);
}

// A value's text as the JSON that it is, or as a string.
static void tell_value(sd_answer_parser *p, const char *text, size_t len) {
    json_t *v = NULL;
    sd_error err;
    size_t from = 0, to = len;
    while (from < to && sd_answer_space(text[from])) from++;
    while (to > from && sd_answer_space(text[to - 1])) to--;
    size_t n = to - from;
    const char *json = text + from, *as = NULL; // as Python writes it
    if (n == 4 && memcmp(json, "True", 4) == 0) as = "true";
    if (n == 5 && memcmp(json, "False", 5) == 0) as = "false";
    if (n == 4 && memcmp(json, "None", 4) == 0) as = "null";
    if (as) json = as, n = strlen(as);
    if (n > 0 && sd_json_load(&v, json, n, JSON_DECODE_ANY, NULL, &err) != SD_OK) p->failed = true;
    if (v && sd_parameter_is(parameters_of(p), p->key, p->types, v)) {
        sd_answer_tell(p, SD_DELTA_ARGUMENTS, json, n);
    } else {
        sd_answer_tell(p, SD_DELTA_ARGUMENTS, "\"", 1);
        sd_answer_tell_escaped(p, text, len);
        sd_answer_tell(p, SD_DELTA_ARGUMENTS, "\"", 1);
    }
    json_decref(v);
}

// ---- parameters

static sd_step in_key(sd_answer_parser *p) {
    size_t n = 0;
    while (p->at + n < p->held.len && n <= SD_CALL_KEY && p->held.data[p->at + n] != '>') n++;
    if (n <= SD_CALL_KEY && p->at + n == p->held.len && !p->ending) return SD_STEP_MORE;
    if (p->at + n == p->held.len && n <= SD_CALL_KEY) return cut_off(p);
    bool good = p->at + n < p->held.len && n > 0 && n <= SD_CALL_KEY &&
                !memchr(p->held.data + p->at, '\n', n) && !memchr(p->held.data + p->at, '\0', n);
    if (!good) return end_object(p, p->from); // the tag is content
    memcpy(p->key, p->held.data + p->at, n);
    p->key[n] = '\0';
    p->from = p->at + n + 1;
    const char *before = p->n_parameters ? ", \"" : "{\"";
    sd_answer_tell(p, SD_DELTA_ARGUMENTS, before, strlen(before));
    p->n_parameters++;
    sd_answer_tell_escaped(p, p->key, n);
    sd_answer_tell(p, SD_DELTA_ARGUMENTS, "\": ", 3);
    p->types = sd_parameter_types(parameters_of(p), p->key, NULL);
    bool other = p->types != SD_T_STRING;
    if (!other) sd_answer_tell(p, SD_DELTA_ARGUMENTS, "\"", 1);
    p->scan = SD_SCAN_BEGIN, p->cut = 0;
    p->trim = true; // one line break in front of the value is not its own
    return go(p, other ? SD_IN_XML_VALUE : SD_IN_XML_STRING, p->from);
}

// False: there must be more first.
static bool skip_break(sd_answer_parser *p) {
    if (!p->trim) return true;
    if (p->from == p->held.len) return false;
    if (p->held.data[p->from] == '\n') p->from++;
    p->at = p->from;
    p->trim = false;
    return true;
}

static const char *const ends[] = {"\n</parameter>", "</parameter>"};

static sd_step in_string(sd_answer_parser *p) {
    int which = 0;
    sd_find how = SD_FIND_NO;
    if (!skip_break(p)) return SD_STEP_MORE;
    size_t at = sd_answer_search(p, p->from, ends, 2, &which, &how);
    sd_answer_tell_escaped(p, p->held.data + p->from, at - p->from);
    p->from = p->at = at;
    if (how != SD_FIND_YES) return SD_STEP_MORE;
    sd_answer_tell(p, SD_DELTA_ARGUMENTS, "\"", 1);
    p->from = at + strlen(ends[which]);
    return go(p, SD_IN_XML_NEXT, p->from);
}

static sd_step end_value(sd_answer_parser *p, size_t at, int which) {
    tell_value(p, p->held.data + p->from, at - p->from);
    p->from = at + strlen(ends[which]);
    return go(p, SD_IN_XML_NEXT, p->from);
}

// The value ends at the first tag after all: what seemed to be a string of JSON around it had no end.
static sd_step end_at_cut(sd_answer_parser *p) {
    size_t at = p->from + p->cut - 1;
    return end_value(p, at, p->held.data[at] == '\n' ? 0 : 1);
}

// One byte of a value. A tag within a string of an object or a list is no tag; JSON decides that as long as it
// is sound, and nothing but the value's end stands behind it.
static void scan_byte(sd_answer_parser *p, char c) {
    if (p->scan == SD_SCAN_BEGIN && !sd_answer_space(c)) {
        bool json = (c == '{' && p->types & SD_T_OBJECT) || (c == '[' && p->types & SD_T_ARRAY);
        p->scan = json ? SD_SCAN_JSON : SD_SCAN_OVER;
        p->json = (sd_json_call){0};
    }
    if (p->scan == SD_SCAN_WHOLE && !sd_answer_space(c)) p->scan = SD_SCAN_OVER;
    if (p->scan != SD_SCAN_JSON) return;
    sd_value_end end = sd_json_value_byte(&p->json, c);
    if (end != SD_VALUE_MORE) p->scan = end == SD_VALUE_DONE ? SD_SCAN_WHOLE : SD_SCAN_OVER;
}

static sd_step in_value(sd_answer_parser *p) {
    if (!skip_break(p)) return SD_STEP_MORE;
    for (; p->at < p->held.len; p->at++) {
        char c = p->held.data[p->at];
        int which = c == '\n' ? 0 : 1;
        sd_find f = c == '\n' || c == '<' ? sd_answer_match(p, p->at, ends[which]) : SD_FIND_NO;
        bool in_string = p->scan == SD_SCAN_JSON && p->json.in_string;
        if (f == SD_FIND_PARTLY) return SD_STEP_MORE;
        if (f == SD_FIND_YES && !in_string) return end_value(p, p->at, which);
        if (f == SD_FIND_YES && !p->cut) p->cut = p->at - p->from + 1;
        scan_byte(p, c);
        bool over = p->at - p->from > SD_ANSWER_VALUE;
        if (p->cut && (over || p->scan == SD_SCAN_OVER)) return end_at_cut(p);
        if (!over) continue;
        sd_answer_tell(p, SD_DELTA_ARGUMENTS, "\"", 1); // too long to be held: a string
        return go(p, SD_IN_XML_STRING, p->from);
    }
    if (p->ending && p->cut) return end_at_cut(p);
    if (p->ending) sd_answer_tell_held(p, SD_DELTA_ARGUMENTS, p->held.len); // not whole: as it is
    return SD_STEP_MORE;
}

sd_step sd_answer_in_xml(sd_answer_parser *p) {
    switch (p->state) {
    case SD_IN_XML:
        return in_head(p);
    case SD_IN_XML_NAME:
        return in_name(p);
    case SD_IN_XML_NEXT:
        return in_next(p);
    case SD_IN_XML_KEY:
        return in_key(p);
    case SD_IN_XML_STRING:
        return in_string(p);
    default:
        return in_value(p);
    }
}
