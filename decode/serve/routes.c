// The route table, and the routes that answer at once. Every row says who may call it.
#include "decode/serve/routes.h"

#include "decode/serve/page/page.h"
#include "decode/serve/server.h"

#include <string.h>
#include <strings.h>

static void send_text(sd_conn *c, int status, const char *text) {
    sd_conn_reply(c, &(sd_reply){.status = status,
                                 .type = "text/plain; charset=utf-8",
                                 .body = text,
                                 .len = strlen(text)});
}

static void get_health(sd_conn *c) {
    sd_api_error e;
    sd_server *s = sd_conn_owner(c);
    sd_engine_stats stats;
    switch (s->phase) {
    case SD_PHASE_READY:
    case SD_PHASE_LEAVING:
        stats = sd_server_stats(s);
        if (stats.model_lost) {
            sd_api_fail(&e, 503, NULL,
                        "the model's file is not what was loaded any more; start the server again");
            break;
        }
        if (stats.wake_failed) {
            sd_api_fail(&e, 503, NULL,
                        "the model does not wake: its file has changed, or memory is short; put "
                        "that right and POST /wake_up, or start the server again");
            break;
        }
        sd_conn_json(c, 200, json_pack("{s:s}", "status", "ok"));
        return;
    case SD_PHASE_LOADING:
        sd_api_fail(&e, 503, NULL, "the model is being loaded");
        break;
    default:
        sd_api_fail(&e, 503, NULL, "the server is draining and will end");
    }
    sd_conn_error(c, &e);
}

static void get_livez(sd_conn *c) {
    send_text(c, 200, "ok\n");
}

static void get_version(sd_conn *c) {
    sd_conn_json(c, 200, json_pack("{s:s}", "version", SPECDEC_VERSION));
}

static void get_page(sd_conn *c) {
    char policy[SD_PAGE_POLICY];
    if (!sd_page_policy(policy)) {
        sd_conn_json(c, 500, NULL);
        return;
    }
    sd_conn_reply(c, &(sd_reply){.status = 200,
                                 .type = "text/html; charset=utf-8",
                                 .extra = policy,
                                 .body = (const char *)sd_page,
                                 .len = sd_page_len});
}

static void post_chat(sd_conn *c) {
    sd_generation_start(c, &sd_openai_chat);
}

static void post_completion(sd_conn *c) {
    sd_generation_start(c, &sd_openai_completion);
}

static void post_tokenize(sd_conn *c) {
    sd_generation_start(c, &sd_openai_tokenize);
}

static void post_detokenize(sd_conn *c) {
    sd_generation_start(c, &sd_openai_detokenize);
}

static void post_responses(sd_conn *c) {
    sd_generation_start(c, &sd_openai_responses);
}

static void post_messages(sd_conn *c) {
    sd_generation_start(c, &sd_anthropic_messages);
}

static void post_systemone(sd_conn *c) {
    sd_generation_start(c, &sd_systemone);
}

static void post_embeddings(sd_conn *c) {
    sd_generation_start(c, &sd_openai_embeddings);
}

static void post_rerank(sd_conn *c) {
    sd_generation_start(c, &sd_rerank);
}

static void post_decisions(sd_conn *c) {
    sd_generation_start(c, &sd_openai_decisions);
}

static void post_count(sd_conn *c) {
    sd_generation_start(c, &sd_anthropic_count);
}

// id: the model's name, or a further one. parent: what it stands for or was tuned from; NULL: the base's own.
static json_t *model_json(const sd_server *s, const sd_served_model *m, const char *id,
                          const char *parent, int ctx) {
    json_t *v = json_pack("{s:s, s:s, s:I, s:s, s:i}", "id", id, "object", "model", "created",
                          (json_int_t)s->created, "owned_by", "specdec", "max_model_len", ctx);
    if (parent) json_object_set_new(v, "parent", json_string(parent));
    if (m->card->sha256) {
        json_object_set_new(v, "generation", json_integer((json_int_t)m->card->generation));
        json_object_set_new(v, "sha256", json_string(m->card->sha256));
        json_object_set_new(v, "draft", json_string(m->card->draft));
    }
    return v;
}

static const char *parent_of(const sd_server *s, const sd_served_model *m, const char *id) {
    if (sd_served_find_alias(&s->served, id)) return m->card->name;
    return m->card->sha256 ? s->served.model[0]->card->name : NULL;
}

