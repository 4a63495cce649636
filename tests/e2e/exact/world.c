// The architectures and the types of weights that there are, each once or twice, with windows, with heads
// that share their keys, as a GGUF file and as a folder.
#include "tests/e2e/exact/world.h"

#include "base/files/path.h"
#include "decode/engine/engine.h"
#include "model/dialogue/tool_grammar.h"
#include "tests/e2e/exact/answer.h"
#include "tests/e2e/exact/dice.h"
#include "tests/e2e/exact/text.h"
#include "tests/unit/support/tiny/model.h"

#include <stdio.h>
#include <string.h>

enum { CTX = 512, RANK = 4, INDEXED = 10, QUESTION = 40, ANSWER = 40 };

typedef struct {
    const char *name;
    const sd_arch *arch;
    int L, C, H, G, D, F, window;
    sd_dtype dtype;
    sd_rope_scaling scaling;
    bool folder, longrope;
} recipe;

static const recipe recipes[EXACT_WORLDS] = {
    {"llama F32", &sd_arch_llama, 2, 64, 4, 2, 16, 96, 0, SD_F32, SD_ROPE_NONE, false, false},
    {"gemma3 Q8_0, window 70", &sd_arch_gemma3, 3, 64, 4, 1, 24, 96, 70, SD_Q8_0, 0, false, false},
    {"qwen2 Q4_0", &sd_arch_qwen2, 2, 64, 4, 1, 16, 96, 0, SD_Q4_0, SD_ROPE_NONE, false, false},
    {"qwen3 bf16 folder", &sd_arch_qwen3, 2, 64, 4, 2, 24, 96, 0, SD_BF16, 0, true, false},
    {"phi3 Q8_0, window 100", &sd_arch_phi3, 2, 64, 4, 2, 16, 96, 100, SD_Q8_0, 0, false, true},
    {"llama Q6_K", &sd_arch_llama, 2, 256, 4, 4, 64, 256, 0, SD_Q6_K, SD_ROPE_YARN, false, false},
    {"gemma3 bf16 folder, window 16", &sd_arch_gemma3, 2, 64, 4, 2, 24, 96, 16, SD_BF16, 0, true,
     false},
    {"llama bf16 folder, scaled", &sd_arch_llama, 2, 64, 8, 2, 8, 96, 0, SD_BF16, SD_ROPE_LLAMA3,
     true, false},
    {"qwen2 Q8_0", &sd_arch_qwen2, 3, 64, 4, 4, 16, 96, 0, SD_Q8_0, SD_ROPE_NONE, false, false},
};

static sd_tiny_model tiny_of(const recipe *r) {
    sd_tiny_model t = sd_tiny_default(r->arch);
    t.L = r->L, t.C = r->C, t.H = r->H, t.G = r->G, t.D = r->D, t.F = r->F;
    t.ctx = CTX, t.window = r->window, t.dtype = r->dtype, t.scaling = r->scaling;
    t.longrope = r->longrope;
    return t;
}

static sd_status write_model(char **out, const char *dir, const char *name, const sd_tiny_model *t,
                             bool folder, sd_error *err) {
    sd_status st = SD_OK;
    char file[64];
    snprintf(file, sizeof file, "%s%s", name, folder ? "" : ".gguf");
    *out = sd_path_join(dir, file);
    SD_CHECK_ALLOC(*out, err);
    st = folder ? sd_tiny_write_folder(*out, t, err) : sd_tiny_write_gguf(*out, t, err);
out:
    return st;
}

static sd_status make_adapter(sd_adapter **out, sd_model *m, int number, sd_error *err) {
    sd_status st = SD_OK;
    dice d = dice_for(1, DICE_WORLD, number);
    char name[16];
    sd_lora *lora = sd_alloc((size_t)m->n_linears, sizeof *lora);
    SD_CHECK_ALLOC(lora, err);
    for (int i = 0; i < m->n_linears; i++) {
        int rows = m->linear[i].w.rows, cols = m->linear[i].w.cols;
        float *f = sd_alloc((size_t)(RANK * (rows + cols)), sizeof *f);
        SD_CHECK_ALLOC(f, err);
        for (int k = 0; k < RANK * (rows + cols); k++) f[k] = (float)roll_in(&d, -100, 100) * 1e-3f;
        // The last of them leaves every second map as it is.
        int r = number == EXACT_ADAPTERS - 1 && i % 2 ? 0 : RANK;
        lora[i] = (sd_lora){.r = r, .A = f, .B = f + RANK * cols, .scale = 1};
    }
    snprintf(name, sizeof name, "adapter%d", number);
    SD_TRY(sd_adapter_from_factors(out, name, lora, m, err));
out:
    for (int i = 0; lora && i < m->n_linears; i++) free((void *)(uintptr_t)lora[i].A);
    free(lora);
    return st;
}

