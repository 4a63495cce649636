// From the body to a request, the model it means, and token ids that fit its context.
//
// A text cannot have fewer tokens than its length over the longest token: megabytes that can never
// fit are refused before any of a request's texts is tokenised. What may fit is tokenised text by
// text, each a piece of work after which others' turns come; the first that is too long ends it.
#include "base/clock.h"
#include "decode/engine/bad_words.h"
#include "decode/serve/generation_private.h"
#include "model/chat.h"
#include "model/dialogue/tool_grammar.h"

enum { RENDER_SECONDS = 10 };    // a template's steps end it in one or two on an idle machine
enum { READ_SECONDS = 30 };      // for all pieces of a request
enum { MAX_EMBEDDED = 1 << 20 }; // tokens of all texts of a request for vectors or ranks
enum { MAX_REPLY = 64 << 20 };   // bytes of the answer to one that is only read

static int refuse_length(sd_api_error *e, const char *param, long long n, int ctx, bool at_least) {
    if (ctx == SD_API_MAX_READ + 1)
        return sd_api_fail(e, 400, param, "the prompt has %s%lld tokens; at most %d are counted",
                           at_least ? "at least " : "", n, SD_API_MAX_READ);
    sd_api_fail(
        e, 400, param,
        "the prompt has %s%lld tokens and the context holds %d; shorten the prompt or start "
        "the server with a larger --ctx",
        at_least ? "at least " : "", n, ctx);
    e->code = "context_length_exceeded";
    return e->status;
}

// Tokens that a prompt may have, and one more.
static int context(const sd_generation *g) {
    return g->dialect->read ? SD_API_MAX_READ + 1 : sd_server_stats(g->server).ctx;
}

// The number of tokens is known now.
static int check_length(sd_generation *g, const sd_ids *prompt, int ctx, sd_api_error *e) {
    const char *param = g->dialect->prompt_field;
    if (prompt->n == 0 && !g->dialect->read)
        return sd_api_fail(e, 400, param, "the prompt is empty; give at least one token");
    if (prompt->n >= ctx) return refuse_length(e, param, prompt->n, ctx, false);
    g->prompt_tokens += prompt->n;
    return 0;
}

static int check_texts(const sd_generation *g, const sd_api_prompt *list, int n, int ctx,
                       const char *param, sd_api_error *e) {
    const sd_model *m = g->server->local->model;
    for (int i = 0; i < n; i++) {
        const sd_api_prompt *p = &list[i];
        if (p->text && !m->tokenizer)
            return sd_api_fail(e, 400, param, "this model has no tokenizer; give token ids");
        size_t least =
            p->len / (g->server->local->longest_token ? g->server->local->longest_token : 1);
        if (p->text && least >= (size_t)ctx)
            return refuse_length(e, param, (long long)least, ctx, true);
        if (!p->text && p->n_ids >= ctx) return refuse_length(e, param, p->n_ids, ctx, false);
        for (int k = 0; k < p->n_ids; k++)
            if (p->ids[k] >= m->hp.V)
                return sd_api_fail(e, 400, param, "%s: token id %d is not below %d", param,
                                   (int)p->ids[k], m->hp.V);
    }
    return 0;
}

// Checks of all prompts that need no tokenising.
static int check_prompts(sd_generation *g, int ctx, sd_api_error *e) {
    const sd_model *m = g->server->local->model;
    const sd_embed *embed = g->request.embed;
    if (embed) return check_texts(g, embed->item, embed->n, ctx, g->dialect->prompt_field, e);
    if (check_texts(g, g->request.prompt, g->request.n_prompts, ctx, "prompt", e)) return e->status;
    if ((g->request.echo || g->dialect->read) && !m->tokenizer) {
        const char *param = g->request.echo ? "echo" : g->dialect->prompt_field;
        return sd_api_fail(e, 400, param, "%s: this model has no tokenizer", param);
    }
    return 0;
}