// False after a 503 was sent.
static bool must_be_loaded(sd_conn *c) {
    // Not the phase: a server told to end while it loads is draining and has no model.
    if (((sd_server *)sd_conn_owner(c))->served.n > 0) return true;
    sd_api_error e;
    sd_api_fail(&e, 503, NULL, "the model is being loaded");
    sd_conn_error(c, &e);
    return false;
}

static void get_models(sd_conn *c) {
    if (!must_be_loaded(c)) return;
    sd_server *s = sd_conn_owner(c);
    int ctx = sd_server_stats(s).ctx;
    json_t *list = json_array();
    const sd_served *all = &s->served;
    for (int i = 0; i < all->n; i++) {
        const sd_served_model *m = all->model[i];
        const sd_model_card *card = m->card;
        json_array_append_new(list, model_json(s, m, card->name, parent_of(s, m, card->name), ctx));
        for (int k = 0; k < card->n_shown; k++)
            json_array_append_new(list, model_json(s, m, card->alias[k], NULL, ctx));
    }
    for (int i = 0; i < all->n_aliases; i++) {
        const sd_served_model *m = sd_served_find(all, all->alias[i].name);
        json_array_append_new(list, model_json(s, m, all->alias[i].name, m->card->name, ctx));
    }
    sd_conn_json(c, 200, json_pack("{s:s, s:o}", "object", "list", "data", list));
}

static void get_model(sd_conn *c) {
    if (!must_be_loaded(c)) return;
    sd_server *s = sd_conn_owner(c);
    const char *tail = sd_conn_head(c)->path + strlen("/v1/models/");
    char name[512];
    const sd_served_model *m = *tail && sd_http_unescape(name, sizeof name, tail)
                                   ? sd_served_find(&s->served, name)
                                   : NULL;
    if (!m) {
        sd_api_error e;
        sd_api_fail(&e, 404, "model", "there is no such model; GET /v1/models lists them");
        e.code = "model_not_found";
        sd_conn_error(c, &e);
        return;
    }
    const char *id = m->card->name;
    for (int k = 0; k < m->card->n_shown; k++)
        if (strcmp(m->card->alias[k], name) == 0) id = m->card->alias[k];
    if (sd_served_find_alias(&s->served, name)) id = name;
    json_t *v = model_json(s, m, id, parent_of(s, m, id), sd_server_stats(s).ctx);
    const sd_defaults *d = &sd_server_row(s, m)->defaults;
    if (sd_defaults_any(d)) json_object_set_new(v, "defaults", sd_defaults_json(d));
    sd_conn_json(c, 200, v);
}

static json_t *token_json(const sd_tokenizer *t, int32_t id) {
    size_t len = 0;
    const char *text = id >= 0 ? sd_tokenizer_bytes(t, id, &len) : NULL;
    return text ? json_stringn(text, len) : json_null();
}

// vLLM's: what a client that renders and counts by itself needs to know (lm-eval).
static void get_tokenizer_info(sd_conn *c) {
    if (!must_be_loaded(c)) return;
    const sd_server *s = sd_conn_owner(c);
    const sd_model *m = s->local->model;
    if (!m->tokenizer) {
        sd_api_error e;
        sd_api_fail(&e, 404, NULL, "this model has no tokenizer");
        sd_conn_error(c, &e);
        return;
    }
    sd_conn_json(c, 200,
                 json_pack("{s:o, s:o, s:s?, s:i}", "bos_token",
                           token_json(m->tokenizer, sd_tokenizer_bos(m->tokenizer)), "eos_token",
                           token_json(m->tokenizer, sd_tokenizer_eos(m->tokenizer)),
                           "chat_template", m->chat ? sd_template_source(m->chat) : NULL,
                           "model_max_length", sd_server_stats(s).ctx));
}

