// libedit is opened when a chat begins on a terminal: linked, it and what it brings along would be mapped into every
// start of the program. A program that was built without its header reads plain lines.
//
// Characters are read here and not by libedit, which would read on after the first interrupted wait: Ctrl-C, a
// terminal that changes its size, and one that a stopped program gets back are each seen at once.
#include "cli/chat/editor.h"

#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/utf8.h"

#include <dlfcn.h>
#include <errno.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <wchar.h>

#if __has_include(<histedit.h>)
#include <histedit.h>
#define HAS_LIBEDIT 1
#else
#define HAS_LIBEDIT 0
#endif

struct sd_editor {
    bool terminal;
    char *line; // of getline
    size_t cap;
#if HAS_LIBEDIT
    void *library;
#define CALLS(X)                                                                                   \
    X(el_init)                                                                                     \
    X(el_end)                                                                                      \
    X(el_set)                                                                                      \
    X(el_get)                                                                                      \
    X(el_gets) X(el_wgetc) X(el_winsertstr) X(el_resize) X(history_init) X(history_end) X(history)
#define MEMBER(name) __typeof__(&name) name;
    CALLS(MEMBER)
#undef MEMBER
    EditLine *el;
    History *past;
    char *path; // of the history's file; NULL: not kept
    const char *prompt;
    char input[4096]; // bytes that were read and not asked for yet
    size_t at, n;
#endif
};

static volatile sig_atomic_t interrupted, terminal_changed, continued;
static void on_signal(int sig) {
    if (sig == SIGINT) interrupted = 1;
    if (sig == SIGWINCH) terminal_changed = 1;
    if (sig == SIGCONT) continued = 1;
}

void sd_editor_catch_interrupts(void) {
    struct sigaction sa = {.sa_handler = on_signal}; // no SA_RESTART: waiting for a key ends too
    sigemptyset(&sa.sa_mask);
    sigaction(SIGINT, &sa, NULL);
}

bool sd_editor_interrupted(void) {
    return interrupted;
}
void sd_editor_forget_interrupt(void) {
    interrupted = 0;
}
bool sd_editor_on_terminal(const sd_editor *e) {
    return e->terminal;
}

// ---- plain lines

static sd_editor_got read_plain(sd_editor *e, const char *prompt, const char **text, size_t *len) {
    if (e->terminal) fputs(prompt, stderr);
    errno = 0;
    ssize_t n = getline(&e->line, &e->cap, stdin);
    if (n < 0 && interrupted) {
        clearerr(stdin);
        return SD_EDITOR_INTERRUPTED;
    }
    if (n < 0) return SD_EDITOR_END;
    while (n > 0 && (e->line[n - 1] == '\n' || e->line[n - 1] == '\r')) e->line[--n] = '\0';
    *text = e->line;
    *len = (size_t)n;
    return SD_EDITOR_TEXT;
}

#if HAS_LIBEDIT
// ---- keys

enum { HISTORY_LENGTH = 1000, MAX_PASTE = 1 << 20 };

// libedit's callbacks are given its own object alone, and a process has one terminal.
static sd_editor *current;

static char *prompt_of(EditLine *el) {
    (void)el;
    static char text[16];
    snprintf(text, sizeof text, "%s", current->prompt);
    return text;
}

// More bytes of the terminal; false at an interrupt and at the end.
static bool fill(sd_editor *e) {
    for (;;) {
        struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
        int ready = interrupted ? -1 : poll(&p, 1, -1);
        if (interrupted) return false;
        if (continued) {
            continued = 0;
            e->el_set(e->el, EL_PREP_TERM, 1);
            e->el_set(e->el, EL_REFRESH);
        }
        if (terminal_changed) {
            terminal_changed = 0;
            e->el_resize(e->el);
        }
        if (ready < 0 && errno == EINTR) continue;
        if (ready < 0) return false;
        ssize_t n = read(STDIN_FILENO, e->input, sizeof e->input);
        if (n < 0 && errno == EINTR) continue;
        e->at = 0;
        e->n = n > 0 ? (size_t)n : 0;
        return n > 0;
    }
}

// One character; a byte that begins none is U+FFFD. libedit's own value for the end is 0.
static int get_character(EditLine *el, wchar_t *out) {
    (void)el;
    sd_editor *e = current;
    char bytes[4];
    size_t n = 0;
    for (;;) {
        int32_t cp;
        bool truncated = false;
        if (e->at == e->n && !fill(e)) return 0;
        bytes[n++] = e->input[e->at++];
        sd_utf8_next(bytes, n, &cp, &truncated);
        if (truncated && n < sizeof bytes) continue;
        *out = cp < 0 ? SD_REPLACEMENT : (wchar_t)cp;
        return 1;
    }
}