// What an index is asked from: texts that repeat themselves, or questions as the suite's.
static sd_status make_question(sd_ids *out, const exact_world *w, dice *d, sd_error *err) {
    sd_status st = SD_OK;
    sd_buf text = sd_buf_make(1 << 16);
    if (w->real) {
        SD_CHECK_ALLOC(exact_text_question(&text, d) && sd_buf_adds(&text, exact_text_answer), err);
        SD_TRY(sd_tokenizer_encode(w->model->tokenizer, text.data, text.len,
                                   SD_TOK_SPECIAL | SD_TOK_ADD_BOS, out, err));
        goto out;
    }
    for (int k = 0; k < QUESTION; k++) {
        int32_t token = k < 12 || one_in(d, 9) ? roll(d, 250) : out->id[k - 12];
        SD_CHECK_ALLOC(sd_ids_add(out, &token, 1), err);
    }
out:
    sd_buf_free(&text);
    return st;
}

// The answers of the base or of an adapter, with some tokens replaced: mostly right for prompts that are
// alike.
static sd_status ask(sd_ids *out, exact_world *w, int number, sd_error *err) {
    sd_status st = SD_OK;
    sd_engine *e = NULL;
    sd_ids question = {0};
    exact_answer a[INDEXED] = {0};
    dice d = dice_for(1, DICE_TEXT, number);
    sd_engine_options o = {.ctx = CTX, .threads = !w->real, .spec = SD_SPEC_OFF};
    SD_TRY(sd_engine_open(&e, w->model, &o, err));
    for (int i = 0; i < INDEXED; i++) {
        question.n = 0;
        SD_TRY(make_question(&question, w, &d, err));
        sd_request r = {.prompt = question.id,
                        .n_prompt = question.n,
                        .max_tokens = w->real ? ANSWER / 2 : ANSWER,
                        .sampling = {.temperature = i % 2 ? .1f : 0, .top_p = 1},
                        .ignore_end = true,
                        .logprobs = -1,
                        .adapter = number ? w->adapter[number - 1] : NULL,
                        .on_event = exact_collect,
                        .ctx = &a[i]};
        SD_TRY(sd_engine_submit(e, &r, NULL, err));
    }
    while (sd_engine_step(e)) {
    }
    for (int i = 0; i < INDEXED; i++) {
        const int32_t end = -1;
        for (int k = 0; k < a[i].n; k++) {
            int32_t token = one_in(&d, 12) ? roll(&d, 250) : a[i].token[k].token;
            SD_CHECK_ALLOC(sd_ids_add(out, &token, 1), err);
        }
        SD_CHECK_ALLOC(sd_ids_add(out, &end, 1), err);
    }
out:
    sd_engine_close(e);
    for (int i = 0; i < INDEXED; i++) exact_answer_free(&a[i]);
    sd_ids_free(&question);
    return st;
}

// Copies that nobody made: behind any token a prompt may be repeated, for as long as it goes.
static int invent_copies(sd_corpus_copy *out, const sd_ids *all) {
    int n = 0;
    for (int i = 0; i + 2 < all->n; i += 5)
        if (all->id[i] >= 0 && all->id[i + 1] >= 0)
            out[n++] = (sd_corpus_copy){i, 2, {-1, -1, 31 * i % 250}, -1, i % 2};
    return n;
}

