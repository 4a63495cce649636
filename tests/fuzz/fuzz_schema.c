// Any bytes as a constraint: a schema, a pattern or a choice, by their first byte. What compiles is
// followed along random tokens of its masks: no dead end, and an answer that ends passes its check.
#include "base/memory.h"
#include "model/grammar/schema/cache.h"

#include <stdio.h>
#include <string.h>

enum { STEPS = 200 };

// Byte-level BPE without merges: one token a byte, and a few longer ones.
static sd_tokenizer *make_tokenizer(void) {
    sd_buf b = sd_buf_make(1 << 16);
    sd_tokenizer *t = NULL;
    sd_error err;
    int id = 0, next = 256;
    sd_buf_adds(
        &b,
        "{\"version\":\"1.0\",\"added_tokens\":[],\"normalizer\":null,\"pre_tokenizer\":{\"type\":"
        "\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":true},"
        "\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\",\"add_prefix_space\":"
        "false,\"trim_offsets\":true,\"use_regex\":true},\"model\":{\"type\":\"BPE\",\"vocab\":{");
    for (int byte = 0; byte < 256; byte++) { // printable Latin-1 as itself, others from U+0100 on
        bool itself = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
        sd_buf_printf(&b, "%s\"\\u%04x\":%d", byte ? "," : "", itself ? byte : next++, id++);
    }
    sd_buf_printf(&b, ",\"\\\":\":%d,\"ab\":%d},\"merges\":[[\"\\\"\",\":\"],[\"a\",\"b\"]]}}", id,
                  id + 1);
    SD_ASSERT(sd_tokenizer_from_json(&t, b.data, b.len, &err) == SD_OK);
    sd_buf_free(&b);
    return t;
}

static void walk(sd_grammar *g, const sd_tokenizer *t, uint64_t seed) {
    sd_grammar_state s = {0};
    uint32_t allowed[16];
    sd_buf said = sd_buf_make(1 << 16);
    int V = sd_tokenizer_size(t);
    bool ended = false;
    sd_error err;
    sd_grammar_begin(&s, g, -1);
    for (int i = 0; i < STEPS && !ended; i++) {
        int32_t run[SD_GRAMMAR_FORCED], token = -1;
        bool open, any = sd_grammar_fill(&s, allowed, V);
        if (!any && sd_grammar_try_fill(&s, allowed, V, NULL) == SD_GRAMMAR_TOO_MUCH) break;
        SD_ASSERT(any || sd_grammar_can_end(&s));
        int n = sd_grammar_forced(&s, run, &open);
        SD_ASSERT(n <= SD_GRAMMAR_FORCED && (n == 0 || sd_grammar_allows(&s, run[0])));
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        ended = !any || (sd_grammar_can_end(&s) && seed >> 40 & 1);
        int skip = (int)((seed >> 33) % (unsigned)V);
        for (int k = 0; k < V && any; k++) {
            int32_t x = (k + skip) % V;
            if (allowed[x / 32] >> x % 32 & 1) {
                token = x;
                break;
            }
        }
        if (ended) break;
        size_t len;
        const char *bytes = sd_tokenizer_bytes(t, token, &len);
        SD_ASSERT(sd_buf_add(&said, bytes, len) && sd_grammar_accept(&s, token));
    }
    if (ended)
        SD_ASSERT(sd_grammar_check(g, said.data ? said.data : "", said.len, &err) != SD_EMISMATCH);
    sd_grammar_end(&s);
    sd_buf_free(&said);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    static const sd_grammar_kind kinds[] = {SD_GRAMMAR_SCHEMA, SD_GRAMMAR_SCHEMA, SD_GRAMMAR_REGEX,
                                            SD_GRAMMAR_CHOICE};
    static sd_grammar_cache *cache;
    static sd_tokenizer *t;
    sd_error err = {0};
    sd_grammar *g = NULL;
    if (!t) {
        t = make_tokenizer();
        SD_ASSERT(sd_grammar_cache_open(&cache, t, &err) == SD_OK);
    }
    if (size < 2) return 0;
    const sd_grammar_spec want = {kinds[bytes[0] % 4], (const char *)bytes + 2, size - 2};
    sd_status st = sd_grammar_cache_get(&g, cache, &want, &err);
    SD_ASSERT(st == SD_OK || err.message[0]);
    for (int i = 0; g && i < 3; i++) walk(g, t, bytes[1] * 3u + (unsigned)i);
    sd_grammar_release(g);
    return 0;
}
