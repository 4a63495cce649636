#include "tests/unit/support/tiny/chat.h"

#include "tests/unit/support/files.h"

#include <jansson.h>
#include <string.h>

const char tiny_chatml[] =
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + "
    "message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

// The letter that byte-level BPE writes for a byte, as UTF-8 (GPT-2's table).
static void letter(char out[4], int byte, int *next) {
    bool itself = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    int cp = itself ? byte : 256 + (*next)++;
    if (cp < 128) {
        out[0] = (char)cp, out[1] = '\0';
    } else {
        out[0] = (char)(0xC0 | cp >> 6), out[1] = (char)(0x80 | (cp & 63)), out[2] = '\0';
    }
}

static char *tokenizer_json(const char *normalizer) {
    json_t *vocab = json_object(), *added = json_array();
    char text[4], newline[4] = "", two[8];
    int next = 0;
    for (int b = 0; b < 256; b++) {
        letter(text, b, &next);
        if (b == '\n') strcpy(newline, text);
        json_object_set_new(vocab, text, json_integer(b));
    }
    snprintf(two, sizeof two, "%s%s", newline, newline);
    json_object_set_new(vocab, two, json_integer(256));
    static const char *const special[] = {"<|s|>", "<|im_start|>", "<|im_end|>", "<|tail|>"};
    for (int i = 0; i < 4; i++)
        json_array_append_new(added, json_pack("{s:i, s:s, s:b, s:b, s:b, s:b, s:b}", "id", 257 + i,
                                               "content", special[i], "special", 1, "lstrip", 0,
                                               "rstrip", 0, "single_word", 0, "normalized", 0));
    json_t *norm = normalizer ? json_pack("{s:s}", "type", normalizer) : json_null();
    json_t *j = json_pack("{s:s, s:o, s:o, s:{s:s, s:b, s:b, s:b}, s:n, s:{s:s, s:o, s:[[s,s]]}}",
                          "version", "1.0", "added_tokens", added, "normalizer", norm,
                          "pre_tokenizer", "type", "ByteLevel", "add_prefix_space", 0,
                          "trim_offsets", 1, "use_regex", 1, "post_processor", "model", "type",
                          "BPE", "vocab", vocab, "merges", newline, newline);
    char *out = json_dumps(j, JSON_COMPACT);
    json_decref(j);
    return out;
}

void tiny_chat_open(sd_model *m, const char *chat, const char *normalizer) {
    sd_error err = {0};
    *m = (sd_model){0};
    char *json = tokenizer_json(normalizer), folder[256];
    snprintf(folder, sizeof folder, "%s", temp_text("tokenizer.json", json));
    *strrchr(folder, '/') = '\0';
    temp_text("tokenizer_config.json", "{\"bos_token\": \"<|s|>\", \"eos_token\": \"<|im_end|>\"}");
    if (sd_tokenizer_from_folder(&m->tokenizer, folder, &err) != SD_OK ||
        (chat && sd_template_open(&m->chat, chat, strlen(chat), &err) != SD_OK)) {
        fprintf(stderr, "%s\n", err.message);
        abort();
    }
    free(json);
    m->hp.V = sd_tokenizer_size(m->tokenizer);
    m->end_token[0] = sd_tokenizer_find(m->tokenizer, "<|im_end|>");
    m->n_end_tokens = 1;
}

void tiny_chat_close(sd_model *m) {
    sd_tokenizer_close(m->tokenizer);
    sd_template_close(m->chat);
    *m = (sd_model){0};
}
