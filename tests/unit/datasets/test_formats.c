// Fields of records and messages that decide what is learnt, in every format: honoured, or refused
// by the user's own name for them. And JSON's edges, tables and encodings on the way to a record.
#include "datasets/read/loss_mask.h"
#include "datasets/read/record_json.h"
#include "tests/unit/support/files.h"
#include "tests/unit/support/tiny/chat.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

// Everything a template can see of a conversation.
static const char showing[] =
    "{% if tools %}{{ '<tools>' }}{% for t in tools %}{{ t.function.name }}{% endfor %}{% endif %}"
    "{% if mood %}{{ '<' + mood + '>' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] }}"
    "{% if m.weight is defined or m.train is defined or m.loss is defined %}{{ 'LEAK' }}{% endif %}"
    "{% for c in m.tool_calls or [] %}{{ c.function.name + (c.function.arguments | tojson) }}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

// The tokens' text with [ ] around what is supervised, or "ERROR: " and the message.
static void labelled(char *out, size_t size, const char *record, sd_data_format format,
                     sd_loss_on loss_on) {
    sd_model m;
    sd_error err = {0};
    sd_example ex = {0};
    sd_labelled l = {0};
    sd_record rec = {.where = "x"};
    tiny_chat_open(&m, showing, NULL);
    sd_label_options o = {.model = &m, .loss_on = loss_on, .train_on_eot = true};
    sd_status st = sd_json_record(&rec.json, record, strlen(record), "x", 1, &err);
    if (st == SD_OK) st = sd_example_make(&ex, &rec, &format, &err);
    if (st == SD_OK) st = sd_label_example(&l, &ex, &o, &err);
    size_t n = 0;
    out[0] = '\0';
    for (int i = 0; st == SD_OK && i < l.ids.n; i++) {
        size_t len;
        const char *s = sd_tokenizer_bytes(m.tokenizer, l.ids.id[i], &len);
        bool begins = l.supervised[i] && (i == 0 || !l.supervised[i - 1]);
        bool ends = l.supervised[i] && (i + 1 == l.ids.n || !l.supervised[i + 1]);
        n += (size_t)snprintf(out + n, size - n, "%s%.*s%s", begins ? "[" : "", (int)len, s,
                              ends ? "]" : "");
    }
    if (st != SD_OK) snprintf(out, size, "ERROR: %.900s", err.message);
    sd_labelled_free(&l);
    sd_example_free(&ex);
    json_decref(rec.json);
    tiny_chat_close(&m);
}

typedef struct {
    const char *record, *want; // "ERROR..." : the parts of it, separated by "..."
    sd_loss_on loss_on;
} row;

static void check(const row *rows, size_t n, sd_data_format format) {
    char got[1024], part[256];
    for (size_t i = 0; i < n; i++) {
        labelled(got, sizeof got, rows[i].record, format, rows[i].loss_on);
        if (strncmp(rows[i].want, "ERROR", 5) != 0) {
            cr_expect_str_eq(got, rows[i].want, "%s\n gives %s\n want  %s", rows[i].record, got,
                             rows[i].want);
            continue;
        }
        cr_expect(strncmp(got, "ERROR", 5) == 0, "%s gives %s", rows[i].record, got);
        for (const char *p = rows[i].want + 5; *p;) {
            const char *end = strstr(p, "...");
            size_t len = end ? (size_t)(end - p) : strlen(p);
            snprintf(part, sizeof part, "%.*s", (int)len, p);
            cr_expect(strstr(got, part), "%s\n gives '%s' without '%s'", rows[i].record, got, part);
            p += len + (end ? 3 : 0);
        }
    }
}
#define CHECK(rows, format) check(rows, sizeof(rows) / sizeof *(rows), format)

#define U "{\"role\":\"user\",\"content\":\"q\"}"
#define A "{\"role\":\"assistant\",\"content\":\"a\"}"
#define H "{\"from\":\"human\",\"value\":\"q\"}"
#define G "{\"from\":\"gpt\",\"value\":\"a\"}"
#define Q_A "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n[a<|im_end|>]\n"
#define Q_NO "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>\n"
#define SYS "<|im_start|>system\nS<|im_end|>\n"
#define CHAT(fields) "{\"messages\":[" U "," A "]," fields "}"
#define TURNS(fields) "{\"conversations\":[" H "," G "]," fields "}"
#define ANSWER(fields)                                                                             \
    "{\"messages\":[" U ",{\"role\":\"assistant\",\"content\":\"a\"," fields "}]}"
#define GPT(fields) "{\"conversations\":[" H ",{\"from\":\"gpt\",\"value\":\"a\"," fields "}]}"

