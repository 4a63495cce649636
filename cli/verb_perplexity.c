#include "cli/verbs.h"

sd_status sd_verb_perplexity(int argc, char **argv, sd_error *err) {
    (void)argc, (void)argv;
    return sd_fail(err, SD_EINVAL, "perplexity: not built yet");
}
