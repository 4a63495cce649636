// Criterion's names for ThreadSanitizer builds. Criterion maps an arena at addresses that
// ThreadSanitizer keeps for itself and cannot start under it; this header runs the same tests, each
// in a process of its own, and prints TAP. A race fails the test in which it was seen.
//
// The first file that includes it in a binary gives main(); a test binary has one such file.
#pragma once

#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct shim_options {
    int unused;
    double timeout; // seconds; not kept here: sanitizers are slow
    void (*init)(void);
    void (*fini)(void);
    const char *description;
    bool disabled;
};

struct shim_test {
    const char *suite, *name;
    void (*run)(void);
    struct shim_options o;
    struct shim_test *next;
};

struct shim_suite {
    const char *name;
    struct shim_options o;
    struct shim_suite *next;
};

static struct shim_suite *shim_suites;
static struct shim_test *shim_first, **shim_last = &shim_first;
static int shim_failures;
enum { SHIM_SKIPPED = 77 };

static void shim_add(struct shim_test *t) {
    *shim_last = t;
    shim_last = &t->next;
}

#define Test(suite_name, test_name, ...)                                                           \
    static void suite_name##_##test_name(void);                                                    \
    __attribute__((constructor)) static void suite_name##_##test_name##_add(void) {                \
        static struct shim_test t = {                                                              \
            #suite_name, #test_name, suite_name##_##test_name, {.unused = 0, __VA_ARGS__}, NULL};  \
        shim_add(&t);                                                                              \
    }                                                                                              \
    static void suite_name##_##test_name(void)
// init and fini of a suite surround each of its tests.
#define TestSuite(suite_name, ...)                                                                 \
    __attribute__((constructor)) static void suite_name##_suite_add(void) {                        \
        static struct shim_suite s = {#suite_name, {.unused = 0, __VA_ARGS__}, NULL};              \
        s.next = shim_suites;                                                                      \
        shim_suites = &s;                                                                          \
    }                                                                                              \
    extern struct shim_suite suite_name##_takes_a_semicolon

__attribute__((format(printf, 5, 6), unused)) static void
shim_report(bool fatal, const char *what, const char *file, int line, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    printf("# %s:%d: %s:", file, line, what);
    vprintf(fmt, ap);
    printf("\n");
    va_end(ap);
    fflush(stdout);
    shim_failures++;
    if (fatal) _exit(1);
}

__attribute__((unused)) static void shim_skip(const char *why) {
    printf("# SKIP %s\n", why);
    fflush(stdout);
    _exit(SHIM_SKIPPED);
}

#define SHIM(fatal, ok, what, ...)                                                                 \
    do {                                                                                           \
        if (!(ok)) shim_report(fatal, what, __FILE__, __LINE__, " " __VA_ARGS__);                  \
    } while (0)

#define cr_assert(x, ...) SHIM(true, x, #x, __VA_ARGS__)
#define cr_assert_not(x, ...) SHIM(true, !(x), "not " #x, __VA_ARGS__)
#define cr_assert_null(x, ...) SHIM(true, (x) == NULL, #x " is NULL", __VA_ARGS__)
#define cr_assert_not_null(x, ...) SHIM(true, (x) != NULL, #x " is not NULL", __VA_ARGS__)
#define cr_assert_eq(a, b, ...) SHIM(true, (a) == (b), #a " == " #b, __VA_ARGS__)
#define cr_assert_neq(a, b, ...) SHIM(true, (a) != (b), #a " != " #b, __VA_ARGS__)
#define cr_assert_lt(a, b, ...) SHIM(true, (a) < (b), #a " < " #b, __VA_ARGS__)
#define cr_assert_leq(a, b, ...) SHIM(true, (a) <= (b), #a " <= " #b, __VA_ARGS__)
#define cr_assert_gt(a, b, ...) SHIM(true, (a) > (b), #a " > " #b, __VA_ARGS__)
#define cr_assert_geq(a, b, ...) SHIM(true, (a) >= (b), #a " >= " #b, __VA_ARGS__)
#define cr_assert_str_eq(a, b, ...) SHIM(true, strcmp(a, b) == 0, #a " is " #b, __VA_ARGS__)
#define cr_assert_str_neq(a, b, ...) SHIM(true, strcmp(a, b) != 0, #a " is not " #b, __VA_ARGS__)
#define cr_assert_float_eq(a, b, eps, ...)                                                         \
    SHIM(true, fabs((double)(a) - (double)(b)) <= (double)(eps), #a " near " #b, __VA_ARGS__)
#define cr_assert_arr_eq(a, b, n, ...) SHIM(true, memcmp(a, b, n) == 0, #a " is " #b, __VA_ARGS__)
#define cr_expect(x, ...) SHIM(false, x, #x, __VA_ARGS__)
#define cr_expect_eq(a, b, ...) SHIM(false, (a) == (b), #a " == " #b, __VA_ARGS__)
#define cr_expect_neq(a, b, ...) SHIM(false, (a) != (b), #a " != " #b, __VA_ARGS__)
#define cr_expect_lt(a, b, ...) SHIM(false, (a) < (b), #a " < " #b, __VA_ARGS__)
#define cr_expect_leq(a, b, ...) SHIM(false, (a) <= (b), #a " <= " #b, __VA_ARGS__)
#define cr_expect_gt(a, b, ...) SHIM(false, (a) > (b), #a " > " #b, __VA_ARGS__)
#define cr_expect_geq(a, b, ...) SHIM(false, (a) >= (b), #a " >= " #b, __VA_ARGS__)
#define cr_expect_null(x, ...) SHIM(false, (x) == NULL, #x " is NULL", __VA_ARGS__)
#define cr_expect_str_eq(a, b, ...) SHIM(false, strcmp(a, b) == 0, #a " is " #b, __VA_ARGS__)
#define cr_expect_str_neq(a, b, ...) SHIM(false, strcmp(a, b) != 0, #a " is not " #b, __VA_ARGS__)
#define cr_skip_test(...) shim_skip("" __VA_ARGS__)
#define cr_assert_fail(...) SHIM(true, false, "failed", __VA_ARGS__)

static int shim_run(const struct shim_test *t) {
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        const struct shim_suite *s = shim_suites;
        while (s && strcmp(s->name, t->suite) != 0) s = s->next;
        if (s && s->o.init) s->o.init();
        if (t->o.init) t->o.init();
        t->run();
        if (t->o.fini) t->o.fini();
        if (s && s->o.fini) s->o.fini();
        exit(shim_failures ? 1 : 0); // exit, not _exit: the sanitizer gives its verdict here
    }
    int status = 1;
    waitpid(child, &status, 0);
    bool skipped = WIFEXITED(status) && WEXITSTATUS(status) == SHIM_SKIPPED;
    bool ok = skipped || (WIFEXITED(status) && WEXITSTATUS(status) == 0);
    printf("%s - %s: %s%s\n", ok ? "ok" : "not ok", t->suite, t->name, skipped ? " # SKIP" : "");
    return !ok;
}

// With arguments that do not begin with '-', only the tests whose suite or name is among them.
int main(int argc, char **argv) {
    int failed = 0;
    for (const struct shim_test *t = shim_first; t; t = t->next) {
        bool chosen = true;
        for (int i = 1; i < argc; i++) {
            if (argv[i][0] == '-') continue;
            chosen = strcmp(argv[i], t->suite) == 0 || strcmp(argv[i], t->name) == 0;
            if (chosen) break;
        }
        if (chosen && !t->o.disabled) failed += shim_run(t);
    }
    return failed != 0;
}
