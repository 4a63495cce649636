// A suffix array answers "what followed this context in the training completions" for contexts of
// any length, from 8 bytes per token and nothing else. The load: one lookup per drafted token
// while a small model decodes (4 ms a token), so a lookup may cost microseconds, not more.
//
// - The first token of a pattern is looked up in a table of bucket starts; the rest by binary
//   search.
// - A suffix that occurs implies that all shorter ones do, so the longest is found by bisecting its
//   length.
// - The most frequent continuation of an interval is a longest run of equal tokens: the interval is
//   sorted by that token. A run of length c covers a multiple of every stride <= c, so probing
//   multiples of n/2, n/4, ... finds it after about 2/share probes, however many tokens follow.
//
// Little-endian file, read into memory as it is:
//
//      0   8  "SDCORPUS"
//      8   4  version, 2; files of version 1 end behind the suffix array
//     12   4  0
//     16   8  n, the number of tokens with separators
//     24  64  fingerprint of the tokenizer, hexadecimal, or zero bytes
//     88  64  SHA-256 of the adapter's weights, hexadecimal, or zero bytes
//    152  64  SHA-256 of bytes 0..151 and of everything from 256 on, hexadecimal
//    216  40  0
//    256  4n  int32 tokens, -1 after each completion
//  256+4n 4n  int32 suffix array: starts of the suffixes in ascending order
//  256+8n 28m copies in ascending order: at, n, before [3], behind, unspaced, int32 each
#include "datasets/corpus/corpus_index.h"

#include "base/files/map.h"
#include "base/files/replace.h"
#include "base/memory.h"
#include "datasets/corpus/suffix_array.h"

#include <stdatomic.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the corpus index is read as it is and little-endian"
#endif

enum { VERSION = 2, HEADER = 256, CHECKED = 152, MAX_TOKEN = 1 << 24, SMALL_TABLE = 1 << 18 };

typedef struct {
    char magic[8];
    uint32_t version, zero;
    uint64_t n;
    char tokenizer[64], adapter[64], sha256[64];
    char pad[40];
} file_header;
_Static_assert(sizeof(file_header) == HEADER, "the corpus index header is 256 bytes");
_Static_assert(offsetof(file_header, sha256) == CHECKED, "the hash covers what stands before it");
_Static_assert(sizeof(sd_corpus_copy) == 28, "copies stand in the file as they are");

struct sd_corpus {
    atomic_int references; // beyond the first
    const uint8_t *file;   // its bytes: the file may change on disk afterwards
    void *own;             // file, unless it is the caller's
    size_t bytes;          // of it
    int64_t n;
    const int32_t *token;       // [n]
    const int32_t *sa;          // [n]
    const sd_corpus_copy *copy; // [copies]
    int64_t copies;
    int32_t *first; // [top + 3] first suffix whose first token is >= t, at index t + 1; NULL
                    // where the table would be large beside the file
    int32_t top;    // highest token
    char tokenizer[65];
    sd_sha256 adapter;
};

// ---- writing -----------------------------------------------------------------------------------

static sd_status check_tokens(const int32_t *token, int64_t n, int32_t *top, sd_error *err) {
    if (n < 0 || n >= INT32_MAX)
        return sd_fail(err, SD_ELIMIT, "corpus index: %lld tokens, at most %d are supported",
                       (long long)n, INT32_MAX - 1);
    if (n && token[n - 1] != -1)
        return sd_fail(err, SD_EINVAL, "corpus index: the last completion does not end with -1");
    *top = -1;
    for (int64_t i = 0; i < n; i++) {
        if (token[i] < -1 || token[i] >= MAX_TOKEN)
            return sd_fail(err, SD_EINVAL,
                           "corpus index: token %d at place %lld is not between -1 and %d",
                           token[i], (long long)i, MAX_TOKEN - 1);
        if (token[i] > *top) *top = token[i];
    }
    return SD_OK;
}

static bool is_token(int32_t t) {
    return t >= -1 && t < MAX_TOKEN;
}

