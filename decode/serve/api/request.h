// A client's request, in whichever dialect it was said: a checked struct.
#pragma once

#include "decode/engine/engine.h"
#include "decode/serve/api/decide.h"

typedef enum { SD_API_CHAT, SD_API_COMPLETION } sd_api_kind;

enum {
    SD_API_MAX_DEPTH = 64, // of nested JSON
    SD_API_MAX_VALUES = 1 << 20,
    SD_API_MAX_CONTAINERS = 1 << 16, // arrays and objects: each costs some 250 bytes when parsed
    SD_API_MAX_CHOICES = 16,         // n
    SD_API_MAX_PROMPTS = 64,         // prompts of one request
    SD_API_MAX_SEQUENCES = 64,       // n times prompts
    SD_API_MAX_STOP_TOKENS = 64,
    SD_API_MAX_SALT = 1024, // bytes of cache_salt
    SD_API_MAX_USER = 128,  // bytes of `user` that are kept
    SD_API_MAX_MESSAGES = 4096,
    SD_API_MAX_ITEMS = 2048, // texts of a request for vectors or ranks
    SD_API_MAX_TEMPLATE_ARGUMENTS = 64,
    SD_API_MAX_TOOLS = 128,             // and calls of one message
    SD_API_MAX_TOOLS_BYTES = 512 << 10, // of their JSON
    SD_API_MAX_TOOL_NAME = 64,
    SD_API_MAX_BUDGET = 1 << 24, // tokens of reasoning
    SD_API_MAX_READ = 1 << 18,   // tokens of a prompt that is only read
    SD_API_MAX_SKIPPED = 256     // bytes of a list of what was skipped, with its 0
};

typedef enum {
    SD_API_TOOL_NONE,
    SD_API_TOOL_AUTO,
    SD_API_TOOL_REQUIRED,
    SD_API_TOOL_NAMED
} sd_api_tool_choice;

typedef struct {
    const char *text; // NULL: ids
    size_t len;
    int32_t *ids;
    int n_ids;
} sd_api_prompt;

// Texts that become vectors, one each, or the relevance of documents to a query.
typedef struct {
    json_t *kept;        // holds the texts
    sd_api_prompt *item; // [n] texts, or documents
    int n;
    bool rank;
    // Vectors.
    bool base64;
    int dimensions; // 0: not given
    // Ranks.
    const char *query; // [query_len]
    size_t query_len;
    int top_n;      // 0: all
    bool documents; // they are returned
} sd_embed;

void sd_embed_free(sd_embed *m); // NULL is fine

// Strings point into `root`. Freed with sd_api_request_free.
typedef struct {
    json_t *root;
    sd_api_kind kind;
    const char *model; // NULL: not given
    bool stream, include_usage, continuous_usage, echo;
    bool score;        // echo with logprobs: those of the prompt too
    int score_from;    // of these: none before this token
    bool no_answer;    // the prompt alone: it is echoed
    int n, max_tokens; // max_tokens 0: until the context is full
    sd_sampling sampling;
    bool has_seed;
    // What the client said, and not a default of the API's.
    bool has_temperature, has_top_p, has_top_k, has_min_p, has_max_tokens;
    const char *stop[SD_MAX_STOPS];
    int n_stop;
    int32_t stop_token[SD_API_MAX_STOP_TOKENS];
    int n_stop_token;
    bool ignore_end;
    sd_request_shaping shaping; // its bias and allowed are the next two; no bad words yet
    sd_token_bias *bias;
    int32_t *allowed;
    const json_t *bad_word[SD_MAX_BAD_WORDS]; // strings, borrowed from root
    int n_bad_words;
    sd_grammar_kind constraint; // what the answer is held to
    char *constraint_text;      // [constraint_len] owned
    size_t constraint_len;
    const char *constraint_param; // the field that said it; static
    int logprobs;                 // -1: none; 0..20 alternatives
    int priority;                 // lower is first
    char user[SD_API_MAX_USER +
              1]; // whom the client asks for, as far as it is kept, for the log; "": not given
    const char *cache_salt; // prefixes are found by requests with the same one alone; NULL: none
    bool speculate;
    int max_draft;    // tokens of a draft at most; 0: as many as pay
    bool continues;   // chat: the answer goes on with the last message, an assistant's
    bool no_turn;     // chat: the prompt ends behind the last message, without the assistant's turn
    bool no_bos;      // completions: the text's tokens alone, without one that begins a prompt
    bool token_texts; // of what is only read: each token's text is wanted too
    json_t *messages; // chat: [{"role","content",...}], content parts joined to one string; owned
    json_t *template_arguments;  // chat: chat_template_kwargs and reasoning_effort, or NULL; owned
    int reasoning_budget;        // chat: tokens of reasoning at most; -1: none
    const char *reasoning_param; // the field that said it; static
    bool budget_is_wish;         // a model that does not reason may ignore it
    json_t *tools;               // chat: OpenAI's list, or NULL; owned, and kept behind the texts
    size_t tools_bytes;          // of its JSON
    sd_api_tool_choice tool_choice;
    int tool_index;      // NAMED: which
    bool parallel_calls; // more than one call
    bool strict;         // of some tool: its calls' arguments keep to the schema
    char
        skipped[SD_API_MAX_SKIPPED]; // tools of kinds that nobody calls here: their kinds; "": none
    sd_api_prompt prompt[SD_API_MAX_PROMPTS]; // completions
    int n_prompts;
    sd_embed *embed; // vectors or ranks in the place of an answer; owned, and kept behind the texts
    sd_decide
        *decide; // typed questions in the place of an answer; owned, and kept behind the texts
} sd_api_request;

void sd_api_request_free(sd_api_request *r); // zeroed is fine
/// Frees what came with the body: texts, messages, ids, names. The numbers and switches stay.
void sd_api_request_drop_texts(sd_api_request *r);