Test(formats, what_says_that_a_turn_is_not_learnt_is_honoured_in_either_spelling) {
    static const row rows[] = {
        {ANSWER("\"weight\":0"), Q_NO, 0},
        {ANSWER("\"weight\":1"), Q_A, 0},
        {ANSWER("\"weight\":null"), Q_A, 0},
        {ANSWER("\"train\":false"), Q_NO, 0},
        {ANSWER("\"training\":false"), Q_NO, 0},
        {ANSWER("\"loss\":false"), Q_NO, 0},
        {ANSWER("\"loss\":1.0"), Q_A, 0},
        {ANSWER("\"weight\":1,\"train\":false"), Q_NO, 0},
        {GPT("\"weight\":0"), Q_NO, 0},
        {GPT("\"train\":true"), Q_A, 0},
        {GPT("\"train\":false"), Q_NO, 0},
        {ANSWER("\"weight\":0.5"), "ERRORmessages[1].weight...another number", 0},
        {GPT("\"weight\":\"no\""), "ERRORconversations[1].weight...a string", 0},
        {GPT("\"train_detail\":[{\"begin\":0}]"), "ERRORconversations[1].train_detail", 0},
        {ANSWER("\"loss_mask\":[1]"), "ERRORmessages[1].loss_mask", 0},
        {ANSWER("\"mask\":true"), "ERRORmessages[1].mask", 0},
        {ANSWER("\"function_call\":{\"name\":\"f\"}"), "ERRORfunction_call...tool_calls", 0},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"q\",\"train\":true}," A "]}",
         "ERRORmessages[0].train...assistant", 0},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"q\",\"train\":false}," A "]}", Q_A, 0},
        // Loss on everything leaves such turns out too.
        {ANSWER("\"weight\":0"),
         "[<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n]a<|im_end|>\n", SD_LOSS_ALL},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"q\",\"weight\":0}," A "]}",
         "<|im_start|>user\nq<|im_end|>\n[<|im_start|>assistant\na<|im_end|>\n]", SD_LOSS_ALL},
    };
    CHECK(rows, SD_FORMAT_AUTO);
}

Test(formats, a_system_text_beside_the_turns_is_their_first) {
    static const row rows[] = {
        {CHAT("\"system\":\"S\""), SYS Q_A, 0},
        {TURNS("\"system\":\"S\""), SYS Q_A, 0},
        {TURNS("\"system_prompt\":\"S\""), SYS Q_A, 0},
        {TURNS("\"system\":\"\""), Q_A, 0},
        {TURNS("\"system\":null"), Q_A, 0},
        {TURNS("\"system\":5"), "ERRORsystem: is a number", 0},
        {"{\"conversations\":[{\"from\":\"system\",\"value\":\"S\"}," H "," G "],\"system\":\"S\"}",
         SYS Q_A, 0},
        {"{\"conversations\":[{\"from\":\"system\",\"value\":\"T\"}," H "," G "],\"system\":\"S\"}",
         "ERRORsystem: says something else", 0},
        {"{\"conversations\":[" H ",{\"from\":\"gpt\",\"value\":\"a\",\"weight\":0}],"
         "\"system\":\"S\"}",
         SYS Q_NO, 0},
        {"{\"instruction\":\"q\",\"output\":\"a\",\"system\":\"S\"}", SYS Q_A, 0},
        {"{\"prompt\":\"q\",\"completion\":\"a\",\"system\":\"S\"}", "ERRORsystem...completion", 0},
        {"{\"text\":\"q\",\"system\":\"S\"}", "ERRORsystem...text", 0},
        {"{\"text\":\"q\",\"system\":null}", "[q<|im_end|>]", 0},
    };
    CHECK(rows, SD_FORMAT_AUTO);
}

