// oneDNN as an engine for one thread: its OpenMP team is set to one in each thread that calls it
// (the setting is the thread's own), so that the cut into tiles and the order of every sum are
// ours. A GEMM with threads of its own promises neither.
#include "kernels/train/gemm.h"

#include "base/files/cleanup.h"
#include "base/memory.h"

#include <dlfcn.h>
#include <oneapi/dnnl/dnnl.h>
#include <pthread.h>
#include <stdatomic.h>

// oneDNN brings its OpenMP runtime along; a build of it without OpenMP has none and needs no call.
static void one_thread(void) {
    static _Thread_local bool done;
    if (done) return;
    union {
        void *object;
        void (*call)(int);
    } set = {dlsym(RTLD_DEFAULT, "omp_set_num_threads")};
    if (set.object) set.call(1);
    done = true;
}

// oneDNN makes its code at the first call of a kind. Where operator new finds no memory for that, an
// exception ends the process in the middle of a run. So some is held back here, is given to it
// then, and is taken again before the next call; where even that is not enough, the end is orderly.
enum { RESERVE = 8 << 20 };
static const char library[] = "the matrix library (oneDNN)";
static _Atomic(void *) reserve;

static bool give_reserve(void) {
    void *p = atomic_exchange(&reserve, NULL);
    free(p);
    return p != NULL;
}

static void on_no_memory(void) {
    if (!give_reserve()) sd_memory_exhausted(library);
}

static void set_new_handler(void) {
    union {
        void *object;
        void (*(*call)(void (*)(void)))(void);
    } set = {dlsym(RTLD_DEFAULT, "_ZSt15set_new_handlerPFvvE")}; // std::set_new_handler
    if (set.object) set.call(on_no_memory);
}

static void keep_reserve(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, set_new_handler);
    if (atomic_load_explicit(&reserve, memory_order_relaxed)) return;
    void *none = NULL, *p = malloc(RESERVE); // never written to
    if (p && !atomic_compare_exchange_strong(&reserve, &none, p)) free(p);
}

void sd_gemm(bool ta, bool tb, int m, int n, int k, float alpha, const float *a, int lda,
             const float *b, int ldb, float beta, float *c, int ldc) {
    if (m <= 0 || n <= 0) return;
    one_thread();
    keep_reserve();
    dnnl_status_t s = dnnl_out_of_memory;
    do s = dnnl_sgemm(ta ? 'T' : 'N', tb ? 'T' : 'N', m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    while (s == dnnl_out_of_memory && give_reserve());
    if (s == dnnl_out_of_memory) sd_memory_exhausted(library);
    SD_ASSERT(s == dnnl_success); // arguments are ours, so another refusal is a bug
}
