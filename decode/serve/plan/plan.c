// The sums of a plan. Models are opened as for serving, which maps their files and reads headers,
// vocabulary and templates; their weights are packed by nobody.
#include "decode/serve/plan/plan.h"

#include "base/cgroup.h"
#include "base/files/file.h"
#include "base/files/path.h"
#include "base/memory.h"
#include "decode/draft/drafter.h"
#include "decode/draft/open.h"
#include "decode/serve/api/request.h"
#include "decode/serve/generation.h"
#include "decode/serve/http/http.h"
#include "decode/serve/http/listener.h"
#include "decode/serve/provider/local.h"
#include "decode/serve/threads/workers.h"
#include "model/adapter/adapter.h"
#include "model/adapter/chat_template.h"
#include "model/chat.h"
#include "model/dialogue/dialogue.h"
#include "model/infer/backend.h"
#include "model/load/source.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

// What the front has of a request that waits, beside its prompt: its generation, choices and parsers.
enum { FRONT_BYTES = 32 << 10 };

// The files that are open while the sums are made.
typedef struct {
    sd_model *model, *draft;
    int **rank; // [n_adapters][model->n_linears]
    int n_adapters, *draft_rank;
    int forced; // tokens that end a request's reasoning, at most
    size_t factors, indexes, draft_index;
} files;

static void close_files(files *f) {
    for (int i = 0; f->rank && i < f->n_adapters; i++) free(f->rank[i]);
    free(f->rank);
    free(f->draft_rank);
    sd_model_release(f->draft);
    sd_model_release(f->model);
}

// ---- reading headers

static sd_status file_bytes(size_t *bytes, const char *path, sd_error *err) {
    int fd;
    sd_status st = sd_open_regular(&fd, bytes, path, err);
    if (st == SD_OK) close(fd);
    return st;
}

// What a template's reasoning may be ended with: each such token of a request has a mask of its own.
static sd_status count_forced(files *f, const sd_template *t, int tool_format, sd_error *err) {
    sd_status st = SD_OK;
    const sd_tokenizer *words = f->model->tokenizer;
    sd_dialogue d;
    sd_reasoning_marks marks;
    if (!t || !words) return SD_OK;
    SD_TRY(sd_dialogue_of(&d, f->model, t, tool_format - 1, err));
    for (int to_answer = 0; to_answer < 2; to_answer++) {
        sd_ids ids = {0};
        if (!sd_dialogue_reasoning(&marks, &d, to_answer)) break;
        st = sd_tokenizer_encode(words, marks.forced, strlen(marks.forced),
                                 SD_TOK_SPECIAL | SD_TOK_GOES_ON, &ids, err);
        if (ids.n > f->forced) f->forced = ids.n;
        sd_ids_free(&ids);
        if (st != SD_OK) break;
    }
out:
    return st;
}

static sd_status read_adapter_template(files *f, const char *path, int tool_format, sd_error *err) {
    sd_status st = SD_OK;
    sd_template *t = NULL;
    if (sd_model_template_is_taken(f->model)) return SD_OK;
    SD_TRY(sd_adapter_template(&t, path, err));
    SD_TRY(count_forced(f, t, tool_format, err));
out:
    sd_template_close(t);
    return st;
}

static sd_status read_adapter(files *f, int i, const char *spec, int tool_format, sd_error *err) {
    sd_status st = SD_OK;
    const char *path = sd_models_adapter_path(spec);
    sd_path_kind kind;
    size_t bytes;
    char *index = sd_path_join(path, "draft/corpus.idx");
    SD_CHECK_ALLOC(index, err);
    SD_CHECK(*path, err, SD_EINVAL, "-a %s: give NAME=PATH, such as my-model=runs/my, or a path",
             spec);
    f->rank[i] = sd_alloc((size_t)f->model->n_linears, sizeof **f->rank);
    SD_CHECK_ALLOC(f->rank[i], err);
    SD_TRY(sd_adapter_ranks(f->rank[i], path, f->model, err));
    f->factors += sd_adapter_bytes(f->rank[i], f->model);
    SD_TRY(read_adapter_template(f, path, tool_format, err));
    SD_TRY(sd_path_look(&kind, index, err)); // below an adapter that is a file there is none
    if (kind == SD_PATH_NONE) goto out;
    SD_TRY(file_bytes(&bytes, index, err));
    f->indexes += bytes;
out:
    free(index);
    return st;
}

