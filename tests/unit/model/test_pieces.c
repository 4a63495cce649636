// SentencePiece's BPE: the rule itself, on vocabularies small enough to work out by hand and against
// a plain reading of the definition; bytes, spaces, added tokens; files that must be refused.
// tests/parity/tokenizer.py holds it against Hugging Face and the vectors of real vocabularies.
#include "base/clock.h"
#include "base/files/hash.h"
#include "base/memory.h"
#include "base/utf8.h"
#include "model/tokenizer/tokenizer.h"
#include "tests/unit/support/pieces.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define MARK "\xE2\x96\x81" // U+2581, how pieces write a space
#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))

static uint64_t random_u64(uint64_t *state) {
    return sd_mix64(*state += 0x9e3779b97f4a7c15u);
}

static sd_tokenizer *open_recipe(const pieces_recipe *r) {
    sd_error err = {0};
    pieces_file f = pieces_make(r);
    sd_tokenizer *t = pieces_open(&f, &err);
    pieces_free(&f);
    cr_assert(t, "%s", err.message);
    return t;
}

// The ids of a text as "3 1 2".
static const char *ids_of(const sd_tokenizer *t, const char *text, int flags) {
    static char out[4096];
    sd_ids ids = {0};
    sd_error err = {0};
    cr_assert_eq(sd_tokenizer_encode(t, text, strlen(text), flags, &ids, &err), SD_OK, "%s",
                 err.message);
    size_t at = 0;
    out[0] = 0;
    for (int i = 0; i < ids.n && at < sizeof out - 16; i++)
        at += (size_t)snprintf(out + at, sizeof out - at, "%s%d", i ? " " : "", ids.id[i]);
    sd_ids_free(&ids);
    return out;
}

static void has_ids(const pieces_recipe *r, const char *text, const char *want) {
    sd_tokenizer *t = open_recipe(r);
    const char *got = ids_of(t, text, SD_TOK_SPECIAL);
    cr_expect_str_eq(got, want, "%s: %s, want %s", text, got, want);
    sd_tokenizer_close(t);
}

#define N PIECE_NORMAL

Test(pieces, the_highest_score_merges_first_and_the_leftmost_of_equal_ones) {
    piece p[] = {{"a", -9, N}, {"b", -9, N}, {"c", -9, N}, {"ab", -1, N}, {"bc", -2, N}};
    pieces_recipe r = {.row = p, .n = COUNT(p), .prefix = -1};
    has_ids(&r, "abc", "3 2");
    p[4].score = -0.5f;
    has_ids(&r, "abc", "0 4");
    p[4].score = -1; // a tie: from the left
    has_ids(&r, "abc", "3 2");
    has_ids(&r, "bcabc", "4 3 2");
}

Test(pieces, all_cuts_of_a_piece_rank_alike) {
    // Runs as Llama 2 has them: of one score, so the leftmost grows until no longer piece is there.
    piece p[] = {{"a", -1, N}, {"aa", -5, N}, {"aaa", -5, N}};
    pieces_recipe r = {.row = p, .n = COUNT(p), .prefix = -1};
    has_ids(&r, "aaaa", "2 0");
    has_ids(&r, "aaaaaaaa", "2 2 1");
    p[1].score = -2; // pairs first, and the last one takes what is left over
    has_ids(&r, "aaaaa", "1 2");
}

Test(pieces, a_character_without_a_piece_becomes_its_bytes) {
    static const piece p[] = {{"a", -1, N}};
    pieces_recipe r = {.row = p, .n = 1, .prefix = -1, .bytes = true};
    // The byte b is token 1 + b.
    has_ids(&r,
            "a\xC3\xA9"
            "a\n",
            "0 196 170 0 11");
}

Test(pieces, without_its_bytes_a_run_of_characters_is_one_unknown) {
    static const piece p[] = {{"<unk>", 0, PIECE_UNKNOWN}, {"a", -1, N}};
    pieces_recipe r = {.row = p, .n = 2, .prefix = -1, .unk = 1};
    has_ids(&r, "xyazz", "0 1 0");
    r.unk = 0;
    has_ids(&r, "xyazz", "1");
}