// Whether the first id is one that the tokenizer put in front of the text.
static bool begins_silently(const sd_generation *g, const sd_api_prompt *p, const sd_ids *ids) {
    const sd_tokenizer *t = g->server->local->model->tokenizer;
    const int32_t bos = sd_tokenizer_bos(t);
    size_t len = 0;
    if (bos < 0 || ids->n == 0 || ids->id[0] != bos) return false;
    const char *text = sd_tokenizer_bytes(t, bos, &len);
    bool said = len > 0 && p->len >= len && memcmp(p->text, text, len) == 0;
    return !said || (ids->n > 1 && ids->id[1] == bos);
}

static int encode_prompt(sd_generation *g, int i, sd_api_error *e) {
    const sd_api_prompt *p = &g->request.prompt[i];
    const int flags = SD_TOK_SPECIAL | (g->request.no_bos ? 0 : SD_TOK_ADD_BOS);
    sd_error err = {0};
    if (p->text && sd_tokenizer_encode(g->server->local->model->tokenizer, p->text, p->len, flags,
                                       &g->prompt[i], &err) != SD_OK)
        return sd_api_fail(e, 500, "prompt", "%s", err.message);
    if (p->text) g->silent[i] = begins_silently(g, p, &g->prompt[i]);
    if (!p->text && !sd_ids_add(&g->prompt[i], p->ids, p->n_ids))
        return sd_api_fail(e, 500, "prompt", "out of memory");
    return check_length(g, &g->prompt[i], context(g), e);
}

// What the request leaves out, as the model that it means wants to be asked. A prompt that is no
// conversation stays as it is.
static int fill(sd_generation *g, sd_api_error *e) {
    static const sd_defaults none;
    const sd_defaults *d = &sd_server_row(g->server, g->target)->defaults;
    sd_api_request *r = &g->request;
    sd_sampling *s = &r->sampling;
    sd_system_use use;
    sd_error err = {0};
    sd_asked a = {
        .value = {(double)s->temperature, (double)s->top_p, s->top_k, (double)s->min_p,
                  r->max_tokens},
        .given = {r->has_temperature, r->has_top_p, r->has_top_k, r->has_min_p, r->has_max_tokens}};
    if (sd_defaults_fill_system(&use, r->messages, d, &err) != SD_OK)
        return sd_api_fail(e, 500, "messages", "%s", err.message);
    if (r->decide) d = &none; // nothing is sampled
    sd_defaults_say_filled(g->defaults, sizeof g->defaults, &a, d, use);
    sd_defaults_say_departs(g->departs, sizeof g->departs, &a, d, use);
    sd_defaults_fill(&a, d);
    s->temperature = (float)a.value[SD_DEFAULT_TEMPERATURE];
    s->top_p = (float)a.value[SD_DEFAULT_TOP_P];
    s->top_k = (int)a.value[SD_DEFAULT_TOP_K];
    s->min_p = (float)a.value[SD_DEFAULT_MIN_P];
    r->max_tokens = (int)a.value[SD_DEFAULT_MAX_TOKENS];
    if (!r->has_max_tokens && r->max_tokens > 0 && r->max_tokens < r->shaping.min_tokens)
        r->max_tokens = r->shaping.min_tokens; // the client's own word
    return 0;
}

// What the answer is held to is compiled here, or found: its errors are the client's.
static int check_constraint(sd_generation *g, sd_api_error *e) {
    const sd_api_request *r = &g->request;
    const sd_grammar_spec want = {r->constraint, r->constraint_text, r->constraint_len};
    uint64_t tenant;
    sd_error err = {0};
    if (want.kind == SD_GRAMMAR_NONE) return 0;
    sd_grammar_release(g->grammar); // what stands behind reasoning was compiled alone before
    g->grammar = NULL;
    if (!g->server->local->grammars)
        return sd_api_fail(e, 400, r->constraint_param, "%s: this model has no tokenizer",
                           r->constraint_param);
    sd_status st = sd_generation_tenant(&tenant, g, &err);
    if (st == SD_OK)
        st = sd_grammar_cache_get_for(&g->grammar, g->server->local->grammars, tenant, &want, &err);
    const sd_serve_options *o = g->server->o;
    if (st == SD_OK && o->on_constraint) o->on_constraint(o->ctx, g->grammar);
    if (st == SD_OK) return 0;
    return sd_api_fail(e, st == SD_ENOMEM ? 500 : 400, r->constraint_param, "%s: %s",
                       r->constraint_param, err.message);
}

