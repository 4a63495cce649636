// The life of the server: listen, let the engine's thread load, serve, reload on SIGHUP, drain on SIGTERM, end.
#include "decode/serve/serve.h"

#include "base/clock.h"
#include "base/files/path.h"
#include "base/log.h"
#include "base/memory.h"
#include "decode/serve/api/error.h"
#include "decode/serve/life/service.h"
#include "decode/serve/routes.h"
#include "decode/serve/server.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

enum { CUT_S = 1 };  // after the limit of a drain
enum { IDLE_S = 5 }; // that idle connections are kept after a hand-over

// ---- draining
//
// Nothing that a client does, or leaves undone, keeps the server beyond --drain and CUT_S: at the
// limit what runs is cancelled and said so, and CUT_S later the sockets are closed, read or unread.

// The last answer may still be on its way when the last generation is gone. After a hand-over all connections end.
static void end_when_drained(sd_server *s) {
    if (s->phase < SD_PHASE_LEAVING || s->n_generations > 0) return;
    if (s->phase == SD_PHASE_LEAVING ? s->listener.n_conns == 0
                                     : !sd_listener_flushing(&s->listener)) {
        event_base_loopbreak(s->base);
        return;
    }
    struct timeval tv = {0, 10000};
    if (!evtimer_pending(s->flush_event, NULL)) event_add(s->flush_event, &tv);
}

static void on_flush_timer(evutil_socket_t fd, short what, void *ctx) {
    (void)fd, (void)what;
    end_when_drained(ctx);
}

static void on_drain_timer(evutil_socket_t fd, short what, void *ctx) {
    (void)fd, (void)what;
    sd_server *s = ctx;
    if (s->deadline_passed) {
        event_base_loopbreak(s->base);
        return;
    }
    s->deadline_passed = true;
    sd_log(SD_LOG_WARN, "the time to drain is over: %d requests are cut off", s->n_generations);
    sd_generations_cancel(s);
    struct timeval tv = {CUT_S, 0};
    event_add(s->drain_event, &tv);
    end_when_drained(s);
}

static struct timeval seconds(double s) {
    return (struct timeval){(time_t)s, (suseconds_t)((s - (double)(time_t)s) * 1e6)};
}

// From here on each connection has one answer more.
static void begin_to_end(sd_server *s, sd_phase phase) {
    if (s->phase != SD_PHASE_LEAVING) {
        struct timeval limit = seconds(s->drain_s);
        s->drain_ns = sd_now_ns();
        event_add(s->drain_event, &limit);
    }
    s->phase = phase;
    s->listener.draining = true;
}

static void on_end_signal(evutil_socket_t sig, short what, void *ctx) {
    (void)sig, (void)what;
    sd_server *s = ctx;
    if (s->phase == SD_PHASE_DRAINING) {
        sd_log(SD_LOG_WARN, "a second signal: what runs is cut off");
        sd_generations_cancel(s);
        event_base_loopbreak(s->base);
        return;
    }
    sd_log(SD_LOG_INFO, "draining: %d requests run, at most %g s more", s->n_generations,
           s->drain_s);
    sd_handover_cancel(&s->handover);
    if (s->phase != SD_PHASE_LEAVING) sd_service_notify("STOPPING=1");
    begin_to_end(s, SD_PHASE_DRAINING);
    sd_listener_close_idle(&s->listener);
    end_when_drained(s);
}

// ---- handing over

static void on_idle_timer(evutil_socket_t fd, short what, void *ctx) {
    (void)fd, (void)what;
    sd_server *s = ctx;
    sd_listener_close_idle(&s->listener);
    end_when_drained(s);
}

static void on_handover_end(void *ctx, pid_t pid, const char *why) {
    sd_server *s = ctx;
    if (why) {
        sd_log(SD_LOG_ERROR, "the new program failed, this one serves on: %s", why);
        return;
    }
    sd_log(SD_LOG_INFO, "handed over to process %d: %d requests run here, at most %g s more",
           (int)pid, s->n_generations, s->drain_s);
    sd_service_notify("MAINPID=%d", (int)pid);
    sd_listener_stop_accepting(&s->listener);
    begin_to_end(s, SD_PHASE_LEAVING);
    struct timeval idle = seconds(s->drain_s < IDLE_S ? s->drain_s : IDLE_S);
    event_add(s->idle_event, &idle);
    end_when_drained(s);
}

