// The work queue: pieces, turns among owners, and what comes back.
#include "decode/serve/threads/workers.h"

#include <criterion/criterion.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <unistd.h>

typedef struct {
    sd_work work;
    int pieces, worked, finished;
} item;

static sem_t go, begun;
static atomic_int running, most, order[1024], n_order;
static atomic_int wakes;

static void count_wake(void *ctx) {
    (void)ctx;
    atomic_fetch_add(&wakes, 1);
}

static bool work_on(sd_work *w) {
    item *it = w->ctx;
    int now = atomic_fetch_add(&running, 1) + 1, had = atomic_load(&most);
    while (now > had && !atomic_compare_exchange_weak(&most, &had, now)) {
    }
    atomic_store(&order[atomic_fetch_add(&n_order, 1)], (int)w->owner);
    sem_post(&begun);
    sem_wait(&go);
    atomic_fetch_sub(&running, 1);
    return ++it->worked < it->pieces;
}

static void finish(sd_work *w) {
    ((item *)w->ctx)->finished++;
}

static sd_workers *start(void) {
    sd_workers *w = NULL;
    sem_init(&go, 0, 0);
    sem_init(&begun, 0, 0);
    atomic_store(&most, 0), atomic_store(&n_order, 0), atomic_store(&wakes, 0);
    cr_assert_eq(sd_workers_open(&w, count_wake, NULL, NULL), SD_OK);
    return w;
}

static void add(sd_workers *w, item *it, uint64_t owner, int pieces) {
    *it = (item){.pieces = pieces};
    it->work = (sd_work){.owner = owner, .step = work_on, .done = finish, .ctx = it};
    cr_assert(sd_workers_add(w, &it->work));
}

static void deliver_all(sd_workers *w, const item *it, int n) {
    for (int i = 0; i < n; i++)
        while (it[i].finished == 0) sd_workers_deliver(w), usleep(1000);
}

Test(workers, one_owner_has_two_of_three_threads_and_another_the_third) {
    sd_workers *w = start();
    item it[4];
    for (int i = 0; i < 3; i++) add(w, &it[i], 1, 1);
    sem_wait(&begun), sem_wait(&begun);
    usleep(20000);
    cr_assert_eq(atomic_load(&n_order), 2);
    add(w, &it[3], 2, 1);
    sem_wait(&begun);
    cr_assert_eq(atomic_load(&order[2]), 2);
    for (int i = 0; i < 4; i++) sem_post(&go);
    deliver_all(w, it, 4);
    for (int i = 0; i < 4; i++) cr_assert_eq(it[i].finished, 1);
    cr_assert_eq(atomic_load(&most), 3);
    cr_assert_geq(atomic_load(&wakes), 1);
    sd_workers_close(w);
}

Test(workers, turns_go_round_among_owners_piece_by_piece) {
    sd_workers *w = start();
    item it[3];
    add(w, &it[0], 1, 1), add(w, &it[1], 1, 1); // hold two threads
    sem_wait(&begun), sem_wait(&begun);
    item long_one, others[2];
    add(w, &long_one, 3, 3);
    sem_wait(&begun);
    add(w, &others[0], 4, 1), add(w, &others[1], 5, 1);
    for (int i = 0; i < 4; i++) { // one thread at a time goes on
        sem_post(&go);
        if (i < 3) usleep(5000);
    }
    for (int i = 0; i < 3; i++) sem_post(&go);
    deliver_all(w, it, 2), deliver_all(w, &long_one, 1), deliver_all(w, others, 2);
    cr_assert_eq(long_one.worked, 3);
    // Owners 4 and 5 had their piece before owner 3 had its second.
    int second = 0, seen = 0;
    for (int i = 0; i < atomic_load(&n_order); i++) {
        if (order[i] == 3 && ++seen == 2) second = i;
        if (order[i] > 3) cr_assert_eq(second, 0, "owner %d came after the second piece", order[i]);
    }
    sd_workers_close(w);
}

Test(workers, more_owners_than_are_remembered_all_come_back) {
    sd_workers *w = start();
    item *it = calloc(300, sizeof *it);
    for (int i = 0; i < 300; i++) sem_post(&go);
    for (int round = 0; round < 3; round++)
        for (int i = 0; i < 100; i++) {
            atomic_store(&n_order, 0);
            add(w, &it[round * 100 + i], (uint64_t)i, 1);
        }
    deliver_all(w, it, 300);
    sd_workers_close(w);
    free(it);
}
