#include "base/log.h"
#include "model/infer/backend.h"

#include <string.h>

#define ADDRESS(backend, word) &sd_backend_##backend,
const sd_backend *const sd_backends[] = {SD_DEVICE_LIST(ADDRESS) NULL};
#undef ADDRESS

// A device that is there but does not fit is worth a word; one that is not there is not.
static const sd_backend *best(void) {
    int i = 0;
    for (; sd_backends[i + 1]; i++) {
        sd_error why;
        const sd_status st = sd_backends[i]->look(0, &why);
        if (st == SD_OK) break;
        if (st != SD_ENOTFOUND)
            sd_log(SD_LOG_WARN, "%s; running on another device than %s", why.message,
                   sd_backends[i]->word);
    }
    return sd_backends[i];
}

// The number behind a word's colon: up to three digits. -1: it is none.
static int number(const char *text) {
    const size_t n = strspn(text, "0123456789");
    int value = 0;
    if (n < 1 || n > 3 || text[n]) return -1;
    for (size_t i = 0; i < n; i++) value = 10 * value + (text[i] - '0');
    return value;
}

sd_status sd_device_choose(const sd_backend **backend, int *device, const char *text,
                           sd_error *err) {
    sd_status st = SD_OK;
    const size_t len = strcspn(text, ":");
    int which = 0;
    *backend = NULL;
    *device = 0;
    if (strcmp(text, "auto") == 0) {
        *backend = best();
        goto out;
    }
    for (int i = 0; sd_backends[i] && !*backend; i++)
        if (strlen(sd_backends[i]->word) == len && memcmp(sd_backends[i]->word, text, len) == 0)
            *backend = sd_backends[i];
    if (text[len]) which = number(text + len + 1);
    SD_CHECK(*backend && which >= 0, err, SD_EINVAL,
             "--device: '%.40s' is unknown; choose one of " SD_DEVICES, text);
    SD_TRY((*backend)->look(which, err));
    *device = which;
out:
    return st;
}
