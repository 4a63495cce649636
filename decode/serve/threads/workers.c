#include "decode/serve/threads/workers.h"

#include "base/list.h"
#include "base/memory.h"

#include <pthread.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { OF_ONE_OWNER = SD_WORKERS - 1, NICE = 5, KEPT_TURNS = 64 };

typedef struct {
    sd_work *head, *tail;
} list;

// An owner's items here, and when its last piece was begun.
typedef struct {
    uint64_t owner;
    int items;   // here, wherever they are; without any it may be forgotten
    int running; // threads that are at work for it
    uint64_t last;
} turn;

struct sd_workers {
    void (*wake)(void *ctx);
    void *ctx;
    pthread_t thread[SD_WORKERS];
    int n;
    pthread_mutex_t lock;
    pthread_cond_t more;
    bool stop;
    uint64_t pieces; // begun so far
    turn *turns;     // [max_turns]
    int n_turns, max_turns;
    list wanted, done;
};

static bool push(list *l, sd_work *item) {
    bool was_empty = l->head == NULL;
    item->next = NULL;
    if (was_empty)
        l->head = item;
    else
        l->tail->next = item;
    l->tail = item;
    return was_empty;
}

static void push_front(list *l, sd_work *item) {
    item->next = l->head;
    if (!l->head) l->tail = item;
    l->head = item;
}

// ---- turns

// The owner's, or that of one who has had nothing here for longest; -1: out of memory.
static int find_turn(sd_workers *w, uint64_t owner) {
    int idle = -1;
    for (int i = 0; i < w->n_turns; i++) {
        const turn *t = &w->turns[i];
        if (t->owner == owner) return i;
        if (t->items == 0 && (idle < 0 || t->last < w->turns[idle].last)) idle = i;
    }
    if (idle < 0 || w->n_turns < KEPT_TURNS) {
        if (!SD_GROW(w->turns, w->n_turns + 1, w->max_turns)) return -1;
        idle = w->n_turns++;
    }
    w->turns[idle] = (turn){.owner = owner};
    return idle;
}

// The first item of the owner whose turn it is, out of the list; NULL: nobody's.
static sd_work *take_turn(sd_workers *w) {
    sd_work *best = NULL, *before_best = NULL;
    for (sd_work *item = w->wanted.head, *before = NULL; item; before = item, item = item->next) {
        const turn *t = &w->turns[item->turn];
        if (t->running >= OF_ONE_OWNER) continue;
        if (!best || t->last < w->turns[best->turn].last) best = item, before_best = before;
    }
    if (!best) return NULL;
    if (before_best)
        before_best->next = best->next;
    else
        w->wanted.head = best->next;
    if (w->wanted.tail == best) w->wanted.tail = before_best;
    w->turns[best->turn].running++;
    w->turns[best->turn].last = ++w->pieces;
    return best;
}

static void *run(void *ctx) {
    sd_workers *w = ctx;
    // With few processors, answers that run come before new work.
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICE);
    pthread_mutex_lock(&w->lock);
    while (!w->stop) {
        sd_work *item = take_turn(w);
        if (!item) {
            pthread_cond_wait(&w->more, &w->lock);
            continue;
        }
        pthread_mutex_unlock(&w->lock);
        bool more = item->step(item);
        pthread_mutex_lock(&w->lock);
        turn *t = &w->turns[item->turn];
        t->running--;
        if (more) {
            push_front(&w->wanted, item);
        } else {
            t->items--;
            if (push(&w->done, item)) w->wake(w->ctx);
        }
        pthread_cond_signal(&w->more); // its owner may have been at its limit
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

sd_status sd_workers_open(sd_workers **out, void (*wake)(void *ctx), void *ctx, sd_error *err) {
    sd_status st = SD_OK;
    sd_workers *w = sd_alloc(1, sizeof *w);
    SD_CHECK_ALLOC(w, err);
    w->wake = wake;
    w->ctx = ctx;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->more, NULL);
    for (; w->n < SD_WORKERS; w->n++) {
        int rc = pthread_create(&w->thread[w->n], NULL, run, w);
        SD_CHECK(rc == 0, err, SD_EIO, "a thread for reading requests: %s", strerror(rc));
    }
    *out = w, w = NULL;
out:
    sd_workers_close(w);
    return st;
}

bool sd_workers_add(sd_workers *w, sd_work *item) {
    pthread_mutex_lock(&w->lock);
    item->turn = find_turn(w, item->owner);
    bool found = item->turn >= 0;
    if (found) {
        w->turns[item->turn].items++;
        push(&w->wanted, item);
        pthread_cond_signal(&w->more);
    }
    pthread_mutex_unlock(&w->lock);
    return found;
}

void sd_workers_deliver(sd_workers *w) {
    for (;;) {
        pthread_mutex_lock(&w->lock);
        sd_work *item = w->done.head;
        if (item) w->done.head = item->next;
        pthread_mutex_unlock(&w->lock);
        if (!item) return;
        item->done(item);
    }
}

void sd_workers_close(sd_workers *w) {
    if (!w) return;
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_broadcast(&w->more);
    pthread_mutex_unlock(&w->lock);
    for (int i = 0; i < w->n; i++) pthread_join(w->thread[i], NULL);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->more);
    free(w->turns);
    free(w);
}
