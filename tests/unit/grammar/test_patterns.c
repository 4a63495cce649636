// Patterns as they are read: what they accept, where ECMAScript differs from others, what is refused, and
// in how many steps.
#include "tests/unit/grammar/support_grammar.h"

#include "model/grammar/internal.h"
#include "model/grammar/pattern/dfa.h"
#include "model/grammar/schema/match.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *pattern, *yes[6], *no[6];
} patterns[] = {
    {"abc", {"abc"}, {"", "ab", "abcd", "xabc"}},
    {"a|bc|", {"a", "bc", ""}, {"b", "abc"}},
    {"(ab)*c?", {"", "c", "ab", "ababc"}, {"a", "abb", "cc"}},
    {"a{2,3}", {"aa", "aaa"}, {"a", "aaaa"}},
    {"a{2,}b{0}", {"aa", "aaaaaa"}, {"a", "aab"}},
    {"a{3}", {"aaa"}, {"aa", "aaaa"}},
    {"[a-c_]+", {"a", "cab_"}, {"", "d", "aD"}},
    {"[^a-c]", {"d", "\xc3\xa4", "\n"}, {"a", "b", "dd"}},
    {"[\\]\\-x]", {"]", "-", "x"}, {"\\", "y"}},
    {".", {"a", "\xe2\x82\xac", "\xf0\x9f\x98\x80"}, {"\n", "", "ab"}},
    {"\\d{4}-\\d\\d", {"2026-11"}, {"202-11", "2026-1", "2026-111"}},
    {"\\w+\\s\\W", {"ab_9 !"}, {"ab!", "ab c"}},
    {"\\x41\\u0042\\u{43}", {"ABC"}, {"abc"}},
    {"(?:a|(?<n>b))c", {"ac", "bc"}, {"abc", "c"}},
    {"^a$", {"a"}, {"^a$", "aa"}},
    {"a+?b*?", {"a", "aab"}, {"b", ""}},
    {"[\xc3\xa4-\xc3\xbc]", {"\xc3\xa4", "\xc3\xb6"}, {"a", "\xc3\xbd"}},
    {"\\t\\n\\.\\*", {"\t\n.*"}, {"tn.*"}},
    // As ECMAScript reads it, where others read it otherwise.
    {"a{,2}", {"a{,2}"}, {"a", "aa"}},
    {"a{x}", {"a{x}"}, {"a"}},
    {"a{2}{x}", {"aa{x}"}, {"aa"}},
    {"}]", {"}]"}, {"}"}},
    {"[[:alpha:]]", {"a]", "[]", ":]"}, {"a", "b]", "]"}},
    {"[a[b]", {"a", "[", "b"}, {"]", "a["}},
    {"x[]|y", {"y"}, {"x", "x]", "xy"}},
    {"[^]", {"a", "\n", "]", "\xc3\xa4"}, {"", "ab"}},
    {"[]a]|z", {"z"}, {"a", "]", "a]"}},
    {"[\\b]", {"\b"}, {"b", ""}},
    {"[a-\\d]", {"a", "-", "7"}, {"b", "d"}},
    {"[\\w-z]", {"a", "-", "z"}, {"\x7b"}},
    {"\\cJ", {"\n"}, {"J", "cJ"}},
    {"\\/\\-\\_", {"/-_"}, {"\\/\\-\\_"}},
    {"\\ud83d\\ude00{2}", {"\xf0\x9f\x98\x80\xf0\x9f\x98\x80"}, {"\xf0\x9f\x98\x80"}},
    {"[\\ud83d\\ude00-\\u{1F602}]", {"\xf0\x9f\x98\x81"}, {"\xf0\x9f\x98\x83"}},
    {"\\u{3}", {"\x03"}, {"uuu", "u3"}},
    {".", {"\t"}, {"\r", "\xe2\x80\xa8", "\xe2\x80\xa9"}},
    {"[.]", {"."}, {"a", "\n"}},
    {"[:alpha:]+|[=a=]|[.a.]x", {":la", "=", "a", ".x"}, {"b", "x", "[", ":]"}},
    {"[\\d--b]+", {"7-b"}, {"a", "/"}},
    {"[\\d-a-z]+", {"7-az"}, {"b"}},
    {"[a-\\d--9]", {"a", "5", "-", "."}, {"b", "+"}},
    {"[\\w-\\x2a--/]+", {"_*-./"}, {"+"}},
    {"[+--\\d]+", {"+,-7"}, {"."}},
    {"[]*a[]{0}|[]?b", {"a", "b"}, {"", "]a"}},
    {"\\s", {" ", "\t", "\v", "\f", "\r"}, {"a", "\x1c"}},
    {"\\S", {"a", "\x1c", "\xe2\x82\xac"}, {" ", "\t", "\xc2\xa0", "\xef\xbb\xbf", "\xe3\x80\x80"}},
    {"[^\\S]", {" ", "\v"}, {"a", "\x1c"}},
    {"[^\\s]", {"a", "\xe2\x82\xac"}, {" ", "\xc2\xa0", "\xe2\x80\xa9"}},
    {"[\\s-z]+", {" -z"}, {"a", "{"}},
    {"[a\\S]", {"a", "b"}, {" ", "\xc2\xa0"}},
    {"[\\s\\S]", {"a", " ", "\n"}, {"", "ab"}},
    {"a\\vb|[\\v]", {"a\vb", "\v"}, {"\n", "\xc2\x85", "\xe2\x80\xa8", "a\nb"}},
    {"\\x41{2}\\u0042{2}\\cI{2}", {"AABB\t\t"}, {"A1B2I"}},
    {"\xc3\xa4{2}}{2}", {"\xc3\xa4\xc3\xa4}}"}, {"\xc3\xa4\xc3\xa4}"}},
    {"x[\\ud800-\\udfff]|\\udc00|y", {"y"}, {"x", "x\xef\xbf\xbd"}},
    {"(){0,60}a{1}", {"a"}, {"", "aa"}},
    {"a$", {"a"}, {"a\n"}},
    {"(?<a$_\xc3\xa4>x)(?<b>y)", {"xy"}, {"x"}},
    {"(?:a|b)??c*?", {"", "a", "bcc"}, {"ab"}},
    // More than ECMAScript has: a group's name as Python writes it.
    {"(?P<n>x)", {"x"}, {"n"}},
};

