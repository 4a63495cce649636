// Workers wait for unclaimed tasks: first spinning (a region follows the last within microseconds
// while a model runs), then on a futex through a condition variable. A region is one word,
// generation | tasks | next, and a task is claimed by advancing it, so that a region ends when its
// tasks are done and not when every worker has looked at it: a preempted worker holds up the one
// task it has claimed, and one that never got the processor holds up nothing.
#include "base/pool.h"

#include "base/cgroup.h"
#include "base/clock.h"
#include "base/memory.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

enum { SPIN_NS = 60 * 1000, FIELD = 20, MAX_TASKS = (1 << FIELD) - 1 };

struct sd_pool {
    int threads;
    pthread_t id[SD_MAX_THREADS];
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    atomic_int parked; // workers inside pthread_cond_wait
    atomic_bool stop;
    _Alignas(64) atomic_uint_fast64_t region; // generation << 40 | tasks << 20 | next
    _Alignas(64) atomic_int done;             // finished tasks of the region
    // Written between regions; whoever has claimed a task may read them until it is done.
    _Alignas(64) sd_task fn;
    void *ctx;
    int first; // number of the region's task 0
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

static bool has_tasks(uint64_t region) {
    return (region & MAX_TASKS) < (region >> FIELD & MAX_TASKS);
}

// Claims and runs tasks until none is left. A successful exchange makes the region's end wait for
// this task, so fn and ctx stay what they are.
static void drain(sd_pool *p, int worker) {
    uint_fast64_t r = atomic_load_explicit(&p->region, memory_order_acquire);
    while (has_tasks(r)) {
        if (!atomic_compare_exchange_weak_explicit(&p->region, &r, r + 1, memory_order_acq_rel,
                                                   memory_order_acquire))
            continue;
        p->fn(p->ctx, p->first + (int)(r & MAX_TASKS), worker);
        atomic_fetch_add_explicit(&p->done, 1, memory_order_release);
        r = atomic_load_explicit(&p->region, memory_order_acquire);
    }
}

static void wait_for_work(sd_pool *p) {
    int64_t until = sd_now_ns() + SPIN_NS;
    for (int i = 0;; i++) {
        if (has_tasks(atomic_load_explicit(&p->region, memory_order_acquire))) return;
        relax();
        if ((i & 63) == 63 && sd_now_ns() > until) break;
    }
    // Counted before looking again, and the other side publishes before it reads the count: one of
    // the two sees the other.
    pthread_mutex_lock(&p->mutex);
    atomic_fetch_add(&p->parked, 1);
    while (!has_tasks(atomic_load(&p->region)) && !atomic_load(&p->stop))
        pthread_cond_wait(&p->wake, &p->mutex);
    atomic_fetch_sub(&p->parked, 1);
    pthread_mutex_unlock(&p->mutex);
}

static void *worker_main(void *v) {
    worker_arg a = *(worker_arg *)v;
    free(v);
    sd_pool *p = a.pool;
    for (;;) {
        wait_for_work(p);
        if (atomic_load(&p->stop)) return NULL;
        drain(p, a.worker);
    }
}

static void run_region(sd_pool *p, int first, int tasks) {
    p->first = first;
    atomic_store_explicit(&p->done, 0, memory_order_relaxed);
    uint64_t generation = (atomic_load_explicit(&p->region, memory_order_relaxed) >> 2 * FIELD) + 1;
    atomic_store(&p->region, generation << 2 * FIELD | (uint64_t)tasks << FIELD);
    if (atomic_load(&p->parked) > 0) {
        pthread_mutex_lock(&p->mutex);
        pthread_cond_broadcast(&p->wake);
        pthread_mutex_unlock(&p->mutex);
    }
    drain(p, 0);
    // The rest has been claimed; a preempted worker is given the processor after a while.
    for (int i = 0; atomic_load_explicit(&p->done, memory_order_acquire) < tasks; i++) {
        relax();
        if ((i & 1023) == 1023) sched_yield();
    }
}

void sd_pool_run(sd_pool *p, int tasks, sd_task fn, void *ctx) {
    if (!p || p->threads == 1 || tasks <= 1) {
        for (int i = 0; i < tasks; i++) fn(ctx, i, 0);
        return;
    }
    p->fn = fn;
    p->ctx = ctx;
    for (int first = 0; first < tasks; first += MAX_TASKS)
        run_region(p, first, tasks - first < MAX_TASKS ? tasks - first : MAX_TASKS);
}

int sd_pool_threads(const sd_pool *pool) {
    return pool ? pool->threads : 1;
}

static int usable_processors(void) {
    cpu_set_t set;
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    if (sched_getaffinity(0, sizeof set, &set) == 0) n = CPU_COUNT(&set);
    int quota = sd_cpu_quota("");
    if (quota > 0 && quota < n) n = quota;
    return n > 0 ? (int)n : 1;
}

int sd_pool_count(int threads) {
    if (threads <= 0) threads = usable_processors();
    return threads > SD_MAX_THREADS ? SD_MAX_THREADS : threads;
}

sd_status sd_pool_open(sd_pool **out, int threads, sd_error *err) {
    sd_status st = SD_OK;
    sd_pool *p = NULL;
    *out = NULL;
    threads = sd_pool_count(threads);
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
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->mutex);
    for (int i = 1; i < p->threads; i++) pthread_join(p->id[i], NULL);
    pthread_cond_destroy(&p->wake);
    pthread_mutex_destroy(&p->mutex);
    free(p);
}
