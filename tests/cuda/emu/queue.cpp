// Streams as queues that run late. Nothing runs when it is queued. Who waits for a stream makes its operations
// run, and between them operations of other streams by the seed, as long as their events allow it. So a
// missing wait meets an order in which it matters, and a host buffer that is used again too soon is read again.
//
// A stream that records keeps what is queued instead; what was recorded is queued again as often as it is started.
//
// Stream NULL is a queue like the others: the kernels' launchers are meant to be given one.
#include "internal.h"

#include <deque>
#include <functional>
#include <memory>

namespace emu {

struct Event {
    uint64_t recorded, done; // records asked for; carried out
    int on;                  // the device that was chosen
};
struct Operation {
    std::function<void()> run;
    Event *waits_for; // NULL: nothing
    uint64_t record;  // of the event, that must have been carried out
};
struct Graph {
    std::vector<Operation> operations;
};
struct Stream {
    std::deque<Operation> queue;
    Graph *recorded; // NULL: it does not record
    int on;          // the device that was chosen
};

static std::vector<Stream *> &streams = *new std::vector<Stream *>{new Stream{}};
static uint64_t turn = 0x2545F4914F6CDD1Dull;

static Stream *stream_of(void *stream) {
    return stream ? static_cast<Stream *>(stream) : streams[0];
}
static bool may_run(const Stream *s) {
    if (s->queue.empty()) return false;
    const Operation &o = s->queue.front();
    return !o.waits_for || o.waits_for->done >= o.record;
}
static uint64_t next_turn() {
    turn ^= turn << 13, turn ^= turn >> 7, turn ^= turn << 17;
    return turn + options.seed * 0x9E3779B97F4A7C15ull;
}

// One operation: now and then of any stream, else of the one that is waited for, or of one that it waits for.
static void step(Stream *wanted) {
    std::vector<Stream *> ready;
    for (Stream *s : streams)
        if (may_run(s)) ready.push_back(s);
    if (ready.empty()) fail("streams wait for each other, or for an event that nobody records");
    Stream *s = ready[next_turn() % ready.size()];
    if (may_run(wanted) && next_turn() % 2) s = wanted;
    Operation o = std::move(s->queue.front());
    s->queue.pop_front();
    if (o.run) o.run();
}

void *stream_open() {
    streams.push_back(new Stream{{}, nullptr, chosen()});
    return streams.back();
}
int device_of(const void *p) {
    for (const Stream *s : streams)
        if (s == p) return s->on;
    return memory_device(p);
}
void stream_synchronise(void *stream) {
    Stream *s = stream_of(stream);
    if (s->recorded) fail("a stream that records is waited for");
    while (!s->queue.empty()) step(s);
}
void stream_close(void *stream) {
    stream_synchronise(stream);
    for (size_t i = 1; i < streams.size(); i++)
        if (streams[i] == stream) {
            delete streams[i];
            streams.erase(streams.begin() + long(i));
            return;
        }
    fail("%p is closed, which is no stream", stream);
}
void synchronise() {
    for (size_t i = 0; i < streams.size(); i++) stream_synchronise(streams[i]);
}

static void put(void *stream, std::function<void()> run, Event *waits_for = nullptr,
                uint64_t record = 0) {
    Stream *s = stream_of(stream);
    if (s->recorded)
        s->recorded->operations.push_back({std::move(run), waits_for, record});
    else
        s->queue.push_back({std::move(run), waits_for, record});
}

void capture_begin(void *stream) {
    Stream *s = stream_of(stream);
    if (!stream || s->recorded) fail("a stream is recorded twice, or it is the default one");
    s->recorded = new Graph;
}
void *capture_end(void *stream) {
    Stream *s = stream_of(stream);
    if (!s->recorded) fail("a stream that does not record is to end it");
    Graph *g = s->recorded;
    s->recorded = nullptr;
    return g;
}
void graph_launch(void *graph, void *stream) {
    for (const Operation &o : static_cast<Graph *>(graph)->operations)
        put(stream, o.run, o.waits_for, o.record);
}
void graph_close(void *graph) {
    delete static_cast<Graph *>(graph);
}

Translation (*translation_of)(const char *kernel);

int launch(const Launch &l, Body *body, void *stream) {
    const uint64_t threads = uint64_t(l.block.x) * l.block.y * l.block.z;
    std::shared_ptr<Body> b(body);
    enum { INVALID_CONFIGURATION = 9, INVALID_VALUE = 1 };
    if (!threads || threads > MAX_THREADS || l.block.z > 64 || !l.grid.x || !l.grid.y ||
        !l.grid.z || l.grid.y > 65535 || l.grid.z > 65535 || l.grid.x > 2147483647u)
        return INVALID_CONFIGURATION;
    if (l.shared > options.shared_limit) return INVALID_VALUE;
    if (stream && stream_of(stream)->on != chosen())
        fail("%s: the stream is of device %d, and %d is chosen", l.name, stream_of(stream)->on,
             chosen());
    if (translation_of) body->translation = translation_of(l.name);
    put(stream, [l, b] { run_grid(l, *b); });
    return 0;
}

void copy_async(void *dst, const void *src, size_t bytes, void *stream) {
    put(stream, [=] { memmove(dst, src, bytes); });
}
void call_async(std::function<void()> run, void *stream) {
    put(stream, std::move(run));
}
void set_async(void *dst, int value, size_t bytes, void *stream) {
    put(stream, [=] { memset(dst, value, bytes); });
}
void *event_open() {
    return new Event{0, 0, chosen()};
}
void event_close(void *event) {
    delete static_cast<Event *>(event);
}
void event_record(void *event, void *stream) {
    if (stream_of(stream)->recorded) fail("an event is recorded in a graph");
    auto *e = static_cast<Event *>(event);
    if (e->on != stream_of(stream)->on)
        fail("an event of device %d is recorded on a stream of device %d", e->on,
             stream_of(stream)->on);
    const uint64_t number = ++e->recorded;
    put(stream, [e, number] { e->done = number > e->done ? number : e->done; });
}
void event_synchronise(void *event) {
    const auto *e = static_cast<Event *>(event);
    while (e->done < e->recorded) step(streams[0]);
}
void stream_wait(void *stream, void *event) {
    auto *e = static_cast<Event *>(event);
    if (e->recorded) put(stream, nullptr, e, e->recorded);
}

} // namespace emu
