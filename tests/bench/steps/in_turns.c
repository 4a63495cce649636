// Two builds in turns, some milliseconds each, so that what the machine does besides meets both.
//
//     in_turns A.so B.so MODEL.gguf threads kv burst rounds step DEPTH ROWS WANT
//     in_turns A.so B.so MODEL.gguf threads kv burst rounds answers STREAMS TOKENS SPECULATION(0|1)
//     in_turns A.so B.so MODEL.gguf threads kv burst rounds training ROWS TOKENS 0
//
// Prints one line: A's and B's median step in ms, the median over rounds of A's median over B's, and its quartiles.
#include "turns.h"

#include <stdbool.h>
#include <string.h>

enum { ARGS = 12, FILL = 64, MAX_ROUNDS = 1000, MAX_BURST = 64 };
typedef struct {
    void (*open)(const char *, int, int, int);
    void (*step)(int, int, int);
    void (*run)(int, int, int); // what is timed
    double median[MAX_ROUNDS];  // of each round, in seconds
} side;

static double at(double *v, int n, double part) { // sorts v
    qsort(v, (size_t)n, sizeof *v, by_value);
    return v[(int)(part * (n - 1))];
}

static void load(side *s, const char *path, const char *kind) {
    char name[32];
    void *lib = open_library(path);
    snprintf(name, sizeof name, "run_%s", kind);
    find_function((void **)&s->open, lib, "open_side");
    find_function((void **)&s->step, lib, "run_step");
    find_function((void **)&s->run, lib, name);
}

int main(int argc, char **argv) {
    static side sides[SIDES];
    static double ratio[MAX_ROUNDS];
    if (argc != ARGS) return 2;
    const int threads = atoi(argv[4]), kv = atoi(argv[5]), burst = atoi(argv[6]),
              rounds = atoi(argv[7]);
    const int a1 = atoi(argv[9]), a2 = atoi(argv[10]), a3 = atoi(argv[11]);
    const bool steps = strcmp(argv[8], "step") == 0;
    const int depth = steps ? a1 : 0, last = steps ? a1 + a2 : 0;
    if (burst < 1 || burst > MAX_BURST || rounds < 1 || rounds > MAX_ROUNDS) return 2;
    for (int i = 0; i < SIDES; i++) {
        load(&sides[i], argv[1 + i], argv[8]);
        sides[i].open(argv[3], threads, last + FILL, kv);
        for (int pos = 0; pos < depth; pos += FILL) sides[i].step(pos, FILL, 0);
    }
    for (int round = 0; round < rounds; round++) {
        for (int j = 0; j < SIDES; j++) {
            side *s = &sides[(round + j) % SIDES];
            double t[MAX_BURST];
            if (steps || round == 0) s->run(a1, a2, a3); // wakes its threads and caches
            for (int b = 0; b < burst; b++) {
                double begin = seconds_of(CLOCK_MONOTONIC);
                s->run(a1, a2, a3);
                t[b] = seconds_of(CLOCK_MONOTONIC) - begin;
            }
            s->median[round] = at(t, burst, 0.5);
        }
        ratio[round] = sides[0].median[round] / sides[1].median[round];
    }
    double a = at(sides[0].median, rounds, 0.5), b = at(sides[1].median, rounds, 0.5);
    printf("%.3f %.3f %.3f %.3f %.3f\n", 1e3 * a, 1e3 * b, at(ratio, rounds, 0.5),
           at(ratio, rounds, 0.25), at(ratio, rounds, 0.75));
}
