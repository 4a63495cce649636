// Decisions: typed questions about one text, each answered by the probabilities of its labels.
//
//     the questions        behind the system's turn, if there is one, in front of the text: prompts about
//     the text             other texts begin with the same tokens, which the prefix cache has
//     "NAME:"              begins the assistant's turn; a question adds these rows alone
//     " label"             what may follow, as tokens
//
// The labels of a question are the paths of a tree of tokens. A node with several tokens is read: the
// log probabilities of its tokens, and of no others, are made into shares. A label's probability is the
// product of the shares along its path: the law of an answer that is held to these labels. Labels of one
// token, the common case, are one node. Where one label's tokens begin another's, the tokens that end an answer
// stand for its end.
//
// A question's labels stand in one order, which biases small models. `permute` asks several times, with the
// labels turned on, and takes the mean.
#pragma once

#include "decode/serve/api/error.h"
#include "model/tokenizer/tokenizer.h"

enum {
    SD_DECIDE_MAX_QUESTIONS = 64,
    SD_DECIDE_MAX_LABELS = 255,
    SD_DECIDE_MAX_LEVELS = 10,
    SD_DECIDE_MAX_PERMUTE = 8,
    SD_DECIDE_MAX_LABEL = 256,     // bytes
    SD_DECIDE_MAX_ENDS = 16,       // tokens that end an answer
    SD_DECIDE_MAX_NODES = 2048,    // of all questions
    SD_DECIDE_MAX_ROWS = 64 << 10, // tokens of what is read behind the text, in all
    SD_DECIDE_BEGIN = 56           // bytes of "NAME:" with its 0
};

// clang-format off
// X(index, name): the name in a run's manifest (model/defaults.h)
#define SD_DECIDE_LIST(X) X(YES_NO, "yes_no") X(CHOICE, "choice") X(SCORE, "score")
#define SD_DECIDE_ENUM(index, name) SD_DECIDE_##index,
typedef enum { SD_DECIDE_LIST(SD_DECIDE_ENUM) SD_DECIDE_KINDS } sd_decide_kind;
#undef SD_DECIDE_ENUM
// clang-format on

typedef struct {
    const char *text;    // as the model says it
    const char *about;   // its description; NULL: none
    const json_t *value; // as the client knows it: a string, or a boolean
    sd_ids id;           // of " TEXT", behind "NAME:"
} sd_decide_label;

typedef struct {
    sd_decide_kind kind;
    const char *name; // NULL: none
    const char *instructions;
    sd_decide_label *label; // [n_labels]; a yes/no question's are yes and no
    int n_labels;
    char begin[SD_DECIDE_BEGIN]; // "NAME:"
    sd_ids begin_id;
    int *order; // [n_labels] labels in the order of their ids
    double *p;  // [n_labels] once it is answered
} sd_decide_question;

// A place where the paths of a question's labels part.
typedef struct {
    int question;
    const int32_t *path; // [n_path] tokens in front of it, behind "NAME:"
    int n_path;
    int32_t *token; // [n_tokens] the first n_next go on, the others end the answer
    int *upto; // [n_next + 1] places in `order`: next token i leads to labels [upto[i], upto[i+1])
    int n_tokens, n_next;
    int ended; // the label that ends here; -1: none does
} sd_decide_node;

typedef struct {
    json_t *kept;                 // holds the strings of questions
    sd_buf text;                  // what is asked about; until prompts are made
    sd_decide_question *question; // [n]
    int n, permute;
    size_t bytes;         // of the questions' texts
    sd_decide_node *node; // [n_nodes] a question's stand together, each before those below it
    int n_nodes, cap_nodes;
} sd_decide;

void sd_decide_free(sd_decide *d); // NULL is fine

/// Names by which questions are asked, once all are there.
void sd_decide_name(sd_decide *d);
/// Appends what the user's turn says: the questions, with labels in the order of this round, and the text.
/// False: out of memory, or over out's ceiling.
bool sd_decide_prompt(sd_buf *out, const sd_decide *d, int round);
/// The tree of labels; ends [n_ends <= SD_DECIDE_MAX_ENDS] end an answer. 0, or the status in e.
int sd_decide_plan(sd_decide *d, const sd_tokenizer *t, const int32_t *ends, int n_ends,
                   sd_api_error *e);
/// p of all questions <- the values of all nodes in all rounds: values(ctx, round * n_nodes + node) are the log
/// probabilities of its tokens. temperature [SD_DECIDE_KINDS] > 0: of each kind.
void sd_decide_answer(sd_decide *d, const double *temperature,
                      const float *(*values)(const void *ctx, int i), const void *ctx);

// ---- what an answer says

int sd_decide_likeliest(const sd_decide_question *q); // the first of the likeliest labels
/// The expected place among the labels.
double sd_decide_score(const sd_decide_question *q);
/// 0: as good as a guess, 1: certain. Of a choice how far the likeliest label stands above 1/n, of a score how
/// near to its likeliest level the others lie, against levels that are equally likely.
double sd_decide_confidence(const sd_decide_question *q);