// The validator's reader of patterns (PCRE2's, which has another dialect) says the same.
static bool validator_takes(const char *pattern, const char *text) {
    sd_error err = {0};
    char whole[200];
    snprintf(whole, sizeof whole, "^(?:%s)$", pattern);
    json_t *schema = json_pack("{s:s}", "pattern", whole), *v = json_string(text);
    cr_assert(schema && v, "%s", text);
    sd_status st = sd_schema_validate(schema, v, &err);
    cr_expect(st == SD_OK || st == SD_EMISMATCH, "%s: %s", pattern, err.message);
    json_decref(schema), json_decref(v);
    return st == SD_OK;
}

Test(grammar_pattern, it_accepts_what_it_describes_and_nothing_else) {
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++) {
        sd_error err;
        sd_grammar *g = test_regex(patterns[i].pattern, &err);
        cr_assert(g, "%s: %s", patterns[i].pattern, err.message);
        for (int k = 0; k < 6 && patterns[i].yes[k]; k++) {
            cr_expect(test_accepts(g, patterns[i].yes[k]), "%s: \"%s\"", patterns[i].pattern,
                      patterns[i].yes[k]);
            cr_expect(validator_takes(patterns[i].pattern, patterns[i].yes[k]), "%s: \"%s\"",
                      patterns[i].pattern, patterns[i].yes[k]);
        }
        for (int k = 0; k < 6 && patterns[i].no[k]; k++) {
            cr_expect(!test_accepts(g, patterns[i].no[k]), "%s: not \"%s\"", patterns[i].pattern,
                      patterns[i].no[k]);
            cr_expect(!validator_takes(patterns[i].pattern, patterns[i].no[k]), "%s: not \"%s\"",
                      patterns[i].pattern, patterns[i].no[k]);
        }
        sd_grammar_release(g);
    }
}

