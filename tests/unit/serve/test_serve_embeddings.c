// Vectors and ranks over the wire. The reference is a forward in double that shares no code with the model: a row of
// logits is the head times the row that becomes the vector, and the head has more rows than columns, so vectors whose
// products agree are the same.
#include "base/files/file.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/memory.h"
#include "decode/serve/api/dialect.h"
#include "tests/unit/support/live.h"
#include "tests/unit/support/reference.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { N = 90 }; // beyond a page

static void write_file(const char *dir, const char *name, const char *text) {
    sd_error err = {0};
    char *path = sd_path_join(dir, name);
    cr_assert_eq(sd_file_write(path, text, strlen(text), &err), SD_OK, "%s", err.message);
    free(path);
}

#define MODULE(n, path, type)                                                                      \
    "{\"idx\":" n ",\"name\":\"" n "\",\"path\":\"" path                                           \
    "\",\"type\":\"sentence_transformers.models." type "\"}"
#define POOLING MODULE("0", "", "Transformer") "," MODULE("1", "1_Pooling", "Pooling")
#define NORMALIZE "," MODULE("2", "2_Normalize", "Normalize")

// A folder with sentence-transformers' files.
static sd_tiny_model start(live *s, const sd_arch *arch, const char *modules, const char *pooling) {
    sd_tiny_model t = sd_tiny_default(arch);
    *s = (live){.o = {.drain_s = 20}, .dir = sd_tiny_dir()};
    s->model = sd_path_join(s->dir, "model");
    mkdir(s->model, 0700);
    cr_assert_eq(sd_tiny_write_folder(s->model, &t, &s->err), SD_OK, "%s", s->err.message);
    if (modules) {
        char *folder = sd_path_join(s->model, "1_Pooling");
        mkdir(folder, 0700);
        write_file(s->model, "modules.json", modules);
        write_file(folder, "config.json", pooling);
        free(folder);
    }
    s->o.engine.compute = SD_COMPUTE_FP32;
    live_start_with(s, 256, 3, 8, NULL);
    return t;
}

static void tokens_of(int32_t *id, int n, int seed, int V) {
    for (int i = 0; i < n; i++) id[i] = (i * 37 + i * i % 11 + 5 + seed) % V;
}

static void add_ids(sd_buf *b, const int32_t *id, int n) {
    for (int i = 0; i < n; i++) sd_buf_printf(b, "%s%d", i ? "," : "[", (int)id[i]);
    sd_buf_adds(b, "]");
}

// v [C] times the head is `want` [V], each within what two forwards may differ by.
static void is_row(const double *v, const double *want, const sd_tiny_model *t, const char *what) {
    float *head = sd_alloc((size_t)t->V * (size_t)t->C, sizeof *head);
    double largest = 0, worst = 0;
    sd_tiny_values(head, t, SD_TINY_HEAD, 0, t->V, t->C);
    for (int i = 0; i < t->V; i++) largest = fmax(largest, fabs(want[i]));
    for (int i = 0; i < t->V; i++) {
        double x = 0;
        for (int c = 0; c < t->C; c++) x += v[c] * (double)head[(size_t)i * t->C + c];
        worst = fmax(worst, fabs(x - want[i]));
    }
    printf("# %s: off by %.2g, limit %.2g, largest %.2g\n", what, worst,
           reference_tolerance(t, largest), largest);
    cr_assert(largest > .3 && worst <= reference_tolerance(t, largest), "%s: off by %g", what,
              worst);
    free(head);
}

static void vector_at(double *v, const json_t *got, int i, int C) {
    char path[64];
    snprintf(path, sizeof path, "data.%d.embedding", i);
    const json_t *list = live_at(got, path);
    cr_assert_eq(json_array_size(list), (size_t)C);
    for (int c = 0; c < C; c++) v[c] = json_number_value(json_array_get(list, (size_t)c));
}

