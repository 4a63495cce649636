// The one worker pool of a process: T threads (the caller is one of them) which spin briefly
// and then park. A parallel region costs well under a microsecond while the workers spin.
//
// Tasks are numbered; which worker runs a task is not defined, so a task's result must depend on
// its number alone. That is what makes results independent of the number of threads.
//
//     sd_pool_run(pool, tiles, matmul_tile, &job); // returns when all tasks are done
#pragma once

#include "base/status.h"

typedef struct sd_pool sd_pool;

/// ctx is the caller's; task is 0 <= task < tasks; worker is 0 <= worker < sd_pool_threads(), for
/// scratch memory.
typedef void (*sd_task)(void *ctx, int task, int worker);

/// threads <= 0: one per processor that this process may use, by its affinity and by its cgroups'
/// quota (base/cgroup.h). At most SD_MAX_THREADS.
enum { SD_MAX_THREADS = 256 };
sd_status sd_pool_open(sd_pool **out, int threads, sd_error *err);
void sd_pool_close(sd_pool *pool);        // NULL is fine
int sd_pool_threads(const sd_pool *pool); // 1 for NULL
int sd_pool_count(int threads);           // that sd_pool_open would give

/// Runs fn for every task and waits. Only one thread may call it at a time; no nesting. With pool
/// NULL, or one thread or one task, runs in place.
void sd_pool_run(sd_pool *pool, int tasks, sd_task fn, void *ctx);
