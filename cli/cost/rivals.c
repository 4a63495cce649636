#include "cli/cost/rivals.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

// What a name may be: it stands in a table, in JSON and on a page.
static bool is_name(const char *s, size_t len) {
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)s[i] <= 0x20 || (unsigned char)s[i] >= 0x7F) return false;
    return len > 0 && len < sizeof((sd_cost_rival *)0)->name;
}

static sd_status take_name(sd_cost_rival *r, const char *option, const char *text, size_t len,
                           sd_error *err) {
    if (!is_name(text, len))
        return sd_fail(err, SD_EINVAL,
                       "%s: '%.100s' has no name of 1 to %zu letters, digits and marks", option,
                       text, sizeof r->name - 1);
    memcpy(r->name, text, len);
    r->name[len] = '\0';
    return SD_OK;
}

// USD for 10^6 tokens; *n <- how many stand there, at most 3.
static bool read_rates(double *v, int *n, const char *text) {
    char *end;
    for (*n = 0; *n < 3; text = end + 1) {
        double x;
        if (!sd_read_decimal(&x, text, &end) || !(x >= 0 && x <= 1e6)) return false;
        v[(*n)++] = x;
        if (!*end) return true;
        if (*end != ',') return false;
    }
    return false;
}

static sd_status read_priced(sd_cost_rival *r, const char *option, const char *text,
                             sd_error *err) {
    sd_status st = SD_OK;
    size_t len = strcspn(text, "=");
    double v[3];
    int n;
    SD_TRY(take_name(r, option, text, len, err));
    SD_CHECK(read_rates(v, &n, text + len + 1) && n >= 2, err, SD_EINVAL,
             "%s: '%s' is not NAME=IN,OUT[,CACHED] in USD for 10^6 tokens, such as %s=2.50,10",
             option, text, r->name);
    r->price = sd_api_flat((sd_usd_million){v[0]}, (sd_usd_million){v[1]});
    if (n == 3) r->price.cached.usd = v[2];
out:
    return st;
}

static sd_status add(sd_cost_case *c, const sd_cost_args *a, const char *option, const char *text,
                     sd_error *err) {
    sd_status st = SD_OK;
    SD_CHECK(c->n_rivals < SD_COST_MAX_RIVALS, err, SD_ELIMIT, "%s: more than %d APIs; give fewer",
             option, SD_COST_MAX_RIVALS);
    sd_cost_rival *r = &c->rival[c->n_rivals];
    *r = (sd_cost_rival){.tokens = 1, .decision = strcmp(option, "--decision") == 0};
    if (strchr(text, '=')) {
        SD_TRY(read_priced(r, option, text, err));
    } else {
        SD_CHECK(c->prices, err, SD_EINVAL,
                 "%s: '%s' has no price; give NAME=IN,OUT, or --prices FILE beside a model's name",
                 option, text);
        SD_TRY(take_name(r, option, text, strlen(text), err));
        SD_TRY(sd_prices_find(&r->model, c->prices, text, (sd_tier)a->tier, c->in.tokens_in, err));
        r->price = r->model.price, r->from_file = true;
    }
    for (int i = 0; i < c->n_rivals; i++)
        SD_CHECK(strcmp(c->rival[i].name, r->name) != 0, err, SD_EINVAL,
                 "%s: %s is given twice; give it another name", option, r->name);
    c->n_rivals++;
out:
    return st;
}

static sd_status read_ratio(sd_cost_case *c, const char *text, sd_error *err) {
    sd_status st = SD_OK;
    size_t len = strcspn(text, "=");
    char *end;
    double v;
    sd_cost_rival *r = NULL;
    SD_CHECK(text[len] && sd_read_decimal(&v, text + len + 1, &end) && v >= 0.01 && v <= 100 &&
                 !*end,
             err, SD_EINVAL,
             "--token-ratio: '%s' is not NAME=R with R from 0.01 to 100; give such a one", text);
    for (int i = 0; i < c->n_rivals; i++)
        if (strlen(c->rival[i].name) == len && memcmp(c->rival[i].name, text, len) == 0)
            r = &c->rival[i];
    SD_CHECK(r, err, SD_EINVAL, "--token-ratio: no --api is called %.*s; give one of their names",
             (int)len, text);
    SD_CHECK(!r->tokens_given, err, SD_EINVAL, "--token-ratio: %s is given twice; keep one",
             r->name);
    r->tokens = v, r->tokens_given = true;
out:
    return st;
}

sd_status sd_cost_rivals_read(sd_cost_case *c, const sd_cost_args *a, sd_error *err) {
    sd_status st = SD_OK;
    for (int i = 0; i < a->api.n; i++) SD_TRY(add(c, a, "--api", a->api.item[i], err));
    c->n_llm = c->n_rivals;
    for (int i = 0; i < a->decision.n; i++)
        SD_TRY(add(c, a, "--decision", a->decision.item[i], err));
    for (int i = 0; i < a->token_ratio.n; i++) SD_TRY(read_ratio(c, a->token_ratio.item[i], err));
    bool used = false;
    for (int i = 0; i < c->n_rivals; i++) used |= c->rival[i].from_file;
    SD_CHECK(!c->prices || used, err, SD_EINVAL,
             "--prices is given without a model of it; give --api MODEL, or leave it out");
    bool mixed = c->local_share >= 0 || c->escalated_share >= 0;
    SD_CHECK(!mixed || c->n_llm > 0, err, SD_EINVAL,
             "--local-share and --escalate need an API to send the rest to; give --api");
out:
    return st;
}
