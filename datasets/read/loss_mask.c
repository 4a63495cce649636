// Rendering gives ranges of bytes, tokens are placed by the bytes they stand for. Byte-level
// tokenizers give back exactly the text that went in; one that normalises (NFC) or puts spaces in
// front does not, and then the edges are moved into its text by tokenising the part before them.
#include "datasets/read/loss_mask.h"

#include "base/list.h"
#include "model/chat.h"

#include <string.h>

typedef struct {
    size_t begin, end; // bytes of the rendering
} range;

static sd_status ensure_room(sd_labelled *l, sd_error *err) {
    if (!SD_GROW(l->supervised, l->ids.n, l->cap)) return sd_fail(err, SD_ENOMEM, "out of memory");
    if (l->ids.n) memset(l->supervised, 0, (size_t)l->ids.n);
    return SD_OK;
}

// A copy that ends with 0; NULL when out of memory.
static char *token_text(const sd_tokenizer *t, int32_t id) {
    size_t len = 0;
    const char *s = id < 0 ? "" : sd_tokenizer_bytes(t, id, &len);
    return sd_strndup(s, len);
}

static sd_status render(sd_buf *out, const sd_label_options *o, const sd_example *ex,
                        const json_t *messages, bool generation_prompt, sd_error *err) {
    sd_status st = SD_OK;
    const sd_tokenizer *t = o->model->tokenizer;
    char *bos = token_text(t, sd_tokenizer_bos(t)), *eos = token_text(t, sd_tokenizer_eos(t));
    if (!out->max) *out = sd_buf_make((size_t)SD_READER_MAX_RECORD * 2);
    sd_buf_clear(out);
    SD_CHECK(bos && eos, err, SD_ENOMEM, "out of memory");
    SD_TRY(sd_template_render(o->model->chat, messages, ex->tools, ex->kwargs, generation_prompt,
                              bos, eos, out, err));
out:
    free(bos);
    free(eos);
    return st;
}

static bool begins_with(const sd_buf *text, const sd_buf *prefix) {
    return text->len >= prefix->len &&
           (!prefix->len || memcmp(text->data, prefix->data, prefix->len) == 0);
}

static bool is_assistant(const json_t *messages, size_t i) {
    const char *role = json_string_value(json_object_get(json_array_get(messages, i), "role"));
    return role && strcmp(role, "assistant") == 0;
}

// The range that turn i fills in the full rendering; an assistant's begins behind the generation
// prompt. `before` holds messages[0..i) and grows by message i.
static sd_status turn_range(range *r, sd_labelled *l, json_t *before, size_t i,
                            const sd_example *ex, const sd_label_options *o, sd_error *err) {
    sd_status st = SD_OK;
    size_t n = json_array_size(ex->messages);
    l->prompt.len = 0;
    if (i > 0 || is_assistant(ex->messages, i))
        st = render(&l->prompt, o, ex, before, is_assistant(ex->messages, i), err);
    if (st != SD_OK) {
        sd_error_prefix(err, "the chat template, for the %zu messages before answer %zu", i, i);
        return st;
    }
    SD_CHECK(json_array_append(before, json_array_get(ex->messages, i)) == 0, err, SD_ENOMEM,
             "out of memory");
    const sd_buf *whole = &l->full;
    if (i + 1 < n) {
        SD_TRY(render(&l->whole, o, ex, before, false, err));
        whole = &l->whole;
        SD_CHECK(begins_with(&l->full, whole), err, SD_EFORMAT,
                 "%s[%zu]: the chat template writes this answer differently when more "
                 "messages follow, so its place is not known; use loss_on last",
                 ex->list, i - (size_t)ex->added);
    }
    SD_CHECK(begins_with(whole, &l->prompt), err, SD_EFORMAT,
             "%s[%zu]: the chat template's prompt for this answer is not the beginning of "
             "what it writes with the answer, so the two cannot be told apart; give another "
             "template or use loss_on all",
             ex->list, i - (size_t)ex->added);
    *r = (range){l->prompt.len, whole->len};
out:
    return st;
}

