// Fields that decide what is learnt. People's data carries them under the names of many programs. A
// field that is ignored gives a wrong label silently, so each is honoured where its meaning is
// known and refused by name elsewhere. Null, "", [] and {} say nothing.
#include "base/json.h"
#include "datasets/read/format_json.h"
#include "datasets/read/format_private.h"

#include <string.h>

enum {
    CHAT = 1 << SD_FORMAT_MESSAGES | 1 << SD_FORMAT_ALPACA,
    PLAIN = 1 << SD_FORMAT_COMPLETION | 1 << SD_FORMAT_TEXT,
    ALL = CHAT | PLAIN
};

typedef enum { SAYS_ANYTHING, IS_NOT_ONE, IS_FALSE, IS_LIST } refusal;

static const struct {
    const char *name;
    unsigned formats; // bits of the formats that refuse it
    refusal when;
    const char *remedy;
} record_fields[] = {
    {"system", PLAIN, SAYS_ANYTHING, "a system text needs the format messages or alpaca"},
    {"system_prompt", PLAIN, SAYS_ANYTHING, "a system text needs the format messages or alpaca"},
    {"tools", PLAIN, SAYS_ANYTHING, "tools need the format messages or alpaca"},
    {"functions", PLAIN, SAYS_ANYTHING, "tools need the format messages or alpaca"},
    {"history", ALL & ~(1u << SD_FORMAT_ALPACA), SAYS_ANYTHING,
     "earlier turns need the format alpaca; elsewhere write them as messages"},
    {"weight", ALL, IS_NOT_ONE,
     "a weight of a whole record is not built; leave the record out, or repeat it"},
    {"sample_weight", ALL, IS_NOT_ONE,
     "a weight of a whole record is not built; leave the record out, or repeat it"},
    {"loss_weight", ALL, IS_NOT_ONE,
     "a weight of a whole record is not built; leave the record out, or repeat it"},
    {"train", ALL, IS_FALSE, "leave the record out"},
    {"training", ALL, IS_FALSE, "leave the record out"},
    {"trainable", ALL, IS_FALSE, "leave the record out"},
    {"learn", ALL, IS_FALSE, "leave the record out"},
    {"loss", ALL, IS_FALSE, "leave the record out"},
    {"loss_mask", ALL, IS_LIST, "masks of a record are not read; give weights to its messages"},
    {"loss_masks", ALL, IS_LIST, "masks of a record are not read; give weights to its messages"},
    {"mask", ALL, IS_LIST, "masks of a record are not read; give weights to its messages"},
    {"masks", ALL, IS_LIST, "masks of a record are not read; give weights to its messages"},
    {"labels", ALL, IS_LIST, "labels of a record are not read; give weights to its messages"},
    {"train_mask", ALL, IS_LIST, "masks of a record are not read; give weights to its messages"},
    {"completion_mask", ALL, IS_LIST, "masks of a record are not read; give prompt + completion"},
    {"assistant_masks", ALL, IS_LIST, "masks of a record are not read; give messages"},
    {"token_weights", ALL, IS_LIST, "weights of tokens are not built"},
    {"chosen", ALL, SAYS_ANYTHING, "preference pairs are not built; keep the answer to learn"},
    {"rejected", ALL, SAYS_ANYTHING, "preference pairs are not built; keep the answer to learn"},
    {"kto_tag", ALL, IS_FALSE, "what is to be avoided is not built; leave the record out"},
    {"label", 1 << SD_FORMAT_COMPLETION, IS_FALSE,
     "what is to be avoided is not built; leave the record out"},
    {"images", CHAT, SAYS_ANYTHING, "only text is supported"},
    {"videos", CHAT, SAYS_ANYTHING, "only text is supported"},
    {"audios", CHAT, SAYS_ANYTHING, "only text is supported"},
};

static bool is_word(const json_t *j, const char *const *words) {
    const char *s = json_string_value(j);
    for (; s && *words; words++)
        if (strcmp(s, *words) == 0) return true;
    return false;
}

