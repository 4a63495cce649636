// Writing and reading are made from one list of fields, so that none can be written and not read. N
// is a number that version 0.4 did not write: 0 when it is not there.
#include "trainer/checkpoint_state.h"

#include "base/json.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

// clang-format off
#define STATE_FIELDS(I, F, B, H, S, N)                                                                \
    I(step) I(epoch) I(index) I(tokens) I(supervised) F(wall_s)                                    \
    B(has_best) F(best_loss) I(best_step) F(last_eval) I(evals_without_gain) B(stopped)            \
    B(eval_due) F(loss) F(lr) F(grad_norm) I(step_tokens) I(step_supervised)                       \
    H(base) H(data) H(eval_data) H(init) S(version) S(kernels) S(schedule) N(skipped)
// clang-format on

sd_status sd_train_state_write(char **text, const sd_train_state *s, size_t n, sd_error *err) {
    sd_status st = SD_OK;
    json_t *j = json_object();
    bool bad = json_object_set_new(j, "checkpoint", json_integer(1)) != 0 ||
               json_object_set_new(j, "parameters", json_integer((json_int_t)n)) != 0;
#define WRITE_I(f) bad = json_object_set_new(j, #f, json_integer((json_int_t)s->f)) != 0 || bad;
#define WRITE_F(f) bad = json_object_set_new(j, #f, json_real(s->f)) != 0 || bad;
#define WRITE_B(f) bad = json_object_set_new(j, #f, json_boolean(s->f)) != 0 || bad;
#define WRITE_H(f) bad = json_object_set_new(j, #f, json_string(s->f.hex)) != 0 || bad;
#define WRITE_S(f) bad = json_object_set_new(j, #f, json_string(s->f)) != 0 || bad;
    STATE_FIELDS(WRITE_I, WRITE_F, WRITE_B, WRITE_H, WRITE_S, WRITE_I)
    *text = NULL;
    SD_CHECK(!bad, err, SD_ENOMEM, "out of memory");
    SD_TRY(sd_json_dump(text, j, JSON_INDENT(2) | JSON_REAL_PRECISION(17), err));
out:
    json_decref(j);
    return st;
}

static bool read_int(int64_t *out, const json_t *j, const char *name) {
    const json_t *v = json_object_get(j, name);
    *out = json_integer_value(v);
    return json_is_integer(v) && *out >= 0;
}
static bool read_real(double *out, const json_t *j, const char *name) {
    const json_t *v = json_object_get(j, name);
    *out = json_real_value(v);
    return json_is_real(v);
}
static bool read_flag(bool *out, const json_t *j, const char *name) {
    const json_t *v = json_object_get(j, name);
    *out = json_is_true(v);
    return json_is_boolean(v);
}
static bool read_hash(sd_sha256 *out, const json_t *j, const char *name) {
    const char *hex = json_string_value(json_object_get(j, name));
    size_t n = hex ? strlen(hex) : 1;
    if (n != 0 && (n != 64 || strspn(hex, "0123456789abcdef") != 64)) return false;
    memset(out, 0, sizeof *out);
    if (n) memcpy(out->hex, hex, n);
    return true;
}
/// A missing text stays empty; the reader of the state refuses it, with a reason.
static bool read_word(char *out, size_t cap, const json_t *j, const char *name) {
    const json_t *v = json_object_get(j, name);
    const char *text = v ? json_string_value(v) : "";
    if (!text || strlen(text) >= cap) return false;
    snprintf(out, cap, "%s", text);
    return true;
}

sd_status sd_train_state_read(sd_train_state *s, size_t *n, const char *text, const char *dir,
                              sd_error *err) {
    sd_status st = SD_OK;
    int64_t schema = 0, parameters = 0;
    json_t *j = NULL;
    *s = (sd_train_state){0};
    SD_TRY(sd_json_load(&j, text, strlen(text), JSON_REJECT_DUPLICATES, NULL, err));
    bool ok =
        read_int(&schema, j, "checkpoint") && schema == 1 && read_int(&parameters, j, "parameters");
#define READ_I(f) ok = ok && read_int(&s->f, j, #f);
#define READ_F(f) ok = ok && read_real(&s->f, j, #f);
#define READ_B(f) ok = ok && read_flag(&s->f, j, #f);
#define READ_H(f) ok = ok && read_hash(&s->f, j, #f);
#define READ_S(f) ok = ok && read_word(s->f, sizeof s->f, j, #f);
#define READ_N(f) ok = ok && (!json_object_get(j, #f) || read_int(&s->f, j, #f));
    STATE_FIELDS(READ_I, READ_F, READ_B, READ_H, READ_S, READ_N)
    SD_CHECK(ok, err, SD_EFORMAT, "%s/state.json: is not the state of a checkpoint of schema 1",
             dir);
    *n = (size_t)parameters;
out:
    json_decref(j);
    return st;
}
