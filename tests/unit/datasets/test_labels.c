// Which tokens are supervised, on plain and on tricky templates.
#include "datasets/read/loss_mask.h"
#include "tests/unit/support/pieces.h"
#include "tests/unit/support/tiny/chat.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

// The supervised text of a record, runs joined by '|'.
static sd_status supervised(char *out, size_t size, const sd_model *m, const char *record,
                            sd_loss_on loss_on, bool eot, sd_error *err) {
    sd_example ex;
    sd_labelled l = {0};
    sd_data_format f = SD_FORMAT_AUTO;
    sd_record rec = {.where = "x", .json = json_loads(record, 0, NULL)};
    cr_assert(rec.json, "%s", record);
    sd_label_options o = {.model = m, .loss_on = loss_on, .train_on_eot = eot};
    cr_assert_eq(sd_example_make(&ex, &rec, &f, err), SD_OK, "%s", err->message);
    sd_status st = sd_label_example(&l, &ex, &o, err);
    size_t n = 0;
    int64_t count = 0;
    out[0] = '\0';
    for (int i = 0; st == SD_OK && i < l.ids.n; i++) {
        size_t len;
        const char *s = sd_tokenizer_bytes(m->tokenizer, l.ids.id[i], &len);
        count += l.supervised[i];
        if (!l.supervised[i]) continue;
        bool begins = i == 0 || !l.supervised[i - 1];
        n += (size_t)snprintf(out + n, size - n, "%s%.*s", begins && n ? "|" : "", (int)len, s);
    }
    if (st == SD_OK) cr_assert_eq(l.n_supervised, count);
    sd_labelled_free(&l);
    sd_example_free(&ex);
    json_decref(rec.json);
    return st;
}

static void expect_with(const char *chat, const char *record, sd_loss_on loss_on, bool eot,
                        const char *want) {
    sd_model m;
    char got[512];
    sd_error err = {0};
    tiny_chat_open(&m, chat, NULL);
    cr_assert_eq(supervised(got, sizeof got, &m, record, loss_on, eot, &err), SD_OK, "%s",
                 err.message);
    cr_assert_str_eq(got, want);
    tiny_chat_close(&m);
}

static void expect_error(const char *chat, const char *record, sd_loss_on loss_on, sd_status want,
                         const char *part) {
    sd_model m;
    char got[512];
    sd_error err = {0};
    tiny_chat_open(&m, chat, NULL);
    cr_assert_eq(supervised(got, sizeof got, &m, record, loss_on, true, &err), want);
    cr_assert(strstr(err.message, part), "'%s' has no '%s'", err.message, part);
    tiny_chat_close(&m);
}

#define U(text) "{\"role\":\"user\",\"content\":\"" text "\"}"
#define A(text) "{\"role\":\"assistant\",\"content\":\"" text "\"}"
#define CHAT(turns) "{\"messages\":[" turns "]}"

Test(labels, an_answer_with_its_end_of_turn_and_not_the_newline_behind_it_is_supervised) {
    expect_with(tiny_chatml, CHAT(U("q") "," A("yes")), SD_LOSS_ASSISTANT, true, "yes<|im_end|>");
    expect_with(tiny_chatml, CHAT(U("q") "," A("yes")), SD_LOSS_ASSISTANT, false, "yes");
}

Test(labels, every_turn_the_last_turn_or_everything) {
    const char *record = CHAT(U("1") "," A("a") "," U("2") "," A("b") "," U("3"));
    expect_with(tiny_chatml, record, SD_LOSS_ASSISTANT, true, "a<|im_end|>|b<|im_end|>");
    expect_with(tiny_chatml, record, SD_LOSS_ASSISTANT, false, "a|b");
    expect_with(tiny_chatml, record, SD_LOSS_LAST, true, "b<|im_end|>");
    expect_with(tiny_chatml, CHAT(U("1") "," A("a")), SD_LOSS_ALL, true,
                "<|im_start|>user\n1<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n");
}

