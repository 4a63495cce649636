// specdec VERB ...: finds the verb, runs it, turns its status into a sentence and an exit code.
#include "base/files/cleanup.h"
#include "base/log.h"
#include "base/memory.h"
#include "cli/verb.h"
#include "cli/verbs.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

volatile int sd_interrupted;

static void on_interrupt(int sig) {
    (void)sig;
    if (sd_interrupted) {
        sd_cleanup_run();
        _exit(130);
    }
    sd_interrupted = 1;
}

// For a verb that has nothing to save: no half-written file stays behind.
static void on_early_interrupt(int sig) {
    (void)sig;
    static const char text[] = "specdec: interrupted\n";
    sd_cleanup_run();
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0) _exit(130);
    _exit(130);
}

static void stop_at_once(int sig) {
    struct sigaction sa = {.sa_handler = on_early_interrupt}, old;
    sigemptyset(&sa.sa_mask);
    if (sigaction(sig, NULL, &old) == 0 && old.sa_handler != SIG_IGN) sigaction(sig, &sa, NULL);
}

// `specdec ... | head`: ends as other tools do, quietly and by the signal itself.
static void on_broken_pipe(int sig) {
    sd_cleanup_run();
    raise(sig); // the default by now, and pending until this returns
}

static void stop_at_broken_pipe(void) {
    struct sigaction sa = {.sa_handler = on_broken_pipe, .sa_flags = SA_RESETHAND};
    sigemptyset(&sa.sa_mask);
    sigaction(SIGPIPE, &sa, NULL);
}

void sd_outlive_broken_pipes(void) {
    signal(SIGPIPE, SIG_IGN);
}

// With the signal ignored, a reader that has gone is no failure either: the work is done.
static bool reader_is_gone(void) {
    struct pollfd p = {.fd = STDOUT_FILENO, .events = POLLOUT};
    return poll(&p, 1, 0) == 1 && (p.revents & (POLLERR | POLLHUP));
}

void sd_catch_interrupts(void) {
    struct sigaction sa = {.sa_handler = on_interrupt};
    sigemptyset(&sa.sa_mask);
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
}

bool sd_verb_help(const char *usage, const char *help, const sd_option *rows, int argc,
                  char **argv) {
    for (int i = 0; i < argc; i++) {
        if (strcmp(argv[i], "--") == 0) return false;
        if (strcmp(argv[i], "--help=man") == 0) {
            printf(".SS specdec ");
            sd_man_text(stdout, usage);
            putchar('\n');
            sd_man_text(stdout, help);
            putchar('\n');
            if (rows) sd_options_man(stdout, rows);
            return true;
        }
        if (strcmp(argv[i], "--help=words") == 0) {
            if (rows) sd_options_words(stdout, rows);
            return true;
        }
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            printf("usage: specdec %s\n%s\n\n", usage, help);
            if (rows) sd_options_help(stdout, rows);
            return true;
        }
    }
    return false;
}

// ---- the other program

#ifdef SPECDEC_TUNING
static const char other[] = "specdec";
#else
static const char other[] = "specdec-tuning";
#endif
static char **arguments;

sd_status sd_become_other(sd_error *err) {
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path - sizeof other);
    char *slash = n > 0 ? memrchr(path, '/', (size_t)n) : NULL;
    if (!slash) return sd_fail(err, SD_EIO, "cannot find where this program lies; is /proc there?");
    path[n] = '\0';
    if (strcmp(slash + 1, other) == 0) // a copy under the other's name would run itself for ever
        return sd_fail(err, SD_EINVAL,
                       "%s is a copy of the other program, which cannot %s; give it back its name",
                       path, arguments[1]);
    memcpy(slash + 1, other, sizeof other);
    fflush(stdout);
    execv(path, arguments);
    return sd_fail(err, errno == ENOENT ? SD_ENOTFOUND : SD_EIO,
                   "%s needs %s, which cannot be run (%s); put it beside specdec", arguments[1],
                   path, strerror(errno));
}

char **sd_arguments(void) {
    return arguments;
}

static void usage(FILE *f) {
    fprintf(f,
            "specdec tunes open weights on your data and serves them fast, on your own machine.\n\n"
            "usage: specdec VERB [OPTIONS]\n\n");
    for (const sd_verb *v = sd_verbs; v->name; v++) fprintf(f, "  %-12s %s\n", v->name, v->help);
    fprintf(f, "\n'specdec VERB --help' lists a verb's options.\n");
}