// Lookups bisect copies, read the tokens that they name and the one behind them.
static sd_status check_copies(const sd_corpus_copy *copy, int64_t copies, const int32_t *token,
                              int64_t n, sd_error *err) {
    int64_t free_from = 0;
    for (int64_t i = 0; i < copies; i++) {
        const sd_corpus_copy *c = &copy[i];
        if (c->at < free_from || c->n < 1 || c->n >= n - c->at)
            return sd_fail(err, SD_EINVAL,
                           "corpus index: copy %lld is of %d tokens at place %d, which do not fit",
                           (long long)i, c->n, c->at);
        if (!is_token(c->before[0]) || !is_token(c->before[1]) || !is_token(c->before[2]) ||
            !is_token(c->behind) || (c->unspaced != 0 && c->unspaced != 1))
            return sd_fail(err, SD_EINVAL,
                           "corpus index: what stands around copy %lld is not of tokens",
                           (long long)i);
        for (int64_t k = c->at; k < c->at + c->n; k++)
            if (token[k] < 0)
                return sd_fail(err, SD_EINVAL, "corpus index: copy %lld goes beyond its completion",
                               (long long)i);
        free_from = (int64_t)c->at + c->n;
    }
    return SD_OK;
}

// Tokens are renumbered densely before sorting: the buckets then are as many as there are different
// tokens.
static sd_status sort_suffixes(int32_t *sa, const int32_t *token, int64_t n, int32_t top,
                               sd_error *err) {
    sd_status st = SD_OK;
    int32_t *text = sd_malloc_marked((size_t)n * 4 + 4), *rank = sd_alloc((size_t)top + 2, 4);
    SD_CHECK(text && rank, err, SD_ENOMEM, "out of memory for a corpus index of %lld tokens",
             (long long)n);
    for (int64_t i = 0; i < n; i++) rank[token[i] + 1] = 1;
    int32_t letters = 0;
    for (int32_t t = 0; t < top + 2; t++)
        if (rank[t]) rank[t] = letters++;
    for (int64_t i = 0; i < n; i++) text[i] = rank[token[i] + 1];
    SD_TRY(sd_suffix_array(sa, text, (int32_t)n, letters, err));
out:
    free(text);
    free(rank);
    return st;
}

// payload [len] and, behind it, more [n_more].
static sd_status hash_file(char hex[64], const file_header *h, const void *payload, size_t len,
                           const void *more, size_t n_more, sd_error *err) {
    sd_hasher *hasher;
    sd_status st = sd_hasher_open(&hasher, err);
    if (st != SD_OK) return st;
    sd_hasher_add(hasher, h, CHECKED);
    sd_hasher_add(hasher, payload, len);
    if (n_more) sd_hasher_add(hasher, more, n_more);
    sd_sha256 sum = sd_hasher_close(hasher);
    memcpy(hex, sum.hex, 64);
    return SD_OK;
}

sd_status sd_corpus_write(const char *path, const int32_t *tokens, int64_t n,
                          const sd_corpus_copy *copies, int64_t n_copies,
                          const char *tokenizer_fingerprint, const sd_sha256 *adapter,
                          sd_error *err) {
    sd_status st = SD_OK;
    sd_replace file = {0};
    int32_t *payload = NULL, top;
    file_header h = {.magic = {'S', 'D', 'C', 'O', 'R', 'P', 'U', 'S'}, .version = VERSION};
    SD_TRY(check_tokens(tokens, n, &top, err));
    SD_TRY(check_copies(copies, n_copies, tokens, n, err));
    h.n = (uint64_t)n;
    if (tokenizer_fingerprint)
        memcpy(h.tokenizer, tokenizer_fingerprint, strnlen(tokenizer_fingerprint, 64));
    if (adapter) memcpy(h.adapter, adapter->hex, 64);
    payload = sd_alloc((size_t)n, 8);
    SD_CHECK_ALLOC(payload, err);
    if (n) memcpy(payload, tokens, (size_t)n * 4);
    SD_TRY(sort_suffixes(payload + n, tokens, n, top, err));
    SD_TRY(hash_file(h.sha256, &h, payload, (size_t)n * 8, copies,
                     (size_t)n_copies * sizeof *copies, err));
    SD_TRY(sd_replace_open(&file, path, err));
    // A short write shows as ferror at the commit.
    fwrite(&h, sizeof h, 1, file.f);
    if (n) fwrite(payload, 8, (size_t)n, file.f);
    if (n_copies) fwrite(copies, sizeof *copies, (size_t)n_copies, file.f);
    SD_TRY(sd_replace_commit(&file, err));
out:
    sd_replace_abort(&file);
    free(payload);
    return st;
}

// ---- opening -----------------------------------------------------------------------------------

static bool zero_bytes(const char *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (p[i]) return false;
    return true;
}