Test(pieces, a_piece_may_hold_characters_that_are_none) {
    static const piece p[] = {{"a", -1, N}, {"ab", -2, N}, {"b\xC3\xA9", -3, N}};
    pieces_recipe r = {.row = p, .n = COUNT(p), .prefix = -1, .bytes = true};
    has_ids(&r, "ab", "1");
    has_ids(&r, "b", "101"); // 3 + 'b'
    has_ids(&r, "b\xC3\xA9", "2");
}

Test(pieces, a_space_stands_before_every_text_between_added_tokens) {
    static const piece p[] = {{"<s>", 0, PIECE_CONTROL},
                              {MARK, -9, N},
                              {"a", -9, N},
                              {MARK "a", -1, N},
                              {MARK MARK, -2, N}};
    pieces_recipe r = {.row = p, .n = COUNT(p), .bytes = true};
    has_ids(&r, "a", "3"); // where the file is silent
    has_ids(&r, " a", "1 3");
    has_ids(&r, "  ", "4 1");
    has_ids(&r, "a<s>a", "3 0 3");
    has_ids(&r, MARK "a", "1 3"); // written out it is a space
    has_ids(&r, "", "");
    r.prefix = 1;
    has_ids(&r, "a", "3");
    r.prefix = -1;
    has_ids(&r, "a", "2");
    has_ids(&r, " a<s>a", "3 0 2");
}

Test(pieces, text_that_goes_on_has_no_space_put_in_front) {
    static const piece p[] = {
        {"<s>", 0, PIECE_CONTROL}, {MARK, -9, N}, {"a", -9, N}, {MARK "a", -1, N}};
    static const char *const archs[] = {"llama", "phi3", "gemma3"};
    for (int i = 0; i < 3; i++) {
        pieces_recipe r = {.row = p, .n = COUNT(p), .bytes = true, .prefix = 1, .arch = archs[i]};
        sd_tokenizer *t = open_recipe(&r);
        cr_expect_str_eq(ids_of(t, "a", SD_TOK_GOES_ON), "2");
        cr_expect_str_eq(ids_of(t, " a", SD_TOK_GOES_ON), "3");
        cr_expect_str_eq(ids_of(t, "a", 0), "3");
        // Behind an added token a text begins, as ever.
        char want[32];
        snprintf(want, sizeof want, "2 %s", ids_of(t, "<s>a", SD_TOK_SPECIAL));
        cr_expect_str_eq(ids_of(t, "a<s>a", SD_TOK_SPECIAL | SD_TOK_GOES_ON), want);
        sd_tokenizer_close(t);
    }
}

Test(pieces, added_tokens_are_found_before_anything_is_merged) {
    static const piece p[] = {{"<s>", 0, PIECE_CONTROL},
                              {"</x>", 0, PIECE_USER},
                              {"<", -9, N},
                              {"s", -9, N},
                              {">", -9, N},
                              {"s>", -1, N},
                              {"<s", -2, N}};
    pieces_recipe r = {.row = p, .n = COUNT(p), .prefix = -1, .bytes = true};
    has_ids(&r, "<s></x>s>", "0 1 5");
    sd_tokenizer *t = open_recipe(&r);
    // As plain text: no merge makes a control piece, although "<s" and ">", or "<" and "s>", would.
    cr_assert_str_eq(ids_of(t, "<s></x>", 0), "2 5 1");
    cr_assert(sd_tokenizer_is_special(t, 0));
    cr_assert_not(sd_tokenizer_is_special(t, 1));
    cr_assert_eq(sd_tokenizer_find(t, "</x>"), 1);
    sd_tokenizer_close(t);
}

Test(pieces, the_text_of_a_byte_is_no_way_to_it) {
    static const piece p[] = {{"<", -9, N}, {"0x41>", -9, N}, {"<0x4", -9, N}, {"1>", -9, N}};
    pieces_recipe r = {.row = p, .n = COUNT(p), .prefix = -1, .bytes = true};
    sd_tokenizer *t = open_recipe(&r);
    cr_assert_str_eq(ids_of(t, "A", 0), "69"); // 4 + 'A'
    cr_assert_null(strstr(ids_of(t, "<0x41>", 0), "69"));
    sd_tokenizer_close(t);
}

