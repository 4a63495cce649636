// Workers wait for a new generation number: first spinning (a region follows the last within
// microseconds while a model runs), then on a futex through a condition variable. Tasks are handed
// out by an atomic counter, so a slow or preempted worker holds up one task and not a fixed share
// of the region.
#include "base/pool.h"

#include "base/clock.h"
#include "base/memory.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

enum { SPIN_NS = 60 * 1000 };

struct sd_pool {
    int threads;
    pthread_t id[SD_MAX_THREADS];
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    _Alignas(64) atomic_uint generation; // bumped to start a region
    atomic_int parked;                   // workers inside pthread_cond_wait
    atomic_bool stop;
    _Alignas(64) atomic_int next; // next task to hand out
    _Alignas(64) atomic_int busy; // workers that have not finished the current region
    sd_task fn;
    void *ctx;
    int tasks;
};

typedef struct {
    sd_pool *pool;
    int worker;
} worker_arg;

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void drain(sd_pool *p, int worker) {
    for (;;) {
        int task = atomic_fetch_add_explicit(&p->next, 1, memory_order_relaxed);
        if (task >= p->tasks) return;
        p->fn(p->ctx, task, worker);
    }
}

static unsigned wait_for_work(sd_pool *p, unsigned seen) {
    int64_t until = sd_now_ns() + SPIN_NS;
    for (int i = 0;; i++) {
        unsigned g = atomic_load_explicit(&p->generation, memory_order_acquire);
        if (g != seen) return g;
        relax();
        if ((i & 63) == 63 && sd_now_ns() > until) break;
    }
    pthread_mutex_lock(&p->mutex);
    atomic_fetch_add(&p->parked, 1);
    while (atomic_load(&p->generation) == seen) pthread_cond_wait(&p->wake, &p->mutex);
    atomic_fetch_sub(&p->parked, 1);
    unsigned g = atomic_load(&p->generation);
    pthread_mutex_unlock(&p->mutex);
    return g;
}

static void *worker_main(void *v) {
    worker_arg a = *(worker_arg *)v;
    free(v);
    sd_pool *p = a.pool;
    unsigned seen = 0;
    for (;;) {
        seen = wait_for_work(p, seen);
        if (atomic_load(&p->stop)) return NULL;
        drain(p, a.worker);
        atomic_fetch_sub_explicit(&p->busy, 1, memory_order_release);
    }
}

static void start_generation(sd_pool *p) {
    atomic_fetch_add(&p->generation, 1);
    if (atomic_load(&p->parked) > 0) {
        pthread_mutex_lock(&p->mutex);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->mutex);
    }
}

void sd_pool_run(sd_pool *p, int tasks, sd_task fn, void *ctx) {
    if (!p || p->threads == 1 || tasks <= 1) {
        for (int i = 0; i < tasks; i++) fn(ctx, i, 0);
        return;
    }
    p->fn = fn;
    p->ctx = ctx;
    p->tasks = tasks;
    atomic_store_explicit(&p->next, 0, memory_order_relaxed);
    atomic_store_explicit(&p->busy, p->threads - 1, memory_order_relaxed);
    start_generation(p);
    drain(p, 0);
    // The others are at most one task behind; a preempted one is given the processor after a while.
    for (int i = 0; atomic_load_explicit(&p->busy, memory_order_acquire) > 0; i++) {
        relax();
        if ((i & 4095) == 4095) sched_yield();
    }
}

int sd_pool_threads(const sd_pool *pool) {
    return pool ? pool->threads : 1;
}

static int usable_processors(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0) return CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

sd_status sd_pool_open(sd_pool **out, int threads, sd_error *err) {
    sd_status st = SD_OK;
    sd_pool *p = NULL;
    *out = NULL;
    if (threads <= 0) threads = usable_processors();
    if (threads > SD_MAX_THREADS) threads = SD_MAX_THREADS;
    p = sd_alloc(1, sizeof *p);
    SD_CHECK_ALLOC(p, err);
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->wake, NULL);
    p->threads = 1;
    for (int i = 1; i < threads; i++) {
        worker_arg *a = malloc(sizeof *a);
        SD_CHECK_ALLOC(a, err);
        *a = (worker_arg){p, i};
        int e = pthread_create(&p->id[i], NULL, worker_main, a);
        if (e != 0) free(a);
        SD_CHECK(e == 0, err, SD_ENOMEM, "cannot start thread %d of %d; use --threads %d", i + 1,
                 threads, i);
        p->threads = i + 1;
    }
    *out = p;
    p = NULL;
out:
    sd_pool_close(p);
    return st;
}

void sd_pool_close(sd_pool *p) {
    if (!p) return;
    atomic_store(&p->stop, true);
    pthread_mutex_lock(&p->mutex);
    atomic_fetch_add(&p->generation, 1);
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->mutex);
    for (int i = 1; i < p->threads; i++) pthread_join(p->id[i], NULL);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->mutex);
    free(p);
}
