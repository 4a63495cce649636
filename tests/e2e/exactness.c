// exactness -m MODEL [options] PROMPTS.jsonl: the whole matrix of speculative settings against
// plain decoding, on one open model. tests/e2e/exactness.py writes the prompts and calls it.
//
// Plain answers are computed once per temperature, by one sequence, two threads, the prompt in one
// piece. Every other answer is compared with them: plain ones of other batch sizes, threads and
// chunks, then each drafter with each draft length. An answer is identical when every token, the
// reason of its end, and every bit of every token's log probability are (its sum runs over the
// whole row of logits). Rows of logits are also held against each other whole, by memcmp.
//
// A drafter that was never right, or never wrong, has proven nothing and fails.
#include "base/clock.h"
#include "base/files/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/option.h"
#include "datasets/corpus/corpus_index.h"
#include "decode/engine/engine.h"
#include "tests/e2e/exact/logit_rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_FILE = 256 << 20, CHUNK = 33, BATCH = EXACT_BATCH, ONE_PIECE = 2048 };

typedef struct {
    const char *model, *adapter, *draft, *index;
    int64_t tokens, seed, rows;
    bool shaped;
    sd_strings temp, spec, length;
} args;

// clang-format off
static const sd_option options[] = {
    {.name = "model", .letter = 'm', .type = SD_OPT_STRING, .required = true, .offset = offsetof(args, model)},
    {.name = "adapter", .letter = 'a', .type = SD_OPT_STRING, .offset = offsetof(args, adapter)},
    {.name = "draft", .letter = 'd', .type = SD_OPT_STRING, .offset = offsetof(args, draft), .help = "a draft model"},
    {.name = "index", .type = SD_OPT_STRING, .offset = offsetof(args, index),
     .help = "a corpus index; without one it is made of the plain answers to every second prompt"},
    {.name = "tokens", .letter = 'n', .type = SD_OPT_INT, .def = "64", .min = 1, .max = 1 << 20,
     .offset = offsetof(args, tokens), .help = "cap of an answer"},
    {.name = "seed", .type = SD_OPT_INT, .def = "7", .offset = offsetof(args, seed), .help = "of the first prompt; the next has the next"},
    {.name = "rows", .type = SD_OPT_INT, .def = "8", .min = 1, .max = BATCH, .offset = offsetof(args, rows),
     .help = "prompts whose rows of logits are compared whole"},
    {.name = "shaped", .type = SD_OPT_FLAG, .offset = offsetof(args, shaped),
     .help = "under penalties, a bias, bad words from the prompt and a least length"},
    {.name = "temp", .type = SD_OPT_LIST, .offset = offsetof(args, temp), .help = "default 0 and 0.8"},
    {.name = "spec", .type = SD_OPT_LIST, .offset = offsetof(args, spec), .help = "suffix, index, draft, auto; default: all there are"},
    {.name = "length", .type = SD_OPT_LIST, .offset = offsetof(args, length), .help = "of drafts, 0: as they pay; default 0 1 3 8 48"},
    {0}};
// clang-format on

// How a request is decoded; none of it may be seen in the answer.
typedef struct {
    sd_spec_mode spec;
    int length, slots, threads;
    bool chunked;
} setting;

typedef struct {
    struct matrix *m;
    sd_ids ids;
    float *logprob; // [cap]
    sd_finish finish;
    int64_t step; // the last one that gave it tokens
    bool failed;
    char error[512];
} answer;

typedef struct matrix {
    args a;
    sd_model *model;
    sd_adapter *adapter;
    sd_corpus *corpus;
    int n, longest, ctx;
    sd_ids *prompt; // [n]
    answer *plain;  // [n], of the temperature at work
    answer *other;  // [n], of the setting at work
    float temperature;
    int64_t steps;
    int together, most_together; // sequences that decoded in this step, and in any of the setting
    int64_t answers, identical;
    bool failed;
} matrix;

static const char *mode_name(sd_spec_mode s) {
    static const char *const names[] = {"auto", "plain", "suffix", "index", "draft"};
    return names[s];
}

// ---- answering

static void on_event(void *ctx, const sd_event *ev) {
    answer *a = ctx;
    if (ev->n > 0 && a->ids.n > 0 && a->step != a->m->steps) a->m->together++;
    if (ev->n > 0) a->step = a->m->steps;
    for (int i = 0; i < ev->n; i++) {
        if (a->ids.n == a->m->a.tokens || !sd_ids_add(&a->ids, &ev->tokens[i].token, 1)) {
            a->failed = true;
            snprintf(a->error, sizeof a->error, "more tokens than asked for, or no memory");
            return;
        }
        a->logprob[a->ids.n - 1] = ev->tokens[i].logprob;
    }
    if (!ev->finish) return;
    a->finish = ev->finish;
    if (ev->finish != SD_FINISH_ERROR) return;
    a->failed = true;
    snprintf(a->error, sizeof a->error, "%s", ev->error ? ev->error : "unknown");
}

