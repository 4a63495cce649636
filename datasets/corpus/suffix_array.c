// A suffix is of type S when it is smaller than the one that starts after it, else of type L. An S
// suffix behind an L suffix is "leftmost S" (LMS). Once the LMS suffixes are in order, two scans
// over the array put all others in place (induce). The LMS suffixes themselves are put in order by
// naming the substrings between them and recursing on the string of names, which is at most half as
// long: linear time in all. Completions of one fine-tuning task repeat each other for hundreds of
// tokens, which is where sorting by comparison or by doubling loses.
#include "datasets/corpus/suffix_array.h"

#include "base/memory.h"

#include <string.h>

typedef struct {
    const int32_t *s;
    int32_t n, letters;
    uint8_t *type;    // [n] 1: S
    int32_t *first_l; // [letters + 1] where a letter's L suffixes begin in the array
    int32_t *first_s; // [letters + 1] where its S suffixes begin: L come before S in a bucket
    int32_t *fill;    // [letters + 1]
} work;

static inline bool is_lms(const work *w, int32_t i) {
    return i > 0 && w->type[i] && !w->type[i - 1];
}

static void classify(work *w) {
    const int32_t *s = w->s;
    w->type[w->n - 1] = 0; // the end of the text is smaller than every letter
    for (int32_t i = w->n - 2; i >= 0; i--)
        w->type[i] = s[i] < s[i + 1] || (s[i] == s[i + 1] && w->type[i + 1]);
    memset(w->first_l, 0, ((size_t)w->letters + 1) * 4);
    memset(w->first_s, 0, ((size_t)w->letters + 1) * 4);
    for (int32_t i = 0; i < w->n; i++) {
        w->first_l[s[i] + 1]++;
        if (!w->type[i]) w->first_s[s[i]]++;
    }
    for (int32_t c = 0; c < w->letters; c++) {
        w->first_l[c + 1] += w->first_l[c];
        w->first_s[c] += w->first_l[c];
    }
    w->first_s[w->letters] = w->n;
}

// Fills the whole array in the order that the order of its m LMS positions implies.
static void induce(int32_t *sa, work *w, const int32_t *lms, int32_t m) {
    const int32_t *s = w->s;
    size_t bytes = ((size_t)w->letters + 1) * 4;
    for (int32_t i = 0; i < w->n; i++) sa[i] = -1;
    memcpy(w->fill, w->first_s, bytes);
    for (int32_t i = 0; i < m; i++) sa[w->fill[s[lms[i]]]++] = lms[i];
    memcpy(w->fill, w->first_l, bytes);
    sa[w->fill[s[w->n - 1]]++] = w->n - 1;
    for (int32_t i = 0; i < w->n; i++) {
        int32_t v = sa[i];
        if (v >= 1 && !w->type[v - 1]) sa[w->fill[s[v - 1]]++] = v - 1;
    }
    memcpy(w->fill, w->first_l, bytes);
    for (int32_t i = w->n - 1; i >= 0; i--) {
        int32_t v = sa[i];
        if (v >= 1 && w->type[v - 1]) sa[--w->fill[s[v - 1] + 1]] = v - 1;
    }
}

// Are the LMS substrings at a and b (each up to and including the next LMS position) equal?
static bool same_substring(const work *w, int32_t a, int32_t b) {
    for (int32_t k = 0;; k++) {
        if (a + k >= w->n || b + k >= w->n) return false; // only one can reach the end
        if (w->s[a + k] != w->s[b + k]) return false;
        if (k > 0) {
            bool ea = is_lms(w, a + k), eb = is_lms(w, b + k);
            if (ea || eb) return ea && eb;
        }
    }
}

static sd_status sort_lms(int32_t *lms, int32_t *sa, work *w, int32_t m, sd_error *err) {
    sd_status st = SD_OK;
    int32_t *name_at = NULL, *names = NULL, *order = NULL;
    name_at = sd_malloc_marked(((size_t)w->n / 2 + 1) * 4); // LMS positions are at least two apart
    names = sd_malloc_marked((size_t)m * 4);
    order = sd_malloc_marked((size_t)m * 4);
    SD_CHECK(name_at && names && order, err, SD_ENOMEM, "out of memory for a suffix array");
    int32_t count = 0, last = -1;
    for (int32_t i = 0; i < w->n; i++) {
        int32_t v = sa[i];
        if (!is_lms(w, v)) continue;
        if (last >= 0 && !same_substring(w, last, v)) count++;
        name_at[v / 2] = count;
        last = v;
    }
    for (int32_t i = 0; i < m; i++) names[i] = name_at[lms[i] / 2];
    if (count + 1 < m) {
        SD_TRY(sd_suffix_array(order, names, m, count + 1, err));
    } else {
        for (int32_t i = 0; i < m; i++) order[names[i]] = i;
    }
    for (int32_t i = 0; i < m; i++) name_at[i] = lms[order[i]];
    memcpy(lms, name_at, (size_t)m * 4);
out:
    free(name_at);
    free(names);
    free(order);
    return st;
}

sd_status sd_suffix_array(int32_t *sa, const int32_t *text, int32_t n, int32_t letters,
                          sd_error *err) {
    sd_status st = SD_OK;
    work w = {.s = text, .n = n, .letters = letters};
    int32_t *lms = NULL, m = 0;
    if (n == 0) return SD_OK;
    size_t buckets = (size_t)letters + 1;
    w.type = sd_malloc_marked((size_t)n);
    w.first_l = sd_malloc_marked(buckets * 4);
    w.first_s = sd_malloc_marked(buckets * 4);
    w.fill = sd_malloc_marked(buckets * 4);
    lms = calloc((size_t)n / 2 + 1, 4);
    SD_CHECK(w.type && w.first_l && w.first_s && w.fill && lms, err, SD_ENOMEM,
             "out of memory for a suffix array of %d tokens", n);
    classify(&w);
    for (int32_t i = 1; i < n; i++)
        if (is_lms(&w, i)) lms[m++] = i;
    induce(sa, &w, lms, m); // orders the LMS substrings
    if (m > 1) {
        SD_TRY(sort_lms(lms, sa, &w, m, err));
        induce(sa, &w, lms, m);
    }
out:
    free(w.type);
    free(w.first_l);
    free(w.first_s);
    free(w.fill);
    free(lms);
    return st;
}
