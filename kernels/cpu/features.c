#include "kernels/cpu/features.h"

#include <stdio.h>
#include <string.h>

void sd_cpu_name(char *out, size_t size) {
    char line[256];
    FILE *f = fopen("/proc/cpuinfo", "r");
    *out = 0;
    while (f && !*out && fgets(line, sizeof line, f)) {
        bool is_name = strncmp(line, "model name", 10) == 0 || strncmp(line, "CPU part", 8) == 0;
        const char *name = is_name ? strchr(line, ':') : NULL;
        if (!name) continue;
        name += 1 + strspn(name + 1, " \t");
        snprintf(out, size, "%.*s", (int)strcspn(name, "\n"), name);
    }
    if (f) fclose(f);
}

#if defined(__x86_64__)
#include <cpuid.h>
#include <pthread.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

// clang 14, which builds the fuzz targets, does not know the name "f16c": CPUID.1:ECX bit 29.
static bool has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1);
}

bool sd_cpu_has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}

bool sd_cpu_has_avx512(void) {
    return sd_cpu_has_avx2() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}

bool sd_cpu_has_avx512_bf16(void) {
    return sd_cpu_has_avx512() && __builtin_cpu_supports("avx512bf16");
}

// Linux hands the tiles out on request (arch_prctl(2), ARCH_REQ_XCOMP_PERM for XTILEDATA); an older
// one, or another system, refuses.
static bool amx_allowed;
static void ask_for_amx(void) {
    enum { BF16 = 1 << 22, TILE = 1 << 24, INT8 = 1 << 25, WANTED = BF16 | TILE | INT8 };
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d & WANTED) != WANTED) return;
#if defined(__linux__) && defined(SYS_arch_prctl)
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XTILEDATA = 18 };
    amx_allowed = syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XTILEDATA) == 0;
#endif
}

bool sd_cpu_has_amx(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (!sd_cpu_has_avx512_bf16()) return false;
    pthread_once(&once, ask_for_amx);
    return amx_allowed;
}
#else
bool sd_cpu_has_avx2(void) {
    return false;
}
bool sd_cpu_has_avx512(void) {
    return false;
}
bool sd_cpu_has_avx512_bf16(void) {
    return false;
}
bool sd_cpu_has_amx(void) {
    return false;
}
#endif

#if defined(__aarch64__)
#include <sys/auxv.h>

bool sd_cpu_has_neon_dot(void) {
    enum { HWCAP_DOT_PRODUCT = 1 << 20 }; // HWCAP_ASIMDDP
    return getauxval(AT_HWCAP) & HWCAP_DOT_PRODUCT;
}
#else
bool sd_cpu_has_neon_dot(void) {
    return false;
}
#endif