static void on_handover_signal(evutil_socket_t sig, short what, void *ctx) {
    (void)sig, (void)what;
    sd_server *s = ctx;
    sd_error err = {0};
    sd_status st = SD_OK;
    SD_CHECK(s->phase == SD_PHASE_READY, &err, SD_EINVAL, "this server is %s",
             s->phase == SD_PHASE_LOADING ? "loading" : "ending");
    SD_CHECK(s->program && s->o->arguments, &err, SD_EINVAL, "the program is not known");
    s->handover.on_end = on_handover_end, s->handover.ctx = s;
    SD_TRY(sd_handover_start(&s->handover, s->program, s->o->arguments,
                             sd_listener_socket(&s->listener), s->base, &err));
    sd_log(SD_LOG_INFO, "handing over: process %d starts", (int)s->handover.pid);
out:
    if (st != SD_OK) sd_log(SD_LOG_ERROR, "no hand-over, this server serves on: %s", err.message);
}

// ---- what connections ask

static double retry_s(const void *server) {
    const sd_server *s = server;
    if (s->phase == SD_PHASE_LOADING) return sd_now_s() - s->metrics.started_s;
    if (s->phase >= SD_PHASE_LEAVING)
        return s->drain_s + CUT_S - (double)(sd_now_ns() - s->drain_ns) * 1e-9;
    return 0;
}

static void on_writable(void *work) {
    const sd_pending *p = work;
    if (p->more) p->more(work);
}

static void on_closed(void *work) {
    ((const sd_pending *)work)->abandon(work);
}

static const sd_handlers handlers = {.on_head = sd_route_head,
                                     .on_writable = on_writable,
                                     .on_closed = on_closed,
                                     .retry_s = retry_s,
                                     .error_body = sd_route_error_body};

// ---- options

// NAME=ADAPTER; whether there is that adapter is seen when all are loaded.
static sd_status check_alias(const char *spec, sd_error *err) {
    sd_status st = SD_OK;
    char name[SD_MODEL_NAME + 1] = {0};
    const char *equals = strchr(spec, '=');
    const size_t n = equals ? (size_t)(equals - spec) : 0;
    if (n <= SD_MODEL_NAME) memcpy(name, spec, n);
    SD_CHECK(sd_model_name_is_good(name), err, SD_EINVAL,
             "--alias '%.80s': give NAME=ADAPTER, with a name of 1 to %d letters, digits, '.', '_' "
             "or '-'",
             spec, SD_MODEL_NAME);
out:
    return st;
}

static sd_status check_options(const sd_serve_options *o, sd_error *err) {
    sd_status st = SD_OK;
    SD_CHECK(o->port >= 0 && o->port <= 65535, err, SD_EINVAL, "--port %d: give 0 to 65535",
             o->port);
    SD_CHECK(o->drain_s >= 0 && o->drain_s <= 86400, err, SD_EINVAL,
             "--drain %g: give 0 to 86400 seconds", o->drain_s);
    SD_CHECK(!o->tls_cert == !o->tls_key, err, SD_EINVAL,
             "--tls-cert and --tls-key go together; give both");
    for (int i = 0; o->served_names && i < o->served_names->n; i++)
        SD_CHECK(sd_served_name_is_good(o->served_names->item[i]), err, SD_EINVAL,
                 "--served-name '%.80s': give 1 to %d letters, digits, '.', '_', '-', '/' or ':'",
                 o->served_names->item[i], SD_SERVED_NAME);
    for (int i = 0; o->aliases && i < o->aliases->n; i++)
        SD_TRY(check_alias(o->aliases->item[i], err));
out:
    return st;
}

static size_t adapter_memory(const sd_serve_options *o) {
    return o->adapter_memory ? o->adapter_memory : SD_ADAPTER_MEMORY;
}

static sd_listener_options listener_options(sd_server *s, const sd_serve_options *o) {
    return (sd_listener_options){.on = &handlers,
                                 .owner = s,
                                 .host = o->host,
                                 .port = o->port,
                                 .key_file = o->key_file,
                                 .keys = o->keys,
                                 .tls_cert = o->tls_cert,
                                 .tls_key = o->tls_key,
                                 .insecure_no_key = o->insecure_no_key,
                                 .trusted_proxies = o->trusted_proxies,
                                 .origins = o->origins,
                                 .access_log = o->access_log,
                                 .memory = o->body_memory ? o->body_memory : SD_BODY_MEMORY,
                                 .id_key = s->id_key};
}

// ---- signals

