// The matrix product of two builds in turns, on one thread, each time on weights that no cache
// holds.
//
//     matmul_in_turns A.so B.so ISA TYPE M K CALLS
//
// Prints a line for each number of rows: rows, A's and B's microseconds a row (25th percentile over
// calls, of the thread's processor time), B's speed over A's at the 5th, 25th and 50th percentile.
// Nothing where the processor has no such instructions.
#include "turns.h"

enum { ARGS = 8, MAX_CALLS = 4096, MANY = 48 };
static const int rows[] = {1, 4, 8, 16, 48, 192};
typedef struct {
    int (*open)(const char *, const char *, int, int);
    void (*set_rows)(int);
    void (*run)(int, int);
    double t[MAX_CALLS];
} side;

static void load(side *s, const char *path) {
    void *lib = open_library(path);
    find_function((void **)&s->open, lib, "open_matmul");
    find_function((void **)&s->set_rows, lib, "set_rows");
    find_function((void **)&s->run, lib, "run_matmul");
}

int main(int argc, char **argv) {
    static side sides[SIDES];
    if (argc != ARGS) return 2;
    const int m = atoi(argv[5]), k = atoi(argv[6]), calls = atoi(argv[7]);
    if (m < 1 || k < 1 || calls < 4 || calls > MAX_CALLS) return 2;
    for (int i = 0; i < SIDES; i++) {
        load(&sides[i], argv[1 + i]);
        if (!sides[i].open(argv[3], argv[4], m, k)) return 0;
    }
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        int n = rows[r], count = n < MANY ? calls : calls / 4;
        for (int i = 0; i < SIDES; i++) sides[i].set_rows(n);
        for (int c = 0; c < count; c++) {
            for (int j = 0; j < SIDES; j++) {
                side *s = &sides[(c + j) % SIDES];
                double begin = seconds_of(CLOCK_THREAD_CPUTIME_ID);
                s->run(c, n);
                s->t[c] = seconds_of(CLOCK_THREAD_CPUTIME_ID) - begin;
            }
        }
        for (int i = 0; i < SIDES; i++) qsort(sides[i].t, (size_t)count, sizeof(double), by_value);
        const double *a = sides[0].t, *b = sides[1].t;
        const int p5 = count / 20, p25 = count / 4, p50 = count / 2;
        printf("%d %.2f %.2f %.3f %.3f %.3f\n", n, 1e6 * a[p25] / n, 1e6 * b[p25] / n,
               a[p5] / b[p5], a[p25] / b[p25], a[p50] / b[p50]);
        fflush(stdout);
    }
    return 0;
}
