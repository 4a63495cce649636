#include "kernels/cpu/dispatch.h"

#include "kernels/cpu/features.h"

#include <stdlib.h>
#include <string.h>

static bool always(void) {
    return true;
}

static const struct {
    const char *name;
    sd_isa isa;
    bool (*runs)(void);
} sets[] = {{"plain", SD_ISA_PLAIN, always},
            {"avx2", SD_ISA_AVX2, sd_cpu_has_avx2},
            {"avx512", SD_ISA_AVX512, sd_cpu_has_avx512},
            {"avx512-bf16", SD_ISA_AVX512_BF16, sd_cpu_has_avx512_bf16},
            {"amx", SD_ISA_AMX, sd_cpu_has_amx},
            {"amx-bf16", SD_ISA_AMX_BF16, sd_cpu_has_amx},
            {"neon", SD_ISA_NEON, sd_cpu_has_neon_dot}};

sd_isa sd_isa_named(const char *name) {
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)
        if (strcmp(name, sets[i].name) == 0) return sets[i].runs() ? sets[i].isa : SD_ISA_NONE;
    return SD_ISA_NONE;
}

const char *sd_isa_forced(void) {
    const char *name = getenv("SPECDEC_ISA");
    return name && *name ? name : NULL;
}
