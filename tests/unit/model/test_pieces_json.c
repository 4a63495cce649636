// SentencePiece's BPE as Hugging Face's tokenizer.json spells it: Llama 2 and Phi 3 (Prepend and
// Replace), newer conversions (Metaspace), Gemma (Replace and an idle Split). Other spellings
// are refused by name.
#include "base/memory.h"
#include "model/tokenizer/tokenizer.h"
#include "tests/unit/support/pieces.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#define MARK "\xE2\x96\x81"
#define REPLACE                                                                                    \
    "{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"" MARK "\"}"
#define PREPEND "{\"type\": \"Prepend\", \"prepend\": \"" MARK "\"}"
#define LLAMA2 "{\"type\": \"Sequence\", \"normalizers\": [" PREPEND ", " REPLACE "]}"
#define METASPACE(more) "{\"type\": \"Metaspace\", \"replacement\": \"" MARK "\", " more "}"
#define SPLIT                                                                                      \
    "{\"type\": \"Split\", \"pattern\": {\"String\": \" \"}, \"behavior\": "                       \
    "\"MergedWithPrevious\", \"invert\": false}"
#define UNDO                                                                                       \
    "{\"type\": \"Replace\", \"pattern\": {\"String\": \"" MARK "\"}, \"content\": \" \"}, "       \
    "{\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}"
#define DECODER "{\"type\": \"Sequence\", \"decoders\": [" UNDO "]}"
#define STRIPS                                                                                     \
    "{\"type\": \"Sequence\", \"decoders\": [" UNDO                                                \
    ", {\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}]}"
#define VOCAB                                                                                      \
    "{\"<unk>\": 0, \"<s>\": 1, \"" MARK "\": 2, \"a\": 3, \"b\": 4, \"ab\": 5, \"" MARK           \
    "a\": 6, \"<0xC3>\": 7, \"<0xA9>\": 8, \"" MARK MARK "\": 9}"
#define MERGES "\"a b\", \"" MARK " a\", [\"" MARK "\", \"" MARK "\"]"

typedef struct {
    const char *model, *normalizer, *pre, *decoder; // NULL: as Gemma has it
} parts;

static sd_status open_parts(sd_tokenizer **t, const parts *p, sd_error *err) {
    char text[4096];
    snprintf(
        text, sizeof text,
        "{\"added_tokens\": [{\"id\": 1, \"content\": \"<s>\", \"special\": true}, {\"id\": 10, "
        "\"content\": \"<n>\", \"normalized\": true}], \"normalizer\": %s, \"pre_tokenizer\": "
        "%s, \"decoder\": %s, \"model\": %s}",
        p->normalizer ? p->normalizer : REPLACE, p->pre ? p->pre : SPLIT,
        p->decoder ? p->decoder : DECODER,
        p->model ? p->model
                 : "{\"type\": \"BPE\", \"byte_fallback\": true, \"fuse_unk\": true, "
                   "\"unk_token\": \"<unk>\", \"vocab\": " VOCAB ", \"merges\": [" MERGES "]}");
    return sd_tokenizer_from_json(t, text, strlen(text), err);
}