static const struct {
    const char *pattern, *says;
} refused[] = {
    {"(a)\\1", "backreference"},
    {"(?=a)b", "lookahead"},
    {"(?!a)b", "lookahead"},
    {"(?<=a)b", "lookbehind"},
    {"(?<!a)b", "lookbehind"},
    {"\\bword", "word boundary"},
    {"\\p{L}", "Unicode property"},
    {"(a", "without its )"},
    {"a)", "without its ("},
    {"[a", "without its ]"},
    {"*a", "nothing before it"},
    {"a**", "repeat of a repeat"},
    {"[z-a]", "backwards"},
    {"a{3,2}", "reversed"},
    {"\\", "nothing behind it"},
    {"(?i)a", "not supported"},
    {"a++", "possessive"},
    {"\\Z", "ECMAScript has not"},
    {"a{2,65536}", "65535"},
    {"a{65536,}", "65535"},
    {"a{99999999999999999999}", "65535"},
    {"a{2}{3}", "repeat of a repeat"},
    {"a*{2}", "repeat of a repeat"},
    {"a{2}?{3}", "repeat of a repeat"},
    {"(a){2}*", "repeat of a repeat"},
    {"a???", "repeat of a repeat"},
    {"a{1,}{1,}", "repeat of a repeat"},
    {"a{2}+", "possessive"},
    {"{2}", "nothing before it"},
    {"({2}a)", "nothing before it"},
    {"a|{1,2}", "nothing before it"},
    {"(?:+)", "nothing before it"},
    {"^*a", "repeat of ^ or $"},
    {"a$?", "repeat of ^ or $"},
    {"^{2}a", "repeat of ^ or $"},
    {"a(?=b)*", "lookahead"},
    {"\\01", "octal"},
    {"[\\07]", "octal"},
    {"\\8", "backreference"},
    {"\\k<n>", "backreference"},
    {"\\a", "ECMAScript has not"},
    {"\\e", "ECMAScript has not"},
    {"\\h", "ECMAScript has not"},
    {"\\N", "ECMAScript has not"},
    {"\\Qa\\E", "ECMAScript has not"},
    {"[\\B]", "word boundary"},
    {"\\x4", "hex digits"},
    {"\\u123", "hex digits"},
    {"\\u{}", "no code point"},
    {"\\u{110000}", "no code point"},
    {"\\c1", "without a letter"},
    {"(?<n>a)(?<n>b)", "two groups of one name"},
    {"(?<>a)", "name"},
    {"(?<1>a)", "name"},
    {"(?<n a>b)", "name"},
    {"(?<n", "name"},
    {"(?>a)", "not supported"},
    {"(?|a|b)", "not supported"},
    {"(?#a)", "not supported"},
    {"(?i:a)", "not supported"},
    {"(?P=n)", "backreference"},
    {"(?P>n)", "not supported"},
    {"(*UTF)a", "nothing before it"},
    {"\\ud83d\\u0041", "surrogate"},
};

Test(grammar_pattern, what_it_cannot_have_is_refused_by_its_name) {
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        sd_error err;
        sd_grammar *g = test_regex(refused[i].pattern, &err);
        cr_expect(!g, "%s", refused[i].pattern);
        cr_expect(strstr(err.message, refused[i].says), "%s: %s", refused[i].pattern, err.message);
        sd_grammar_release(g);
    }
}

