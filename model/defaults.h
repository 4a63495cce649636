// How a model is asked where a request does not say: the sampling and the length that a tuned one was
// judged with, and the system text that it was trained with. A field is taken from the first of
//
//     1. the request
//     2. what a run wrote: its manifest's `serve`, or specdec.json beside an export
//     3. generation_config.json beside an adapter
//     4. generation_config.json of the model, or general.sampling.* of a GGUF file
//     5. the default of the API, or of the verb
//
// and each field for itself. Nothing of an adapter's ever counts for the base or for another adapter,
// and a system text counts for nobody but the model that it stands beside.
//
//     "serve": {"system": "Answer as JSON.", "system_share": 1.0,
//               "sampling": {"temperature": 0, "top_p": 1, "top_k": 0, "min_p": 0, "max_tokens": 512},
//               "decisions": {"temperature": {"yes_no": 1.4, "choice": 1.2, "score": 1}}}
#pragma once

#include "model/model.h"

// Index, name, least, most, the API's own, a whole number. max_tokens 0: until the context is full.
#define SD_DEFAULT_LIST(X)                                                                         \
    X(TEMPERATURE, "temperature", 0, 2, 1, false)                                                  \
    X(TOP_P, "top_p", 1e-6, 1, 1, false)                                                           \
    X(TOP_K, "top_k", 0, INT32_MAX, 0, true)                                                       \
    X(MIN_P, "min_p", 0, 1, 0, false)                                                              \
    X(MAX_TOKENS, "max_tokens", 1, 1 << 24, 0, true)

typedef enum {
#define SD_DEFAULT_ENUM(index, name, least, most, own, whole) SD_DEFAULT_##index,
    SD_DEFAULT_LIST(SD_DEFAULT_ENUM)
#undef SD_DEFAULT_ENUM
        SD_DEFAULTS
} sd_default;
extern const char *const sd_default_name[SD_DEFAULTS];

// How `specdec eval` asks, and so how a run is judged: greedily, for answers of at most so many tokens.
#define SD_JUDGED_MAX_TOKENS 512

enum { SD_MAX_SYSTEM_TEXT = 64 << 10 }; // bytes; of a longer one its share alone is known
// From this share on a model that is asked without a system text is asked otherwise than it was trained.
#define SD_SYSTEM_SHARE 0.95

// Kinds of typed questions, whose probabilities are divided by a temperature before they are given: it was
// fitted to this model's answers and counts for no other.
enum { SD_DECISION_KINDS = 3 };
extern const char *const sd_decision_name[SD_DECISION_KINDS]; // "yes_no", "choice", "score"

typedef enum { SD_FROM_NOTHING, SD_FROM_MODEL, SD_FROM_ADAPTER, SD_FROM_RUN } sd_default_source;

typedef struct {
    double value[SD_DEFAULTS];
    sd_default_source from[SD_DEFAULTS]; // SD_FROM_NOTHING: there is no value
    char *system;                        // malloc'ed, UTF-8; NULL: none
    double system_share;                 // of the training records, those that carry exactly it
    double decision_temperature[SD_DECISION_KINDS]; // 0: none
} sd_defaults;

void sd_defaults_free(sd_defaults *d); // a zeroed one is fine
bool sd_defaults_any(const sd_defaults *d);
/// The sampling of `specdec eval`, from a run.
void sd_defaults_judged(sd_defaults *d, int max_tokens);

/// The object that a manifest has as `serve`. Of specdec's own files, so what cannot be is refused
/// (SD_EFORMAT) by the file's name; NULL gives none. d is the caller's also after an error.
sd_status sd_defaults_read(sd_defaults *d, const json_t *serve, const char *file, sd_error *err);
/// That object, the caller's; NULL without memory.
json_t *sd_defaults_json(const sd_defaults *d);

/// specdec.json in a folder, FILE.specdec.json beside a file: {"specdec": 1, "serve": {...}}.
sd_status sd_defaults_path(char **out, const char *path, sd_error *err);
/// What stands there; nothing where there is no such file.
sd_status sd_defaults_read_beside(sd_defaults *d, const char *path, sd_error *err);
sd_status sd_defaults_write_beside(const sd_defaults *d, const char *path, sd_error *err);

/// Fields that d lacks, from generation_config.json in the folder (Hugging Face's), where it is there:
/// temperature, top_p, top_k, min_p, max_new_tokens; do_sample false is temperature 0. What it says
/// that cannot be is left out with a warning.
sd_status sd_defaults_add_config(sd_defaults *d, const char *folder, sd_default_source from,
                                 sd_error *err);
/// What stands in and beside the model's file or folder.
sd_status sd_defaults_of_model(sd_defaults *d, const sd_model *m, sd_error *err);
/// Fields of d that have no value are taken from `below`. Not its system text.
void sd_defaults_under(sd_defaults *d, const sd_defaults *below);

// ---- for a request

/// What a request says; a value that is not `given` is the API's or the verb's default.
typedef struct {
    double value[SD_DEFAULTS];
    bool given[SD_DEFAULTS];
} sd_asked;

typedef enum {
    SD_SYSTEM_LEFT,   // the messages are as they were
    SD_SYSTEM_FILLED, // the trained text was put before them
    SD_SYSTEM_OTHER   // they have another one than the trained
} sd_system_use;

/// Values that were not given become d's.
void sd_defaults_fill(sd_asked *a, const sd_defaults *d);
/// Does d put its system text before a conversation that has none?
bool sd_defaults_fills_system(const sd_defaults *d);
/// Puts it there, if it does and messages have no system turn.
sd_status sd_defaults_fill_system(sd_system_use *use, json_t *messages, const sd_defaults *d,
                                  sd_error *err);

/// "temperature, system": what of `asked` (before it was filled) d changes. Empty: nothing.
void sd_defaults_say_filled(char *room, size_t size, const sd_asked *asked, const sd_defaults *d,
                            sd_system_use use);
/// "temperature=1.0 (0), system": what was given and is not as a run's model was trained.
void sd_defaults_say_departs(char *room, size_t size, const sd_asked *asked, const sd_defaults *d,
                             sd_system_use use);
