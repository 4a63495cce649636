// What the process's cgroups let it use of the processors: a container with 2 of 64 has all 64 in
// its affinity mask, and 64 threads that spin for each other would be stopped for most of each
// period.
#pragma once

/// Whole processors of the smallest quota from the process's cgroup up to the root, at least 1; 0:
/// no quota, or it cannot be read. root stands before /proc/self/cgroup, /proc/self/mountinfo and
/// the mount points in it: "" for the system's.
int sd_cpu_quota(const char *root);