// Steps and bytes of the account, which bound its time (tests/bench/hostile_constraints.py measures it).
static void expect_bounded_refusal(const char *what, const char *pattern) {
    sd_error err = {0};
    sd_grammar_builder *b = sd_grammar_builder_open();
    int e = sd_gb_regex(b, pattern, strlen(pattern));
    int64_t steps = SD_GRAMMAR_STEPS - b->steps_left, bytes = SD_GRAMMAR_BYTES - b->bytes_left;
    sd_grammar *g = test_compile(b, e, &err);
    cr_expect(!g, "%s was not refused", what);
    cr_expect_leq(steps, SD_DFA_WORK + SD_DFA_STEPS + 50000, "%s: %lld", what, (long long)steps);
    cr_expect_leq(bytes, SD_GRAMMAR_BYTES, "%s: %lld", what, (long long)bytes);
    printf("# %s: %lld steps: %s\n", what, (long long)steps, err.message);
    sd_grammar_release(g);
}

Test(grammar_pattern, hostile_ones_are_refused_in_a_bounded_number_of_steps) {
    sd_buf b = sd_buf_make(1 << 24);
    test_vocab(NULL);
    for (int i = 0; i < 60000; i++) sd_buf_adds(&b, "(");
    expect_bounded_refusal("60,000 open groups", b.data);
    sd_buf_clear(&b);
    for (int i = 0; i < 60000; i++) sd_buf_adds(&b, "(a)");
    expect_bounded_refusal("60,000 groups", b.data);
    sd_buf_clear(&b);
    for (int i = 0; i < 60000; i++) sd_buf_printf(&b, "(?<n%d>a)", i);
    expect_bounded_refusal("60,000 named groups", b.data);
    sd_buf_clear(&b);
    for (int i = 0; i < 3000; i++) sd_buf_printf(&b, "[a-z\\u%04x]{3}|", 0x4000 + 2 * i);
    expect_bounded_refusal("3,000 classes", b.data);
    expect_bounded_refusal("repeats of repeats", "((((a{1000}){1000}){1000}){1000}){1000}");
    expect_bounded_refusal("empty repeats of repeats",
                           "((((((){90000}){90000}){90000}){90000}){9}){9}");
    expect_bounded_refusal("a DFA of 2^60 states", "[ab]*a[ab]{60}");
    expect_bounded_refusal("overlapping repeats", "(a?b?c?d?e?){900}(a|b|c)*(x|y){800}");
    sd_buf_free(&b);
}

// PCRE2 counts neither the ends of groups in groups nor runs over the text: a match pays for both.
Test(grammar_pattern, the_validators_matches_pay_for_what_they_take) {
    sd_buf b = sd_buf_make(1 << 20);
    sd_error err = {0};
    int64_t steps = 4000000;
    for (int i = 0; i < 98; i++) sd_buf_adds(&b, "(");
    sd_buf_adds(&b, "a");
    for (int i = 0; i < 98; i++) sd_buf_adds(&b, ")*");
    cr_expect_eq(sd_match_pattern(b.data, b.len, "a", 1, &steps, &err), SD_OK, "%s", err.message);
    cr_expect_lt(steps, 4000000 - 300000, "%lld", (long long)steps); // 10,000 items at 50
    char *text = calloc(1, 50001);
    memset(text, 'a', 50000);
    steps = 4000000;
    cr_expect_eq(sd_match_pattern("a*b", 3, text, 50000, &steps, &err), SD_ELIMIT);
    cr_expect(steps < 0 && steps > -50000, "%lld", (long long)steps);
    steps = 40000000;
    cr_expect_eq(sd_match_pattern("^a*b", 4, text, 50, &steps, &err), SD_EMISMATCH);
    cr_expect_gt(steps, 40000000 - 5000);
    // What it is spelled as is paid for before PCRE2 sees it.
    sd_buf_clear(&b);
    for (int i = 0; i < 9000; i++) sd_buf_adds(&b, "[\\S]");
    steps = 4000000;
    cr_expect_eq(sd_match_pattern(b.data, b.len, "a", 1, &steps, &err), SD_ELIMIT);
    cr_expect_lt(steps, 0);
    free(text);
    sd_buf_free(&b);
}
