// The machine's inside. A state looks at the bytes that are held, takes what it can decide, and says
// whether it came further; a decision depends on bytes, never on where a piece ended.
//
//     answer.c        the machine: text between calls, reasoning, how a call fails
//     answer_json.c   calls that are a JSON object: hermes, llama3, mistral, phi4
//     answer_xml.c    qwen3-coder
//     answer_block.c  gemma's fenced block, as Python writes calls
//     answer_harmony.c
#pragma once

#include "base/memory.h"
#include "model/dialogue/answer.h"

#include <string.h>

enum { SD_CALL_NAME = 64, SD_CALL_KEY = SD_ANSWER_KEY, SD_CALL_SPACE = 64 };

// What a state came to.
typedef enum { SD_STEP_MORE, SD_STEP_ON } sd_step; // it needs further bytes; it came further

typedef enum {
    SD_IN_TEXT,
    SD_IN_REASONING,
    SD_IN_JSON,
    SD_IN_JSON_TAIL, // behind a call's object
    SD_IN_RAW,       // arguments that are not JSON, up to the call's end
    SD_IN_MISTRAL,   // behind [TOOL_CALLS]
    SD_IN_XML,       // behind <tool_call>
    SD_IN_XML_NAME,
    SD_IN_XML_NEXT, // between parameters
    SD_IN_XML_KEY,
    SD_IN_XML_STRING,
    SD_IN_XML_VALUE, // one that is no string
    SD_IN_TAIL,      // behind a whole call: its closing marker, if it has one
    SD_IN_BLOCK,     // behind ```tool_code
    SD_IN_HEADER,    // of harmony, up to <|message|>
    SD_IN_BODY
} sd_answer_state;

// One JSON object that is a call, read byte by byte.
typedef struct {
    enum {
        SD_J_LIST,   // [ or {
        SD_J_OPEN,   // white space, then {
        SD_J_KEY,    // a key, or }
        SD_J_IN_KEY, // within its quotes
        SD_J_COLON,
        SD_J_VALUE, // white space, then the first byte of a value
        SD_J_IN_NAME,
        SD_J_SKIP,   // a value that says nothing here
        SD_J_OBJECT, // the arguments
        SD_J_STRING, // the arguments, written as a string
        SD_J_COMMA,  // , or }
    } at;
    char key[SD_CALL_NAME + 1], name[SD_CALL_NAME + 1];
    int n_key, n_name;
    int nested; // objects opened by "function"
    bool begun; // the call was told
    bool has_arguments;
    bool late;       // the arguments came before the name
    size_t from, to; // where these stand in held
    bool bare;       // the arguments alone: the name stood before them
    int depth;
    uint64_t brackets[4]; // a bit a level: 1 is an array
    bool in_string, escape;
    int hex;        // digits of \uXXXX that are still to come, within a string of arguments
    int code, high; // what they say; the first half of a pair
} sd_json_call;

struct sd_answer_parser {
    sd_answer_options o;
    sd_think_marks think;
    sd_delta_fn fn;
    void *ctx;
    bool failed, ending;
    sd_answer_state state;
    sd_buf held;
    size_t from, at;    // held: what is undecided begins; how far it was looked at
    bool fresh;         // nothing but white space since the beginning or a call
    bool begun;         // something was told or taken: <think> is no marker any more
    bool trim;          // white space in front of what follows is dropped
    int calls;          // that were told
    size_t fail;        // bytes of `from` that are content for sure if the call fails
    bool known;         // the call must name a tool
    bool bare;          // no marker: the grammar holds it at the answer's beginning alone
    bool said;          // content or a call was told
    bool list;          // calls stand in [ ]
    const char *close;  // the call's closing marker; NULL: none
    const char *close2; // another spelling of it
    const char *then;   // another marker that may stand behind it; NULL: none
    sd_json_call json;
    // qwen3-coder
    char key[SD_CALL_KEY + 1];
    char name[SD_CALL_NAME + 1];
    int n_parameters;
    int types; // that the parameter `key` may have (parameter.h)
    enum {
        SD_SCAN_BEGIN,
        SD_SCAN_JSON,
        SD_SCAN_WHOLE, // an object or a list, which has ended
        SD_SCAN_OVER
    } scan; // of a value, or harmony's message: whether it is within JSON
    size_t
        cut; // its first tag within a string of JSON, from the value's beginning, plus 1; 0: none
    // harmony
    sd_delta_kind body;
};

typedef enum { SD_FIND_NO, SD_FIND_PARTLY, SD_FIND_YES } sd_find;
/// Whether held[at..] begins with the marker; PARTLY: it may, once there is more. Never PARTLY at the end.
sd_find sd_answer_match(const sd_answer_parser *p, size_t at, const char *marker);
/// The first place from `at` on where one of n markers begins, or may begin (PARTLY); held.len: none.
size_t sd_answer_search(const sd_answer_parser *p, size_t at, const char *const *marker, int n,
                        int *which, sd_find *how);
void sd_answer_tell(sd_answer_parser *p, sd_delta_kind kind, const char *text, size_t len);
/// held[from..to) is told, and taken.
void sd_answer_tell_held(sd_answer_parser *p, sd_delta_kind kind, size_t to);
void sd_answer_begin_call(sd_answer_parser *p, const char *name);
void sd_answer_end_call(sd_answer_parser *p);   // on with text
void sd_answer_close_call(sd_answer_parser *p); // likewise, its closing marker is read
/// What seemed to be a call is content.
sd_step sd_answer_no_call(sd_answer_parser *p);
/// A JSON text as the inside of a string.
void sd_answer_tell_escaped(sd_answer_parser *p, const char *text, size_t len);
static inline bool sd_answer_space(char c) {
    return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}
/// The first place from `at` on that is no white space; held.len: none yet.
size_t sd_answer_skip_space(const sd_answer_parser *p, size_t at);
bool sd_answer_good_name(const char *name, size_t len);
/// The function of a tool, or NULL.
const json_t *sd_answer_function(const sd_answer_parser *p, const char *name);
/// Whether a call of the function, whose name's last byte stands in front of held[to], is no call: it is
/// strict, and in a form that its grammar does not hold.
bool sd_answer_escapes(const sd_answer_parser *p, const json_t *function, size_t to);
/// The tool's parameters as a JSON schema, or NULL. known: whether there is such a tool.
const json_t *sd_answer_tool(const sd_answer_parser *p, const char *name, bool *known);

// What a byte makes of a JSON value: there is more, it ends with this byte, or in front of it.
typedef enum { SD_VALUE_MORE, SD_VALUE_DONE, SD_VALUE_BEFORE, SD_VALUE_BROKEN } sd_value_end;
/// Not a check of the whole grammar: where the value ends, and that brackets and strings are sound.
sd_value_end sd_json_value_byte(sd_json_call *j, char c);
sd_step sd_answer_in_json(sd_answer_parser *p);
sd_step sd_answer_in_json_tail(sd_answer_parser *p);
sd_step sd_answer_in_raw(sd_answer_parser *p);
sd_step sd_answer_in_mistral(sd_answer_parser *p);
sd_step sd_answer_in_xml(sd_answer_parser *p);
sd_step sd_answer_in_block(sd_answer_parser *p);
sd_step sd_answer_in_header(sd_answer_parser *p);
sd_step sd_answer_in_body(sd_answer_parser *p);

/// Calls as Python writes them, f(a=1, b="x") on lines of their own, in a list or within print(), or NULL:
/// [{"name", "arguments" (JSON text)}, ...]. The caller's.
json_t *sd_python_calls(const sd_answer_parser *p, const char *text, size_t len);