Test(pieces, gemma_merges_in_the_order_of_its_vocabulary) {
    // The scores say otherwise.
    static const piece p[] = {{"  ", -1000, PIECE_USER},
                              {"bc", -7, N},
                              {"ab", -1, N},
                              {"a", 0, N},
                              {"b", 0, N},
                              {"c", 0, N},
                              {MARK, 0, N},
                              {MARK "a", 0, N}};
    pieces_recipe r = {.row = p, .n = COUNT(p), .prefix = -1, .arch = "gemma3"};
    has_ids(&r, "abc", "3 1");
    has_ids(&r, "   a", "0 7");
    r.arch = "llama"; // the same file of another family goes by its scores
    has_ids(&r, "abc", "2 5");
}

Test(pieces, runs_of_spaces_that_are_user_defined_are_found_before_anything_merges) {
    // As merges, five spaces would be two and three, or 2 + 2 + 1 and so on.
    static const piece p[] = {
        {MARK, 0, N}, {"  ", 0, PIECE_USER}, {"   ", 0, PIECE_USER}, {MARK "a", 0, N}, {"a", 0, N}};
    static const char *const archs[] = {"llama", "gemma3"};
    for (size_t i = 0; i < COUNT(archs); i++) {
        pieces_recipe r = {.row = p, .n = COUNT(p), .prefix = -1, .arch = archs[i]};
        has_ids(&r, "     a", "2 1 4");
        has_ids(&r, "    a", "2 3");
        has_ids(&r, " a  a", "3 1 4");
        has_ids(&r, "       ", "2 2 0");
    }
}

Test(pieces, white_space_behind_a_special_token_of_phi_3_belongs_to_it) {
    static const piece p[] = {{"<s>", 0, PIECE_CONTROL},
                              {"<|end|>", 0, PIECE_CONTROL},
                              {"a", -1, N},
                              {MARK "a", -2, N},
                              {MARK, -3, N}};
    pieces_recipe r = {.row = p, .n = COUNT(p), .arch = "phi3", .bytes = true};
    has_ids(&r, "<|end|>\n a", "1 3");
    has_ids(&r, "<s> a", "0 4 3");
    r.arch = "llama";
    has_ids(&r, "<|end|> a", "1 4 3");
}

static void decodes(const sd_tokenizer *t, const char *text, const char *want) {
    sd_ids ids = {0};
    sd_buf b = sd_buf_make(1 << 20);
    cr_assert_eq(sd_tokenizer_encode(t, text, strlen(text), SD_TOK_SPECIAL, &ids, NULL), SD_OK);
    cr_assert_eq(sd_tokenizer_decode(t, ids.id, ids.n, false, &b, NULL), SD_OK);
    cr_expect_str_eq(b.data ? b.data : "", want);
    sd_ids_free(&ids);
    sd_buf_free(&b);
}

Test(pieces, decoding_drops_the_space_in_front_of_the_text_alone) {
    static const piece p[] = {{"<s>", 0, PIECE_CONTROL}, {MARK, -9, N}, {MARK "a", -1, N}};
    pieces_recipe r = {.row = p, .n = COUNT(p), .bytes = true};
    sd_tokenizer *t = open_recipe(&r);
    decodes(t, "a b", "a b");
    decodes(t, " a", " a");
    decodes(t, "<s>a", "<s> a");
    decodes(t, MARK "a", " a");
    size_t n;
    cr_assert(strncmp(sd_tokenizer_bytes(t, 2, &n), " a", 2) == 0 && n == 2);
    sd_buf b = sd_buf_make(100);
    int32_t ids[] = {0, 2, 2};
    cr_assert_eq(sd_tokenizer_decode(t, ids, 3, true, &b, NULL), SD_OK);
    cr_assert_str_eq(b.data, "a a"); // the special token is left out, so the text begins behind it
    sd_buf_clear(&b);
    cr_assert_eq(sd_tokenizer_spell(t, ids, 3, true, &b, NULL), SD_OK);
    cr_assert_str_eq(b.data, " a a");
    sd_buf_free(&b);
    sd_tokenizer_close(t);
    r.prefix = -1;
    t = open_recipe(&r);
    decodes(t, " a", " a");
    sd_tokenizer_close(t);
}

