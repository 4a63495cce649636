#include "cli/cost/show.h"

static void set(json_t *o, const char *key, double v) {
    json_object_set_new(o, key, json_real(v));
}

static json_t *cost_month(const sd_cost_month *m) {
    return json_pack("{s:f, s:f, s:f, s:f, s:f}", "gpu", m->gpu.usd, "people", m->people.usd,
                     "energy", m->energy.usd, "other", m->other.usd, "total", m->total.usd);
}

static json_t *break_even(const sd_break_even *b, const sd_cost_input *in) {
    char why[160];
    if (b->never) {
        sd_break_even_reason(why, sizeof why, b);
        return json_pack("{s:n, s:n, s:f, s:n, s:n, s:n, s:s}", "requests_day", "replicas",
                         "capacity_requests_day", b->capacity_day, "utilisation", "tokens_month",
                         "for_good_requests_day", "reason", why);
    }
    double tokens = b->requests_day * SD_DAYS_MONTH * (in->tokens_in + in->tokens_out);
    json_t *o =
        json_pack("{s:f, s:I, s:f, s:f, s:f, s:n}", "requests_day", b->requests_day, "replicas",
                  (json_int_t)b->replicas, "capacity_requests_day", b->capacity_day, "utilisation",
                  b->utilisation, "tokens_month", tokens, "reason");
    json_object_set_new(o, "for_good_requests_day",
                        b->for_good_day > 0 ? json_real(b->for_good_day) : json_null());
    return o;
}

static json_t *api(const sd_cost_rival *rival, const sd_rival_result *r, const sd_cost_input *in) {
    json_t *o =
        json_pack("{s:s, s:f, s:f, s:f, s:o}", "kind", rival->decision ? "decision" : "llm",
                  "cost_month", r->month.usd, "per_request", r->request.usd, "per_million_tokens",
                  r->million.usd, "break_even", break_even(&r->even, in));
    if (!rival->from_file) return o;
    const sd_model_price *m = &rival->model;
    json_object_set_new(o, "model", json_string(m->model));
    json_object_set_new(o, "ends", m->ends[0] ? json_string(m->ends) : json_null());
    json_object_set_new(o, "above_k_tokens", m->above_k ? json_integer(m->above_k) : json_null());
    return o;
}

// null where nobody asked.
static json_t *hybrid(const sd_cost_case *c, const sd_cost_result *r) {
    const sd_hybrid *h = &r->hybrid;
    if (!r->has_hybrid) return json_null();
    return json_pack("{s:s, s:f, s:I, s:f, s:f, s:f, s:f}", "api", c->rival[0].name, "local_share",
                     h->local_share, "replicas", (json_int_t)h->replicas, "cost_month",
                     h->total.usd, "all_api", h->all_api.usd, "all_local", r->month.total.usd,
                     "change", h->change);
}

static json_t *cascade(const sd_cost_case *c, const sd_cost_result *r) {
    if (!r->has_cascade) return json_null();
    return json_pack("{s:s, s:f, s:f, s:f}", "api", c->rival[0].name, "escalated_share",
                     c->escalated_share, "cost_month", r->cascade.usd, "per_request",
                     r->cascade_request.usd);
}

static json_t *burst(const sd_cost_case *c, const sd_cost_result *r) {
    const sd_burst *b = &r->burst;
    if (!r->has_burst) return json_null();
    json_t *hours = json_array();
    for (int h = 0; h < SD_HOURS_DAY; h++)
        json_array_append_new(
            hours, json_pack("{s:f, s:f}", "requests", c->hour[h], "local", b->local[h]));
    return json_pack("{s:s, s:I, s:f, s:f, s:f, s:o}", "api", c->rival[0].name, "replicas",
                     (json_int_t)b->replicas, "local_share", b->local_share, "cost_month",
                     b->total.usd, "all_api", b->all_api.usd, "hours", hours);
}

static json_t *speculation(const sd_cost_result *r) {
    const sd_speculation *s = &r->speculation;
    json_t *o = json_pack("{s:s, s:b}", "says", r->speculation_says, "measured", s->measured);
    json_object_set_new(o, "decoding_for_one_replica_fewer",
                        s->fewer_at > 0 ? json_real(s->fewer_at) : json_null());
    if (!s->measured) return o;
    set(o, "speed_up", s->speed_up);
    json_object_set_new(o, "replicas", json_integer(s->replicas));
    json_object_set_new(o, "plain_replicas", json_integer(s->plain_replicas));
    set(o, "saves_month", s->saves.usd);
    set(o, "gpu_seconds_per_request", s->seconds);
    set(o, "plain_gpu_seconds_per_request", s->plain_seconds);
    return o;
}

static json_t *even_number(double v) {
    return v > 0 ? json_real(v) : json_null();
}

