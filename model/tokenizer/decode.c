// From ids to text, whole or as a stream.
#include "model/tokenizer/internal.h"

#include "base/utf8.h"

#include <string.h>

static sd_status add_text(const sd_tokenizer *t, const int32_t *id, int n, bool skip_special,
                          bool strip, sd_buf *out, sd_error *err) {
    sd_status st = SD_OK;
    for (int i = 0; i < n; i++) {
        size_t len;
        if (skip_special && sd_tokenizer_is_special(t, id[i])) continue;
        const char *bytes = sd_tokenizer_bytes(t, id[i], &len);
        size_t drop = strip && len && *bytes == ' ';
        strip &= len == 0;
        SD_CHECK(sd_buf_add(out, bytes + drop, len - drop), err, SD_ELIMIT,
                 "the text of %d tokens does not fit %zu bytes; decode fewer", n, out->max);
    }
out:
    return st;
}

sd_status sd_tokenizer_decode(const sd_tokenizer *t, const int32_t *id, int n, bool skip_special,
                              sd_buf *out, sd_error *err) {
    return add_text(t, id, n, skip_special, t->strip_prefix, out, err);
}

sd_status sd_tokenizer_spell(const sd_tokenizer *t, const int32_t *id, int n, bool skip_special,
                             sd_buf *out, sd_error *err) {
    return add_text(t, id, n, skip_special, false, out, err);
}

int32_t sd_tokenizer_unspaced(const sd_tokenizer *t, int32_t id) {
    size_t len;
    const char *bytes = sd_tokenizer_bytes(t, id, &len);
    return len > 1 && *bytes == ' ' ? sd_bpe_find(&t->bpe, bytes + 1, len - 1) : -1;
}

size_t sd_tokenizer_prefix_bytes(const sd_tokenizer *t, int32_t before, int32_t id) {
    size_t len;
    if (!t->strip_prefix || (before >= 0 && !sd_tokenizer_is_special(t, before))) return 0;
    const char *bytes = sd_tokenizer_bytes(t, id, &len);
    return len && *bytes == ' ';
}

bool sd_utf8_stream_add(sd_utf8_stream *s, const char *bytes, size_t len, sd_buf *out) {
    char joined[sizeof s->held];
    if (!bytes) {
        bool ok = s->n == 0 || sd_buf_add(out, "\xEF\xBF\xBD", 3);
        if (ok) s->n = 0;
        return ok;
    }
    while (len > 0 || s->n > 0) {
        // One step over what was held and the first new bytes, else straight from the input.
        const char *p = bytes;
        size_t have = len, held = (size_t)s->n;
        if (held) {
            size_t more = len < sizeof joined - held ? len : sizeof joined - held;
            memcpy(joined, s->held, held);
            memcpy(joined + held, bytes, more);
            p = joined;
            have = held + more;
        } else {
            size_t good = sd_utf8_valid_prefix(bytes, len);
            if (good) {
                if (!sd_buf_add(out, bytes, good)) return false;
                bytes += good;
                len -= good;
                continue;
            }
        }
        int32_t cp;
        bool truncated;
        size_t n = (size_t)sd_utf8_next(p, have, &cp, &truncated);
        if (truncated) {
            memcpy(s->held, p, have);
            s->n = (int)have;
            return true;
        }
        bool ok = cp < 0 ? sd_buf_add(out, "\xEF\xBF\xBD", 3) : sd_buf_add(out, p, n);
        if (!ok) return false;
        // n covers all held bytes: they were a correct beginning, and one more byte decided.
        bytes += n - held;
        len -= n - held;
        s->n = 0;
    }
    return true;
}
