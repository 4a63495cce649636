// How long a constraint takes on a model's vocabulary: its compilation, and the masks along answers that
// the tokenizer itself has written.
//
//     grammar_masks MODEL
//
// The first answer finds states and makes masks; the others, of other texts, mostly find them.
#include "base/clock.h"
#include "base/memory.h"
#include "model/grammar/schema/cache.h"
#include "model/model.h"

#include <stdio.h>
#include <string.h>

enum { ANSWERS = 50 };

static const char schema[] =
    "{\"type\":\"object\",\"properties\":{\"name\":{\"type\":\"string\"},\"summary\":{\"type\":"
    "\"string\","
    "\"maxLength\":300},\"priority\":{\"enum\":[\"low\",\"normal\",\"high\",\"urgent\"]},"
    "\"version\":{"
    "\"type\":\"string\",\"pattern\":\"^[0-9]+(\\\\.[0-9]+)*$\"},\"tags\":{\"type\":\"array\","
    "\"items\":{"
    "\"type\":\"string\"},\"maxItems\":8},\"size\":{\"type\":\"integer\",\"minimum\":0,\"maximum\":"
    "100000},"
    "\"owner\":{\"anyOf\":[{\"type\":\"null\"},{\"type\":\"object\",\"properties\":{\"name\":{"
    "\"type\":"
    "\"string\"},\"mail\":{\"type\":\"string\",\"format\":\"email\"}},\"required\":[\"name\","
    "\"mail\"]}]}},"
    "\"required\":[\"name\",\"summary\",\"priority\",\"version\",\"tags\",\"size\",\"owner\"]}";

static const char *const words[] = {"library",  "reads",  "the",      "old",     "archives", "of",
                                    "mail",     "and",    "écrit",    "fast",    "tools",    "that",
                                    "compress", "images", "“quoted”", "without", "loss"};

static void write_answer(sd_buf *b, int i) {
    static const char *const priority[] = {"low", "normal", "high", "urgent"};
    unsigned x = (unsigned)i * 2654435761u;
    sd_buf_clear(b);
    sd_buf_printf(b, "{\"name\": \"lib%s-%u\", \"summary\": \"A", words[x % 17], x % 97);
    for (int k = 0; k < 25; k++)
        sd_buf_printf(b, " %s", words[(x = x * 1664525u + 1013904223u) >> 16 & 15]);
    sd_buf_printf(b,
                  "\", \"priority\": \"%s\", \"version\": \"%u.%u.0\", \"tags\": [\"%s\", \"%s\"], "
                  "\"size\": %u, ",
                  priority[x >> 8 & 3], x >> 4 & 7, x & 31, words[x % 17], words[x / 3 % 17],
                  x % 99999);
    if (i % 2)
        sd_buf_adds(b, "\"owner\": null}");
    else
        sd_buf_printf(b, "\"owner\": {\"name\": \"%s\", \"mail\": \"%s@example.com\"}}",
                      words[x % 8], words[x % 7]);
}

// Seconds of an answer's masks and moves; adds its tokens.
static double follow(sd_grammar *g, const sd_tokenizer *t, const char *text, size_t len,
                     int *tokens) {
    sd_ids ids = {0};
    sd_grammar_state s = {0};
    int V = sd_tokenizer_size(t);
    uint32_t *allowed = calloc(((size_t)V + 31) / 32, sizeof *allowed);
    double total = -1;
    if (allowed && sd_tokenizer_encode(t, text, len, 0, &ids, NULL) == SD_OK &&
        sd_grammar_begin(&s, g, -1)) {
        double begin = sd_now_s();
        bool ok = true;
        for (int i = 0; i < ids.n && ok; i++)
            ok = sd_grammar_fill(&s, allowed, V) &&
                 (allowed[ids.id[i] / 32] >> ids.id[i] % 32 & 1) &&
                 sd_grammar_accept(&s, ids.id[i]);
        total = ok && sd_grammar_can_end(&s) ? sd_now_s() - begin : -1;
        *tokens += ids.n;
    }
    sd_grammar_end(&s);
    sd_ids_free(&ids);
    free(allowed);
    return total;
}

int main(int argc, char **argv) {
    sd_error err = {0};
    sd_model *m = NULL;
    sd_grammar_cache *c = NULL;
    sd_grammar *g = NULL;
    const sd_grammar_spec want = {SD_GRAMMAR_SCHEMA, schema, sizeof schema - 1};
    if (argc < 2 || sd_model_open(&m, argv[1], &err) != SD_OK ||
        sd_grammar_cache_open(&c, m->tokenizer, &err) != SD_OK ||
        sd_grammar_cache_get(&g, c, &want, &err) != SD_OK) {
        fprintf(stderr, "%s\n", err.message[0] ? err.message : "grammar_masks MODEL");
        return 2;
    }
    sd_buf b = sd_buf_make(1 << 16);
    double first = 0, later = 0;
    int n_first = 0, n_later = 0;
    for (int i = 0; i < ANSWERS; i++) {
        write_answer(&b, i);
        double took = follow(g, m->tokenizer, b.data, b.len, i ? &n_later : &n_first);
        if (took < 0) {
            fprintf(stderr, "an answer does not fit: %s\n", b.data);
            return 1;
        }
        *(i ? &later : &first) += took;
    }
    sd_grammar_cache_stats s;
    sd_grammar_stats of;
    sd_grammar_cache_get_stats(c, &s);
    sd_grammar_get_stats(g, &of);
    printf("vocabulary %d: trie %.1f ms, schema compiled in %.2f ms to %d nodes\n",
           sd_tokenizer_size(m->tokenizer), s.vocab_s * 1e3, s.compile_s * 1e3, of.nodes);
    printf("first answer: %.1f us a token (%d tokens); %d others: %.2f us a token (%d tokens)\n",
           first / n_first * 1e6, n_first, ANSWERS - 1, later / n_later * 1e6, n_later);
    printf("%lld masks, %lld made by a walk of %.0f us each; %d states, %.1f MB\n",
           (long long)s.masks, (long long)s.masks_made,
           s.mask_s / (double)(s.masks_made ? s.masks_made : 1) * 1e6, of.states,
           (double)of.bytes / 1e6);
    sd_buf_free(&b);
    sd_grammar_release(g);
    sd_grammar_cache_close(c);
    sd_model_release(m);
    return 0;
}
