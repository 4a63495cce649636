// Which path is answered by whom, and who may ask.
#pragma once

#include "decode/serve/http/connection.h"

typedef struct {
    const char *method, *path;
    bool prefix; // path is the beginning
    sd_auth auth;
    bool json; // the body must be application/json
    sd_handler run;
} sd_route;
const sd_route *sd_routes(int *n);

void sd_get_metrics(sd_conn *c); // routes_metrics.c

/// sd_handlers.on_head: the route's handler, when the head alone does not refuse the request.
sd_handler sd_route_head(sd_conn *c, char extra[SD_MAX_EXTRA], sd_api_error *e);

/// sd_handlers.error_body: OpenAI's error object, or Anthropic's where the path is one of its API's.
json_t *sd_route_error_body(const sd_conn *c, const sd_api_error *e);

/// Finds the route and checks what the head alone decides: 401, 403, 404, 405, 415. NULL with e filled;
/// *allow (a header line) for a 405.
const sd_route *sd_route_check(const sd_keys *keys, const sd_http_head *head,
                               char allow[SD_MAX_EXTRA], sd_api_error *e);

/// Is this Host field (NULL: none) localhost or a numeric address? A server that asks for no key
/// answers no other name: a web page may point a name of its own at 127.0.0.1 (DNS rebinding), and
/// the browser then sends that name.
bool sd_route_host_is_local(const char *host);
