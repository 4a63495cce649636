// Labels as paths of tokens: the tree where they part, and probabilities from what is read there.
#include "base/list.h"
#include "decode/serve/api/decide.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct {
    sd_decide *d;
    const int32_t *ends;
    int n_ends;
    int64_t rows; // tokens of what is read
    sd_api_error *e;
} planner;

static int compare(const sd_ids *a, const sd_ids *b) {
    const int n = a->n < b->n ? a->n : b->n;
    for (int i = 0; i < n; i++)
        if (a->id[i] != b->id[i]) return a->id[i] < b->id[i] ? -1 : 1;
    return a->n - b->n;
}

static const sd_ids *at(const sd_decide_question *q, int place) {
    return &q->label[q->order[place]].id;
}

// By insertion: 255 labels at most.
static void sort(sd_decide_question *q) {
    for (int i = 0; i < q->n_labels; i++) {
        int k = i;
        for (; k > 0 && compare(&q->label[i].id, at(q, k - 1)) < 0; k--)
            q->order[k] = q->order[k - 1];
        q->order[k] = i;
    }
}

static int encode(const planner *p, const sd_tokenizer *t, const char *text, sd_ids *out) {
    sd_error err = {0};
    if (sd_tokenizer_encode(t, text, strlen(text), SD_TOK_GOES_ON, out, &err) == SD_OK) return 0;
    return sd_api_fail(p->e, 500, "questions", "%s", err.message);
}

static int encode_question(const planner *p, sd_decide_question *q, const sd_tokenizer *t) {
    char text[SD_DECIDE_MAX_LABEL + 2];
    if (encode(p, t, q->begin, &q->begin_id)) return p->e->status;
    for (int k = 0; k < q->n_labels; k++) {
        snprintf(text, sizeof text, " %s", q->label[k].text);
        if (encode(p, t, text, &q->label[k].id)) return p->e->status;
    }
    q->order = sd_alloc((size_t)q->n_labels, sizeof *q->order);
    q->p = sd_alloc((size_t)q->n_labels, sizeof *q->p);
    if (!q->order || !q->p) return sd_api_fail(p->e, 500, "questions", "out of memory");
    sort(q);
    for (int k = 1; k < q->n_labels; k++)
        if (compare(at(q, k - 1), at(q, k)) == 0)
            return sd_api_fail(p->e, 400, "questions",
                               "%s the labels '%.60s' and '%.60s' are the same tokens; give others",
                               q->begin, q->label[q->order[k - 1]].text,
                               q->label[q->order[k]].text);
    return 0;
}

// A node over the labels at places [from, upto), which share their first `depth` tokens.
static int add_node(planner *p, int question, int from, int upto, int depth, bool ended) {
    sd_decide *d = p->d;
    const sd_decide_question *q = &d->question[question];
    if (d->n_nodes == SD_DECIDE_MAX_NODES)
        return sd_api_fail(
            p->e, 400, "questions",
            "the labels part at more than %d places; give fewer, or ones that do not "
            "begin alike",
            SD_DECIDE_MAX_NODES);
    if (!SD_GROW(d->node, d->n_nodes + 1, d->cap_nodes))
        return sd_api_fail(p->e, 500, "questions", "out of memory");
    sd_decide_node *node = &d->node[d->n_nodes];
    const size_t most = (size_t)(upto - from) + SD_DECIDE_MAX_ENDS;
    *node = (sd_decide_node){.question = question,
                             .path = at(q, from)->id,
                             .n_path = depth,
                             .token = sd_alloc(most, sizeof *node->token),
                             .upto = sd_alloc(most, sizeof *node->upto),
                             .ended = ended ? q->order[from] : -1};
    d->n_nodes++;
    if (!node->token || !node->upto) return sd_api_fail(p->e, 500, "questions", "out of memory");
    for (int k = from + ended; k < upto; k++) {
        const int32_t token = at(q, k)->id[depth];
        if (node->n_next == 0 || node->token[node->n_next - 1] != token)
            node->upto[node->n_next] = k, node->token[node->n_next++] = token;
    }
    node->upto[node->n_next] = upto;
    node->n_tokens = node->n_next;
    for (int i = 0; ended && i < p->n_ends; i++) node->token[node->n_tokens++] = p->ends[i];
    p->rows += q->begin_id.n + depth;
    return 0;
}

