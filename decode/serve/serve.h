// `specdec serve`: an OpenAI-compatible server over one engine.
//
// The caller's thread runs the event loop: sockets, HTTP, answers. Workers turn bodies into tokens:
// JSON, templates, tokenising. The engine's thread opens the model and then steps. Requests
// go in through bounded queues; tokens come back through an outbox that the engine's thread appends
// to without waiting.
#pragma once

#include "base/option.h"
#include "decode/engine/engine.h"
#include "decode/serve/http/auth.h"

enum { SD_BODY_MEMORY = 128 << 20, SD_ADAPTER_MEMORY = 1 << 30 };

typedef struct sd_server sd_server;

typedef struct {
    const char *model;
    const char *pack_dir;       // the packed form's cache; NULL: none
    const char *chat_template;  // a Jinja file for all models; NULL: each its own
    int tool_format;            // 0: by the template; else 1 + sd_tool_format
    bool other_base;            // take adapters that were trained on another model
    bool plain_user_text;       // what users and tools say in a chat has no special tokens
    bool no_run_defaults;       // fill nothing that a request leaves out (model/defaults.h)
    const sd_strings *adapters; // "NAME=PATH"; may be NULL
    const sd_strings *aliases;  // "NAME=ADAPTER", of an adapter or the base; may be NULL
    const char *adapter_root;   // adapters may be loaded while serving, below it; NULL: none
    size_t
        adapter_memory; // bytes of factors and indexes that a load may come to; 0: SD_ADAPTER_MEMORY
    const sd_strings *served_names; // aliases of the base; the first is the one shown; may be NULL
    const char *host;               // numeric or a name; NULL: 127.0.0.1
    int port;                       // 0: any free one
    const char *key_file;           // NULL: none
    const sd_keys *keys; // beside those of the file; NULL: none. Without any, no key is asked for
    const char *tls_cert, *tls_key;    // PEM files; both or neither (http/tls.h)
    const sd_strings *trusted_proxies; // addresses and networks; may be NULL
    const sd_strings *origins;         // whose pages may read answers: "*" or origins; may be NULL
    bool insecure_no_key;              // allows a host that others can reach without a key
    double drain_s;                    // after SIGTERM, for requests that run
    size_t body_memory;     // bytes of bodies and unread answers at once; 0: SD_BODY_MEMORY
    const char *access_log; // JSON lines; "-": standard output; NULL: none
    bool vllm_metrics;      // vLLM's series on /metrics under its prefix too
    sd_engine_options engine;
    // Called once on the event loop when requests are answered: "http://127.0.0.1:8080". May be
    // NULL.
    void (*on_ready)(void *ctx, const char *address);
    // Called on a worker's thread before it reads a request. For tests; may be NULL.
    void (*on_read)(void *ctx);
    // Likewise with what an answer will be held to. For tests; may be NULL.
    void (*on_constraint)(void *ctx, sd_grammar *g);
    char *const
        *arguments; // of this process, for the program that takes over at SIGUSR2; NULL: none does
    // Called on the event loop at SIGHUP: reads what may have changed, and ends with sd_serve_apply. NULL: these options,
    // whose files are read anew.
    sd_status (*on_reload)(void *ctx, sd_server *s, sd_error *err);
    void *ctx; // of all four
} sd_serve_options;

/// Listens at the socket that a service manager or an older program hands in, else at host and port.
/// At SIGUSR2 a new program is started, which takes the socket over when it is ready; then this one ends as by
/// SIGTERM, but serves what comes over open connections, for as long.
/// Serves until SIGTERM or SIGINT, then drains: it ends when all requests have, and at most a second
/// after drain_s, whatever clients do. SD_OK after a drain.
/// SD_EINVAL for options that cannot be served (an address in use, a host without a key, a bad
/// adapter), named.
sd_status sd_serve(const sd_serve_options *o, sd_error *err);

/// Takes of `o` what may change while requests run: keys, trusted proxies, origins, the certificate, the time to drain; and opens the access
/// log's file anew. All of it, or nothing and an error. Texts and lists of `o` must last as long as the server, or until
/// others are taken.
sd_status sd_serve_apply(sd_server *s, const sd_serve_options *o, sd_error *err);