// Calls that must come, or whose arguments keep to a schema.
static bool forces_calls(const sd_api_request *r) {
    return r->tools && (r->tool_choice >= SD_API_TOOL_REQUIRED ||
                        (r->strict && r->tool_choice == SD_API_TOOL_AUTO));
}

static int check_tools(const sd_generation *g, const sd_dialogue *d, sd_api_error *e) {
    const sd_api_request *r = &g->request;
    if (!r->tools || r->tool_choice == SD_API_TOOL_NONE) return 0;
    if (d->format == SD_TOOL_NONE)
        return sd_api_fail(
            e, 400, "tools",
            "tools: this server was started with --tool-format none; leave the field out or "
            "give \"tool_choice\": \"none\"");
    if (r->constraint != SD_GRAMMAR_NONE)
        return sd_api_fail(
            e, 400, r->constraint_param,
            "%s holds the whole answer to a form in which there are no tool calls; leave it or the "
            "tools out, or give \"tool_choice\": \"none\"",
            r->constraint_param);
    if (forces_calls(r) && !sd_tool_grammar_has(d->format))
        return sd_api_fail(
            e, 400, r->strict ? "tools" : "tool_choice",
            "%s: this model's calls (%s) cannot be forced or held to a schema; give \"auto\" and "
            "leave \"strict\" out",
            r->strict ? "tools" : "tool_choice", sd_tool_format_name(d->format));
    return 0;
}

// Where the answer reasons, and what ends that behind its budget: a call or the answer follows.
static int find_reasoning(sd_generation *g, const sd_dialogue *d, sd_api_error *e) {
    const sd_api_request *r = &g->request;
    sd_error err = {0};
    bool must_call = r->tools && r->tool_choice >= SD_API_TOOL_REQUIRED;
    g->reasons = sd_dialogue_reasoning(&g->marks, d, !must_call);
    if (!g->reasons && r->budget_is_wish) return 0;
    if (r->reasoning_budget < 0) return 0;
    if (!g->reasons)
        return sd_api_fail(
            e, 400, r->reasoning_param,
            "%s: this model's answers have no reasoning that could be bounded; leave "
            "the field out",
            r->reasoning_param);
    if (sd_tokenizer_encode(g->server->local->model->tokenizer, g->marks.forced,
                            strlen(g->marks.forced), SD_TOK_SPECIAL | SD_TOK_GOES_ON, &g->closing,
                            &err) != SD_OK)
        return sd_api_fail(e, 500, r->reasoning_param, "%s", err.message);
    return 0;
}

// The answer's constraint, once it is known where the answer begins. Where there is reasoning in front of it,
// what the client asks for begins behind that.
static int constrain_answer(sd_generation *g, const sd_dialogue *d, sd_api_error *e) {
    sd_api_request *r = &g->request;
    bool behind = r->constraint != SD_GRAMMAR_NONE && g->reasons &&
                  (g->in_reasoning || r->reasoning_budget > 0);
    if (!behind && !forces_calls(r)) return 0;
    sd_tool_rules rules = {.form = {r->constraint, r->constraint_text, r->constraint_len},
                           .d = d,
                           .t = g->server->local->model->tokenizer,
                           .tools = behind ? NULL : r->tools,
                           .only = r->tool_choice == SD_API_TOOL_NAMED ? r->tool_index : -1,
                           .required = r->tool_choice != SD_API_TOOL_AUTO,
                           .parallel = r->parallel_calls && r->tool_choice != SD_API_TOOL_NAMED,
                           .in_reasoning = g->in_reasoning};
    sd_error err = {0};
    char *text = NULL;
    if (sd_tool_rules_write(&text, &rules, &err) != SD_OK)
        return sd_api_fail(e, 500, NULL, "%s", err.message);
    free(r->constraint_text);
    r->constraint_text = text;
    r->constraint_len = strlen(text);
    r->constraint = SD_GRAMMAR_CALLS;
    if (!behind) r->constraint_param = r->strict ? "tools" : "tool_choice";
    return check_constraint(g, e);
}