Test(formats, tools_in_any_spelling_reach_the_template) {
    static const row rows[] = {
        {CHAT("\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]"), "<tools>f" Q_A,
         0},
        {TURNS("\"tools\":\"[{\\\"type\\\":\\\"function\\\",\\\"function\\\":{\\\"name\\\":"
               "\\\"f\\\"}}]\""),
         "<tools>f" Q_A, 0},
        {CHAT("\"functions\":[{\"name\":\"f\"}]"), "<tools>f" Q_A, 0},
        {CHAT("\"tools\":[\"{\\\"type\\\":\\\"function\\\",\\\"function\\\":{\\\"name\\\":"
              "\\\"f\\\"}}\"]"),
         "<tools>f" Q_A, 0},
        {TURNS("\"tools\":\"[]\""), Q_A, 0},
        {TURNS("\"tools\":\"\""), Q_A, 0},
        {TURNS("\"tools\":[]"), Q_A, 0},
        {TURNS("\"tools\":\"what\""), "ERRORtools: is a string that is not a JSON array", 0},
        {CHAT("\"tools\":{\"a\":1}"), "ERRORtools: is an object", 0},
        {"{\"instruction\":\"q\",\"output\":\"a\",\"tools\":\"[{\\\"function\\\":{\\\"name\\\":"
         "\\\"f\\\"}}]\"}",
         "<tools>f" Q_A, 0},
        {"{\"prompt\":\"q\",\"completion\":\"a\",\"tools\":[{\"name\":\"f\"}]}", "ERRORtools", 0},
        {CHAT("\"chat_template_kwargs\":{\"mood\":\"glad\"}"), "<glad>" Q_A, 0},
        {"{\"conversations\":[" H
         ",{\"from\":\"function_call\",\"value\":\"{\\\"name\\\":\\\"f\\\","
         "\\\"arguments\\\":{\\\"x\\\":1}}\"},{\"from\":\"observation\",\"value\":\"7\"}," G "]}",
         "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\n[f{\"x\": 1}<|im_end|>]\n"
         "<|im_start|>tool\n7<|im_end|>\n<|im_start|>assistant\n[a<|im_end|>]\n",
         0},
        {"{\"conversations\":[" H ",{\"from\":\"function_call\",\"value\":\"f(1)\"}]}",
         "ERRORconversations[1].value", 0},
    };
    CHECK(rows, SD_FORMAT_AUTO);
}

Test(formats, earlier_turns_of_alpaca_stand_before_the_instruction_and_are_refused_elsewhere) {
    static const row rows[] = {
        {"{\"instruction\":\"r\",\"output\":\"b\",\"history\":[[\"q\",\"a\"]]}",
         Q_A "<|im_start|>user\nr<|im_end|>\n<|im_start|>assistant\n[b<|im_end|>]\n", 0},
        {"{\"instruction\":\"q\",\"output\":\"a\",\"history\":[]}", Q_A, 0},
        {"{\"instruction\":\"q\",\"output\":\"a\",\"history\":[[\"q\"]]}", "ERRORhistory[0]", 0},
        {CHAT("\"history\":[[\"x\",\"y\"]]"), "ERRORhistory...messages", 0},
        {"{\"prompt\":\"q\",\"completion\":\"a\",\"history\":[[\"x\",\"y\"]]}", "ERRORhistory", 0},
        {"{\"text\":\"q\",\"history\":[[\"x\",\"y\"]]}", "ERRORhistory", 0},
    };
    CHECK(rows, SD_FORMAT_AUTO);
}

Test(formats, what_would_change_the_learning_of_a_whole_record_is_refused_by_name_in_every_format) {
    static const char *const base[] = {"\"messages\":[" U "," A "]",
                                       "\"conversations\":[" H "," G "]",
                                       "\"instruction\":\"q\",\"output\":\"a\"",
                                       "\"prompt\":\"q\",\"completion\":\"a\"", "\"text\":\"q\""};
    static const char *const bad[] = {
        "\"weight\":0",       "\"weight\":0.3",      "\"weight\":\"0.5\"",   "\"sample_weight\":2",
        "\"train\":false",    "\"trainable\":0",     "\"loss\":false",       "\"loss_mask\":[1,0]",
        "\"masks\":[0]",      "\"labels\":[-100,5]", "\"mask\":[1]",         "\"chosen\":\"x\"",
        "\"rejected\":\"x\"", "\"kto_tag\":false",   "\"token_weights\":[1]"};
    static const char *const fine[] = {
        "\"weight\":1",      "\"weight\":null", "\"train\":true",
        "\"loss\":0.7",      "\"labels\":3",    "\"mask\":null",
        "\"rejected\":null", "\"chosen\":\"\"", "\"id\":7,\"notes\":[{}]"};
    char record[512], got[1024], name[64];
    for (size_t b = 0; b < sizeof base / sizeof *base; b++) {
        for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
            snprintf(record, sizeof record, "{%s,%s}", base[b], bad[k]);
            labelled(got, sizeof got, record, SD_FORMAT_AUTO, SD_LOSS_ASSISTANT);
            snprintf(name, sizeof name, "ERROR: %.*s:", (int)strcspn(bad[k] + 1, "\""), bad[k] + 1);
            cr_expect(strncmp(got, name, strlen(name)) == 0, "%s gives %s", record, got);
        }
        for (size_t k = 0; k < sizeof fine / sizeof *fine; k++) {
            snprintf(record, sizeof record, "{%s,%s}", base[b], fine[k]);
            labelled(got, sizeof got, record, SD_FORMAT_AUTO, SD_LOSS_ASSISTANT);
            cr_expect(strncmp(got, "ERROR", 5) != 0, "%s gives %s", record, got);
        }
    }
}

