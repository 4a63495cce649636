// Whether a sanitizer watches: programs are ten times as slow then, so that tests whose cases all take
// the same way through the code take fewer of them.
#pragma once

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SD_SANITIZED = 1 };
#else
enum { SD_SANITIZED = 0 };
#endif

// Whether it looks for races, which one thread cannot have.
#ifdef __SANITIZE_THREAD__
enum { SD_THREADS_WATCHED = 1 };
#else
enum { SD_THREADS_WATCHED = 0 };
#endif
