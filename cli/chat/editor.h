// What a person types, a message at a time. Where both ends are a terminal and libedit is there, it can be edited:
// arrows, a history that is kept, pasted text as one message, Alt+Enter for a line break. Else lines come as they are.
//
//     sd_editor *e;
//     SD_TRY(sd_editor_open(&e, true, err));
//     while (sd_editor_read(e, "> ", &text, &len) != SD_EDITOR_END) ...
//     sd_editor_close(e);
#pragma once

#include "base/status.h"

#include <stddef.h>

typedef struct sd_editor sd_editor;

/// history: what is typed is kept in $XDG_STATE_HOME/specdec/chat_history (~/.local/state) for the next time, readable by its owner
/// alone. What is not there or cannot be read is said, and done without.
sd_status sd_editor_open(sd_editor **out, bool history, sd_error *err);
void sd_editor_close(sd_editor *e); // NULL is fine

typedef enum { SD_EDITOR_TEXT, SD_EDITOR_INTERRUPTED, SD_EDITOR_END } sd_editor_got;
/// *text: len bytes and a 0, without the line end; the editor's until the next call. INTERRUPTED: Ctrl-C, and
/// what stood there is gone.
sd_editor_got sd_editor_read(sd_editor *e, const char *prompt, const char **text, size_t *len);
/// Standard input and error are a terminal.
bool sd_editor_on_terminal(const sd_editor *e);

/// From now on Ctrl-C ends no program: it is told here, once.
void sd_editor_catch_interrupts(void);
bool sd_editor_interrupted(void);
void sd_editor_forget_interrupt(void);
