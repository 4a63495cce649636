// specdec data prepare|inspect|stats
#include "cli/verbs/data.h"
#include "cli/verbs.h"

#include <string.h>

static const struct {
    const char *name, *help;
    sd_verb_run run;
} parts[] = {
    {"prepare", "tokenise, label and pack files into one verified HDF5 file", sd_data_prepare},
    {"inspect", "a row token by token: supervised, not, special", sd_data_inspect},
    {"stats", "lengths, tokens, efficiency, duplicates", sd_data_stats},
};
enum { N_PARTS = sizeof parts / sizeof *parts };

sd_status sd_verb_data(int argc, char **argv, sd_error *err) {
    const char *names[N_PARTS + 1] = {0};
    for (int i = 0; i < N_PARTS; i++) {
        names[i] = parts[i].name;
        if (argc > 0 && strcmp(argv[0], parts[i].name) == 0)
            return parts[i].run(argc - 1, argv + 1, err);
    }
    if (argc > 0 && (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0)) {
        printf("usage: specdec data prepare|inspect|stats ...\n\n");
        for (int i = 0; i < N_PARTS; i++) printf("  %-10s %s\n", parts[i].name, parts[i].help);
        printf("\n'specdec data PART --help' lists its options.\n");
        return SD_OK;
    }
    const char *near = argc > 0 ? sd_nearest(argv[0], names) : NULL;
    if (argc == 0) return sd_fail(err, SD_EINVAL, "data: say prepare, inspect or stats");
    return sd_fail(err, SD_EINVAL, "data: '%s' is not prepare, inspect or stats%s%s%s", argv[0],
                   near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}
