// OpenAI's two endpoints as dialects: /v1/chat/completions and /v1/completions.
#include "decode/serve/api/dialect.h"
#include "decode/serve/api/openai/request.h"
#include "decode/serve/api/openai/response.h"

static int parse_chat(sd_api_request *out, const char *body, size_t len, sd_api_error *e) {
    return sd_api_request_parse(out, SD_API_CHAT, body, len, e);
}

static int parse_completion(sd_api_request *out, const char *body, size_t len, sd_api_error *e) {
    return sd_api_request_parse(out, SD_API_COMPLETION, body, len, e);
}

// clang-format off
#define SHARED                                                                                     \
    .whole_type = "application/json", .stream_type = "text/event-stream; charset=utf-8",           \
    .stream_end = "data: [DONE]\n\n", .call_prefix = "call_", .chunk = sd_chunk_write, .usage = sd_usage_chunk_write,      \
    .error = sd_error_write, .whole = sd_whole_write
// clang-format on

const sd_dialect sd_openai_chat = {.kind = SD_API_CHAT,
                                   .id_prefix = "chatcmpl-",
                                   .prompt_field = "messages",
                                   .parse = parse_chat,
                                   .opens_choices = true,
                                   SHARED};
const sd_dialect sd_openai_completion = {.kind = SD_API_COMPLETION,
                                         .id_prefix = "cmpl-",
                                         .prompt_field = "prompt",
                                         .parse = parse_completion,
                                         SHARED};
