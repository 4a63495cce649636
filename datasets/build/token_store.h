// Inside the room: what the pipeline gathers before rows are packed and written.
#pragma once

#include "datasets/build/prepare.h"
#include "datasets/build/system_text.h"

#include <jansson.h>

enum { SD_SUPERVISED_BIT = 1 << 30 };

// A segment: a record, or one piece of a long text. piece counts within the record.
typedef struct {
    int64_t offset; // of its tokens in sd_token_store.token
    int64_t record; // its record's number in the source
    int32_t length, source, piece;
    uint8_t sha256[32]; // of the record's bytes
} sd_segment;

// Four bytes per token and 56 per record are held in memory, and no text but one system text.
typedef struct {
    int32_t *token; // with SD_SUPERVISED_BIT where supervised
    int64_t n_tokens, cap_tokens;
    sd_segment *segment;
    int64_t n_segments, cap_segments;
    sd_sha256 key;   // see sd_dataset_key
    json_t *sources; // [{"path", "sha256", "bytes", "format", "records"}]
    sd_system_texts systems;
} sd_token_store;

/// Appends a segment and its tokens, id and supervised [s->length]; sets the offset. The first token
/// is never supervised: nothing stands before it that could predict it.
sd_status sd_token_store_add(sd_token_store *g, const sd_segment *s, const int32_t *id,
                             const uint8_t *supervised, sd_error *err);
void sd_token_store_free(sd_token_store *g);