static void clear(answer *a, matrix *m) {
    a->m = m;
    a->ids.n = 0;
    a->finish = SD_FINISH_NONE;
    a->step = -1;
    a->failed = false;
}

static sd_status open_engine(sd_engine **out, const matrix *m, const setting *s, sd_error *err) {
    // In one piece also when a whole batch of prompts comes at once, as far as memory is no matter.
    int whole = m->longest * s->slots;
    if (whole > ONE_PIECE) whole = ONE_PIECE;
    if (whole < m->longest) whole = m->longest;
    bool model = s->spec == SD_SPEC_DRAFT || s->spec == SD_SPEC_AUTO;
    return sd_engine_open(out, m->model,
                          &(sd_engine_options){.ctx = m->ctx,
                                               .slots = s->slots,
                                               .prefill_chunk = s->chunked ? CHUNK : whole,
                                               .threads = s->threads,
                                               .spec = s->spec,
                                               .spec_length = s->length,
                                               .draft = model ? m->a.draft : NULL},
                          err);
}

// Every field at once. The bad words are two pairs of neighbours in the prompt, which answers like to
// copy.
static sd_request_shaping shaping_of(const matrix *m, const sd_ids *prompt, int32_t bad[6],
                                     sd_token_bias *bias) {
    const int32_t *end = prompt->id + prompt->n, *middle = prompt->id + prompt->n / 2;
    int words = prompt->n >= 4 ? 2 : 0;
    if (words) {
        memcpy(bad, (int32_t[]){2, end[-2], end[-1], 2, middle[-1], middle[0]}, 6 * sizeof *bad);
        *bias = (sd_token_bias){middle[0], 1.5f};
    }
    return (sd_request_shaping){.presence = .4f,
                                .frequency = .15f,
                                .repetition = 1.1f,
                                .bias = bias,
                                .n_bias = words > 0,
                                .bad_words = bad,
                                .n_bad_words = 3 * words,
                                .min_tokens = (int)m->a.tokens / 2};
}

// out [n] <- the answers to all prompts; *stats <- what was drafted.
static sd_status answer_all(answer *out, sd_spec_stats *stats, matrix *m, const setting *s,
                            sd_error *err) {
    sd_status st = SD_OK;
    sd_engine *e = NULL;
    SD_TRY(open_engine(&e, m, s, err));
    m->most_together = 0;
    for (int i = 0; i < m->n; i++) clear(&out[i], m);
    int next = 0, done = 0;
    while (done < m->n) {
        for (; next < m->n && next - done < 2 * s->slots; next++) {
            sd_request r = {.prompt = m->prompt[next].id,
                            .n_prompt = m->prompt[next].n,
                            .max_tokens = (int)m->a.tokens,
                            .sampling = {.temperature = m->temperature,
                                         .top_p = 1,
                                         .seed = (uint64_t)(m->a.seed + next)},
                            .logprobs = 0,
                            .adapter = m->adapter,
                            .corpus = m->corpus,
                            .spec = s->spec,
                            .on_event = on_event,
                            .ctx = &out[next]};
            int32_t bad[6];
            sd_token_bias bias;
            if (m->a.shaped) r.shaping = shaping_of(m, &m->prompt[next], bad, &bias);
            SD_TRY(sd_engine_submit(e, &r, NULL, err));
        }
        m->steps++, m->together = 0;
        sd_engine_step(e);
        if (m->together > m->most_together) m->most_together = m->together;
        for (int i = done = 0; i < next; i++) done += out[i].finish != SD_FINISH_NONE;
    }
    for (int i = 0; i < m->n; i++)
        SD_CHECK(!out[i].failed, err, SD_EIO, "prompt %d: %s", i + 1, out[i].error);
    sd_engine_stats es;
    sd_engine_get_stats(e, &es);
    *stats = es.spec;
out:
    sd_engine_close(e); // requests that are still inside point at `out`
    return st;
}

// ---- comparing

static void print_token(const char *who, const matrix *m, const answer *a, int at) {
    if (at >= a->ids.n) {
        printf(" %s ended (%s)", who, sd_finish_name(a->finish));
        return;
    }
    size_t len = 0;
    const char *text =
        m->model->tokenizer ? sd_tokenizer_bytes(m->model->tokenizer, a->ids.id[at], &len) : "";
    printf(" %s %d \"", who, a->ids.id[at]);
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        printf(c >= ' ' && c < 127 ? "%c" : "\\x%02x", c);
    }
    printf("\" (log probability %.9g)", (double)a->logprob[at]);
}