// The places below what these labels share. Each call stands for a node, so the depth is bounded by theirs.
static int part(planner *p, int question, int from, int upto, int depth) {
    const sd_decide_question *q = &p->d->question[question];
    if (upto - from < 2) return 0;
    // Sorted, so that what the first and the last share all of them do.
    const sd_ids *a = at(q, from), *b = at(q, upto - 1);
    while (depth < a->n && depth < b->n && a->id[depth] == b->id[depth]) depth++;
    const bool ended = depth == a->n;
    if (ended && p->n_ends == 0)
        return sd_api_fail(p->e, 400, "questions",
                           "%s the label '%.60s' begins another one, and this model has no token "
                           "that ends an answer; give other labels",
                           q->begin, q->label[q->order[from]].text);
    if (add_node(p, question, from, upto, depth, ended)) return p->e->status;
    const int n = p->d->n_nodes - 1;
    for (int i = 0; i < p->d->node[n].n_next; i++) {
        const int first = p->d->node[n].upto[i], end = p->d->node[n].upto[i + 1];
        if (part(p, question, first, end, depth + 1)) return p->e->status;
    }
    return 0;
}

int sd_decide_plan(sd_decide *d, const sd_tokenizer *t, const int32_t *ends, int n_ends,
                   sd_api_error *e) {
    planner p = {d, ends, n_ends, 0, e};
    for (int i = 0; i < d->n; i++) {
        if (encode_question(&p, &d->question[i], t)) return e->status;
        if (part(&p, i, 0, d->question[i].n_labels, 0)) return e->status;
        if (p.rows * d->permute > SD_DECIDE_MAX_ROWS)
            return sd_api_fail(
                e, 400, "questions",
                "the labels part at %d places so far, which takes more than %d tokens "
                "to read; give fewer or shorter labels",
                d->n_nodes, SD_DECIDE_MAX_ROWS);
    }
    return 0;
}

// ---- probabilities

// share [n_next + (one that ends)] <- of the tokens that are read.
static void shares(double *share, const sd_decide_node *node, const float *value) {
    const int n = node->n_next + (node->ended >= 0);
    double most = -HUGE_VAL, sum = 0;
    for (int i = 0; i < node->n_tokens; i++) most = fmax(most, (double)value[i]);
    memset(share, 0, (size_t)n * sizeof *share);
    for (int i = 0; i < node->n_tokens; i++) {
        const double x = exp((double)value[i] - most);
        share[i < node->n_next ? i : node->n_next] += x;
        sum += x;
    }
    for (int i = 0; i < n; i++) share[i] /= sum;
}

static void take_node(sd_decide_question *q, double *log_p, const sd_decide_node *node,
                      const float *value) {
    double share[SD_DECIDE_MAX_LABELS + 1];
    shares(share, node, value);
    for (int i = 0; i < node->n_next; i++)
        for (int k = node->upto[i]; k < node->upto[i + 1]; k++) log_p[q->order[k]] += log(share[i]);
    if (node->ended >= 0) log_p[node->ended] += log(share[node->n_next]);
}

// One round's part of the mean.
static void add_round(sd_decide_question *q, const double *log_p, double temperature, int rounds) {
    double most = -HUGE_VAL, sum = 0;
    for (int k = 0; k < q->n_labels; k++) most = fmax(most, log_p[k]);
    for (int k = 0; k < q->n_labels; k++) sum += exp((log_p[k] - most) / temperature);
    for (int k = 0; k < q->n_labels; k++)
        q->p[k] += exp((log_p[k] - most) / temperature) / (sum * rounds);
}

void sd_decide_answer(sd_decide *d, const double *temperature,
                      const float *(*values)(const void *ctx, int i), const void *ctx) {
    for (int i = 0; i < d->n; i++)
        memset(d->question[i].p, 0, (size_t)d->question[i].n_labels * sizeof(double));
    for (int round = 0; round < d->permute; round++) {
        for (int i = 0, node = 0; i < d->n; i++) {
            double log_p[SD_DECIDE_MAX_LABELS] = {0};
            sd_decide_question *q = &d->question[i];
            for (; node < d->n_nodes && d->node[node].question == i; node++)
                take_node(q, log_p, &d->node[node], values(ctx, round * d->n_nodes + node));
            add_round(q, log_p, temperature[q->kind], d->permute);
        }
    }
}