static sd_status check_header(const uint8_t *file, size_t size, const char *path, int64_t *n,
                              sd_error *err) {
    sd_status st = SD_OK;
    SD_CHECK(size >= HEADER, err, SD_EFORMAT,
             "%s: %zu bytes are too few for a corpus index; write it again", path, size);
    const file_header *h = (const file_header *)(const void *)file;
    SD_CHECK(memcmp(h->magic, "SDCORPUS", 8) == 0, err, SD_EFORMAT,
             "%s: does not begin with SDCORPUS; this is not a corpus index", path);
    SD_CHECK(h->version >= 1 && h->version <= VERSION, err, SD_EFORMAT,
             "%s: corpus index version %u, this program reads versions 1 to %d", path, h->version,
             VERSION);
    const size_t room = size - HEADER, tokens = (size_t)h->n * 8;
    SD_CHECK(h->n < INT32_MAX && room >= tokens &&
                 (h->version == 1 ? room == tokens : (room - tokens) % sizeof(sd_corpus_copy) == 0),
             err, SD_EFORMAT,
             "%s: %zu bytes do not fit the %llu tokens that its header names; write it again", path,
             size, (unsigned long long)h->n);
    SD_CHECK(h->zero == 0 && zero_bytes(h->pad, sizeof h->pad), err, SD_EFORMAT,
             "%s: reserved bytes of the header are not zero; write it again", path);
    char hex[64];
    SD_TRY(hash_file(hex, h, file + HEADER, room, NULL, 0, err));
    SD_CHECK(memcmp(hex, h->sha256, 64) == 0, err, SD_EMISMATCH,
             "%s: the contents do not match their SHA-256; the file is damaged, write it again",
             path);
    *n = (int64_t)h->n;
out:
    return st;
}

// The hash says that the file is what its writer wrote; this says that a lookup cannot leave the
// arrays and that it finds what is there. Suffixes a, b that follow each other are in order iff
// (first letter, rank of the rest) grows.
static sd_status check_order(const sd_corpus *c, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    int64_t n = c->n;
    int32_t *rank = sd_malloc_marked((size_t)n * 4 + 4);
    SD_CHECK_ALLOC(rank, err);
    for (int64_t i = 0; i <= n; i++) rank[i] = -1; // rank[n]: the empty suffix is the smallest
    for (int64_t i = 0; i < n; i++) {
        int32_t p = c->sa[i];
        SD_CHECK(p >= 0 && p < n && rank[p] < 0, err, SD_EFORMAT,
                 "%s: entry %lld of the suffix array is %d, which is %s", path, (long long)i, p,
                 p >= 0 && p < n ? "there already" : "outside the tokens");
        rank[p] = (int32_t)i;
    }
    for (int64_t i = 1; i < n; i++) {
        int32_t a = c->sa[i - 1], b = c->sa[i];
        SD_CHECK(c->token[a] < c->token[b] ||
                     (c->token[a] == c->token[b] && rank[a + 1] < rank[b + 1]),
                 err, SD_EFORMAT, "%s: entries %lld and %lld of the suffix array are out of order",
                 path, (long long)i - 1, (long long)i);
    }
out:
    free(rank);
    return st;
}

// One rare token of a high number must not make a table of megabytes out of a file of bytes.
static sd_status make_buckets(sd_corpus *c, sd_error *err) {
    if (c->top >= SMALL_TABLE && c->top / 8 > c->n) return SD_OK;
    c->first = sd_alloc((size_t)c->top + 3, 4);
    if (!c->first) return sd_fail(err, SD_ENOMEM, "out of memory for a corpus index");
    for (int64_t i = 0; i < c->n; i++) c->first[c->token[i] + 2]++;
    for (int32_t t = 1; t < c->top + 3; t++) c->first[t] += c->first[t - 1];
    return SD_OK;
}