// Three texts of different lengths at once, beside one another in steps.
static void compare(const sd_arch *arch, bool mean) {
    live s;
    char pooling[160], what[64];
    snprintf(pooling, sizeof pooling,
             "{\"word_embedding_dimension\":64,\"pooling_mode_cls_token\":false,"
             "\"pooling_mode_mean_tokens\":%s,\"pooling_mode_lasttoken\":%s}",
             mean ? "true" : "false", mean ? "false" : "true");
    sd_tiny_model t = start(&s, arch, "[" POOLING "]", pooling);
    static const int lengths[] = {N, 1, 17};
    int32_t id[3][N];
    sd_buf body = sd_buf_make(1 << 16);
    sd_buf_adds(&body, "{\"input\":[");
    for (int k = 0; k < 3; k++) {
        tokens_of(id[k], lengths[k], k, t.V);
        if (k) sd_buf_adds(&body, ",");
        add_ids(&body, id[k], lengths[k]);
    }
    sd_buf_adds(&body, "]}");
    double v[64], *logits = sd_alloc((size_t)N * (size_t)t.V, sizeof *logits);
    for (int again = 0; again < 2; again++) { // the second time they are found, where they may be
        json_t *got = live_json(&s, "embeddings", body.data, 200);
        cr_assert_eq(json_integer_value(live_at(got, "usage.prompt_tokens")), N + 18);
        for (int k = 0; k < 3; k++) {
            const int n = lengths[k];
            reference_logits(logits, &t, id[k], n, 256);
            double *want = logits + (size_t)(n - 1) * (size_t)t.V;
            for (int i = 0; mean && i < t.V; i++) {
                double sum = 0;
                for (int pos = 0; pos < n; pos++) sum += logits[(size_t)pos * t.V + i];
                want[i] = sum / n;
            }
            vector_at(v, got, k, t.C);
            snprintf(what, sizeof what, "%s, %s of %d rows%s", sd_arch_name(arch),
                     mean ? "mean" : "last", n, again ? ", again" : "");
            is_row(v, want, &t, what);
        }
        json_decref(got);
    }
    free(logits);
    sd_buf_free(&body);
    live_stop(&s);
}

Test(serve_embeddings, the_last_row_is_the_references) {
    compare(&sd_arch_llama, false);
    compare(&sd_arch_qwen3, false);
}

Test(serve_embeddings, the_mean_is_the_references) {
    compare(&sd_arch_llama, true);
    compare(&sd_arch_gemma3, true);
}

static double decode_base64(float *out, int n, const char *text) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    unsigned char *to = (unsigned char *)out;
    uint32_t bits = 0;
    int have = 0, at = 0;
    for (; *text && *text != '='; text++) {
        bits = bits << 6 | (uint32_t)(strchr(digits, *text) - digits);
        have += 6;
        if (have >= 8 && at < 4 * n) have -= 8, to[at++] = (unsigned char)(bits >> have);
    }
    cr_assert_eq(at, 4 * n);
    double length = 0;
    for (int i = 0; i < n; i++) length += (double)out[i] * (double)out[i];
    return sqrt(length);
}

Test(serve_embeddings, base64_and_numbers_are_the_same_vector_of_length_1) {
    live s;
    sd_tiny_model t =
        start(&s, &sd_arch_llama, "[" POOLING NORMALIZE "]", "{\"pooling_mode\":\"lasttoken\"}");
    json_t *a = live_json(&s, "embeddings", "{\"input\":\"some words\"}", 200),
           *b = live_json(
               &s, "embeddings",
               "{\"input\":[\"some words\"],\"encoding_format\":\"base64\",\"dimensions\":64}",
               200);
    double v[64];
    float packed[64];
    vector_at(v, a, 0, t.C);
    // 64 floats of length 1, each rounded once.
    cr_assert_float_eq(decode_base64(packed, 64, live_text_at(b, "data.0.embedding")), 1, 1e-6);
    for (int c = 0; c < 64; c++) cr_assert_float_eq(v[c], (double)packed[c], 1e-9); // nine digits
    json_decref(a), json_decref(b);
    live_stop(&s);
}

