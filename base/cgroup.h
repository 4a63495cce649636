// What the process's cgroups let it use of the machine. A container with 2 of 64 processors has all 64 in
// its affinity mask, and 64 threads that spin for each other would be stopped for most of each
// period; one with 4 of 64 GiB sees all 64 as available, and is killed at the fourth.
//
// root stands before /proc/self/cgroup, /proc/self/mountinfo, /proc/meminfo and the mount points: ""
// for the system's.
#pragma once

#include <stddef.h>

/// Whole processors of the smallest quota from the process's cgroup up to the root, at least 1; 0:
/// no quota, or it cannot be read.
int sd_cpu_quota(const char *root);

/// Bytes that the process may still take: what /proc/meminfo calls available, or less where a cgroup
/// between the process's and the root has less left under its limit. Pages of files that nobody has
/// used for a while count as left. 0: it cannot be read.
size_t sd_memory_available(const char *root);