Test(formats, null_is_absent_everywhere_and_lists_may_stand_in_strings) {
    static const row rows[] = {
        {CHAT("\"text\":null,\"prompt\":null,\"completion\":null,\"tools\":null"), Q_A, 0},
        {"{\"messages\":null,\"prompt\":\"q\",\"completion\":\"a\"}", "q[a<|im_end|>]", 0},
        {"{\"messages\":\"[{\\\"role\\\":\\\"user\\\",\\\"content\\\":\\\"q\\\"},{\\\"role\\\":"
         "\\\"assistant\\\",\\\"content\\\":\\\"a\\\"}]\"}",
         Q_A, 0},
        {"{\"messages\":\"not JSON\"}", "ERRORmessages: is a string that is not a JSON array", 0},
        {"{\"messages\":[{\"role\":null,\"content\":\"q\"}]}", "ERRORmessages[0].role: is missing",
         0},
        {"{\"conversations\":[{\"from\":\"alien\",\"value\":\"q\"}]}",
         "ERRORconversations[0].from...\"alien\"", 0},
        {"{\"conversations\":[{\"from\":\"human\",\"value\":5}]}",
         "ERRORconversations[0].value: is a number", 0},
        {"{\"prompt\":[" U "],\"completion\":[" A "]}", "ERRORprompt: is an array...messages", 0},
    };
    CHECK(rows, SD_FORMAT_AUTO);
}

Test(formats, numbers_that_nobody_reads_do_no_harm_and_those_that_are_read_are_named) {
    static const row rows[] = {
        {CHAT("\"id\":18446744073709551615"), Q_A, 0},
        {CHAT("\"id\":-99999999999999999999,\"score\":1e400,\"x\":[NaN,-Infinity,Infinity]"), Q_A,
         0},
        {CHAT("\"note\":\"quote \\\" 18446744073709551615 \\\\\",\"id\":18446744073709551615"), Q_A,
         0},
        {ANSWER("\"tool_calls\":[{\"function\":{\"name\":\"f\",\"arguments\":{\"x\":"
                "18446744073709551615}}}]"),
         "ERRORmessages[1]...18446744073709551615...string", 0},
        {"{\"text\":1e999}", "ERRORtext: is a number", 0},
        {"{\"messages\":[" U "," A "],\"id\":18446744073709551615", "ERRORline 1: is not JSON", 0},
    };
    CHECK(rows, SD_FORMAT_AUTO);
    static const row zero[] = {
        {CHAT("\"note\":\"\\u0000\""), Q_A, 0},
        {"{\"messages\":[{\"role\":\"assistant\\u0000\",\"content\":\"a\"}]}",
         "ERRORmessages[0].role", 0},
    };
    CHECK(zero, SD_FORMAT_AUTO);
}

Test(formats, a_zero_character_in_a_text_is_a_token_like_any_other) {
    sd_model m;
    sd_error err = {0};
    sd_example ex;
    sd_labelled l = {0};
    sd_data_format f = SD_FORMAT_AUTO;
    const char *record = "{\"prompt\":\"q\",\"completion\":\"a\\u0000b\"}";
    sd_record rec = {.where = "x"};
    tiny_chat_open(&m, showing, NULL);
    sd_label_options o = {.model = &m, .train_on_eot = true};
    cr_assert_eq(sd_json_record(&rec.json, record, strlen(record), "x", 1, &err), SD_OK);
    cr_assert_eq(sd_example_make(&ex, &rec, &f, &err), SD_OK);
    cr_assert_eq(sd_label_example(&l, &ex, &o, &err), SD_OK, "%s", err.message);
    cr_assert_eq(l.ids.n, 5);
    cr_assert_eq(l.n_supervised, 4);
    size_t len;
    const char *s = sd_tokenizer_bytes(m.tokenizer, l.ids.id[2], &len);
    cr_assert(len == 1 && s[0] == '\0');
    sd_labelled_free(&l);
    sd_example_free(&ex);
    json_decref(rec.json);
    tiny_chat_close(&m);
}

// ---- files -------------------------------------------------------------------------------------

