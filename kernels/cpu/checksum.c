#include "kernels/checksum.h"

#include "kernels/cpu/checksum_isa.h"
#include "kernels/cpu/features.h"

#include <pthread.h>

static const sd_checksum_isa *isa = &sd_checksum_plain;

// Once: a virtual machine answers each question by leaving the guest.
static void choose(void) {
#if defined(__x86_64__)
    if (sd_cpu_has_avx512())
        isa = &sd_checksum_avx512;
    else if (sd_cpu_has_avx2())
        isa = &sd_checksum_avx2;
#endif
}

sd_checksum *sd_checksum_open(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, choose);
    return isa->open();
}
void sd_checksum_add(sd_checksum *c, const void *data, size_t bytes) {
    isa->add(c, data, bytes);
}
void sd_checksum_close(sd_checksum *c, uint64_t *sum) {
    isa->close(c, sum);
}