static sd_status finish(sd_corpus **out, sd_corpus *c, size_t size, const char *name,
                        sd_error *err) {
    sd_status st = SD_OK;
    SD_TRY(check_header(c->file, size, name, &c->n, err));
    c->bytes = size;
    const file_header *h = (const file_header *)(const void *)c->file;
    memcpy(c->tokenizer, h->tokenizer, 64);
    memcpy(c->adapter.hex, h->adapter, 64);
    c->token = (const int32_t *)(const void *)(c->file + HEADER);
    c->sa = c->token + c->n;
    c->copy = (const sd_corpus_copy *)(const void *)(c->sa + c->n);
    c->copies = (int64_t)((size - HEADER - (size_t)c->n * 8) / sizeof *c->copy);
    st = check_tokens(c->token, c->n, &c->top, err);
    if (st == SD_OK) st = check_copies(c->copy, c->copies, c->token, c->n, err);
    if (st != SD_OK) {
        sd_error_prefix(err, "%s", name);
        st = SD_EFORMAT;
        goto out;
    }
    SD_TRY(check_order(c, name, err));
    SD_TRY(make_buckets(c, err));
    *out = c, c = NULL;
out:
    sd_corpus_close(c);
    return st;
}

sd_status sd_corpus_from_memory(sd_corpus **out, const void *data, size_t size, const char *name,
                                sd_error *err) {
    *out = NULL;
    sd_corpus *c = sd_alloc(1, sizeof *c);
    if (!c) return sd_fail(err, SD_ENOMEM, "%s: out of memory", name);
    c->file = data;
    return finish(out, c, size, name, err);
}

// Read, not mapped: what was checked here is what lookups find, whatever becomes of the file.
sd_status sd_corpus_open(sd_corpus **out, const char *path, sd_error *err) {
    size_t size = 0;
    *out = NULL;
    sd_corpus *c = sd_alloc(1, sizeof *c);
    if (!c) return sd_fail(err, SD_ENOMEM, "%s: out of memory", path);
    sd_status st = sd_file_load(&c->own, &size, path, err);
    if (st != SD_OK) {
        sd_corpus_close(c);
        return st;
    }
    c->file = c->own;
    return finish(out, c, size, path, err);
}

sd_corpus *sd_corpus_acquire(sd_corpus *c) {
    if (c) atomic_fetch_add(&c->references, 1);
    return c;
}

void sd_corpus_close(sd_corpus *c) {
    if (!c || atomic_fetch_sub(&c->references, 1) > 0) return;
    free(c->own);
    free(c->first);
    free(c);
}

size_t sd_corpus_bytes(const sd_corpus *c) {
    return c->bytes;
}

int64_t sd_corpus_tokens(const sd_corpus *c) {
    return c->n;
}
int64_t sd_corpus_n_copies(const sd_corpus *c) {
    return c->copies;
}
const char *sd_corpus_tokenizer(const sd_corpus *c) {
    return c->tokenizer;
}
const sd_sha256 *sd_corpus_adapter(const sd_corpus *c) {
    return &c->adapter;
}

// ---- lookup ------------------------------------------------------------------------------------

// The token at `depth` of the i-th suffix; -1 at a separator, which is also the end of the text. No
// suffix in an interval has a separator before its depth, so sa + depth <= n - 1.
static inline int32_t token_at(const sd_corpus *c, int64_t i, int depth) {
    return c->token[c->sa[i] + depth];
}

