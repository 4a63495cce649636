#include "tests/unit/datasets/support_dataset.h"

#include "tests/unit/support/files.h"

#include <stdio.h>

const char dataset_conversations[] =
    "{\"messages\":[{\"role\":\"user\",\"content\":\"one\"},{\"role\":\"assistant\",\"content\":"
    "\"1\"}]}\n"
    "{\"messages\":[{\"role\":\"user\",\"content\":\"twenty-two\"},{\"role\":\"assistant\","
    "\"content\":\"22\"}]}\n"
    "{\"messages\":[{\"role\":\"user\",\"content\":\"three\"},{\"role\":\"assistant\",\"content\":"
    "\"3\"}]}\n";

static void must(sd_status st, const sd_error *err) {
    if (st != SD_OK) fprintf(stderr, "%s\n", err->message);
    SD_ASSERT(st == SD_OK);
}

sd_prepare_options dataset_options(const sd_data_source *s, int n, int T, bool packing) {
    return (sd_prepare_options){
        .source = s, .n_sources = n, .sequence_len = T, .train_on_eot = true, .packing = packing};
}

const char *dataset_prepare(const char *name, const sd_prepare_options *o, sd_model *m,
                            sd_prepare_report *r) {
    const char *path = temp_file(name);
    sd_error err = {0};
    must(sd_dataset_prepare(path, o, m, r, &err), &err);
    return path;
}

sd_dataset *dataset_open(const char *path) {
    sd_dataset *d;
    sd_error err = {0};
    must(sd_dataset_open(&d, path, &err), &err);
    return d;
}
