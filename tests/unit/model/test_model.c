// Opening models: both formats are the same model, and what is not computed is refused by name.
#include "base/files/file.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/memory.h"
#include "model/formats/gguf.h"
#include "model/infer/forward.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { T = 40 };

static void logits_of(float *out, sd_model *m) {
    sd_context *cx;
    sd_kv *kv;
    sd_error err = {0};
    sd_row row[T];
    sd_context_options o = {.max_rows = T, .compute = SD_COMPUTE_FP32};
    cr_assert_eq(sd_context_open(&cx, m, NULL, &o, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_kv_open(&kv, cx, T, &err), SD_OK);
    for (int i = 0; i < T; i++)
        row[i] = (sd_row){(i * 37 + 5) % m->hp.V, i, kv, NULL, true, NULL, NULL};
    cr_assert_eq(sd_forward(cx, row, T, out, &err), SD_OK, "%s", err.message);
    sd_kv_close(kv);
    sd_context_close(cx);
}

// The two differ in the order of additions only where llama's rows are permuted: D terms of order
// 1 per score, through 2 layers.
Test(model, a_gguf_file_and_a_folder_of_the_same_model_agree) {
    for (int arch = 0; sd_arch_at(arch); arch++)
        for (int scaling = SD_ROPE_NONE; scaling <= SD_ROPE_YARN; scaling++) {
            sd_tiny_model t = sd_tiny_default(sd_arch_at(arch));
            t.scaling = (sd_rope_scaling)scaling;
            t.old_config = scaling % 2;
            if (t.arch == &sd_arch_phi3 && scaling != SD_ROPE_NONE) continue; // it has its own
            sd_model *g = sd_tiny_open(&t, true), *f = sd_tiny_open(&t, false);
            cr_assert(g && f);
            cr_assert(g->n_params == f->n_params && g->hp.tied_head == f->hp.tied_head);
            float *a = sd_alloc(T, t.V * sizeof *a), *b = sd_alloc(T, t.V * sizeof *b);
            double worst = 0, largest = 0;
            logits_of(a, g);
            logits_of(b, f);
            for (int i = 0; i < T * t.V; i++) {
                worst = fmax(worst, fabs((double)a[i] - b[i]));
                largest = fmax(largest, fabs((double)a[i]));
            }
            cr_assert(worst < 3e-5, "%s, scaling %d: %g", sd_arch_name(t.arch), scaling, worst);
            cr_assert(largest > 0.5, "the logits are not worth comparing: %g", largest);
            free(a);
            free(b);
            sd_model_release(g);
            sd_model_release(f);
        }
}

// tests/data/make_logits_golden.py: the reference in double, its angles in fp32 (1e-5 at position
// 39 is the most that can come of that); fp32 sums of 96 terms add as much.
Test(model, logits_are_those_of_the_reference) {
    static const char *const scalings[] = {"none", "linear", "llama3", "yarn"};
    json_t *cases = json_load_file(TEST_DATA "/logits_golden.json", 0, NULL), *c;
    size_t k;
    cr_assert_eq(json_array_size(cases), 12);
    json_array_foreach(cases, k, c) {
        const char *scaling = json_string_value(json_object_get(c, "scaling"));
        json_t *want = json_object_get(c, "logits");
        const sd_arch *arch;
        arch = sd_arch_find(json_string_value(json_object_get(c, "arch")));
        cr_assert_not_null(arch);
        sd_tiny_model t = sd_tiny_default(arch);
        while (strcmp(scalings[t.scaling], scaling) != 0) t.scaling++;
        for (int gguf = 0; gguf < 2; gguf++) {
            sd_model *m = sd_tiny_open(&t, gguf);
            cr_assert_not_null(m);
            float *got = sd_alloc(T, t.V * sizeof *got);
            logits_of(got, m);
            for (int i = 0; i < 16; i++) {
                double off = got[(T - 1) * t.V + i] - json_real_value(json_array_get(want, i));
                cr_assert(fabs(off) < 3e-5, "%s, %s, gguf %d: logit %d is off by %g",
                          sd_arch_name(arch), scaling, gguf, i, off);
            }
            free(got);
            sd_model_release(m);
        }
    }
    json_decref(cases);
}

Test(model, half_precision_folders_hold_their_rounded_values) {
    for (int k = 0; k < 2; k++) {
        sd_tiny_model t = sd_tiny_default(&sd_arch_qwen2);
        sd_model *exact = sd_tiny_open(&t, false);
        t.dtype = k ? SD_BF16 : SD_F16;
        sd_model *half = sd_tiny_open(&t, false);
        cr_assert(exact && half);
        const float *a = exact->layer[1].bias[SD_WQ], *b = half->layer[1].bias[SD_WQ];
        for (int i = 0; i < t.H * t.D; i++) {
            cr_assert_eq(b[i], k ? sd_bf16_to_float(sd_float_to_bf16(a[i]))
                                 : sd_half_to_float(sd_float_to_half(a[i])));
        }
        sd_model_release(exact);
        sd_model_release(half);
    }
}

Test(model, end_tokens_come_from_metadata_and_from_the_vocabulary) {
    sd_tiny_model t = sd_tiny_default(&sd_arch_qwen2);
    for (int gguf = 0; gguf < 2; gguf++) {
        sd_model *m = sd_tiny_open(&t, gguf);
        cr_assert_not_null(m);
        cr_assert_eq(m->n_end_tokens, 2, "%d", m->n_end_tokens);
        cr_assert(sd_model_is_end(m, 287) && sd_model_is_end(m, 285) && !sd_model_is_end(m, 286));
        sd_model_release(m);
    }
}

Test(model, a_conversation_becomes_the_ids_of_its_rendered_text) {
    sd_tiny_model t = sd_tiny_default(&sd_arch_qwen2);
    json_t *messages = json_pack("[{s:s, s:s}]", "role", "user", "content", "hi");
    for (int gguf = 0; gguf < 2; gguf++) {
        sd_model *m = sd_tiny_open(&t, gguf);
        sd_ids got = {0}, want = {0};
        sd_error err = {0};
        const char *text = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n";
        cr_assert_not_null(m);
        cr_assert_eq(sd_model_chat_ids(m, messages, NULL, NULL, true, &got, &err), SD_OK, "%s",
                     err.message);
        cr_assert_eq(
            sd_tokenizer_encode(m->tokenizer, text, strlen(text), SD_TOK_SPECIAL, &want, &err),
            SD_OK);
        cr_assert_eq(got.n, want.n);
        cr_assert_eq(got.id[0], 286);
        cr_assert(memcmp(got.id, want.id, (size_t)got.n * sizeof *got.id) == 0);
        sd_ids_free(&got);
        sd_ids_free(&want);
        sd_model_release(m);
    }
    json_decref(messages);
}

Test(model, without_tokenizer_or_template_the_reason_is_given) {
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    json_t *messages = json_array();
    sd_ids ids = {0};
    sd_error err = {0};
    t.chat_template = "{% for x in %}";
    sd_model *m = sd_tiny_open(&t, true);
    cr_assert(m && !m->chat && m->chat_error);
    cr_assert_eq(sd_model_chat_ids(m, messages, NULL, NULL, true, &ids, &err), SD_EINVAL);
    cr_assert(strstr(err.message, m->chat_error));
    sd_model_release(m);
    t.tokenizer = false;
    m = sd_tiny_open(&t, true);
    cr_assert(m && !m->tokenizer && !m->tokenizer_error);
    cr_assert_eq(sd_model_chat_ids(m, messages, NULL, NULL, true, &ids, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "tokenizer"));
    sd_model_release(m);
    json_decref(messages);
}

Test(model, the_hash_is_that_of_the_weights_file) {
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    char *dir = sd_tiny_dir(), *weights = sd_path_join(dir, "model.safetensors");
    sd_error err = {0};
    sd_model *m;
    sd_sha256 a, b;
    cr_assert_eq(sd_tiny_write_folder(dir, &t, &err), SD_OK);
    cr_assert_eq(sd_model_open(&m, dir, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_model_sha256(m, &a, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_sha256_of_file(&b, weights, &err), SD_OK);
    cr_assert(sd_sha256_equal(&a, &b));
    sd_model_release(m);
    free(weights);
    sd_tiny_remove(dir);
}

// One value of a norm reaches every row.
Test(model, a_norm_that_is_not_finite_is_refused_by_name) {
    static const char *const names[] = {"output_norm.weight", "blk.1.ffn_norm.weight",
                                        "blk.0.attn_q.bias"};
    const float bad[] = {NAN, INFINITY};
    char *dir = sd_tiny_dir(), *path = sd_path_join(dir, "tiny.gguf"), *bytes;
    sd_tiny_model t = sd_tiny_default(&sd_arch_qwen2);
    sd_error err = {0};
    size_t size;
    cr_assert_eq(sd_tiny_write_gguf(path, &t, &err), SD_OK);
    cr_assert_eq(sd_file_read(&bytes, &size, path, 1 << 26, &err), SD_OK);
    for (int i = 0; i < 6; i++) {
        sd_gguf *g;
        cr_assert_eq(sd_gguf_from_memory(&g, bytes, size, "tiny", &err), SD_OK);
        const sd_gguf_tensor *x = sd_gguf_tensor_find(g, names[i % 3]);
        float *at = (float *)(uintptr_t)x->data + 5, before = *at;
        *at = bad[i / 3];
        cr_assert_eq(sd_file_write(path, bytes, size, &err), SD_OK);
        *at = before;
        sd_gguf_close(g);
        sd_model *m;
        cr_assert_eq(sd_model_open(&m, path, &err), SD_EFORMAT);
        cr_assert(strstr(err.message, names[i % 3]) && strstr(err.message, "[5] is"), "%s",
                  err.message);
    }
    free(bytes);
    free(path);
    sd_tiny_remove(dir);
}

// config.json with one more key (or another value of a key).
static sd_status with_key(const char *key, const char *value, sd_error *err) {
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    char *dir = sd_tiny_dir(), *path = sd_path_join(dir, "config.json");
    cr_assert_eq(sd_tiny_write_folder(dir, &t, err), SD_OK);
    json_t *c = json_load_file(path, 0, NULL);
    json_object_set_new(c, key, json_loads(value, JSON_DECODE_ANY, NULL));
    json_dump_file(c, path, 0);
    json_decref(c);
    sd_model *m = NULL;
    sd_status st = sd_model_open(&m, dir, err);
    sd_model_release(m);
    free(path);
    sd_tiny_remove(dir);
    return st;
}

Test(model, what_the_forward_does_not_compute_is_refused_by_name) {
    static const struct {
        const char *key, *value, *says;
    } bad[] = {
        {"model_type", "\"mamba\"", "mamba"},
        {"hidden_act", "\"gelu\"", "gelu"},
        {"attention_bias", "true", "attention_bias"},
        {"mlp_bias", "true", "mlp_bias"},
        {"sliding_window", "128", "sliding window of 128"},
        {"quantization_config", "{}", "quantised"},
        {"rope_parameters", "{\"rope_type\": \"longrope\", \"rope_theta\": 1e4}", "longrope"},
        {"rope_parameters", "{\"rope_type\": \"dynamic\", \"factor\": 2}", "dynamic"},
        {"rope_parameters", "{\"full_attention\": {\"rope_theta\": 1e4}}", "full_attention"},
        {"partial_rotary_factor", "0.5", "partial_rotary_factor"},
        {"num_attention_heads", "0", "num_attention_heads"},
        {"num_attention_heads", "3", "divide"},
        {"num_hidden_layers", "-1", "num_hidden_layers"},
        {"num_hidden_layers", "2.5", "num_hidden_layers"},
        {"num_hidden_layers", "3", "model.layers.2"},
        {"num_hidden_layers", "1", "model.layers.1"},
        {"hidden_size", "65", "shape"},
        {"vocab_size", "100000000", "vocabulary"},
        {"rms_norm_eps", "0", "epsilon"},
        {"rope_parameters", "{\"rope_type\": \"linear\", \"rope_theta\": 1e4}", "factor 0"},
    };
    sd_error err = {0};
    cr_assert_eq(with_key("transformers_version", "\"5.0\"", &err), SD_OK, "%s", err.message);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        cr_assert_eq(with_key(bad[i].key, bad[i].value, &err), SD_EFORMAT, "%s: %s", bad[i].key,
                     bad[i].value);
        cr_assert(strstr(err.message, bad[i].says), "%s: %s: %s", bad[i].key, bad[i].value,
                  err.message);
    }
}

Test(model, mistral_without_a_window_is_a_llama) {
    sd_error err = {0};
    cr_assert_eq(with_key("model_type", "\"mistral\"", &err), SD_OK, "%s", err.message);
    cr_assert_eq(with_key("sliding_window", "null", &err), SD_OK, "%s", err.message);
}

// The published values: angles of Llama 3.1 8B (theta 5e5, D 128, factor 8, 1 and 4, 8192).
Test(model, llama3_frequencies_keep_the_fast_and_stretch_the_slow) {
    sd_rotation r = {.base = 5e5f,
                     .scaling = SD_ROPE_LLAMA3,
                     .factor = 8,
                     .low = 1,
                     .high = 4,
                     .orig_ctx = 8192};
    double scaled[64], plain[64], one;
    sd_rope_frequencies(&r, 128, 0, scaled, &one);
    r.scaling = SD_ROPE_NONE;
    sd_rope_frequencies(&r, 128, 0, plain, &one);
    cr_assert_eq(one, 1);
    cr_assert_eq(plain[0], 1);
    cr_assert_eq(scaled[0], 1);
    cr_assert(fabs(scaled[63] * 8 / plain[63] - 1) < 1e-12);
    for (int i = 0; i < 64; i++) {
        double wave = 2 * 3.14159265358979323846 / plain[i], ratio = plain[i] / scaled[i];
        if (wave < 8192 / 4.0) cr_assert(fabs(ratio - 1) < 1e-12);
        if (wave > 8192 / 1.0) cr_assert(fabs(ratio - 8) < 1e-12);
        cr_assert(ratio > 1 - 1e-12 && ratio < 8 + 1e-12);
    }
}

Test(model, yarn_scales_attention_by_a_tenth_of_the_logarithm) {
    sd_rotation r = {.base = 1e4f,
                     .scaling = SD_ROPE_YARN,
                     .factor = 4,
                     .beta_fast = 32,
                     .beta_slow = 1,
                     .orig_ctx = 2048};
    double inv[32], scale;
    sd_rope_frequencies(&r, 64, 0, inv, &scale);
    cr_assert(fabs(scale - 1.1386294361119891) < 1e-12, "%.16g", scale);
    cr_assert_eq(inv[0], 1);
    cr_assert(fabs(inv[31] * 4 / pow(1e4, -62.0 / 64) - 1) < 1e-12);
}

// Which factors divide the frequencies is decided by what the sequence may become, never by its length
// now: else a key that was rotated long ago would not fit a query of today.
Test(model, longrope_chooses_its_factors_by_the_context) {
    static const float near[32] = {[0 ... 31] = 1}, far[32] = {[0 ... 15] = 2, [16 ... 31] = 8};
    sd_rotation r = {.base = 1e4f,
                     .scaling = SD_ROPE_LONG,
                     .factor = 4,
                     .orig_ctx = 2048,
                     .attn_factor = 1.25f,
                     .factors = near,
                     .long_factors = far};
    double within[32], beyond[32], scale;
    sd_rope_frequencies(&r, 64, 2048, within, &scale);
    cr_assert_eq(scale, 1.25);
    sd_rope_frequencies(&r, 64, 2049, beyond, &scale);
    cr_assert_eq(scale, 1.25);
    for (int i = 0; i < 32; i++) {
        cr_assert(fabs(within[i] / pow(1e4, -2.0 * i / 64) - 1) < 1e-12, "%d", i);
        cr_assert_eq(within[i] / beyond[i], i < 16 ? 2 : 8, "%d", i);
    }
}

// The same rows in a sequence that may grow beyond the original context and in one that may not.
Test(model, longrope_reaches_the_rows_by_their_sequences_context) {
    sd_tiny_model t = sd_tiny_default(&sd_arch_phi3);
    t.longrope = true;
    sd_model *m = sd_tiny_open(&t, true);
    cr_assert_not_null(m);
    const int ctx[] = {t.rope_orig_ctx, t.rope_orig_ctx + 1, t.ctx};
    float *logits = sd_alloc(3, m->hp.V * sizeof *logits);
    sd_context *cx;
    sd_error err = {0};
    cr_assert_eq(sd_context_open(&cx, m, NULL, NULL, &err), SD_OK, "%s", err.message);
    for (int i = 0; i < 3; i++) {
        sd_kv *kv;
        cr_assert_eq(sd_kv_open(&kv, cx, ctx[i], &err), SD_OK, "%s", err.message);
        sd_row row[4];
        for (int k = 0; k < 4; k++)
            row[k] = (sd_row){.token = 7 * k + 3, .pos = k, .kv = kv, .want_logits = k == 3};
        cr_assert_eq(sd_forward(cx, row, 4, logits + i * m->hp.V, &err), SD_OK, "%s", err.message);
        sd_kv_close(kv);
    }
    size_t bytes = (size_t)m->hp.V * sizeof *logits;
    cr_assert_neq(memcmp(logits, logits + m->hp.V, bytes), 0);
    cr_assert_eq(memcmp(logits + m->hp.V, logits + 2 * m->hp.V, bytes), 0);
    free(logits);
    sd_context_close(cx);
    sd_model_release(m);
}
