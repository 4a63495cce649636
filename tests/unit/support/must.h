// Code that tests share ends the process where something does not hold: it is also built without Criterion.
#pragma once

#include <stdio.h>
#include <stdlib.h>

/// Ends the process with a sentence (printf's) where cond is false.
#define MUST(cond, ...)                                                                            \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);                                        \
            fprintf(stderr, __VA_ARGS__);                                                          \
            fputc('\n', stderr);                                                                   \
            abort();                                                                               \
        }                                                                                          \
    } while (0)
