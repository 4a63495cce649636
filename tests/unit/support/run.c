#include "tests/unit/support/run.h"

#include "base/files/path.h"
#include "base/memory.h"
#include "datasets/corpus/corpus_index.h"
#include "tests/unit/support/must.h"

void test_write_run(const char *run, sd_model *base, uint64_t seed, float spread, bool bound) {
    int slots = base->n_linears;
    sd_lora *lora = sd_alloc((size_t)slots, sizeof *lora);
    sd_error err = {0};
    for (int i = 0; i < slots; i++) {
        int rows, cols;
        rows = base->linear[i].w.rows, cols = base->linear[i].w.cols;
        float *f = sd_alloc((size_t)(4 * (rows + cols)), sizeof *f);
        for (int k = 0; k < 4 * (rows + cols); k++)
            f[k] = spread * ((float)(sd_mix64(seed++) % 2001) * 1e-3f - 1);
        lora[i] = (sd_lora){.r = 4, .A = f, .B = f + 4 * cols, .scale = 1};
    }
    sd_adapter *a;
    MUST(sd_adapter_from_factors(&a, "x", lora, base, &err) == SD_OK, "%s", err.message);
    for (int i = 0; i < slots; i++) free((void *)(uintptr_t)lora[i].A);
    free(lora);
    char *peft = sd_path_join(run, "adapter"), *draft = sd_path_join(run, "draft");
    char *index = sd_path_join(draft, "corpus.idx");
    MUST(sd_mkdirs(draft, &err) == SD_OK, "%s", err.message);
    MUST(sd_adapter_write_peft(peft, a, base, NULL, &err) == SD_OK, "%s", err.message);
    sd_adapter_release(a);
    MUST(sd_adapter_open(&a, run, base, false, &err) == SD_OK, "%s", err.message);
    sd_sha256 other;
    MUST(sd_sha256_of(&other, "other", 5, &err) == SD_OK, "%s", err.message);
    const int32_t corpus[] = {1, 2, 3, 4, 5, 6, -1};
    MUST(sd_corpus_write(index, corpus, 7, NULL, 0, sd_tokenizer_fingerprint(base->tokenizer),
                         bound ? &a->sha256 : &other, &err) == SD_OK,
         "%s", err.message);
    sd_adapter_release(a);
    free(peft), free(draft), free(index);
}
