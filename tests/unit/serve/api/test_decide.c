// The tree of labels: which tokens are read, and that probabilities are the law of an answer held to the labels.
#include "decode/serve/api/dialect.h"
#include "tests/unit/support/tiny/chat.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static void ask(sd_api_request *r, const char *criteria) {
    char body[4096];
    sd_api_error e;
    snprintf(body, sizeof body,
             "{\"state\":\"s\",\"permute\":2,\"questions\":{\"q\":{\"type\":\"choice\","
             "\"instructions\":\"which\",\"criteria\":{%s}}}}",
             criteria);
    cr_assert_eq(sd_systemone.parse(r, body, strlen(body), &e), 0, "%s", e.message);
}

static const int32_t ends[] = {270, 271};

// Values that depend on the path and the token alone, as a model's do.
static double value_of(const int32_t *path, int n, int32_t token) {
    uint64_t h = 88172645463325252u + (uint64_t)token * 0x9e3779b97f4a7c15u;
    for (int i = 0; i < n; i++) h = (h ^ (uint64_t)path[i]) * 0xff51afd7ed558ccdu;
    h ^= h >> 33, h *= 0xc4ceb9fe1a85ec53u, h ^= h >> 29;
    return -8.0 * (double)(h >> 11) * 0x1p-53;
}

typedef struct {
    const sd_decide *d;
    float value[2048][SD_DECIDE_MAX_LABELS + SD_DECIDE_MAX_ENDS];
} values;

static const float *values_at(const void *ctx, int i) {
    const values *v = ctx;
    return v->value[i % v->d->n_nodes];
}

// The label's probability by its definition: at each of its places, and behind its last token where another label
// goes on, its share among the tokens that any label with the same beginning has there.
static double law(const sd_decide_question *q, int which) {
    const sd_ids *own = &q->label[which].id;
    double p = 1;
    for (int depth = 0; depth <= own->n; depth++) {
        double sum = 0, mine = 0;
        int32_t seen[SD_DECIDE_MAX_LABELS];
        int n_seen = 0;
        bool parts = false;
        for (int k = 0; k < q->n_labels; k++) {
            const sd_ids *o = &q->label[k].id;
            if (o->n < depth || memcmp(o->id, own->id, (size_t)depth * sizeof *o->id) != 0)
                continue;
            if (o->n == depth) {
                double end = 0;
                for (int i = 0; i < 2; i++)
                    end += exp((double)(float)value_of(own->id, depth, ends[i]));
                sum += end;
                if (k == which) mine = end;
                continue;
            }
            bool again = false;
            for (int i = 0; i < n_seen; i++) again |= seen[i] == o->id[depth];
            parts |= k != which;
            if (again) continue;
            seen[n_seen++] = o->id[depth];
            double x = exp((double)(float)value_of(own->id, depth, o->id[depth]));
            sum += x;
            if (depth < own->n && o->id[depth] == own->id[depth]) mine = x;
        }
        if (depth == own->n && !parts) break;
        p *= mine / sum;
    }
    return p;
}

static void check(const char *criteria, const double *temperature) {
    sd_model m;
    sd_api_request r;
    sd_api_error e;
    tiny_chat_open(&m, tiny_chatml, NULL);
    ask(&r, criteria);
    sd_decide *d = r.decide;
    cr_assert_eq(sd_decide_plan(d, m.tokenizer, ends, 2, &e), 0, "%s", e.message);
    values *v = calloc(1, sizeof *v);
    v->d = d;
    for (int i = 0; i < d->n_nodes; i++) {
        const sd_decide_node *node = &d->node[i];
        cr_assert_geq(node->n_next + (node->ended >= 0), 2, "what does not part is not read");
        for (int k = 0; k < node->n_tokens; k++)
            v->value[i][k] = (float)value_of(node->path, node->n_path, node->token[k]);
    }
    sd_decide_answer(d, temperature, values_at, v);
    const sd_decide_question *q = &d->question[0];
    double sum = 0, all = 0;
    for (int k = 0; k < q->n_labels; k++) all += pow(law(q, k), 1 / temperature[q->kind]);
    for (int k = 0; k < q->n_labels; k++) {
        const double want = pow(law(q, k), 1 / temperature[q->kind]) / all;
        // Each of at most 20 places adds a few roundings of double.
        cr_assert_float_eq(q->p[k], want, 1e-13, "%s: %.17g, not %.17g", q->label[k].text, q->p[k],
                           want);
        sum += q->p[k];
    }
    cr_assert_float_eq(sum, 1, 1e-12);
    free(v);
    sd_api_request_free(&r);
    tiny_chat_close(&m);
}

static const double plain[] = {1, 1, 1}, warm[] = {1, 2.5, 1};

Test(decide, a_label_has_the_probability_of_an_answer_held_to_the_labels) {
    check("\"a\":null,\"b\":null", plain);
    check("\"billing\":null,\"bills\":\"x\",\"support\":null", plain);
    check("\"a\":null,\"ab\":null,\"abc\":null,\"b\":null", plain);
    check("\"other\":null,\"other services\":null,\"ot\":null,\"no\":null,\"none\":null", plain);
    check("\"other\":null,\"other services\":null,\"ot\":null,\"no\":null,\"none\":null", warm);
    char many[4096] = "";
    for (int i = 0; i < 255; i++)
        snprintf(many + strlen(many), sizeof many - strlen(many), "%s\"l%x\":null", i ? "," : "",
                 i);
    check(many, plain);
}

