// specdec detokenize: the inverse of tokenize. The bytes go out as they are, without a newline, so
// that `tokenize - | detokenize -` gives its input back.
#include "base/json.h"
#include "cli/open_model.h"
#include "cli/verbs.h"

#include <string.h>

typedef struct {
    const char *model;
    bool skip_special, json;
} args;

static const sd_option rows[] = {
    SD_MODEL_ROW(args, model, "GGUF file or Hugging Face folder; a vocabulary alone will do"),
    {.name = "skip-special",
     .type = SD_OPT_FLAG,
     .offset = offsetof(args, skip_special),
     .help = "leave special tokens out"},
    SD_JSON_ROW(args, json, "{\"text\": ...}, invalid UTF-8 replaced"),
    {0}};

// The ids of all arguments, or of standard input.
static sd_status read_ids(sd_ids *ids, const sd_strings *rest, int V, sd_error *err) {
    sd_status st = SD_OK;
    char *text = NULL;
    size_t len;
    for (int i = 0; i < (rest->n ? rest->n : 1); i++) {
        SD_TRY(sd_text_argument(&text, &len, rest->n ? rest->item[i] : "-", err));
        SD_CHECK(strlen(text) == len, err, SD_EINVAL, "the ids hold a zero byte; give 1,2,3");
        SD_TRY(sd_parse_ids(ids, text, V, err));
        free(text);
        text = NULL;
    }
out:
    free(text);
    return st;
}

static sd_status print_json(const sd_buf *raw, sd_error *err) {
    sd_status st = SD_OK;
    sd_buf text = sd_buf_make(SIZE_MAX / 4);
    sd_utf8_stream s = {0};
    SD_CHECK_ALLOC(sd_utf8_stream_add(&s, raw->data, raw->len, &text) &&
                       sd_utf8_stream_add(&s, NULL, 0, &text) && sd_buf_adds(&text, ""),
                   err);
    json_t *o = json_pack("{s:s%}", "text", text.data, text.len);
    st = sd_json_print(stdout, o, 0, err);
    json_decref(o);
    if (st == SD_OK) putchar('\n');
out:
    sd_buf_free(&text);
    return st;
}

sd_status sd_verb_detokenize(int argc, char **argv, sd_error *err) {
    if (sd_verb_help("detokenize -m MODEL [IDS|-]",
                     "Prints the text of token ids (1,2,3 or 1 2 3); - or none reads standard "
                     "input.",
                     rows, argc, argv))
        return SD_OK;
    sd_status st = SD_OK;
    args a = {0};
    sd_strings rest;
    sd_vocabulary *v = NULL;
    sd_ids ids = {0};
    sd_buf text = sd_buf_make(SIZE_MAX / 4);
    SD_TRY(sd_options_parse(&rest, rows, &a, argc, argv, err));
    SD_TRY(sd_open_vocabulary(&v, a.model, err));
    SD_TRY(read_ids(&ids, &rest, v->V, err));
    SD_TRY(sd_tokenizer_decode(v->tokenizer, ids.id, ids.n, a.skip_special, &text, err));
    SD_CHECK_ALLOC(sd_buf_adds(&text, ""), err);
    if (a.json)
        SD_TRY(print_json(&text, err));
    else
        fwrite(text.data, 1, text.len, stdout);
out:
    sd_buf_free(&text);
    sd_ids_free(&ids);
    sd_vocabulary_close(v);
    return st;
}
