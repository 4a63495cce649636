#include "tests/cuda/check.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static std::vector<const Test *> &tests() {
    static auto *all = new std::vector<const Test *>;
    return *all;
}
Test::Test(const char *s, void (*r)(), bool o) : sentence(s), run(r), one(o) {
    tests().push_back(this);
}

// For tests in C (tests/cuda/model/check.h).
extern "C" void test_add(const char *sentence, void (*run)(void)) {
    new Test(sentence, run, true);
}

void check(bool ok, const char *fmt, ...) {
    if (ok) return;
    va_list args;
    va_start(args, fmt);
    fprintf(stderr, "# ");
    vfprintf(stderr, fmt, args);
    fprintf(stderr, "\n");
    va_end(args);
    fflush(nullptr);
    _exit(1);
}

enum { SKIPPED = 77, SKIPPED_UNWRITTEN };
void not_under_tsan() {
#ifdef __SANITIZE_THREAD__
    _exit(SKIPPED);
#endif
}
bool under_tsan() {
#ifdef __SANITIZE_THREAD__
    return true;
#else
    return false;
#endif
}
#if defined(__has_feature)
#if __has_feature(memory_sanitizer)
#define UNDER_MSAN
extern "C" const char *__msan_default_options() { // its own status is that of a skip
    return "exit_code=66";
}
#endif
#endif
void not_under_msan() {
#ifdef UNDER_MSAN
    _exit(SKIPPED_UNWRITTEN);
#endif
}

bool ends_with(const std::function<void()> &run, const char *word) {
    int ends[2];
    check(pipe(ends) == 0, "no pipe");
    fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 2);
        run();
        _exit(0);
    }
    close(ends[1]);
    std::string said;
    char piece[4096];
    for (ssize_t n; (n = read(ends[0], piece, sizeof piece)) > 0;) said.append(piece, size_t(n));
    close(ends[0]);
    int status;
    waitpid(child, &status, 0);
    if (status != 0 && said.find(word) != std::string::npos) return true;
    fprintf(stderr, "# status %d, said: %s\n", status, said.c_str());
    return false;
}

static uint64_t seed;
float uniform() {
    seed += 0x9e3779b97f4a7c15u;
    uint64_t x = seed;
    x ^= x >> 30, x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27, x *= 0x94d049bb133111ebu;
    return float((x ^ x >> 31) >> 40) * 0x1p-23f - 1;
}
std::vector<float> random_floats(size_t n, float size) {
    std::vector<float> x(n);
    for (float &v : x) v = size * uniform();
    return x;
}
uint16_t bf16_bits(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return uint16_t((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
float bf16_float(uint16_t bits) {
    const uint32_t u = uint32_t(bits) << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
float rounded_bf16(float x) {
    return bf16_float(bf16_bits(x));
}

void check_close(const std::vector<float> &y, const std::vector<double> &want,
                 const std::vector<double> &tolerance, const char *what) {
    check(y.size() == want.size(), "%s: %zu values, want %zu", what, y.size(), want.size());
    for (size_t i = 0; i < y.size(); i++)
        check(fabs(y[i] - want[i]) <= tolerance[i],
              "%s: value %zu of %zu is %.9g, want %.9g +- %.2g", what, i, y.size(), double(y[i]),
              want[i], tolerance[i]);
}

std::vector<float> read_real(const void *p, size_t n, bool bf16) {
    std::vector<float> y(n);
    for (size_t i = 0; i < n; i++)
        y[i] = bf16 ? bf16_float(static_cast<const uint16_t *>(p)[i])
                    : static_cast<const float *>(p)[i];
    return y;
}

// One process, one order.
static int run_once(const Test *t, emu::Order order, uint64_t number) {
    fflush(nullptr);
    const pid_t child = fork();
    if (child == 0) {
        emu::options.order = order, emu::options.seed = number;
        alarm(600);
        t->run();
        emu::synchronise();
        emu::device_check();
        fflush(nullptr);
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    return status;
}

#ifdef __SANITIZE_THREAD__
// A race ends its test: processes leave by _exit, which does not ask the sanitizer.
extern "C" const char *__tsan_default_options() {
    return "halt_on_error=1:exitcode=66";
}
#endif

// Orders 0 and 1 are forward and reverse, those from 2 on random.
static bool run_test(const Test *t, unsigned first, unsigned end) {
    static const char *const names[] = {"forward", "reverse", "random"};
    for (unsigned i = first; i < end; i++) {
        const emu::Order order = i == 0 ? emu::FORWARD : i == 1 ? emu::REVERSE : emu::RANDOM;
        const int status = run_once(t, order, i);
        if (status == 0) continue;
        const int skipped = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
        if (skipped == SKIPPED || skipped == SKIPPED_UNWRITTEN) {
            printf("ok - %s # SKIP %s\n", t->sentence,
                   skipped == SKIPPED ? "too many threads for ThreadSanitizer"
                                      : "it reads what nobody wrote");
            return true;
        }
        printf("not ok - %s (%s order, seed %u: status %d)\n", t->sentence, names[order], i,
               WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
        return false;
    }
    printf("ok - %s (%u order%s)\n", t->sentence, end - first, end - first > 1 ? "s" : "");
    return true;
}

int main(int argc, char **argv) {
    const char *orders = getenv("EMU_ORDERS");
#if defined(__SANITIZE_THREAD__) // what is ordered and what is not is the same in all orders
    const unsigned first = 2, end = 3;
#elif defined(__SANITIZE_ADDRESS__)
    const unsigned first = 0, end = 3;
#else
    const unsigned first = 0, end = 2 + (orders ? unsigned(atoi(orders)) : 3);
#endif
    (void)orders;
    bool all = true;
    for (const Test *t : tests())
        if (argc < 2 || strstr(t->sentence, argv[1]))
            all = (t->one || !emu::has_orders ? run_test(t, 2, 3) : run_test(t, first, end)) && all;
    return all ? 0 : 1;
}
