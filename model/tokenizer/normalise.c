// Unicode normalisation. utf8proc decomposes and composes. Its ordering of marks between the two is
// quadratic in a run of marks, so the ordering is done here.
#include "model/tokenizer/added.h"

#include "base/list.h"
#include "base/utf8.h"

#include <utf8proc.h>

// Marks are sorted by their combining class, stably. Only hostile text has long runs.
typedef struct {
    uint8_t class;
    int32_t cp;
} mark;

static void sort_marks(utf8proc_int32_t *cp, size_t n, mark *tmp) {
    size_t count[257] = {0};
    for (size_t i = 0; i < n; i++) {
        tmp[i] = (mark){(uint8_t)utf8proc_get_property(cp[i])->combining_class, cp[i]};
        count[tmp[i].class + 1]++;
    }
    for (int i = 0; i < 256; i++) count[i + 1] += count[i];
    for (size_t i = 0; i < n; i++) cp[count[tmp[i].class]++] = tmp[i].cp;
}

static sd_status order_marks(utf8proc_int32_t *cp, size_t n, sd_error *err) {
    sd_status st = SD_OK;
    mark *tmp = NULL;
    size_t cap = 0;
    for (size_t i = 0; i < n;) {
        if (utf8proc_get_property(cp[i])->combining_class == 0) {
            i++;
            continue;
        }
        size_t end = i + 1;
        while (end < n && utf8proc_get_property(cp[end])->combining_class != 0) end++;
        if (end - i > 1) {
            if (end - i > cap) {
                cap = (end - i) * 2;
                free(tmp);
                tmp = sd_alloc(cap, sizeof *tmp);
                SD_CHECK_ALLOC(tmp, err);
            }
            sort_marks(cp + i, end - i, tmp);
        }
        i = end;
    }
out:
    free(tmp);
    return st;
}

sd_status sd_normalise(sd_buf *out, int form, const char *text, size_t len, sd_error *err) {
    sd_status st = SD_OK;
    utf8proc_int32_t *cp = NULL;
    size_t n = 0, cap = 0;
    utf8proc_option_t decompose =
        (utf8proc_option_t)((form & ~UTF8PROC_COMPOSE) | UTF8PROC_DECOMPOSE);
    for (size_t i = 0; i < len;) {
        int32_t c;
        int boundary = 0;
        i += (size_t)sd_utf8_next(text + i, len - i, &c, NULL);
        SD_CHECK_ALLOC(SD_GROW(cp, n + 32, cap), err); // no character decomposes to more than 18
        utf8proc_ssize_t got =
            utf8proc_decompose_char(c, cp + n, (utf8proc_ssize_t)(cap - n), decompose, &boundary);
        SD_CHECK(got >= 0 && (size_t)got <= cap - n, err, SD_EFORMAT,
                 "U+%04X cannot be normalised; remove it from the text", (unsigned)c);
        n += (size_t)got;
    }
    SD_TRY(order_marks(cp, n, err));
    if ((form & UTF8PROC_COMPOSE) && n)
        n = (size_t)utf8proc_normalize_utf32(cp, (utf8proc_ssize_t)n, (utf8proc_option_t)form);
    for (size_t i = 0; i < n; i++) {
        char bytes[4];
        SD_CHECK_ALLOC(sd_buf_add(out, bytes, (size_t)sd_utf8_put(bytes, cp[i])), err);
    }
out:
    free(cp);
    return st;
}
