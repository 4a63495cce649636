#include "decode/serve/api/decide.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void sd_decide_free(sd_decide *d) {
    if (!d) return;
    for (int i = 0; i < d->n; i++) {
        sd_decide_question *q = &d->question[i];
        for (int k = 0; k < q->n_labels; k++) sd_ids_free(&q->label[k].id);
        sd_ids_free(&q->begin_id);
        free(q->label);
        free(q->order);
        free(q->p);
    }
    for (int i = 0; i < d->n_nodes; i++) {
        free(d->node[i].token);
        free(d->node[i].upto);
    }
    free(d->node);
    free(d->question);
    sd_buf_free(&d->text);
    json_decref(d->kept);
    free(d);
}

// ---- names

// A word that stands for itself in a line of its own.
static bool is_plain(const char *name) {
    static const char good[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-";
    size_t n = name ? strlen(name) : 0;
    return n >= 1 && n < SD_DECIDE_BEGIN - 2 && strspn(name, good) == n;
}

static bool is_again(const sd_decide *d, int i) {
    for (int k = 0; k < d->n; k++)
        if (k != i && d->question[k].name && strcmp(d->question[k].name, d->question[i].name) == 0)
            return true;
    return false;
}

void sd_decide_name(sd_decide *d) {
    for (int i = 0; i < d->n; i++) {
        sd_decide_question *q = &d->question[i];
        if (is_plain(q->name) && !is_again(d, i))
            snprintf(q->begin, sizeof q->begin, "%s:", q->name);
        else // with a space, as no plain name has it
            snprintf(q->begin, sizeof q->begin, "question %d:", i + 1);
    }
}

// ---- the prompt

static bool add_label(sd_buf *out, const sd_decide_label *label) {
    return sd_buf_adds(out, "\n- ") && sd_buf_adds(out, label->text) &&
           (!label->about || (sd_buf_adds(out, ": ") && sd_buf_adds(out, label->about)));
}

static bool add_question(sd_buf *out, const sd_decide *d, const sd_decide_question *q, int round) {
    const int turned = round * q->n_labels / d->permute;
    bool ok = sd_buf_adds(out, "\n\n") && sd_buf_adds(out, q->begin) && sd_buf_adds(out, " ") &&
              sd_buf_adds(out, q->instructions);
    for (int k = 0; ok && k < q->n_labels; k++)
        ok = add_label(out, &q->label[(k + turned) % q->n_labels]);
    return ok;
}

bool sd_decide_prompt(sd_buf *out, const sd_decide *d, int round) {
    bool ok = sd_buf_adds(out, "Answer each question about the text below with one of its labels.");
    for (int i = 0; ok && i < d->n; i++) ok = add_question(out, d, &d->question[i], round);
    return ok && sd_buf_adds(out, "\n\nText:\n") && sd_buf_add(out, d->text.data, d->text.len);
}

// ---- what an answer says

int sd_decide_likeliest(const sd_decide_question *q) {
    int best = 0;
    for (int k = 1; k < q->n_labels; k++)
        if (q->p[k] > q->p[best]) best = k;
    return best;
}

double sd_decide_score(const sd_decide_question *q) {
    double sum = 0;
    for (int k = 0; k < q->n_labels; k++) sum += k * q->p[k];
    return sum;
}

double sd_decide_confidence(const sd_decide_question *q) {
    const int n = q->n_labels, best = sd_decide_likeliest(q);
    const double least = 1.0 / n, middle = (n - 1) / 2.0;
    double away = 0, guess = 0;
    if (q->kind != SD_DECIDE_SCORE) return fmin(1, fmax(0, (q->p[best] - least) / (1 - least)));
    for (int k = 0; k < n; k++) {
        away += q->p[k] * abs(k - best);
        guess += fabs(k - middle) / n;
    }
    return fmax(0, 1 - away / guess);
}
