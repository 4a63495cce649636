// The limits of cgroups, read from trees that look like /proc and /sys.
#include "base/cgroup.h"
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/memory.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static char root[64];

static void make_root(void) {
    snprintf(root, sizeof root, "/tmp/specdec_quota_%d", (int)getpid());
    sd_remove_tree(root, NULL);
}
static void drop_root(void) {
    sd_remove_tree(root, NULL);
}
TestSuite(cgroup, .init = make_root, .fini = drop_root);

static void put(const char *path, const char *text) {
    char *whole = sd_sprintf("%s%s", root, path), *dir = sd_strdup(whole);
    *strrchr(dir, '/') = '\0';
    cr_assert_eq(sd_mkdirs(dir, NULL), SD_OK);
    cr_assert_eq(sd_file_write(whole, text, strlen(text), NULL), SD_OK);
    free(whole), free(dir);
}

Test(cgroup, without_cgroups_there_is_none) {
    cr_assert_eq(sd_cpu_quota(root), 0);
    put("/proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\nnonsense\n\n");
    put("/proc/self/cgroup", "0::/\nnonsense\n");
    cr_assert_eq(sd_cpu_quota(root), 0);
}

Test(cgroup, of_version_2_is_the_smallest_up_to_the_root) {
    put("/proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
                                "41 31 0:38 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n");
    put("/proc/self/cgroup", "0::/pods/one\n");
    cr_assert_eq(sd_cpu_quota(root), 0);
    put("/sys/fs/cgroup/pods/one/cpu.max", "max 100000\n");
    cr_assert_eq(sd_cpu_quota(root), 0);
    put("/sys/fs/cgroup/pods/cpu.max", "800000 100000\n");
    cr_assert_eq(sd_cpu_quota(root), 8);
    put("/sys/fs/cgroup/pods/one/cpu.max", "250000 100000\n");
    cr_assert_eq(sd_cpu_quota(root), 2, "whole ones: a thread that is stopped stops all");
    put("/sys/fs/cgroup/pods/one/cpu.max", "50000 100000\n");
    cr_assert_eq(sd_cpu_quota(root), 1);
    put("/sys/fs/cgroup/pods/one/cpu.max", "1600000 100000\n");
    cr_assert_eq(sd_cpu_quota(root), 8, "a parent binds its children");
}

Test(cgroup, inside_a_namespace_the_mount_is_the_process_s_own) {
    put("/proc/self/mountinfo", "41 31 0:38 / /sys/fs/cgroup ro - cgroup2 cgroup rw\n");
    put("/proc/self/cgroup", "0::/\n");
    put("/sys/fs/cgroup/cpu.max", "200000 100000\n");
    cr_assert_eq(sd_cpu_quota(root), 2);
    put("/proc/self/cgroup", "0::/../outside\n"); // of another namespace: the mount is all we see
    cr_assert_eq(sd_cpu_quota(root), 2);
}

Test(cgroup, of_version_1_is_that_of_the_controller_cpu) {
    put("/proc/self/mountinfo",
        "33 31 0:30 /docker/abc /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
        "34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n");
    put("/proc/self/cgroup", "9:cpuset:/x\n4:cpu,cpuacct:/docker/abc\n");
    put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
    put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    cr_assert_eq(sd_cpu_quota(root), 0);
    put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "300000\n");
    cr_assert_eq(sd_cpu_quota(root), 3);
    put("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "0\n");
    cr_assert_eq(sd_cpu_quota(root), 0);
}

Test(cgroup, nonsense_is_no_quota) {
    put("/proc/self/mountinfo", "41 31 0:38 / /c rw - cgroup2 cgroup2 rw\n");
    put("/proc/self/cgroup", "0::/\n");
    static const char *const text[] = {"",           "\n", "many\n", "0 100000\n", "-5 100000\n",
                                       "100000 0\n", "7\n"};
    for (size_t i = 0; i < sizeof text / sizeof text[0]; i++) {
        put("/c/cpu.max", text[i]);
        cr_assert_eq(sd_cpu_quota(root), 0, "%s", text[i]);
    }
    put("/c/cpu.max", "99999999999999999999999 1\n");
    cr_assert_gt(sd_cpu_quota(root), 1000);
}

Test(cgroup, memory_is_what_the_machine_has_or_the_smallest_limit_leaves) {
    enum { MIB = 1 << 20 };
    cr_assert_eq(sd_memory_available(root), 0);
    put("/proc/meminfo", "MemTotal:       8192000 kB\nMemFree: 1 kB\nMemAvailable:    1024 kB\n");
    cr_assert_eq(sd_memory_available(root), MIB);
    put("/proc/self/mountinfo", "41 31 0:38 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n");
    put("/proc/self/cgroup", "0::/pods/one\n");
    put("/sys/fs/cgroup/pods/one/memory.max", "max\n");
    put("/sys/fs/cgroup/pods/one/memory.current", "100\n");
    cr_assert_eq(sd_memory_available(root), MIB);
    put("/sys/fs/cgroup/pods/memory.max", "1000000\n");
    put("/sys/fs/cgroup/pods/memory.current", "900000\n");
    cr_assert_eq(sd_memory_available(root), 100000, "a parent binds its children");
    put("/sys/fs/cgroup/pods/memory.stat", "anon 5\ninactive_file 50000\nactive_file 7\n");
    cr_assert_eq(sd_memory_available(root), 150000, "pages of files go when others need them");
    put("/sys/fs/cgroup/pods/one/memory.max", "4000\n");
    put("/sys/fs/cgroup/pods/one/memory.current", "5000\n");
    cr_assert_eq(sd_memory_available(root), 1, "over its limit: nothing, which is not unknown");
}

Test(cgroup, memory_of_version_1_counts_without_what_is_no_limit) {
    put("/proc/meminfo", "MemAvailable: 1000 kB\n");
    put("/proc/self/mountinfo",
        "32 31 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
    put("/proc/self/cgroup", "4:memory:/a\n");
    put("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("/sys/fs/cgroup/memory/memory.usage_in_bytes", "77\n");
    cr_assert_eq(sd_memory_available(root), 1024000);
    put("/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "5000\n");
    put("/sys/fs/cgroup/memory/a/memory.usage_in_bytes", "4000\n");
    put("/sys/fs/cgroup/memory/a/memory.stat", "inactive_file 900\ntotal_inactive_file 200\n");
    cr_assert_eq(sd_memory_available(root), 1200);
}
