// The ids of a conversation: a template, then the model's tokenizer. And templates that come from
// elsewhere than the model's files.
#include "model/chat.h"

#include "base/files/file.h"
#include "base/memory.h"
#include "model/model_private.h"

#include <stdio.h>
#include <string.h>

// The text of a token for the template's bos_token and eos_token: "" when there is none.
static sd_status token_text(char **out, const sd_tokenizer *t, int32_t id, sd_error *err) {
    size_t len = 0;
    const char *s = id >= 0 ? sd_tokenizer_bytes(t, id, &len) : "";
    *out = sd_strndup(s ? s : "", s ? len : 0);
    return *out ? SD_OK : sd_fail(err, SD_ENOMEM, "out of memory");
}

sd_status sd_model_chat_ids(const sd_model *m, const json_t *messages, const json_t *tools,
                            const json_t *extra, bool add_generation_prompt, sd_ids *out,
                            sd_error *err) {
    return sd_model_chat_ids_within(m, messages, tools, extra, add_generation_prompt, NULL, out,
                                    err);
}

sd_status sd_model_chat_ids_within(const sd_model *m, const json_t *messages, const json_t *tools,
                                   const json_t *extra, bool add_generation_prompt,
                                   const sd_template_bounds *bounds, sd_ids *out, sd_error *err) {
    sd_status st = SD_OK;
    SD_CHECK(m->tokenizer, err, SD_EINVAL, "%s: has no tokenizer that is understood%s%s", m->path,
             m->tokenizer_error ? ": " : "", m->tokenizer_error ? m->tokenizer_error : "");
    SD_CHECK(m->chat, err, SD_EINVAL, "%s: has no chat template%s%s", m->path,
             m->chat_error ? " that is understood: " : "; give the prompt as plain text",
             m->chat_error ? m->chat_error : "");
    SD_TRY(sd_template_chat_ids(
        m, m->chat, messages, tools, extra,
        (sd_chat_form){.end = add_generation_prompt ? SD_CHAT_ANSWERS : SD_CHAT_ENDS}, bounds, out,
        err));
out:
    return st;
}

void sd_chat_explain(sd_error *err, const sd_template *t, const json_t *messages) {
    size_t i;
    json_t *m;
    if (!err || strstr(sd_template_source(t), "tool_calls")) return;
    json_array_foreach(messages, i, m) {
        if (!json_object_get(m, "tool_calls") || json_is_string(json_object_get(m, "content")))
            continue;
        size_t n = strlen(err->message);
        snprintf(err->message + n, sizeof err->message - n,
                 "; message %zu has tool calls and no content, and this template writes no tool "
                 "calls: give the message a content, or use a template that does",
                 i + 1);
        return;
    }
}

// Stands behind the text that goes on, so that it is found again, whatever the template makes of its blanks.
static const char goes_on_mark[] = "specdec-goes-on-here";

// The messages with the mark behind the last one's content; new.
static json_t *mark_last(const json_t *messages) {
    json_t *out = json_copy((json_t *)(uintptr_t)messages);
    size_t n = json_array_size(out);
    json_t *last = n ? json_copy(json_array_get(out, n - 1)) : NULL;
    const json_t *content = json_object_get(last, "content");
    sd_buf text = sd_buf_make(json_string_length(content) + sizeof goes_on_mark);
    json_t *marked = NULL;
    if (sd_buf_add(&text, json_string_value(content), json_string_length(content)) &&
        sd_buf_adds(&text, goes_on_mark))
        marked = json_stringn(text.data, text.len);
    sd_buf_free(&text);
    if (json_object_set_new(last, "content", marked) == 0 &&
        json_array_set(out, n - 1, last) == 0) {
        json_decref(last);
        return out;
    }
    json_decref(last);
    json_decref(out);
    return NULL;
}

// Cuts the text in front of the last mark.
static sd_status cut_mark(sd_buf *text, sd_error *err) {
    char *at = NULL, *end = text->data ? text->data + text->len : NULL;
    const size_t n = sizeof goes_on_mark - 1;
    for (char *s = text->data; s && (s = memmem(s, (size_t)(end - s), goes_on_mark, n)); s++)
        at = s;
    if (!at)
        return sd_fail(
            err, SD_EINVAL,
            "the chat template does not write the last message's text, so that no answer "
            "can go on with it");
    text->len = (size_t)(at - text->data);
    return SD_OK;
}

sd_status sd_template_chat_ids(const sd_model *m, const sd_template *t, const json_t *messages,
                               const json_t *tools, const json_t *extra, sd_chat_form form,
                               const sd_template_bounds *bounds, sd_ids *out, sd_error *err) {
    enum { MAX_PROMPT = 256 << 20 };
    sd_status st = SD_OK;
    json_t *marked = form.end == SD_CHAT_GOES_ON ? mark_last(messages) : NULL;
    char *bos = NULL, *eos = NULL;
    sd_buf text = sd_buf_make(MAX_PROMPT);
    SD_CHECK_ALLOC(marked || form.end != SD_CHAT_GOES_ON, err);
    SD_TRY(token_text(&bos, m->tokenizer, sd_tokenizer_bos(m->tokenizer), err));
    SD_TRY(token_text(&eos, m->tokenizer, sd_tokenizer_eos(m->tokenizer), err));
    st = sd_template_render_within(t, marked ? marked : messages, tools, extra,
                                   form.end == SD_CHAT_ANSWERS, bos, eos, bounds, &text, err);
    if (st == SD_EINVAL) sd_chat_explain(err, t, messages);
    SD_TRY(st);
    if (marked) SD_TRY(cut_mark(&text, err));
    SD_TRY(sd_tokenizer_encode(m->tokenizer, text.data ? text.data : "", text.len,
                               SD_TOK_SPECIAL | (form.guarded ? SD_TOK_GUARDED : 0), out, err));
out:
    json_decref(marked);
    sd_buf_free(&text);
    free(bos);
    free(eos);
    return st;
}