// The turns that are learnt, in order; with loss on everything those that are not.
static sd_status find_ranges(range **out, size_t *n_out, sd_labelled *l, const sd_example *ex,
                             const sd_label_options *o, sd_error *err) {
    sd_status st = SD_OK;
    size_t n = json_array_size(ex->messages), last = n;
    json_t *before = json_array();
    range *r = sd_alloc(n + 1, sizeof *r);
    *n_out = 0;
    SD_CHECK(before && r, err, SD_ENOMEM, "out of memory");
    for (size_t i = 0; i < n; i++)
        if (is_assistant(ex->messages, i)) last = i;
    for (size_t i = 0; i < n; i++) {
        bool wanted = o->loss_on == SD_LOSS_ALL
                          ? ex->unweighted[i]
                          : is_assistant(ex->messages, i) && !ex->unweighted[i] &&
                                (o->loss_on == SD_LOSS_ASSISTANT || i == last);
        if (wanted)
            SD_TRY(turn_range(&r[(*n_out)++], l, before, i, ex, o, err));
        else
            SD_CHECK(json_array_append(before, json_array_get(ex->messages, i)) == 0, err,
                     SD_ENOMEM, "out of memory");
    }
    *out = r, r = NULL;
out:
    json_decref(before);
    free(r);
    return st;
}

// True when the tokens stand for exactly these bytes.
static bool spell(const sd_tokenizer *t, const sd_ids *ids, const sd_buf *text) {
    size_t at = 0;
    for (int i = 0; i < ids->n; i++) {
        size_t len;
        const char *s = sd_tokenizer_bytes(t, ids->id[i], &len);
        if (len > text->len - at || (len && memcmp(text->data + at, s, len) != 0)) return false;
        at += len;
    }
    return at == text->len;
}

// Finds the end of a prefix of the rendering in the text that the tokens stand for.
static sd_status move_edge(size_t *edge, const sd_labelled *l, const sd_tokenizer *t,
                           sd_error *err) {
    sd_status st = SD_OK;
    sd_ids ids = {0};
    sd_buf all = sd_buf_make(l->full.max), part = sd_buf_make(l->full.max);
    SD_TRY(sd_tokenizer_encode(t, l->full.data, *edge, SD_TOK_SPECIAL, &ids, err));
    SD_TRY(sd_tokenizer_spell(t, ids.id, ids.n, false, &part, err));
    SD_TRY(sd_tokenizer_spell(t, l->ids.id, l->ids.n, false, &all, err));
    SD_CHECK(begins_with(&all, &part), err, SD_EFORMAT,
             "the tokenizer writes the prompt differently when the answer follows, so the two "
             "cannot be told apart");
    *edge = part.len;
out:
    sd_ids_free(&ids);
    sd_buf_free(&all);
    sd_buf_free(&part);
    return st;
}

// Marks the tokens that lie in r; *first is where to go on for the next range.
static void mark(sd_labelled *l, const sd_label_options *o, range r, int *first, size_t *at) {
    const sd_tokenizer *t = o->model->tokenizer;
    int i = *first, begin = -1, end_token = -1;
    for (; i < l->ids.n && *at < r.end; i++) {
        size_t len;
        sd_tokenizer_bytes(t, l->ids.id[i], &len);
        if (*at >= r.begin && *at + len <= r.end) {
            if (begin < 0) begin = i;
            if (sd_model_is_end(o->model, l->ids.id[i])) end_token = i;
            l->supervised[i] = 1;
        }
        *at += len;
    }
    *first = i;
    // The model's turn ends with the end-of-turn token: what the template writes behind it, up to
    // the next turn, is never the model's to write.
    if (end_token >= 0 && !o->template_tail) {
        int keep = end_token + (o->train_on_eot ? 1 : 0);
        memset(l->supervised + keep, 0, (size_t)(i - keep));
    } else if (end_token >= 0 && !o->train_on_eot) {
        memset(l->supervised + end_token, 0, (size_t)(i - end_token));
    }
}

// Takes every token that touches the range out of the loss.
static void unmark(sd_labelled *l, const sd_label_options *o, range r) {
    size_t at = 0;
    for (int i = 0; i < l->ids.n && at < r.end; i++) {
        size_t len;
        sd_tokenizer_bytes(o->model->tokenizer, l->ids.id[i], &len);
        if (at + len > r.begin) l->supervised[i] = 0;
        at += len;
    }
}

