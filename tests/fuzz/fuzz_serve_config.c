// A configuration of serve of any bytes.
#include "cli/serve/args.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    sd_serve_args a = {0};
    bool had[SD_MAX_OPTIONS] = {false};
    sd_error err = {0};
    sd_options_defaults(sd_serve_rows, &a);
    sd_serve_config_parse(&a, had, "input", (const char *)data, size, &err);
    sd_serve_args_free(&a);
    return 0;
}
