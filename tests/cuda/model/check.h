// Tests in C of what runs on the emulated device (tests/cuda/check.h has the rules; each runs in one random order),
// and what they share.
//
//     TEST("a sentence about behaviour") {
//         must(sd_context_open(&cx, m, NULL, &o, &err), &err);
//         check(x == y, "x is %d, want %d", x, y);
//     }
#pragma once

#include "model/infer/backend.h"
#include "tests/unit/support/tiny/model.h"

void check(bool ok, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void test_add(const char *sentence, void (*run)(void));

#define TEST_PASTE2(a, b) a##b
#define TEST_PASTE(a, b) TEST_PASTE2(a, b)
#define TEST(sentence)                                                                             \
    static void TEST_PASTE(test_, __LINE__)(void);                                                 \
    __attribute__((constructor)) static void TEST_PASTE(add_, __LINE__)(void) {                    \
        test_add(sentence, TEST_PASTE(test_, __LINE__));                                           \
    }                                                                                              \
    static void TEST_PASTE(test_, __LINE__)(void)

/// Ends the test as failed unless st is SD_OK, with the message.
void must(sd_status st, const sd_error *err);

/// A tiny model, or the test has failed.
sd_model *open_tiny(const sd_tiny_model *t);
/// A context on the emulated device, or on the CPU, for steps of so many rows.
sd_context *open_on(const sd_backend *b, sd_model *m, sd_compute compute, int max_rows,
                    int max_picked);
/// The same with keys and values of a type.
sd_context *open_typed(const sd_backend *b, sd_model *m, sd_compute compute, sd_kv_type kv,
                       int max_rows, int max_picked);
sd_kv *open_kv(const sd_context *cx, int ctx);
/// Token t of a sequence, the same in every run.
int32_t token_at(int sequence, int t, int V);
/// Factors of rank r for the model's maps, random by the seed; an odd seed leaves out every third.
sd_adapter *random_adapter(const sd_model *m, int r, uint64_t seed);

/// |x - want| / |want|, Euclidean.
double distance(const float *x, const float *want, size_t n);
double distance_to(const float *x, const double *want, size_t n);

/// Tokens [t0, t0 + n) of a sequence, each with its logits: logits [n, V].
void run_rows(float *logits, sd_context *cx, sd_kv *kv, int sequence, int t0, int n,
              const sd_adapter *a);