Test(pieces, a_stream_holds_an_unfinished_character_back) {
    static const piece p[] = {{"a", -1, N}};
    pieces_recipe r = {.row = p, .n = 1, .prefix = -1, .bytes = true};
    sd_tokenizer *t = open_recipe(&r);
    const char *text = "a\xF0\x9F\x98\x80"; // token 0, then four bytes
    static const size_t want[] = {1, 1, 1, 1, 5};
    sd_ids ids = {0};
    sd_utf8_stream s = {0};
    sd_buf out = sd_buf_make(100);
    cr_assert_eq(sd_tokenizer_encode(t, text, 5, 0, &ids, NULL), SD_OK);
    cr_assert_eq(ids.n, 5);
    for (int i = 0; i < 5; i++) {
        size_t n;
        const char *bytes = sd_tokenizer_bytes(t, ids.id[i], &n);
        cr_assert(sd_utf8_stream_add(&s, bytes, n, &out));
        cr_assert_eq(out.len, want[i], "after token %d: %zu bytes", i, out.len);
    }
    cr_assert_str_eq(out.data, text);
    sd_ids_free(&ids);
    sd_buf_free(&out);
    sd_tokenizer_close(t);
}

Test(pieces, random_bytes_come_back) {
    static const piece p[] = {{"<unk>", 0, PIECE_UNKNOWN}, {MARK, -9, N},   {"a", -9, N},
                              {"\xC3\xA9", -9, N},         {"aa", -3, N},   {MARK "a", -2, N},
                              {"a\xC3\xA9", -1, N},        {"\n\n", -4, N}, {"\x01\x02", -5, N}};
    uint64_t seed = 3;
    for (int prefix = -1; prefix <= 1; prefix += 2) {
        pieces_recipe r = {.row = p, .n = COUNT(p), .prefix = prefix, .bytes = true, .unk = 1};
        sd_tokenizer *t = open_recipe(&r);
        for (int i = 0; i < 400; i++) {
            char text[200];
            size_t n = random_u64(&seed) % sizeof text;
            for (size_t k = 0; k < n; k++) {
                uint64_t x = random_u64(&seed);
                text[k] = x % 3 ? (char)(x >> 8) : " aa\xC3\xA9\n"[(x >> 8) % 6];
            }
            sd_ids ids = {0};
            sd_buf valid = sd_buf_make(1000), back = sd_buf_make(1000);
            cr_assert(sd_utf8_lossy(&valid, text, n));
            cr_assert_eq(sd_tokenizer_encode(t, text, n, 0, &ids, NULL), SD_OK);
            cr_assert_eq(sd_tokenizer_decode(t, ids.id, ids.n, false, &back, NULL), SD_OK);
            cr_assert(back.len == valid.len &&
                          (!back.len || memcmp(back.data, valid.data, back.len) == 0),
                      "text %d", i);
            sd_ids_free(&ids);
            sd_buf_free(&valid);
            sd_buf_free(&back);
        }
        sd_tokenizer_close(t);
    }
}

// ---- the definition, read plainly

typedef struct {
    const piece *p;
    int n;
} vocabulary;

static int look_up(const vocabulary *v, const char *text, size_t len) {
    for (int i = 0; i < v->n; i++)
        if (strlen(v->p[i].text) == len && memcmp(v->p[i].text, text, len) == 0) return i;
    return -1;
}

// Symbols are parts of the text; of all neighbours that together are a piece, those of the highest
// score merge, the leftmost first. The result is the number of ids.
static int plainly(const vocabulary *v, const char *text, int *id) {
    static size_t start[8192];
    static int pair[8192]; // the piece that symbols i and i+1 are
    int n = (int)strlen(text);
    for (int i = 0; i <= n; i++) start[i] = (size_t)i;
    for (int i = 0; i + 1 < n; i++) pair[i] = look_up(v, text + i, 2);
    for (;;) {
        int best = -1;
        for (int i = 0; i + 1 < n; i++)
            if (pair[i] >= 0 && (best < 0 || v->p[pair[i]].score > v->p[pair[best]].score))
                best = i;
        if (best < 0) break;
        memmove(start + best + 1, start + best + 2, (size_t)(n - best - 1) * sizeof *start);
        if (n - best - 2 > 0)
            memmove(pair + best, pair + best + 1, (size_t)(n - best - 2) * sizeof *pair);
        n--;
        for (int i = best ? best - 1 : 0; i <= best && i + 1 < n; i++)
            pair[i] = look_up(v, text + start[i], start[i + 2] - start[i]);
    }
    for (int i = 0; i < n; i++) id[i] = look_up(v, text + start[i], start[i + 1] - start[i]);
    return n;
}