static sd_status read_draft(files *f, const sd_engine_options *o, sd_error *err) {
    sd_status st = SD_OK;
    sd_draft_kind kind = SD_DRAFT_NONE;
    char *index = NULL;
    if (o->draft) SD_TRY(sd_draft_look(&kind, &index, o->draft, err));
    if (kind == SD_DRAFT_CORPUS) SD_TRY(file_bytes(&f->draft_index, index ? index : o->draft, err));
    if (kind == SD_DRAFT_MODEL) SD_TRY(sd_model_open(&f->draft, o->draft, err));
    SD_CHECK(!o->draft_adapter || f->draft, err, SD_EINVAL,
             "%s: an adapter of the draft needs a draft model; give one with -d", o->draft_adapter);
    if (!o->draft_adapter) goto out;
    f->draft_rank = sd_alloc((size_t)f->draft->n_linears, sizeof *f->draft_rank);
    SD_CHECK_ALLOC(f->draft_rank, err);
    SD_TRY(sd_adapter_ranks(f->draft_rank, o->draft_adapter, f->draft, err));
out:
    free(index);
    return st;
}

// What speculation was asked for has what it drafts from.
static sd_status check_spec(const files *f, const sd_engine_options *o, sd_error *err) {
    sd_status st = SD_OK;
    SD_CHECK(o->spec != SD_SPEC_CORPUS || f->draft_index || f->indexes, err, SD_EINVAL, "%s",
             sd_drafter_corpus.absent);
    SD_CHECK(o->spec != SD_SPEC_DRAFT || f->draft, err, SD_EINVAL, "%s", sd_drafter_model.absent);
out:
    return st;
}

static sd_status read_files(files *f, const sd_serve_options *o, sd_error *err) {
    sd_status st = SD_OK;
    sd_path_kind kind;
    const int n = o->adapters ? o->adapters->n : 0;
    SD_TRY(sd_path_look(&kind, o->model, err));
    SD_CHECK(kind != SD_PATH_NONE, err, SD_ENOTFOUND, "%s: no such model; check the path",
             o->model);
    SD_TRY(sd_model_open(&f->model, o->model, err));
    if (o->chat_template) {
        sd_template *t;
        SD_TRY(sd_chat_template_read(&t, o->chat_template, err));
        SD_TRY(sd_model_take_template(f->model, t, err));
    }
    SD_TRY(count_forced(f, f->model->chat, o->tool_format, err));
    f->rank = sd_alloc((size_t)n + 1, sizeof *f->rank);
    SD_CHECK_ALLOC(f->rank, err);
    for (; f->n_adapters < n; f->n_adapters++)
        SD_TRY(
            read_adapter(f, f->n_adapters, o->adapters->item[f->n_adapters], o->tool_format, err));
    SD_TRY(read_draft(f, &o->engine, err));
    SD_TRY(check_spec(f, &o->engine, err));
    if (o->key_file) {
        sd_keys keys;
        SD_TRY(sd_keys_load(&keys, o->keys, o->key_file, err));
        sd_keys_free(&keys);
    }
out:
    // The one that could not be read has its ranks too.
    if (st != SD_OK && f->rank && f->n_adapters < n) f->n_adapters++;
    return st;
}

static size_t mapped_bytes(const sd_model *m) {
    size_t sum = 0;
    for (int i = 0; m && i < sd_model_source_count(m); i++) sum += sd_model_source(m, i)->size;
    return sum;
}

// ---- the HTTP front

