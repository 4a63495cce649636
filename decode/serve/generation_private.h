// A generation's inside, shared by the six files that carry it through its life, each above the next:
//
//     generation_start.c  begins: admission, the model, the engine's queue
//     generation_prompt.c the body becomes a request and token ids, on a worker's thread
//     generation_events.c what the engine's thread says reaches the event loop
//     generation_readings.c prompts that are read by a model that says nothing: which, and when
//     generation_answer.c what is sent back, in one piece or as a stream
//     generation.c        the object: made, told to end, freed
#pragma once

#include "decode/serve/api/dialect.h"
#include "decode/serve/server.h"
#include "model/dialogue/answer.h"
#include "model/dialogue/dialogue.h"

typedef struct sd_choice sd_choice;

// An event on its way to the event loop.
struct sd_engine_event {
    sd_engine_event *next;
    sd_choice *to;
    sd_provider_event *event;
    size_t room; // bytes at `event`
};

struct sd_choice {
    sd_generation *generation;
    int index, prompt; // among all choices; which prompt
    uint64_t id;       // the provider's; 0: not submitted
    bool begun, ended;
    bool lost; // a message of it could not be copied
    sd_finish finish;
    // What it said, where that is checked at its end; the workers' while `checking`.
    sd_buf said;
    bool said_lost, checking, unfit; // unfit: the check found that it is not what it was held to
    sd_work check;
    sd_error check_result;
    sd_buf text,
        kept; // of an answer in one piece: its text, its tokens' logprobs; or the values that it read
    int n_kept;
    int n_of_prompt; // of them: the prompt's
    int fresh;       // of them: those in hand, until a delta has come of them
    int first_content,
        content_end; // of them: where its content begins and a call follows, plus 1; 0: not yet
    sd_logprobs_cursor cursor; // of a stream's logprobs
    sd_stream_state stream;
    sd_answer_parser *parser; // of a chat's answer; NULL: all its text is content
    const sd_logprobs_source
        *delta_logprobs; // of the tokens in hand, for the first delta that they give
    sd_buf reasoning;    // of an answer in one piece
    sd_tool_call *calls; // arguments: of an answer in one piece
    int n_calls, cap_calls;
    int64_t last_ns;        // when its last tokens came
    int generated, cached;  // cached: known when it has ended
    sd_request_stats stats; // known when it has ended
    // The message that ends it has its memory here, so that an end is delivered whatever happens.
    sd_engine_event last;
    bool last_lost; // a message before it found no memory; the provider's thread, then the loop's
    _Alignas(8) char last_event[SD_PROVIDER_EVENT_LEAST];
};

struct sd_generation {
    sd_pending pending;
    sd_server *server;
    sd_generation *prev, *next;
    sd_conn *conn; // NULL: nobody waits any more
    sd_client *client;
    sd_key_counts *key;     // NULL: it has none
    size_t bytes_held;      // of the listener's memory
    sd_served_model *model; // `target`, once it is counted as running there
    // From the body to the engine: the workers' while `reading`.
    bool reading;
    atomic_bool cancelled; // meanwhile: it need not be read
    sd_work work;
    int pieces_done;
    sd_buf body;
    const sd_dialect *dialect;
    sd_api_request request;
    sd_served_model *target; // the model that is meant, held
    sd_answer answer;
    // The cache keeps what is held, so that the provider finds it; at its end the answer is checked.
    sd_grammar *grammar;
    char id[40];
    sd_ids prompt[SD_API_MAX_PROMPTS]; // until they are submitted
    sd_ids bad_words;                  // likewise (decode/engine/bad_words.h)
    int prompt_tokens;
    bool silent
        [SD_API_MAX_PROMPTS]; // the prompt's first token stands in no text: the tokenizer put it there
    sd_json_out reply;        // of a dialect that only reads
    char *stops;              // the stop strings, each with its 0, where the dialect names them
    bool in_reasoning;        // the prompt ends within the answer's reasoning
    bool reasons;             // the answer may reason
    sd_reasoning_marks marks;
    sd_ids closing; // what ends the reasoning when its budget is used up; until it is submitted
    sd_choice *choices;
    int n_choices, open; // open: submitted and not ended
    int n_begun;         // of choices that are readings: submitted so far
    sd_ids *item;        // [embed->n] the tokens of texts; until they are submitted
    float *vector;       // [C] one of them, as it is written
    double *score;       // [embed->n] of documents
    int *order;
    bool streaming, failed;
    size_t answer_bytes; // of `bytes_held`, for what is kept until its end
    bool writing;        // all has ended; a whole answer goes out in slices
    bool in_slice; // whoever ends the connection now leaves the generation to the one who writes
    sd_whole whole;
    int64_t arrival_ns, first_ns;
    sd_api_error error;
    char defaults[SD_LOG_NOTE], departs[SD_LOG_NOTE]; // of a conversation, for headers and log
};