static void refused(const live *s, const char *route, const char *body, const char *why) {
    json_t *got = live_json(s, route, body, 400);
    cr_expect(strstr(live_text_at(got, "error.message"), why), "%s",
              live_text_at(got, "error.message"));
    json_decref(got);
}

Test(serve_embeddings, a_model_that_states_no_pooling_is_a_400) {
    live s;
    live_start(&s, 256, 2, 8);
    refused(&s, "embeddings", "{\"input\":\"a\"}", "states no pooling");
    refused(&s, "rerank", "{\"query\":\"a\",\"documents\":[\"b\"]}", "states no classifier");
    live_stop(&s);
    start(&s, &sd_arch_llama, "[" POOLING "]", "{\"pooling_mode\":\"cls\"}");
    refused(&s, "embeddings", "{\"input\":\"a\"}", "pooling that is not supported");
    live_stop(&s);
    start(&s, &sd_arch_llama, "[" POOLING "," MODULE("2", "2_Dense", "Dense") "]",
          "{\"pooling_mode\":\"mean\"}");
    refused(&s, "embeddings", "{\"input\":\"a\"}", "pooling that is not supported");
    live_stop(&s);
    start(&s, &sd_arch_llama, "[" POOLING "]", "{\"pooling_mode\":\"mean\"}");
    refused(&s, "embeddings", "{\"input\":\"a\",\"dimensions\":32}", "states no shorter");
    refused(&s, "embeddings", "{\"input\":[9999]}", "not below");
    refused(&s, "rerank", "{\"query\":\"a\",\"documents\":[\"b\"]}", "states no classifier");
    live_stop(&s);
}

// ---- many texts

Test(serve_embeddings, more_texts_than_slots_and_queue_come_in_their_order) {
    live s;
    sd_tiny_model t = start(&s, &sd_arch_llama, "[" POOLING "]", "{\"pooling_mode\":\"mean\"}");
    sd_buf body = sd_buf_make(1 << 16);
    sd_buf_adds(&body, "{\"input\":[");
    for (int i = 0; i < 60; i++) sd_buf_printf(&body, "%s[%d,%d]", i ? "," : "", i, 3 * i + 1);
    sd_buf_adds(&body, "]}");
    json_t *all = live_json(&s, "embeddings", body.data, 200);
    for (int i = 0; i < 60; i += 7) {
        char one[64];
        double v[64], w[64];
        snprintf(one, sizeof one, "{\"input\":[%d,%d]}", i, 3 * i + 1);
        json_t *alone = live_json(&s, "embeddings", one, 200);
        vector_at(v, all, i, t.C), vector_at(w, alone, 0, t.C);
        cr_assert_eq(memcmp(v, w, sizeof v), 0, "text %d is another one beside others", i);
        json_decref(alone);
    }
    json_decref(all);
    sd_buf_free(&body);
    live_stop(&s);
}

// ---- ranks: a GGUF file whose classifier is written behind it is not made here; a folder's is

// LlamaForSequenceClassification: one tensor more behind the others.
static void write_classifier(const char *dir, int C) {
    sd_error err = {0};
    char *path = sd_path_join(dir, "model.safetensors"), *data;
    size_t len;
    uint64_t n;
    cr_assert_eq(sd_file_read(&data, &len, path, 1 << 24, &err), SD_OK, "%s", err.message);
    memcpy(&n, data, 8);
    const int end = (int)(len - 8 - n);
    json_t *header = json_loadb(data + 8, n, 0, NULL);
    json_object_set_new(header, "score.weight",
                        json_pack("{s:s, s:[i,i], s:[i,i]}", "dtype", "F32", "shape", 1, C,
                                  "data_offsets", end, end + 4 * C));
    char *text = json_dumps(header, 0);
    sd_buf b = sd_buf_make(1 << 24);
    uint64_t size = (strlen(text) + 7) / 8 * 8;
    sd_buf_add(&b, (const char *)&size, 8);
    sd_buf_printf(&b, "%-*s", (int)size, text);
    sd_buf_add(&b, data + 8 + n, (size_t)end);
    for (int c = 0; c < C; c++) {
        float w = 0.05f * (float)(c * 29 % 13 - 6);
        sd_buf_add(&b, (const char *)&w, 4);
    }
    cr_assert_eq(sd_file_write(path, b.data, b.len, &err), SD_OK, "%s", err.message);
    json_decref(header);
    sd_buf_free(&b);
    free(text), free(path), free(data);
}

