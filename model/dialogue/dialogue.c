// Templates are tried out rather than read: what they say in one way another says in ten.
#include "model/dialogue/dialogue.h"

#include "base/clock.h"
#include "base/json.h"
#include "base/memory.h"

#include <stdio.h>
#include <string.h>

enum { MAX_TEXT = 1 << 20, TRIAL_SECONDS = 2 };

// Texts of a trial that no template writes by itself.
#define TOOL "specdec_tool"
#define KEY "specdec_key"
#define VALUE "specdec-value"
#define OTHER "specdec-other"
#define FIRST "specdec-first"
#define RESULT "specdec-result"
#define SYSTEM "specdec-system"
#define LONG_ID "call_0123456789abcdefghijklmn"
#define SHORT_ID "abcdefgh1"

static const char tool_list[] = "[{\"type\": \"function\", \"function\": {\"name\": \"" TOOL
                                "\", \"description\": \"d\", \"parameters\": "
                                "{\"type\": \"object\", \"properties\": {\"" KEY
                                "\": {\"type\": \"string\", \"description\": \"k\"}}, "
                                "\"required\": [\"" KEY "\"]}}}]";
#define USER "{\"role\": \"user\", \"content\": \"q\"}"
#define ASSISTANT "{\"role\": \"assistant\", \"content\": \"a\"}"
#define SAY(role, text) "{\"role\": \"" role "\", \"content\": \"" text "\"}"

typedef struct {
    const sd_template *t;
    const char *bos, *eos;
    sd_buf text;
    json_t *tools;
    bool system_first; // the template insists on a system turn
    sd_status st;
} trial;

// True when the conversation renders; its text is then in r->text.
static bool renders(trial *r, const char *messages, bool with_tools) {
    sd_error err;
    json_t *list = NULL;
    sd_buf_clear(&r->text);
    if (r->st != SD_OK) return false;
    r->st = sd_json_load(&list, messages, strlen(messages), 0, NULL, &err);
    if (r->st != SD_OK || !list) return false;
    sd_template_bounds bounds = {.deadline_ns = sd_now_ns() + TRIAL_SECONDS * INT64_C(1000000000),
                                 .max_bytes = MAX_TEXT};
    sd_status st = sd_template_render_within(r->t, list, with_tools ? r->tools : NULL, NULL, true,
                                             r->bos, r->eos, &bounds, &r->text, &err);
    json_decref(list);
    if (st == SD_ENOMEM) r->st = st;
    return st == SD_OK;
}

static bool has(const trial *r, const char *text) {
    return r->text.len && strstr(r->text.data, text);
}

// The history of calls, in the one form; n calls, whose values are all there.
static bool writes_history(trial *r, const char *id, bool as_text, int n) {
    static const char *const value[] = {VALUE, OTHER};
    char call[2][400] = {"", ""}, messages[2000];
    for (int i = 0; i < n; i++)
        snprintf(call[i], sizeof call[i],
                 "%s{\"id\": \"%s\", \"type\": \"function\", \"function\": {\"name\": \"" TOOL
                 "\", \"arguments\": %s%s%s}}",
                 i ? ", " : "", id, as_text ? "\"{\\\"" KEY "\\\": \\\"" : "{\"" KEY "\": \"",
                 value[i], as_text ? "\\\"}\"" : "\"}");
    snprintf(messages, sizeof messages,
             "[%s" USER ", {\"role\": \"assistant\", \"content\": \"\", \"tool_calls\": [%s%s]}, "
             "{\"role\": \"tool\", \"name\": \"" TOOL
             "\", \"tool_call_id\": \"%s\", \"content\": \"" RESULT "\"}]",
             r->system_first ? SAY("system", "s") ", " : "", call[0], call[1], id);
    return renders(r, messages, true) && has(r, VALUE) && (n == 1 || has(r, OTHER)) &&
           has(r, RESULT) && has(r, TOOL) && !has(r, "'" KEY "'") && !has(r, "\\\"" KEY);
}

static void try_history(sd_dialogue *d, trial *r) {
    for (int i = 0; i < 4 && !d->history; i++) {
        const char *id = i < 2 ? LONG_ID : SHORT_ID;
        if (!writes_history(r, id, i % 2 == 1, 1)) continue;
        d->history = true;
        d->short_ids = i >= 2;
        d->text_arguments = i % 2 == 1;
        d->one_call = !writes_history(r, id, i % 2 == 1, 2);
    }
}

static void try_out(sd_dialogue *d, trial *r) {
    d->system = renders(r, "[" SAY("system", SYSTEM) ", " USER "]", false) && has(r, SYSTEM);
    r->system_first = !renders(r, "[" USER "]", false) && d->system;
    d->tools =
        renders(r, r->system_first ? "[" SAY("system", "s") ", " USER "]" : "[" USER "]", true) &&
        has(r, TOOL);
    // Some keep the last of them alone.
    d->late_system = renders(r,
                             "[" SAY("system", FIRST) ", " USER ", " ASSISTANT
                                                      ", " SAY("system", SYSTEM) ", " USER "]",
                             false) &&
                     has(r, FIRST) && has(r, SYSTEM);
    if (d->tools) try_history(d, r);
}