static size_t all_slots(const sd_engine_memory_plan *e) {
    return (size_t)e->slots + (size_t)e->reserve;
}

// Requests that the queue and the slots may hold: each client has its share beyond the limit, up to as much
// again (decode/engine/fair.h).
static size_t most_requests(const sd_engine_memory_plan *e) {
    return 2 * ((size_t)e->queue + all_slots(e)) + all_slots(e);
}

// A request that waits takes so much. Where its answer begins with its prompt, the front has the prompt too.
static size_t request_bytes(const sd_engine_memory_plan *e, const files *f) {
    return sd_engine_request_bytes(f->model, e->kv.longest, SD_API_MAX_STOP_TOKENS, f->forced) +
           (size_t)e->kv.longest * sizeof(int32_t) + FRONT_BYTES;
}

// Bytes kept of the vocabulary, of texts that were asked for, and of what requests are held to. Those in
// slots keep their states whatever others need, and one of them finds its next mask.
static size_t grammar_bytes(const sd_engine_memory_plan *e, const sd_model *m) {
    if (!m->tokenizer) return 0;
    return sd_vocab_most_bytes(m->tokenizer) + SD_GRAMMAR_MEMORY + SD_GRAMMAR_MASK_BYTES +
           all_slots(e) * SD_GRAMMAR_CACHE + most_requests(e) * SD_GRAMMAR_LEAST;
}

static size_t longest_token(const sd_model *m) {
    size_t longest = 1, len;
    for (int32_t i = 0; m->tokenizer && i < sd_tokenizer_size(m->tokenizer); i++) {
        sd_tokenizer_bytes(m->tokenizer, i, &len);
        if (len > longest) longest = len;
    }
    return longest;
}

// A slot's answer as text, at most what one may have: once for its client, once for the check at its end.
static size_t answer_bytes(const sd_engine_memory_plan *e, const sd_model *m) {
    const size_t text = (size_t)e->kv.longest * longest_token(m);
    return 2 * (text < SD_HTTP_MAX_BODY ? text : SD_HTTP_MAX_BODY);
}

// A body, its parsed form with a copy of its strings, and the text that a template makes of it.
static size_t reader_bytes(void) {
    return 3 * (size_t)SD_HTTP_MAX_BODY + (size_t)SD_API_MAX_CONTAINERS * 250 +
           (size_t)SD_API_MAX_VALUES * 40;
}

static size_t resident_bytes(void) {
    long pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f && fscanf(f, "%*s %ld", &pages) != 1) pages = 0;
    if (f) fclose(f);
    return (size_t)pages * (size_t)sysconf(_SC_PAGESIZE);
}

// What loads may bring beside the adapters of the start, and about as much for their packed forms.
static size_t to_come(const sd_serve_options *o, const files *f) {
    const size_t most = o->adapter_memory ? o->adapter_memory : SD_ADAPTER_MEMORY,
                 there = f->factors + f->indexes;
    return o->adapter_root && most > there ? 2 * (most - there) : 0;
}

// ---- rows

static void add(sd_serve_plan *p, const char *key, const char *part, size_t bytes, bool grows) {
    if (bytes == 0) return;
    p->row[p->n++] = (sd_serve_plan_row){key, part, bytes, grows};
    p->most += bytes;
    if (!grows) p->start += bytes;
}

