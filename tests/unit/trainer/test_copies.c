// What completions repeat of their prompts.
#include "tests/unit/support/tiny/model.h"
#include "trainer/run/copies.h"

#include <criterion/criterion.h>

// Letters as tokens; a tokenizer is asked for spaces alone.
static sd_corpus_copies find(const sd_tokenizer *t, const char *prompt, const char *completion) {
    sd_corpus_copies found = {0};
    sd_error err = {0};
    int32_t p[64], c[64];
    int n = (int)strlen(prompt), m = (int)strlen(completion);
    for (int i = 0; i < n; i++) p[i] = prompt[i];
    for (int i = 0; i < m; i++) c[i] = completion[i];
    cr_assert_eq(sd_corpus_find_copies(&found, t, p, n, c, m, 100, &err), SD_OK, "%s", err.message);
    return found;
}

Test(copies, are_the_longest_pieces_and_know_what_stands_around_them) {
    sd_tiny_model tiny = sd_tiny_default(&sd_arch_llama);
    sd_model *m = sd_tiny_open(&tiny, true);
    cr_assert_not_null(m);
    sd_corpus_copies f = find(m->tokenizer, "abc:hello;x:help!", "(help,hello)");
    cr_assert_eq(f.n, 2);
    const sd_corpus_copy want[] = {{101, 4, {';', 'x', ':'}, '!', 0},
                                   {106, 5, {'b', 'c', ':'}, ';', 0}};
    for (int i = 0; i < 2; i++)
        cr_assert_eq(memcmp(&f.copy[i], &want[i], sizeof want[i]), 0, "copy %d", i);
    free(f.copy);
    // One token alone is none, a prompt's begin and end are said, and of like pieces the next one counts.
    f = find(m->tokenizer, "ab-ab-ab", "zab");
    cr_assert_eq(f.n, 1);
    cr_assert(f.copy[0].before[2] == -1 && f.copy[0].behind == '-', "the first behind none");
    free(f.copy);
    f = find(m->tokenizer, "1ab;2cd;3ab", "cd ab");
    cr_assert_eq(f.n, 2);
    cr_assert(f.copy[1].before[2] == '3' && f.copy[1].behind == -1);
    free(f.copy);
    f = find(m->tokenizer, "abc", "xaxbxc");
    cr_assert_eq(f.n, 0);
    f = find(m->tokenizer, "", "abc");
    cr_assert_eq(f.n, 0);
    sd_model_release(m);
}
