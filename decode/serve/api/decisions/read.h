// What the two dialects of decisions share: reading questions, and what their requests become.
//
// Where memory is short a document has holes; whoever reads the body looks at sd_memory_lost().
#pragma once

#include "decode/serve/api/dialect.h"

/// The body becomes out->root, and out->decide is made. 0, or the status in e; on an error `out` is zeroed.
int sd_decide_begin(sd_api_request *out, const char *body, size_t len, sd_api_error *e);
/// Room for n questions, or a 400.
bool sd_decide_reserve(sd_decide *d, const json_t *questions, size_t n, sd_api_error *e);
/// Room for n labels, least <= n <= most, or a 400 that names `path`.
bool sd_decide_labels(sd_decide_question *q, const char *path, size_t n, size_t least, size_t most,
                      sd_api_error *e);
/// *out <- v's text, which the request keeps. json: an object or an array is its JSON. A 400 names `path`.
bool sd_decide_text(sd_decide *d, const char **out, const json_t *v, const char *path, bool json,
                    sd_api_error *e);
/// The same where it may be missing, which is NULL.
bool sd_decide_text_or(sd_decide *d, const char **out, const json_t *v, const char *path, bool json,
                       sd_api_error *e);
/// label <- as a model can say it: on one line, of 1 to SD_DECIDE_MAX_LABEL bytes.
bool sd_decide_label_text(sd_decide *d, sd_decide_label *label, const json_t *v, const char *path,
                          sd_api_error *e);
/// Labels that the client does not name: yes and no, or the numbers of levels.
void sd_decide_own_labels(sd_decide_question *q);
/// Appends v to the text that is asked about: a string, or what stands in JSON.
bool sd_decide_state(sd_decide *d, const json_t *v, const char *path, sd_api_error *e);
/// The request without answers; `ok` false: e says why. 0, or the status; on an error it is freed.
int sd_decide_end(sd_api_request *r, bool ok, sd_api_error *e);
