// cuDNN's attention, compiled for devices that are only described: plans LIBCUDA [LIBCUDNN]. TAP.
//
// LIBCUDA is the driver that has no device (fake_driver.py); it is loaded first, so that cuDNN finds it by its name. Nothing
// runs: a plan that compiles shows that the graph is one that cuDNN has a kernel for, on that architecture and head size.
#include "kernels/cuda/cudnn/sdpa.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static int failed;

static void say(bool ok, const char *sentence) {
    printf("%s - cudnn: %s\n", ok ? "ok" : "not ok", sentence);
    failed += !ok;
}

// As the vendor documents them (CUDA C++ Programming Guide, compute capabilities).
typedef struct {
    int version, multiprocessors, shared_bytes, threads;
} device;
static const device devices[] = {{800, 108, 166912, 2048},
                                 {900, 132, 232448, 2048},
                                 {1000, 148, 232448, 2048},
                                 {1200, 170, 101376, 1536}};

static void describe(char *out, size_t n, const device *d) {
    snprintf(out, n,
             "{\"deviceVer\": %d, \"driverVer\": 13000, \"cudaDeviceId\": 0, \"maxGridSize\": "
             "[2147483647, 65535, 65535], "
             "\"maxBlockSize\": [1024, 1024, 64], \"regsPerBlock\": 65536, "
             "\"multiProcessorCount\": %d, \"warpSize\": 32, "
             "\"maxSharedMemoryPerBlock\": 49152, \"maxSharedMemoryPerBlockOptin\": %d, "
             "\"reservedSharedMemoryPerBlock\": 1024, "
             "\"maxRegistersPerSM\": 65536, \"maxCtasPerSM\": 32, \"maxThreadsPerBlock\": 1024, "
             "\"maxThreadsPerSM\": %d, "
             "\"pciDeviceId\": 0, \"isTccDriver\": 0, \"supportCoopLaunch\": 1, "
             "\"smClockRateKHz\": 1980000, "
             "\"memClockRateKHz\": 2619000, \"l2CacheSize\": 52428800, \"deviceName\": "
             "\"described\", \"totalGlobalMem\": 85520809984}",
             d->version, d->multiprocessors, d->shared_bytes, d->threads);
}

// Head sizes of the house's architectures: 64 llama, qwen2; 96 phi3; 128 llama, qwen2, qwen3; 256 gemma3. Heads of 64 and 128 must
// compile; for the others it is cuDNN's to say.
static void plan_all(sd_cudnn *c) {
    static const struct {
        int64_t D, H, G;
        bool must;
    } shapes[] = {{64, 9, 3, true},   {64, 8, 8, true},  {96, 8, 8, false},
                  {128, 12, 2, true}, {128, 8, 8, true}, {256, 4, 1, false}};
    for (size_t d = 0; d < sizeof devices / sizeof *devices; d++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            for (int backward = 0; backward < 2; backward++) {
                char json[1024], sentence[400];
                describe(json, sizeof json, &devices[d]);
                sd_cudnn_sdpa s = {.B = 2,
                                   .S = 512,
                                   .H = shapes[i].H,
                                   .G = shapes[i].G,
                                   .D = shapes[i].D,
                                   .scale = 1 / sqrtf((float)shapes[i].D),
                                   .backward = backward};
                sd_cudnn_plan *p = NULL;
                sd_error err = {0};
                sd_status st = sd_cudnn_plan_open(&p, c, &s, json, &err);
                snprintf(sentence, sizeof sentence, "sm_%d, %lld heads of %lld, %lld of keys, %s",
                         devices[d].version / 10, (long long)s.H, (long long)s.D, (long long)s.G,
                         backward ? "backward" : "forward");
                if (st == SD_OK)
                    printf("ok - cudnn: %s: compiles (workspace %zu bytes)\n", sentence,
                           sd_cudnn_plan_workspace(p));
                else if (st == SD_ENOTFOUND && !shapes[i].must)
                    printf("ok - cudnn: %s # SKIP %.200s\n", sentence, err.message);
                else
                    printf("not ok - cudnn: %s: %s\n", sentence, err.message), failed++;
                sd_cudnn_plan_close(p);
            }
}

// A plan must be refused with a sentence that names what is wrong.
static void refuse(sd_cudnn *c, sd_cudnn_sdpa s, const char *json, const char *word,
                   const char *sentence) {
    sd_cudnn_plan *p = NULL;
    sd_error err = {0};
    sd_status st = sd_cudnn_plan_open(&p, c, &s, json, &err);
    if (st == SD_OK || !strstr(err.message, word))
        printf("# %s: %s\n", sentence, st == SD_OK ? "no error" : err.message);
    say(st != SD_OK && !p && strstr(err.message, word), sentence);
    sd_cudnn_plan_close(p);
}

int main(int argc, char **argv) {
    if (argc < 2) return fprintf(stderr, "usage: plans LIBCUDA [LIBCUDNN]\n"), 2;
    for (int i = 1; i < argc; i++)
        if (!dlopen(argv[i], RTLD_NOW | RTLD_GLOBAL))
            return fprintf(stderr, "plans: %s\n", dlerror()), 2;
    sd_cudnn *c = NULL;
    sd_error err = {0};
    if (sd_cudnn_open(&c, &err) != SD_OK) {
        printf("ok - cudnn: plans of attention # SKIP %s\n", err.message);
        return 0;
    }
    printf("# cuDNN %zu\n", sd_cudnn_version(c));
    plan_all(c);
    char json[1024];
    describe(json, sizeof json, &devices[1]);
    const sd_cudnn_sdpa good = {.B = 2, .S = 512, .H = 8, .G = 2, .D = 64, .scale = 0.125f};
    sd_cudnn_sdpa bad = good;
    bad.G = 3;
    refuse(c, bad, json, "multiple of 3",
           "heads that do not share heads of keys evenly are refused");
    bad = good, bad.D = 0;
    refuse(c, bad, json, "below 1", "a size of 0 is refused");
    bad = good, bad.S = (int64_t)1 << 40;
    refuse(c, bad, json, "too many", "a size that strides cannot hold is refused");
    bad = good, bad.scale = NAN;
    refuse(c, bad, json, "finite", "a scale that is no number is refused");
    bad = good, bad.D = 100;
    refuse(c, bad, json, "cuDNN",
           "heads of 100, whose rows are not aligned, are refused by cuDNN itself");
    refuse(c, good, "{}", "description of a device", "a device that is not described is refused");
    refuse(c, good, NULL, "no device", "where there is no device, a plan for it is refused");
    sd_cudnn_close(c);
    return failed != 0;
}
