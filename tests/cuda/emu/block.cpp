// A grid runs block after block; a block's threads are fibers that take turns. A thread is in one of four
// states, and those that are ready stand in a ring, each at most once. Which of them goes on is the order
// that a test asks for: the oldest, the newest, or one by the seed.
#include "internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

namespace emu {

Options options = {1, RANDOM, 99 << 10};
const bool has_orders = true;
Stats stats;
Thread *cur;

static std::vector<Lane> lanes;
static unsigned ring[MAX_THREADS], ring_head, ring_count;
static unsigned alive, waiting; // threads that have not ended; at the barrier
static Site barrier_site;
static const Body *body;
static const char *name;
static uint64_t random_state;
static char barrier_token, begin_token, end_token; // addresses alone matter

void fail(const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    fprintf(stderr, "emu: ");
    vfprintf(stderr, fmt, args);
    va_end(args);
    if (cur)
        fprintf(stderr, " (%s, block %u,%u,%u, thread %u,%u,%u)", name, cur->bid.x, cur->bid.y,
                cur->bid.z, cur->tid.x, cur->tid.y, cur->tid.z);
    fprintf(stderr, "\n");
    fflush(nullptr);
    _exit(ERROR_STATUS);
}

void options_from_environment() {
    const char *order = getenv("EMU_ORDER"), *seed = getenv("EMU_SEED");
    if (seed) options.seed = strtoull(seed, nullptr, 10);
    if (!order) return;
    options.order = order[0] == 'f'                      ? FORWARD
                    : order[0] == 'r' && order[1] == 'e' ? REVERSE
                                                         : RANDOM;
}

uint64_t random_word() {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

Lane *self() {
    return static_cast<Lane *>(cur);
}
unsigned lane_number(const Lane *l) {
    return static_cast<unsigned>(l - lanes.data());
}
Lane *lane_at(unsigned number) {
    return &lanes[number];
}
const char *kernel_name() {
    return cur ? name : nullptr;
}

void lane_wait(Lane *l, State why, Site at) {
    l->state = why;
    l->site = at;
    fiber_leave(&l->fiber, false);
}

void lane_wake(Lane *l) {
    l->state = READY;
    ring[(ring_head + ring_count++) % MAX_THREADS] = lane_number(l);
}

static void open_barrier() {
    waiting = 0;
    stats.barriers++;
    for (Lane &l : lanes)
        if (l.state == AT_BARRIER) lane_wake(&l);
}

// Threads that have ended count as having arrived, as they do on devices since sm_70.
void barrier(Site at) {
    Lane *l = self();
    const Site &other = barrier_site;
    if (waiting && (other.line != at.line || other.id != at.id || strcmp(other.file, at.file) != 0))
        fail("divergent barrier: a thread came to %s:%d while others wait at %s:%d", at.file,
             at.line, other.file, other.line);
    barrier_site = at;
    release(&barrier_token);
    l->state = AT_BARRIER;
    if (++waiting == alive) open_barrier(); // wakes this one too
    l->site = at;
    fiber_leave(&l->fiber, false);
    acquire(&barrier_token);
}

static void thread_main() {
    acquire(&begin_token);
    body->run();
    Lane *l = self();
    copies_end(l);
    release(&end_token);
    l->state = DONE;
    alive--;
    if (waiting && waiting == alive) open_barrier();
    fiber_leave(&l->fiber, true);
}

static void begin_block(const Launch &l, size_t number) {
    const size_t threads = lanes.size();
    const dim3 g = l.grid, b = l.block;
    char *stacks = fiber_stacks(threads);
    shared_begin_block(l.shared);
    warps_begin(static_cast<unsigned>(threads));
    alive = static_cast<unsigned>(threads), waiting = 0;
    ring_head = ring_count = 0;
    for (size_t t = 0; t < threads; t++) {
        Lane &lane = lanes[t];
        lane.tid = {unsigned(t % b.x), unsigned(t / b.x % b.y), unsigned(t / b.x / b.y)};
        lane.bid = {unsigned(number % g.x), unsigned(number / g.x % g.y),
                    unsigned(number / g.x / g.y)};
        lane.bdim = b, lane.gdim = g;
        announce_written(static_cast<Thread *>(&lane), sizeof(Thread));
        lane.open.clear();
        lane.groups.clear();
        fiber_init(&lane.fiber, stacks + t * STACK_BYTES, thread_main);
        lane_wake(&lane);
    }
}

static void run_block() {
    while (ring_count) {
        unsigned pick = options.order == FORWARD   ? 0
                        : options.order == REVERSE ? ring_count - 1
                                                   : unsigned(random_word() % ring_count);
        unsigned *first = &ring[ring_head], *picked = &ring[(ring_head + pick) % MAX_THREADS];
        const unsigned number = *picked;
        *picked = *first;
        ring_head = (ring_head + 1) % MAX_THREADS, ring_count--;
        stats.switches++;
        cur = &lanes[number];
        fiber_enter(&lanes[number].fiber);
    }
    for (Lane &l : lanes) {
        if (l.state == DONE) continue;
        cur = &l;
        fail("deadlock: %u of %zu threads wait for ever, the first at a %s at %s:%d", alive,
             lanes.size(), l.state == AT_BARRIER ? "barrier" : "warp's operation", l.site.file,
             l.site.line);
    }
}

void run_grid(const Launch &l, const Body &b) {
    const size_t threads = size_t(l.block.x) * l.block.y * l.block.z;
    const size_t blocks = size_t(l.grid.x) * l.grid.y * l.grid.z;
    name = l.name, body = &b;
    random_state = (options.seed + 1) * 0x9E3779B97F4A7C15ull;
    lanes.clear();
    lanes.resize(threads);
    stats.launches++, stats.blocks += blocks, stats.threads += blocks * threads;
    std::vector<size_t> order(blocks);
    for (size_t i = 0; i < blocks; i++) order[i] = options.order == REVERSE ? blocks - 1 - i : i;
    for (size_t i = blocks; options.order == RANDOM && i > 1; i--)
        std::swap(order[i - 1], order[random_word() % i]);
    release(&begin_token);
    shared_begin_grid();
    std::vector<Fiber> ended; // their handles live on, so that later blocks' races are still seen
    for (size_t number : order) {
        begin_block(l, number);
        run_block();
        for (Lane &lane : lanes) ended.push_back(lane.fiber);
    }
    cur = nullptr;
    acquire(&end_token);
    for (Fiber &f : ended) fiber_free(&f);
    shared_end_grid();
}

} // namespace emu
