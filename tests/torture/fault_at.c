// Runs a program and lets one of its system calls go wrong: the seam that io_faults.py and kills.py
// stand on. The libraries' and stdio's calls are met like our own, and nothing is built into the
// program for it. x86-64 Linux.
//
//     fault_at count COMMAND...          runs it; writes "CALL NUMBER" lines to descriptor 9
//     fault_at CALL WAY N COMMAND...     the N-th call (from 1, over all threads) goes wrong
//
// WAY: EIO, ENOSPC, EINTR, ENOMEM, ENOLCK: it does nothing and fails so; short: it is asked for half
// of the bytes; kill: the program is killed before the call; killed: after it. CALL may be "change":
// every call that changes files. Calls count from the program's entry point on: what the loader and the
// libraries' initialisers do before is not ours, nor what they do in a program that it becomes.
//
// Exits with the program's status, 128 + the signal that ended it, or 99 when the N-th call never
// came.
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __x86_64__
#include <sys/user.h>

static const struct {
    const char *name;
    long number;
    bool changes;
} calls[] = {{"openat", SYS_openat, false},
             {"read", SYS_read, false},
             {"pread64", SYS_pread64, false},
             {"getdents64", SYS_getdents64, false},
             {"newfstatat", SYS_newfstatat, false},
             {"write", SYS_write, true},
             {"pwrite64", SYS_pwrite64, true},
             {"fsync", SYS_fsync, true},
             {"rename", SYS_rename, true},
             {"renameat2", SYS_renameat2, true},
             {"ftruncate", SYS_ftruncate, true},
             {"close", SYS_close, false},
             {"mkdir", SYS_mkdir, true},
             {"mmap", SYS_mmap, false},
             {"unlink", SYS_unlink, true},
             {"rmdir", SYS_rmdir, true},
             {"flock", SYS_flock, false},
             {"lseek", SYS_lseek, false}};
enum { CALLS = sizeof calls / sizeof calls[0], TASKS = 256 };

typedef enum { COUNT, FAIL, SHORT, KILL, KILLED } way;

typedef struct {
    pid_t id;
    bool inside;  // between a call's entry and its exit
    bool failing; // this call
} task;

static struct {
    way how;
    int error, call; // index into calls, -1: every one that changes files
    long n, seen;
    long count[CALLS];
    bool done;
    pid_t program;
} plan;
static task tasks[TASKS];

static task *task_of(pid_t id) {
    for (int i = 0; i < TASKS; i++)
        if (tasks[i].id == id) return &tasks[i];
    for (int i = 0; i < TASKS; i++)
        if (!tasks[i].id) {
            tasks[i] = (task){.id = id};
            return &tasks[i];
        }
    fprintf(stderr, "fault_at: more than %d threads\n", TASKS);
    exit(98);
}

static void forget(pid_t id) {
    for (int i = 0; i < TASKS; i++)
        if (tasks[i].id == id) tasks[i] = (task){0};
}

static int index_of(long number) {
    for (int i = 0; i < CALLS; i++)
        if (calls[i].number == number) return i;
    return -1;
}

static void at_entry(task *t, struct user_regs_struct *r) {
    int i = index_of((long)r->orig_rax);
    if (i < 0 || plan.done) return;
    if (calls[i].number == SYS_mmap && (int)r->r8 < 0) return; // memory, not a file
    plan.count[i]++;
    if (plan.how == COUNT || (plan.call >= 0 ? i != plan.call : !calls[i].changes)) return;
    if (++plan.seen != plan.n) return;
    if (plan.how == KILL) kill(plan.program, SIGKILL);
    if (plan.how == FAIL) {
        r->orig_rax = (unsigned long long)-1; // no call of that number: the kernel does nothing
        t->failing = true;
    }
    if (plan.how == SHORT && r->rdx > 1) r->rdx /= 2;
    ptrace(PTRACE_SETREGS, t->id, NULL, r);
    if (plan.how == KILLED)
        t->failing = true;
    else
        plan.done = plan.how != FAIL;
}

static void at_exit(task *t, struct user_regs_struct *r) {
    if (!t->failing) return;
    t->failing = false;
    plan.done = true;
    if (plan.how == KILLED) {
        kill(plan.program, SIGKILL);
        return;
    }
    r->rax = (unsigned long long)-(long long)plan.error;
    ptrace(PTRACE_SETREGS, t->id, NULL, r);
}

// The program's own first instruction, from the auxiliary vector.
static unsigned long entry_of(pid_t id) {
    char path[64];
    Elf64_auxv_t a;
    unsigned long at = 0;
    snprintf(path, sizeof path, "/proc/%d/auxv", (int)id);
    int fd = open(path, O_RDONLY);
    while (fd >= 0 && read(fd, &a, sizeof a) == sizeof a && a.a_type != AT_NULL)
        if (a.a_type == AT_ENTRY) at = a.a_un.a_val;
    if (fd >= 0) close(fd);
    return at;
}

