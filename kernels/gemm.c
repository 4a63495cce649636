// oneDNN as an engine for one thread: its OpenMP team is set to one in each thread that calls it
// (the setting is the thread's own), so that the cut into tiles and the order of every sum are
// ours. A GEMM with threads of its own promises neither.
#include "kernels/gemm.h"

#include "base/status.h"

#include <dlfcn.h>
#include <oneapi/dnnl/dnnl.h>

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

void sd_gemm(bool ta, bool tb, int m, int n, int k, float alpha, const float *a, int lda,
             const float *b, int ldb, float beta, float *c, int ldc) {
    if (m <= 0 || n <= 0) return;
    one_thread();
    // Arguments are ours, so a refusal is a bug, or memory for its packing buffers ran out.
    dnnl_status_t s =
        dnnl_sgemm(ta ? 'T' : 'N', tb ? 'T' : 'N', m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    SD_ASSERT(s == dnnl_success);
}