// The cells of a table are texts, so "1" and "[]" count as the values that they spell.
static bool says_nothing(const json_t *j) {
    static const char *const nothing[] = {"", "[]", "{}", "null", "None", NULL};
    return !j || is_word(j, nothing) || (json_is_array(j) && json_array_size(j) == 0) ||
           (json_is_object(j) && json_object_size(j) == 0);
}

static bool refused(const json_t *j, refusal when) {
    static const char *const one[] = {"1", "1.0", NULL};
    static const char *const no[] = {"false", "False", "FALSE", "0", NULL};
    if (says_nothing(j)) return false;
    switch (when) {
    case IS_NOT_ONE:
        return !json_is_true(j) && !is_word(j, one) &&
               !(json_is_number(j) && json_number_value(j) == 1);
    case IS_FALSE:
        return json_is_false(j) || is_word(j, no) ||
               (json_is_integer(j) && json_integer_value(j) == 0);
    case IS_LIST:
        return json_is_array(j) || (json_is_string(j) && json_string_value(j)[0] == '[');
    default:
        return true;
    }
}

sd_status sd_check_record_fields(const json_t *rec, sd_data_format format, sd_error *err) {
    for (size_t i = 0; i < sizeof record_fields / sizeof *record_fields; i++)
        if (record_fields[i].formats & 1u << format &&
            refused(sd_field(rec, record_fields[i].name), record_fields[i].when))
            return sd_fail(err, SD_EFORMAT,
                           "%s: would change what is learnt of a record of the format %s and is "
                           "not honoured there: %s; or remove or rename the field",
                           record_fields[i].name, sd_format_name(format), record_fields[i].remedy);
    return SD_OK;
}

// ---- one message -------------------------------------------------------------------------------

// Yes or no: a boolean, 0 or 1.
static bool as_bool(const json_t *j, bool *on) {
    bool number = json_is_number(j) && (json_number_value(j) == 0 || json_number_value(j) == 1);
    *on = number ? json_number_value(j) == 1 : json_is_true(j);
    return number || json_is_boolean(j);
}

sd_status sd_take_weights(json_t *message, bool assistant, const char *where, bool *unweighted,
                          sd_error *err) {
    // weight: OpenAI; train, training: axolotl; loss: ms-swift.
    static const char *const honoured[] = {"weight", "train", "training", "trainable",
                                           "learn",  "loss",  NULL};
    static const char *const refused_here[] = {
        "train_detail", "training_detail", "loss_mask",     "mask",          "masks", "loss_scale",
        "loss_weight",  "labels",          "token_weights", "function_call", NULL};
    for (int k = 0; honoured[k]; k++) {
        const json_t *j = sd_field(message, honoured[k]);
        bool on;
        if (j) {
            if (!as_bool(j, &on))
                return sd_fail(err, SD_EFORMAT, "%s.%s: is %s, want 0 or 1, true or false", where,
                               honoured[k],
                               json_is_number(j) ? "another number" : sd_json_type_word(j));
            if (on && !assistant && k > 0)
                return sd_fail(err, SD_EFORMAT,
                               "%s.%s: says that this turn is learnt, but only an assistant's can "
                               "be; set it to false, or learn everything with loss_on all",
                               where, honoured[k]);
            if (!on) *unweighted = true;
        }
        json_object_del(message, honoured[k]);
    }
    for (int k = 0; refused_here[k]; k++) {
        if (!says_nothing(sd_field(message, refused_here[k])))
            return sd_fail(err, SD_EFORMAT, "%s.%s: is not read; %s", where, refused_here[k],
                           strcmp(refused_here[k], "function_call") == 0
                               ? "give the call as tool_calls"
                               : "give weight 0 or 1 to the whole turn, or remove the field");
        json_object_del(message, refused_here[k]);
    }
    return SD_OK;
}