// Under --plain-user-text what users and tools say is letters alone, whatever tokens it spells.
static int guard_texts(const sd_generation *g, sd_api_error *e) {
    size_t i;
    json_t *message;
    sd_error err = {0};
    if (!g->server->o->plain_user_text) return 0;
    json_array_foreach(g->request.messages, i, message) {
        const json_t *content = json_object_get(message, "content");
        const char *role = json_string_value(json_object_get(message, "role"));
        const bool control = strcmp(role, "user") != 0 && strcmp(role, "tool") != 0;
        sd_buf text = sd_buf_make(4 * SD_HTTP_MAX_BODY);
        sd_status st =
            sd_tokenizer_guard(g->server->local->model->tokenizer, json_string_value(content),
                               json_string_length(content), control, &text, &err);
        if (st == SD_OK && json_object_set_new(message, "content",
                                               json_stringn(text.data ? text.data : "", text.len)))
            st = sd_fail(&err, SD_ENOMEM, "out of memory");
        sd_buf_free(&text);
        if (st != SD_OK) return sd_api_fail(e, 500, "messages", "%s", err.message);
    }
    return 0;
}

// Questions are asked of what a template writes, and the labels are to follow at once.
static int check_begins_with_text(const sd_generation *g, const sd_dialogue *d, sd_api_error *e) {
    if (!g->in_reasoning && d->format != SD_TOOL_HARMONY) return 0;
    return sd_api_fail(
        e, 400, g->dialect->prompt_field,
        "%s: this model's template begins an answer with reasoning, where no label can "
        "be read; ask a model that answers at once, or give chat_template_kwargs that "
        "switch the reasoning off",
        g->dialect->prompt_field);
}

static int encode_chat(sd_generation *g, int i, int ctx, sd_api_error *e) {
    const sd_model *m = g->server->local->model;
    const sd_models_row *row = sd_server_row(g->server, g->target);
    const sd_template *t = row->chat ? row->chat : m->chat;
    const sd_dialogue *d = &row->dialogue;
    sd_api_request *r = &g->request;
    const json_t *tools = r->tool_choice == SD_API_TOOL_NONE ? NULL : r->tools;
    json_t *messages = NULL;
    sd_error err = {0};
    size_t k, bytes = 0;
    json_t *message;
    r->n_prompts = i + 1;
    if (!m->tokenizer || !t)
        return sd_api_fail(
            e, 400, "messages",
            "this model has no usable chat template%s%s; use /v1/completions, or start "
            "the server with --chat-template FILE",
            m->chat_error ? ": " : "", m->chat_error ? m->chat_error : "");
    if ((i == 0 && fill(g, e)) || guard_texts(g, e)) return e->status;
    json_array_foreach(r->messages, k, message) bytes +=
        json_string_length(json_object_get(message, "content"));
    size_t least = bytes / (g->server->local->longest_token ? g->server->local->longest_token : 1);
    if (least >= (size_t)ctx) return refuse_length(e, "messages", (long long)least, ctx, true);
    if (check_tools(g, d, e)) return e->status;
    if (sd_dialogue_fold(&messages, d, r->messages, tools, &err) != SD_OK)
        return sd_api_fail(e, 500, "messages", "%s", err.message);
    sd_template_bounds bounds = {.stop = &g->cancelled,
                                 .deadline_ns = sd_now_ns() + RENDER_SECONDS * INT64_C(1000000000),
                                 .max_bytes = (size_t)ctx * g->server->local->longest_token};
    const sd_chat_form form = {.end = r->continues ? SD_CHAT_GOES_ON
                                      : r->no_turn ? SD_CHAT_ENDS
                                                   : SD_CHAT_ANSWERS,
                               .guarded = g->server->o->plain_user_text};
    sd_status st = sd_template_chat_ids(m, t, messages, d->tools ? tools : NULL,
                                        r->template_arguments, form, &bounds, &g->prompt[i], &err);
    json_decref(messages);
    if (st == SD_EINTERRUPTED)
        return sd_api_fail(e, 503, NULL, "the server ends; send the request again elsewhere");
    if (st != SD_OK)
        return sd_api_fail(e, st == SD_ENOMEM ? 500 : 400, "messages", "%s", err.message);
    g->in_reasoning = sd_dialogue_in_reasoning(d, m->tokenizer, g->prompt[i].id, g->prompt[i].n);
    if (r->decide && check_begins_with_text(g, d, e)) return e->status;
    if (find_reasoning(g, d, e) || constrain_answer(g, d, e)) return e->status;
    return check_length(g, &g->prompt[i], ctx, e);
}

