#include "economics/read/bench.h"

#include "base/json.h"
#include "base/option.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DOCUMENT = 64 << 20 };

// A speed; 0 is what a bench prints where it measured nothing.
static sd_status speed(double *out, const json_t *o, const char *key, const char *path,
                       sd_error *err) {
    sd_status st = SD_OK;
    SD_TRY(sd_key_number(out, o, key, 0, path, err));
    SD_CHECK(*out >= 0 && *out <= 1e12, err, SD_EFORMAT,
             "%s: %s is %.6g, where tok/s from 0 to 1e12 are needed; measure again", path, key,
             *out);
out:
    return st;
}

// The entry of a map {"512": tok/s} for a length.
static sd_status at_length(double *tok_s, int *length, const json_t *o, const char *key,
                           double wanted, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    json_t *map = NULL, *value;
    const char *name;
    *tok_s = 0, *length = 0;
    SD_TRY(sd_key_object(&map, o, key, path, err));
    json_object_foreach(map, name, value) {
        char *end;
        double v, n;
        SD_CHECK(sd_read_decimal(&n, name, &end) && !*end && n >= 0 && n <= 1e8, err, SD_EFORMAT,
                 "%s: %s has the key %s, where a number of tokens is needed", path, key, name);
        SD_TRY(speed(&v, map, name, path, err));
        bool fits = n <= wanted, fitted = *length <= wanted;
        bool nearer = *tok_s == 0 || (fits ? !fitted || n > *length : !fitted && n < *length);
        if (v > 0 && nearer) *tok_s = v, *length = (int)n;
    }
out:
    return st;
}

static sd_status read_model(sd_bench_figures *f, const json_t *o, const char *path,
                            double tokens_in, sd_error *err) {
    sd_status st = SD_OK;
    double decode;
    int depth;
    SD_TRY(
        at_length(&f->prefill_tok_s, &f->prefill_tokens, o, "prefill_tok_s", tokens_in, path, err));
    SD_TRY(at_length(&decode, &depth, o, "decode_tok_s", tokens_in, path, err));
    f->has_model = true;
    if (f->decode_tok_s == 0) f->decode_tok_s = decode, f->decode_depth = depth, f->at_once = 1;
out:
    return st;
}

// Sums over the tasks of bench spec.
typedef struct {
    double answers, prompts, tokens;   // prompts: their tokens
    double plain_s, spec_s, request_s; // of decoding; of whole requests with speculation
} task_sums;

static sd_status take_task(task_sums *sum, const json_t *task, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    json_t *decode, *request;
    int64_t tokens, prompts, answers;
    double plain, spec, whole;
    SD_TRY(sd_key_int(&tokens, task, "tokens", 0, 0, INT64_MAX, path, err));
    SD_TRY(sd_key_int(&prompts, task, "prompt_tokens", 0, 0, INT64_MAX, path, err));
    SD_TRY(sd_key_int(&answers, task, "answers", 0, 0, INT64_MAX, path, err));
    SD_TRY(sd_key_object(&decode, task, "decode", path, err));
    SD_TRY(sd_key_object(&request, task, "request", path, err));
    SD_TRY(speed(&plain, decode, "plain_tok_s", path, err));
    SD_TRY(speed(&spec, decode, "spec_tok_s", path, err));
    SD_TRY(speed(&whole, request, "spec_tok_s", path, err));
    if (tokens == 0 || plain == 0 || spec == 0) return SD_OK;
    sum->answers += (double)answers, sum->prompts += (double)prompts;
    sum->tokens += (double)tokens;
    sum->plain_s += (double)tokens / plain, sum->spec_s += (double)tokens / spec;
    sum->request_s += whole > 0 ? (double)tokens / whole : NAN;
out:
    return st;
}

static sd_status read_spec(sd_bench_figures *f, const json_t *tasks, const char *path,
                           sd_error *err) {
    sd_status st = SD_OK;
    task_sums sum = {0};
    size_t i;
    json_t *task;
    json_array_foreach(tasks, i, task) SD_TRY(take_task(&sum, task, path, err));
    SD_CHECK(sum.tokens > 0, err, SD_EINVAL,
             "%s: no task has answers with their speed; measure again", path);
    f->decode_tok_s = sum.tokens / sum.spec_s, f->plain_decode_tok_s = sum.tokens / sum.plain_s;
    f->decode_depth = 0, f->has_spec = true;
    if (sum.answers > 0 && isfinite(sum.request_s)) {
        f->mix_in = sum.prompts / sum.answers, f->mix_out = sum.tokens / sum.answers;
        f->mix_seconds = sum.request_s / sum.answers;
    }
out:
    return st;
}

sd_status sd_bench_read(sd_bench_figures *f, const char *text, size_t len, const char *path,
                        double tokens_in, sd_error *err) {
    sd_status st = SD_OK;
    json_t *o = NULL, *tasks = NULL;
    json_error_t why;
    st = sd_json_load_within(&o, text, len, JSON_REJECT_DUPLICATES, MAX_DOCUMENT, &why, err);
    SD_CHECK(st != SD_ELIMIT, err, SD_ELIMIT,
             "%s: takes more than %d MB of memory; give what specdec bench --json printed", path,
             MAX_DOCUMENT >> 20);
    SD_TRY(st);
    SD_CHECK(o, err, SD_EFORMAT, "%s: line %d: %s; give what specdec bench --json printed", path,
             why.line, why.text);
    SD_TRY(sd_key_array(&tasks, o, "tasks", path, err));
    SD_CHECK(json_is_object(o) && (tasks || sd_key(o, "prefill_tok_s")), err, SD_EFORMAT,
             "%s: has neither prefill_tok_s nor tasks; give what specdec bench model --json or "
             "bench spec --json printed",
             path);
    SD_CHECK(!(tasks ? f->has_spec : f->has_model), err, SD_EINVAL,
             "--bench: %s is a second file of bench %s; give one", path, tasks ? "spec" : "model");
    if (tasks) SD_TRY(sd_key_int(&f->at_once, o, "clients", 0, 1, 1 << 20, path, err));
    SD_TRY(tasks ? read_spec(f, tasks, path, err) : read_model(f, o, path, tokens_in, err));
out:
    json_decref(o);
    return st;
}