static void make_classifier(live *s, sd_tiny_model *t) {
    sd_error err = {0};
    json_error_t why;
    *t = sd_tiny_default(&sd_arch_llama);
    *s = (live){.o = {.drain_s = 20}, .dir = sd_tiny_dir()};
    s->model = sd_path_join(s->dir, "model");
    mkdir(s->model, 0700);
    cr_assert_eq(sd_tiny_write_folder(s->model, t, &s->err), SD_OK, "%s", s->err.message);
    write_classifier(s->model, t->C);
    char *path = sd_path_join(s->model, "config.json");
    json_t *config = json_load_file(path, 0, &why);
    cr_assert_not_null(config);
    json_object_set_new(config, "architectures",
                        json_pack("[s]", "LlamaForSequenceClassification"));
    char *text = json_dumps(config, 0);
    cr_assert_eq(sd_file_write(path, text, strlen(text), &err), SD_OK);
    json_decref(config);
    free(text), free(path);
    s->o.engine.compute = SD_COMPUTE_FP32;
}

// The row of the last token from the reference's logits is not to be had, but the relevance is: the classifier's row is
// a combination of the head's rows only by chance, so the row is solved for by least squares.
static void solve_row(double *v, const double *logits, const sd_tiny_model *t) {
    const int C = t->C;
    float *head = sd_alloc((size_t)t->V * (size_t)C, sizeof *head);
    double *a = sd_alloc((size_t)C * (size_t)(C + 1), sizeof *a);
    sd_tiny_values(head, t, SD_TINY_HEAD, 0, t->V, C);
    for (int i = 0; i < C; i++)
        for (int k = 0; k <= C; k++)
            for (int r = 0; r < t->V; r++)
                a[i * (C + 1) + k] +=
                    (double)head[r * C + i] * (k < C ? (double)head[r * C + k] : logits[r]);
    for (int i = 0; i < C; i++) // Gauss: the matrix is positive definite
        for (int r = i + 1; r < C; r++) {
            const double f = a[r * (C + 1) + i] / a[i * (C + 1) + i];
            for (int k = i; k <= C; k++) a[r * (C + 1) + k] -= f * a[i * (C + 1) + k];
        }
    for (int i = C - 1; i >= 0; i--) {
        v[i] = a[i * (C + 1) + C];
        for (int k = i + 1; k < C; k++) v[i] -= a[i * (C + 1) + k] * v[k];
        v[i] /= a[i * (C + 1) + i];
    }
    free(head);
    free(a);
}

static int tokenize(int32_t *out, const live *s, const char *text) {
    char *body = sd_sprintf("{\"prompt\":\"%s\"}", text);
    json_t *got = live_json(s, "tokenize", body, 200);
    const json_t *list = json_object_get(got, "tokens");
    int n = (int)json_array_size(list);
    for (int i = 0; i < n; i++)
        out[i] = (int32_t)json_integer_value(json_array_get(list, (size_t)i));
    json_decref(got);
    free(body);
    return n;
}

