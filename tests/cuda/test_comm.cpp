// Gathers among devices, over an NCCL without a device (nccl_emu.h).
#include "kernels/cuda/comm/comm.h"
#include "tests/cuda/check.h"
#include "tests/cuda/nccl_emu.h"

// Ranks on devices 3, 2, 1, ...: a rank is not its device's number.
struct Ranks {
    sd_cuda_comm *comm;
    std::vector<float *> from, to;
    std::vector<sd_cuda_stream *> stream;
    std::vector<int> device;
};
static float value(int rank, size_t i) {
    return float(1000 * rank) + float(i) / 8;
}
static Ranks open_ranks(int n, size_t count) {
    Ranks r = {};
    for (int i = 0; i < n; i++) {
        r.device.push_back(3 - i);
        emu::choose(3 - i);
        r.from.push_back(emu::device_array<float>(count));
        r.to.push_back(emu::device_array<float>(count * size_t(n)));
        r.stream.push_back(static_cast<sd_cuda_stream *>(emu::stream_open()));
    }
    check(sd_cuda_comm_open(&r.comm, emulated_nccl(), n, r.device.data()) == 0, "not opened");
    return r;
}
static int gather(const Ranks &r, size_t n) {
    return sd_cuda_comm_gather(r.comm, r.to.data(), r.from.data(), n, r.stream.data());
}
static void write_late(const Ranks &r, int rank, size_t n) {
    float *to = r.from[size_t(rank)];
    emu::call_async(
        [=] {
            for (size_t i = 0; i < n; i++) to[i] = value(rank, i);
        },
        r.stream[size_t(rank)]);
}

TEST("each rank has what all have, in the order of ranks, behind what its stream held") {
    for (int n = 2; n <= 4; n++)
        for (size_t count : {1, 7, 1000}) {
            Ranks r = open_ranks(n, count);
            for (int i = 0; i < n; i++) write_late(r, i, count);
            check(gather(r, count) == 0, "refused");
            for (int i = 0; i < n; i++) { // what is queued behind it may write what it has read
                float *to = r.from[size_t(i)];
                emu::call_async([=] { memset(static_cast<void *>(to), 0, count * 4); },
                                r.stream[size_t(i)]);
            }
            emu::synchronise();
            for (int i = 0; i < n; i++)
                for (int k = 0; k < n; k++)
                    for (size_t at = 0; at < count; at++)
                        check(r.to[size_t(i)][size_t(k) * count + at] == value(k, at),
                              "rank %d has %.9g of rank %d, want %.9g", i,
                              double(r.to[size_t(i)][size_t(k) * count + at]), k,
                              double(value(k, at)));
            sd_cuda_comm_close(r.comm);
            check(emulated_nccl_open() == 0, "%d communicators are open", emulated_nccl_open());
        }
}
TEST("what cannot be gathered is refused, and a group is closed all the same") {
    Ranks r = open_ranks(2, 8);
    check(gather(r, 0) == SD_CUDA_EINVAL, "nothing");
    sd_cuda_comm *c;
    const int twice[] = {1, 1};
    const int status = sd_cuda_comm_open(&c, emulated_nccl(), 2, twice);
    check(status == SD_CUDA_COMM_ERROR + SD_NCCL_INVALID_USAGE && !c &&
              strstr(sd_cuda_comm_error_text(status), "together"),
          "one device for two ranks: %d", status);
    check(sd_cuda_comm_open(&c, emulated_nccl(), 1, twice) == SD_CUDA_EINVAL, "one rank");
    check(sd_cuda_comm_open(&c, emulated_nccl(), SD_CUDA_MOST_RANKS + 1, twice) == SD_CUDA_EINVAL,
          "too many ranks");
    static sd_nccl_functions failing;
    failing = *emulated_nccl();
    failing.all_gather = [](const void *, void *, size_t, int, void *, void *) -> int {
        return SD_NCCL_SYSTEM_ERROR;
    };
    check(sd_cuda_comm_open(&c, &failing, 2, r.device.data()) == 0, "not opened");
    check(sd_cuda_comm_gather(c, r.to.data(), r.from.data(), 8, r.stream.data()) ==
              SD_CUDA_COMM_ERROR + SD_NCCL_SYSTEM_ERROR,
          "a failure is not told");
    check(emulated_nccl()->group_end() == SD_NCCL_INVALID_USAGE, "the group is left open");
}
TEST("the stand-in ends a test whose ranks do not agree") {
    const sd_nccl_functions *f = emulated_nccl();
    Ranks r = open_ranks(2, 8);
    void *comm[2];
    check(f->init_all(comm, 2, r.device.data()) == 0, "not opened");
    const auto call = [&](int rank, size_t n, int type, int stream) {
        return f->all_gather(r.from[size_t(rank)], r.to[size_t(rank)], n, type, comm[rank],
                             r.stream[size_t(stream)]);
    };
    const auto both = [&](size_t n0, size_t n1, int type1, int stream1) {
        f->group_start();
        call(0, n0, SD_NCCL_FLOAT32, 0), call(1, n1, type1, stream1);
        f->group_end();
    };
    enum { FLOAT16 = 6 };
    check(ends_with([&] { both(8, 7, SD_NCCL_FLOAT32, 1); }, "gather 8"), "counts");
    check(ends_with([&] { both(8, 8, FLOAT16, 1); }, "of type 6"), "types");
    check(ends_with([&] { both(8, 8, SD_NCCL_FLOAT32, 0); }, "is not of device"), "streams");
    check(ends_with([&] { both(9, 9, SD_NCCL_FLOAT32, 1); }, "is not the memory"), "bounds");
    check(ends_with([&] { call(0, 8, SD_NCCL_FLOAT32, 0); }, "waits for itself"), "no group");
    check(ends_with(
              [&] {
                  f->group_start();
                  call(0, 8, SD_NCCL_FLOAT32, 0);
                  f->group_end();
              },
              "make 1 and 0 calls"),
          "a rank that is missing");
    f->destroy(comm[0]);
    check(ends_with([&] { both(8, 8, SD_NCCL_FLOAT32, 1); }, "is gone"), "a closed communicator");
}
