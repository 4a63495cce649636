// What dialects share that say their requests in OpenAI's words: the body's document becomes another one, which
// request.h reads. Names and places are checked before, so that an error names the client's own.
//
// Where memory is short a document has holes; whoever reads the body looks at sd_memory_lost().
#pragma once

#include "decode/serve/api/request.h"

/// to <- the members of `from` that mean the same in all dialects: sampling and its like.
void sd_convert_settings(json_t *to, const json_t *from);

/// Text parts, {"type": one of `types`, "text": ...}, as one string, new; `between` stands between them. NULL after
/// an error that names the part. path: of the list. types: NULL behind the last.
json_t *sd_convert_texts(const json_t *list, const char *path, const char *const *types,
                         const char *between, sd_api_error *e);

/// Notes a tool of a kind that nobody calls here.
void sd_convert_skip_tool(sd_api_request *r, const char *kind);

/// The document `root`, which becomes r's, is read as OpenAI's. Its usage grows with a stream's chunks. As
/// sd_api_request_finish.
int sd_convert_finish(sd_api_request *r, json_t *root, sd_api_error *e);