Test(serve_embeddings, relevance_is_the_references_and_documents_come_by_it) {
    static const char *const documents[] = {"the cat", "another one of these", "x"};
    live s;
    sd_tiny_model t;
    make_classifier(&s, &t);
    live_start_with(&s, 256, 2, 8, NULL);
    json_t *got = live_json(
               &s, "rerank",
               "{\"query\":\"in the sand\",\"documents\":[\"the cat\",{\"text\":\"another "
               "one of these\"},\"x\"],\"return_documents\":true}",
               200),
           *top =
               live_json(&s, "rerank",
                         "{\"query\":\"in the sand\",\"documents\":[\"the cat\",\"another one of "
                         "these\",\"x\"],\"top_n\":2}",
                         200);
    cr_assert_eq(json_array_size(live_at(got, "results")), 3);
    cr_assert_eq(json_array_size(live_at(top, "results")), 2);
    double before = 2;
    for (int i = 0; i < 3; i++) {
        char path[64];
        int32_t id[128];
        double v[64], x = 0;
        snprintf(path, sizeof path, "results.%d.index", i);
        const int d = (int)json_integer_value(live_at(got, path));
        snprintf(path, sizeof path, "results.%d.relevance_score", i);
        const double p = json_real_value(live_at(got, path));
        if (i < 2) cr_assert_eq(json_real_value(live_at(top, path)), p);
        snprintf(path, sizeof path, "results.%d.document.text", i);
        cr_assert_str_eq(live_text_at(got, path), documents[d]);
        int n = tokenize(id, &s, "in the sand");
        n += tokenize(id + n, &s, documents[d]);
        double *logits = sd_alloc((size_t)n * (size_t)t.V, sizeof *logits);
        reference_logits(logits, &t, id, n, 256);
        solve_row(v, logits + (size_t)(n - 1) * (size_t)t.V, &t);
        for (int c = 0; c < t.C; c++) x += v[c] * (double)(0.05f * (float)(c * 29 % 13 - 6));
        const double want = 1 / (1 + exp(-x));
        printf("# document %d: relevance %.9g, the reference's is %.9g\n", d, p, want);
        // An fp32 row is off by what logits are; the classifier's weights sum to at most 64 * .3, its slope is 1/4.
        cr_assert_float_eq(p, want, 64 * .3 / 4 * reference_tolerance(&t, 4));
        cr_assert(p <= before);
        before = p;
        free(logits);
    }
    refused(&s, "embeddings", "{\"input\":\"a\"}", "ranks and gives no vectors");
    json_decref(got), json_decref(top);
    live_stop(&s);
}

// ---- bodies

static const struct {
    const char *names, *body;
    bool rank;
} bad[] = {
    {"", "{", false},
    {"input", "{}", false},
    {"input", "{\"input\":7}", false},
    {"input", "{\"input\":[]}", false},
    {"input", "{\"input\":\"\"}", false},
    {"input[1]", "{\"input\":[\"a\",7]}", false},
    {"input[0]", "{\"input\":[[]]}", false},
    {"input[0]", "{\"input\":[[\"a\"]]}", false},
    {"input[1]", "{\"input\":[1,-1]}", false},
    {"encoding_format", "{\"input\":\"a\",\"encoding_format\":\"int8\"}", false},
    {"dimensions", "{\"input\":\"a\",\"dimensions\":0}", false},
    {"model", "{\"input\":\"a\",\"model\":7}", false},
    {"cache_salt", "{\"input\":\"a\",\"cache_salt\":\"\"}", false},
    {"query", "{}", true},
    {"query", "{\"query\":\"\",\"documents\":[\"a\"]}", true},
    {"documents", "{\"query\":\"a\"}", true},
    {"documents", "{\"query\":\"a\",\"documents\":[]}", true},
    {"documents[0]", "{\"query\":\"a\",\"documents\":[7]}", true},
    {"documents[1]", "{\"query\":\"a\",\"documents\":[\"b\",{\"title\":\"c\"}]}", true},
    {"top_n", "{\"query\":\"a\",\"documents\":[\"b\"],\"top_n\":0}", true},
    {"return_documents", "{\"query\":\"a\",\"documents\":[\"b\"],\"return_documents\":7}", true},
};

