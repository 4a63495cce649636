// Each format names the fields that it needs; a record's format is the one whose fields it has.
#include "datasets/read/format_json.h"
#include "datasets/read/format_private.h"

typedef struct {
    sd_data_format format;
    const char *field[2]; // all that are named must be there
} shape;

static const shape shapes[] = {
    {SD_FORMAT_MESSAGES, {"messages", NULL}},
    {SD_FORMAT_MESSAGES, {"conversations", NULL}},
    {SD_FORMAT_ALPACA, {"instruction", "output"}},
    {SD_FORMAT_COMPLETION, {"prompt", "completion"}},
    {SD_FORMAT_TEXT, {"text", NULL}},
};

const char *sd_format_name(sd_data_format f) {
    static const char *const names[] = {"auto", "messages", "alpaca", "completion", "text"};
    return names[f];
}

static sd_status detect(const json_t *rec, sd_data_format *out, sd_error *err) {
    const shape *found = NULL;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const shape *s = &shapes[i];
        if (!sd_field(rec, s->field[0]) || (s->field[1] && !sd_field(rec, s->field[1]))) continue;
        if (found && found->format != s->format)
            return sd_fail(err, SD_EFORMAT,
                           "has the fields of both %s (%s) and %s (%s); say which with --format",
                           sd_format_name(found->format), found->field[0],
                           sd_format_name(s->format), s->field[0]);
        found = s;
    }
    if (!found)
        return sd_fail(err, SD_EFORMAT,
                       "has none of the fields messages, conversations, instruction + output, "
                       "prompt + completion, text");
    *out = found->format;
    return SD_OK;
}

sd_status sd_settle_format(const sd_record *rec, sd_data_format *format, sd_error *err) {
    sd_data_format is = SD_FORMAT_TEXT;
    if (rec->json && *format == SD_FORMAT_AUTO) return detect(rec->json, format, err);
    if (!rec->json) {
        if (*format == SD_FORMAT_AUTO) *format = is;
        return *format == is ? SD_OK
                             : sd_fail(err, SD_EFORMAT, "is a text, but the format is %s",
                                       sd_format_name(*format));
    }
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (shapes[i].format == *format && sd_field(rec->json, shapes[i].field[0]) &&
            (!shapes[i].field[1] || sd_field(rec->json, shapes[i].field[1])))
            return SD_OK;
    sd_error why;
    if (detect(rec->json, &is, &why) != SD_OK)
        return sd_fail(err, SD_EFORMAT, "is not of the format %s: it %s", sd_format_name(*format),
                       why.message);
    return sd_fail(err, SD_EFORMAT,
                   "is of the format %s, but the records before it or --format "
                   "say %s; a file holds one format",
                   sd_format_name(is), sd_format_name(*format));
}
