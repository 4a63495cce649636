// The plan's table: what serving takes of memory, by part.
#include "cli/serve/plan.h"

#include "base/json.h"
#include "base/log.h"

#include <jansson.h>
#include <stdio.h>

static double mib(size_t bytes) {
    return (double)bytes / 1048576;
}

static void print_row(const char *part, size_t bytes) {
    printf("  %-44s %10.1f MiB\n", part, mib(bytes));
}

static void print_kv(const sd_serve_plan *p) {
    const sd_engine_memory_plan *e = &p->engine;
    printf("keys and values as %s: %lld tokens, %d of one request at most\n",
           sd_kv_name(e->kv_type), (long long)e->kv.positions, e->kv.longest);
    for (int i = 0; i < e->kv.windows && i < SD_KV_PLANNED_WINDOWS; i++) {
        long long tokens = (long long)e->kv.of[i].pages * SD_KV_PAGE;
        printf("  %d layers that see ", e->kv.of[i].layers);
        if (e->kv.of[i].window > 0)
            printf("%d tokens", e->kv.of[i].window);
        else
            printf("all tokens");
        printf(": %d pages of %d, %lld tokens\n", e->kv.of[i].pages, SD_KV_PAGE, tokens);
    }
    printf("  1000 tokens more:");
    for (sd_kv_type t = SD_KV_F16; t < SD_KV_TYPES; t++)
        printf("%s %.1f MiB as %s", t > SD_KV_F16 ? "," : "", mib(1000 * p->kv_position[t]),
               sd_kv_name(t));
    printf("\n  the prefix cache has what no running request needs of this, and no more\n");
}

static void print_plan(const sd_serve_plan *p, const char *model) {
    const sd_engine_memory_plan *e = &p->engine;
    printf("%s: context %d tokens, %d slots and %d in reserve, queue %d, %d threads\n\n", model,
           e->ctx, e->slots, e->reserve, e->queue, e->threads);
    for (int i = 0; i < p->n; i++) {
        if (i > 0 && p->row[i].grows && !p->row[i - 1].grows) {
            print_row("taken when the server opens", p->start);
            printf("\n  at most, as requests need it:\n");
        }
        print_row(p->row[i].part, p->row[i].bytes);
    }
    print_row("total at most", p->most);
    if (p->available) print_row("available", p->available);
    printf("\nfiles: %.1f MiB are mapped, which the system takes back when memory is short\n",
           mib(p->mapped));
    print_kv(p);
}

static sd_status print_plan_json(const sd_serve_plan *p, sd_error *err) {
    const sd_engine_memory_plan *e = &p->engine;
    json_t *parts = json_object(), *growing = json_object(), *windows = json_array();
    for (int i = 0; i < p->n; i++)
        json_object_set_new(p->row[i].grows ? growing : parts, p->row[i].key,
                            json_integer((json_int_t)p->row[i].bytes));
    for (int i = 0; i < e->kv.windows && i < SD_KV_PLANNED_WINDOWS; i++)
        json_array_append_new(windows,
                              json_pack("{s:i, s:i, s:i, s:I}", "window", e->kv.of[i].window,
                                        "layers", e->kv.of[i].layers, "pages", e->kv.of[i].pages,
                                        "tokens", (json_int_t)e->kv.of[i].pages * SD_KV_PAGE));
    json_t *j = json_pack(
        "{s:i, s:i, s:i, s:i, s:i, s:o, s:o, s:I, s:I, s:I, s:I, s:s, s:I, s:i, s:o}", "ctx",
        e->ctx, "slots", e->slots, "reserve", e->reserve, "queue", e->queue, "threads", e->threads,
        "memory_bytes", parts, "at_most_bytes", growing, "start_bytes", (json_int_t)p->start,
        "total_bytes", (json_int_t)p->most, "available_bytes", (json_int_t)p->available,
        "mapped_bytes", (json_int_t)p->mapped, "kv", sd_kv_name(e->kv_type), "kv_tokens",
        (json_int_t)e->kv.positions, "longest_request", e->kv.longest, "kv_windows", windows);
    if (!j) return sd_fail(err, SD_ENOMEM, "out of memory");
    sd_status st = sd_json_print(stdout, j, JSON_COMPACT, err);
    if (st == SD_OK) putchar('\n');
    json_decref(j);
    return st;
}

sd_status sd_serve_print_plan(const sd_serve_options *o, bool json, sd_error *err) {
    sd_serve_plan p;
    sd_status st = sd_serve_plan_make(&p, o, err);
    if (st != SD_OK) return st;
    if (json)
        st = print_plan_json(&p, err);
    else
        print_plan(&p, o->model);
    const char *remedy = sd_serve_plan_remedy(&p);
    if (remedy)
        sd_log(SD_LOG_WARN, "serving takes %.0f MiB at most and %.0f MiB are available; lower %s",
               mib(p.most), mib(p.available), remedy);
    return st;
}
