// A generation is one API request from its body to its last byte: n choices of each prompt, each a
// request of the engine. What routes and the server's life need of it; generation_private.h has its
// inside.
#pragma once

#include "decode/serve/api/dialect.h"
#include "decode/serve/http/connection.h"

typedef struct sd_server sd_server;
typedef struct sd_generation sd_generation;
typedef struct sd_engine_event sd_engine_event;

/// Takes the request that c serves, in the dialect its client speaks.
void sd_generation_start(sd_conn *c, const sd_dialect *dialect);
void sd_generation_abandon(void *generation); // its client is gone; the engine is told
void sd_generation_more(
    void *generation); // its client has read what was sent: the next slice, if any
void sd_generations_cancel(sd_server *s);
/// Those that were still read when the workers were closed; nobody may wait for them.
void sd_generations_free_unread(sd_server *s);
/// Answers whose check was still to come when the workers were closed: they end without it.
void sd_generations_end_checks(sd_server *s);

/// Delivers what the engine's thread left, for some milliseconds; when there is more, which is true
/// then, the event loop is woken for it.
bool sd_outbox_drain(sd_server *s);
void sd_outbox_free(sd_server *s);
size_t sd_outbox_most_bytes(void);
/// The engine's thread, between steps: waits while the loop is far behind.
void sd_outbox_wait(sd_server *s);
