// The ids of a conversation: the model's template, then its tokenizer.
#include "base/memory.h"
#include "model/model.h"

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
    enum { MAX_PROMPT = 256 << 20 };
    sd_status st = SD_OK;
    char *bos = NULL, *eos = NULL;
    sd_buf text = sd_buf_make(MAX_PROMPT);
    SD_CHECK(m->tokenizer, err, SD_EINVAL, "%s: has no tokenizer that is understood%s%s", m->path,
             m->tokenizer_error ? ": " : "", m->tokenizer_error ? m->tokenizer_error : "");
    SD_CHECK(m->chat, err, SD_EINVAL, "%s: has no chat template%s%s", m->path,
             m->chat_error ? " that is understood: " : "; give the prompt as plain text",
             m->chat_error ? m->chat_error : "");
    SD_TRY(token_text(&bos, m->tokenizer, sd_tokenizer_bos(m->tokenizer), err));
    SD_TRY(token_text(&eos, m->tokenizer, sd_tokenizer_eos(m->tokenizer), err));
    SD_TRY(sd_template_render_within(m->chat, messages, tools, extra, add_generation_prompt, bos,
                                     eos, bounds, &text, err));
    SD_TRY(sd_tokenizer_encode(m->tokenizer, text.data ? text.data : "", text.len, SD_TOK_SPECIAL,
                               out, err));
out:
    sd_buf_free(&text);
    free(bos);
    free(eos);
    return st;
}
