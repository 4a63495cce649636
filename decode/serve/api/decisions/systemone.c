// POST /v1/systemone, as TypeSafe's Jev, llama.cpp and Ollama have it:
//
//     {"state": text or JSON, "questions": {"NAME": {"type": ..., "instructions": ..., "criteria": ...}}}
//     noul    criteria {"true": ..., "false": ...}, may be missing    -> {"noul": .94}
//     choice  criteria {"LABEL": description or null, ...}            -> choice, probabilities, confidence
//     score   criteria ["lowest level", ..., "highest"]               -> score, legend, probabilities, confidence
#include "decode/serve/api/decisions/read.h"
#include "decode/serve/api/field.h"

#include <stdio.h>
#include <string.h>

enum { PATH = 96, AT = PATH + 96 }; // bytes of the path of a member, and of a part of it

static bool is(const char *s, const char *word) {
    return s && strcmp(s, word) == 0;
}

// Names and labels go into the paths of errors where they are made of harmless characters.
static bool is_plain(const char *name) {
    static const char good[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-";
    const size_t n = strlen(name);
    return n >= 1 && n <= 64 && strspn(name, good) == n;
}

static bool read_noul(sd_decide *d, sd_decide_question *q, const json_t *criteria, const char *path,
                      sd_api_error *e) {
    if (criteria && !json_is_object(criteria))
        return sd_api_refuse(e, path, "is not {\"true\": ..., \"false\": ...}");
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)criteria, key, v) {
        (void)v;
        if (is(key, "true") || is(key, "false")) continue;
        sd_api_fail(e, 400, path, "%s has '%.60s'; give true and false, or leave both out", path,
                    key);
        return false;
    }
    if (!sd_decide_labels(q, path, 2, 2, 2, e)) return false;
    sd_decide_own_labels(q);
    return sd_decide_text_or(d, &q->label[0].about, json_object_get(criteria, "true"), path, true,
                             e) &&
           sd_decide_text_or(d, &q->label[1].about, json_object_get(criteria, "false"), path, true,
                             e);
}

static bool read_choice(sd_decide *d, sd_decide_question *q, json_t *criteria, const char *path,
                        sd_api_error *e) {
    const char *label;
    json_t *about;
    if (!json_is_object(criteria))
        return sd_api_refuse(e, path, "is not an object of labels with their descriptions");
    if (!sd_decide_labels(q, path, json_object_size(criteria), 2, SD_DECIDE_MAX_LABELS, e))
        return false;
    sd_decide_label *to = q->label;
    json_object_foreach(criteria, label, about) {
        char at[AT];
        json_t *text = json_string(label);
        if (is_plain(label))
            snprintf(at, sizeof at, "%s.%s", path, label);
        else
            snprintf(at, sizeof at, "%s[%d]", path, (int)(to - q->label));
        bool ok = sd_decide_label_text(d, to, text, path, e) &&
                  sd_decide_text_or(d, &to->about, about, at, true, e);
        json_decref(text); // kept, where it is good
        if (!ok) return false;
        to++;
    }
    return true;
}

static bool read_score(sd_decide *d, sd_decide_question *q, const json_t *criteria,
                       const char *path, sd_api_error *e) {
    if (!json_is_array(criteria)) return sd_api_refuse(e, path, "is not an array of levels");
    if (!sd_decide_labels(q, path, json_array_size(criteria), 2, SD_DECIDE_MAX_LEVELS, e))
        return false;
    sd_decide_own_labels(q);
    for (int k = 0; k < q->n_labels; k++) {
        char at[AT];
        snprintf(at, sizeof at, "%s[%d]", path, k);
        if (!sd_decide_text(d, &q->label[k].about, json_array_get(criteria, (size_t)k), at, true,
                            e))
            return false;
    }
    return true;
}

static void path_of(char path[PATH], int i, const char *name, const char *member) {
    if (is_plain(name))
        snprintf(path, PATH, "questions.%.64s%s", name, member);
    else
        snprintf(path, PATH, "questions[%d]%s", i, member);
}

