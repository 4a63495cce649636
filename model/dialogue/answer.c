// The machine: pieces are appended to what is held, and states take from it until they need more. A piece
// is taken in slices, so that what is held has a bound.
#include "model/dialogue/answer_private.h"

enum { SLICE = 4096 };

sd_status sd_answer_parser_open(sd_answer_parser **out, const sd_answer_options *o, sd_delta_fn fn,
                                void *ctx, sd_error *err) {
    sd_status st = SD_OK;
    sd_answer_parser *p = sd_alloc(1, sizeof *p);
    SD_CHECK_ALLOC(p, err);
    p->o = *o;
    p->fn = fn;
    p->ctx = ctx;
    p->think = sd_think_marks_of(o->think);
    p->held = sd_buf_make(SD_ANSWER_VALUE + 4 * SLICE);
    p->fresh = true;
    if (o->in_reasoning && p->think.close) p->state = SD_IN_REASONING, p->trim = p->begun = true;
    *out = p;
out:
    return st;
}

void sd_answer_parser_close(sd_answer_parser *p) {
    if (p) sd_buf_free(&p->held);
    free(p);
}

int sd_answer_parser_calls(const sd_answer_parser *p) {
    return p->o.max_calls > 0 && p->calls > p->o.max_calls ? p->o.max_calls : p->calls;
}

bool sd_answer_parser_in_call(const sd_answer_parser *p) {
    switch (p->state) {
    case SD_IN_JSON:
        return p->json.begun;
    case SD_IN_BODY:
        return p->body == SD_DELTA_ARGUMENTS;
    default:
        return p->state == SD_IN_RAW || (p->state >= SD_IN_XML_NEXT && p->state <= SD_IN_XML_VALUE);
    }
}

// ---- what states use

sd_find sd_answer_match(const sd_answer_parser *p, size_t at, const char *marker) {
    size_t n = strlen(marker), left = p->held.len - at;
    if (left >= n) return memcmp(p->held.data + at, marker, n) == 0 ? SD_FIND_YES : SD_FIND_NO;
    if (p->ending || (left && memcmp(p->held.data + at, marker, left) != 0)) return SD_FIND_NO;
    return SD_FIND_PARTLY;
}

size_t sd_answer_search(const sd_answer_parser *p, size_t at, const char *const *marker, int n,
                        int *which, sd_find *how) {
    for (; at < p->held.len; at++) {
        *how = SD_FIND_NO;
        for (int i = 0; i < n; i++) {
            if (marker[i][0] != p->held.data[at]) continue;
            sd_find f = sd_answer_match(p, at, marker[i]);
            if (f > *how) *how = f, *which = i;
        }
        if (*how != SD_FIND_NO) return at;
    }
    *how = SD_FIND_NO;
    return at;
}

void sd_answer_tell(sd_answer_parser *p, sd_delta_kind kind, const char *text, size_t len) {
    bool of_call = kind == SD_DELTA_CALL || kind == SD_DELTA_ARGUMENTS;
    if (len == 0 || p->failed || (of_call && p->o.max_calls > 0 && p->calls > p->o.max_calls))
        return;
    p->begun = true;
    p->said |= kind == SD_DELTA_CONTENT || kind == SD_DELTA_CALL;
    sd_delta d = {.kind = kind, .call = of_call ? p->calls - 1 : 0, .text = text, .len = len};
    if (!p->fn(p->ctx, &d)) p->failed = true;
}

void sd_answer_tell_held(sd_answer_parser *p, sd_delta_kind kind, size_t to) {
    if (to > p->from) sd_answer_tell(p, kind, p->held.data + p->from, to - p->from);
    p->from = p->at = to;
}

void sd_answer_begin_call(sd_answer_parser *p, const char *name) {
    p->calls++;
    sd_answer_tell(p, SD_DELTA_CALL, name, strlen(name));
}

void sd_answer_end_call(sd_answer_parser *p) {
    p->state = SD_IN_TEXT;
    p->from = p->at;
    p->fresh = p->trim = p->begun = true;
}

void sd_answer_close_call(sd_answer_parser *p) {
    if (!p->then) {
        sd_answer_end_call(p);
        return;
    }
    p->close = p->then;
    p->then = NULL;
    p->from = p->at;
    p->state = SD_IN_TAIL;
}

