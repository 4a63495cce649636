#include "economics/input.h"

#include <math.h>
#include <string.h>

#define ROW_O(member, name, min, max, unit, help)                                                  \
    {name, offsetof(sd_cost_input, member), 0, NULL, min, max, unit, help, false},
#define ROW_P(member, name, min, max, unit, help)                                                  \
    {name, offsetof(sd_cost_input, member), 0, NULL, min, max, unit, help, true},
#define ROW_D(member, name, def, min, max, unit, help)                                             \
    {name, offsetof(sd_cost_input, member), def, #def, min, max, unit, help, false},
const sd_cost_row sd_cost_rows[SD_COST_INPUT_COUNT] = {SD_COST_INPUTS(ROW_O, ROW_P, ROW_D)};

const sd_cost_row *sd_cost_row_of(const char *option) {
    const sd_cost_row *row = NULL;
    for (int i = 0; i < SD_COST_INPUT_COUNT && !row; i++)
        if (strcmp(sd_cost_rows[i].name, option) == 0) row = &sd_cost_rows[i];
    SD_ASSERT(row);
    return row;
}

sd_cost_input sd_cost_defaults(void) {
    sd_cost_input in = {0};
    for (int i = 0; i < SD_COST_INPUT_COUNT; i++)
        *sd_cost_at(&in, &sd_cost_rows[i]) = sd_cost_rows[i].def;
    return in;
}

bool sd_cost_takes_zero(const sd_cost_row *row) {
    return row->offset == offsetof(sd_cost_input, tokens_in) ||
           row->offset == offsetof(sd_cost_input, tokens_out);
}

// An input without a default may be absent; whether it is needed is asked by need().
static sd_status check_range(const sd_cost_row *row, double v, sd_error *err) {
    bool absent = !row->def_text && v == 0;
    if (absent || (v >= row->min && v <= row->max)) return SD_OK; // false of NaN
    return sd_fail(err, SD_EINVAL, "--%s: %.16g is out of range; give %s%.16g to %.16g", row->name,
                   v, sd_cost_takes_zero(row) ? "0 or " : "", row->min, row->max);
}

static sd_status need(double v, const char *name, const char *why, sd_error *err) {
    if (v > 0) return SD_OK;
    return sd_fail(err, SD_EINVAL, "--%s is 0 or missing, and %s; give a number above 0", name,
                   why);
}

static sd_status check_needed(const sd_cost_input *in, sd_error *err) {
    sd_status st = SD_OK;
    SD_TRY(
        need(in->requests_day, "requests-day", "there is nothing to compare without a load", err));
    SD_CHECK(in->tokens_in + in->tokens_out > 0, err, SD_EINVAL,
             "--in and --out are both 0 or missing; give the tokens of a mean request");
    if (in->tokens_in > 0)
        SD_TRY(need(in->prefill_tok_s, "prefill-tok-s", "prompts are read at that speed", err));
    if (in->tokens_out > 0)
        SD_TRY(need(in->decode_tok_s, "decode-tok-s", "answers are generated at that speed", err));
    SD_CHECK(in->cached_share + in->write_5m_share + in->write_1h_share <= 1 + 1e-9, err, SD_EINVAL,
             "--cached: %.6g and what is written to the cache are more than the whole prompt",
             in->cached_share);
    SD_CHECK(in->tokens_out > 0 || in->cached_share < 1, err, SD_EINVAL,
             "--cached is 1 and --out is 0: such a request is no work; give a share below 1");
out:
    return st;
}

static sd_status check_machine(const sd_cost_input *in, sd_error *err) {
    sd_status st = SD_OK;
    bool rented = in->gpu_hour.usd > 0, bought = in->buy.usd > 0;
    SD_CHECK(rented || bought, err, SD_EINVAL,
             "--gpu-hour is 0 or missing; give what a GPU's hour costs, or --buy and --years: "
             "electricity alone is not what a machine costs");
    SD_CHECK(!rented || !bought, err, SD_EINVAL,
             "--gpu-hour and --buy are both given; keep the one that is paid");
    if (bought) SD_TRY(need(in->years, "years", "a price is written off over them", err));
    SD_CHECK(bought || (in->watts_idle == 0 && in->watts_active == 0 && in->kwh.usd == 0), err,
             SD_EINVAL, "--watts and --kwh belong to --buy: a rent holds the power already");
    SD_CHECK(in->watts_active >= in->watts_idle, err, SD_EINVAL,
             "--watts: %.6g W at full use are less than %.6g W idle; give IDLE,ACTIVE",
             in->watts_active, in->watts_idle);
    if (in->watts_active > 0)
        SD_TRY(need(in->kwh.usd, "kwh", "watts cost nothing without it", err));
    if (in->kwh.usd > 0)
        SD_TRY(need(in->watts_active, "watts", "a price of power needs the power", err));
    SD_CHECK(in->min_replicas == floor(in->min_replicas), err, SD_EINVAL,
             "--min-replicas: %.6g is not a whole number; give one", in->min_replicas);
    bool people = in->engineer_hours > 0 || in->setup_hours > 0 || in->migration_hours > 0;
    if (people)
        SD_TRY(need(in->engineer_rate.usd, "engineer-rate", "hours cost nothing without it", err));
    SD_CHECK(people || in->engineer_rate.usd == 0, err, SD_EINVAL,
             "--engineer-rate is given without hours; give --engineer-hours, or leave it out");
out:
    return st;
}

sd_status sd_cost_check(const sd_cost_input *in, sd_error *err) {
    sd_status st = SD_OK;
    sd_cost_input copy = *in;
    for (int i = 0; i < SD_COST_INPUT_COUNT; i++)
        SD_TRY(check_range(&sd_cost_rows[i], *sd_cost_at(&copy, &sd_cost_rows[i]), err));
    SD_TRY(check_needed(in, err));
    SD_TRY(check_machine(in, err));
out:
    return st;
}
