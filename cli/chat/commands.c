// What a line that begins with '/' does. Names are Ollama's where it has the same.
#include "cli/chat/chat.h"
#include "cli/chat/talk.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    const char *name, *args, *help;
    bool (*run)(sd_chat *c, const char *argument); // false: the chat ends
} command;

static void say_error(const sd_error *err) {
    fprintf(stderr, "specdec: %s\n", err->message);
}

// ---- /set

// What /set calls it, as the API does, and the option that it is.
static const char *const settings[][2] = {
    {"temperature", "temp"},
    {"top_p", "top-p"},
    {"top_k", "top-k"},
    {"min_p", "min-p"},
    {"repetition_penalty", "repetition-penalty"},
    {"presence_penalty", "presence-penalty"},
    {"frequency_penalty", "frequency-penalty"},
    {"seed", "seed"},
    {"max_tokens", "tokens"},
};
enum { SETTINGS = sizeof settings / sizeof settings[0] };

static const sd_option *row_of(const char *option) {
    const sd_option *r = sd_chat_rows;
    while (r->name && strcmp(r->name, option) != 0) r++;
    return r;
}

static void print_setting(const sd_chat *c, int i) {
    const sd_option *r = row_of(settings[i][1]);
    const char *at = (const char *)&c->a + r->offset;
    if (r->type == SD_OPT_INT)
        fprintf(stderr, "  %-20s %lld\n", settings[i][0],
                (long long)*(const int64_t *)(const void *)at);
    else
        fprintf(stderr, "  %-20s %.6g\n", settings[i][0], *(const double *)(const void *)at);
}

static bool set_system(sd_chat *c, const char *text) {
    sd_error err = {0};
    if (sd_talk_begin(c->messages, text, &err) != SD_OK)
        say_error(&err);
    else
        fprintf(stderr, "%s; the conversation was emptied\n",
                *text ? "system message set" : "no system message");
    return true;
}

static bool set(sd_chat *c, const char *argument) {
    static const char system[] = "system ", parameter[] = "parameter ";
    sd_error err = {0};
    if (strncmp(argument, system, sizeof system - 1) == 0)
        return set_system(c, argument + sizeof system - 1);
    if (strncmp(argument, parameter, sizeof parameter - 1) == 0) argument += sizeof parameter - 1;
    size_t len = strcspn(argument, " ");
    const char *value = argument + len + strspn(argument + len, " ");
    for (int i = 0; i < SETTINGS; i++) {
        if (*argument == '\0') print_setting(c, i);
        if (strlen(settings[i][0]) != len || strncmp(argument, settings[i][0], len) != 0) continue;
        if (*value && sd_option_set(row_of(settings[i][1]), &c->a, value, &err) != SD_OK)
            say_error(&err);
        print_setting(c, i);
        return true;
    }
    if (*argument)
        fprintf(stderr, "'%.*s' cannot be set; /set lists what can\n", (int)len, argument);
    return true;
}

// ---- the others

static bool show_or_set_system(sd_chat *c, const char *argument) {
    const char *now = sd_talk_system(c->messages);
    if (*argument) return set_system(c, strcmp(argument, "none") == 0 ? "" : argument);
    fprintf(stderr, "%s\n", now ? now : "no system message");
    return true;
}

static bool clear(sd_chat *c, const char *argument) {
    (void)argument;
    sd_talk_clear(c->messages);
    fprintf(stderr, "the conversation was emptied\n");
    return true;
}

static bool save(sd_chat *c, const char *argument) {
    sd_error err = {0};
    if (!*argument)
        fprintf(stderr, "/save needs a file's name\n");
    else if (sd_talk_save(c->messages, argument, &err) != SD_OK)
        say_error(&err);
    else
        fprintf(stderr, "%zu messages saved\n", json_array_size(c->messages));
    return true;
}

static bool load(sd_chat *c, const char *argument) {
    sd_error err = {0};
    if (!*argument)
        fprintf(stderr, "/load needs a file's name\n");
    else if (sd_talk_load(c->messages, argument, &err) != SD_OK)
        say_error(&err);
    else
        fprintf(stderr, "%zu messages loaded\n", json_array_size(c->messages));
    return true;
}

static bool stats(sd_chat *c, const char *argument) {
    (void)argument;
    const sd_request_stats *s = &c->stats;
    const sd_spec_stats *p = &s->spec;
    if (!c->have_stats)
        fprintf(stderr, "no answer yet\n");
    else
        fprintf(stderr,
                "prompt %d tokens (%d of them cached) in %.0f ms; %d tokens at %.1f tok/s; %lld "
                "rounds, %lld of "
                "%lld drafted tokens accepted\n",
                s->prompt_tokens, s->cached_tokens, s->prefill_ms, s->generated, sd_decode_speed(s),
                (long long)p->rounds, (long long)p->accepted, (long long)p->drafted);
    return true;
}

static bool leave(sd_chat *c, const char *argument) {
    (void)c, (void)argument;
    return false;
}

static bool help(sd_chat *c, const char *argument);

// Without help: a further name of the row above.
static const command commands[] = {
    {"/set", "[NAME [VALUE]]", "how answers are drawn, and how long they may be", set},
    {"/system", "[TEXT|none]", "the system message; a new one empties the conversation",
     show_or_set_system},
    {"/clear", "", "empty the conversation", clear},
    {"/reset", NULL, NULL, clear},
    {"/save", "FILE", "keep the conversation, as a record of training data", save},
    {"/load", "FILE", "go on with one that was kept", load},
    {"/stats", "", "times and drafts of the last answer", stats},
    {"/help", "", "this list", help},
    {"/?", NULL, NULL, help},
    {"/exit", "", "leave, as Ctrl-D does", leave},
    {"/quit", NULL, NULL, leave},
    {"/bye", NULL, NULL, leave},
};
enum { COMMANDS = sizeof commands / sizeof commands[0] };

static bool help(sd_chat *c, const char *argument) {
    (void)c, (void)argument;
    for (int i = 0; i < COMMANDS; i++)
        if (commands[i].help)
            fprintf(stderr, "  %-8s %-15s %s\n", commands[i].name, commands[i].args,
                    commands[i].help);
    fputs("Ctrl-C stops an answer. A message of several lines: paste it, break lines by\n"
          "Alt+Enter, or begin and end it with \"\"\".\n",
          stderr);
    return true;
}

bool sd_chat_command(sd_chat *c, const char *line) {
    size_t len = strcspn(line, " \n");
    const char *argument = line + len + strspn(line + len, " \n");
    for (int i = 0; i < COMMANDS; i++)
        if (strlen(commands[i].name) == len && strncmp(line, commands[i].name, len) == 0)
            return commands[i].run(c, argument);
    fprintf(stderr, "'%.*s' is unknown; /help lists the commands\n", (int)len, line);
    return true;
}
