// A replica's speed out of what `specdec bench model --json` and `specdec bench spec --json` print.
//
// bench model measures one request at a time: its decode_tok_s is what a replica generates without a batch, the least that it can.
// bench spec --clients N measures N at once, plain and with speculation: that is T_d at a real concurrency. With several clients its
// times hold the prompts too, so T_d is a little too small then, never too large.
#pragma once

#include "base/status.h"

#include <stdint.h>

typedef struct {
    double prefill_tok_s;      // 0: not measured by these files
    int prefill_tokens;        // the prompt's length at which
    double decode_tok_s;       // with speculation where that was measured
    double plain_decode_tok_s; // without; 0: only one of both was measured
    int decode_depth;          // context at which; 0: of bench spec
    int64_t at_once;           // requests that decode_tok_s is of; 0: the file does not say
    bool has_model, has_spec;  // files of either kind that were read
    // A mean request of bench spec, and the seconds that it took of the replica, with speculation: what w of the same request is
    // held against. 0: there is no such bench.
    double mix_in, mix_out, mix_seconds;
} sd_bench_figures;

/// Adds the figures of one file to f, which begins zeroed. Of several lengths the longest that is at most tokens_in counts, else the
/// shortest. bench spec's speeds take precedence over bench model's; a second file of a kind is SD_EINVAL. Errors name the path.
sd_status sd_bench_read(sd_bench_figures *f, const char *text, size_t len, const char *path,
                        double tokens_in, sd_error *err);
