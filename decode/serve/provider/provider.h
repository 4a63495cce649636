// A provider generates. The server knows it by this alone: requests go in and events come out as
// flat messages (provider/message.h), so that a provider may be an engine in this process
// (provider/local.h), one in another, or one that speaks to another machine.
#pragma once

#include "decode/serve/provider/message.h"

typedef struct sd_provider sd_provider;

// The receiver of one request's events. Called on a thread of the provider's; must not block. The
// block is valid during the call only.
typedef struct {
    void (*event)(void *ctx, const sd_provider_event *e);
    void *ctx;
} sd_sink;

typedef enum { SD_PROVIDER_OPENING, SD_PROVIDER_READY, SD_PROVIDER_FAILED } sd_provider_state;

enum { SD_SERVED_NAME = 256 }; // and of --served-name
enum { SD_MODEL_NAME = 64 };   // bytes of an adapter's name at most

// Whether a draft adapter was trained for the target's adapter that it drafts for.
typedef enum { SD_PAIR_NONE, SD_PAIR_UNKNOWN, SD_PAIR_ALIGNED, SD_PAIR_OTHER } sd_pair;

// One of the models that requests may name.
typedef struct {
    const char *name;
    const char *const *alias; // [n_alias] further names, those that are listed first
    int n_alias, n_shown;
    const char *sha256; // of the adapter; NULL: the base
    const char *path;   // likewise
    uint64_t
        generation; // of the adapter: each that was loaded has another one, from 1 on; 0: the base
    int rank;       // the largest of its factors'
    size_t bytes;   // of factors and index
    sd_pair pair;
    const char
        *draft; // what drafts for it: "index", "adapter" (its draft model's), "draft" or "none"
    bool has_corpus; // it has a corpus index of its own
} sd_model_card;
/// Is it called so?
bool sd_model_card_is(const sd_model_card *c, const char *name);

// An adapter that is to be loaded; its paths lead below the provider's root.
typedef struct {
    const char *name, *path;
    const char
        *draft_path; // an adapter of the draft model or a corpus index; NULL: the run's own index
    bool *bad_draft; // true where the draft is why it is refused
} sd_provider_adapter;

typedef struct {
    /// The request m goes into the queue, or SD_ELIMIT (full), SD_EINVAL, SD_EFORMAT. Its events go
    /// to the sink until one has a finish, which always comes.
    sd_status (*start)(sd_provider *p, const sd_provider_request *m, sd_sink sink, uint64_t *id,
                       sd_error *err);
    void (*cancel)(sd_provider *p, uint64_t id); // an id that is gone is ignored
    /// The card of a request's `model`: row 0 is the base, NULL where there is none. Valid until the row is
    /// unloaded; NULL unless it is ready.
    const sd_model_card *(*model)(sd_provider *p, int row);
    /// Reads, verifies and packs an adapter: *row is what requests name it by. It blocks its thread, which is not
    /// one that others wait for, and no step but for *stopped_s. After an error nothing has changed.
    sd_status (*load)(sd_provider *p, const sd_provider_adapter *a, int *row, double *stopped_s,
                      sd_error *err);
    /// No request names the row, which is not the base, and none will. Any thread.
    void (*unload)(sd_provider *p, int row);
    /// As sd_engine_sleep and sd_engine_wake_up: they block their thread.
    sd_status (*sleep)(sd_provider *p, sd_error *err);
    sd_status (*wake)(sd_provider *p, double *seconds, sd_error *err);
    /// FAILED: *why says why.
    sd_provider_state (*ready)(sd_provider *p, sd_error *why);
    /// Would n requests of the client be taken now? If not, *wait_s is when, 0: not known.
    bool (*room)(sd_provider *p, uint64_t client, int n, double *wait_s);
    void (*stats)(sd_provider *p, sd_engine_stats *out); // zeroed unless it is ready
    void (*close)(sd_provider *p); // what runs is cancelled, and its sinks are told
} sd_provider_ops;

struct sd_provider {
    const sd_provider_ops *ops;
};
