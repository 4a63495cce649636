// Wide products: cuBLASLt's descriptors as the library's own reading of them gives them back (lt_emu.h), against double precision.
#include "kernels/cuda/blas/blas.h"
#include "tests/cuda/check.h"
#include "tests/cuda/lt_emu.h"

static const double u = 0x1p-24, v = 0x1p-8; // a rounding of fp32, one to bf16
enum { WORKSPACE = 4096 };

struct Case {
    int m, n, k;
    bool ta, tb, add;
    float alpha;
    int more; // columns that leading dimensions have beyond those that are used
    sd_cuda_real type, type_c;
};
struct Data {
    std::vector<float> a, b, c;
    sd_cuda_product p;
};

static void *real_copy_of(std::vector<float> *x, sd_cuda_real type) {
    if (type == SD_CUDA_F32) return emu::device_copy(*x);
    std::vector<uint16_t> bits;
    for (float &f : *x) f = rounded_bf16(f), bits.push_back(bf16_bits(f));
    return emu::device_copy(bits);
}
static Data data_of(const Case &c) {
    Data d = {};
    sd_cuda_product *p = &d.p;
    p->m = c.m, p->n = c.n, p->k = c.k, p->ta = c.ta, p->tb = c.tb, p->alpha = c.alpha,
    p->add = c.add;
    p->lda = (c.ta ? c.m : c.k) + c.more, p->ldb = (c.tb ? c.k : c.n) + c.more,
    p->ldc = c.n + c.more;
    p->type = c.type, p->type_c = c.type_c;
    d.a = random_floats(size_t((c.ta ? c.k : c.m) * p->lda)),
    d.b = random_floats(size_t((c.tb ? c.n : c.k) * p->ldb));
    d.c = random_floats(size_t(c.m * p->ldc));
    p->a = real_copy_of(&d.a, c.type), p->b = real_copy_of(&d.b, c.type),
    p->c = real_copy_of(&d.c, c.type_c);
    return d;
}
static sd_cuda_blas *open_blas() {
    sd_cuda_blas *b;
    check(sd_cuda_blas_open(&b, emulated_lt(), emu::device_alloc(WORKSPACE), WORKSPACE) == 0,
          "not opened");
    return b;
}

// A chain of k products and sums, in any order, then alpha, what was there, and the rounding of what is stored.
static void compare(const Data &d, const Case &c) {
    std::vector<double> want(d.c.begin(), d.c.end()), tolerance(d.c.size());
    for (int i = 0; i < c.m; i++)
        for (int j = 0; j < c.n; j++) {
            double sum = 0, size = 0;
            for (int t = 0; t < c.k; t++) {
                const double x = double(d.a[size_t(c.ta ? t * d.p.lda + i : i * d.p.lda + t)]) *
                                 d.b[size_t(c.tb ? j * d.p.ldb + t : t * d.p.ldb + j)];
                sum += x, size += fabs(x);
            }
            double *y = &want[size_t(i * d.p.ldc + j)];
            *y = c.alpha * sum + (c.add ? *y : 0);
            tolerance[size_t(i * d.p.ldc + j)] = fabs(c.alpha) * size * (c.k + 2) * u +
                                                 2 * u * fabs(*y) +
                                                 (c.type_c == SD_CUDA_BF16 ? v * fabs(*y) : 0);
        }
    check_close(read_real(d.p.c, d.c.size(), c.type_c == SD_CUDA_BF16), want, tolerance,
                "a product");
}
static void run_case(const Case &c) {
    sd_cuda_blas *b = open_blas();
    const Data d = data_of(c);
    void *stream = emu::stream_open();
    check(sd_cuda_blas_multiply(b, &d.p, static_cast<sd_cuda_stream *>(stream)) == 0, "refused");
    emu::stream_close(stream);
    compare(d, c);
    sd_cuda_blas_close(b);
}

