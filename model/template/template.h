// Chat templates: Jinja 3.1 as transformers runs it (its immutable sandbox, trim_blocks,
// lstrip_blocks, loop controls, generation blocks, its tojson, strftime_now, raise_exception), with
// Python's strings, numbers and formats. Left out: what needs other templates (include, import,
// extends), autoescape blocks, urlize and lipsum; each is refused by its name.
//
// The interpreter has fuel, memory and output limits, calls nothing outside, and takes its template
// from the model only, never from a request.
#pragma once

#include "base/memory.h"
#include "base/status.h"
#include "model/template/value/bounds.h"

#include <jansson.h>

typedef struct sd_template sd_template;

/// Parses the source. Errors name line and what was not understood.
sd_status sd_template_open(sd_template **out, const char *source, size_t len, sd_error *err);
void sd_template_close(sd_template *t);
const char *sd_template_source(const sd_template *t);

/// Appends the prompt for `messages` (an array of {"role","content",...}). tools: array or NULL.
/// extra: an object of further variables, or NULL. bos, eos: the texts of these tokens, "" when
/// there is none. A template's raise_exception is SD_EINVAL with its message. Thread-safe:
/// rendering keeps no state in t.
sd_status sd_template_render(const sd_template *t, const json_t *messages, const json_t *tools,
                             const json_t *extra, bool add_generation_prompt, const char *bos,
                             const char *eos, sd_buf *out, sd_error *err);

/// The same within bounds (NULL: none).
sd_status sd_template_render_within(const sd_template *t, const json_t *messages,
                                    const json_t *tools, const json_t *extra,
                                    bool add_generation_prompt, const char *bos, const char *eos,
                                    const sd_template_bounds *bounds, sd_buf *out, sd_error *err);
