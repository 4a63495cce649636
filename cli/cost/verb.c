// specdec cost: from a load, a speed and prices to a decision.
#include "cli/cost/args.h"
#include "cli/cost/show.h"
#include "cli/verbs.h"

#include <stdio.h>

sd_status sd_verb_cost(int argc, char **argv, sd_error *err) {
    sd_status st = SD_OK;
    sd_cost_case c = {0};
    sd_cost_outputs outputs;
    sd_cost_result r;
    if (sd_cost_args_help(argc, argv)) return SD_OK;
    SD_TRY(sd_cost_case_read(&c, &outputs, argc, argv, err));
    SD_TRY(sd_cost_compute(&r, &c, err));
    if (outputs.html) SD_TRY(sd_cost_html(outputs.html, &c, &r, err));
    if (outputs.json) {
        json_t *o = sd_cost_json(&c, &r);
        st = sd_json_print(stdout, o, JSON_COMPACT, err);
        json_decref(o);
        if (st == SD_OK) putchar('\n');
    } else {
        sd_cost_print(&c, &r);
    }
out:
    sd_cost_case_free(&c);
    return st;
}
