// The case that a run of specdec cost decides: the inputs with where each came from, what they are compared with, and mixtures that
// were asked for.
#pragma once

#include "economics/burst.h"
#include "economics/read/prices.h"

enum { SD_COST_MAX_RIVALS = 16 };

typedef enum { SD_SOURCE_DEFAULT, SD_SOURCE_GIVEN, SD_SOURCE_MEASURED } sd_cost_source;
const char *sd_cost_source_word(sd_cost_source s);

// An API. Its figures lie in the case.
typedef struct {
    char name[96];
    sd_api_price price;
    double tokens; // the API's tokens for one of ours
    bool tokens_given;
    bool decision;        // answers with a label and its probability, not with text
    bool from_file;       // else from the command line
    sd_model_price model; // from_file
} sd_cost_rival;

typedef struct {
    sd_cost_input in;
    sd_cost_source source[SD_COST_INPUT_COUNT]; // of sd_cost_rows' inputs
    const char *from[SD_COST_INPUT_COUNT];      // the file of a measured one
    sd_cost_rival rival[SD_COST_MAX_RIVALS];    // LLM APIs first
    int n_rivals, n_llm;

    double busy; // share of the time with work; below 0: not known
    sd_cost_source busy_source;
    double local_share, escalated_share; // of a mixture; below 0: not asked for
    bool by_hour;
    double hour[SD_HOURS_DAY], hour_peak;
    sd_cost_source hour_source;

    // The price file.
    sd_prices *prices; // NULL: none
    const char *prices_path;
    char prices_sha256[65], prices_date[11];

    bool logged; // the usage log said what its requests cost
    double logged_usd;
    int64_t logged_requests, unpriced_requests;
    char notes[8][512]; // on how figures were measured
    int n_notes;
} sd_cost_case;

typedef struct {
    bool json;
    const char *html; // NULL: none
} sd_cost_outputs;

/// From the command line and the files that it names, into a zeroed case, which is freed after an error too. Names of files lie in argv.
sd_status sd_cost_case_read(sd_cost_case *out, sd_cost_outputs *outputs, int argc, char **argv,
                            sd_error *err);
void sd_cost_case_free(sd_cost_case *c);