Test(decide, labels_that_cannot_be_told_apart_are_refused) {
    sd_model m;
    sd_api_request r;
    sd_api_error e;
    tiny_chat_open(&m, tiny_chatml, "NFC");
    ask(&r, "\"\\u00e9\":null,\"e\\u0301\":null"); // one letter, composed and not
    cr_assert_eq(sd_decide_plan(r.decide, m.tokenizer, ends, 2, &e), 400);
    cr_assert(strstr(e.message, "the labels '\u00e9' and 'e\u0301' are the same tokens"), "%s",
              e.message);
    sd_api_request_free(&r);
    ask(&r, "\"a\":null,\"ab\":null");
    cr_assert_eq(sd_decide_plan(r.decide, m.tokenizer, NULL, 0, &e), 400);
    cr_assert(strstr(e.message, "the label 'a' begins another one"), "%s", e.message);
    sd_api_request_free(&r);
    tiny_chat_close(&m);
}

Test(decide, labels_that_take_too_much_to_read_are_refused) {
    sd_model m;
    sd_api_request r;
    sd_api_error e;
    tiny_chat_open(&m, tiny_chatml, NULL);
    sd_buf body = sd_buf_make(64 << 20);
    sd_buf_adds(&body, "{\"state\":\"s\",\"questions\":{");
    for (int q = 0; q < 64; q++) {
        sd_buf_printf(&body, "%s\"q%d\":{\"type\":\"choice\",\"instructions\":\"i\",\"criteria\":{",
                      q ? "," : "", q);
        for (int k = 0; k < 255; k++) { // each parts from the next at its very end
            sd_buf_printf(&body, "%s\"", k ? "," : "");
            for (int i = 0; i < k + 1; i++) sd_buf_adds(&body, "z");
            sd_buf_adds(&body, "\":null");
        }
        sd_buf_adds(&body, "}}");
    }
    sd_buf_adds(&body, "}}");
    cr_assert_eq(sd_systemone.parse(&r, body.data, body.len, &e), 0, "%s", e.message);
    cr_assert_eq(sd_decide_plan(r.decide, m.tokenizer, ends, 2, &e), 400);
    cr_assert(strstr(e.message, "the labels part at"), "%s", e.message);
    sd_api_request_free(&r);
    sd_buf_free(&body);
    tiny_chat_close(&m);
}

Test(decide, names_that_are_no_plain_words_are_numbered) {
    static const char body[] =
        "{\"input\":\"s\",\"questions\":[{\"type\":\"predicate\",\"instructions\":\"i\",\"name\":"
        "\"urgent\"},"
        "{\"type\":\"predicate\",\"instructions\":\"i\"},"
        "{\"type\":\"predicate\",\"instructions\":\"i\",\"name\":\"a b\"},"
        "{\"type\":\"predicate\",\"instructions\":\"i\",\"name\":\"twice\"},"
        "{\"type\":\"predicate\",\"instructions\":\"i\",\"name\":\"twice\"}]}";
    static const char *const want[] = {
        "urgent:", "question 2:", "question 3:", "question 4:", "question 5:"};
    sd_api_request r;
    sd_api_error e;
    cr_assert_eq(sd_openai_decisions.parse(&r, body, strlen(body), &e), 0, "%s", e.message);
    for (int i = 0; i < 5; i++) cr_assert_str_eq(r.decide->question[i].begin, want[i]);
    sd_api_request_free(&r);
}

Test(decide, permuted_labels_stand_at_different_places) {
    sd_api_request r;
    ask(&r, "\"one\":\"first\",\"two\":null");
    sd_buf a = sd_buf_make(4096), b = sd_buf_make(4096);
    cr_assert(sd_decide_prompt(&a, r.decide, 0) && sd_decide_prompt(&b, r.decide, 1));
    cr_assert(strstr(a.data, "q: which\n- one: first\n- two\n\nText:\ns"), "%s", a.data);
    cr_assert(strstr(b.data, "q: which\n- two\n- one: first\n\nText:\ns"), "%s", b.data);
    sd_buf_free(&a), sd_buf_free(&b);
    sd_api_request_free(&r);
}

// Uniform is no better than a guess, one alone is certain; between them as the formulas say.
Test(decide, confidence_tells_a_guess_from_certainty) {
    double guess[] = {.25, .25, .25, .25}, sure[] = {0, 1, 0, 0}, half[] = {.5, .5, 0, 0};
    sd_decide_question q = {.kind = SD_DECIDE_CHOICE, .n_labels = 4, .p = guess};
    cr_assert_float_eq(sd_decide_confidence(&q), 0, 1e-15);
    q.p = sure;
    cr_assert_float_eq(sd_decide_confidence(&q), 1, 1e-15);
    q.p = half;
    cr_assert_float_eq(sd_decide_confidence(&q), 1.0 / 3, 1e-15);
    q.kind = SD_DECIDE_SCORE;
    cr_assert_float_eq(sd_decide_confidence(&q), 0.5, 1e-15); // away by .5, levels by 1 in the mean
    cr_assert_float_eq(sd_decide_score(&q), 0.5, 1e-15);
    q.p = sure;
    cr_assert_float_eq(sd_decide_confidence(&q), 1, 1e-15);
    cr_assert_float_eq(sd_decide_score(&q), 1, 1e-15);
}
