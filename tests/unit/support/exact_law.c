#include "tests/unit/support/exact_law.h"

#include <math.h>
#include <stdlib.h>

static const float *order_logits;
static int by_logit(const void *a, const void *b) {
    int i = *(const int *)a, j = *(const int *)b;
    if (order_logits[i] != order_logits[j]) return order_logits[i] > order_logits[j] ? -1 : 1;
    return i - j;
}
void test_exact_law(double *p, const float *x, int n, const sd_sampling *o) {
    int *id = malloc((size_t)n * sizeof *id), keep = n;
    double *q = malloc((size_t)n * sizeof *q), total = 0, mass = 0;
    for (int i = 0; i < n; i++) id[i] = i;
    order_logits = x;
    qsort(id, (size_t)n, sizeof *id, by_logit);
    for (int i = 0; i < n; i++)
        q[i] = exp(((double)x[id[i]] - (double)x[id[0]]) / (double)o->temperature);
    while (keep > 1 && q[keep - 1] < (double)o->min_p) keep--;
    if (o->top_k > 0 && o->top_k < keep) keep = o->top_k;
    for (int i = 0; i < keep; i++) total += q[i];
    int left = keep;
    if (o->top_p < 1)
        for (left = 0; left < keep;) {
            mass += q[left++];
            if (mass >= (double)o->top_p * total) break;
        }
    total = 0;
    for (int i = 0; i < left; i++) total += q[i];
    for (int i = 0; i < n; i++) p[i] = 0;
    for (int i = 0; i < left; i++) p[id[i]] = q[i] / total;
    free(id), free(q);
}