// Line breaks at the end (or the beginning) of a text, at most two.
static void copy_breaks(char *out, const char *text, size_t len, bool end) {
    size_t n = 0;
    while (n < 2 && n < len && text[end ? len - 1 - n : n] == '\n') out[n++] = '\n';
    out[n] = '\0';
}

// What stands around the closing mark where the template writes reasoning into the history; most do not
// write it in older turns, but in the last one.
static void try_reasoning(sd_dialogue *d, trial *r) {
    sd_think_marks think = sd_think_marks_of(d->think);
    if (d->think == SD_THINK_TAGS) strcpy(d->before_close, "\n"), strcpy(d->behind_close, "\n\n");
    if (!think.close || !renders(r,
                                 "[" USER ", {\"role\": \"assistant\", \"content\": \"" VALUE
                                 "\", \"reasoning_content\": \"" RESULT "\"}]",
                                 false))
        return;
    const char *from = strstr(r->text.data ? r->text.data : "", RESULT),
               *close = from ? strstr(from, think.close) : NULL,
               *to = close ? strstr(close, VALUE) : NULL;
    if (!to) return;
    from += strlen(RESULT), close += strlen(think.close);
    copy_breaks(d->before_close, from, (size_t)(close - from) - strlen(think.close), true);
    copy_breaks(d->behind_close, close, (size_t)(to - close), false);
}

static char *token_text(const sd_tokenizer *t, int32_t id) {
    size_t len = 0;
    const char *s = t && id >= 0 ? sd_tokenizer_bytes(t, id, &len) : "";
    return sd_strndup(s ? s : "", s ? len : 0);
}

sd_status sd_dialogue_of(sd_dialogue *out, const sd_model *m, const sd_template *t, int format,
                         sd_error *err) {
    sd_status st = SD_OK;
    trial r = {.t = t, .text = sd_buf_make(MAX_TEXT)};
    char *bos = NULL, *eos = NULL;
    *out = (sd_dialogue){.format = SD_TOOL_NONE};
    if (!t) return SD_OK;
    bos = token_text(m->tokenizer, m->tokenizer ? sd_tokenizer_bos(m->tokenizer) : -1);
    eos = token_text(m->tokenizer, m->tokenizer ? sd_tokenizer_eos(m->tokenizer) : -1);
    SD_CHECK_ALLOC(bos && eos, err);
    r.bos = bos, r.eos = eos;
    SD_TRY(sd_json_load(&r.tools, tool_list, strlen(tool_list), 0, NULL, err));
    const char *source = sd_template_source(t);
    out->format = format < 0 ? sd_tool_format_of_template(source) : (sd_tool_format)format;
    if (format != SD_TOOL_NONE) out->think = sd_think_style_of_template(source);
    out->args_marker = strstr(source, "[ARGS]") != NULL;
    try_out(out, &r);
    try_reasoning(out, &r);
    if (format < 0 &&
        out->format == SD_TOOL_NONE) { // its calls, if it knows any, could not be read
        out->format = SD_TOOL_HERMES;
        out->tools = out->history = false;
    }
    SD_CHECK(r.st == SD_OK, err, SD_ENOMEM, "out of memory");
    const char *marker[SD_MAX_MARKERS];
    int n = m->tokenizer ? sd_tool_markers(marker, out->format, out->think) : 0;
    for (int i = 0; i < n; i++) {
        int32_t id = sd_tokenizer_find(m->tokenizer, marker[i]);
        if (id >= 0 && sd_tokenizer_is_special(m->tokenizer, id))
            out->marker[out->n_markers++] = id;
    }
out:
    json_decref(r.tools);
    sd_buf_free(&r.text);
    free(bos);
    free(eos);
    return st;
}

bool sd_dialogue_in_reasoning(const sd_dialogue *d, const sd_tokenizer *t, const int32_t *id,
                              int n) {
    enum { TAIL = 16 };
    sd_think_marks think = sd_think_marks_of(d->think);
    sd_buf text = sd_buf_make(64 * 1024);
    sd_error err;
    int from = n > TAIL ? n - TAIL : 0;
    bool in = false;
    if (think.open && t &&
        sd_tokenizer_spell(t, id + from, n - from, false, &text, &err) == SD_OK) {
        size_t len = text.len, open = strlen(think.open);
        while (len > 0 && (text.data[len - 1] == '\n' || text.data[len - 1] == ' ')) len--;
        in = len >= open && memcmp(text.data + len - open, think.open, open) == 0;
    }
    sd_buf_free(&text);
    return in;
}

bool sd_dialogue_reasoning(sd_reasoning_marks *out, const sd_dialogue *d, bool to_answer) {
    sd_think_marks think = sd_think_marks_of(d->think);
    if (d->format == SD_TOOL_HARMONY) {
        *out = (sd_reasoning_marks){"<|channel|>analysis<|message|>", "<|end|>", true,
                                    "<|end|><|start|>assistant"};
        strcat(out->forced,
               to_answer ? "<|channel|>final<|message|>" : "<|channel|>commentary to=functions");
        return true;
    }
    *out = (sd_reasoning_marks){.open = think.open, .close = think.close};
    if (!think.open) return false;
    snprintf(out->forced, sizeof out->forced, "%s%s%s", d->before_close, think.close,
             d->behind_close);
    return true;
}