sd_status sd_serve_apply(sd_server *s, const sd_serve_options *o, sd_error *err) {
    sd_status st = SD_OK;
    const sd_listener_options l = listener_options(s, o);
    SD_TRY(check_options(o, err));
    SD_TRY(sd_listener_reload(&s->listener, &l, err));
    s->drain_s = o->drain_s;
    s->local_hosts_only = s->listener.keys.n == 0 && !o->insecure_no_key;
out:
    return st;
}

// What cannot be read anew stays as it was, and is said: a mistake in a file ends no server.
static void on_reload_signal(evutil_socket_t sig, short what, void *ctx) {
    (void)sig, (void)what;
    sd_server *s = ctx;
    sd_error err = {0};
    sd_service_notify_reloading();
    sd_status st =
        s->o->on_reload ? s->o->on_reload(s->o->ctx, s, &err) : sd_serve_apply(s, s->o, &err);
    if (st == SD_OK)
        sd_log(SD_LOG_INFO, "reloaded: %d API keys", s->listener.keys.n);
    else
        sd_log(SD_LOG_ERROR, "not reloaded, all is as before: %s", err.message);
    sd_service_notify("READY=1");
}

static const struct {
    int signal;
    event_callback_fn on;
} signals[SD_SIGNALS] = {{SIGTERM, on_end_signal},
                         {SIGINT, on_end_signal},
                         {SIGHUP, on_reload_signal},
                         {SIGUSR2, on_handover_signal}};

// A signal that means nothing here ends no server, unless it is one that debugs or stops a process.
static void ignore_others(void) {
    static const int others[] = {SIGUSR1, SIGALRM,   SIGVTALRM, SIGPROF,
                                 SIGPOLL, SIGSTKFLT, SIGPWR,    SIGPIPE};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) signal(others[i], SIG_IGN);
    for (int i = SIGRTMIN; i <= SIGRTMAX; i++) signal(i, SIG_IGN);
}

// ---- what other threads have done

static void say_ready(const sd_server *s) {
    sd_engine_stats e = sd_server_stats(s);
    sd_buf adapters = sd_buf_make(1500);
    const sd_served *m = &s->served;
    for (int i = 1; i < m->n; i++)
        sd_buf_printf(&adapters, "%s%s%s", i > 1 ? ", " : "", m->model[i]->card->name,
                      m->model[i]->card->has_corpus ? " (with its index)" : "");
    sd_log(SD_LOG_INFO,
           "serving %s at %s: context %d tokens, %d slots, KV memory %.1f MiB, adapters: %s%s",
           m->model[0]->card->name, s->listener.address, e.ctx, e.slots,
           (double)e.kv_bytes / 1048576, m->n > 1 ? adapters.data : "none",
           s->listener.keys.n ? ", with API keys" : "");
    sd_buf_free(&adapters);
}

// --alias NAME=ADAPTER, whose form is checked
static sd_status take_alias(sd_server *s, const char *spec, sd_error *err) {
    sd_status st = SD_OK;
    char name[SD_MODEL_NAME + 1] = {0};
    const char *equals = strchr(spec, '='), *of = equals + 1;
    memcpy(name, spec, (size_t)(equals - spec));
    const sd_served_model *m = *of ? sd_served_find(&s->served, of) : NULL;
    SD_CHECK(m, err, SD_EINVAL, "--alias %s: there is no model '%s'; give one with -a", spec, of);
    SD_CHECK(!sd_served_find_alias(&s->served, name), err, SD_EINVAL,
             "--alias %s: the name stands for another model already; give another", spec);
    SD_TRY(sd_served_check_alias(&s->served, name, of, err));
    SD_CHECK_ALLOC(sd_served_reserve(&s->served, 1), err);
    sd_served_set_alias(&s->served, name, m == s->served.model[0] ? "" : of);
out:
    return st;
}

// The provider's models, with what is counted of each.
static sd_status take_models(sd_server *s, sd_error *err) {
    sd_provider *p = s->provider;
    sd_status st = SD_OK;
    const sd_strings *aliases = s->o->aliases;
    sd_served_model *old;
    s->local = sd_local_models(p);
    for (int i = 0; p->ops->model(p, i); i++) {
        sd_served_model *m = sd_alloc(1, sizeof *m);
        SD_CHECK_ALLOC(m, err);
        const sd_model_card *card = p->ops->model(p, i);
        *m = (sd_served_model){.provider = p,
                               .row = i,
                               .card = card,
                               .counts = sd_metrics_model(&s->metrics, card->name)};
        bool put = m->counts && sd_served_put(&s->served, m, &old);
        if (!put) free(m);
        SD_CHECK_ALLOC(put ? m : NULL, err);
    }
    for (int i = 0; aliases && i < aliases->n; i++) SD_TRY(take_alias(s, aliases->item[i], err));
out:
    return st;
}