// The first place where the two differ; -1 when they are the same in every bit.
static int first_difference(const answer *a, const answer *b) {
    int n = a->ids.n < b->ids.n ? a->ids.n : b->ids.n;
    for (int i = 0; i < n; i++)
        if (a->ids.id[i] != b->ids.id[i] ||
            memcmp(&a->logprob[i], &b->logprob[i], sizeof *a->logprob) != 0)
            return i;
    return a->ids.n == b->ids.n && a->finish == b->finish ? -1 : n;
}

// Answers of `other` that are those of `plain`; the first three that are not are shown.
static int compare(const matrix *m) {
    int same = 0, shown = 0;
    for (int i = 0; i < m->n; i++) {
        int at = first_difference(&m->plain[i], &m->other[i]);
        same += at < 0;
        if (at < 0 || shown++ == 3) continue;
        printf("# prompt %d differs at token %d:", i + 1, at);
        print_token("plain", m, &m->plain[i], at);
        print_token("here", m, &m->other[i], at);
        putchar('\n');
    }
    return same;
}

static sd_status run_setting(sd_spec_stats *stats, matrix *m, const setting *s, sd_error *err) {
    sd_status st = SD_OK;
    double start = sd_now_s();
    SD_TRY(answer_all(m->other, stats, m, s, err));
    double seconds = sd_now_s() - start;
    int same = compare(m);
    m->answers += m->n, m->identical += same;
    char length[16];
    snprintf(length, sizeof length, s->length ? "%d" : "auto", s->length);
    printf("# %4g  %-6s  %6s  %5d  %7d  %-9s  %8d  %8lld  %8lld  %4d of %d  %7.1f s\n",
           (double)m->temperature, mode_name(s->spec), s->spec == SD_SPEC_OFF ? "" : length,
           s->slots, s->threads, s->chunked ? "in chunks" : "one piece", m->most_together,
           (long long)stats->accepted, (long long)(stats->drafted - stats->accepted), same, m->n,
           seconds);
    fflush(stdout);
    // Every sequence of a batch is there from the first step on, since the prompts come in one
    // piece.
    int want = m->n < s->slots ? m->n : s->slots;
    if (!s->chunked && m->longest * s->slots <= ONE_PIECE && m->a.tokens > 1 &&
        m->most_together < want) {
        printf("not ok - exactness: a batch of %d never decoded %d sequences in one step\n",
               s->slots, want);
        m->failed = true;
    }
out:
    return st;
}

// ---- rows of logits

static sd_status compare_rows(matrix *m, sd_error *err) {
    sd_status st = SD_OK;
    int64_t equal = 0, all = 0;
    int K = m->n < (int)m->a.rows ? m->n : (int)m->a.rows;
    exact_text text[EXACT_BATCH];
    for (int k = 0; k < K; k++)
        text[k] =
            (exact_text){m->prompt[k].id, m->plain[k].ids.id, m->prompt[k].n, m->plain[k].ids.n};
    SD_TRY(exact_compare_rows(&equal, &all, m->model, m->adapter, text, K, err));
    m->failed |= equal != all || all == 0;
    printf(
        "%s - exactness: %lld of %lld rows of logits equal by memcmp (%d prompts, blocks of 2 to "
        "512 rows, batch %d, threads 1 and 2)\n",
        equal == all && all > 0 ? "ok" : "not ok", (long long)equal, (long long)all, K, K);
    fflush(stdout);
out:
    return st;
}

// ---- the matrix

// A corpus of the plain answers to every second prompt: right for those, mostly wrong for the rest.
static sd_status make_corpus(matrix *m, sd_error *err) {
    sd_status st = SD_OK;
    sd_ids all = {0};
    int32_t end = -1;
    char path[] = "/tmp/exactness-XXXXXX";
    int fd = mkstemp(path);
    SD_CHECK(fd >= 0, err, SD_EIO, "%s: cannot be made", path);
    close(fd);
    for (int i = 0; i < m->n; i += 2)
        SD_CHECK_ALLOC(sd_ids_add(&all, m->plain[i].ids.id, m->plain[i].ids.n) &&
                           sd_ids_add(&all, &end, 1),
                       err);
    SD_TRY(sd_corpus_write(path, all.id, all.n, NULL, 0,
                           sd_tokenizer_fingerprint(m->model->tokenizer), NULL, err));
    SD_TRY(sd_corpus_open(&m->corpus, path, err));
    printf("# index: made of the plain answers to every second prompt (give --index for a real "
           "one)\n");
out:
    remove(path); // it stays mapped
    sd_ids_free(&all);
    return st;
}

