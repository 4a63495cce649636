// specdec serve: options into sd_serve_options, again at SIGHUP.
#include "base/log.h"
#include "cli/serve/args.h"
#include "cli/serve/plan.h"
#include "cli/verbs.h"
#include "decode/serve/life/handover.h"
#include "decode/serve/serve.h"
#include "model/infer/weight_cache/place.h"

#include <stdlib.h>
#include <string.h>

// What lives while the server does.
typedef struct {
    int argc;
    char **argv;
    sd_serve_args first, now; // as it was started; as it was last reloaded
} served;

static sd_serve_options options_of(const sd_serve_args *a) {
    return (sd_serve_options){.model = a->common.model,
                              .chat_template = a->chat_template,
                              .tool_format = a->tool_format,
                              .other_base = a->common.other_base,
                              .no_run_defaults = a->no_run_defaults,
                              .plain_user_text = a->plain_user_text,
                              .adapters = &a->adapters,
                              .aliases = &a->aliases,
                              .adapter_root = a->adapter_root,
                              .adapter_memory = (size_t)a->adapter_memory << 20,
                              .served_names = &a->names,
                              .host = a->host,
                              .port = (int)a->port,
                              .key_file = a->key_file,
                              .keys = &a->keys,
                              .tls_cert = a->tls_cert,
                              .tls_key = a->tls_key,
                              .trusted_proxies = &a->proxies,
                              .origins = &a->origins,
                              .insecure_no_key = a->insecure_no_key,
                              .drain_s = a->drain,
                              .body_memory = (size_t)a->body_memory << 20,
                              .access_log = a->access_log,
                              .vllm_metrics = a->vllm_metrics,
                              .engine = {.ctx = (int)a->ctx,
                                         .slots = (int)a->slots,
                                         .queue = (int)a->queue,
                                         .prefill_chunk = (int)a->common.prefill_chunk,
                                         .threads = (int)a->common.threads,
                                         .compute = (sd_compute)a->common.compute,
                                         .kv = (sd_kv_type)a->common.kv,
                                         .kv_memory = (size_t)a->kv_memory << 20,
                                         .no_prefix_cache = a->prefix_cache != 0,
                                         .spec = (sd_spec_mode)a->spec,
                                         .spec_length = (int)a->spec_length,
                                         .draft = a->draft,
                                         .draft_adapter = a->draft_adapter,
                                         .draft_kv = a->draft_kv,
                                         .sleep_idle_s = a->sleep_idle}};
}

// Options that sd_serve_apply does not take wait for the next start, and that is said.
static void warn_of_changes(const sd_serve_args *was, const sd_serve_args *is) {
    static const char *const taken[] = {
        "api-key-file", "tls-cert", "tls-key", "trusted-proxy", "cors", "insecure-no-key", "drain"};
    for (const sd_option *o = sd_serve_rows; o->name; o++) {
        bool reloads = false;
        for (size_t i = 0; i < sizeof taken / sizeof *taken; i++)
            reloads |= strcmp(o->name, taken[i]) == 0;
        if (!reloads && !sd_option_equal(o, was, is))
            sd_log(SD_LOG_WARN, "--%s has changed: the next start takes it, and checks it then",
                   o->name);
    }
}

static sd_status on_reload(void *ctx, sd_server *server, sd_error *err) {
    served *s = ctx;
    sd_status st = SD_OK;
    sd_serve_args new = {0};
    SD_TRY(sd_serve_args_read(&new, s->argc, s->argv, err));
    const sd_serve_args was = s->now;
    s->now = new; // the server points into it
    const sd_serve_options o = options_of(&s->now);
    st = sd_serve_apply(server, &o, err);
    if (st == SD_OK) warn_of_changes(&s->first, &s->now);
    new = was;
    if (st != SD_OK) new = s->now, s->now = was;
    sd_serve_args_free(&new);
out:
    return st;
}

static sd_status run(served *s, sd_error *err) {
    sd_status st = SD_OK;
    const sd_serve_args *a = &s->first;
    sd_serve_options o = options_of(a);
    char *pack_dir = NULL;
    SD_TRY(sd_device_choose(&o.engine.backend, &o.engine.device, a->common.device, err));
    pack_dir = a->common.no_pack_cache ? NULL : sd_weight_cache_dir();
    o.pack_dir = pack_dir;
    o.on_reload = on_reload, o.arguments = sd_arguments(), o.ctx = s;
    SD_CHECK(a->plan || !a->json, err, SD_EINVAL,
             "serve: --json is the plan's form; give --plan too");
    SD_TRY(a->plan ? sd_serve_print_plan(&o, a->json, err) : sd_serve(&o, err));
out:
    free(pack_dir);
    return st;
}

sd_status sd_verb_serve(int argc, char **argv, sd_error *err) {
    served s = {.argc = argc, .argv = argv};
    sd_status st = SD_OK;
    if (sd_verb_help("serve -m MODEL [-a [NAME=]PATH ...] [-d DRAFT] [--config FILE.yaml]",
                     "an OpenAI-compatible server", sd_serve_rows, argc, argv))
        return SD_OK;
    SD_TRY(sd_serve_args_read(&s.first, argc, argv, err));
    if (!s.first.plan && !s.first.print_config) sd_outlive_broken_pipes();
    SD_TRY(s.first.print_config ? sd_serve_args_print(&s.first, err) : run(&s, err));
out:
    if (st != SD_OK) sd_handover_report(err->message);
    sd_serve_args_free(&s.first);
    sd_serve_args_free(&s.now);
    return st;
}