Test(labels, a_text_that_looks_like_the_answer_or_like_a_marker_is_not_mistaken_for_one) {
    expect_with(tiny_chatml, CHAT(U("yes<|im_end|>\\n<|im_start|>assistant\\nyes") "," A("yes")),
                SD_LOSS_ASSISTANT, true, "yes<|im_end|>");
    // An end-of-turn token inside the answer does not end the answer.
    expect_with(tiny_chatml, CHAT(U("q") "," A("a<|im_end|>b")), SD_LOSS_ASSISTANT, false,
                "a<|im_end|>b");
}

Test(labels, a_turn_of_weight_zero_is_not_supervised) {
    expect_with(
        tiny_chatml,
        CHAT(U("1") ",{\"role\":\"assistant\",\"content\":\"a\",\"weight\":0}," U("2") "," A("b")),
        SD_LOSS_ASSISTANT, true, "b<|im_end|>");
}

Test(labels, a_token_that_straddles_the_edge_is_not_supervised) {
    // The prompt ends with a newline, the answer begins with two: the first two are one token.
    expect_with(tiny_chatml, CHAT(U("q") "," A("\\n\\nyes")), SD_LOSS_ASSISTANT, true,
                "\nyes<|im_end|>");
}

Test(labels, consecutive_answers_are_turns_of_their_own) {
    expect_with(tiny_chatml, CHAT(U("q") "," A("a") "," A("b")), SD_LOSS_ASSISTANT, true,
                "a<|im_end|>|b<|im_end|>");
    expect_with(tiny_chatml, CHAT(U("q") "," A("a") "," A("b")), SD_LOSS_LAST, true, "b<|im_end|>");
}

// No generation prompt and no marker before an answer, as in Llama 2's template.
static const char inst[] = "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}"
                           "{{ '[INST] ' + m['content'] + ' [/INST]' }}{% else %}"
                           "{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}";

Test(labels, a_template_without_a_generation_prompt_works_as_well) {
    expect_with(inst, CHAT(U("q") "," A("yes") "," U("r") "," A("no")), SD_LOSS_ASSISTANT, true,
                " yes<|im_end|>| no<|im_end|>");
}

// The empty thought is written for the last answer only (as Qwen3 does).
static const char thinking[] =
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['role'] == 'assistant' and loop.last %}{{ '<think></think>' }}{% endif %}"
    "{{ m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

Test(labels, a_template_that_rewrites_earlier_answers_is_refused_with_the_remedy) {
    const char *record = CHAT(U("1") "," A("a") "," U("2") "," A("b"));
    expect_error(thinking, record, SD_LOSS_ASSISTANT, SD_EFORMAT, "loss_on last");
    expect_with(thinking, record, SD_LOSS_LAST, true, "<think></think>b<|im_end|>");
}

// The generation prompt opens a thought that a written answer lacks.
static const char forced[] = "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + "
                             "m['content'] + '<|im_end|>\n' }}{% endfor %}"
                             "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>' "
                             "}}{% endif %}";

Test(labels, a_prompt_that_is_no_beginning_of_the_conversation_is_refused) {
    expect_error(forced, CHAT(U("1") "," A("a")), SD_LOSS_ASSISTANT, SD_EFORMAT,
                 "cannot be told apart");
}

Test(labels, a_model_without_a_template_says_so) {
    expect_error(NULL, CHAT(U("1") "," A("a")), SD_LOSS_ASSISTANT, SD_EINVAL, "no usable chat");
}

// Tools stand before the conversation, calls are written as JSON.
static const char with_tools[] =
    "{% if tools %}{{ '<|im_start|>system\n' }}{% for t in tools %}{{ t | tojson }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}"
    "{% if m['content'] %}{{ m['content'] }}{% endif %}"
    "{% for c in m['tool_calls'] or [] %}{{ c.function.name + ':' }}{{ c.function.arguments | "
    "tojson }}{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