// ---- generation.c
/// NULL: out of memory. Its body is not taken yet.
sd_generation *sd_generation_new(sd_conn *conn, const sd_dialect *dialect);
void sd_generation_free(sd_generation *g);
/// The engine has its copies: what the client sent is needed no longer, and the memory for bodies is
/// free for others.
void sd_generation_drop_prompt(sd_generation *g);
void sd_generation_cancel(sd_generation *g); // its reading, and the choices that still run
/// Sets what the access log will say; finish is static.
void sd_generation_log(const sd_generation *g, const char *finish);

// ---- generation_prompt.c
/// One piece of filling request, target and prompt of a generation (item->ctx) from its body; true: there is
/// more. Its error says what was wrong. On a worker's thread; reads nothing of the server but what is
/// immutable once the model is open.
bool sd_generation_read(sd_work *item);

// ---- generation_start.c
/// The tenant whose prefixes and constraints a request finds: its key, with its salt.
sd_status sd_generation_tenant(uint64_t *out, const sd_generation *g, sd_error *err);

/// Submits what is read for the choice: the prompt, in the place of its own.
int sd_generation_submit_reading(sd_generation *g, sd_choice *c, const sd_ids *prompt,
                                 const sd_request_reading *reading, sd_api_error *e);

// ---- generation_readings.c
/// Takes the prompts in, once all are there. On a worker's thread. 0, or the status in e.
int sd_generation_plan_readings(sd_generation *g, sd_api_error *e);
int sd_generation_count_readings(const sd_generation *g);
size_t sd_generation_readings_bytes(const sd_generation *g); // that are kept until the answer's end
/// Submits as many as may run now. 0, or the status in e: what was submitted before runs on.
int sd_generation_begin_readings(sd_generation *g, sd_api_error *e);
/// One has ended: those that follow are submitted. An error is the generation's.
void sd_generation_go_on(sd_generation *g);
/// All have ended: what they say of the request.
sd_readings sd_generation_take_readings(sd_generation *g);
int sd_generation_cached_readings(const sd_generation *g); // tokens

// ---- generation_events.c
/// The sink of a choice, which is ctx. Runs on the provider's thread.
void sd_generation_on_event(void *ctx, const sd_provider_event *ev);

// ---- generation_answer.c
/// The choice's parser, where the model's answers may have more than content.
sd_status sd_generation_open_answer(sd_generation *g, sd_choice *c, sd_error *err);
void sd_generation_close_answer(sd_choice *c);
/// Appends the text that echo puts before the answer: the prompt as it was read.
bool sd_generation_echo(const sd_generation *g, int prompt, sd_buf *out);
/// Claims memory for what is kept until the answer's end, before anything is queued: tools, what it is held
/// to, the logprobs of a whole answer. 0, or the status in e: 400 when they can never fit, 429 when others
/// hold the memory now. ctx: positions of a slot.
int sd_generation_reserve(sd_generation *g, int ctx, sd_api_error *e);
/// New tokens for a client that still waits: sent, or kept for the answer in one piece.
void sd_generation_deliver(sd_generation *g, const sd_engine_event *m);
/// All choices have ended: the end of the answer is sent, if anyone waits, and the generation freed, at
/// once or after its last slice.
void sd_generation_end(sd_generation *g);
