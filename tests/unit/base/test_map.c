// Mapped files that are cut, written or renamed over while they are read: never a signal.
#include "base/files/hash.h"
#include "base/files/map.h"
#include "base/files/replace.h"
#include "base/memory.h"

#include <criterion/criterion.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SIZE = 100 * 4096 + 123 };
static char path[64];
static sd_map m;

static void fill(const char *p) {
    char *text = malloc(SIZE);
    for (int i = 0; i < SIZE; i++) text[i] = (char)(i * 7 + 1);
    cr_assert_eq(sd_file_write(p, text, SIZE, NULL), SD_OK);
    free(text);
}
static void open_map(void) {
    snprintf(path, sizeof path, "/tmp/specdec_map_%d", (int)getpid());
    fill(path);
    usleep(20000); // a later write gets a later time
    cr_assert_eq(sd_map_open(&m, path, NULL), SD_OK);
}
static void close_map(void) {
    sd_map_close(&m);
    unlink(path);
}
TestSuite(map, .init = open_map, .fini = close_map);

static long sum_of(const sd_map *map) {
    long sum = 0;
    for (size_t i = 0; i < map->size; i++) sum += map->data[i] != 0;
    return sum;
}

Test(map, what_was_cut_reads_as_zeros_and_the_map_says_so) {
    sd_error err = {0};
    cr_assert_eq(sd_map_check(&m, path, &err), SD_OK);
    long all = sum_of(&m);
    cr_assert_eq(truncate(path, 10 * 4096), 0);
    sd_map_forget(&m);
    long left = sum_of(&m);
    cr_assert(left > 0 && left < all / 5, "%ld of %ld", left, all);
    cr_assert_eq(sd_map_look(&m), SD_MAP_LOST);
    cr_assert_eq(sd_map_check(&m, path, &err), SD_EIO);
    cr_assert(strstr(err.message, path));
}

static void *read_all(void *arg) {
    (void)arg;
    return (void *)(intptr_t)sum_of(&m);
}

Test(map, threads_that_fault_at_once_all_go_on) {
    pthread_t t[8];
    cr_assert_eq(truncate(path, 0), 0);
    for (int i = 0; i < 8; i++) cr_assert_eq(pthread_create(&t[i], NULL, read_all, NULL), 0);
    for (int i = 0; i < 8; i++) pthread_join(t[i], NULL);
    cr_assert_eq(sd_map_look(&m), SD_MAP_LOST);
}

Test(map, one_lost_map_leaves_the_others_alone) {
    sd_map other;
    char second[80];
    snprintf(second, sizeof second, "%s.b", path);
    fill(second);
    cr_assert_eq(sd_map_open(&other, second, NULL), SD_OK);
    cr_assert_eq(truncate(path, 0), 0);
    cr_assert_lt(sum_of(&m), SIZE / 2);
    cr_assert(sum_of(&other) > SIZE / 2);
    cr_assert_eq(sd_map_look(&m), SD_MAP_LOST);
    cr_assert_eq(sd_map_look(&other), SD_MAP_SAME);
    sd_map_close(&other);
    // The place of a closed map is used again, and begins whole.
    sd_map_close(&m);
    cr_assert_eq(sd_map_open(&m, second, NULL), SD_OK);
    cr_assert_eq(sd_map_look(&m), SD_MAP_SAME);
    unlink(second);
}

Test(map, a_write_in_place_is_seen_even_when_its_time_is_put_back) {
    struct stat before;
    cr_assert_eq(stat(path, &before), 0);
    int fd = open(path, O_WRONLY);
    cr_assert(fd >= 0 && pwrite(fd, "x", 1, 5000) == 1);
    struct timespec at[2] = {before.st_atim, before.st_mtim};
    cr_assert_eq(futimens(fd, at), 0);
    close(fd);
    cr_assert_eq(sd_map_look(&m), SD_MAP_CHANGED);
    cr_assert_eq(sd_map_check(&m, path, NULL), SD_EIO);
}

Test(map, a_rename_over_the_file_leaves_the_open_one_whole) {
    char second[80];
    snprintf(second, sizeof second, "%s.b", path);
    fill(second);
    cr_assert_eq(rename(second, path), 0);
    cr_assert_eq(sd_map_look(&m), SD_MAP_RELINKED);
    cr_assert_eq(sd_map_check(&m, path, NULL), SD_OK);
}

Test(map, the_hash_of_a_cut_file_is_an_error) {
    sd_sha256 a, b;
    sd_error err = {0};
    cr_assert_eq(sd_sha256_of_map(&a, &m, path, &err), SD_OK);
    cr_assert_eq(sd_sha256_of_file(&b, path, &err), SD_OK);
    cr_assert(sd_sha256_equal(&a, &b));
    cr_assert_eq(truncate(path, SIZE - 1), 0);
    cr_assert_eq(sd_sha256_of_map(&a, &m, path, &err), SD_EIO);
    cr_assert(strstr(err.message, path));
}

Test(map, a_hash_ends_when_it_is_told_to) {
    atomic_bool stop = true;
    sd_hasher *h;
    sd_error err = {0};
    cr_assert_eq(sd_hasher_open(&h, &err), SD_OK);
    cr_assert_eq(sd_hasher_add_map(h, &m, path, &stop, &err), SD_EINTERRUPTED);
    sd_hasher_close(h);
}

Test(map, a_pipe_is_refused_at_once) {
    char pipe[80];
    sd_map p;
    snprintf(pipe, sizeof pipe, "%s.fifo", path);
    cr_assert_eq(mkfifo(pipe, 0600), 0);
    cr_assert_eq(sd_map_open(&p, pipe, NULL), SD_EFORMAT);
    unlink(pipe);
}

Test(map, a_loaded_file_is_what_it_was) {
    void *data;
    size_t size;
    cr_assert_eq(sd_file_load(&data, &size, path, NULL), SD_OK);
    cr_assert_eq(size, SIZE);
    cr_assert_eq(memcmp(data, m.data, SIZE), 0);
    cr_assert_eq(truncate(path, 0), 0);
    cr_assert_eq(((unsigned char *)data)[SIZE - 1], (unsigned char)((SIZE - 1) * 7 + 1));
    free(data);
    cr_assert_eq(sd_file_load(&data, &size, path, NULL), SD_OK); // an empty one
    cr_assert_eq(size, 0);
    free(data);
    cr_assert_eq(sd_file_load(&data, &size, "/tmp", NULL), SD_EFORMAT);
}
