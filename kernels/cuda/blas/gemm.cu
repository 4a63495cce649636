// cuBLASLt's descriptors, made once for a shape and kept with its algorithm.
//
// cuBLASLt counts columns first: what is row-major [m, n] here is column-major [n, m] there, the same memory. So c^T = op(b)^T op(a)^T is asked
// for: b is its first matrix, a its second, and each keeps its own transposition.
#include "kernels/cuda/blas/blas.h"

#include <stdlib.h>
#include <string.h>

// All that an algorithm depends on.
struct Shape {
    int m, n, k, ta, tb, lda, ldb, ldc, type, type_c;
    unsigned align_a, align_b, align_c; // bytes, 16 at most
};
struct Plan {
    Shape shape;
    void *desc, *a, *b, *c;
    sd_lt_algo algo;
};
// The oldest goes where there are too many: a shape's algorithm is the same whenever it is asked for.
enum { PLANS = 512 };
struct sd_cuda_blas {
    const sd_lt_functions *lt;
    void *handle, *workspace;
    size_t bytes;
    Plan *plan; // [PLANS]
    int n, oldest;
};

static unsigned alignment(const void *p) {
    unsigned bytes = 16;
    while ((uintptr_t)p % bytes) bytes /= 2;
    return bytes;
}
static Shape shape_of(const sd_cuda_product *p) {
    Shape s;
    memset(&s, 0, sizeof s);
    s.m = p->m, s.n = p->n, s.k = p->k, s.ta = p->ta, s.tb = p->tb;
    s.lda = p->lda, s.ldb = p->ldb, s.ldc = p->ldc, s.type = p->type, s.type_c = p->type_c;
    s.align_a = alignment(p->a), s.align_b = alignment(p->b), s.align_c = alignment(p->c);
    return s;
}
static int type_of(int real) {
    return real == SD_CUDA_BF16 ? SD_LT_R_16BF : SD_LT_R_32F;
}
static int failed(int status) {
    return status ? SD_CUDA_BLAS_ERROR + status : 0;
}

static void forget(const sd_lt_functions *lt, Plan *p) {
    if (p->desc) lt->desc_destroy(p->desc);
    void *const layouts[] = {p->a, p->b, p->c};
    for (void *l : layouts)
        if (l) lt->layout_destroy(l);
    memset(p, 0, sizeof *p);
}

static int describe(const sd_lt_functions *lt, Plan *p) {
    const Shape &s = p->shape;
    const int32_t first = s.tb ? SD_LT_OP_T : SD_LT_OP_N, second = s.ta ? SD_LT_OP_T : SD_LT_OP_N;
    // fp32 stays fp32: the other mode may be told to take less.
    int status = lt->desc_create(
        &p->desc, s.type == SD_CUDA_F32 ? SD_LT_COMPUTE_32F_PEDANTIC : SD_LT_COMPUTE_32F,
        SD_LT_R_32F);
    if (!status) status = lt->desc_set(p->desc, SD_LT_DESC_TRANSA, &first, sizeof first);
    if (!status) status = lt->desc_set(p->desc, SD_LT_DESC_TRANSB, &second, sizeof second);
    if (!status)
        status = lt->layout_create(&p->b, type_of(s.type), (uint64_t)(s.tb ? s.k : s.n),
                                   (uint64_t)(s.tb ? s.n : s.k), s.ldb);
    if (!status)
        status = lt->layout_create(&p->a, type_of(s.type), (uint64_t)(s.ta ? s.m : s.k),
                                   (uint64_t)(s.ta ? s.k : s.m), s.lda);
    if (!status)
        status = lt->layout_create(&p->c, type_of(s.type_c), (uint64_t)s.n, (uint64_t)s.m, s.ldc);
    return status;
}

// Partial sums over k meet in the workspace, in order, or there are none.
static int choose(const sd_cuda_blas *b, Plan *p) {
    const sd_lt_functions *lt = b->lt;
    const Shape &s = p->shape;
    const uint64_t bytes = b->bytes;
    const uint32_t reductions = SD_LT_REDUCTION_NONE | SD_LT_REDUCTION_COMPUTE_TYPE;
    const struct {
        int name;
        uint32_t value;
    } rest[] = {{SD_LT_PREF_REDUCTIONS, reductions},
                {SD_LT_PREF_ALIGN_A, s.align_b},
                {SD_LT_PREF_ALIGN_B, s.align_a},
                {SD_LT_PREF_ALIGN_C, s.align_c},
                {SD_LT_PREF_ALIGN_D, s.align_c}};
    void *pref = NULL;
    sd_lt_found found;
    int n = 0;
    memset(&found, 0, sizeof found);
    int status = lt->pref_create(&pref);
    if (!status) status = lt->pref_set(pref, SD_LT_PREF_WORKSPACE, &bytes, sizeof bytes);
    for (size_t i = 0; i < sizeof rest / sizeof *rest && !status; i++)
        status = lt->pref_set(pref, rest[i].name, &rest[i].value, sizeof rest[i].value);
    if (!status) status = lt->find(b->handle, p->desc, p->b, p->a, p->c, p->c, pref, 1, &found, &n);
    if (pref) lt->pref_destroy(pref);
    if (!status && n < 1) status = SD_LT_NOT_SUPPORTED;
    p->algo = found.algo;
    return status ? status : found.state;
}