static json_t *sensitivity(const sd_cost_case *c, const sd_cost_result *r) {
    json_t *all = json_array();
    for (int i = 0; i < r->n_sensitivity; i++) {
        const sd_sensitivity *s = &r->sensitivity[i];
        json_t *o = json_pack("{s:s, s:f, s:f, s:b}", "input", s->row->name, "low", s->low.usd,
                              "high", s->high.usd, "flips", s->flips);
        if (r->even >= 0) json_object_set_new(o, "api", json_string(c->rival[r->even].name));
        json_object_set_new(o, "break_even_low", even_number(s->break_even_low));
        json_object_set_new(o, "break_even_high", even_number(s->break_even_high));
        json_array_append_new(all, o);
    }
    return all;
}

static json_t *loads(const sd_cost_case *c, const sd_cost_result *r) {
    json_t *all = json_array();
    for (int i = 0; i < r->n_loads; i++) {
        const sd_load_row *l = &r->load[i];
        json_t *apis = json_object();
        for (int k = 0; k < c->n_rivals; k++) set(apis, c->rival[k].name, l->rival[k].usd);
        json_array_append_new(all, json_pack("{s:f, s:I, s:f, s:f, s:o}", "requests_day",
                                             l->requests_day, "replicas", (json_int_t)l->replicas,
                                             "utilisation", l->utilisation, "own", l->own.usd,
                                             "api", apis));
    }
    return all;
}

static void take_assumption(void *ctx, const char *name, double value, const char *unit,
                            sd_cost_source source, const char *from) {
    json_t *o = json_pack("{s:s, s:f, s:s}", "name", name, "value", value, "source",
                          sd_cost_source_word(source));
    if (unit) json_object_set_new(o, "unit", json_string(unit));
    if (from) json_object_set_new(o, "from", json_string(from));
    json_array_append_new(ctx, o);
}

static json_t *prices(const sd_cost_case *c) {
    if (!c->prices) return json_null();
    return json_pack("{s:s, s:s, s:s}", "path", c->prices_path, "sha256", c->prices_sha256, "date",
                     c->prices_date);
}

static json_t *logged(const sd_cost_case *c) {
    if (!c->logged) return json_null();
    return json_pack("{s:I, s:I, s:f}", "requests", (json_int_t)c->logged_requests, "unpriced",
                     (json_int_t)c->unpriced_requests, "cost", c->logged_usd);
}

static json_t *verdict(const sd_cost_case *c, const sd_cost_result *r) {
    char says[512], turns[512];
    sd_cost_verdict(says, sizeof says, c, r);
    sd_cost_turns(turns, sizeof turns, r);
    json_t *o = json_pack("{s:s, s:s, s:s}", "choice", r->own_wins ? "self" : "api", "says", says,
                          "turns", turns);
    json_object_set_new(o, "api",
                        r->cheapest >= 0 ? json_string(c->rival[r->cheapest].name) : json_null());
    json_object_set_new(o, "mixture", r->mixture ? json_string(r->mixture) : json_null());
    return o;
}

json_t *sd_cost_json(const sd_cost_case *c, const sd_cost_result *r) {
    const sd_cost_million *m = &r->million;
    json_t *o = json_object(), *apis = json_object(), *assumptions = json_array(),
           *notes = json_array();
    for (int i = 0; i < c->n_rivals; i++)
        json_object_set_new(apis, c->rival[i].name, api(&c->rival[i], &r->rival[i], &c->in));
    sd_cost_assumptions(c, take_assumption, assumptions);
    for (int i = 0; i < c->n_notes; i++) json_array_append_new(notes, json_string(c->notes[i]));
    set(o, "month_hours", SD_HOURS_MONTH);
    json_object_set_new(o, "verdict", verdict(c, r));
    json_object_set_new(o, "replicas", json_integer(r->replicas));
    set(o, "capacity_requests_day", r->capacity_day);
    set(o, "gpu_seconds_per_request", r->seconds);
    json_object_set_new(o, "utilisation",
                        json_pack("{s:f, s:o}", "capacity", r->utilisation, "busy",
                                  c->busy >= 0 ? json_real(c->busy) : json_null()));
    json_object_set_new(o, "cost_month", cost_month(&r->month));
    json_object_set_new(o, "per_million_tokens",
                        json_pack("{s:f, s:f, s:f, s:f, s:f}", "gpu_only", m->gpu_only.usd,
                                  "all_in", m->all_in.usd, "gpu_only_at_full_use",
                                  m->gpu_only_at_full_use.usd, "input", m->input.usd, "output",
                                  m->output.usd));
    set(o, "per_request", r->request.usd);
    json_object_set_new(o, "api", apis);
    json_object_set_new(o, "hybrid", hybrid(c, r));
    json_object_set_new(o, "cascade", cascade(c, r));
    json_object_set_new(o, "burst", burst(c, r));
    json_object_set_new(o, "speculation", speculation(r));
    json_object_set_new(o, "sensitivity", sensitivity(c, r));
    json_object_set_new(o, "loads", loads(c, r));
    json_object_set_new(o, "assumptions", assumptions);
    json_object_set_new(o, "prices", prices(c));
    json_object_set_new(o, "logged", logged(c));
    json_object_set_new(o, "notes", notes);
    return o;
}