static sd_status label_chat(sd_labelled *l, const sd_example *ex, const sd_label_options *o,
                            sd_error *err) {
    sd_status st = SD_OK;
    range *r = NULL;
    size_t n = 0;
    const sd_model *m = o->model;
    SD_CHECK(m->chat, err, SD_EINVAL,
             "the model has no usable chat template%s%s; give one (data.chat_template in a recipe, "
             "--chat-template FILE), or use the formats completion or text",
             m->chat_error ? ": " : "", m->chat_error ? m->chat_error : "");
    st = render(&l->full, o, ex, ex->messages, false, err);
    if (st != SD_OK) {
        sd_error_prefix(err, "the chat template");
        if (st == SD_EINVAL) sd_chat_explain(err, m->chat, ex->messages);
        goto out;
    }
    SD_TRY(sd_tokenizer_encode(m->tokenizer, l->full.data ? l->full.data : "", l->full.len,
                               SD_TOK_SPECIAL, &l->ids, err));
    SD_TRY(ensure_room(l, err));
    if (o->loss_on == SD_LOSS_ALL && l->ids.n) memset(l->supervised, 1, (size_t)l->ids.n);
    SD_TRY(find_ranges(&r, &n, l, ex, o, err));
    if (!spell(m->tokenizer, &l->ids, &l->full))
        for (size_t i = 0; i < n; i++) {
            SD_TRY(move_edge(&r[i].begin, l, m->tokenizer, err));
            SD_TRY(move_edge(&r[i].end, l, m->tokenizer, err));
        }
    int first = 0;
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        if (o->loss_on == SD_LOSS_ALL)
            unmark(l, o, r[i]);
        else
            mark(l, o, r[i], &first, &at);
    }
out:
    free(r);
    return st;
}

// [bos] prompt completion eos, or [bos] text eos; bos where the tokenizer asks for one, eos unless
// the text ends with it already.
static sd_status label_text(sd_labelled *l, const sd_example *ex, const sd_label_options *o,
                            sd_error *err) {
    sd_status st = SD_OK;
    const sd_tokenizer *t = o->model->tokenizer;
    sd_ids body = {0};
    sd_label_options all_of_it = *o;
    all_of_it.train_on_eot = true; // the eos that counts is the one added here
    sd_buf_clear(&l->full);
    if (!l->full.max) l->full = sd_buf_make((size_t)SD_READER_MAX_RECORD * 2);
    SD_CHECK(sd_buf_add(&l->full, ex->text, ex->len), err, SD_ENOMEM, "out of memory");
    SD_TRY(sd_tokenizer_encode(t, ex->text, ex->len, SD_TOK_SPECIAL, &l->ids, err));
    SD_TRY(ensure_room(l, err));
    range r = {o->loss_on == SD_LOSS_ALL ? 0 : ex->prompt_len, ex->len};
    if (!spell(t, &l->ids, &l->full)) {
        SD_TRY(move_edge(&r.begin, l, t, err));
        SD_TRY(move_edge(&r.end, l, t, err));
    }
    int first = 0;
    size_t at = 0;
    mark(l, &all_of_it, r, &first, &at);

    int n = l->ids.n;
    int32_t eos = sd_tokenizer_eos(t);
    bool add_eos = eos >= 0 && (n == 0 || l->ids.id[n - 1] != eos);
    SD_TRY(sd_tokenizer_encode(t, "", 0, SD_TOK_ADD_BOS, &body, err));
    int bos = body.n;
    SD_CHECK(sd_ids_add(&body, l->ids.id, n) && (!add_eos || sd_ids_add(&body, &eos, 1)), err,
             SD_ENOMEM, "out of memory");
    sd_ids swap = l->ids;
    l->ids = body;
    body = swap;
    uint8_t *flags = sd_alloc((size_t)l->ids.n, 1);
    SD_CHECK_ALLOC(flags, err);
    if (n) memcpy(flags + bos, l->supervised, (size_t)n);
    if (add_eos) flags[bos + n] = o->train_on_eot;
    free(l->supervised);
    l->supervised = flags;
    l->cap = l->ids.n;
out:
    sd_ids_free(&body);
    return st;
}

sd_status sd_label_example(sd_labelled *l, const sd_example *ex, const sd_label_options *o,
                           sd_error *err) {
    l->ids.n = 0;
    l->n_supervised = 0;
    if (!o->model->tokenizer)
        return sd_fail(err, SD_EINVAL, "%s: the model has no tokenizer; give one that has",
                       o->model->path ? o->model->path : "model");
    sd_status st =
        ex->kind == SD_EXAMPLE_CHAT ? label_chat(l, ex, o, err) : label_text(l, ex, o, err);
    if (st != SD_OK) return st;
    for (int i = 0; i < l->ids.n; i++) l->n_supervised += l->supervised[i];
    return SD_OK;
}

void sd_labelled_free(sd_labelled *l) {
    sd_ids_free(&l->ids);
    free(l->supervised);
    sd_buf_free(&l->full);
    sd_buf_free(&l->prompt);
    sd_buf_free(&l->whole);
    *l = (sd_labelled){0};
}
