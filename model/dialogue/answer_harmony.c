// Harmony: an answer is a row of messages, each with a channel and perhaps a recipient in its header.
//
//     <|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>commentary to=functions.f
//     <|constrain|>json<|message|>{...}<|call|>
//
// analysis is reasoning, final and a commentary without a recipient are content, a message to
// functions.f is a call with the message as its arguments.
#include "model/dialogue/answer_private.h"

enum { MAX_HEADER = 512 };

static const char *const ends[] = {"<|end|>", "<|call|>", "<|return|>", "<|start|>", "<|channel|>"};

// The word of the header behind `before`, up to a space or a marker; its length.
static size_t word_behind(const char *head, size_t len, const char *before, const char **word) {
    const char *at = memmem(head, len, before, strlen(before));
    if (!at) return 0;
    *word = at + strlen(before);
    size_t n = 0, most = len - (size_t)(*word - head);
    while (n < most && !sd_answer_space((*word)[n]) && (*word)[n] != '<') n++;
    return n;
}

static bool is(const char *word, size_t n, const char *what) {
    return n == strlen(what) && memcmp(word, what, n) == 0;
}

sd_step sd_answer_in_header(sd_answer_parser *p) {
    static const char *const message = "<|message|>";
    static const char functions[] = "functions.";
    int which = 0;
    sd_find how = SD_FIND_NO;
    size_t at = sd_answer_search(p, p->at, &message, 1, &which, &how);
    if (at - p->from > MAX_HEADER || (p->ending && how != SD_FIND_YES)) return sd_answer_no_call(p);
    p->at = at;
    if (how != SD_FIND_YES) return SD_STEP_MORE;
    const char *head = p->held.data + p->from, *channel = NULL, *to = NULL;
    size_t len = at - p->from, n_channel = word_behind(head, len, "<|channel|>", &channel),
           n_to = word_behind(head, len, " to=", &to), before = sizeof functions - 1;
    bool call = p->o.calls && n_to > before && memcmp(to, functions, before) == 0 &&
                sd_answer_good_name(to + before, n_to - before);
    p->body = call                                 ? SD_DELTA_ARGUMENTS
              : is(channel, n_channel, "analysis") ? SD_DELTA_REASONING
                                                   : SD_DELTA_CONTENT;
    if (call) {
        memcpy(p->name, to + before, n_to - before);
        p->name[n_to - before] = '\0';
        sd_answer_begin_call(p, p->name);
    }
    p->n_parameters = 0; // bytes of this message: whether any came
    p->at += strlen(message);
    p->from = p->at;
    p->trim = false;
    p->scan = SD_SCAN_BEGIN;
    p->json = (sd_json_call){0};
    p->state = SD_IN_BODY;
    return SD_STEP_ON;
}

// The first place of a marker, or held.len. What the grammar holds to JSON is sound, and a marker within one of
// its strings is a text that looks like one.
static size_t find_end(sd_answer_parser *p, int *which, sd_find *how) {
    bool json = p->o.held &&
                (p->body == SD_DELTA_ARGUMENTS || (p->body == SD_DELTA_CONTENT && !p->o.calls));
    if (!json) return sd_answer_search(p, p->from, ends, 5, which, how);
    for (size_t at = p->from; at < p->held.len; at++) {
        char c = p->held.data[at];
        for (int i = 0; i < 5 && !(p->scan == SD_SCAN_JSON && p->json.in_string); i++) {
            sd_find f = sd_answer_match(p, at, ends[i]);
            if (f > *how) *how = f, *which = i;
        }
        if (*how != SD_FIND_NO) return at;
        if (p->scan == SD_SCAN_BEGIN && !sd_answer_space(c)) p->scan = SD_SCAN_JSON;
        if (p->scan == SD_SCAN_JSON && sd_json_value_byte(&p->json, c) != SD_VALUE_MORE)
            p->scan = SD_SCAN_OVER;
    }
    return p->held.len;
}

sd_step sd_answer_in_body(sd_answer_parser *p) {
    int which = 0;
    sd_find how = SD_FIND_NO;
    size_t at = find_end(p, &which, &how);
    if (at > p->from) p->n_parameters = 1;
    sd_answer_tell_held(p, p->body, at);
    if (how != SD_FIND_YES) {
        if (!p->ending) return SD_STEP_MORE;
        if (p->body != SD_DELTA_ARGUMENTS || p->n_parameters) return SD_STEP_MORE;
    }
    if (p->body == SD_DELTA_ARGUMENTS && !p->n_parameters)
        sd_answer_tell(p, SD_DELTA_ARGUMENTS, "{}", 2);
    p->n_parameters = 1;
    if (how != SD_FIND_YES) return SD_STEP_MORE;
    if (which < 3) p->at = at + strlen(ends[which]); // the others begin the next header
    sd_answer_end_call(p);
    return SD_STEP_ON;
}
