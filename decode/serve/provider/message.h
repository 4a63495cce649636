// Messages between a front and a provider: flat, one block each, without pointers.
//
// A block begins with its version and its length. Parts without a fixed size stand behind the struct
// and are found by spans: an offset from the block's beginning, and a count. So a block can be kept,
// copied and sent through a socket as it is, and whoever receives one checks it before it follows an
// offset.
//
//     sd_provider_request *m;
//     SD_TRY(sd_provider_request_make(&m, &request, model, err));   // malloc'ed: free() it
//     send(fd, m, m->head.bytes, 0);
//     ...
//     SD_TRY(sd_provider_request_read(&request, block, bytes, err)); // points into the block
#pragma once

#include "decode/engine/engine.h"

#include <stddef.h>

enum { SD_PROVIDER_VERSION = 11 };

typedef struct {
    uint32_t version; // SD_PROVIDER_VERSION
    uint32_t bytes;   // of the whole block
} sd_provider_head;

typedef struct {
    uint32_t at; // bytes from the block's beginning
    uint32_t n;  // elements
} sd_span;

// ---- front -> provider

typedef struct {
    sd_provider_head head;
    uint64_t client; // whose it is
    uint64_t tenant; // whose prefixes it finds
    uint64_t seed;
    uint32_t model; // row of the provider's models
    uint32_t choice;
    int32_t max_tokens, min_tokens, logprobs, spec, top_k, ignore_end, n_stop;
    float temperature, top_p, min_p, presence, frequency, repetition;
    int32_t priority, admin_priority, n_shown_tokens, constraint_kind; // sd_grammar_kind
    int32_t shown_token[SD_MAX_SHOWN_TOKENS];
    int32_t reasoning; // bits: 1 the prompt ends within it, 2 it may begin again
    int32_t budget;    // of tokens of reasoning; -1: none
    int32_t score, no_answer, max_draft, score_from, read_kind; // sd_read_kind
    sd_span reasoning_mark
        [2];        // char: what begins and what ends it, with their 0; none: it is not looked for
    sd_span forced; // int32_t: what ends it behind its budget
    sd_span prompt; // int32_t: token ids
    sd_span stop_token;         // int32_t
    sd_span bias;               // sd_token_bias
    sd_span allowed;            // int32_t
    sd_span bad_words;          // int32_t: sequences, each behind its length
    sd_span read_token;         // int32_t
    sd_span constraint;         // char: its text; what receives it compiles it
    sd_span stop[SD_MAX_STOPS]; // char: with their 0
} sd_provider_request;

/// r's adapter, corpus and callback are not sent: `model` says which are meant. SD_ENOMEM; SD_ELIMIT when
/// it would not fit a block.
sd_status sd_provider_request_make(sd_provider_request **out, const sd_request *r, uint32_t model,
                                   sd_error *err);
/// *r points into the block, which must outlive it; adapter, corpus and callback are NULL. SD_EFORMAT
/// names what is wrong with the block, whatever its bytes are. It must be aligned to 8 bytes.
sd_status sd_provider_request_read(sd_request *r, const void *block, size_t bytes, sd_error *err);

// ---- provider -> front

typedef struct {
    sd_provider_head head;
    uint64_t id;       // of the request, as its start said
    int64_t at_ns;     // when it was said (CLOCK_MONOTONIC)
    int32_t n;         // new tokens
    int32_t finish;    // sd_finish; what stands below with one is there then
    int32_t lost;      // text or tokens found no memory: the answer has a hole
    int32_t of_prompt; // the tokens are the prompt's
    int32_t cached;    // tokens of the prompt that were found, as far as it is known
    int32_t reserved;
    sd_span tokens; // sd_token_info [n], or none unless logprobs were asked for
    sd_span text;   // char: new text, complete UTF-8
    sd_span stats;  // sd_request_stats [1], with a finish
    sd_span error;  // char, without a 0, with SD_FINISH_ERROR
    sd_span values; // float, with the end of a request that reads
} sd_provider_event;

// The fixed parts stand in front, so that an event can lose its text and still say how it ended.
enum {
    SD_PROVIDER_ERROR = 512, // bytes of an event's error at most
    SD_PROVIDER_EVENT_LEAST =
        sizeof(sd_provider_event) + sizeof(sd_request_stats) + SD_PROVIDER_ERROR
};

/// Bytes of the event's block. with_tokens: their infos go along.
size_t sd_provider_event_bytes(const sd_event *ev, bool with_tokens);
/// Writes it into block [room >= SD_PROVIDER_EVENT_LEAST], aligned to 8 bytes. Where room is too
/// little for text and tokens they are left out, and the event says `lost`.
void sd_provider_event_write(void *block, size_t room, const sd_event *ev, int64_t at_ns,
                             bool with_tokens);
/// Likewise, from another block.
void sd_provider_event_copy(void *block, size_t room, const sd_provider_event *from);
/// SD_EFORMAT names what is wrong with a block that came from elsewhere, whatever its bytes are.
sd_status sd_provider_event_check(const void *block, size_t bytes, sd_error *err);

static inline const sd_token_info *sd_provider_event_tokens(const sd_provider_event *e) {
    return e->tokens.n ? (const void *)((const char *)e + e->tokens.at) : NULL;
}
static inline const char *sd_provider_event_text(const sd_provider_event *e) { // [text.n]
    return e->text.n ? (const char *)e + e->text.at : "";
}
static inline const char *sd_provider_event_error(const sd_provider_event *e) { // [error.n]
    return e->error.n ? (const char *)e + e->error.at : "";
}
static inline const float *sd_provider_event_values(const sd_provider_event *e) { // [values.n]
    return e->values.n ? (const void *)((const char *)e + e->values.at) : NULL;
}
static inline const sd_request_stats *sd_provider_event_stats(const sd_provider_event *e) {
    return e->stats.n ? (const void *)((const char *)e + e->stats.at) : NULL;
}
