// The text of answers, where the tokenizer puts a space before every text (SentencePiece): behind a
// special token that space is no part of the answer; where the prompt's text goes on, it is.
#include "base/memory.h"
#include "tests/unit/support/engine.h"
#include "tests/unit/support/pieces.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

// Every token begins with a space, but for the special token 0.
static sd_model *open_spaced(bool prefix) {
    static char text[288][16];
    static piece rows[288];
    sd_tiny_model tiny = sd_tiny_default(&sd_arch_llama);
    sd_model *m = sd_tiny_open(&tiny, true);
    sd_error err = {0};
    cr_assert(m && m->hp.V == 288);
    for (int i = 0; i < 288; i++) {
        snprintf(text[i], sizeof text[i], i ? "\xE2\x96\x81t%d" : "<s>", i);
        rows[i] = (piece){text[i], -(float)i, i ? PIECE_NORMAL : PIECE_CONTROL};
    }
    pieces_file f = pieces_make(&(pieces_recipe){.row = rows, .n = 288, .prefix = prefix ? 1 : -1});
    sd_tokenizer_close(m->tokenizer);
    m->tokenizer = pieces_open(&f, &err);
    cr_assert(m->tokenizer, "%s", err.message);
    pieces_free(&f);
    return m;
}

static void answers(sd_model *m, const int32_t *prompt, bool dropped) {
    sd_engine *e = test_engine_open(m, &(sd_engine_options){.slots = 1, .ctx = 64, .threads = 1});
    sd_buf want = sd_buf_make(1 << 16);
    test_answer a = {0};
    sd_request r = {
        .prompt = prompt, .n_prompt = 2, .max_tokens = 8, .ignore_end = true, .logprobs = -1};
    test_run(e, &r, &a);
    cr_assert_eq(a.ids.n, 8);
    cr_assert_eq(sd_tokenizer_spell(m->tokenizer, a.ids.id, a.ids.n, true, &want, NULL), SD_OK);
    cr_assert(a.ids.id[0] > 0 && want.data[0] == ' ');
    cr_expect_str_eq(a.text.data, want.data + dropped);
    test_answer_free(&a);
    sd_buf_free(&want);
    sd_engine_close(e);
}

Test(engine_text, the_tokenizers_own_space_is_no_part_of_an_answer) {
    static const int32_t special[] = {5, 0}, text[] = {0, 5};
    sd_model *m = open_spaced(true);
    answers(m, special, true);
    answers(m, text, false);
    sd_model_release(m);
    m = open_spaced(false); // no space is put there, so one that comes is meant
    answers(m, special, false);
    sd_model_release(m);
}