// The parts of one kind.
static void add_rows(sd_serve_plan *p, const files *f, const sd_serve_options *o, size_t program,
                     bool of_growing) {
    const sd_engine_memory_plan *e = &p->engine;
    const sd_model *m = f->model;
    const struct {
        size_t adapter_factors, indexes, program, adapters_to_come, grammars, request_bodies,
            requests, answers, readers, sockets, outbox;
    } own = {.adapter_factors = f->factors,
             .indexes = f->indexes,
             .program = program,
             .adapters_to_come = to_come(o, f),
             .grammars = grammar_bytes(e, m),
             .request_bodies = o->body_memory ? o->body_memory : SD_BODY_MEMORY,
             .requests = most_requests(e) * request_bytes(e, f),
             .answers = all_slots(e) * answer_bytes(e, m),
             .readers = SD_WORKERS * reader_bytes(),
             .sockets = (size_t)p->sockets * sd_listener_socket_bytes(o->tls_cert != NULL),
             .outbox = sd_outbox_most_bytes()};
#define ROW(member, grows, words)                                                                  \
    if (of_growing == (grows)) add(p, #member, words, e->memory.member, grows);
    SD_ENGINE_MEMORY_LIST(ROW)
#undef ROW
#define ROW(member, grows, words)                                                                  \
    if (of_growing == (grows)) add(p, #member, words, own.member, grows);
    SD_SERVE_MEMORY_LIST(ROW)
#undef ROW
}

static void count_positions(sd_serve_plan *p, const sd_model *m) {
    int full = 0;
    for (int l = 0; l < m->hp.L; l++) full += m->layer[l].window == 0;
    for (sd_kv_type t = SD_KV_F16; t < SD_KV_TYPES; t++) {
        size_t head =
            (size_t)m->hp.D * sd_kv_value_bytes(t) + (t == SD_KV_INT8 ? sizeof(float) : 0);
        p->kv_position[t] = (size_t)(full ? full : m->hp.L) * 2 * (size_t)m->hp.G * head;
    }
}

sd_status sd_serve_plan_make(sd_serve_plan *out, const sd_serve_options *o, sd_error *err) {
    sd_status st = SD_OK;
    files f = {0};
    const sd_backend *device = o->engine.backend;
    *out = (sd_serve_plan){.available = device && device->own_memory ? 0 : sd_memory_available("")};
    SD_TRY(read_files(&f, o, err));
    const size_t program = resident_bytes();
    const sd_local_options local = {.models = {.pack_dir = o->pack_dir}, .engine = o->engine};
    const sd_engine_options engine = sd_local_engine_options(&local);
    const sd_engine_load load = {.rank = (const int *const *)f.rank,
                                 .n_adapters = f.n_adapters,
                                 .draft = f.draft,
                                 .draft_rank = f.draft_rank,
                                 .draft_index = f.draft_index};
    SD_TRY(sd_engine_plan_memory(&out->engine, f.model, &engine, &load, err));
    out->mapped = mapped_bytes(f.model) + mapped_bytes(f.draft);
    out->sockets = sd_listener_most_sockets();
    count_positions(out, f.model);
    add_rows(out, &f, o, program, false);
    add_rows(out, &f, o, program, true);
out:
    close_files(&f);
    return st;
}

const char *sd_serve_plan_remedy(const sd_serve_plan *p) {
    static const struct {
        const char *key, *remedy;
    } by[] = {{"kv_pages", "--kv-memory, --slots or --ctx, or give --kv int8"},
              {"draft_kv", "--draft-kv"},
              {"slots", "--slots or --ctx"},
              {"steps", "--slots or --prefill-chunk"},
              {"draft_weights", "the draft model's size: another -d, or none"},
              {"weights", "the model's size: a file of fewer bits a weight"},
              {"adapters", "the number of adapters (-a)"},
              {"adapter_factors", "the number of adapters (-a)"},
              {"adapters_to_come", "--adapter-memory"},
              {"request_bodies", "--body-memory"},
              {"requests", "--queue or --ctx"},
              {"answers", "--slots or --ctx"},
              {"grammars", "--slots"},
              {"sockets", "the limit of open files (ulimit -n)"}};
    const char *remedy = NULL;
    size_t largest = 0;
    if (p->available == 0 || p->most <= p->available) return NULL;
    for (int i = 0; i < p->n; i++)
        for (size_t k = 0; k < sizeof by / sizeof by[0]; k++)
            if (strcmp(by[k].key, p->row[i].key) == 0 && p->row[i].bytes > largest)
                largest = p->row[i].bytes, remedy = by[k].remedy;
    return remedy;
}
