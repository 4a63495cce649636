// Shared memory, and the copies that arrive in it late.
//
// Each array of a block is an allocation of its own, so that an index beyond it faults, and holds NaN when a
// block begins. A copy of cp.async makes its destination NaN at once and is carried out when its thread waits
// for it: that is the whole time in which a device may do it.
#include "internal.h"

namespace emu {

struct Array {
    const void *key;
    void *p;
    size_t bytes;
    bool of_block; // declared by a thread of the block that runs
};
static std::vector<Array> arrays;
#ifdef EMU_TSAN
static std::vector<void *> before; // of earlier blocks: an address is not used twice in a grid
#endif
static void *dynamic;
static size_t dynamic_bytes, used;
static char token;

void shared_begin_grid() {
    dynamic = nullptr, dynamic_bytes = 0;
    arrays.reserve(64);
}

static void begin_array(Array *a) {
    poison(a->p, a->bytes);
    a->of_block = false;
}

static void free_arrays() {
    for (Array &a : arrays) guarded_free(a.p);
    if (dynamic) guarded_free(dynamic);
    arrays.clear();
    dynamic = nullptr;
}

void shared_begin_block(size_t bytes) {
#ifdef EMU_TSAN
    for (Array &a : arrays) before.push_back(a.p);
    if (dynamic) before.push_back(dynamic);
    arrays.clear();
    dynamic = nullptr;
#endif
    for (Array &a : arrays) begin_array(&a);
    if (bytes && !dynamic) dynamic = guarded_alloc(bytes, 16);
    dynamic_bytes = used = bytes;
    if (dynamic) poison(dynamic, bytes);
}

void shared_end_grid() {
    free_arrays();
#ifdef EMU_TSAN
    for (void *p : before) guarded_free(p);
    before.clear();
#endif
}

void *shared_array(const void *key, size_t bytes, size_t align) {
    Array *a = nullptr;
    for (Array &x : arrays)
        if (x.key == key) a = &x;
    if (!a) {
        arrays.push_back({key, guarded_alloc(bytes, align < 16 ? 16 : align), bytes, false});
        a = &arrays.back();
        begin_array(a);
    }
    if (!a->of_block) {
        a->of_block = true;
        used += bytes;
        if (used > options.shared_limit)
            fail("%zu bytes of shared memory, %zu are the limit", used, options.shared_limit);
        release(&token);
    }
    acquire(&token);
    return a->p;
}

void *dynamic_shared() {
    if (!dynamic) fail("dynamic shared memory is used, but the launch gives none");
    return dynamic;
}

void cp_async16(void *dst, const void *src, bool take, Site at) {
    if (reinterpret_cast<uintptr_t>(dst) % 16 || reinterpret_cast<uintptr_t>(src) % 16)
        fail("%s:%d: cp.async: an address is not a multiple of 16", at.file, at.line);
    if (take) announce_read(src, 16);
    announce_write(dst, 16);
    poison(dst, 16);
    self()->open.push_back({dst, src, take});
}

void cp_async_commit() {
    Lane *l = self();
    l->groups.push_back(std::move(l->open));
    l->open.clear();
}

void cp_async_wait(int groups) {
    static const char zeros[16] = {};
    Lane *l = self();
    while (l->groups.size() > size_t(groups)) {
        for (const Copy &c : l->groups.front()) {
            announce_write(c.dst, 16);
            copy_registers(c.dst, c.take ? c.src : zeros, 16);
        }
        l->groups.erase(l->groups.begin());
    }
}

void copies_end(Lane *l) {
    bool any = !l->open.empty();
    for (const auto &g : l->groups) any = any || !g.empty();
    if (any) fail("a thread ends before its cp.async has arrived");
}

} // namespace emu