// The questions with their labels in the order of this round, and the text, as a user says them.
static int encode_round(sd_generation *g, int round, sd_api_error *e) {
    sd_decide *d = g->request.decide;
    json_t *last = json_array_get(g->request.messages, json_array_size(g->request.messages) - 1);
    sd_buf text = sd_buf_make(4 * SD_HTTP_MAX_BODY);
    bool ok = sd_decide_prompt(&text, d, round) &&
              json_object_set_new(last, "content", json_stringn(text.data, text.len)) == 0;
    sd_buf_free(&text);
    if (!ok) return sd_api_fail(e, 500, g->dialect->prompt_field, "out of memory");
    if (encode_chat(g, round, context(g), e) || round + 1 < d->permute) return e->status;
    sd_buf_free(&d->text);
    return sd_generation_plan_readings(g, e);
}

// ---- texts that become vectors

// A client's text within a model's: under --plain-user-text it spells no token.
static sd_status add_client_text(sd_buf *out, const sd_generation *g, const char *text, size_t len,
                                 sd_error *err) {
    if (g->server->o->plain_user_text)
        return sd_tokenizer_guard(g->server->local->model->tokenizer, text, len, false, out, err);
    return sd_buf_add(out, text, len) ? SD_OK : sd_fail(err, SD_ENOMEM, "out of memory");
}

static sd_status add_pair(sd_buf *out, const sd_generation *g, const sd_api_prompt *item,
                          sd_error *err) {
    static const char query[] = "{query}", document[] = "{document}";
    const sd_embed *m = g->request.embed;
    const size_t q = sizeof query - 1, d = sizeof document - 1;
    sd_status st = SD_OK;
    for (const char *form = g->server->local->model->output.pair; *form;) {
        if (strncmp(form, query, q) == 0) {
            SD_TRY(add_client_text(out, g, m->query, m->query_len, err));
            form += q;
        } else if (strncmp(form, document, d) == 0) {
            SD_TRY(add_client_text(out, g, item->text, item->len, err));
            form += d;
        } else {
            SD_CHECK_ALLOC(sd_buf_add(out, form++, 1), err);
        }
    }
out:
    return st;
}

