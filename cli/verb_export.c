#include "cli/verbs.h"

sd_status sd_verb_export(int argc, char **argv, sd_error *err) {
    (void)argc, (void)argv;
    return sd_fail(err, SD_EINVAL, "export: not built yet");
}
