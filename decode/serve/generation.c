// The object: made, told to end, freed. It is freed when all its choices have ended, whether or not
// a client still waits.
#include "decode/serve/generation_private.h"

#include <time.h>

sd_call *sd_call_new(sd_conn *conn, const sd_dialect *dialect) {
    sd_server *s = sd_conn_owner(conn);
    sd_call *j = sd_alloc(1, sizeof *j);
    if (!j) return NULL;
    j->server = s;
    j->next = s->calls;
    if (s->calls) s->calls->prev = j;
    s->calls = j;
    s->n_calls++;
    j->conn = conn;
    j->client = sd_client_again(sd_conn_client(conn));
    j->arrival_ns = sd_conn_arrival_ns(conn);
    uint64_t id = sd_mix64(s->id_key ^ sd_mix64(s->n_ids++));
    j->dialect = dialect;
    snprintf(j->id, sizeof j->id, "%s-%016llx", dialect->id_prefix, (unsigned long long)id);
    j->answer = (sd_answer){.kind = dialect->kind, .id = j->id, .created = (int64_t)time(NULL)};
    return j;
}

void sd_call_drop_prompt(sd_call *j) {
    for (int i = 0; i < SD_API_MAX_PROMPTS; i++) sd_ids_free(&j->prompt[i]);
    sd_buf_free(&j->body);
    sd_api_request_drop_texts(&j->request);
    sd_listener_hold(&j->server->listener, j->client, &j->held, j->answer_bytes);
}

void sd_call_free(sd_call *j) {
    sd_server *s = j->server;
    if (j->prev)
        j->prev->next = j->next;
    else
        s->calls = j->next;
    if (j->next) j->next->prev = j->prev;
    s->n_calls--;
    if (j->model) j->model->running--;
    for (int i = 0; i < j->n_choices; i++) {
        sd_buf_free(&j->choices[i].text);
        sd_buf_free(&j->choices[i].kept);
    }
    free(j->choices);
    j->answer_bytes = 0;
    sd_call_drop_prompt(j);
    sd_api_request_free(&j->request);
    sd_client_release(&s->listener.clients, j->client);
    free(j);
}

void sd_call_cancel(sd_call *j) {
    if (j->reading) atomic_store(&j->cut, true);
    for (int i = 0; i < j->n_choices; i++)
        if (j->choices[i].id && !j->choices[i].ended)
            j->server->provider->ops->cancel(j->server->provider, j->choices[i].id);
}

void sd_call_log(const sd_call *j, const char *finish) {
    int generated = 0;
    for (int i = 0; i < j->n_choices; i++) generated += j->choices[i].generated;
    double ttft = j->first_ns ? (double)(j->first_ns - j->arrival_ns) * 1e-6 : -1;
    if (!j->model) return; // it was not read yet
    sd_conn_set_log(
        j->conn, &(sd_log_facts){j->model->card->name, finish, j->prompt_tokens, generated, ttft});
}

void sd_call_abandon(void *call) {
    sd_call *j = call;
    if (j->conn) sd_call_log(j, "cancelled");
    j->conn = NULL;
    sd_call_cancel(j);
    if (j->writing && !j->in_slice) sd_call_free(j);
}

void sd_calls_cancel(sd_server *s) {
    for (sd_call *j = s->calls; j; j = j->next) sd_call_cancel(j);
}

void sd_calls_free_unread(sd_server *s) {
    for (sd_call *j = s->calls, *next; j; j = next) {
        next = j->next;
        if (j->reading) sd_call_free(j);
    }
}