// A pair is written as the model says; else the one text behind the other, each with what the tokenizer puts around it.
static sd_status encode_text(sd_generation *g, const sd_api_prompt *item, sd_ids *out,
                             sd_error *err) {
    const sd_embed *m = g->request.embed;
    const sd_model *model = g->server->local->model;
    const int special = g->server->o->plain_user_text ? 0 : SD_TOK_SPECIAL;
    const int flags = special | SD_TOK_ADD_BOS | SD_TOK_ADD_LAST;
    sd_status st = SD_OK;
    sd_buf text = sd_buf_make(4 * SD_HTTP_MAX_BODY);
    if (!m->rank)
        return sd_tokenizer_encode(model->tokenizer, item->text, item->len, flags, out, err);
    if (model->output.pair) {
        SD_TRY(add_pair(&text, g, item, err));
        SD_TRY(sd_tokenizer_encode(model->tokenizer, text.data, text.len,
                                   SD_TOK_SPECIAL | (special ? 0 : SD_TOK_GUARDED), out, err));
        goto out;
    }
    SD_TRY(sd_tokenizer_encode(model->tokenizer, m->query, m->query_len, flags, out, err));
    SD_TRY(sd_tokenizer_encode(model->tokenizer, item->text, item->len, special | SD_TOK_ADD_LAST,
                               out, err));
out:
    sd_buf_free(&text);
    return st;
}

static int encode_item(sd_generation *g, int i, sd_api_error *e) {
    const sd_embed *m = g->request.embed;
    const sd_api_prompt *item = &m->item[i];
    sd_error err = {0};
    if (i == 0) g->item = sd_alloc((size_t)m->n, sizeof *g->item);
    if (!g->item) return sd_api_fail(e, 500, NULL, "out of memory");
    if (item->text ? encode_text(g, item, &g->item[i], &err) != SD_OK
                   : !sd_ids_add(&g->item[i], item->ids, item->n_ids))
        return sd_api_fail(e, 500, NULL, "%s", item->text ? err.message : "out of memory");
    if (check_length(g, &g->item[i], context(g), e)) return e->status;
    if (g->prompt_tokens > MAX_EMBEDDED)
        return sd_api_fail(e, 400, g->dialect->prompt_field,
                           "the texts have more than %d tokens together; give fewer at once",
                           MAX_EMBEDDED);
    if (i + 1 < m->n) return 0;
    return sd_generation_plan_readings(g, e);
}

// Whether the model gives what is asked for.
static int check_output(const sd_generation *g, sd_api_error *e) {
    const sd_model *m = g->server->local->model;
    const sd_output *o = &m->output;
    const sd_embed *embed = g->request.embed;
    if (!embed && o->no_head && !g->dialect->read)
        return sd_api_fail(e, 400, "model", "this model has no head and says nothing; ask it at %s",
                           o->labels ? "/v1/rerank" : "/v1/embeddings");
    if (!embed) return 0;
    if (embed->rank && !o->rank)
        return sd_api_fail(e, 400, "model",
                           o->labels
                               ? "this model's classifier has %d labels, which are no relevance; "
                                 "use a model that ranks"
                               : "this model states no classifier for ranks; use a model that "
                                 "ranks",
                           o->labels);
    if (embed->rank) return 0;
    if (o->labels > 0)
        return sd_api_fail(e, 400, "model",
                           "this model ranks and gives no vectors; use /v1/rerank");
    if (o->pooling == SD_POOL_NONE || o->pooling == SD_POOL_OTHER)
        return sd_api_fail(
            e, 400, "model",
            o->pooling == SD_POOL_NONE
                ? "this model states no pooling, so it gives no vectors; use one that "
                  "was made for embeddings"
                : "this model states a pooling that is not supported; mean and last "
                  "are");
    if (embed->dimensions > 0 && embed->dimensions != m->hp.C)
        return sd_api_fail(
            e, 400, "dimensions",
            "dimensions is %d and this model's vectors have %d; it states no shorter "
            "ones, so leave the field out",
            embed->dimensions, m->hp.C);
    return 0;
}

static int find_model(sd_generation *g, sd_api_error *e) {
    sd_served *served = &g->server->served;
    g->target = sd_served_hold(served, g->request.model);
    if (g->target) return 0;
    sd_buf known = sd_buf_make(400);
    sd_served_names(served, &known);
    sd_api_fail(e, 404, "model", "model '%.100s' is not served here; known: %s", g->request.model,
                known.data ? known.data : "");
    e->code = "model_not_found";
    sd_buf_free(&known);
    return e->status;
}

