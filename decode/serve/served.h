// The models that requests may name: the base first, then adapters, which come and go while requests run, and
// aliases of both.
//
// A model is one generation of an adapter. A request has the one that its name meant when it was read, until it
// ends: so no answer is of two generations. A model that its name does not mean any more drains: it is unloaded
// when the last of its requests has ended. Models are found on any thread; the list is changed, and models are
// let go, on the event loop's thread alone.
#pragma once

#include "decode/serve/metrics/metrics.h"
#include "decode/serve/provider/provider.h"
#include "decode/serve/threads/workers.h"

#include <pthread.h>

enum { SD_SERVED_ALIASES = 256 };

// One of them, and what is counted of it.
typedef struct sd_served_model {
    sd_provider *provider;
    int row; // among the provider's
    const sd_model_card *card;
    int holders;             // requests, and the list; under the lock
    sd_model_counts *counts; // of its name: generations share them
    int running;
    struct sd_served_model *next; // of those that drain, or end
    sd_work end;                  // its unloading, on a worker's thread
    struct sd_served *list;       // for that
} sd_served_model;

typedef struct {
    char name[SD_MODEL_NAME + 1], of[SD_MODEL_NAME + 1]; // of: "" the base
} sd_served_alias;

typedef struct sd_served {
    pthread_mutex_t
        lock; // of what follows, where another thread looks or the loop's thread changes it
    sd_served_model **model; // [n] the base first; none until the provider is ready
    int n, cap;
    sd_served_model *draining, *ending; // ending: nobody looks at their cards any more
    sd_served_alias *alias;             // [n_aliases <= SD_SERVED_ALIASES]
    int n_aliases, cap_aliases;
} sd_served;

void sd_served_init(sd_served *s);
void sd_served_free(sd_served *s); // the provider is gone, and so are its cards

/// The one that a name means, held by the caller; NULL: unknown. NULL or "": the base. Any thread, once the
/// provider is ready.
sd_served_model *sd_served_hold(sd_served *s, const char *name);
/// "a, b, c": the names there are, for messages. Any thread.
void sd_served_names(sd_served *s, sd_buf *out);

// ---- on the event loop's thread

/// Likewise, held by nobody.
sd_served_model *sd_served_find(const sd_served *s, const char *name);
/// True: nobody holds it any more, and it ends: it is unloaded, then given to sd_served_end.
bool sd_served_let_go(sd_served *s, sd_served_model *m);
void sd_served_end(sd_served *s, sd_served_model *m);
/// The list holds m. *old <- the one that had its name: it drains, and the list's hold of it is the caller's;
/// NULL: none had. False: out of memory, nothing has changed.
bool sd_served_put(sd_served *s, sd_served_model *m, sd_served_model **old);
/// m, which is listed and not the base, drains, and the list's hold of it is the caller's. Its aliases go.
void sd_served_remove(sd_served *s, sd_served_model *m);
/// Room for n more aliases; false: out of memory, or there would be more than SD_SERVED_ALIASES.
bool sd_served_reserve(sd_served *s, int n);
/// Of the aliases of `of` those that are not among keep [n] go.
void sd_served_keep_aliases(sd_served *s, const char *of, const char *const *keep, int n);
/// `name` means what `of` does from now on. There is room.
void sd_served_set_alias(sd_served *s, const char *name, const char *of);
/// SD_EINVAL says why it may be no alias of `of`, which need not be there yet.
sd_status sd_served_check_alias(const sd_served *s, const char *name, const char *of,
                                sd_error *err);
const sd_served_alias *sd_served_find_alias(const sd_served *s, const char *name);
