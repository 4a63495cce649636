// API prices out of LiteLLM's model_prices_and_context_window.json, read as it is: an object a model, USD for each token.
//
// Fields that are read: input_cost_per_token, output_cost_per_token, output_cost_per_reasoning_token, cache_read_input_token_cost,
// cache_creation_input_token_cost (and _above_1hr), each also with _above_200k_tokens (any number of thousands) and with _batches, _flex,
// _priority behind that; input_cost_per_request, max_input_tokens, deprecation_date. Others are ignored, but for tiered_pricing, which is refused;
// sample_spec is no model.
// A rate that is missing is not 0: without a rate for input or output a model is unpriced, tokens without a rate of their own are
// charged as what they are (a cached token as a token of the prompt). A request whose prompt is above a threshold is charged at the
// threshold's rates as a whole.
#pragma once

#include "economics/cost.h"

#define SD_TIER_WORDS "standard|batches|flex|priority"
typedef enum { SD_TIER_STANDARD, SD_TIER_BATCHES, SD_TIER_FLEX, SD_TIER_PRIORITY } sd_tier;

typedef struct sd_prices sd_prices;

typedef struct {
    sd_api_price price;
    const char *model; // its key in the file; lives as long as the prices
    char ends[11];     // the day on which it ends, YYYY-MM-DD; "": the file names none
    int above_k;       // the threshold that a mean prompt is above, in 1000 tokens; 0: none
    bool cached_rate;  // the file has a rate for cached tokens
} sd_model_price;

/// path is for messages. SD_EFORMAT for what is no JSON object.
sd_status sd_prices_open(sd_prices **out, const char *text, size_t len, const char *path,
                         sd_error *err);
void sd_prices_close(sd_prices *p);

/// The model whose key is `name`; else those whose key ends with "/name", which must all have the same prices: SD_EINVAL names two
/// that differ. SD_ENOTFOUND names what is near. tokens_in: of a mean prompt.
sd_status sd_prices_find(sd_model_price *out, const sd_prices *p, const char *name, sd_tier tier,
                         double tokens_in, sd_error *err);