static sd_status run_plain(matrix *m, sd_error *err) {
    sd_status st = SD_OK;
    static const setting others[] = {{SD_SPEC_OFF, 0, 1, 1, false},
                                     {SD_SPEC_OFF, 0, 1, 2, true},
                                     {SD_SPEC_OFF, 0, BATCH, 2, false}};
    sd_spec_stats stats;
    double start = sd_now_s();
    SD_TRY(answer_all(m->plain, &stats, m, &(setting){SD_SPEC_OFF, 0, 1, 2, false}, err));
    int64_t tokens = 0;
    for (int i = 0; i < m->n; i++) tokens += m->plain[i].ids.n;
    printf(
        "# %4g  plain: %d answers of %lld tokens, %.1f s; every line below is compared with them\n",
        (double)m->temperature, m->n, (long long)tokens, sd_now_s() - start);
    for (int i = 0; i < 3; i++) SD_TRY(run_setting(&stats, m, &others[i], err));
out:
    return st;
}

// Four of the eight combinations hold every pair of batch, threads and chunks; the lengths of a
// drafter take them in turn.
static setting choose(sd_spec_mode spec, int length, int turn) {
    static const setting variants[] = {{.slots = 1, .threads = 1, .chunked = false},
                                       {.slots = BATCH, .threads = 2, .chunked = false},
                                       {.slots = BATCH, .threads = 1, .chunked = true},
                                       {.slots = 1, .threads = 2, .chunked = true}};
    setting s = variants[turn % 4];
    s.spec = spec, s.length = length;
    return s;
}

static sd_status run_drafter(matrix *m, sd_spec_mode spec, int turn, sd_error *err) {
    sd_status st = SD_OK;
    int64_t accepted = 0, rejected = 0;
    for (int i = 0; i < m->a.length.n; i++) {
        sd_spec_stats stats;
        setting s = choose(spec, atoi(m->a.length.item[i]), turn + i);
        SD_TRY(run_setting(&stats, m, &s, err));
        accepted += stats.accepted, rejected += stats.drafted - stats.accepted;
    }
    bool proven = accepted > 0 && rejected > 0;
    m->failed |= !proven;
    printf("%s - exactness: %s at temperature %g had %lld drafts accepted and %lld rejected\n",
           proven ? "ok" : "not ok", mode_name(spec), (double)m->temperature, (long long)accepted,
           (long long)rejected);
    fflush(stdout);
out:
    return st;
}

static bool asked_for(const matrix *m, sd_spec_mode spec) {
    for (int i = 0; i < m->a.spec.n; i++)
        if (strcmp(m->a.spec.item[i], mode_name(spec)) == 0) return true;
    return m->a.spec.n == 0;
}

static sd_status run_matrix(matrix *m, sd_error *err) {
    static const sd_spec_mode modes[] = {SD_SPEC_SUFFIX, SD_SPEC_CORPUS, SD_SPEC_DRAFT,
                                         SD_SPEC_AUTO};
    sd_status st = SD_OK;
    printf("# temp  drafter length  batch  threads  prompt     together  accepted  rejected  "
           "identical\n");
    for (int t = 0; t < m->a.temp.n; t++) {
        m->temperature = strtof(m->a.temp.item[t], NULL);
        SD_TRY(run_plain(m, err));
        if (t == 0) SD_TRY(compare_rows(m, err));
        if (!m->corpus) SD_TRY(make_corpus(m, err));
        for (int d = 0; d < 4; d++) {
            if (!asked_for(m, modes[d])) continue;
            if (modes[d] == SD_SPEC_DRAFT && !m->a.draft)
                printf("# not run: draft (give --draft)\n");
            else
                SD_TRY(run_drafter(m, modes[d], 1 + 2 * (d + t), err));
        }
    }
    m->failed |= m->identical != m->answers;
    printf("%s - exactness: %lld of %lld answers identical\n",
           m->identical == m->answers ? "ok" : "not ok", (long long)m->identical,
           (long long)m->answers);
out:
    return st;
}

// ---- opening