sd_step sd_answer_no_call(sd_answer_parser *p) {
    size_t n = p->fail ? p->fail : 1;
    p->fail = 0;
    p->state = SD_IN_TEXT;
    p->fresh = false;
    if (p->from + n > p->held.len) n = p->held.len - p->from;
    sd_answer_tell_held(p, SD_DELTA_CONTENT, p->from + n);
    return SD_STEP_ON;
}

size_t sd_answer_skip_space(const sd_answer_parser *p, size_t at) {
    while (at < p->held.len && sd_answer_space(p->held.data[at])) at++;
    return at;
}

bool sd_answer_good_name(const char *name, size_t len) {
    if (len == 0 || len > SD_CALL_NAME) return false;
    for (size_t i = 0; i < len; i++) {
        char c = name[i];
        bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                    c == '_' || c == '-' || c == '.';
        if (!good) return false;
    }
    return true;
}

const json_t *sd_answer_function(const sd_answer_parser *p, const char *name) {
    size_t i;
    json_t *tool;
    json_array_foreach(p->o.tools, i, tool) {
        const json_t *f = json_object_get(tool, "function");
        const char *its = json_string_value(json_object_get(f, "name"));
        if (its && strcmp(its, name) == 0) return f;
    }
    return NULL;
}

const json_t *sd_answer_tool(const sd_answer_parser *p, const char *name, bool *known) {
    const json_t *f = sd_answer_function(p, name);
    *known = f != NULL;
    return json_object_get(f, "parameters");
}

bool sd_answer_escapes(const sd_answer_parser *p, const json_t *function, size_t to) {
    const sd_bare_call *form;
    if (!p->o.held || !p->bare || !json_is_true(json_object_get(function, "strict"))) return false;
    const char *name = json_string_value(json_object_get(function, "name"));
    size_t from = sd_answer_skip_space(p, p->from);
    int n = sd_tool_bare_calls(&form, p->o.format);
    for (int i = 0; i < n && !p->said; i++) {
        size_t open = strlen(form[i].open);
        if (to - from == open + strlen(name) &&
            memcmp(p->held.data + from, form[i].open, open) == 0)
            return false;
    }
    return true;
}

void sd_answer_tell_escaped(sd_answer_parser *p, const char *text, size_t len) {
    static const char *const two[] = {
        ['\n'] = "\\n", ['\r'] = "\\r", ['\t'] = "\\t", ['\b'] = "\\b",
        ['\f'] = "\\f", ['"'] = "\\\"", ['\\'] = "\\\\"};
    size_t begin = 0;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        const char *as = c < sizeof two / sizeof two[0] ? two[c] : NULL;
        if (!as && c >= 0x20) continue;
        sd_answer_tell(p, SD_DELTA_ARGUMENTS, text + begin, i - begin);
        begin = i + 1;
        char hex[8];
        if (!as) snprintf(hex, sizeof hex, "\\u%04x", c);
        sd_answer_tell(p, SD_DELTA_ARGUMENTS, as ? as : hex, strlen(as ? as : hex));
    }
    sd_answer_tell(p, SD_DELTA_ARGUMENTS, text + begin, len - begin);
}

// ---- text

typedef enum {
    TO_THINK,
    TO_JSON,
    TO_LIST,
    TO_MISTRAL,
    TO_XML,
    TO_FUNCTION,
    TO_BLOCK,
    TO_JSON_BLOCK,
    TO_HEADER
} action;

typedef struct {
    const char *marker;
    action action;
    bool first; // only where nothing stands before it
    bool bare;  // no marker of the format's
} entry;

// The markers that matter now; the number of them.
static int markers_now(const sd_answer_parser *p, entry *out) {
    static const entry of[SD_TOOL_FORMAT_COUNT][4] = {
        [SD_TOOL_HERMES] = {{"<tool_call>", TO_JSON, false, false},
                            {"```json", TO_JSON_BLOCK, false, true},
                            {"{", TO_JSON, true, true}},
        [SD_TOOL_QWEN3_CODER] = {{"<tool_call>", TO_XML, false, false},
                                 {"<function=", TO_FUNCTION, false, true}},
        [SD_TOOL_LLAMA3] = {{"<|python_tag|>", TO_JSON, false, false},
                            {"{", TO_JSON, true, false}}, // the grammar's own form
        [SD_TOOL_MISTRAL] = {{"[TOOL_CALLS]", TO_MISTRAL, false, false}},
        [SD_TOOL_GEMMA] = {{"```tool_code", TO_BLOCK, false, false},
                           {"```tool_call", TO_BLOCK, false, false},
                           {"```json", TO_JSON_BLOCK, false, true},
                           {"{", TO_JSON, true, true}},
        [SD_TOOL_PHI4] = {{"<|tool_call|>", TO_LIST, false, false},
                          {"functools[", TO_LIST, true, true}},
    };
    // The prompt may end where a header begins.
    static const entry harmony[] = {{"<|channel|>", TO_HEADER, false, false},
                                    {"<|start|>", TO_HEADER, false, false},
                                    {"to=functions.", TO_HEADER, true, false}};
    int n = 0;
    if (p->o.format == SD_TOOL_HARMONY)
        for (int i = 0; i < 3; i++) out[n++] = harmony[i];
    if (p->think.open && !p->begun) out[n++] = (entry){p->think.open, TO_THINK, true, false};
    for (int i = 0; p->o.calls && i < 4 && of[p->o.format][i].marker; i++)
        out[n++] = of[p->o.format][i];
    return n;
}

