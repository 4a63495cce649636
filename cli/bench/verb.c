// specdec bench NAME ...: hands over to the bench of that name.
#include "cli/bench/bench.h"
#include "cli/verbs.h"

#include <stdio.h>
#include <string.h>

#ifdef SPECDEC_TUNING
#define HERE(f) NULL
#define TUNING(f) f
#else
#define HERE(f) f
#define TUNING(f) NULL
#endif

static const struct {
    const char *name, *help;
    sd_status (*run)(int argc, char **argv, sd_error *err); // NULL: the other program's
} benches[] = {
    {"model", "prefill, decode and verification speed of a model", HERE(sd_bench_model)},
    {"kernels", "each kernel against the limits of this machine", TUNING(sd_bench_kernels)},
    {"spec", "speculation against plain decoding on real prompts, interleaved",
     HERE(sd_bench_spec)},
};
enum { BENCHES = sizeof benches / sizeof benches[0] };

sd_status sd_verb_bench(int argc, char **argv, sd_error *err) {
    for (int i = 0; argc > 0 && i < BENCHES; i++)
        if (strcmp(argv[0], benches[i].name) == 0)
            return benches[i].run ? benches[i].run(argc - 1, argv + 1, err) : sd_become_other(err);
    if (argc > 0 && strcmp(argv[0], "--help") != 0 && strcmp(argv[0], "-h") != 0)
        return sd_fail(err, SD_EINVAL, "bench: '%s' is unknown; give model, kernels or spec",
                       argv[0]);
    printf("usage: specdec bench NAME ...\n\n");
    for (int i = 0; i < BENCHES; i++) printf("  %-10s %s\n", benches[i].name, benches[i].help);
    if (argc == 0)
        return sd_fail(err, SD_EINVAL, "bench: a name is missing; give model, kernels or spec");
    return SD_OK;
}
