// specdec tokenize: what the model sees of a text. Special tokens in the text are recognised; a
// beginning-of-sequence token is added only on request, so that tokenize and detokenize are
// inverse.
#include "base/json.h"
#include "cli/open_model.h"
#include "cli/verbs.h"

#include <string.h>

typedef struct {
    const char *model;
    bool pieces, json, bos, plain;
} args;

static const sd_option rows[] = {
    SD_MODEL_ROW(args, model, "GGUF file or Hugging Face folder; a vocabulary alone will do"),
    {.name = "pieces",
     .type = SD_OPT_FLAG,
     .offset = offsetof(args, pieces),
     .help = "one line a token: id and text"},
    {.name = "bos",
     .type = SD_OPT_FLAG,
     .offset = offsetof(args, bos),
     .help = "begin as the model begins a document, when it asks for that"},
    {.name = "plain",
     .type = SD_OPT_FLAG,
     .offset = offsetof(args, plain),
     .help = "take <|special|> tokens in the text as plain text"},
    SD_JSON_ROW(args, json, "{\"ids\": [...], \"pieces\": [...]}"),
    {0}};

// A token's text as valid UTF-8: what is no complete character becomes U+FFFD.
static sd_status piece(sd_buf *out, const sd_tokenizer *t, int32_t id, sd_error *err) {
    size_t len;
    const char *bytes = sd_tokenizer_bytes(t, id, &len);
    sd_utf8_stream s = {0};
    sd_buf_clear(out);
    if (!sd_utf8_stream_add(&s, bytes, len, out) || !sd_utf8_stream_add(&s, NULL, 0, out) ||
        !sd_buf_adds(out, ""))
        return sd_fail(err, SD_ENOMEM, "out of memory");
    return SD_OK;
}

static sd_status print_json(const sd_tokenizer *t, const sd_ids *ids, bool pieces, sd_error *err) {
    sd_status st = SD_OK;
    sd_buf text = sd_buf_make(1 << 20);
    json_t *list = json_array(), *texts = json_array();
    for (int i = 0; i < ids->n; i++) {
        json_array_append_new(list, json_integer(ids->id[i]));
        if (!pieces) continue;
        SD_TRY(piece(&text, t, ids->id[i], err));
        json_array_append_new(texts, json_stringn(text.data, text.len));
    }
    json_t *o = json_pack("{s:O}", "ids", list);
    if (pieces) json_object_set(o, "pieces", texts);
    st = sd_json_print(stdout, o, 0, err);
    json_decref(o);
    if (st == SD_OK) putchar('\n');
out:
    json_decref(list);
    json_decref(texts);
    sd_buf_free(&text);
    return st;
}

static sd_status print_pieces(const sd_tokenizer *t, const sd_ids *ids, sd_error *err) {
    sd_status st = SD_OK;
    sd_buf text = sd_buf_make(1 << 20);
    for (int i = 0; i < ids->n; i++) {
        SD_TRY(piece(&text, t, ids->id[i], err));
        printf("%7d  ", ids->id[i]);
        for (size_t k = 0; k < text.len; k++) {
            char c = text.data[k];
            if (c == '\n')
                fputs("\\n", stdout);
            else if (c == '\t')
                fputs("\\t", stdout);
            else if (c == '\r')
                fputs("\\r", stdout);
            else
                putchar(c);
        }
        putchar('\n');
    }
out:
    sd_buf_free(&text);
    return st;
}

sd_status sd_verb_tokenize(int argc, char **argv, sd_error *err) {
    if (sd_verb_help("tokenize -m MODEL [TEXT|-]",
                     "Prints the token ids of TEXT; - or no TEXT reads standard input.", rows, argc,
                     argv))
        return SD_OK;
    sd_status st = SD_OK;
    args a = {0};
    sd_strings rest;
    sd_vocabulary *v = NULL;
    sd_ids ids = {0};
    char *text = NULL;
    size_t len;
    SD_TRY(sd_options_parse(&rest, rows, &a, argc, argv, err));
    SD_CHECK(rest.n <= 1, err, SD_EINVAL, "one text is wanted, not %d; quote it", rest.n);
    SD_TRY(sd_open_vocabulary(&v, a.model, err));
    SD_TRY(sd_text_argument(&text, &len, rest.n ? rest.item[0] : "-", err));
    SD_TRY(sd_tokenizer_encode(v->tokenizer, text, len,
                               (a.plain ? 0 : SD_TOK_SPECIAL) | (a.bos ? SD_TOK_ADD_BOS : 0), &ids,
                               err));
    if (a.json)
        SD_TRY(print_json(v->tokenizer, &ids, a.pieces, err));
    else if (a.pieces)
        SD_TRY(print_pieces(v->tokenizer, &ids, err));
    else
        for (int i = 0; i < ids.n; i++) printf("%d%c", ids.id[i], i + 1 < ids.n ? ' ' : '\n');
out:
    sd_ids_free(&ids);
    free(text);
    sd_vocabulary_close(v);
    return st;
}