TEST("a product is that of double precision for every way in which its matrices lie") {
    const sd_cuda_real f = SD_CUDA_F32, h = SD_CUDA_BF16;
    for (int way = 0; way < 8; way++) {
        const bool ta = way & 1, tb = way & 2, add = way & 4;
        run_case({5, 7, 11, ta, tb, add, 0.5f, 0, f, f});
        run_case({6, 3, 9, ta, tb, add, 1, 3, h, f});
        run_case({4, 9, 20, ta, tb, add, -2, 1, h, h});
    }
}
TEST("a shape is looked up once, and one algorithm serves it") {
    sd_cuda_blas *b = open_blas();
    const Case c = {5, 7, 11, false, true, false, 1, 0, SD_CUDA_BF16, SD_CUDA_F32};
    const Data first = data_of(c), second = data_of(c),
               other = data_of({6, 7, 11, false, true, false, 1, 0, SD_CUDA_BF16, SD_CUDA_F32});
    void *stream = emu::stream_open();
    for (const Data *d : {&first, &other, &second, &other})
        check(sd_cuda_blas_multiply(b, &d->p, static_cast<sd_cuda_stream *>(stream)) == 0,
              "refused");
    emu::stream_close(stream);
    check(emulated_lt_counted().searches == 2, "%d searches for two shapes",
          emulated_lt_counted().searches);
    compare(second, c);
    sd_cuda_blas_close(b);
    const emulated_lt_counts left = emulated_lt_counted();
    check(left.handles == 0 && left.descriptors == 0, "%d handles and %d descriptors are left",
          left.handles, left.descriptors);
}
TEST("more shapes than are kept give the oldest back, and still multiply") {
    sd_cuda_blas *b = open_blas();
    void *stream = emu::stream_open();
    for (int round = 0; round < 2; round++)
        for (int k = 1; k <= 600; k++) {
            const Case c = {2, 1, k, false, true, false, 1, 0, SD_CUDA_F32, SD_CUDA_F32};
            const Data d = data_of(c);
            check(sd_cuda_blas_multiply(b, &d.p, static_cast<sd_cuda_stream *>(stream)) == 0,
                  "refused");
            emu::stream_synchronise(stream);
            if (k % 97 == 0) compare(d, c);
            emu::device_free(const_cast<void *>(d.p.a)),
                emu::device_free(const_cast<void *>(d.p.b)), emu::device_free(d.p.c);
        }
    emu::stream_close(stream);
    check(emulated_lt_counted().searches == 1200, "%d searches", emulated_lt_counted().searches);
    sd_cuda_blas_close(b);
    check(emulated_lt_counted().descriptors == 0, "descriptors are left");
}
TEST("what is less aligned is promised as it is") {
    sd_cuda_blas *b = open_blas();
    void *stream = emu::stream_open();
    for (int off : {1, 2, 4, 8}) {
        Data d = data_of({3, 5, 16, false, false, false, 1, 0, SD_CUDA_BF16, SD_CUDA_F32});
        std::vector<float> a(48 + size_t(off));
        std::copy(d.a.begin(), d.a.end(), a.begin() + off);
        d.p.a = static_cast<uint16_t *>(real_copy_of(&a, SD_CUDA_BF16)) + off;
        check(sd_cuda_blas_multiply(b, &d.p, static_cast<sd_cuda_stream *>(stream)) == 0,
              "refused");
        emu::stream_synchronise(stream);
        compare(d, {3, 5, 16, false, false, false, 1, 0, SD_CUDA_BF16, SD_CUDA_F32});
    }
    emu::stream_close(stream);
    sd_cuda_blas_close(b);
}
// Without this the stand-in would prove nothing of what may not come here.
TEST("a row's bits depend on how many rows there are") {
    sd_cuda_blas *b = open_blas();
    const Data d = data_of({3, 40, 300, false, true, false, 1, 0, SD_CUDA_F32, SD_CUDA_F32});
    std::vector<float> all(d.c.size()), fewer(d.c.size());
    for (int rows : {3, 2}) {
        sd_cuda_product p = d.p;
        p.m = rows;
        check(sd_cuda_blas_multiply(b, &p, nullptr) == 0, "refused");
        emu::synchronise();
        memcpy((rows == 3 ? all : fewer).data(), p.c, size_t(rows) * 160);
    }
    check(memcmp(all.data(), fewer.data(), 320) != 0, "two of three rows have the same bits alone");
    sd_cuda_blas_close(b);
}
TEST("products that are none are refused") {
    sd_cuda_blas *b = open_blas();
    const Data d = data_of({3, 4, 5, false, true, false, 1, 0, SD_CUDA_F32, SD_CUDA_F32});
    sd_cuda_product p = d.p;
    p.ldb = 4;
    check(sd_cuda_blas_multiply(b, &p, nullptr) == SD_CUDA_EINVAL, "ldb");
    p = d.p, p.ldc = 3;
    check(sd_cuda_blas_multiply(b, &p, nullptr) == SD_CUDA_EINVAL, "ldc");
    p = d.p, p.m = 0;
    check(sd_cuda_blas_multiply(b, &p, nullptr) == SD_CUDA_EINVAL, "m");
    p = d.p, p.type_c = SD_CUDA_BF16;
    check(sd_cuda_blas_multiply(b, &p, nullptr) == SD_CUDA_BLAS_ERROR + SD_LT_NOT_SUPPORTED,
          "fp32 to bf16");
    check(strstr(sd_cuda_blas_error_text(SD_CUDA_BLAS_ERROR + SD_LT_NOT_SUPPORTED),
                 "cannot multiply"),
          "the error's text");
    sd_cuda_blas_close(b);
}
