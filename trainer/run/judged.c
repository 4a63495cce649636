// What a request to the tuned model is to be filled with: the sampling that `specdec eval` judges with,
// and the system text of the training records. One source for the manifest, for what stands beside the
// exports, and through them for whoever asks.
#include "base/memory.h"
#include "trainer/run/end.h"

// Tokens of the longest answer that was learnt: a limit below it would cut what the model has been
// taught to say.
static sd_status longest_answer(int *longest, const sd_rows *rows, sd_error *err) {
    *longest = 0;
    for (int64_t i = 0; i < rows->n; i++) {
        sd_dataset_row row;
        sd_status st = sd_dataset_read(rows->data, i, &row, err);
        if (st != SD_OK) return st;
        for (int t = 0, n = 0; t < row.used; t++) {
            bool goes_on = t > 0 && row.segment[t] == row.segment[t - 1];
            n = row.label[t] == SD_NO_LABEL ? 0 : goes_on ? n + 1 : 1;
            if (n > *longest) *longest = n;
        }
    }
    return SD_OK;
}

sd_status sd_run_judged(sd_defaults *out, const sd_run_options *o, const sd_run_data *data,
                        sd_error *err) {
    sd_status st = SD_OK;
    int64_t records, all = sd_dataset_records(data->train_set);
    const char *system = sd_dataset_system(data->train_set, &records);
    int longest, max_tokens = SD_JUDGED_MAX_TOKENS;
    SD_TRY(longest_answer(&longest, &data->train, err));
    while (max_tokens < longest) max_tokens *= 2; // rows have less than 2^30
    sd_defaults_judged(out, max_tokens);
    if (records < 0)
        sd_run_say(o, "the data was prepared by a version that did not count system texts: the "
                      "manifest has none; prepare it again for it");
    else if (records > 0 && !system)
        sd_run_say(o,
                   "the system text of the records has more than %d bytes: the manifest has "
                   "its share alone",
                   SD_MAX_SYSTEM_TEXT);
    if (records > 0 && all > 0) out->system_share = (double)records / (double)all;
    if (system) {
        out->system = sd_strdup(system);
        SD_CHECK_ALLOC(out->system, err);
    }
out:
    return st;
}
