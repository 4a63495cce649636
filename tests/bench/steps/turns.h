// What the programs share that run two builds in turns.
#pragma once
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { SIDES = 2 };

static inline double seconds_of(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static inline int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/// A build's library, apart from the other's symbols. It ends the program where there is none.
static inline void *open_library(const char *path) {
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
    if (lib) return lib;
    fprintf(stderr, "%s\n", dlerror());
    exit(1);
}

/// *function <- the library's function of that name. It ends the program where there is none.
static inline void find_function(void **function, void *lib, const char *name) {
    *function = dlsym(lib, name);
    if (*function) return;
    fprintf(stderr, "%s\n", dlerror());
    exit(1);
}
