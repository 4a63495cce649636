// Readers: threads that turn a request's body into tokens.
//
// JSON of megabytes, a template's loops and a long text's tokens take up to seconds; on the event
// loop they would hold up every stream and every probe. A call is handed over whole: from
// sd_readers_add until sd_readers_take gives it back, its reading fields (body, request, prompt,
// found, error) are the reader's alone, and the loop only notes on it that its client left. The
// queue is bounded by admission.
//
// The clients take turns, piece by piece (a body, a template, a text). A client has two of the
// three threads at most: one long prompt does not hold up its own short ones, and nobody's hold up
// another client.
#include "decode/serve/generation.h"

#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { READERS = 3, OF_ONE_CLIENT = READERS - 1, NICE = 5 };

typedef struct {
    sd_call *head, *tail;
} list;

struct sd_readers {
    sd_server *server;
    pthread_t thread[READERS];
    int n;
    pthread_mutex_t lock;
    pthread_cond_t more;
    bool stop;
    uint64_t turns;
    list wanted, done;
};

static bool push(list *l, sd_call *j) {
    bool was_empty = l->head == NULL;
    j->read_next = NULL;
    if (was_empty)
        l->head = j;
    else
        l->tail->read_next = j;
    l->tail = j;
    return was_empty;
}

// The first call of the client whose turn it is, out of the list; NULL: nobody's.
static sd_call *take_turn(sd_readers *r) {
    sd_call *best = NULL, *before_best = NULL;
    for (sd_call *j = r->wanted.head, *before = NULL; j; before = j, j = j->read_next) {
        const sd_client *c = j->client;
        if (c->being_read >= OF_ONE_CLIENT) continue;
        if (!best || c->read_turn < best->client->read_turn) best = j, before_best = before;
    }
    if (!best) return NULL;
    if (before_best)
        before_best->read_next = best->read_next;
    else
        r->wanted.head = best->read_next;
    if (r->wanted.tail == best) r->wanted.tail = before_best;
    best->client->being_read++;
    best->client->read_turn = ++r->turns;
    return best;
}

static void push_front(list *l, sd_call *j) {
    j->read_next = l->head;
    if (!l->head) l->tail = j;
    l->head = j;
}

static void wake_loop(const sd_readers *r) {
    uint64_t one = 1;
    if (write(r->server->wake_fd, &one, sizeof one) < 0) return; // full is awake
}

static void *run(void *ctx) {
    sd_readers *r = ctx;
    const sd_serve_options *o = r->server->o;
    // Where processors are few, answers that run come before reading the next.
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), NICE);
    pthread_mutex_lock(&r->lock);
    while (!r->stop) {
        sd_call *j = take_turn(r);
        if (!j) {
            pthread_cond_wait(&r->more, &r->lock);
            continue;
        }
        pthread_mutex_unlock(&r->lock);
        if (o->on_read && j->pieces_read == 0) o->on_read(o->ctx);
        bool more = !atomic_load(&j->cut) && sd_call_read(j);
        pthread_mutex_lock(&r->lock);
        j->client->being_read--;
        if (more)
            push_front(&r->wanted, j);
        else if (push(&r->done, j))
            wake_loop(r);
        pthread_cond_signal(&r->more); // its client may have been at its limit
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

sd_status sd_readers_open(sd_server *s, sd_error *err) {
    sd_status st = SD_OK;
    sd_readers *r = s->readers = sd_alloc(1, sizeof *r);
    SD_CHECK_ALLOC(r, err);
    r->server = s;
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->more, NULL);
    for (; r->n < READERS; r->n++) {
        int rc = pthread_create(&r->thread[r->n], NULL, run, r);
        SD_CHECK(rc == 0, err, SD_EIO, "a thread for reading requests: %s", strerror(rc));
    }
out:
    return st;
}

void sd_readers_add(sd_server *s, sd_call *j) {
    sd_readers *r = s->readers;
    pthread_mutex_lock(&r->lock);
    push(&r->wanted, j);
    pthread_cond_signal(&r->more);
    pthread_mutex_unlock(&r->lock);
}

static sd_call *take(sd_readers *r, list *l) {
    pthread_mutex_lock(&r->lock);
    sd_call *j = l->head;
    if (j) l->head = j->read_next;
    pthread_mutex_unlock(&r->lock);
    return j;
}

sd_call *sd_readers_take(sd_server *s) {
    return take(s->readers, &s->readers->done);
}

void sd_readers_close(sd_server *s) {
    sd_readers *r = s->readers;
    if (!r) return;
    pthread_mutex_lock(&r->lock);
    r->stop = true;
    pthread_cond_broadcast(&r->more);
    pthread_mutex_unlock(&r->lock);
    for (int i = 0; i < r->n; i++) pthread_join(r->thread[i], NULL);
    for (sd_call *j; (j = take(r, &r->wanted)) || (j = take(r, &r->done));) sd_call_free(j);
    pthread_mutex_destroy(&r->lock);
    pthread_cond_destroy(&r->more);
    free(r);
    s->readers = NULL;
}