static void take_marker(sd_answer_parser *p, const entry *e, size_t at) {
    static const sd_json_call none = {0};
    size_t n = strlen(e->marker);
    p->fail = at + n - p->from; // white space in front of it, and the marker
    p->at = at + n;
    p->known = e->first || e->action == TO_JSON_BLOCK;
    p->bare = e->bare;
    p->list = false;
    p->close = p->close2 = p->then = NULL;
    p->json = none;
    switch (e->action) {
    case TO_THINK:
        p->from = p->at;
        p->begun = p->trim = true;
        p->state = SD_IN_REASONING;
        return;
    case TO_JSON:
        if (p->o.format == SD_TOOL_HERMES) p->close = "</tool_call>";
        if (e->first) p->at = at; // the bracket is the object's
        p->state = SD_IN_JSON;
        return;
    case TO_LIST:
        p->list = true;
        p->close = "<|/tool_call|>", p->close2 = "</|tool_call|>";
        if (e->first) p->at--, p->fail--, p->known = false; // the bracket is the list's
        p->state = SD_IN_JSON;
        return;
    case TO_MISTRAL:
        p->state = SD_IN_MISTRAL;
        return;
    case TO_XML:
        p->close = "</tool_call>";
        p->state = SD_IN_XML;
        return;
    case TO_FUNCTION:
        p->close = "</tool_call>";
        p->state = SD_IN_XML_NAME;
        return;
    case TO_BLOCK:
        p->close = "```";
        p->state = SD_IN_BLOCK;
        return;
    case TO_JSON_BLOCK:
        p->close = "```";
        p->state = SD_IN_JSON;
        return;
    case TO_HEADER:
        p->state = SD_IN_HEADER;
        return;
    }
}

// Where nothing was said yet, white space waits for what follows it. False: there must be more first.
static bool take_space(sd_answer_parser *p) {
    size_t at = sd_answer_skip_space(p, p->from);
    if (at == p->held.len || at - p->from > SD_CALL_SPACE) {
        if (at - p->from > SD_CALL_SPACE) {
            p->fresh = false;
            // The same number of bytes, however many came at once.
            at = p->from + SD_CALL_SPACE + 1;
        } else if (!p->ending) {
            return false;
        }
        if (p->trim) p->from = at;
        sd_answer_tell_held(p, SD_DELTA_CONTENT, at);
        return !p->fresh;
    }
    p->at = at;
    return true;
}

static sd_step in_text(sd_answer_parser *p) {
    entry e[SD_MAX_MARKERS];
    const char *marker[SD_MAX_MARKERS], *later[SD_MAX_MARKERS];
    int n = markers_now(p, e), n_later = 0, which = 0, map[SD_MAX_MARKERS];
    p->at = p->from;
    if (p->fresh && !take_space(p)) return SD_STEP_MORE;
    if (p->at == p->held.len) return SD_STEP_MORE;
    sd_find how = SD_FIND_NO;
    for (int i = 0; i < n; i++) {
        marker[i] = e[i].marker;
        if (!e[i].first) map[n_later] = i, later[n_later++] = e[i].marker;
    }
    if (p->fresh) { // at the first byte that counts
        for (int i = 0; i < n; i++) {
            sd_find f = sd_answer_match(p, p->at, marker[i]);
            if (f > how) how = f, which = i;
        }
        if (how == SD_FIND_PARTLY) return SD_STEP_MORE;
        if (p->trim) p->from = p->at;
        if (how == SD_FIND_YES) {
            take_marker(p, &e[which], p->at);
            return SD_STEP_ON;
        }
        p->fresh = false;
    }
    size_t at = sd_answer_search(p, p->at, later, n_later, &which, &how);
    sd_answer_tell_held(p, SD_DELTA_CONTENT, at);
    p->trim = false;
    if (how != SD_FIND_YES) return SD_STEP_MORE;
    take_marker(p, &e[map[which]], at);
    return SD_STEP_ON;
}

