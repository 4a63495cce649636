// The emulator as a test sees it: its options, the device's memory, streams and events.
//
//     emu::options.order = emu::RANDOM, emu::options.seed = 7;
//     float *x = emu::device_array<float>(n);
//     emu::write(x, host, n);                    // waits for nothing: memory is the host's too
//     sd_cuda_add(y, x, n, NULL);                // queued
//     emu::synchronise();                        // runs what is queued
//
// A stream is a queue, and nothing of it runs before somebody waits for it. Then the heads of all queues
// that no event holds back take turns by the seed. A copy from the host reads its source when it runs.
// Device memory is given back at once, whoever still means to use it, so a queue that comes too late faults.
//
// There may be several devices. Memory, streams and events are of the one that was chosen when they were made, and a launch on another one's
// stream, or with a pointer to another one's memory, is an error.
//
// An error ends the process with status ERROR_STATUS and one line on stderr that begins with "emu: ".
#pragma once

#include "emu.h"

#include <functional>
#include <vector>

namespace emu {

enum { ERROR_STATUS = 99 };
enum Order { FORWARD, REVERSE, RANDOM }; // which thread, and which block, goes on

struct Options {
    uint64_t seed;
    Order order;
    size_t shared_limit; // bytes of a block: 99 KB, the least of the architectures that are built
};
extern Options options;
/// Whether threads run in an order that a test can choose: not on a device (tests/cuda/gpu).
extern const bool has_orders;

/// Order and seed from EMU_ORDER (forward, reverse, random) and EMU_SEED, where they are set.
void options_from_environment();

struct Stats {
    uint64_t launches, blocks, threads, switches, barriers, collectives;
};
extern Stats stats;

[[noreturn]] void fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

void choose(int device); // from now on; 0 at first
int chosen();

// ---- memory

void *device_alloc(size_t bytes); // holds NaN
void device_free(void *p);        // NULL is fine
bool is_device(const void *p);
bool is_here(const void *p);    // of the chosen device
int device_of(const void *p);   // of a stream of stream_open or of device memory; -1: neither
size_t device_bytes();          // allocated now
void *host_alloc(size_t bytes); // of the host, but a copy's: holds NaN
void host_free(void *p);        // NULL is fine
bool is_host(const void *p);    // of host_alloc
size_t host_bytes();            // allocated now
void device_check();            // what lies between each allocation and its page's end is as it was

template <class T> T *device_array(size_t n) {
    return static_cast<T *>(device_alloc(n * sizeof(T)));
}
template <class T> T *device_copy(const std::vector<T> &v) {
    T *p = device_array<T>(v.size());
    if (!v.empty()) memcpy(static_cast<void *>(p), v.data(), v.size() * sizeof(T));
    return p;
}

// ---- streams

void *stream_open();
void stream_close(void *stream); // runs what is queued
void stream_synchronise(void *stream);
void synchronise(); // all of them
void copy_async(void *dst, const void *src, size_t bytes, void *stream);
/// What a library queues on a stream: run runs there in its turn.
void call_async(std::function<void()> run, void *stream);
void set_async(void *dst, int value, size_t bytes, void *stream);
void *event_open();
void event_close(void *event);
void event_record(void *event, void *stream);
void event_synchronise(void *event);         // its last record, if there is one
void stream_wait(void *stream, void *event); // for the event's last record

void capture_begin(void *stream); // from now on what is queued is kept
void *capture_end(void *stream);  // a graph of it
void graph_launch(void *graph, void *stream);
void graph_close(void *graph); // what was started of it runs all the same

/// Where it is set, launches run what it gives for the kernel's name (tests/cuda/ptx) instead of the source. Shared memory
/// then lies below 2 GB.
extern Translation (*translation_of)(const char *kernel);

/// Runs a grid now, outside all queues.
void run_grid(const Launch &l, const Body &body);

} // namespace emu