// The man page up to the verbs' options, which cli/man.sh puts behind it.
static void man(void) {
    printf(".TH SPECDEC 1 \"\" \"specdec " SPECDEC_VERSION "\"\n.SH NAME\n"
           "specdec \\- tune open weights with LoRA and serve them with speculative decoding\n"
           ".SH SYNOPSIS\n.B specdec\n.I VERB\n[OPTIONS]\n.SH VERBS\n");
    for (const sd_verb *v = sd_verbs; v->name; v++) {
        printf(".TP\n.B %s\n", v->name);
        sd_man_text(stdout, v->help);
        putchar('\n');
    }
    printf(".SH EXIT STATUS\n0: done. 1: failed. 2: bad input or usage, in one sentence. 130: "
           "interrupted, the state is saved.\n.SH OPTIONS\n");
}

static const sd_verb *find(const char *name) {
    for (const sd_verb *v = sd_verbs; v->name; v++)
        if (strcmp(v->name, name) == 0) return v;
    return NULL;
}

static int unknown_verb(const char *name) {
    const char *names[64] = {0};
    int n = 0;
    for (const sd_verb *v = sd_verbs; v->name && n < 63; v++) names[n++] = v->name;
    const char *near = sd_nearest(name, names);
    fprintf(stderr, "specdec: '%s' is not a verb; %s%s%s\n", name, near ? "did you mean '" : "",
            near ? near : "see specdec --help", near ? "'?" : "");
    return 2;
}

// A verb's parts stand in its row: "data prepare|inspect|stats ...".
static bool has_part(const sd_verb *v, const char *word) {
    const char *at = strchr(v->args, ' ') + 1;
    const size_t n = strlen(word);
    while (*at >= 'a' && *at <= 'z') {
        size_t len = strcspn(at, "| ");
        if (len == n && strncmp(at, word, n) == 0) return true;
        if (at[len] != '|') return false;
        at += len + 1;
    }
    return false;
}

// help VERB [PART]: the first word that is neither; an unknown verb is said elsewhere.
static const char *no_part(int n, char **word) {
    const sd_verb *v = find(word[0]);
    if (!v || n < 2) return NULL;
    if (!has_part(v, word[1])) return word[1];
    return n > 2 ? word[2] : NULL;
}

int main(int argc, char **argv) {
    static char help[] = "--help";
    sd_error err = {0};
    sd_status st = SD_OK;
    arguments = argv;
    stop_at_broken_pipe();
    stop_at_once(SIGINT);
    stop_at_once(SIGTERM);
    signal(SIGXFSZ, SIG_IGN); // a limit of the file's size is an error of the write, as a full disk
    if (argc < 2) {
        usage(stderr);
        return 2;
    }
    if (strcmp(argv[1], "help") == 0 && argc > 2) { // help VERB ...: VERB ... --help
        const char *extra = no_part(argc - 2, argv + 2);
        if (extra) {
            fprintf(stderr, "specdec: help: '%.80s' is no part of %s; give help VERB [PART]\n",
                    extra, argv[2]);
            return 2;
        }
        for (int i = 1; i + 1 < argc; i++) argv[i] = argv[i + 1];
        argv[argc - 1] = help;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        usage(stdout);
    } else if (strcmp(argv[1], "--help=man") == 0) {
        man();
    } else if (strcmp(argv[1], "--help=words") == 0) {
        for (const sd_verb *v = sd_verbs; v->name; v++)
            printf("%s\t%s\t%s\n", v->name, v->args, v->help);
    } else if (strcmp(argv[1], "--version") == 0) {
        printf("specdec %s\n", SPECDEC_VERSION);
    } else {
        const sd_verb *v = find(argv[1]);
        if (!v) return unknown_verb(argv[1]);
        st = v->run ? v->run(argc - 2, argv + 2, &err) : sd_become_other(&err);
    }
    if (sd_memory_lost() && st == SD_OK)
        st = sd_fail(&err, SD_ENOMEM, "out of memory: what was written may lack a part");
    else if (sd_memory_lost() && sd_status_exit_code(st) == 2) // the input is blamed for it
        st = sd_fail(&err, SD_ENOMEM, "out of memory; free some and try again");
    // Output that was lost in the middle leaves only the mark of ferror.
    bool lost = fflush(stdout) != 0 || ferror(stdout);
    if (lost && st == SD_OK && !reader_is_gone())
        st = sd_fail(&err, SD_EIO, "standard output: write failed; is the disk full?");
    if (st != SD_OK)
        fprintf(stderr, "specdec: %s\n", err.message[0] ? err.message : sd_status_word(st));
    return sd_status_exit_code(st);
}
