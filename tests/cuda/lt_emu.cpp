#include "tests/cuda/lt_emu.h"

#include "tests/cuda/check.h"

#include <vector>

namespace {

// A descriptor that is used after it was given back says so.
enum Kind { GONE, HANDLE, DESC, LAYOUT, PREF };
struct Object {
    Kind kind;
};
struct Handle : Object {};
struct Desc : Object {
    int compute, trans[2];
};
struct Layout : Object {
    int type;
    uint64_t rows, cols;
    int64_t ld;
};
struct Pref : Object {
    uint64_t workspace;
    uint32_t reductions, align[4];
};

emulated_lt_counts counts;

template <class T> T *as(void *p, Kind kind) {
    T *object = static_cast<T *>(p);
    if (!p || object->kind != kind)
        emu::fail("cuBLASLt is given an object that is gone, or another one");
    return object;
}
template <class T> int make(void **out, T value, Kind kind) {
    T *object = new T(value);
    object->kind = kind;
    *out = object;
    (kind == HANDLE ? counts.handles : counts.descriptors)++;
    return SD_LT_OK;
}
// Kept, so that a later use is seen.
template <class T> int unmake(void *p, Kind kind) {
    static std::vector<T *> &graves = *new std::vector<T *>;
    T *object = as<T>(p, kind);
    object->kind = GONE;
    graves.push_back(object);
    (kind == HANDLE ? counts.handles : counts.descriptors)--;
    return SD_LT_OK;
}

int create(void **handle) {
    return make(handle, Handle(), HANDLE);
}
int destroy(void *handle) {
    return unmake<Handle>(handle, HANDLE);
}
int desc_create(void **desc, int compute, int scale_type) {
    if ((compute != SD_LT_COMPUTE_32F && compute != SD_LT_COMPUTE_32F_PEDANTIC) ||
        scale_type != SD_LT_R_32F)
        return SD_LT_NOT_SUPPORTED;
    Desc d = {};
    d.compute = compute;
    return make(desc, d, DESC);
}
int desc_destroy(void *desc) {
    return unmake<Desc>(desc, DESC);
}
int desc_set(void *desc, int name, const void *value, size_t bytes) {
    if (bytes != 4 || (name != SD_LT_DESC_TRANSA && name != SD_LT_DESC_TRANSB))
        return SD_LT_INVALID_VALUE;
    memcpy(&as<Desc>(desc, DESC)->trans[name - SD_LT_DESC_TRANSA], value, 4);
    return SD_LT_OK;
}
int layout_create(void **layout, int type, uint64_t rows, uint64_t cols, int64_t ld) {
    if ((type != SD_LT_R_32F && type != SD_LT_R_16BF) || !rows || !cols) return SD_LT_INVALID_VALUE;
    Layout l = {};
    l.type = type, l.rows = rows, l.cols = cols, l.ld = ld;
    return make(layout, l, LAYOUT);
}
int layout_destroy(void *layout) {
    return unmake<Layout>(layout, LAYOUT);
}
int pref_create(void **pref) {
    Pref p = {};
    p.reductions = 7;
    for (uint32_t &a : p.align) a = 256;
    return make(pref, p, PREF);
}
int pref_destroy(void *pref) {
    return unmake<Pref>(pref, PREF);
}
int pref_set(void *pref, int name, const void *value, size_t bytes) {
    Pref *p = as<Pref>(pref, PREF);
    if (name == SD_LT_PREF_WORKSPACE && bytes == 8) {
        memcpy(&p->workspace, value, 8);
        return SD_LT_OK;
    }
    if (bytes != 4) return SD_LT_INVALID_VALUE;
    if (name == SD_LT_PREF_REDUCTIONS)
        memcpy(&p->reductions, value, 4);
    else if (name >= SD_LT_PREF_ALIGN_A && name <= SD_LT_PREF_ALIGN_D)
        memcpy(&p->align[name - SD_LT_PREF_ALIGN_A], value, 4);
    else
        return SD_LT_INVALID_VALUE;
    return SD_LT_OK;
}

// ---- products

struct Problem {
    uint64_t m, n, k;
    const Desc *desc;
    const Layout *a, *b, *c, *d;
};
int problem_of(Problem *p, void *desc, void *a, void *b, void *c, void *d) {
    p->desc = as<Desc>(desc, DESC);
    p->a = as<Layout>(a, LAYOUT), p->b = as<Layout>(b, LAYOUT);
    p->c = as<Layout>(c, LAYOUT), p->d = as<Layout>(d, LAYOUT);
    const bool ta = p->desc->trans[0] == SD_LT_OP_T, tb = p->desc->trans[1] == SD_LT_OP_T;
    p->m = ta ? p->a->cols : p->a->rows, p->k = ta ? p->a->rows : p->a->cols;
    p->n = tb ? p->b->rows : p->b->cols;
    const Layout *all[] = {p->a, p->b, p->c, p->d};
    for (const Layout *l : all)
        if (l->ld < int64_t(l->rows)) return SD_LT_INVALID_VALUE;
    if ((tb ? p->b->cols : p->b->rows) != p->k || p->d->rows != p->m || p->d->cols != p->n ||
        p->c->rows != p->m || p->c->cols != p->n)
        return SD_LT_INVALID_VALUE;
    if (p->a->type != p->b->type || p->c->type != p->d->type) return SD_LT_NOT_SUPPORTED;
    if (p->a->type == SD_LT_R_32F && p->d->type != SD_LT_R_32F) return SD_LT_NOT_SUPPORTED;
    return SD_LT_OK;
}
// Every third number of columns wants room for partial sums.
uint64_t workspace_of(const Problem &p) {
    return p.n % 3 ? 0 : 1024;
}
// A number for all that an algorithm was found for.
uint64_t mark_of(const Problem &p) {
    uint64_t h = 0x9E3779B97F4A7C15ull;
    const uint64_t parts[] = {p.m,
                              p.n,
                              p.k,
                              uint64_t(p.a->ld),
                              uint64_t(p.b->ld),
                              uint64_t(p.d->ld),
                              uint64_t(p.desc->trans[0]),
                              uint64_t(p.desc->trans[1]),
                              uint64_t(p.a->type),
                              uint64_t(p.d->type),
                              uint64_t(p.desc->compute)};
    for (uint64_t x : parts) h = (h ^ x) * 0x100000001B3ull, h ^= h >> 29;
    return h;
}
int find(void *handle, void *desc, void *a, void *b, void *c, void *d, void *pref, int wanted,
         sd_lt_found *found, int *n) {
    as<Handle>(handle, HANDLE);
    const Pref *like = as<Pref>(pref, PREF);
    Problem p;
    *n = 0;
    const int status = problem_of(&p, desc, a, b, c, d);
    if (status || wanted < 1) return status ? status : int(SD_LT_INVALID_VALUE);
    if (like->reductions & ~unsigned(SD_LT_REDUCTION_COMPUTE_TYPE))
        emu::fail("partial sums may meet in any order");
    if (workspace_of(p) > like->workspace) return SD_LT_NOT_SUPPORTED;
    memset(found, 0, sizeof *found);
    found->algo.data[0] = mark_of(p);
    for (int i = 0; i < 4; i++) found->algo.data[1 + i] = like->align[i];
    found->workspace = workspace_of(p);
    *n = 1;
    counts.searches++;
    return SD_LT_OK;
}

float value_at(const void *p, int type, size_t at) {
    return type == SD_LT_R_32F ? static_cast<const float *>(p)[at]
                               : bf16_float(static_cast<const uint16_t *>(p)[at]);
}
void must_reach(const char *what, const void *p, const Layout &l, uint64_t align) {
    const size_t size = l.type == SD_LT_R_32F ? 4 : 2;
    const char *last =
        static_cast<const char *>(p) + (size_t(l.cols - 1) * size_t(l.ld) + l.rows) * size - 1;
    if (!emu::is_device(p) || !emu::is_device(last))
        emu::fail("%s of a product is not the device's memory", what);
    if (uintptr_t(p) % align)
        emu::fail("%s of a product is not aligned to %d bytes as was promised", what, int(align));
}

struct Product {
    Problem of;
    Desc desc;
    Layout a, b, d;
    float alpha, beta;
    const void *A, *B;
    void *D, *workspace;
    void run() const;
    float sum(size_t i, size_t j) const;
};
// Ascending; descending; or in two halves: by the number of columns, which are the caller's rows.
float Product::sum(size_t i, size_t j) const {
    const bool ta = desc.trans[0] == SD_LT_OP_T, tb = desc.trans[1] == SD_LT_OP_T;
    float part[2] = {0, 0};
    for (size_t t = 0; t < of.k; t++) {
        const size_t p = of.n % 3 == 1 ? of.k - 1 - t : t;
        const float x = value_at(A, a.type, ta ? i * size_t(a.ld) + p : p * size_t(a.ld) + i),
                    y = value_at(B, b.type, tb ? p * size_t(b.ld) + j : j * size_t(b.ld) + p);
        float *to = &part[of.n % 3 == 2 && t >= of.k / 2];
        *to = fmaf(x, y, *to);
    }
    return part[0] + part[1];
}
void Product::run() const {
    if (workspace_of(of)) memset(workspace, 0xff, workspace_of(of));
    for (size_t j = 0; j < of.n; j++)
        for (size_t i = 0; i < of.m; i++) {
            const size_t at = j * size_t(d.ld) + i;
            const float before = beta != 0 ? beta * value_at(D, d.type, at) : 0.0f,
                        v = alpha * sum(i, j) + before;
            if (d.type == SD_LT_R_32F)
                static_cast<float *>(D)[at] = v;
            else
                static_cast<uint16_t *>(D)[at] = bf16_bits(v);
        }
}

int matmul(void *handle, void *desc, const void *alpha, const void *A, void *a, const void *B,
           void *b, const void *beta, const void *C, void *c, void *D, void *d,
           const sd_lt_algo *algo, void *workspace, size_t bytes, void *stream) {
    as<Handle>(handle, HANDLE);
    Product p;
    const int status = problem_of(&p.of, desc, a, b, c, d);
    if (status) return status;
    if (C != D) return SD_LT_NOT_SUPPORTED;
    if (algo->data[0] != mark_of(p.of))
        emu::fail("an algorithm is used for another product than it was found for");
    must_reach("A", A, *p.of.a, algo->data[1]), must_reach("B", B, *p.of.b, algo->data[2]);
    must_reach("D", D, *p.of.d, algo->data[4]);
    if (bytes < workspace_of(p.of)) return SD_LT_INVALID_VALUE;
    if (workspace_of(p.of) && !emu::is_device(workspace))
        emu::fail("the workspace is not the device's memory");
    p.desc = *p.of.desc, p.a = *p.of.a, p.b = *p.of.b, p.d = *p.of.d;
    memcpy(&p.alpha, alpha, sizeof p.alpha), memcpy(&p.beta, beta, sizeof p.beta);
    p.A = A, p.B = B, p.D = D, p.workspace = workspace;
    emu::call_async([p] { p.run(); }, stream);
    return SD_LT_OK;
}

sd_lt_functions make_functions() {
    sd_lt_functions f;
#define SET(field, name, arguments) f.field = field;
    SD_LT_LIST(SET)
#undef SET
    return f;
}

} // namespace

const sd_lt_functions *emulated_lt() {
    static const sd_lt_functions f = make_functions();
    return &f;
}
emulated_lt_counts emulated_lt_counted() {
    return counts;
}
