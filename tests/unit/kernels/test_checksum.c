// XXH3 of 128 bits for each instruction set: the library's sums, whatever the pieces.
#include "kernels/checksum.h"
#include "kernels/cpu/checksum_isa.h"
#include "kernels/cpu/features.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <xxhash.h>

enum { MOST = 1 << 20 };

static void check(const sd_checksum_isa *isa, const char *name) {
    unsigned char *data = malloc(MOST);
    for (int i = 0; i < MOST; i++) data[i] = (unsigned char)(i * 31 + (i >> 8) * 7);
    static const size_t sizes[] = {0,   1,   3,    8,    16,   17,   128,   129,   240,    241,
                                   255, 256, 1023, 1024, 1025, 4096, 65536, 65537, 300001, MOST};
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++)
        for (size_t piece = 61; piece <= (128 << 10); piece = piece * 37 + 1) {
            uint64_t sum[2];
            void *s = isa->open();
            cr_assert(s);
            for (size_t at = 0; at < sizes[k]; at += piece)
                isa->add(s, data + at, sizes[k] - at < piece ? sizes[k] - at : piece);
            isa->close(s, sum);
            XXH128_hash_t want = XXH3_128bits(data, sizes[k]);
            cr_assert(sum[0] == want.low64 && sum[1] == want.high64, "%s: %zu bytes by %zu", name,
                      sizes[k], piece);
        }
    free(data);
}

Test(checksum, is_the_library_s_in_every_instruction_set) {
    check(&sd_checksum_plain, "plain");
#if defined(__x86_64__)
    if (sd_cpu_has_avx2()) check(&sd_checksum_avx2, "avx2");
    if (sd_cpu_has_avx512()) check(&sd_checksum_avx512, "avx512");
#endif
}

Test(checksum, of_nothing_is_that_of_no_bytes) {
    uint64_t sum[2];
    sd_checksum_close(sd_checksum_open(), sum);
    XXH128_hash_t want = XXH3_128bits("", 0);
    cr_assert(sum[0] == want.low64 && sum[1] == want.high64);
    sd_checksum_close(sd_checksum_open(), NULL);
}