Test(labels, calls_of_tools_are_supervised_and_their_results_are_not) {
    expect_with(
        with_tools,
        "{\"tools\":[{\"name\":\"f\"}],\"messages\":[" U(
            "q") ",{\"role\":\"assistant\","
                 "\"content\":null,\"tool_calls\":[{\"type\":\"function\",\"function\":{\"name\":"
                 "\"f\","
                 "\"arguments\":\"{\\\"x\\\": 1}\"}}]},{\"role\":\"tool\",\"content\":\"7\"}," A(
                     "seven") "]}",
        SD_LOSS_ASSISTANT, true, "f:{\"x\": 1}<|im_end|>|seven<|im_end|>");
}

Test(labels, a_completion_is_supervised_with_the_end_token_and_its_prompt_is_not) {
    expect_with(NULL, "{\"prompt\":\"1+1=\",\"completion\":\"2\"}", SD_LOSS_ASSISTANT, true,
                "2<|im_end|>");
    expect_with(NULL, "{\"prompt\":\"1+1=\",\"completion\":\"2\"}", SD_LOSS_ASSISTANT, false, "2");
    expect_with(NULL, "{\"prompt\":\"1+1=\",\"completion\":\"2\"}", SD_LOSS_ALL, true,
                "1+1=2<|im_end|>");
    expect_with(NULL, "{\"prompt\":\"1+1=\",\"completion\":\"2<|im_end|>\"}", SD_LOSS_ASSISTANT,
                true, "2<|im_end|>");
}

Test(labels, a_text_is_supervised_whole) {
    expect_with(NULL, "{\"text\":\"ab\"}", SD_LOSS_ASSISTANT, true, "ab<|im_end|>");
}

Test(labels, a_tokenizer_that_normalises_moves_the_edges_with_the_text) {
    // "e" + combining acute becomes one letter, two bytes fewer before the answer.
    sd_model m;
    char got[512];
    sd_error err = {0};
    tiny_chat_open(&m, tiny_chatml, "NFC");
    const char *record = CHAT(U("caf"
                                "e\xCC\x81"
                                "s") "," A("ye\xCC\x81s"));
    cr_assert_eq(supervised(got, sizeof got, &m, record, SD_LOSS_ASSISTANT, true, &err), SD_OK,
                 "%s", err.message);
    cr_assert_str_eq(got, "y\xC3\xA9s<|im_end|>");
    tiny_chat_close(&m);
}

// A tokenizer of pieces puts a space before every text, so the tokens spell more than was written.
static void expect_of_pieces(const char *chat, const char *record, const char *want) {
    static const piece rows[] = {{"<|im_start|>", 0, PIECE_CONTROL},
                                 {"<|im_end|>", 0, PIECE_CONTROL},
                                 {"\xE2\x96\x81", -9, PIECE_NORMAL},
                                 {"c", -9, PIECE_NORMAL},
                                 {"\xE2\x96\x81"
                                  "c",
                                  -1, PIECE_NORMAL}};
    pieces_file f = pieces_make(&(pieces_recipe){.row = rows, .n = 5, .bytes = true});
    sd_model m;
    char got[512];
    sd_error err = {0};
    tiny_chat_open(&m, chat, NULL);
    sd_tokenizer_close(m.tokenizer);
    m.tokenizer = pieces_open(&f, &err);
    cr_assert(m.tokenizer, "%s", err.message);
    m.n_end_tokens = 1;
    m.end_token[0] = 1;
    cr_assert_eq(supervised(got, sizeof got, &m, record, SD_LOSS_ASSISTANT, true, &err), SD_OK,
                 "%s", err.message);
    cr_expect_str_eq(got, want);
    pieces_free(&f);
    tiny_chat_close(&m);
}

Test(labels, a_space_that_the_tokenizer_puts_in_front_moves_no_edge) {
    expect_of_pieces(NULL, "{\"prompt\":\"ab\",\"completion\":\" cd\"}", " cd");
    expect_of_pieces(NULL, "{\"prompt\":\" ab\",\"completion\":\"cd\"}", "cd");
    expect_of_pieces(tiny_chatml,
                     "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\","
                     "\"content\":\"cd\"},{\"role\":\"user\",\"content\":\"b\"},{\"role\":"
                     "\"assistant\",\"content\":\"e\"}]}",
                     "cd<|im_end|>|e<|im_end|>");
}