static unsigned char break_line(EditLine *el, int key) {
    (void)key;
    return current->el_winsertstr(el, L"\n") == 0 ? CC_REFRESH : CC_ERROR;
}

// What the terminal says between the marks of a paste is text, whatever keys it would be.
static unsigned char paste(EditLine *el, int key) {
    (void)key;
    static const wchar_t end[] = L"\033[201~";
    enum { END = sizeof end / sizeof end[0] - 1 };
    sd_editor *e = current;
    wchar_t *text = sd_alloc(MAX_PASTE + 1, sizeof *text), c;
    size_t n = 0, matched = 0, lost = 0;
    if (!text) return CC_ERROR;
    while (matched < END && e->el_wgetc(el, &c) == 1) {
        matched = c == end[matched] ? matched + 1 : c == end[0];
        if (c == L'\n' && n > 0 && text[n - 1] == L'\r') continue; // one end of a line
        if (n < MAX_PASTE)
            text[n++] = c;
        else
            lost++;
    }
    if (matched == END && lost == 0) n -= END;
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        c = text[i] == L'\r' ? L'\n' : text[i];
        if ((c >= 0x20 && c != 0x7F) || c == L'\n' || c == L'\t') text[kept++] = c;
    }
    while (kept > 0 && text[kept - 1] == L'\n') kept--;
    text[kept] = L'\0';
    bool ok = kept == 0 || e->el_winsertstr(el, text) == 0;
    free(text);
    if (lost > 0)
        fprintf(stderr, "\a\r\nspecdec: of the pasted text %d characters are kept\r\n", MAX_PASTE);
    return ok ? CC_REFRESH : CC_ERROR;
}

// ---- the history

static sd_status history_path(char **out, sd_error *err) {
    sd_status st = SD_OK;
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    sd_buf folder = sd_buf_make(4096);
    bool ok = state && *state == '/' ? sd_buf_printf(&folder, "%s/specdec", state)
              : home && *home        ? sd_buf_printf(&folder, "%s/.local/state/specdec", home)
                                     : false;
    SD_CHECK(ok, err, SD_EINVAL, "no history is kept: neither XDG_STATE_HOME nor HOME is set");
    SD_TRY(sd_mkdirs(folder.data, err));
    *out = sd_path_join(folder.data, "chat_history");
    SD_CHECK_ALLOC(*out, err);
out:
    sd_buf_free(&folder);
    return st;
}

static void load_history(sd_editor *e) {
    HistEvent ev;
    sd_error why = {0};
    sd_path_kind kind;
    sd_status st = history_path(&e->path, &why);
    if (st == SD_OK) st = sd_path_look(&kind, e->path, &why);
    if (st == SD_OK && kind != SD_PATH_NONE && e->history(e->past, &ev, H_LOAD, e->path) < 0)
        sd_fail(&why, st = SD_EFORMAT, "%s: is no history of lines; remove it", e->path);
    if (st == SD_OK) return;
    sd_log(SD_LOG_WARN, "%s", why.message);
    free(e->path);
    e->path = NULL;
}

// After each message: a terminal that is closed loses none.
static void keep(sd_editor *e, const char *text) {
    HistEvent ev;
    sd_error why = {0};
    sd_replace r;
    if (!*text || e->history(e->past, &ev, H_ENTER, text) < 0 || !e->path) return;
    if (sd_replace_open_mode(&r, e->path, 0600, &why) == SD_OK) {
        if (e->history(e->past, &ev, H_SAVE_FP, r.f) >= 0 && sd_replace_commit(&r, &why) == SD_OK)
            return;
        sd_replace_abort(&r);
    }
    sd_log(SD_LOG_WARN, "%s: the history cannot be kept%s%s", e->path, why.message[0] ? ": " : "",
           why.message);
    free(e->path);
    e->path = NULL;
}

// ---- libedit

