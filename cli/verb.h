// A verb of the command line: one row of cli/verbs.h, and a file of cli/verbs, or a folder of its own.
#pragma once

#include "base/option.h"
#include "base/status.h"

/// argc/argv hold what follows the verb. Results go to stdout, everything else to stderr. The
/// status becomes the exit code, and err's sentence is printed by main.
typedef sd_status (*sd_verb_run)(int argc, char **argv, sd_error *err);

typedef struct {
    const char *name;
    const char *args; // "-m MODEL [-a A] FILE"
    const char *help; // one line
    sd_verb_run run;
} sd_verb;

/// For a verb's own use: prints "usage: specdec <args>", the help line and the table when argv
/// holds --help or -h; true when it did. --help=man is a part of the man page, --help=words the
/// options as lines for shells.
bool sd_verb_help(const char *usage, const char *help, const sd_option *rows, int argc,
                  char **argv);

char **sd_arguments(void); // the process's, the program first

/// Set by SIGINT and SIGTERM after sd_catch_interrupts(); a second signal ends the process at once
/// with 130.
extern volatile int sd_interrupted;
void sd_catch_interrupts(void);
/// For a verb whose work is not its output: a pipe whose reader has gone does not end it.
void sd_outlive_broken_pipes(void);
