#include "tests/e2e/exact/text.h"

const char exact_text_answer[] = "<|im_end|>\n<|im_start|>assistant\n";
const char exact_text_next[] = "<|im_end|>\n<|im_start|>user\n";

// clang-format off
static const char *const words[] = {
    "copper", "lantern", "kettle", "harbour", "parrot", "window", "archive", "library", "cable", "garden", "signal", "bridge",
    "letter", "market", "river", "engine", "paper", "violin", "mirror", "basket", "orchard", "compass", "blanket", "chimney"};
static const char *const keys[] = {"name", "kind", "count", "ok", "tags", "size", "the owner", "next", "unit", "z\xC3\xBCrich"};
static const char *const patterns[] = {"^[a-f]{2,6}$", "^[0-9]+(\\\\.[0-9]{1,3})?$", "^(red|green|grey)$", "^[A-Z][a-z]{0,5}$"};
static const char *const pieces[] = {"[a-f]{1,4}", "(yes|no|maybe)", "[0-9]+", "x?", " ", "(ab|cd)*", "!", "[^a-z]{1,2}", "\\."};
// clang-format on

#define PICK(d, list) list[roll(d, (int)(sizeof list / sizeof list[0]))]

static bool add_words(sd_buf *out, dice *d, int n) {
    bool ok = true;
    for (int i = 0; i < n; i++) ok = ok && sd_buf_printf(out, i ? " %s" : "%s", PICK(d, words));
    return ok;
}

// ---- prompts

bool exact_text_system(sd_buf *out, dice *d) {
    bool ok = sd_buf_adds(out, "<|im_start|>system\nYou work for the ") && add_words(out, d, 2);
    ok = ok &&
         sd_buf_adds(out, ". Answer briefly, in the form that is asked for, and add nothing.\n");
    for (int i = roll_in(d, 2, 8); ok && i > 0; i--)
        ok = sd_buf_printf(out, "- Rule %d: a %s is never a ", i, PICK(d, words)) &&
             add_words(out, d, 2) && sd_buf_adds(out, ".\n");
    return ok && sd_buf_adds(out, exact_text_next);
}

static bool add_record(sd_buf *out, dice *d) {
    bool ok = sd_buf_printf(out, "Package: lib%s-%d\nSection: %s\nDescription: ", PICK(d, words),
                            roll(d, 90), PICK(d, words));
    return ok && add_words(out, d, roll_in(d, 4, 12)) &&
           sd_buf_adds(out, "\n\nWrite this record as JSON with the keys name, section and "
                            "description.\n");
}

static bool add_code(sd_buf *out, dice *d) {
    bool ok = sd_buf_adds(out, "Rename `total` to `sum` and give the whole code:\n\n");
    for (int i = roll_in(d, 1, 3); ok && i > 0; i--) {
        const char *name = PICK(d, words), *item = PICK(d, words);
        ok =
            sd_buf_printf(out,
                          "def count_%s(%ss):\n    total = 0\n    for %s in %ss:\n        total += "
                          "%s.%s * %d\n    return total\n\n",
                          name, item, item, item, item, PICK(d, words), roll(d, 30));
    }
    return ok;
}

static bool add_story(sd_buf *out, dice *d) {
    bool ok = sd_buf_adds(out, "Sum this up in one sentence. ");
    for (int i = roll_in(d, 2, 6); ok && i > 0; i--)
        ok = sd_buf_printf(out, "The %s stood beside the %s, where the ", PICK(d, words),
                           PICK(d, words)) &&
             add_words(out, d, 3) && sd_buf_printf(out, " was %d years old. ", roll(d, 300));
    return ok;
}

bool exact_text_question(sd_buf *out, dice *d) {
    switch (roll(d, 4)) {
    case 0:
        return add_record(out, d);
    case 1:
        return add_code(out, d);
    case 2:
        return add_story(out, d);
    default:
        return sd_buf_printf(out, "Why does a %s need a %s, and what has it to do with a %s?",
                             PICK(d, words), PICK(d, words), PICK(d, words));
    }
}

// ---- schemas

static bool add_value(sd_buf *out, dice *d, int depth);

static bool add_object(sd_buf *out, dice *d, int depth) {
    int n = roll_in(d, 1, 4), first = roll(d, 10);
    bool ok = sd_buf_adds(out, "{\"type\":\"object\",\"properties\":{");
    for (int i = 0; ok && i < n; i++)
        ok = sd_buf_printf(out, "%s\"%s\":", i ? "," : "", keys[(first + i) % 10]) &&
             add_value(out, d, depth + 1);
    ok = ok && sd_buf_adds(out, "},\"required\":[");
    for (int i = 0, listed = 0; ok && i < n; i++) {
        if (one_in(d, 4)) continue; // may be left out
        ok = sd_buf_printf(out, "%s\"%s\"", listed++ ? "," : "", keys[(first + i) % 10]);
    }
    return ok && sd_buf_adds(out, "],\"additionalProperties\":false}");
}

