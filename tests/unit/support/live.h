// A server in the test's process over a tiny random model, and the clients that talk to it.
//
//     live s;
//     live_start(&s, 512, 4, 64);
//     char *answer = live_ask(&s, "{\"prompt\":[1],\"max_tokens\":2}");
//     live_stop(&s);                                   // SIGTERM, and it must end well
#pragma once

#include "decode/serve/serve.h"

#include <jansson.h>
#include <pthread.h>
#include <semaphore.h>

typedef struct {
    sd_serve_options o;
    char *dir, *model, *key_file;
    pthread_t thread;
    sem_t ready;
    int port;
    sd_status st;
    sd_error err;
} live;

/// Writes the model; then options of s->o may be set before live_start_with, of the engine draft, spec, spec_length and
/// sleep_idle_s.
void live_write_model(live *s);
/// The server asks for a key, which is an administrator's, and all requests of this process have it from here on.
void live_give_admin_key(live *s);
const char *live_key_line(void); // of a request's head; "" without a key
void live_start_with(live *s, int ctx, int slots, int queue, const sd_strings *adapters);
void live_start(live *s, int ctx, int slots, int queue);
void live_stop(live *s);
/// Joins a server that was told to end, and removes its model.
void live_join(live *s);

/// A connected socket, or -1. receive_buffer: bytes, 0 for the system's.
int live_dial(const live *s, int receive_buffer);
/// Likewise, from an address of this machine: "127.0.0.2" is another client.
int live_dial_from(const live *s, const char *source, int receive_buffer);
bool live_send(int fd, const char *data, size_t len);
/// A POST to /v1/completions that asks the server to close afterwards.
bool live_post(int fd, const char *body);
/// Likewise to another route, such as "chat/completions".
bool live_post_to(int fd, const char *route, const char *body);
/// All bytes until the server closes, 0-terminated; the caller frees.
char *live_read(int fd);
/// Waits for the first byte of an answer, which stays unread; false when the server closes without.
bool live_began(int fd);
char *live_ask(const live *s, const char *body);
char *live_ask_from(const live *s, const char *source, const char *body);
char *live_ask_at(const live *s, const char *route, const char *body);
/// The answer's document, which must come with this status.
json_t *live_json(const live *s, const char *route, const char *body, int status);
/// The whole answer of chat/completions, which must be a 200.
json_t *live_chat(const live *s, const char *body);
/// What stands at a path such as "choices.0.message"; NULL: nothing.
const json_t *live_at(const json_t *v, const char *path);
/// The text there, or "(none)".
const char *live_text_at(const json_t *v, const char *path);
char *live_get(const live *s, const char *path);
double live_metric(const live *s, const char *name);
/// False when the metric does not have the value within two minutes.
bool live_wait_metric(const live *s, const char *name, double value);
/// What stands between "choices" and its end: the answer without ids and times. Frees response.
char *live_answer(char *response);