static void gives(const parts *p, const char *text, const char *want, const char *back) {
    sd_tokenizer *t;
    sd_error err = {0};
    sd_ids ids = {0};
    sd_buf b = sd_buf_make(1000);
    char got[256] = "";
    cr_assert_eq(open_parts(&t, p, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_tokenizer_encode(t, text, strlen(text), SD_TOK_SPECIAL, &ids, &err), SD_OK);
    for (int i = 0; i < ids.n; i++)
        snprintf(got + strlen(got), sizeof got - strlen(got), "%s%d", i ? " " : "", ids.id[i]);
    cr_expect_str_eq(got, want, "\"%s\": %s, want %s", text, got, want);
    cr_assert_eq(sd_tokenizer_decode(t, ids.id, ids.n, false, &b, &err), SD_OK);
    cr_expect_str_eq(b.data ? b.data : "", back);
    sd_ids_free(&ids);
    sd_buf_free(&b);
    sd_tokenizer_close(t);
}

Test(pieces_json, gemma_writes_spaces_and_puts_none_in_front) {
    const parts p = {0};
    gives(&p, "ab", "5", "ab"); // "a b" ranks before MARK "a"
    gives(&p, " a", "6", " a");
    gives(&p, " ab", "2 5", " ab");
    gives(&p, "  a", "2 6", "  a"); // the merge of two spaces ranks last
    gives(&p, MARK "a", "6", " a");
    gives(&p, "\xC3\xA9", "7 8", "\xC3\xA9");
    gives(&p, "zza", "0 3", "<unk>a"); // no bytes: one unknown for the run
    gives(&p, "z\xC3\xA9zaz", "7 8 0 3 0", "\xC3\xA9<unk>a<unk>"); // as there: it waits for a piece
    gives(&p, "a<s> a", "3 1 6", "a<s> a");
}

Test(pieces_json, llama_2_puts_a_space_before_every_text) {
    const parts p = {.normalizer = LLAMA2, .pre = "null", .decoder = STRIPS};
    gives(&p, "ab", "2 5", "ab");
    gives(&p, " a", "2 6", " a");
    gives(&p, "a<s>a", "6 1 6", "a<s> a");
    gives(&p, "<s>a", "1 6", "<s> a");
}

Test(pieces_json, metaspace_puts_one_where_the_text_has_none) {
    parts p = {.normalizer = "null", .decoder = STRIPS};
    p.pre = METASPACE("\"prepend_scheme\": \"first\", \"split\": false");
    gives(&p, "a<s>a", "6 1 3", "a<s>a");
    gives(&p, " a", "6", "a");
    gives(&p, "<s>a", "1 3", "<s>a");
    p.pre = METASPACE("\"prepend_scheme\": \"always\", \"split\": false");
    gives(&p, "a<s>a", "6 1 6", "a<s> a");
    gives(&p, MARK "a", "6", "a");
    p.pre = METASPACE("\"prepend_scheme\": \"never\", \"split\": false");
    gives(&p, "a a", "3 6", "a a");
    p.pre = METASPACE("\"add_prefix_space\": true"); // as older files say it; they split
    gives(&p, "  a", "2 6", " a");
    gives(&p, "   ", "2 2 2", "  ");
}

Test(pieces_json, a_normalised_token_is_looked_for_in_what_the_normaliser_made) {
    parts p = {.normalizer = LLAMA2, .pre = "null", .decoder = STRIPS};
    gives(&p, "<n>a", "10 3", "<n>a"); // with its space in front it is the text's beginning
    gives(&p, "a<n>", "6 0", "a<unk>");
    p = (parts){0};
    gives(&p, "a<n>", "3 10", "a<n>");
}

// A draft or an index that was made with one form goes with the other.
Test(pieces_json, the_fingerprint_is_that_of_the_same_vocabulary_in_gguf) {
    enum { NORMAL = PIECE_NORMAL, BYTE = PIECE_BYTE };
    piece rows[] = {{"<unk>", 0, PIECE_UNKNOWN}, {"<s>", 0, PIECE_CONTROL}, {MARK, -9, NORMAL},
                    {"a", -9, NORMAL},           {"b", -9, NORMAL},         {"ab", -1, NORMAL},
                    {MARK "a", -2, NORMAL},      {"<0xC3>", 0, BYTE},       {"<0xA9>", 0, BYTE},
                    {MARK MARK, -3, NORMAL},     {"<n>", 0, PIECE_USER}};
    const pieces_recipe r = {.row = rows, .n = 11, .prefix = -1, .unk = 1};
    const parts p = {0};
    sd_tokenizer *json, *gguf;
    sd_error err = {0};
    cr_assert_eq(open_parts(&json, &p, &err), SD_OK, "%s", err.message);
    for (int change = 0; change < 2; change++) {
        if (change) rows[4].text = "c", rows[5].text = "ac";
        pieces_file f = pieces_make(&r);
        cr_assert_not_null(gguf = pieces_open(&f, &err), "%s", err.message);
        pieces_free(&f);
        bool same = strcmp(sd_tokenizer_fingerprint(json), sd_tokenizer_fingerprint(gguf)) == 0;
        cr_expect_eq(same, !change);
        cr_expect_eq(sd_tokenizer_has_fingerprint(gguf, sd_tokenizer_fingerprint(json)), !change);
        cr_expect_str_neq(sd_tokenizer_encoding(json), sd_tokenizer_encoding(gguf));
        sd_tokenizer_close(gguf);
    }
    sd_tokenizer_close(json);
}

Test(pieces_json, what_is_spelled_otherwise_is_refused_by_name) {
#define BPE(more)                                                                                  \
    "{\"type\": \"BPE\", \"byte_fallback\": true, \"vocab\": " VOCAB ", \"merges\": [" more "]}"
    static const struct {
        parts p;
        const char *named;
    } bad[] = {
        {{.normalizer = "null"}, "writes spaces as U+2581"},
        {{.normalizer = "{\"type\": \"Replace\", \"pattern\": {\"Regex\": \" \"}, \"content\": "
                        "\"" MARK "\"}"},
         "Replace"},
        {{.normalizer = "{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": "
                        "\"_\"}"},
         "Replace"},
        {{.normalizer = "{\"type\": \"Prepend\", \"prepend\": \"x\"}"}, "Prepend"},
        {{.normalizer =
              "{\"type\": \"Sequence\", \"normalizers\": [" REPLACE ", {\"type\": \"NFKC\"}]}"},
         "NFKC"},
        {{.normalizer = "{\"type\": \"Lowercase\"}"}, "Lowercase"},
        {{.normalizer = LLAMA2, .pre = METASPACE("\"split\": false")}, "Metaspace"},
        {{.normalizer = PREPEND, .pre = METASPACE("\"split\": false")}, "Prepend and Metaspace"},
        {{.normalizer = "null",
          .pre = "{\"type\": \"Metaspace\", \"replacement\": \"_\", \"split\": false}"},
         "replacement \"_\""},
        {{.normalizer = "null", .pre = METASPACE("\"prepend_scheme\": \"last\"")}, "last"},
        {{.normalizer = "null", .pre = METASPACE("\"split\": 3")}, "split"},
        {{.pre = "{\"type\": \"ByteLevel\"}"}, "ByteLevel"},
        {{.pre = "{\"type\": \"Split\", \"pattern\": {\"String\": \"a\"}, \"behavior\": "
                 "\"Isolated\"}"},
         "Split"},
        {{.decoder = "null"}, "the decoder"},
        {{.decoder = "{\"type\": \"Metaspace\", \"replacement\": \"" MARK "\"}"}, "the decoder"},
        {{.decoder = "{\"type\": \"Sequence\", \"decoders\": [" UNDO
                     ", {\"type\": \"Strip\", \"content\": \" \", \"start\": 2, \"stop\": 0}]}"},
         "the decoder"},
        {{.model = BPE("\"a \xC3\xA9\"")}, "merge 0"},
        {{.model = BPE("\"<0xC3> <0xA9>\"")}, "merge 0"},
        {{.model = BPE("[\"a\", \" \"]")}, "merge 0 is not written in pieces"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        sd_error err = {0};
        sd_tokenizer *t = NULL;
        cr_expect_eq(open_parts(&t, &bad[i].p, &err), SD_EFORMAT, "case %zu is taken", i);
        cr_expect(strstr(err.message, bad[i].named) != NULL, "case %zu: %s", i, err.message);
        cr_expect_null(t);
        sd_tokenizer_close(t);
    }
}