static int refuse_id(sd_api_error *e, const char *param, int32_t id, int V) {
    return sd_api_fail(e, 400, param, "%s: %d is not below %d", param, (int)id, V);
}

// The ids that it names are of the model's vocabulary, and its bad words become ids.
static int check_tokens(sd_generation *g, sd_api_error *e) {
    const sd_model *m = g->server->local->model;
    const sd_api_request *r = &g->request;
    const int V = m->hp.V;
    for (int i = 0; i < r->n_stop_token; i++)
        if (r->stop_token[i] >= V) return refuse_id(e, "stop_token_ids", r->stop_token[i], V);
    for (int i = 0; i < r->shaping.n_bias; i++)
        if (r->bias[i].token >= V) return refuse_id(e, "logit_bias", r->bias[i].token, V);
    for (int i = 0; i < r->shaping.n_allowed; i++)
        if (r->allowed[i] >= V) return refuse_id(e, "allowed_token_ids", r->allowed[i], V);
    for (int i = 0; i < r->n_bad_words; i++) {
        const char *word = json_string_value(r->bad_word[i]);
        size_t len = json_string_length(r->bad_word[i]);
        sd_error err = {0};
        sd_status st = sd_bad_word_add(&g->bad_words, m, word, len, &err);
        if (st != SD_OK)
            return sd_api_fail(e, st == SD_EINVAL ? 400 : 500, "bad_words", "bad_words[%d]: %s", i,
                               err.message);
    }
    return 0;
}

// The body becomes a request; what its numbers and lengths say is checked.
static int read_body(sd_generation *g, sd_api_error *e) {
    int bad = g->dialect->parse(&g->request, g->body.data, g->body.len, e);
    sd_buf_free(&g->body); // the request has its own copies
    if (bad || find_model(g, e) || check_output(g, e)) return e->status;
    if (check_tokens(g, e) || check_constraint(g, e)) return e->status;
    return g->request.kind == SD_API_CHAT ? 0 : check_prompts(g, context(g), e);
}

// The answer of a dialect that asks for no more than this.
static void write_read(sd_generation *g, sd_api_error *e) {
    const sd_read_prompt p = {.request = &g->request,
                              .tokenizer = g->server->local->model->tokenizer,
                              .id = g->prompt[0].id,
                              .n = g->prompt[0].n,
                              .ctx = sd_server_stats(g->server).ctx};
    g->reply.buf = sd_buf_make(MAX_REPLY);
    g->dialect->read(&g->reply, &p);
    if (g->reply.lost) sd_api_fail(e, 500, NULL, "out of memory");
}

bool sd_generation_read(sd_work *item) {
    sd_generation *g = item->ctx;
    sd_api_error *e = &g->error;
    const sd_serve_options *o = g->server->o;
    if (o->on_read && g->pieces_done == 0) o->on_read(o->ctx);
    if (atomic_load(&g->cancelled)) return false;
    int piece = g->pieces_done++;
    sd_memory_lost_clear();
    if (sd_now_ns() - g->arrival_ns > READ_SECONDS * INT64_C(1000000000))
        sd_api_fail(e, 503, NULL, "the request could not be read within %d seconds", READ_SECONDS);
    else if (piece == 0)
        read_body(g, e);
    else if (g->request.embed)
        encode_item(g, piece - 1, e);
    else if (g->request.decide)
        encode_round(g, piece - 1, e);
    else if (g->request.kind == SD_API_CHAT)
        encode_chat(g, 0, context(g), e);
    else
        encode_prompt(g, piece - 1, e);
    const int pieces = g->request.embed                 ? g->request.embed->n
                       : g->request.decide              ? g->request.decide->permute
                       : g->request.kind == SD_API_CHAT ? 1
                                                        : g->request.n_prompts;
    if (!e->status && piece == pieces && g->dialect->read) write_read(g, e);
    if (sd_memory_lost() && e->status < 500) sd_api_fail(e, 500, NULL, "out of memory");
    return !e->status && piece < pieces;
}