// ---- reasoning

static sd_step in_reasoning(sd_answer_parser *p) {
    int which = 0;
    sd_find how = SD_FIND_NO;
    if (p->trim) {
        p->from = sd_answer_skip_space(p, p->from);
        if (p->from == p->held.len) return SD_STEP_MORE;
    }
    size_t at = sd_answer_search(p, p->from, &p->think.close, 1, &which, &how), to = at;
    // White space in front of the marker is not the reasoning's; it is held until more is known.
    while (to > p->from && at - to < SD_CALL_SPACE && sd_answer_space(p->held.data[to - 1])) to--;
    if (how == SD_FIND_NO && p->ending) to = at;
    if (to > p->from) p->trim = false;
    sd_answer_tell_held(p, SD_DELTA_REASONING, to);
    if (how != SD_FIND_YES) return SD_STEP_MORE;
    p->at = at + strlen(p->think.close);
    sd_answer_end_call(p);
    return SD_STEP_ON;
}

// ---- a call's closing marker

static sd_step in_tail(sd_answer_parser *p) {
    size_t at = sd_answer_skip_space(p, p->at);
    if (at == p->held.len && at - p->at <= SD_CALL_SPACE && !p->ending) return SD_STEP_MORE;
    const char *close[] = {p->close, p->close2};
    sd_find how = SD_FIND_NO;
    for (int i = 0; i < 2 && close[i] && at - p->at <= SD_CALL_SPACE; i++) {
        sd_find f = sd_answer_match(p, at, close[i]);
        if (f == SD_FIND_YES) {
            p->at = at + strlen(close[i]);
            sd_answer_close_call(p);
            return SD_STEP_ON;
        }
        if (f > how) how = f;
    }
    if (how == SD_FIND_PARTLY) return SD_STEP_MORE;
    sd_answer_end_call(p);
    return SD_STEP_ON;
}

// ---- pieces

static sd_step step(sd_answer_parser *p) {
    switch (p->state) {
    case SD_IN_TEXT:
        return in_text(p);
    case SD_IN_REASONING:
        return in_reasoning(p);
    case SD_IN_JSON:
        return sd_answer_in_json(p);
    case SD_IN_JSON_TAIL:
        return sd_answer_in_json_tail(p);
    case SD_IN_RAW:
        return sd_answer_in_raw(p);
    case SD_IN_MISTRAL:
        return sd_answer_in_mistral(p);
    case SD_IN_TAIL:
        return in_tail(p);
    case SD_IN_BLOCK:
        return sd_answer_in_block(p);
    case SD_IN_HEADER:
        return sd_answer_in_header(p);
    case SD_IN_BODY:
        return sd_answer_in_body(p);
    default:
        return sd_answer_in_xml(p);
    }
}

// What was decided leaves the buffer.
static void drop_taken(sd_answer_parser *p) {
    size_t n = p->from;
    if (n == 0) return;
    memmove(p->held.data, p->held.data + n, p->held.len - n);
    p->held.len -= n;
    p->at -= n;
    p->from = 0;
    if (p->json.from < n) return; // no arguments that wait for their name
    p->json.from -= n;
    if (p->json.to) p->json.to -= n;
}

bool sd_answer_parser_add(sd_answer_parser *p, const char *text, size_t len) {
    while (len > 0 && !p->failed) {
        size_t n = len < SLICE ? len : SLICE;
        while (n < len && n > SLICE - 4 && ((unsigned char)text[n] & 0xC0) == 0x80)
            n--; // whole characters
        if (!sd_buf_add(&p->held, text, n)) p->failed = true;
        text += n, len -= n;
        while (!p->failed && step(p) == SD_STEP_ON) {
        }
        drop_taken(p);
    }
    return !p->failed;
}

// At the end nothing is PARTLY: each state decides, and what is left then was told already.
bool sd_answer_parser_end(sd_answer_parser *p) {
    p->ending = true;
    while (!p->failed && step(p) == SD_STEP_ON) {
    }
    return !p->failed;
}
