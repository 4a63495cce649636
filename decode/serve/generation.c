// The object: made, told to end, freed. It is freed when all its choices have ended, whether or not
// a client still waits.
#include "base/utf8.h"
#include "decode/serve/generation_private.h"

#include <string.h>
#include <time.h>

sd_generation *sd_generation_new(sd_conn *conn, const sd_dialect *dialect) {
    sd_server *s = sd_conn_owner(conn);
    sd_generation *g = sd_alloc(1, sizeof *g);
    if (!g) return NULL;
    g->pending = (sd_pending){sd_generation_more, sd_generation_abandon};
    g->server = s;
    g->next = s->generations;
    if (s->generations) s->generations->prev = g;
    s->generations = g;
    s->n_generations++;
    g->conn = conn;
    g->client = sd_client_again(sd_conn_client(conn));
    g->key = sd_metrics_key(&s->metrics, g->client->key);
    g->arrival_ns = sd_conn_arrival_ns(conn);
    uint64_t id = sd_mix64(s->id_key ^ sd_mix64(s->n_ids++));
    g->dialect = dialect;
    snprintf(g->id, sizeof g->id, "%s%016llx", dialect->id_prefix, (unsigned long long)id);
    g->answer = (sd_answer){
        .kind = dialect->kind, .id = g->id, .created = (int64_t)time(NULL), .request = &g->request};
    return g;
}

void sd_generation_drop_prompt(sd_generation *g) {
    for (int i = 0; i < SD_API_MAX_PROMPTS; i++) sd_ids_free(&g->prompt[i]);
    for (int i = 0; g->item && i < g->request.embed->n; i++) sd_ids_free(&g->item[i]);
    sd_ids_free(&g->bad_words);
    sd_ids_free(&g->closing);
    sd_buf_free(&g->body);
    sd_api_request_drop_texts(&g->request);
    sd_listener_hold(&g->server->listener, g->client, &g->bytes_held, g->answer_bytes);
}

void sd_generation_free(sd_generation *g) {
    sd_server *s = g->server;
    if (g->prev)
        g->prev->next = g->next;
    else
        s->generations = g->next;
    if (g->next) g->next->prev = g->prev;
    s->n_generations--;
    if (g->model) g->model->running--;
    if (g->target) sd_adapters_let_go(s, g->target);
    for (int i = 0; i < g->n_choices; i++) {
        sd_buf_free(&g->choices[i].said);
        sd_buf_free(&g->choices[i].text);
        sd_buf_free(&g->choices[i].kept);
        sd_generation_close_answer(&g->choices[i]);
    }
    free(g->choices);
    free(g->stops);
    free(g->vector);
    free(g->score);
    free(g->order);
    sd_buf_free(&g->reply.buf);
    g->answer_bytes = 0;
    sd_generation_drop_prompt(g);
    free(g->item);
    if (atomic_load(&s->stop)) // the cache may be gone before its grammars
        sd_grammar_release(g->grammar);
    else if (g->grammar)
        sd_grammar_cache_put(s->local->grammars, g->grammar);
    sd_api_request_free(&g->request);
    sd_client_release(&s->listener.clients, g->client);
    free(g);
}

void sd_generation_cancel(sd_generation *g) {
    if (g->reading) atomic_store(&g->cancelled, true);
    if (atomic_load(&g->server->stop)) return; // the provider, which may be gone, ends what runs
    for (int i = 0; i < g->n_choices; i++)
        if (g->choices[i].id && !g->choices[i].ended)
            g->model->provider->ops->cancel(g->model->provider, g->choices[i].id);
}

void sd_generation_log(const sd_generation *g, const char *finish) {
    int generated = 0;
    for (int i = 0; i < g->n_choices; i++) generated += g->choices[i].generated;
    double ttft = g->first_ns ? (double)(g->first_ns - g->arrival_ns) * 1e-6 : -1;
    if (!g->model) return; // it was not read yet
    const sd_model_card *card = g->model->card;
    sd_log_facts facts = {.generation = card->generation,
                          .finish = finish,
                          .prompt_tokens = g->prompt_tokens,
                          .completion_tokens = generated,
                          .ttft_ms = ttft};
    memcpy(facts.model, card->name,
           sd_utf8_valid_prefix(card->name, strnlen(card->name, SD_LOG_MODEL - 1)));
    memcpy(facts.user, g->request.user, sizeof facts.user);
    memcpy(facts.defaults, g->defaults, sizeof facts.defaults);
    memcpy(facts.departs, g->departs, sizeof facts.departs);
    sd_conn_set_log(g->conn, &facts);
}

void sd_generation_abandon(void *generation) {
    sd_generation *g = generation;
    if (g->conn) sd_generation_log(g, "cancelled");
    g->conn = NULL;
    sd_generation_cancel(g);
    if (g->writing && !g->in_slice) sd_generation_free(g);
}

void sd_generations_cancel(sd_server *s) {
    for (sd_generation *g = s->generations; g; g = g->next) sd_generation_cancel(g);
}

void sd_generations_free_unread(sd_server *s) {
    for (sd_generation *g = s->generations, *next; g; g = next) {
        next = g->next;
        if (g->reading) sd_generation_free(g);
    }
}
