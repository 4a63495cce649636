#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/adapter/pattern.h"

#include "base/memory.h"

#include <pcre2.h>
#include <string.h>

enum { MAX_STEPS = 100000 }; // of one match: a key may come from a stranger's file

struct sd_module_pattern {
    pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *limits;
};

sd_status sd_module_pattern_open(sd_module_pattern **out, const char *key) {
    sd_status st = SD_OK;
    int code = 0;
    PCRE2_SIZE at;
    char *text = sd_sprintf("^(.*\\.)?(%s)$", key);
    sd_module_pattern *p = sd_alloc(1, sizeof *p);
    *out = NULL;
    SD_CHECK_ALLOC(text && p, NULL);
    p->code = pcre2_compile((PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, 0, &code, &at, NULL);
    SD_CHECK(p->code || code == PCRE2_ERROR_HEAP_FAILED, NULL, SD_EFORMAT, "no regular expression");
    SD_CHECK_ALLOC(p->code, NULL);
    p->match = pcre2_match_data_create_from_pattern(p->code, NULL);
    p->limits = pcre2_match_context_create(NULL);
    SD_CHECK_ALLOC(p->match && p->limits, NULL);
    pcre2_set_match_limit(p->limits, MAX_STEPS);
    *out = p;
    p = NULL;
out:
    sd_module_pattern_close(p);
    free(text);
    return st;
}

void sd_module_pattern_close(sd_module_pattern *p) {
    if (!p) return;
    pcre2_match_context_free(p->limits);
    pcre2_match_data_free(p->match);
    pcre2_code_free(p->code);
    free(p);
}

sd_status sd_module_pattern_match(bool *hit, const sd_module_pattern *p, const char *path) {
    int found = pcre2_match(p->code, (PCRE2_SPTR)path, strlen(path), 0, 0, p->match, p->limits);
    *hit = found >= 0;
    if (found == PCRE2_ERROR_NOMEMORY) return SD_ENOMEM;
    return found >= 0 || found == PCRE2_ERROR_NOMATCH ? SD_OK : SD_ELIMIT;
}