static sd_status open_library(sd_editor *e, sd_error *err) {
    sd_status st = SD_OK;
    static const char name[] = "libedit.so.2";
    e->library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    SD_CHECK(e->library, err, SD_ENOTFOUND, "lines cannot be edited: %s; install libedit",
             dlerror());
#define SYMBOL(symbol)                                                                             \
    *(void **)&e->symbol = dlsym(e->library, #symbol);                                             \
    SD_CHECK(e->symbol, err, SD_ENOTFOUND, "lines cannot be edited: %s has no " #symbol, name);
    CALLS(SYMBOL)
#undef SYMBOL
out:
    return st;
}

static void bind_keys(sd_editor *e) {
    static const char *const keys[][2] = {
        {"\\e[200~", "chat-paste"},        {"\\e^M", "chat-break"},
        {"\\e^J", "chat-break"},           {"^R", "em-inc-search-prev"},
        {"\\e[3~", "ed-delete-next-char"}, {"\\e[1~", "ed-move-to-beg"},
        {"\\e[4~", "ed-move-to-end"},      {"\\e[H", "ed-move-to-beg"},
        {"\\e[F", "ed-move-to-end"},       {"\\e[1;5C", "em-next-word"},
        {"\\e[1;5D", "ed-prev-word"},
    };
    e->el_set(e->el, EL_ADDFN, "chat-paste", "takes a paste as text", paste);
    e->el_set(e->el, EL_ADDFN, "chat-break", "breaks the line", break_line);
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
        e->el_set(e->el, EL_BIND, keys[i][0], keys[i][1], NULL);
}

static sd_status open_libedit(sd_editor *e, bool history, sd_error *err) {
    sd_status st = SD_OK;
    HistEvent ev;
    SD_TRY(open_library(e, err));
    if (!setlocale(LC_CTYPE, "") || MB_CUR_MAX == 1) setlocale(LC_CTYPE, "C.UTF-8");
    e->el = e->el_init("specdec", stdin, stderr, stderr);
    e->past = e->history_init();
    SD_CHECK(e->el && e->past, err, SD_ENOMEM,
             "lines cannot be edited: libedit does not take this terminal");
    current = e;
    e->history(e->past, &ev, H_SETSIZE, HISTORY_LENGTH);
    e->history(e->past, &ev, H_SETUNIQUE, 1);
    e->el_set(e->el, EL_PROMPT, prompt_of);
    e->el_set(e->el, EL_EDITOR, "emacs");
    e->el_set(e->el, EL_HIST, e->history, e->past);
    e->el_set(e->el, EL_GETCFN, get_character);
    bind_keys(e);
    if (history) load_history(e);
    struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&sa.sa_mask);
    sigaction(SIGWINCH, &sa, NULL);
    sigaction(SIGCONT, &sa, NULL);
out:
    return st;
}

static void close_libedit(sd_editor *e) {
    if (e->el) e->el_end(e->el);
    if (e->past) e->history_end(e->past);
    if (e->library) dlclose(e->library);
    free(e->path);
    e->el = NULL, e->past = NULL, e->library = NULL, e->path = NULL;
    if (current == e) current = NULL;
}

static sd_editor_got read_edited(sd_editor *e, const char *prompt, const char **text, size_t *len) {
    int n = 0;
    e->prompt = prompt;
    fputs("\033[?2004h", stderr); // pastes are marked
    const char *got = e->el_gets(e->el, &n);
    fputs("\033[?2004l", stderr);
    if (interrupted) {
        e->at = e->n = 0;
        return SD_EDITOR_INTERRUPTED;
    }
    if (!got || n <= 0) return SD_EDITOR_END;
    while (n > 0 && (got[n - 1] == '\n' || got[n - 1] == '\r')) n--;
    if ((size_t)n + 1 > e->cap) {
        char *more = realloc(e->line, (size_t)n + 1);
        if (!more) return SD_EDITOR_END;
        e->line = more;
        e->cap = (size_t)n + 1;
    }
    memcpy(e->line, got, (size_t)n);
    e->line[n] = '\0';
    keep(e, e->line);
    *text = e->line;
    *len = (size_t)n;
    return SD_EDITOR_TEXT;
}
#endif

// ---- both

sd_status sd_editor_open(sd_editor **out, bool history, sd_error *err) {
    sd_status st = SD_OK;
    sd_editor *e = sd_alloc(1, sizeof *e);
    SD_CHECK_ALLOC(e, err);
    e->terminal = isatty(STDIN_FILENO) == 1 && isatty(STDERR_FILENO) == 1;
#if HAS_LIBEDIT
    const char *term = getenv("TERM");
    sd_error why = {0};
    if (e->terminal && term && *term && strcmp(term, "dumb") != 0 &&
        open_libedit(e, history, &why) != SD_OK) {
        sd_log(SD_LOG_WARN, "%s", why.message);
        close_libedit(e);
    }
#else
    (void)history;
    if (e->terminal)
        sd_log(SD_LOG_INFO, "this program was built without libedit: lines cannot be edited");
#endif
    *out = e;
out:
    return st;
}

sd_editor_got sd_editor_read(sd_editor *e, const char *prompt, const char **text, size_t *len) {
#if HAS_LIBEDIT
    if (e->el) return read_edited(e, prompt, text, len);
#endif
    return read_plain(e, prompt, text, len);
}

void sd_editor_close(sd_editor *e) {
    if (!e) return;
#if HAS_LIBEDIT
    close_libedit(e);
#endif
    free(e->line);
    free(e);
}