static sd_status make_index(exact_world *w, int number, sd_error *err) {
    sd_status st = SD_OK;
    sd_ids all = {0};
    sd_corpus_copy *copies = NULL;
    char *path = NULL, name[32];
    SD_TRY(ask(&all, w, number, err));
    copies = sd_alloc((size_t)all.n + 1, sizeof *copies);
    SD_CHECK_ALLOC(copies, err);
    snprintf(name, sizeof name, "corpus%d.idx", number);
    path = sd_path_join(w->dir, name);
    SD_CHECK_ALLOC(path, err);
    SD_TRY(sd_corpus_write(path, all.id, all.n, copies, invent_copies(copies, &all),
                           sd_tokenizer_fingerprint(w->model->tokenizer), NULL, err));
    SD_TRY(sd_corpus_open(&w->index[number], path, err));
out:
    sd_ids_free(&all);
    free(copies);
    free(path);
    return st;
}

// The part behind the models, the same for both kinds of worlds.
static sd_status furnish(exact_world *w, sd_error *err) {
    sd_status st = SD_OK;
    for (int i = 0; i < EXACT_ADAPTERS; i++) SD_TRY(make_adapter(&w->adapter[i], w->model, i, err));
    for (int i = 0; i <= EXACT_ADAPTERS; i++) SD_TRY(make_index(w, i, err));
    SD_TRY(sd_grammar_cache_open(&w->grammars, w->model->tokenizer, err));
    sd_grammar_cache_take_calls(w->grammars, sd_gb_tool_rules);
    w->dialogue = (sd_dialogue){.format = SD_TOOL_HERMES};
out:
    return st;
}

sd_status exact_world_generate(exact_world *w, int number, sd_error *err) {
    sd_status st = SD_OK;
    const recipe *r = &recipes[number];
    sd_tiny_model t = tiny_of(r), near = t, other = t;
    sd_model *draft = NULL;
    sd_adapter *a = NULL;
    char *path = NULL;
    bool blocks = r->dtype == SD_Q6_K; // of random bits: nothing is near them but themselves
    near.dtype = blocks ? SD_Q6_K : SD_Q8_0;
    other.seed = 99;
    w->name = r->name;
    w->dir = sd_tiny_dir();
    SD_CHECK(w->dir, err, SD_EIO, "no directory for generated models under /tmp");
    SD_TRY(write_model(&path, w->dir, "model", &t, r->folder, err));
    SD_TRY(write_model(&w->draft[0], w->dir, "near", &near, false, err));
    SD_TRY(write_model(&w->draft[1], w->dir, "other", &other, r->folder, err));
    SD_TRY(sd_model_open(&w->model, path, err));
    SD_TRY(furnish(w, err));
    SD_TRY(sd_model_open(&draft, w->draft[0], err));
    SD_TRY(make_adapter(&a, draft, 0, err));
    w->draft_adapter = sd_path_join(w->dir, "draft_adapter");
    SD_CHECK_ALLOC(w->draft_adapter, err);
    SD_TRY(sd_mkdirs(w->draft_adapter, err));
    SD_TRY(sd_adapter_write_peft(w->draft_adapter, a, draft, NULL, err));
out:
    sd_adapter_release(a);
    sd_model_release(draft);
    free(path);
    return st;
}

sd_status exact_world_open(exact_world *w, const char *path, sd_error *err) {
    sd_status st = SD_OK;
    const char *slash = strrchr(path, '/');
    w->name = slash && slash[1] ? slash + 1 : path;
    w->real = true;
    w->dir = sd_tiny_dir();
    SD_CHECK(w->dir, err, SD_EIO, "no directory for an index under /tmp");
    SD_TRY(sd_model_open(&w->model, path, err));
    SD_CHECK(w->model->tokenizer, err, SD_EINVAL, "%s: has no tokenizer; prompts need one", path);
    for (int i = 0; i < EXACT_DRAFTS; i++) {
        w->draft[i] = sd_strdup(path);
        SD_CHECK_ALLOC(w->draft[i], err);
    }
    SD_TRY(furnish(w, err));
out:
    return st;
}

void exact_world_close(exact_world *w) {
    sd_grammar_cache_close(w->grammars);
    for (int i = 0; i <= EXACT_ADAPTERS; i++) sd_corpus_close(w->index[i]);
    for (int i = 0; i < EXACT_ADAPTERS; i++) sd_adapter_release(w->adapter[i]);
    for (int i = 0; i < EXACT_DRAFTS; i++) free(w->draft[i]);
    free(w->draft_adapter);
    sd_model_release(w->model);
    sd_tiny_remove(w->dir);
    *w = (exact_world){0};
}