static void on_loaded(void *ctx) {
    sd_server *s = ctx;
    if (s->phase != SD_PHASE_LOADING) return; // told to end meanwhile
    if (s->provider->ops->ready(s->provider, &s->failure) != SD_PROVIDER_READY) {
        event_base_loopbreak(s->base);
        return;
    }
    sd_metrics_ready(&s->metrics, sd_server_stats(s).ctx, sd_now_s());
    if (take_models(s, &s->failure) != SD_OK) {
        event_base_loopbreak(s->base);
        return;
    }
    s->phase = SD_PHASE_READY;
    say_ready(s);
    sd_listener_accept(&s->listener);
    sd_handover_report(NULL);
    sd_service_notify("READY=1\nSTATUS=serving %s at %s", s->served.model[0]->card->name,
                      s->listener.address);
    if (s->o->on_ready) s->o->on_ready(s->o->ctx, s->listener.address);
}

static void on_prompts_read(void *ctx) {
    sd_server *s = ctx;
    sd_workers_deliver(s->workers);
    end_when_drained(s);
}

static void on_engine_events(void *ctx) {
    sd_server *s = ctx;
    sd_outbox_drain(s);
    end_when_drained(s);
}

// ---- opening and closing

// After each event of the last priority the loop looks for others.
static struct event_base *new_base(void) {
    struct event_config *config = event_config_new();
    if (!config) return NULL;
    event_config_set_max_dispatch_interval(config, NULL, 1, SD_PRIORITY_LAST);
    struct event_base *base = event_base_new_with_config(config);
    event_config_free(config);
    if (base && event_base_priority_init(base, SD_PRIORITIES) != 0) {
        event_base_free(base);
        return NULL;
    }
    return base;
}

static sd_status open_events(sd_server *s, sd_error *err) {
    sd_status st = SD_OK;
    event_set_mem_functions(sd_malloc_marked, sd_realloc_marked, free);
    s->base = new_base();
    SD_CHECK_ALLOC(s->base, err);
    SD_TRY(sd_wakeup_open(&s->loaded_wakeup, s->base, on_loaded, s, err));
    SD_TRY(sd_wakeup_open(&s->read_wakeup, s->base, on_prompts_read, s, err));
    SD_TRY(sd_wakeup_open(&s->events_wakeup, s->base, on_engine_events, s, err));
    for (int i = 0; i < SD_SIGNALS; i++) {
        s->signal_event[i] = evsignal_new(s->base, signals[i].signal, signals[i].on, s);
        SD_CHECK(s->signal_event[i] && event_add(s->signal_event[i], NULL) == 0, err, SD_ENOMEM,
                 "out of memory");
    }
    s->flush_event = evtimer_new(s->base, on_flush_timer, s);
    s->drain_event = evtimer_new(s->base, on_drain_timer, s);
    s->idle_event = evtimer_new(s->base, on_idle_timer, s);
    SD_CHECK(s->drain_event && s->flush_event && s->idle_event, err, SD_ENOMEM, "out of memory");
out:
    return st;
}

static void wake_for_loaded(void *ctx) {
    sd_server *s = ctx;
    sd_wakeup_signal(&s->loaded_wakeup);
}

static void wait_for_loop(void *ctx) {
    sd_outbox_wait(ctx);
}

static void wake_for_read(void *ctx) {
    sd_server *s = ctx;
    sd_wakeup_signal(&s->read_wakeup);
}

static sd_status open_provider(sd_server *s, sd_error *err) {
    const sd_serve_options *o = s->o;
    return sd_local_open(
        &s->provider,
        &(sd_local_options){.models = {.model = o->model,
                                       .pack_dir = o->pack_dir,
                                       .chat_template = o->chat_template,
                                       .tool_format = o->tool_format,
                                       .other_base = o->other_base,
                                       .no_run_defaults = o->no_run_defaults,
                                       .has_draft = o->engine.draft != NULL,
                                       .adapter_memory = adapter_memory(o),
                                       .adapters = o->adapters,
                                       .served_names = o->served_names},
                            .engine = o->engine,
                            .adapter_root = s->adapter_root.path ? &s->adapter_root : NULL,
                            .on_opened = wake_for_loaded,
                            .between_steps = wait_for_loop,
                            .ctx = s},
        err);
}

