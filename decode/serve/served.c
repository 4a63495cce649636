#include "decode/serve/served.h"

#include "base/list.h"
#include "base/memory.h"

#include <stdio.h>
#include <string.h>

static void take_out(sd_served_model **list, const sd_served_model *m) {
    while (*list && *list != m) list = &(*list)->next;
    if (*list) *list = m->next;
}

static void push(sd_served_model **list, sd_served_model *m) {
    m->next = *list;
    *list = m;
}

void sd_served_init(sd_served *s) {
    *s = (sd_served){0};
    pthread_mutex_init(&s->lock, NULL);
}

void sd_served_free(sd_served *s) {
    for (int i = 0; i < s->n; i++) free(s->model[i]);
    for (sd_served_model *m; (m = s->draining ? s->draining : s->ending);) {
        take_out(s->draining ? &s->draining : &s->ending, m);
        free(m);
    }
    free(s->model);
    free(s->alias);
    pthread_mutex_destroy(&s->lock);
}

// ---- finding

const sd_served_alias *sd_served_find_alias(const sd_served *s, const char *name) {
    for (int i = 0; i < s->n_aliases; i++)
        if (strcmp(s->alias[i].name, name) == 0) return &s->alias[i];
    return NULL;
}

sd_served_model *sd_served_find(const sd_served *s, const char *name) {
    const sd_served_alias *alias = name ? sd_served_find_alias(s, name) : NULL;
    if (alias) name = alias->of;
    if (!name || !*name) return s->n ? s->model[0] : NULL;
    for (int i = 0; i < s->n; i++)
        if (sd_model_card_is(s->model[i]->card, name)) return s->model[i];
    return NULL;
}

sd_served_model *sd_served_hold(sd_served *s, const char *name) {
    pthread_mutex_lock(&s->lock);
    sd_served_model *m = sd_served_find(s, name);
    if (m) m->holders++;
    pthread_mutex_unlock(&s->lock);
    return m;
}

void sd_served_names(sd_served *s, sd_buf *out) {
    pthread_mutex_lock(&s->lock);
    bool room = true;
    for (int i = 0; room && i < s->n; i++)
        room = sd_buf_printf(out, "%s%s", i ? ", " : "", s->model[i]->card->name);
    for (int i = 0; room && i < s->n_aliases; i++)
        room = sd_buf_printf(out, ", %s", s->alias[i].name);
    pthread_mutex_unlock(&s->lock);
}

// ---- coming and going

bool sd_served_let_go(sd_served *s, sd_served_model *m) {
    pthread_mutex_lock(&s->lock);
    const bool last = --m->holders == 0;
    if (last) take_out(&s->draining, m), push(&s->ending, m);
    pthread_mutex_unlock(&s->lock);
    return last;
}

void sd_served_end(sd_served *s, sd_served_model *m) {
    take_out(&s->ending, m);
    free(m);
}

static int place_of(const sd_served *s, const sd_served_model *m) {
    int i = 0;
    while (i < s->n && strcmp(s->model[i]->card->name, m->card->name) != 0) i++;
    return i;
}

bool sd_served_put(sd_served *s, sd_served_model *m, sd_served_model **old) {
    const int i = place_of(s, m);
    *old = NULL;
    pthread_mutex_lock(&s->lock);
    const bool room = i < s->n || SD_GROW(s->model, s->n + 1, s->cap);
    if (room) {
        m->holders = 1;
        if (i < s->n)
            push(&s->draining, *old = s->model[i]);
        else
            s->n++;
        s->model[i] = m;
    }
    pthread_mutex_unlock(&s->lock);
    return room;
}

void sd_served_remove(sd_served *s, sd_served_model *m) {
    const char *name = m->card->name;
    int i = place_of(s, m), n = 0;
    pthread_mutex_lock(&s->lock);
    memmove(&s->model[i], &s->model[i + 1], (size_t)(s->n - i - 1) * sizeof *s->model);
    s->n--;
    for (int k = 0; k < s->n_aliases; k++)
        if (strcmp(s->alias[k].of, name) != 0) s->alias[n++] = s->alias[k];
    s->n_aliases = n;
    push(&s->draining, m);
    pthread_mutex_unlock(&s->lock);
}

// ---- aliases

sd_status sd_served_check_alias(const sd_served *s, const char *name, const char *of,
                                sd_error *err) {
    sd_status st = SD_OK;
    SD_CHECK(strlen(name) >= 1 && strlen(name) <= SD_MODEL_NAME, err, SD_EINVAL,
             "the alias '%.80s' has %zu bytes; give 1 to %d", name, strlen(name), SD_MODEL_NAME);
    SD_CHECK(strcmp(name, of) != 0, err, SD_EINVAL,
             "'%s' cannot be an alias of itself; give another name", name);
    SD_CHECK(!sd_served_find_alias(s, of), err, SD_EINVAL,
             "'%s' is an alias itself; give what it stands for", of);
    for (int i = 0; i < s->n; i++)
        SD_CHECK(!sd_model_card_is(s->model[i]->card, name), err, SD_EINVAL,
                 "'%s' is the name of a model; give another alias", name);
out:
    return st;
}

bool sd_served_reserve(sd_served *s, int n) {
    pthread_mutex_lock(&s->lock);
    const bool room = s->n_aliases + n <= SD_SERVED_ALIASES &&
                      SD_GROW(s->alias, s->n_aliases + n, s->cap_aliases);
    pthread_mutex_unlock(&s->lock);
    return room;
}

static bool is_among(const char *name, const char *const *list, int n) {
    for (int i = 0; i < n; i++)
        if (strcmp(list[i], name) == 0) return true;
    return false;
}

void sd_served_keep_aliases(sd_served *s, const char *of, const char *const *keep, int n) {
    int left = 0;
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < s->n_aliases; i++)
        if (strcmp(s->alias[i].of, of) != 0 || is_among(s->alias[i].name, keep, n))
            s->alias[left++] = s->alias[i];
    s->n_aliases = left;
    pthread_mutex_unlock(&s->lock);
}

void sd_served_set_alias(sd_served *s, const char *name, const char *of) {
    pthread_mutex_lock(&s->lock);
    int i = 0;
    while (i < s->n_aliases && strcmp(s->alias[i].name, name) != 0) i++;
    if (i == s->n_aliases) s->n_aliases++;
    snprintf(s->alias[i].name, sizeof s->alias[i].name, "%s", name);
    snprintf(s->alias[i].of, sizeof s->alias[i].of, "%s", of);
    pthread_mutex_unlock(&s->lock);
}