static const sd_route routes[] = {
    {"POST", "/v1/chat/completions", false, SD_AUTH_USER, true, post_chat},
    {"POST", "/v1/completions", false, SD_AUTH_USER, true, post_completion},
    {"POST", "/v1/responses", false, SD_AUTH_USER, true, post_responses},
    {"POST", "/v1/messages", false, SD_AUTH_USER, true, post_messages},
    {"POST", "/v1/messages/count_tokens", false, SD_AUTH_USER, true, post_count},
    {"POST", "/v1/systemone", false, SD_AUTH_USER, true, post_systemone},
    {"POST", "/v1/decisions", false, SD_AUTH_USER, true, post_decisions},
    {"POST", "/v1/embeddings", false, SD_AUTH_USER, true, post_embeddings},
    {"POST", "/v1/rerank", false, SD_AUTH_USER, true, post_rerank},
    {"POST", "/rerank", false, SD_AUTH_USER, true, post_rerank},
    {"POST", "/v1/tokenize", false, SD_AUTH_USER, true, post_tokenize},
    {"POST", "/v1/detokenize", false, SD_AUTH_USER, true, post_detokenize},
    {"POST", "/tokenize", false, SD_AUTH_USER, true, post_tokenize},
    {"POST", "/detokenize", false, SD_AUTH_USER, true, post_detokenize},
    {"GET", "/v1/tokenizer_info", false, SD_AUTH_USER, false, get_tokenizer_info},
    {"GET", "/tokenizer_info", false, SD_AUTH_USER, false, get_tokenizer_info},
    {"GET", "/v1/models", false, SD_AUTH_USER, false, get_models},
    {"GET", "/v1/models/", true, SD_AUTH_USER, false, get_model},
    {"POST", "/v1/load_lora_adapter", false, SD_AUTH_ADMIN, true, sd_adapters_load},
    {"POST", "/v1/unload_lora_adapter", false, SD_AUTH_ADMIN, true, sd_adapters_unload},
    {"GET", "/v1/lora_adapters", false, SD_AUTH_ADMIN, false, sd_adapters_list},
    {"POST", "/sleep", false, SD_AUTH_ADMIN, false, sd_sleep},
    {"POST", "/wake_up", false, SD_AUTH_ADMIN, false, sd_sleep_wake},
    {"GET", "/is_sleeping", false, SD_AUTH_ADMIN, false, sd_sleep_state},
    {"GET", "/metrics", false, SD_AUTH_USER, false, sd_get_metrics},
    {"GET", "/health", false, SD_AUTH_PUBLIC, false, get_health},
    {"GET", "/readyz", false, SD_AUTH_PUBLIC, false, get_health},
    {"GET", "/livez", false, SD_AUTH_PUBLIC, false, get_livez},
    {"GET", "/", false, SD_AUTH_PUBLIC, false, get_page},
    {"GET", "/version", false, SD_AUTH_PUBLIC, false, get_version},
};
enum { ROUTES = sizeof routes / sizeof routes[0] };

const sd_route *sd_routes(int *n) {
    *n = ROUTES;
    return routes;
}

static bool path_matches(const sd_route *r, const char *path) {
    return r->prefix ? strncmp(path, r->path, strlen(r->path)) == 0 : strcmp(path, r->path) == 0;
}

// HEAD is GET without the body.
static bool method_matches(const sd_route *r, const char *method) {
    return strcmp(method, r->method) == 0 ||
           (strcmp(method, "HEAD") == 0 && strcmp(r->method, "GET") == 0);
}

// "application/json", with or without parameters. A browser may send text/plain to any host without
// asking, but not this: the type is what keeps a web page from using a server on localhost.
static bool is_json(const char *type) {
    static const char json[] = "application/json";
    if (!type || strncasecmp(type, json, sizeof json - 1) != 0) return false;
    char next = type[sizeof json - 1];
    return next == '\0' || next == ';' || next == ' ' || next == '\t';
}