// Lengths on both sides of where encoding changes its method (48 and 4096 bytes); scores often tie.
Test(pieces, ids_are_those_of_the_definition) {
    static char texts[40][8];
    static int want[8192];
    uint64_t seed = 11;
    for (int round = 0; round < 60; round++) {
        piece p[40] = {{"a", -9, N}, {"b", -9, N}, {"c", -9, N}};
        vocabulary v = {p, 3};
        while (v.n < 24) {
            size_t len = 2 + random_u64(&seed) % 5;
            for (size_t k = 0; k < len; k++) texts[v.n][k] = "abc"[random_u64(&seed) % 3];
            texts[v.n][len] = 0;
            if (look_up(&v, texts[v.n], len) >= 0) continue;
            p[v.n] = (piece){texts[v.n], -(float)(random_u64(&seed) % 8), N};
            v.n++;
        }
        pieces_recipe r = {.row = p, .n = v.n, .prefix = -1};
        sd_tokenizer *t = open_recipe(&r);
        static const int lengths[] = {1, 2, 7, 30, 48, 49, 300, 5000};
        for (int l = 0; l < COUNT(lengths); l++) {
            static char text[8192];
            int letters = random_u64(&seed) % 2 ? 3 : 1 + (int)(random_u64(&seed) % 2);
            if (lengths[l] > 1000 && round % 6) continue;
            for (int i = 0; i < lengths[l]; i++)
                text[i] = "abc"[random_u64(&seed) % (uint64_t)letters];
            text[lengths[l]] = 0;
            int n = plainly(&v, text, want);
            sd_ids ids = {0};
            cr_assert_eq(sd_tokenizer_encode(t, text, strlen(text), 0, &ids, NULL), SD_OK);
            cr_assert_eq(ids.n, n, "round %d, %d letters: %d ids, want %d", round, lengths[l],
                         ids.n, n);
            cr_assert_arr_eq(ids.id, want, (size_t)n * sizeof *want);
            sd_ids_free(&ids);
        }
        sd_tokenizer_close(t);
    }
}

// Quadratic merging would take minutes; the bound leaves room for a sanitizer on a busy machine.
// Equal scores are the hard case: every merge's new pair is the next one.
Test(pieces, a_megabyte_of_one_letter_takes_no_quadratic_time) {
    static char runs[16][64];
    piece p[32] = {{"a", -9, N}};
    int n = 1;
    for (int k = 2; k <= 16; k++) {
        memset(runs[k - 1], 'a', (size_t)k);
        p[n++] = (piece){runs[k - 1], -100, N};
    }
    size_t len = 1 << 20;
    char *text = malloc(len);
    cr_assert(text);
    memset(text, 'a', len);
    for (int tie = 0; tie < 2; tie++) {
        for (int k = 1; k < n && !tie; k++) p[k].score = -(float)k;
        for (int k = 1; k < n && tie; k++) p[k].score = -100;
        pieces_recipe r = {.row = p, .n = n, .prefix = -1};
        sd_tokenizer *t = open_recipe(&r);
        sd_ids ids = {0};
        double start = sd_now_s();
        cr_assert_eq(sd_tokenizer_encode(t, text, len, 0, &ids, NULL), SD_OK);
        cr_assert(sd_now_s() - start < 20);
        cr_assert_eq(ids.n, 1 << 16);
        cr_assert_eq(ids.id[0], 15);
        sd_ids_free(&ids);
        sd_tokenizer_close(t);
    }
    free(text);
}

// ---- files that are not what they should be

static void is_refused(const pieces_recipe *r, const char *named) {
    sd_error err = {0};
    pieces_file f = pieces_make(r);
    sd_tokenizer *t = pieces_open(&f, &err);
    cr_expect_null(t, "taken, where \"%s\" is wanted", named);
    cr_expect(strstr(err.message, named), "\"%s\" does not name \"%s\"", err.message, named);
    sd_tokenizer_close(t);
    pieces_free(&f);
}

