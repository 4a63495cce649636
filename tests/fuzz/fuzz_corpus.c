// A corpus index by structure: blind bytes fail at the checksum, so it is made right again and what
// stands behind it is the input's: counts, tokens, a suffix array that is sorted but for some entries.
//
//     byte 0, bits 0-1: 0 the file as it is, 1 as it is with the right checksum, 2 tokens and an
//             array from the input, 3 tokens with their own array of which some entries are changed
//     byte 1: how many entries are changed; bytes 2..7: the context that is looked up; then the rest
#include "base/files/hash.h"
#include "datasets/corpus/corpus_index.h"
#include "datasets/corpus/suffix_array.h"

#include <stdlib.h>
#include <string.h>

enum { HEADER = 256, CHECKED = 152, HASH = 152, HEAD = 8, MOST = 900 };

static void sign(uint8_t *file, size_t size) {
    sd_hasher *h;
    if (size < HEADER || sd_hasher_open(&h, NULL) != SD_OK) return;
    sd_hasher_add(h, file, CHECKED);
    sd_hasher_add(h, file + HEADER, size - HEADER);
    sd_sha256 sum = sd_hasher_close(h);
    memcpy(file + HASH, sum.hex, 64);
}

static uint8_t *make(size_t *size, const uint8_t *in, size_t n_in, int mode, int changes) {
    int64_t n = (int64_t)(n_in < MOST ? n_in : MOST);
    *size = HEADER + (size_t)n * 8;
    uint8_t *file = calloc(1, *size);
    if (!file) return NULL;
    uint32_t version = 1;
    uint64_t count = (uint64_t)n;
    memcpy(file, "SDCORPUS", 8);
    memcpy(file + 8, &version, 4);
    memcpy(file + 16, &count, 8);
    int32_t *token = (int32_t *)(void *)(file + HEADER), *sa = token + n;
    for (int64_t i = 0; i < n; i++) token[i] = in[i] > 250 || i == n - 1 ? -1 : in[i] % 11;
    if (mode == 2) {
        for (int64_t i = 0; i < n; i++) sa[i] = (int32_t)((in[i] * 31 + i * 7) % (n + 2)) - 1;
    } else if (n > 0) {
        int32_t *text = malloc((size_t)n * 4);
        for (int64_t i = 0; text && i < n; i++) text[i] = token[i] + 1;
        if (text && sd_suffix_array(sa, text, (int32_t)n, 12, NULL) != SD_OK) memset(sa, 0, 4);
        free(text);
        for (int k = 0; k < changes; k++) {
            int64_t at = in[k % n] * 3 % n, from = (in[(k + 1) % n] * 5 + k) % n;
            if (k % 3 == 0) sa[at] = (int32_t)from;
            if (k % 3 == 1) token[at] = in[k % n] % 2 ? INT32_MIN + k : (1 << 24) - k % 3;
            if (k % 3 == 2) sa[at] = -1 - k;
        }
    }
    return file;
}

static void look_up(const sd_corpus *c, const uint8_t *context) {
    int32_t ids[6];
    for (int i = 0; i < 6; i++) ids[i] = context[i] == 255 ? -1 : context[i] % 13;
    for (int most = 0; most <= 6; most++) {
        sd_corpus_state s = sd_corpus_match(c, ids, 6, most);
        for (int step = 0; step < 50 && s.depth > 0; step++) {
            float share;
            int64_t count;
            int32_t next = sd_corpus_next(c, &s, &share, &count);
            if (!(share >= 0 && share <= 1) || count > s.hi - s.lo) __builtin_trap();
            if (next >= 0 && count < 1) __builtin_trap();
            s = sd_corpus_advance(c, &s, next);
            if ((next >= 0) != (s.depth > 0)) __builtin_trap();
        }
    }
}

// What a drafter does with places and copies: it reads the token at each, and the one behind a copy.
static void look_around(const sd_corpus *c) {
    int64_t place[8];
    for (int t = 0; t < 13; t++) {
        const int32_t id = t;
        sd_corpus_state s = sd_corpus_match(c, &id, 1, 1);
        int n = t ? sd_corpus_places(c, &s, place, 8) : sd_corpus_begins(c, place, 8);
        for (int i = 0; i < n; i++) {
            if (place[i] < 0 || place[i] >= sd_corpus_tokens(c)) __builtin_trap();
            const sd_corpus_copy *copy = sd_corpus_copy_at(c, place[i]);
            sd_corpus_token(c, copy ? (int64_t)copy->at + copy->n : place[i]);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < HEAD) return 0;
    int mode = data[0] & 3;
    size_t bytes = size - HEAD;
    uint8_t *file;
    if (mode >= 2) {
        file = make(&bytes, data + HEAD, size - HEAD, mode, data[1] & 15);
    } else {
        file = malloc(bytes + 1);
        if (file) memcpy(file, data + HEAD, bytes);
    }
    if (!file) return 0;
    if (mode) sign(file, bytes);
    sd_corpus *c;
    sd_error err;
    if (sd_corpus_from_memory(&c, file, bytes, "input", &err) == SD_OK) {
        look_up(c, data + 2);
        look_around(c);
        if (sd_corpus_tokens(c) < 0 || strlen(sd_corpus_tokenizer(c)) > 64) __builtin_trap();
        sd_corpus_close(c);
    }
    free(file);
    return 0;
}