/// Lets the loader run until the entry point; false when the program ended before.
static bool run_to_entry(pid_t id) {
    unsigned long at = entry_of(id);
    struct user_regs_struct r;
    int status;
    long word = ptrace(PTRACE_PEEKTEXT, id, (void *)at, NULL);
    ptrace(PTRACE_POKETEXT, id, (void *)at, (void *)((word & ~0xffL) | 0xcc));
    ptrace(PTRACE_CONT, id, NULL, NULL);
    if (waitpid(id, &status, 0) != id || !WIFSTOPPED(status)) return false;
    ptrace(PTRACE_POKETEXT, id, (void *)at, (void *)word);
    ptrace(PTRACE_GETREGS, id, NULL, &r);
    r.rip = at;
    ptrace(PTRACE_SETREGS, id, NULL, &r);
    return true;
}

static int follow(void) {
    int status, result = 98;
    for (pid_t id; (id = waitpid(-1, &status, __WALL)) > 0 || errno == EINTR;) {
        if (id < 0) continue;
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            forget(id);
            if (id == plan.program)
                result = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
            continue;
        }
        task *t = task_of(id);
        int sig = WSTOPSIG(status), pass = 0;
        if (status >> 8 == (SIGTRAP | PTRACE_EVENT_EXEC << 8)) { // specdec is two programs
            if (!run_to_entry(id)) return 98;
            t->inside = false;
        } else if (sig == (SIGTRAP | 0x80)) {
            struct user_regs_struct r;
            if (ptrace(PTRACE_GETREGS, id, NULL, &r) == 0) {
                t->inside = !t->inside;
                if (t->inside)
                    at_entry(t, &r);
                else
                    at_exit(t, &r);
            }
        } else if (sig != SIGTRAP && sig != SIGSTOP) {
            pass = sig;
        }
        ptrace(plan.done ? PTRACE_CONT : PTRACE_SYSCALL, id, NULL, (void *)(long)pass);
    }
    return result;
}

static int index_of_name(const char *name) {
    for (int i = 0; i < CALLS; i++)
        if (strcmp(calls[i].name, name) == 0) return i;
    return -1;
}

static bool understand(char **argv) {
    static const struct {
        const char *name;
        int error;
    } errors[] = {
        {"EIO", EIO}, {"ENOSPC", ENOSPC}, {"EINTR", EINTR}, {"ENOMEM", ENOMEM}, {"ENOLCK", ENOLCK}};
    plan.call = index_of_name(argv[1]);
    if (plan.call < 0 && strcmp(argv[1], "change") != 0) return false;
    plan.n = atol(argv[3]);
    plan.how = strcmp(argv[2], "short") == 0    ? SHORT
               : strcmp(argv[2], "kill") == 0   ? KILL
               : strcmp(argv[2], "killed") == 0 ? KILLED
                                                : FAIL;
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        if (strcmp(argv[2], errors[i].name) == 0) plan.error = errors[i].error;
    return plan.n > 0 && (plan.how != FAIL || plan.error);
}

int main(int argc, char **argv) {
    bool counting = argc > 2 && strcmp(argv[1], "count") == 0;
    if (!counting && (argc < 5 || !understand(argv))) {
        fprintf(stderr, "usage: fault_at count COMMAND... | fault_at CALL WAY N COMMAND...\n");
        return 98;
    }
    char **command = argv + (counting ? 2 : 4);
    if (counting) plan.how = COUNT;
    plan.program = fork();
    if (plan.program == 0) {
        if (fcntl(9, F_GETFD) >= 0) close(9);
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
        execvp(command[0], command);
        perror(command[0]);
        _exit(98);
    }
    int status;
    if (plan.program < 0 || waitpid(plan.program, &status, 0) < 0 || !WIFSTOPPED(status)) return 98;
    ptrace(PTRACE_SETOPTIONS, plan.program, NULL,
           (void *)(PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_TRACEFORK |
                    PTRACE_O_TRACEVFORK | PTRACE_O_TRACEEXEC | PTRACE_O_EXITKILL));
    if (!run_to_entry(plan.program)) return 98;
    ptrace(PTRACE_SYSCALL, plan.program, NULL, NULL);
    int result = follow();
    for (int i = 0; counting && i < CALLS; i++)
        dprintf(9, "%s %ld\n", calls[i].name, plan.count[i]);
    return counting || plan.done ? result : 99;
}

#else
int main(void) {
    fprintf(stderr, "fault_at: is for x86-64\n");
    return 97;
}
#endif