const sd_route *sd_route_check(const sd_keys *keys, const sd_http_head *head,
                               char allow[SD_MAX_EXTRA], sd_api_error *e) {
    const sd_route *found = NULL, *same_path = NULL;
    for (int i = 0; i < ROUTES && !found; i++) {
        if (!path_matches(&routes[i], head->path)) continue;
        same_path = &routes[i];
        if (method_matches(&routes[i], head->method)) found = &routes[i];
    }
    const sd_route *asked = found ? found : same_path;
    // A path that is not there asks for a key too, so that a stranger learns nothing of the table.
    int refused = sd_keys_check(keys, asked ? asked->auth : SD_AUTH_USER,
                                sd_http_field_get(head, "authorization"),
                                sd_http_field_get(head, "x-api-key"));
    if (refused == 401) {
        sd_api_fail(
            e, 401, NULL,
            "the API key is missing or wrong; send Authorization: Bearer KEY, or x-api-key: KEY");
        e->code = "invalid_api_key";
        return NULL;
    }
    if (refused) {
        sd_api_fail(e, refused, NULL,
                    keys->n ? "%s is for administrators; send a key whose line in the server's "
                              "file of keys ends with admin"
                            : "%s is for administrators, and this server has no keys; start it "
                              "with an --api-key-file that has a line with admin",
                    asked->path);
        return NULL;
    }
    if (!asked) {
        sd_api_fail(e, 404, NULL, "there is no such path");
        return NULL;
    }
    if (!found) {
        bool get = strcmp(asked->method, "GET") == 0;
        snprintf(allow, SD_MAX_EXTRA, "Allow: %s\r\n", get ? "GET, HEAD" : asked->method);
        sd_api_fail(e, 405, NULL, "%s takes %s", asked->path, get ? "GET or HEAD" : asked->method);
        return NULL;
    }
    if (found->json && !is_json(sd_http_field_get(head, "content-type"))) {
        sd_api_fail(e, 415, NULL, "the body must be JSON; send Content-Type: application/json");
        return NULL;
    }
    const char *coding = sd_http_field_get(head, "content-encoding");
    if (found->json && coding && *coding && strcasecmp(coding, "identity") != 0) {
        sd_api_fail(e, 415, NULL, "the body is compressed (Content-Encoding); send it as it is");
        return NULL;
    }
    return found;
}

// ---- pages of other origins

// A browser asks before it sends JSON, or a key, to another origin. It asks without the key.
static void answer_preflight(sd_conn *c) {
    static const char token[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~, ";
    const char *asked = sd_http_field_get(sd_conn_head(c), "access-control-request-headers");
    char lines[768];
    if (!asked || strlen(asked) > 512 || strspn(asked, token) != strlen(asked))
        asked = "authorization, content-type, x-api-key";
    snprintf(lines, sizeof lines,
             "Access-Control-Allow-Methods: GET, POST\r\nAccess-Control-Allow-Headers: %s\r\n"
             "Access-Control-Max-Age: 600\r\n",
             asked);
    sd_conn_reply(c, &(sd_reply){.status = 200, .type = "text/plain", .extra = lines, .body = ""});
}

static bool is_preflight(const sd_conn *c) {
    const sd_http_head *head = sd_conn_head(c);
    return strcmp(head->method, "OPTIONS") == 0 && !head->has_body && sd_conn_allowed_origin(c) &&
           sd_http_field_get(head, "access-control-request-method");
}

// ---- errors

json_t *sd_route_error_body(const sd_conn *c, const sd_api_error *e) {
    const char *path = sd_conn_head(c)->path;
    static const char anthropic[] = "/v1/messages";
    const size_t n = sizeof anthropic - 1;
    if (path && strncmp(path, anthropic, n) == 0 && (path[n] == '\0' || path[n] == '/'))
        return sd_anthropic_error_json(e);
    return sd_error_json(e);
}

bool sd_route_host_is_local(const char *host) {
    if (!host) return true;
    if (host[0] == '[') return true; // [IPv6]
    size_t n = strcspn(host, ":");
    if (n > 0 && strspn(host, "0123456789.") == n) return true;
    static const char local[] = "localhost";
    size_t len = sizeof local - 1;
    if (n < len || strncasecmp(host + n - len, local, len) != 0) return false;
    return n == len || host[n - len - 1] == '.'; // also name.localhost (RFC 6761)
}

sd_handler sd_route_head(sd_conn *c, char extra[SD_MAX_EXTRA], sd_api_error *e) {
    const sd_server *s = sd_conn_owner(c);
    const sd_http_head *head = sd_conn_head(c);
    if (is_preflight(c)) return answer_preflight;
    const sd_route *r = sd_route_check(&s->listener.keys, head, extra, e);
    if (r && s->local_hosts_only && !sd_route_host_is_local(sd_http_field_get(head, "host"))) {
        sd_api_fail(e, 403, NULL,
                    "the Host field is not localhost or an address; start the server with "
                    "--api-key-file to be reached by a name");
        return NULL;
    }
    return r ? r->run : NULL;
}