// The first i in [lo, hi) whose token at depth is >= t, or hi.
static int64_t lower_bound(const sd_corpus *c, int64_t lo, int64_t hi, int depth, int32_t t) {
    while (lo < hi) {
        int64_t mid = lo + (hi - lo) / 2;
        if (token_at(c, mid, depth) < t)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

sd_corpus_state sd_corpus_advance(const sd_corpus *c, const sd_corpus_state *s, int32_t token) {
    sd_corpus_state none = {0};
    if (s->depth <= 0 || s->lo >= s->hi || token < 0 || token > c->top) return none;
    int64_t lo = lower_bound(c, s->lo, s->hi, s->depth, token);
    if (lo == s->hi || token_at(c, lo, s->depth) != token) return none;
    // Most steps follow the whole interval or most of it: look at its end before searching.
    int64_t hi = s->hi;
    if (token_at(c, hi - 1, s->depth) != token) hi = lower_bound(c, lo, hi, s->depth, token + 1);
    return (sd_corpus_state){lo, hi, s->depth + 1};
}

static sd_corpus_state find(const sd_corpus *c, const int32_t *pattern, int n) {
    sd_corpus_state none = {0};
    int32_t t = pattern[0];
    if (t < 0 || t > c->top) return none;
    sd_corpus_state s = {.depth = 1};
    if (c->first) {
        s.lo = c->first[t + 1], s.hi = c->first[t + 2];
    } else {
        s.lo = lower_bound(c, 0, c->n, 0, t);
        s.hi = lower_bound(c, s.lo, c->n, 0, t + 1);
    }
    if (s.lo == s.hi) return none;
    for (int i = 1; i < n && s.depth; i++) s = sd_corpus_advance(c, &s, pattern[i]);
    return s;
}

sd_corpus_state sd_corpus_match(const sd_corpus *c, const int32_t *context, int n, int max_match) {
    sd_corpus_state best = {0};
    int longest = n < max_match ? n : max_match;
    for (int have = 0; have < longest;) {
        int want = have + 1 + (longest - have - 1) / 2;
        sd_corpus_state s = find(c, context + n - want, want);
        if (s.depth) {
            best = s;
            have = want;
        } else {
            longest = want - 1;
        }
    }
    return best;
}

// The run of equal tokens around place p of [lo, hi).
static void run_around(const sd_corpus *c, int64_t lo, int64_t hi, int depth, int64_t p,
                       int64_t *begin, int64_t *end) {
    int32_t t = token_at(c, p, depth);
    int64_t step, a = p, b = p; // gallop away from p, then bisect the last step
    for (step = 1; a > lo && token_at(c, a - 1, depth) == t; step *= 2) {
        int64_t q = a - step > lo ? a - step : lo;
        if (token_at(c, q, depth) != t) {
            a = lower_bound(c, q, a, depth, t);
            break;
        }
        a = q;
    }
    for (step = 1; b + 1 < hi && token_at(c, b + 1, depth) == t; step *= 2) {
        int64_t q = b + step < hi - 1 ? b + step : hi - 1;
        if (token_at(c, q, depth) != t) {
            b = lower_bound(c, b, q, depth, t + 1) - 1;
            break;
        }
        b = q;
    }
    *begin = a;
    *end = b + 1;
}

int32_t sd_corpus_next(const sd_corpus *c, const sd_corpus_state *s, float *share, int64_t *count) {
    if (share) *share = 0;
    if (count) *count = 0;
    if (s->depth <= 0 || s->lo >= s->hi) return -1;
    int64_t hi = s->hi, lo = s->lo;
    if (token_at(c, lo, s->depth) < 0) lo = lower_bound(c, lo, hi, s->depth, 0); // ended there
    int64_t most = 0;
    int32_t best = -1;
    // Every run of at least `stride` covers a multiple of it.
    for (int64_t stride = hi - lo; stride > 0; stride = (stride + 1) / 2) {
        for (int64_t p = lo + stride - 1; p < hi;) {
            int64_t a, b;
            run_around(c, lo, hi, s->depth, p, &a, &b);
            int32_t t = token_at(c, a, s->depth);
            if (b - a > most || (b - a == most && t < best)) most = b - a, best = t;
            p += (b - 1 - p) / stride * stride + stride; // the next multiple behind this run
        }
        if (most >= stride || stride == 1) break;
    }
    if (share) *share = (float)most / (float)(s->hi - s->lo);
    if (count) *count = most;
    return best;
}

// ---- places ------------------------------------------------------------------------------------

// Places `depth` behind where some of the suffixes [lo, hi) begin.
static int spread(const sd_corpus *c, int64_t lo, int64_t hi, int depth, int64_t *place, int most) {
    int64_t all = hi - lo, n = all < most ? all : most;
    for (int64_t i = 0; i < n; i++) place[i] = (int64_t)c->sa[lo + all * i / n] + depth;
    return (int)n;
}

int sd_corpus_places(const sd_corpus *c, const sd_corpus_state *s, int64_t *place, int most) {
    return s->depth > 0 ? spread(c, s->lo, s->hi, s->depth, place, most) : 0;
}

// Behind the end of each completion but the last, which sorts first of all, another one begins.
int sd_corpus_begins(const sd_corpus *c, int64_t *place, int most) {
    int64_t ends = c->first ? c->first[1] : lower_bound(c, 0, c->n, 0, 0);
    return ends > 1 ? spread(c, 1, ends, 1, place, most) : 0;
}

int32_t sd_corpus_token(const sd_corpus *c, int64_t place) {
    return c->token[place];
}

const sd_corpus_copy *sd_corpus_copy_at(const sd_corpus *c, int64_t place) {
    int64_t lo = 0, hi = c->copies;
    while (lo < hi) {
        int64_t mid = lo + (hi - lo) / 2;
        if (c->copy[mid].at < place)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < c->copies && c->copy[lo].at == place ? &c->copy[lo] : NULL;
}