// ---- templates from elsewhere

// Texts of a trial that no template writes by itself.
static const char asked[] = "specdec-asks-this", answered[] = "specdec-answers-that";

// A trial's text: what is asked, and what is answered unless the answer is to come. with_system: some
// templates insist on a system message.
static sd_status try_out(sd_buf *text, const sd_template *t, bool with_system, bool with_answer,
                         const char *bos, const char *eos, sd_error *err) {
    sd_status st = SD_OK;
    json_t *list = json_array();
    const struct {
        bool there;
        const char *role, *content;
    } message[] = {
        {with_system, "system", "."}, {true, "user", asked}, {with_answer, "assistant", answered}};
    sd_buf_clear(text);
    SD_CHECK_ALLOC(list, err);
    for (int i = 0; i < 3; i++)
        SD_CHECK(!message[i].there ||
                     json_array_append_new(list, json_pack("{s:s, s:s}", "role", message[i].role,
                                                           "content", message[i].content)) == 0,
                 err, SD_ENOMEM, "out of memory");
    SD_TRY(sd_template_render(t, list, NULL, NULL, !with_answer, bos, eos, text, err));
out:
    json_decref(list);
    return st;
}

// A text file that is no template renders too, to itself: then no question is in it.
static sd_status check_renders(const sd_template *t, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    sd_error first = {0}, second = {0};
    sd_buf text = sd_buf_make(1 << 20);
    st = try_out(&text, t, false, false, "", "", &first);
    if (st != SD_OK && try_out(&text, t, true, false, "", "", &second) == SD_OK) st = SD_OK;
    SD_CHECK(st != SD_ENOMEM, err, st, "%s: out of memory", path);
    SD_CHECK(st == SD_OK, err, SD_EFORMAT,
             "%s: this chat template cannot render one message of a user: %s", path, first.message);
    SD_CHECK(text.data && strstr(text.data, asked), err, SD_EFORMAT,
             "%s: rendered with one message of a user, its text does not hold that message; give a "
             "chat template in Jinja",
             path);
out:
    sd_buf_free(&text);
    return st;
}

sd_status sd_chat_template_read(sd_template **out, const char *path, sd_error *err) {
    enum { MAX_BYTES = 1 << 20 }; // as sd_template_open
    sd_status st = SD_OK;
    char *text = NULL;
    size_t len;
    sd_template *t = NULL;
    *out = NULL;
    SD_TRY(sd_file_read(&text, &len, path, MAX_BYTES, err));
    SD_CHECK(len > 0, err, SD_EFORMAT, "%s: is empty; give a chat template in Jinja", path);
    st = sd_template_open(&t, text, len, err);
    if (st != SD_OK) {
        sd_error_prefix(err, "%s", path);
        goto out;
    }
    SD_TRY(check_renders(t, path, err));
    *out = t, t = NULL;
out:
    sd_template_close(t);
    free(text);
    return st;
}

sd_status sd_template_end_token(int32_t *out, const sd_model *m, const sd_template *t,
                                sd_error *err) {
    sd_status st = SD_OK;
    *out = -1;
    sd_error why = {0};
    char *bos = NULL, *eos = NULL;
    sd_buf text = sd_buf_make(1 << 20);
    sd_ids ids = {0};
    if (!m->tokenizer) return SD_OK;
    SD_TRY(token_text(&bos, m->tokenizer, sd_tokenizer_bos(m->tokenizer), err));
    SD_TRY(token_text(&eos, m->tokenizer, sd_tokenizer_eos(m->tokenizer), err));
    st = try_out(&text, t, false, true, bos, eos, &why);
    if (st != SD_OK && st != SD_ENOMEM) st = try_out(&text, t, true, true, bos, eos, &why);
    SD_CHECK(st != SD_ENOMEM, err, st, "%s: out of memory", m->path);
    if (st != SD_OK) { // it renders questions only
        st = SD_OK;
        goto out;
    }
    const char *end = NULL;
    for (const char *s = text.data; s && (s = strstr(s, answered)); s++)
        end = s + sizeof answered - 1;
    if (!end) goto out;
    SD_TRY(sd_tokenizer_encode(m->tokenizer, end, strlen(end), SD_TOK_SPECIAL, &ids, err));
    for (int i = 0; i < ids.n; i++)
        if (sd_tokenizer_is_special(m->tokenizer, ids.id[i])) {
            *out = ids.id[i];
            break;
        }
out:
    sd_ids_free(&ids);
    sd_buf_free(&text);
    free(bos);
    free(eos);
    return st;
}

sd_status sd_model_take_template(sd_model *m, sd_template *t, sd_error *err) {
    sd_template_close(m->chat);
    free(m->chat_error);
    m->chat = t;
    m->chat_error = NULL;
    m->owned->template_taken = true;
    int32_t end;
    sd_status st = sd_template_end_token(&end, m, t, err);
    if (st == SD_OK) sd_model_add_end(m, end);
    return st;
}

bool sd_model_template_is_taken(const sd_model *m) {
    return m->owned && m->owned->template_taken;
}