Test(serve_embeddings, every_bad_field_is_a_400_that_names_it) {
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        sd_api_request r;
        sd_api_error e;
        const sd_dialect *d = bad[i].rank ? &sd_rerank : &sd_openai_embeddings;
        cr_expect_eq(d->parse(&r, bad[i].body, strlen(bad[i].body), &e), 400, "accepted: %s",
                     bad[i].body);
        cr_expect(strstr(e.message, bad[i].names), "'%s' does not name %s: %s", e.message,
                  bad[i].names, bad[i].body);
        cr_expect(!r.root && !r.embed);
    }
}

// ---- GGUF: the file says how a pair is written

static double relevance(const live *s, const char *route, const char *body) {
    json_t *got = live_json(s, route, body, 200);
    double p = json_real_value(live_at(got, "results.0.relevance_score"));
    json_decref(got);
    return p;
}

static void start_gguf(live *s, const char *pair) {
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    t.pooling = 4, t.labels = 2, t.pair = pair;
    *s = (live){.o = {.drain_s = 20}, .dir = sd_tiny_dir()};
    s->model = sd_path_join(s->dir, "tiny.gguf");
    cr_assert_eq(sd_tiny_write_gguf(s->model, &t, &s->err), SD_OK, "%s", s->err.message);
    live_start_with(s, 256, 2, 8, NULL);
}

Test(serve_embeddings, a_pair_is_written_as_the_file_says) {
    static const char of_pair[] = "{\"query\":\"a {document}\",\"documents\":[\"b\"]}",
                      of_text[] = "{\"query\":\"x\",\"documents\":[\"y\"]}";
    live s;
    start_gguf(&s, "Q: {query} D: {document} {query}");
    double by_pair = relevance(&s, "rerank", of_pair);
    live_stop(&s);
    start_gguf(
        &s, "Q: a {document} D: b a {document}"); // what the other becomes, but for this document
    double other = relevance(&s, "rerank", of_pair);
    live_stop(&s);
    // A document's place in a query is text: here both places of the template hold "b".
    start_gguf(&s, "Q: a {document} D: {document} a {document}");
    double both = relevance(&s, "rerank", of_pair);
    live_stop(&s);
    cr_assert_eq(other, both);
    cr_assert_neq(by_pair, both);
    start_gguf(&s, NULL); // one behind the other, each with its end
    double plain = relevance(&s, "rerank", of_text);
    live_stop(&s);
    start_gguf(&s, "{query}<|im_end|>{document}<|im_end|>");
    cr_assert_eq(relevance(&s, "rerank", of_text), plain);
    live_stop(&s);
}

// A folder saved without its head gives vectors, and refuses to talk.
Test(serve_embeddings, a_model_without_a_head_says_nothing) {
    live s;
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    t.tied = t.bare = true;
    s = (live){.o = {.drain_s = 20}, .dir = sd_tiny_dir()};
    s.model = sd_path_join(s.dir, "model");
    cr_assert_eq(sd_tiny_write_folder(s.model, &t, &s.err), SD_OK, "%s", s.err.message);
    char *folder = sd_path_join(s.model, "1_Pooling");
    mkdir(folder, 0700);
    write_file(s.model, "modules.json", "[" POOLING "]");
    write_file(folder, "config.json", "{\"pooling_mode\":\"lasttoken\"}");
    free(folder);
    live_start_with(&s, 256, 2, 8, NULL);
    json_t *got = live_json(&s, "embeddings", "{\"input\":\"a\"}", 200);
    json_decref(got);
    refused(&s, "completions", "{\"prompt\":\"a\"}", "has no head and says nothing");
    refused(&s, "systemone",
            "{\"state\":\"s\",\"questions\":{\"q\":{\"type\":\"noul\",\"instructions\":\"i\"}}}",
            "has no head and says nothing");
    live_stop(&s);
}
