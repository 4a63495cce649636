// The system text that records carry most often: what a model that learns from them will be used to.
//
//     sd_system_texts s = {0};
//     for (each record that is kept) SD_TRY(sd_system_texts_add(&s, &example, err));
//     if (s.text) ... s.records of them carry exactly s.text ...
//     sd_system_texts_free(&s);
#pragma once

#include "datasets/read/format.h"

typedef struct {
    char *text; // of the most records so far, the first to have had so many; NULL: none, or one
                // of more than SD_MAX_SYSTEM_TEXT bytes
    int64_t records;              // that carry it
    struct sd_system_count *slot; // private: [cap] by the text's hash
    size_t n, cap;
} sd_system_texts;

/// Counts the record's system text: the content of a conversation's first message where its role is
/// system. Takes 24 bytes of memory a distinct text, whatever its length.
sd_status sd_system_texts_add(sd_system_texts *s, const sd_example *ex, sd_error *err);
void sd_system_texts_free(sd_system_texts *s); // a zeroed one is fine