static bool add_enum(sd_buf *out, dice *d) {
    bool ok = sd_buf_adds(out, "{\"enum\":[");
    for (int i = 0, n = roll_in(d, 1, 4), first = roll(d, 24); ok && i < n; i++)
        ok = sd_buf_printf(out, "%s\"%s\"", i ? "," : "", words[(first + 5 * i) % 24]);
    return ok && sd_buf_adds(out, "]}");
}

static bool add_number(sd_buf *out, dice *d) {
    int lo = roll_in(d, -20, 20), hi = lo + roll(d, 300);
    if (one_in(d, 3))
        return sd_buf_printf(out,
                             "{\"type\":\"number\",\"minimum\":%d,\"maximum\":%d,"
                             "\"multipleOf\":0.1}",
                             lo, hi);
    return sd_buf_printf(out, "{\"type\":\"integer\",\"minimum\":%d,\"maximum\":%d}", lo, hi);
}

static bool add_string(sd_buf *out, dice *d) {
    if (one_in(d, 3))
        return sd_buf_printf(out, "{\"type\":\"string\",\"pattern\":\"%s\"}", PICK(d, patterns));
    if (one_in(d, 5)) return sd_buf_adds(out, "{\"type\":\"string\",\"format\":\"date\"}");
    return sd_buf_printf(out, "{\"type\":\"string\",\"maxLength\":%d}", roll_in(d, 0, 9));
}

static bool add_value(sd_buf *out, dice *d, int depth) {
    int sides = depth < 3 ? 9 : 6; // those behind hold further values
    switch (roll(d, sides)) {
    case 0:
        return add_enum(out, d);
    case 1:
        return sd_buf_adds(out, "{\"type\":\"boolean\"}");
    case 2:
        return add_number(out, d);
    case 3:
    case 4:
        return add_string(out, d);
    case 5:
        return sd_buf_adds(out, "{\"type\":[\"boolean\",\"null\"]}");
    case 6:
        return add_object(out, d, depth);
    case 7: {
        int least = roll(d, 2);
        return sd_buf_adds(out, "{\"type\":\"array\",\"items\":") && add_value(out, d, depth + 1) &&
               sd_buf_printf(out, ",\"minItems\":%d,\"maxItems\":%d}", least, roll_in(d, 1, 3));
    }
    default:
        return sd_buf_adds(out, "{\"anyOf\":[{\"type\":\"null\"},") &&
               add_value(out, d, depth + 1) && sd_buf_adds(out, "]}");
    }
}

static bool add_schema(sd_buf *out, dice *d) {
    if (!one_in(d, 6)) return add_object(out, d, 0);
    // A list that contains itself.
    return sd_buf_adds(out, "{\"$defs\":{\"n\":{\"type\":\"object\",\"properties\":{\"v\":") &&
           add_value(out, d, 2) &&
           sd_buf_adds(out, ",\"next\":{\"anyOf\":[{\"type\":\"null\"},{\"$ref\":\"#/$defs/n\"}]}},"
                            "\"required\":[\"v\",\"next\"],\"additionalProperties\":false}},"
                            "\"$ref\":\"#/$defs/n\"}");
}

static bool add_regex(sd_buf *out, dice *d) {
    bool ok = true;
    for (int n = roll_in(d, 1, 5); ok && n > 0; n--) ok = sd_buf_adds(out, PICK(d, pieces));
    return ok && sd_buf_adds(out, "[a-z]{1,8}");
}

static bool add_choice(sd_buf *out, dice *d) {
    bool ok = sd_buf_addc(out, '[');
    int n = roll_in(d, 1, 6);
    for (int i = 0; ok && i < n; i++)
        ok = sd_buf_printf(out, "%s\"in %s %d", i ? "," : "", PICK(d, words), i) &&
             (one_in(d, 2) || sd_buf_printf(out, " %s", PICK(d, words))) && sd_buf_addc(out, '"');
    return ok && sd_buf_addc(out, ']');
}

bool exact_text_constraint(sd_buf *out, dice *d, sd_grammar_kind kind) {
    if (kind == SD_GRAMMAR_SCHEMA) return add_schema(out, d);
    if (kind == SD_GRAMMAR_REGEX) return add_regex(out, d);
    if (kind == SD_GRAMMAR_CHOICE) return add_choice(out, d);
    return true;
}

bool exact_text_tools(sd_buf *out, dice *d) {
    bool ok = sd_buf_addc(out, '[');
    for (int i = 0, n = roll_in(d, 1, 3); ok && i < n; i++)
        ok =
            sd_buf_printf(out,
                          "%s{\"type\":\"function\",\"function\":{\"name\":\"%s_%d\",\"strict\":%s,"
                          "\"parameters\":",
                          i ? "," : "", PICK(d, words), i, one_in(d, 4) ? "false" : "true") &&
            add_object(out, d, 1) && sd_buf_adds(out, "}}");
    return ok && sd_buf_addc(out, ']');
}
