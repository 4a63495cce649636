#include "tests/cuda/nccl_emu.h"

#include "tests/cuda/emu/host.h"

#include <stdint.h>
#include <string.h>

namespace {

struct Comm {
    struct Clique *clique; // NULL: it is gone
    int rank, device;
    void *arrived, *done; // events of the calls, one after the other
};
struct Clique {
    std::vector<Comm *> rank;
};
struct Call {
    Comm *comm;
    const void *send;
    void *receive;
    size_t count;
    int type;
    void *stream;
};

int open_comms, depth;
std::vector<Call> &waiting = *new std::vector<Call>;

size_t bytes_of(int type) {
    static const size_t bytes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2, 1, 1}; // by ncclDataType_t
    return type >= 0 && size_t(type) < sizeof bytes / sizeof *bytes ? bytes[type] : 0;
}

int init_all(void **comm, int n, const int *device) {
    if (n < 1) return SD_NCCL_INVALID_ARGUMENT;
    for (int i = 0; device && i < n; i++)
        for (int k = 0; k < i; k++)
            if (device[i] == device[k]) return SD_NCCL_INVALID_USAGE;
    const int before = emu::chosen();
    auto *clique = new Clique;
    for (int r = 0; r < n; r++) {
        const int on = device ? device[r] : r;
        emu::choose(on);
        clique->rank.push_back(new Comm{clique, r, on, emu::event_open(), emu::event_open()});
        comm[r] = clique->rank.back();
    }
    emu::choose(before);
    open_comms += n;
    return SD_NCCL_OK;
}

// Kept, so that a later use is seen.
Comm *as_comm(void *p) {
    Comm *c = static_cast<Comm *>(p);
    if (!c || !c->clique) emu::fail("NCCL is given a communicator that is gone");
    return c;
}
int destroy(void *comm) {
    as_comm(comm)->clique = nullptr;
    open_comms--;
    return SD_NCCL_OK;
}

void must_reach(const Comm *c, const void *p, size_t bytes, const char *what) {
    const char *last = static_cast<const char *>(p) + bytes - 1;
    if (emu::device_of(p) != c->device || emu::device_of(last) != c->device)
        emu::fail("NCCL: what rank %d %s is not the memory of device %d", c->rank, what, c->device);
}

int all_gather(const void *send, void *receive, size_t count, int type, void *comm, void *stream) {
    Comm *c = as_comm(comm);
    if (!bytes_of(type) || !count) return SD_NCCL_INVALID_ARGUMENT;
    if (!depth && c->clique->rank.size() > 1)
        emu::fail("NCCL: one thread calls for rank %d of %zu outside a group, and waits for itself",
                  c->rank, c->clique->rank.size());
    const size_t bytes = count * bytes_of(type);
    must_reach(c, send, bytes, "sends");
    must_reach(c, receive, bytes * c->clique->rank.size(), "receives");
    if (emu::device_of(stream) != c->device)
        emu::fail("NCCL: the stream of rank %d is not of device %d", c->rank, c->device);
    waiting.push_back({c, send, receive, count, type, stream});
    return SD_NCCL_OK;
}

// The same call of all ranks. What a rank receives is noise until it has come.
void run(const std::vector<Call> &calls) {
    for (const Call &c : calls) emu::event_record(c.comm->arrived, c.stream);
    for (const Call &c : calls) {
        const size_t bytes = c.count * bytes_of(c.type);
        for (const Call &other : calls) emu::stream_wait(c.stream, other.comm->arrived);
        emu::set_async(c.receive, 0xff, bytes * calls.size(), c.stream);
        for (const Call &other : calls)
            emu::copy_async(static_cast<char *>(c.receive) + size_t(other.comm->rank) * bytes,
                            other.send, bytes, c.stream);
        emu::event_record(c.comm->done, c.stream);
    }
    for (const Call &c : calls)
        for (const Call &other : calls) emu::stream_wait(c.stream, other.comm->done);
}

// The calls of a clique, each rank's in the order in which it made them.
void run_clique(const Clique *clique, const std::vector<std::vector<Call>> &of_rank) {
    for (const auto &calls : of_rank)
        if (calls.size() != of_rank[0].size())
            emu::fail("NCCL: ranks 0 and %zu of a group make %zu and %zu calls",
                      size_t(&calls - &of_rank[0]), of_rank[0].size(), calls.size());
    for (size_t i = 0; i < of_rank[0].size(); i++) {
        std::vector<Call> same;
        for (size_t r = 0; r < clique->rank.size(); r++) {
            const Call &c = of_rank[r][i], &first = of_rank[0][i];
            if (c.count != first.count || c.type != first.type)
                emu::fail("NCCL: ranks 0 and %zu gather %zu of type %d and %zu of type %d", r,
                          first.count, first.type, c.count, c.type);
            same.push_back(c);
        }
        run(same);
    }
}

int group_start() {
    depth++;
    return SD_NCCL_OK;
}
int group_end() {
    if (!depth) return SD_NCCL_INVALID_USAGE;
    if (--depth) return SD_NCCL_OK;
    std::vector<Call> calls;
    calls.swap(waiting);
    while (!calls.empty()) {
        const Clique *clique = calls[0].comm->clique;
        std::vector<std::vector<Call>> of_rank(clique->rank.size());
        std::vector<Call> others;
        for (const Call &c : calls)
            (c.comm->clique == clique ? of_rank[size_t(c.comm->rank)] : others).push_back(c);
        run_clique(clique, of_rank);
        calls.swap(others);
    }
    return SD_NCCL_OK;
}

sd_nccl_functions make_functions() {
    sd_nccl_functions f;
#define SET(field, name, arguments) f.field = field;
    SD_NCCL_LIST(SET)
#undef SET
    return f;
}

} // namespace

const sd_nccl_functions *emulated_nccl() {
    static const sd_nccl_functions f = make_functions();
    return &f;
}
int emulated_nccl_open() {
    return open_comms;
}
