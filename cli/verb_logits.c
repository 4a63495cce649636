#include "cli/verbs.h"

sd_status sd_verb_logits(int argc, char **argv, sd_error *err) {
    (void)argc, (void)argv;
    return sd_fail(err, SD_EINVAL, "logits: not built yet");
}
