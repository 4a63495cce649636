// Steps of two builds in turns, some milliseconds each, so that what the machine does besides meets both alike.
//
//     in_turns A.so B.so MODEL.gguf threads kv depth rows want burst rounds
//
// Prints one line: A's and B's median step in ms, the median over rounds of A's median over B's, and its quartiles.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { SIDES = 2, ARGS = 11, FILL = 64, MAX_ROUNDS = 1000, MAX_BURST = 64 };
typedef struct {
    void (*open)(const char *, int, int, int);
    void (*step)(int, int, int);
    double median[MAX_ROUNDS]; // of each round, in seconds
} side;

static double now_s(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double at(double *v, int n, double part) { // sorts v
    qsort(v, (size_t)n, sizeof *v, by_value);
    return v[(int)(part * (n - 1))];
}

static void load(side *s, const char *path) {
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
    if (!lib) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    *(void **)&s->open = dlsym(lib, "open_side");
    *(void **)&s->step = dlsym(lib, "run_step");
    if (!s->open || !s->step) exit(1);
}

int main(int argc, char **argv) {
    static side sides[SIDES];
    static double ratio[MAX_ROUNDS];
    if (argc != ARGS) return 2;
    const int threads = atoi(argv[4]), kv = atoi(argv[5]), depth = atoi(argv[6]),
              rows = atoi(argv[7]), want = atoi(argv[8]), burst = atoi(argv[9]),
              rounds = atoi(argv[10]);
    if (burst < 1 || burst > MAX_BURST || rounds < 1 || rounds > MAX_ROUNDS) return 2;
    for (int i = 0; i < SIDES; i++) {
        load(&sides[i], argv[1 + i]);
        sides[i].open(argv[3], threads, depth + rows + FILL, kv);
        for (int pos = 0; pos < depth; pos += FILL) sides[i].step(pos, FILL, 0);
    }
    for (int round = 0; round < rounds; round++) {
        for (int j = 0; j < SIDES; j++) {
            side *s = &sides[(round + j) % SIDES];
            double t[MAX_BURST];
            s->step(depth, rows, want); // wakes its threads and caches
            for (int b = 0; b < burst; b++) {
                double begin = now_s();
                s->step(depth, rows, want);
                t[b] = now_s() - begin;
            }
            s->median[round] = at(t, burst, 0.5);
        }
        ratio[round] = sides[0].median[round] / sides[1].median[round];
    }
    double a = at(sides[0].median, rounds, 0.5), b = at(sides[1].median, rounds, 0.5);
    printf("%.3f %.3f %.3f %.3f %.3f\n", 1e3 * a, 1e3 * b, at(ratio, rounds, 0.5),
           at(ratio, rounds, 0.25), at(ratio, rounds, 0.75));
}
