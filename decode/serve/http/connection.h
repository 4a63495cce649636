// A connection as its owner sees it: the request that is being served, and the answer to it.
//
// A handler (http/listener.h) is called with a request that has come whole. It answers at once
// (sd_conn_reply, sd_conn_json, sd_conn_error), or takes the body, notes what works on it
// (sd_conn_set_work), and answers later.
#pragma once

#include "decode/serve/http/http.h"
#include "decode/serve/http/listener.h"
#include "decode/serve/http/request_log.h"

void *sd_conn_owner(const sd_conn *c);              // the listener's
const sd_http_head *sd_conn_head(const sd_conn *c); // of the request
/// The option's text that allows the request's Origin to read answers; NULL: none does, or it has none.
const char *sd_conn_allowed_origin(const sd_conn *c);
sd_client *sd_conn_client(const sd_conn *c);  // whose the request is
int64_t sd_conn_arrival_ns(const sd_conn *c); // of its head
/// The request's body, and its part of the memory (sd_listener_hold), become the caller's.
sd_buf sd_conn_take_body(sd_conn *c, size_t *held);
/// `work` is what the owner's functions are called with until the answer ends; NULL: nothing.
void sd_conn_set_work(sd_conn *c, void *work);
void sd_conn_set_log(sd_conn *c, const sd_log_facts *facts);

typedef struct {
    int status;
    const char *type;  // content type
    const char *extra; // further header lines with CRLF, or NULL
    const char *body;
    size_t len;
    bool close; // close the connection afterwards
} sd_reply;
/// Answers the request that is being served. c may be gone afterwards.
void sd_conn_reply(sd_conn *c, const sd_reply *r);
/// With Retry-After when e->status asks for it.
void sd_conn_error(sd_conn *c, const sd_api_error *e);
void sd_conn_json(sd_conn *c, int status, json_t *v); // takes v; NULL is a 500

/// A stream: begin, any number of data, end. Both begin and data are false when the connection is
/// gone, and with it the stream: the client is too slow, or memory ran out. drop breaks it off.
void sd_conn_drop(sd_conn *c);
/// extra: as in sd_reply.
bool sd_conn_stream_begin(sd_conn *c, const char *type, const char *extra);
bool sd_conn_stream_data(sd_conn *c, const char *data, size_t len);
void sd_conn_stream_end(sd_conn *c); // c may be gone afterwards