Test(pieces, a_hostile_file_is_refused_by_name) {
    static char piece_of_513[514];
    memset(piece_of_513, 'a', 513);
    piece p[] = {{"a", -1, N}, {"b", -2, N}, {"ab", -3, N}};
    pieces_recipe r = {.row = p, .n = COUNT(p)};
    r.no_scores = true;
    is_refused(&r, "0 scores");
    r = (pieces_recipe){.row = p, .n = COUNT(p), .no_types = true};
    is_refused(&r, "0 types");
    r = (pieces_recipe){.row = p, .n = COUNT(p), .scores = -1};
    is_refused(&r, "3 tokens have 2 scores");
    r = (pieces_recipe){.row = p, .n = COUNT(p), .types = 1};
    is_refused(&r, "4 types");
    r = (pieces_recipe){.row = p, .n = COUNT(p), .squeeze = true};
    is_refused(&r, "remove_extra_whitespaces");
    r = (pieces_recipe){.row = p, .n = COUNT(p), .unk = 4};
    is_refused(&r, "unknown_token_id is 3");
    r = (pieces_recipe){.row = p, .n = COUNT(p), .bos = 4};
    is_refused(&r, "bos_token_id is 3");
    r = (pieces_recipe){.n = 0};
    is_refused(&r, "0 entries");
    r = (pieces_recipe){.row = p, .n = COUNT(p)};
    const struct {
        piece with;
        const char *named;
    } bad[] = {{{"ab", NAN, N}, "nan"},
               {{"ab", INFINITY, N}, "inf"},
               {{"ab", -3, 0}, "type 0"},
               {{"ab", -3, 7}, "type 7"},
               {{"ab", -3, -1}, "type -1"},
               {{"a", -3, N}, "tokens 0 and 2 have the same text"},
               {{"<0x4g>", -3, PIECE_BYTE}, "<0x4g>"},
               {{"<0x041>", -3, PIECE_BYTE}, "<0x041>"},
               {{"", -3, PIECE_BYTE}, "is written"},
               {{"\xE2\x96", -3, N}, "token 2 is no UTF-8"},
               {{"\x80", -3, PIECE_USER}, "token 2 is no UTF-8"},
               {{"a\xFF", -3, PIECE_CONTROL}, "token 2 is no UTF-8"},
               {{piece_of_513, -3, N}, "513 bytes"}};
    for (int i = 0; i < COUNT(bad); i++) {
        p[2] = bad[i].with;
        is_refused(&r, bad[i].named);
    }
    p[2] = (piece){"<0x41>", 0, PIECE_BYTE};
    r.bytes = true;
    is_refused(&r, "both the byte <0x41>");
}

Test(pieces, an_empty_piece_stands_for_nothing) {
    static const piece p[] = {{"", 0, N}, {"a", -1, N}, {"", 0, PIECE_CONTROL}, {"", 0, N}};
    pieces_recipe r = {.row = p, .n = COUNT(p), .prefix = -1};
    has_ids(&r, "aa", "1 1");
    sd_tokenizer *t = open_recipe(&r);
    size_t len = 9;
    sd_tokenizer_bytes(t, 0, &len);
    cr_assert_eq(len, 0);
    sd_tokenizer_close(t);
}

Test(pieces, the_encodings_hash_depends_on_scores_and_spaces_the_fingerprint_on_tokens) {
    piece p[] = {{"a", -1, N}, {"b", -2, N}, {"ab", -3, N}, {"bb", -4, N}};
    pieces_recipe r = {.row = p, .n = COUNT(p)};
    char first[65], tokens[65];
    sd_tokenizer *t = open_recipe(&r);
    strcpy(first, sd_tokenizer_encoding(t));
    strcpy(tokens, sd_tokenizer_fingerprint(t));
    cr_expect_str_neq(first, tokens);
    sd_tokenizer_close(t);
    for (int i = 0; i < 3; i++) {
        p[3].score = i == 0 ? -2.5f : -4; // before "ab" now
        p[3].text = i == 1 ? "ba" : "bb";
        r.prefix = i == 2 ? -1 : 1;
        t = open_recipe(&r);
        cr_expect_str_neq(sd_tokenizer_encoding(t), first, "change %d", i);
        cr_expect_eq(strcmp(sd_tokenizer_fingerprint(t), tokens) == 0, i != 1, "change %d", i);
        cr_expect(sd_tokenizer_has_fingerprint(t, sd_tokenizer_fingerprint(t)) &&
                  sd_tokenizer_has_fingerprint(t, sd_tokenizer_encoding(t)) &&
                  !sd_tokenizer_has_fingerprint(t, first));
        sd_tokenizer_close(t);
    }
}
