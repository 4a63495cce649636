// specdec chat, as its own files see it.
#pragma once

#include "cli/chat/editor.h"
#include "cli/decoding.h"
#include "cli/shaping.h"

typedef struct {
    sd_model_args common;
    sd_decoding_args decoding;
    sd_shaping_args shaping;
    const char *system;
    int64_t n;
    bool no_history;
} sd_chat_args;
extern const sd_option sd_chat_rows[];

typedef struct {
    sd_chat_args a; // /set changes them
    sd_decoding d;
    sd_shaping_options shaping;
    sd_editor *editor;
    json_t *messages; // talk.h
    sd_request_stats stats;
    bool have_stats;
} sd_chat;

/// A line that begins with '/'. False: it ends the chat.
bool sd_chat_command(sd_chat *c, const char *line);
