// What a chat in the terminal is made of and needs no terminal for: words at the margin, and files of conversations.
#include "cli/chat/margin.h"
#include "cli/chat/talk.h"
#include "tests/unit/support/files.h"

#include "base/files/file.h"
#include "base/files/replace.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// cli/main.c has these, and is no part of a library.
volatile int sd_interrupted;
void sd_catch_interrupts(void) {}

// What a terminal is sent for a text that comes in pieces of n bytes, whole characters each; malloc'ed.
static char *shown(const char *text, int columns, size_t n) {
    char *out = NULL;
    size_t len = 0;
    sd_margin m = {.out = open_memstream(&out, &len), .columns = columns};
    for (size_t i = 0, end; text[i]; i = end) {
        end = i + n < strlen(text) ? i + n : strlen(text);
        while (((unsigned char)text[end] & 0xC0) == 0x80) end++;
        sd_margin_write(&m, text + i, end - i);
    }
    sd_margin_end(&m);
    fclose(m.out);
    return out;
}

static void expect(const char *text, int columns, const char *want) {
    for (size_t n = 1; n < 9; n++) {
        char *got = shown(text, columns, n);
        cr_assert_str_eq(got, want, "pieces of %zu: \"%s\"", n, got);
        free(got);
    }
}

Test(chat_margin, a_word_that_does_not_fit_begins_the_next_line) {
    expect("one two three", 8, "one two \nthree");
    expect("one two three", 7, "one two\nthree"); // the space that does not fit ends the line
    expect("one two three", 13, "one two three");
    expect("a\nbb cc\n\ndd", 5, "a\nbb cc\n\ndd");
    expect("  four\n\tx", 20, "  four\n        x");
}

Test(chat_margin, a_word_longer_than_a_line_is_broken_and_the_column_is_known_behind_it) {
    expect("x abcdefgh ij", 4, "x \nabcdefgh\nij");
}

Test(chat_margin, widths_are_those_of_the_terminal) {
    expect("\xC3\xA4\xC3\xA4 \xC3\xB6\xC3\xB6", 5,
           "\xC3\xA4\xC3\xA4 \xC3\xB6\xC3\xB6"); // two bytes, one column
    expect("a \xE4\xB8\xAD\xE6\x96\x87", 4, "a \xE4\xB8\xAD\n\xE6\x96\x87"); // two columns each
}

Test(chat_margin, a_model_gives_the_terminal_no_orders) {
    expect("a\033[2Jb\x07\xC2\x9B"
           "c\r",
           20,
           "a\xEF\xBF\xBD[2Jb\xEF\xBF\xBD\xEF\xBF\xBD"
           "c");
}

Test(chat_margin, what_goes_to_no_terminal_is_as_it_is) {
    expect("one two\t\033x\r\n", 0, "one two\t\033x\r\n");
}

Test(chat_talk, a_conversation_that_is_saved_is_loaded) {
    sd_error err = {0};
    const char *path = temp_file("talk.json");
    json_t *said = json_array(), *got = json_array();
    cr_assert_eq(sd_talk_begin(said, "be brief", &err), SD_OK);
    cr_assert_eq(sd_talk_add(said, "user", "a\nb", 3, &err), SD_OK);
    cr_assert_eq(sd_talk_add(said, "assistant", "", 0, &err), SD_OK);
    cr_assert_eq(sd_talk_save(said, path, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_talk_load(got, path, &err), SD_OK, "%s", err.message);
    cr_assert(json_equal(said, got));
    sd_talk_clear(got);
    cr_assert_eq(json_array_size(got), 1);
    cr_assert_str_eq(sd_talk_system(got), "be brief");
    json_decref(said), json_decref(got);
}

Test(chat_talk, a_file_that_is_none_is_refused_and_the_conversation_stays) {
    static const char *const bad[] = {
        "[not JSON",
        "{\"messages\": 1}",
        "[]",
        "{\"messages\": [{\"role\": \"user\"}]}",
        "{\"messages\": [{\"role\": \"user\", \"content\": [1]}]}",
        "{\"messages\": [{\"role\": \"tool\", \"content\": \"x\"}]}",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}, {\"role\": \"system\", "
        "\"content\": \"x\"}]}",
    };
    const char *path = temp_file("bad.json");
    json_t *m = json_array();
    cr_assert_eq(sd_talk_add(m, "user", "x", 1, NULL), SD_OK);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        sd_error err = {0};
        cr_assert_eq(sd_file_write(path, bad[i], strlen(bad[i]), NULL), SD_OK);
        cr_assert_eq(sd_talk_load(m, path, &err), SD_EFORMAT, "%s", bad[i]);
        cr_assert(strstr(err.message, "bad.json"), "%s", err.message);
        cr_assert_eq(json_array_size(m), 1);
    }
    cr_assert_neq(sd_talk_add(m, "user", "\xFF", 1, NULL), SD_OK);
    json_decref(m);
}
