// The base model, and which of its maps are adapted.
#include "base/memory.h"
#include "model/adapter/chat_template.h"
#include "model/chat.h"
#include "trainer/lora_targets.h"
#include "trainer/run/private.h"

#include <string.h>

/// The recipe's template, else that of the adapter which is gone on from, else the model's own.
static sd_status choose_template(sd_model *m, const sd_recipe *e, sd_error *err) {
    sd_status st = SD_OK;
    sd_template *t;
    if (!e->data.chat_template)
        return e->adapter.from ? sd_adapter_bring_template(m, e->adapter.from, err) : SD_OK;
    sd_error why = {0};
    st = sd_chat_template_read(&t, e->data.chat_template, &why);
    if (st == SD_EIO || st == SD_ENOMEM) {
        if (err) *err = why;
        return st;
    }
    if (st != SD_OK) return sd_recipe_fail(e, "data.chat_template", err, "%s", why.message);
    return sd_model_take_template(m, t, err);
}

static sd_status open_model(sd_run_base *b, const sd_recipe *e, int threads, sd_error *err) {
    sd_status st = SD_OK;
    if (!e->base.model)
        return sd_recipe_fail(e, "base.model", err,
                              "is missing; give the path of a GGUF file or a Hugging Face folder");
    SD_TRY(sd_pool_open(&b->pool, threads > 0 ? threads : (int)e->device.threads, err));
    SD_TRY(sd_model_open(&b->model, e->base.model, err));
    SD_TRY(sd_model_sha256(b->model, &b->sha256, err));
    if (e->base.sha256 && strcmp(e->base.sha256, b->sha256.hex) != 0)
        return sd_recipe_fail(e, "base.sha256", err,
                              "%s has SHA-256 %s; give the right file, or null", e->base.model,
                              b->sha256.hex);
    SD_TRY(choose_template(b->model, e, err));
out:
    return st;
}

static sd_status open_layout(sd_lora_layout *lay, const sd_recipe *e, const sd_model *m,
                             sd_error *err) {
    sd_status st = SD_OK;
    size_t n = (size_t)m->n_linears;
    int *rank = sd_alloc(n, sizeof *rank);
    double *alpha = sd_alloc(n, sizeof *alpha);
    SD_CHECK_ALLOC(rank, err);
    SD_CHECK_ALLOC(alpha, err);
    SD_TRY(sd_lora_targets(rank, alpha, e, m, err));
    SD_TRY(sd_lora_layout_init(lay, m, rank, alpha, e->adapter.scaling == SD_SCALING_RSLORA, err));
out:
    free(rank);
    free(alpha);
    return st;
}

sd_status sd_run_open_base(sd_run_base *out, const sd_recipe *recipe, int threads, sd_error *err) {
    *out = (sd_run_base){0};
    sd_status st = open_model(out, recipe, threads, err);
    return st == SD_OK ? open_layout(&out->layout, recipe, out->model, err) : st;
}

void sd_run_close_base(sd_run_base *b) {
    sd_lora_layout_free(&b->layout);
    sd_model_release(b->model);
    sd_pool_close(b->pool);
    *b = (sd_run_base){0};
}
