// Running the engine in tests: answers collected whole, and an oracle that knows neither the engine
// nor speculation: one row, one sample, one token at a time.
#pragma once

#include "decode/engine/engine.h"

typedef struct {
    sd_ids ids;
    float logprob[1024]; // of the first ids
    sd_buf text;
    sd_finish finish;
    sd_request_stats stats;
    int events;
    char error[256];
} test_answer;

/// The on_event that fills a test_answer given as ctx.
void test_collect(void *answer, const sd_event *ev);
void test_answer_free(test_answer *a);

/// out [n] <- the tokens of plain decoding on a context of its own (one thread); stops at the
/// model's end tokens when `ends`. Returns how many. logits [n, V] of every token unless NULL.
int test_plain(int32_t *out, float *logits, int n, sd_model *m, const int32_t *prompt, int n_prompt,
               const sd_sampling *p, const sd_adapter *adapter, bool ends);

/// Text that repeats itself with small changes, as ids below `alphabet`.
void test_repetitive(int32_t *ids, int n, uint64_t seed, int alphabet);

/// Opens or fails the test.
sd_engine *test_engine_open(sd_model *m, const sd_engine_options *o);
/// Submits and runs until nothing is left; fails the test on an error.
void test_run(sd_engine *e, const sd_request *r, test_answer *out);