static sd_status read_prompt(matrix *m, const char *path, const char *line, size_t len,
                             sd_error *err) {
    sd_status st = SD_OK;
    json_error_t je;
    json_t *o = json_loadb(line, len, JSON_REJECT_DUPLICATES, &je);
    SD_CHECK(o, err, SD_EFORMAT, "%s: line %d: %s", path, m->n + 1, je.text);
    const json_t *messages = json_object_get(o, "messages"), *text = json_object_get(o, "prompt");
    SD_CHECK(messages || json_string_length(text) > 0, err, SD_EFORMAT,
             "%s: line %d has neither `messages` nor `prompt`", path, m->n + 1);
    sd_ids *ids = &m->prompt[m->n];
    if (messages)
        SD_TRY(sd_model_chat_ids(m->model, messages, NULL, NULL, true, ids, err));
    else
        SD_TRY(sd_tokenizer_encode(m->model->tokenizer, json_string_value(text),
                                   json_string_length(text), SD_TOK_SPECIAL | SD_TOK_ADD_BOS, ids,
                                   err));
    m->n++;
    if (ids->n > m->longest) m->longest = ids->n;
out:
    json_decref(o);
    return st;
}

static sd_status read_prompts(matrix *m, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    char *data = NULL;
    size_t len, lines = 1;
    SD_TRY(sd_file_read(&data, &len, path, MAX_FILE, err));
    for (size_t i = 0; i < len; i++) lines += data[i] == '\n';
    m->prompt = sd_alloc(lines, sizeof *m->prompt);
    m->plain = sd_alloc(lines, sizeof *m->plain);
    m->other = sd_alloc(lines, sizeof *m->other);
    SD_CHECK_ALLOC(m->prompt && m->plain && m->other, err);
    for (char *p = data, *end = data + len; p < end;) {
        char *nl = memchr(p, '\n', (size_t)(end - p));
        size_t n = (size_t)((nl ? nl : end) - p);
        if (n > 0) SD_TRY(read_prompt(m, path, p, n, err));
        p += n + 1;
    }
    SD_CHECK(m->n > 0, err, SD_EINVAL, "%s: no prompts", path);
    for (int i = 0; i < m->n; i++) {
        m->plain[i].logprob = sd_alloc((size_t)m->a.tokens, sizeof(float));
        m->other[i].logprob = sd_alloc((size_t)m->a.tokens, sizeof(float));
        SD_CHECK_ALLOC(m->plain[i].logprob && m->other[i].logprob, err);
    }
    m->ctx = m->longest + (int)m->a.tokens + 1;
out:
    free(data);
    return st;
}

static sd_status open_all(matrix *m, const char *prompts, sd_error *err) {
    sd_status st = SD_OK;
    SD_TRY(sd_model_open(&m->model, m->a.model, err));
    SD_CHECK(m->model->tokenizer, err, SD_EINVAL, "%s: has no tokenizer; prompts need one",
             m->a.model);
    if (m->a.adapter) SD_TRY(sd_adapter_open(&m->adapter, m->a.adapter, m->model, false, err));
    if (m->a.index) {
        SD_TRY(sd_corpus_open(&m->corpus, m->a.index, err));
        SD_CHECK(sd_tokenizer_has_fingerprint(m->model->tokenizer, sd_corpus_tokenizer(m->corpus)),
                 err, SD_EINVAL, "%s: was made with another tokenizer than the model's",
                 m->a.index);
    }
    SD_TRY(read_prompts(m, prompts, err));
    if (m->a.temp.n == 0) m->a.temp = (sd_strings){{"0", "0.8"}, 2};
    if (m->a.length.n == 0) m->a.length = (sd_strings){{"0", "1", "3", "8", "48"}, 5};
out:
    return st;
}

static void close_all(matrix *m) {
    for (int i = 0; i < m->n; i++) {
        sd_ids_free(&m->prompt[i]);
        sd_ids_free(&m->plain[i].ids), free(m->plain[i].logprob);
        sd_ids_free(&m->other[i].ids), free(m->other[i].logprob);
    }
    free(m->prompt), free(m->plain), free(m->other);
    sd_corpus_close(m->corpus);
    sd_adapter_release(m->adapter);
    sd_model_release(m->model);
}

int main(int argc, char **argv) {
    sd_error e = {0}, *err = &e;
    sd_status st = SD_OK;
    matrix m = {0};
    sd_strings rest;
    sd_log_set_level(SD_LOG_WARN);
    SD_TRY(sd_options_parse(&rest, options, &m.a, argc - 1, argv + 1, err));
    SD_CHECK(rest.n == 1, err, SD_EINVAL, "exactness: give one file of prompts (JSON lines)");
    SD_TRY(open_all(&m, rest.item[0], err));
    SD_TRY(run_matrix(&m, err));
    st = m.failed ? SD_EMISMATCH : SD_OK;
    close_all(&m);
    return st == SD_OK ? 0 : 1;
out:
    printf("not ok - exactness: %s\n", e.message);
    close_all(&m);
    return 1;
}