static void close_server(sd_server *s) {
    sd_listener_stop(&s->listener);
    if (s->base) event_base_loop(s->base, EVLOOP_NONBLOCK); // libevent closes sockets in its loop
    sd_workers_close(s->workers);
    s->workers = NULL;
    sd_adapters_free_calls(s);
    sd_sleep_free_calls(s);
    sd_generations_free_unread(s);
    sd_generations_end_checks(s);
    if (s->provider) s->provider->ops->close(s->provider); // ends what is left of the generations
    while (sd_outbox_drain(s)) {
    }
    sd_outbox_free(s);
    sd_wakeup_close(&s->loaded_wakeup);
    sd_wakeup_close(&s->read_wakeup);
    sd_wakeup_close(&s->events_wakeup);
    for (int i = 0; i < SD_SIGNALS; i++)
        if (s->signal_event[i]) event_free(s->signal_event[i]);
    if (s->drain_event) event_free(s->drain_event);
    if (s->flush_event) event_free(s->flush_event);
    if (s->idle_event) event_free(s->idle_event);
    sd_handover_cancel(&s->handover);
    free(s->program);
    if (s->base) event_base_free(s->base);
    sd_buf_free(&s->scratch);
    sd_served_free(&s->served);
    sd_root_close(&s->adapter_root);
    sd_metrics_free(&s->metrics);
    sd_listener_close(&s->listener);
    pthread_cond_destroy(&s->outbox_room);
    pthread_mutex_destroy(&s->outbox_lock);
    free(s);
}

// Where this program lies; NULL: not known. Asked at the start: a newer one may take the place.
static char *find_program(void) {
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof path);
    return n > 0 && (size_t)n < sizeof path ? sd_strndup(path, (size_t)n) : NULL;
}

sd_status sd_serve(const sd_serve_options *o, sd_error *err) {
    sd_status st = SD_OK;
    sd_server *s = sd_alloc(1, sizeof *s);
    if (!s) return sd_fail(err, SD_ENOMEM, "out of memory");
    s->o = o;
    s->created = (int64_t)time(NULL);
    pthread_mutex_init(&s->outbox_lock, NULL);
    pthread_cond_init(&s->outbox_room, NULL);
    sd_served_init(&s->served);
    sd_metrics_init(&s->metrics, sd_now_s());
    json_object_seed(0);
    ignore_others(); // also SIGPIPE: a client that left is an error of a write
    SD_TRY(check_options(o, err));
    SD_CHECK(getrandom(&s->id_key, sizeof s->id_key, 0) == sizeof s->id_key &&
                 getrandom(s->tenant_key, sizeof s->tenant_key, 0) == sizeof s->tenant_key,
             err, SD_EIO, "no random numbers: %s", strerror(errno));
    sd_listener_options l = listener_options(s, o);
    SD_TRY(sd_handover_socket(&l.socket, err));
    if (!l.socket) SD_TRY(sd_service_socket(&l.socket, err));
    SD_TRY(sd_listener_open(&s->listener, &l, err));
    s->drain_s = o->drain_s;
    if (o->adapter_root)
        SD_TRY(sd_root_open(&s->adapter_root, o->adapter_root, adapter_memory(o), err));
    s->program = find_program();
    s->local_hosts_only = s->listener.keys.n == 0 && !o->insecure_no_key;
    SD_TRY(open_events(s, err));
    SD_TRY(sd_workers_open(&s->workers, wake_for_read, s, err));
    SD_TRY(sd_listener_listen(&s->listener, s->base, err));
    sd_path_kind kind;
    SD_TRY(sd_path_look(&kind, o->model, err));
    SD_CHECK(kind != SD_PATH_NONE, err, SD_ENOTFOUND, "%s: no such model; check the path",
             o->model);
    sd_log(SD_LOG_INFO, "loading %s; listening at %s", o->model, s->listener.address);
    SD_TRY(open_provider(s, err));
    event_base_dispatch(s->base);
    atomic_store(&s->stop, true);
    sd_local_stop(s->provider);
    sd_local_join(s->provider);
    s->provider->ops->ready(s->provider, &s->failure); // it may have ended after the loop
    if (s->failure.status != SD_OK && s->failure.status != SD_EINTERRUPTED) {
        if (err) *err = s->failure;
        st = s->failure.status;
    } else {
        sd_log(SD_LOG_INFO, "drained, bye");
    }
out:
    close_server(s);
    sd_memory_lost_clear(); // what was lost is answered for, request by request
    return st;
}