static bool read_question(sd_decide *d, const char *name, const json_t *v, sd_api_error *e) {
    sd_decide_question *q = &d->question[d->n];
    json_t *criteria = json_object_get(v, "criteria"), *text = json_string(name);
    const char *type = sd_field_text(v, "type");
    char path[PATH];
    path_of(path, d->n, name, "");
    d->n++;
    bool ok = sd_decide_text(d, &q->name, text, path, false, e);
    json_decref(text);
    if (!ok) return false;
    if (!json_is_object(v)) return sd_api_refuse(e, path, "is not an object");
    path_of(path, d->n - 1, name, ".instructions");
    if (!sd_decide_text(d, &q->instructions, sd_field_get(v, "instructions"), path, true, e))
        return false;
    path_of(path, d->n - 1, name, ".criteria");
    if (json_is_null(criteria)) criteria = NULL;
    q->kind = is(type, "choice")  ? SD_DECIDE_CHOICE
              : is(type, "score") ? SD_DECIDE_SCORE
                                  : SD_DECIDE_YES_NO;
    if (q->kind == SD_DECIDE_CHOICE) return read_choice(d, q, criteria, path, e);
    if (q->kind == SD_DECIDE_SCORE) return read_score(d, q, criteria, path, e);
    if (is(type, "noul")) return read_noul(d, q, criteria, path, e);
    path_of(path, d->n - 1, name, ".type");
    return sd_api_refuse(e, path, "is not noul, choice or score");
}

static bool read_questions(sd_decide *d, json_t *questions, sd_api_error *e) {
    const char *name;
    json_t *v;
    const bool map = json_is_object(questions);
    if (!sd_decide_reserve(d, map ? questions : NULL, json_object_size(questions), e)) return false;
    json_object_foreach(questions, name, v) if (!read_question(d, name, v, e)) return false;
    return true;
}

static int parse(sd_api_request *out, const char *body, size_t len, sd_api_error *e) {
    if (sd_decide_begin(out, body, len, e)) return e->status;
    const bool ok = sd_decide_state(out->decide, sd_field_get(out->root, "state"), "state", e) &&
                    read_questions(out->decide, json_object_get(out->root, "questions"), e);
    return sd_decide_end(out, ok, e);
}

// ---- the answer

// A level is called by its number.
static void probabilities_write(sd_json_out *t, const sd_decide_question *q) {
    sd_jt_raw(t, ",\"probabilities\":{");
    for (int k = 0; k < q->n_labels; k++) {
        if (k) sd_jt_raw(t, ",");
        sd_jt_word(t, q->label[k].text);
        sd_jt_raw(t, ":");
        sd_jt_real(t, q->p[k]);
    }
    sd_jt_raw(t, "},\"confidence\":");
    sd_jt_real(t, sd_decide_confidence(q));
}

static void answer_write(sd_json_out *t, const sd_decide_question *q) {
    if (q->kind == SD_DECIDE_YES_NO) {
        sd_jt_raw(t, "{\"type\":\"noul\",\"noul\":");
        sd_jt_real(t, q->p[0]);
    } else if (q->kind == SD_DECIDE_CHOICE) {
        sd_jt_raw(t, "{\"type\":\"choice\",\"choice\":");
        sd_jt_word(t, q->label[sd_decide_likeliest(q)].text);
        probabilities_write(t, q);
    } else {
        sd_jt_raw(t, "{\"type\":\"score\",\"score\":");
        sd_jt_real(t, sd_decide_score(q));
        sd_jt_raw(t, ",\"legend\":{");
        for (int k = 0; k < q->n_labels; k++) {
            sd_jt_printf(t, k ? ",\"%d\":" : "\"%d\":", k);
            sd_jt_word(t, q->label[k].about);
        }
        sd_jt_raw(t, "}");
        probabilities_write(t, q);
    }
    sd_jt_raw(t, "}");
}

static bool answers_write(sd_json_out *t, sd_whole *w, const sd_answer *a, const sd_readings *r,
                          const sd_usage *usage, size_t limit) {
    const sd_decide *d = r->decide;
    if (w->choice == 0) {
        sd_jt_raw(t, "{\"model\":");
        sd_jt_word(t, a->model);
        sd_jt_raw(t, ",\"answers\":{");
    }
    for (; w->choice < d->n; w->choice++) {
        if (t->lost || t->buf.len >= limit) return false;
        if (w->choice) sd_jt_raw(t, ",");
        sd_jt_word(t, d->question[w->choice].name);
        sd_jt_raw(t, ":");
        answer_write(t, &d->question[w->choice]);
    }
    sd_jt_printf(t,
                 "},\"usage\":{\"input_tokens\":%d,\"output_tokens\":0,\"total_tokens\":%d,"
                 "\"cached_tokens\":%d}}",
                 usage->prompt, usage->prompt, usage->cached);
    return true;
}

const sd_dialect sd_systemone = {.kind = SD_API_CHAT,
                                 .id_prefix = "so-",
                                 .prompt_field = "state",
                                 .parse = parse,
                                 .whole_type = "application/json",
                                 .readings = answers_write};