static int plan_for(const Plan **out, sd_cuda_blas *b, const Shape *s) {
    for (int i = 0; i < b->n; i++)
        if (memcmp(&b->plan[i].shape, s, sizeof *s) == 0) {
            *out = &b->plan[i];
            return 0;
        }
    Plan made;
    memset(&made, 0, sizeof made);
    made.shape = *s;
    int status = describe(b->lt, &made);
    if (!status) status = choose(b, &made);
    if (status) {
        forget(b->lt, &made);
        return status;
    }
    int at = b->n;
    if (b->n < PLANS) {
        b->n++;
    } else {
        at = b->oldest, b->oldest = (b->oldest + 1) % PLANS;
        forget(b->lt, &b->plan[at]);
    }
    b->plan[at] = made;
    *out = &b->plan[at];
    return 0;
}

extern "C" int sd_cuda_blas_open(sd_cuda_blas **out, const sd_lt_functions *functions,
                                 void *workspace, size_t bytes) {
    *out = NULL;
    sd_cuda_blas *b = (sd_cuda_blas *)calloc(1, sizeof *b);
    if (b) b->plan = (Plan *)calloc(PLANS, sizeof *b->plan);
    if (!b || !b->plan) {
        free(b);
        return failed(SD_LT_ALLOC_FAILED);
    }
    b->lt = functions, b->workspace = workspace, b->bytes = bytes;
    const int status = functions->create(&b->handle);
    if (status) {
        b->handle = NULL;
        sd_cuda_blas_close(b);
        return failed(status);
    }
    *out = b;
    return 0;
}

extern "C" void sd_cuda_blas_close(sd_cuda_blas *b) {
    if (!b) return;
    for (int i = 0; i < b->n; i++) forget(b->lt, &b->plan[i]);
    if (b->handle) b->lt->destroy(b->handle);
    free(b->plan);
    free(b);
}

static bool usable(const sd_cuda_product *p) {
    return p->a && p->b && p->c && p->m >= 1 && p->n >= 1 && p->k >= 1 &&
           p->lda >= (p->ta ? p->m : p->k) && p->ldb >= (p->tb ? p->k : p->n) && p->ldc >= p->n;
}

extern "C" int sd_cuda_blas_multiply(sd_cuda_blas *b, const sd_cuda_product *p, sd_cuda_stream *s) {
    if (!b || !usable(p)) return SD_CUDA_EINVAL;
    const Shape shape = shape_of(p);
    const Plan *plan = NULL;
    const int status = plan_for(&plan, b, &shape);
    if (status) return failed(status);
    const float beta = p->add ? 1.0f : 0.0f;
    return failed(b->lt->matmul(b->handle, plan->desc, &p->alpha, p->b, plan->b, p->a, plan->a,
                                &beta, p->c, plan->c, p->c, plan->c, &plan->algo, b->workspace,
                                b->bytes, s));
}

extern "C" const char *sd_cuda_blas_error_text(int status) {
    static const struct {
        int status;
        const char *text;
    } texts[] = {{SD_CUDA_ENOBLAS, "libcublasLt.so.13 cannot be opened"},
                 {SD_CUDA_BLAS_ERROR + SD_LT_NOT_INITIALIZED, "cuBLASLt cannot be initialised"},
                 {SD_CUDA_BLAS_ERROR + SD_LT_ALLOC_FAILED, "cuBLASLt is out of memory"},
                 {SD_CUDA_BLAS_ERROR + SD_LT_INVALID_VALUE, "cuBLASLt refuses a value"},
                 {SD_CUDA_BLAS_ERROR + SD_LT_ARCH_MISMATCH, "cuBLASLt does not know the device"},
                 {SD_CUDA_BLAS_ERROR + SD_LT_EXECUTION_FAILED, "a product of cuBLASLt failed"},
                 {SD_CUDA_BLAS_ERROR + SD_LT_NOT_SUPPORTED, "cuBLASLt cannot multiply that"}};
    for (const auto &t : texts)
        if (t.status == status) return t.text;
    return "an error of cuBLASLt";
}