// Every record of a file as JSON, joined by '|'; or "ERROR: " and the message.
static void records(char *out, size_t size, const char *path) {
    sd_reader *r = NULL;
    sd_error err = {0};
    sd_status st = sd_reader_open(&r, path, &err);
    size_t n = 0;
    out[0] = '\0';
    while (st == SD_OK) {
        const sd_record *rec;
        st = sd_reader_next(r, &rec, &err);
        if (st != SD_OK || !rec) break;
        char *text = json_dumps(rec->json, JSON_COMPACT);
        n += (size_t)snprintf(out + n, size - n, "%s%lld:%s", n ? "|" : "", (long long)rec->line,
                              text ? text : "");
        free(text);
    }
    sd_reader_close(r);
    if (st != SD_OK) snprintf(out, size, "ERROR: %.900s", err.message);
}

static void expect(const char *path, const char *want) {
    char got[1024];
    records(got, sizeof got, path);
    if (strncmp(want, "ERROR", 5) == 0)
        cr_expect(strncmp(got, "ERROR", 5) == 0 && strstr(got, want + 5), "%s gives %s, want %s",
                  path, got, want);
    else
        cr_expect_str_eq(got, want, "%s gives %s, want %s", path, got, want);
}

Test(formats, tables_give_a_record_a_row) {
    expect(temp_text("a.csv", "\xEF\xBB\xBFinstruction,input,output\r\n\"Say \"\"hi\"\"\",,\"hi\r\n"
                              "there\"\r\n"),
           "2:{\"instruction\":\"Say \\\"hi\\\"\",\"input\":\"\",\"output\":\"hi\\r\\nthere\"}");
    expect(temp_text("b.tsv", "text\tn\na, b\t1\n\nc\t2"),
           "2:{\"text\":\"a, b\",\"n\":\"1\"}|4:{\"text\":\"c\",\"n\":\"2\"}");
    expect(temp_text("c.csv", "text;n\na,b;1\n"), "2:{\"text\":\"a,b\",\"n\":\"1\"}");
    expect(temp_text("index.csv", ",text\n0,a\n1,b\n"), "2:{\"text\":\"a\"}|3:{\"text\":\"b\"}");
    expect(temp_text("one.csv", "text\na\n\"\"\n"), "2:{\"text\":\"a\"}|3:{\"text\":\"\"}");
    expect(temp_text("few.csv", "text,n\na\n"), "ERRORline 2: 1 cells");
    expect(temp_text("many.csv", "text,n\na,1\nb,2,3\n"), "ERRORline 3: 3 cells");
    expect(temp_text("open.csv", "text\na\n\"b\nc\n"), "ERRORline 3: a quote");
    expect(temp_text("after.csv", "text\n\"a\"b\n"), "ERRORclosing quote");
    expect(temp_text("twice.csv", "text,text\na,b\n"), "ERRORtwo columns");
    expect(temp_text("latin.csv", "text\ncaf\xE9 au lait\n"), "ERRORline 2: is not UTF-8");
    expect(temp_text("empty.csv", "text\n"), "ERRORholds no record");
    expect(temp_compressed("z.csv.gz", "gzip", "text\na\n", 7), "2:{\"text\":\"a\"}");
}

Test(formats, an_array_under_the_name_of_lines_and_lines_under_that_of_an_array_are_read) {
    const char *want = "2:{\"text\":\"a\"}|3:{\"text\":\"b\"}";
    expect(temp_text("a.jsonl", "[\n{\"text\":\"a\"},\n{\"text\":\"b\"}\n]\n"), want);
    expect(temp_text("b.json", "\n{\"text\":\"a\"}\n{\"text\":\"b\"}\n"), want);
    expect(temp_text("two.jsonl", "{\"text\":\"a\"} {\"text\":\"b\"}\n"), "ERRORone record a line");
}

Test(formats, encodings_other_than_utf8_are_named) {
    static const char utf16[] = "\xFF\xFE{\0}\0\n\0", bare[] = "{\0}\0\n\0 \0";
    expect(temp_bytes("u.jsonl", utf16, sizeof utf16 - 1), "ERRORis UTF-16, want UTF-8");
    expect(temp_bytes("v.jsonl", bare, sizeof bare - 1), "ERRORis UTF-16");
    expect(temp_bytes("w.json", utf16, sizeof utf16 - 1), "ERRORis UTF-16");
    expect(temp_bytes("x.txt", utf16, sizeof utf16 - 1), "ERRORis UTF-16");
    expect(temp_bytes("y.csv", utf16, sizeof utf16 - 1), "ERRORis UTF-16");
    expect(temp_text("z.jsonl", "{\"text\":\"a\"}\n{\"text\":\"caf\xE9 au\"}\n"),
           "ERRORline 2: byte 13 of the record (0xe9) is not UTF-8");
}
