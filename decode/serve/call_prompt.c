// From the body to a request, the model it means, and token ids that fit its context.
//
// A text cannot have fewer tokens than its length over the longest token: megabytes that can never
// fit are refused before they are tokenised.
#include "base/clock.h"
#include "decode/serve/call.h"

enum { RENDER_SECONDS = 10 }; // a template's steps end it in one or two on an idle machine

static int refuse_length(sd_api_error *e, const char *param, long long n, int ctx, bool at_least) {
    sd_api_fail(
        e, 400, param,
        "the prompt has %s%lld tokens and the context holds %d; shorten the prompt or start "
        "the server with a larger --ctx",
        at_least ? "at least " : "", n, ctx);
    e->code = "context_length_exceeded";
    return e->status;
}

static int encode_text(sd_call *j, int i, int ctx, sd_api_error *e) {
    const sd_api_prompt *p = &j->request.prompt[i];
    const sd_model *m = j->server->model;
    sd_error err = {0};
    if (!m->tokenizer)
        return sd_api_fail(e, 400, "prompt", "this model has no tokenizer; give token ids");
    size_t least = p->len / (j->server->longest_token ? j->server->longest_token : 1);
    if (least >= (size_t)ctx) return refuse_length(e, "prompt", (long long)least, ctx, true);
    if (sd_tokenizer_encode(m->tokenizer, p->text, p->len, SD_TOK_SPECIAL | SD_TOK_ADD_BOS,
                            &j->prompt[i], &err) != SD_OK)
        return sd_api_fail(e, 500, "prompt", "%s", err.message);
    return 0;
}

static int encode_completion(sd_call *j, int ctx, sd_api_error *e) {
    const sd_model *m = j->server->model;
    for (int i = 0; i < j->request.n_prompts; i++) {
        const sd_api_prompt *p = &j->request.prompt[i];
        for (int k = 0; k < p->n_ids; k++)
            if (p->ids[k] >= m->hp.V)
                return sd_api_fail(e, 400, "prompt", "prompt: token id %d is not below %d",
                                   (int)p->ids[k], m->hp.V);
        if (p->text && encode_text(j, i, ctx, e)) return e->status;
        if (!p->text && !sd_ids_add(&j->prompt[i], p->ids, p->n_ids))
            return sd_api_fail(e, 500, "prompt", "out of memory");
    }
    if (j->request.echo && !m->tokenizer)
        return sd_api_fail(e, 400, "echo", "echo: this model has no tokenizer");
    return 0;
}

static int encode_chat(sd_call *j, int ctx, sd_api_error *e) {
    const sd_model *m = j->server->model;
    sd_api_request *r = &j->request;
    sd_error err = {0};
    size_t i, bytes = 0;
    json_t *message;
    r->n_prompts = 1;
    if (!m->tokenizer || !m->chat)
        return sd_api_fail(e, 400, "messages",
                           "this model has no usable chat template%s%s; use /v1/completions",
                           m->chat_error ? ": " : "", m->chat_error ? m->chat_error : "");
    json_array_foreach(r->messages, i, message) bytes +=
        json_string_length(json_object_get(message, "content"));
    size_t least = bytes / (j->server->longest_token ? j->server->longest_token : 1);
    if (least >= (size_t)ctx) return refuse_length(e, "messages", (long long)least, ctx, true);
    sd_template_bounds bounds = {.stop = &j->cut,
                                 .deadline_ns = sd_now_ns() + RENDER_SECONDS * INT64_C(1000000000),
                                 .max_bytes = (size_t)ctx * j->server->longest_token};
    sd_status st = sd_model_chat_ids_within(m, r->messages, NULL, r->template_arguments, true,
                                            &bounds, &j->prompt[0], &err);
    if (st == SD_EINTERRUPTED)
        return sd_api_fail(e, 503, NULL, "the server ends; send the request again elsewhere");
    if (st != SD_OK)
        return sd_api_fail(e, st == SD_ENOMEM ? 500 : 400, "messages", "%s", err.message);
    return 0;
}

static int encode(sd_call *j, sd_api_error *e) {
    sd_engine_stats stats;
    sd_engine_get_stats(j->server->engine, &stats);
    bool chat = j->answer.kind == SD_API_CHAT;
    if (chat ? encode_chat(j, stats.ctx, e) : encode_completion(j, stats.ctx, e)) return e->status;
    for (int i = 0; i < j->request.n_prompts; i++) {
        if (j->prompt[i].n == 0)
            return sd_api_fail(e, 400, chat ? "messages" : "prompt",
                               "the prompt is empty; give at least one token");
        if (j->prompt[i].n >= stats.ctx)
            return refuse_length(e, chat ? "messages" : "prompt", j->prompt[i].n, stats.ctx, false);
    }
    for (int i = 0; i < j->request.n_stop_token; i++)
        if (j->request.stop_token[i] >= j->server->model->hp.V)
            return sd_api_fail(e, 400, "stop_token_ids", "stop_token_ids: %d is not below %d",
                               (int)j->request.stop_token[i], j->server->model->hp.V);
    for (int i = 0; i < j->request.n_prompts; i++) j->prompt_tokens += j->prompt[i].n;
    return 0;
}

static int find_model(sd_call *j, sd_api_error *e) {
    sd_server *s = j->server;
    sd_served *m = sd_server_find(s, j->request.model);
    j->found = m;
    if (m) return 0;
    sd_buf known = sd_buf_make(400);
    for (int i = 0; i < s->n_served; i++)
        if (!sd_buf_printf(&known, "%s%s", i ? ", " : "", s->served[i].name)) break;
    sd_api_fail(e, 404, "model", "model '%.100s' is not served here; known: %s", j->request.model,
                known.data ? known.data : "");
    e->code = "model_not_found";
    sd_buf_free(&known);
    return e->status;
}

void sd_call_read(sd_call *j) {
    sd_api_error *e = &j->error;
    sd_memory_lost_clear();
    int bad = sd_api_request_parse(&j->request, j->answer.kind, j->body.data, j->body.len, e);
    sd_buf_free(&j->body); // the request has its own copies
    if (!bad && !find_model(j, e)) encode(j, e);
    if (sd_memory_lost() && !e->status) sd_api_fail(e, 500, NULL, "out of memory");
}
