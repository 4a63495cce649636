// Any bytes as HTTP, cut at a place the first byte chooses: no crash, limits kept, and the same
// verdict as in one piece.
#include "base/status.h"
#include "decode/serve/http/http.h"

#include <stdint.h>

static sd_http_result feed(sd_http *h, const char *data, size_t len, size_t *end) {
    for (;;) {
        size_t used;
        sd_http_result r = sd_http_feed(h, data + *end, len - *end, &used);
        SD_ASSERT(used <= len - *end);
        *end += used;
        if (r == SD_HTTP_DONE || r == SD_HTTP_BAD || (r == SD_HTTP_MORE && *end == len)) return r;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    if (size < 1) return 0;
    const char *data = (const char *)bytes + 1;
    size_t len = size - 1, cut = len ? bytes[0] * len / 256 : 0, whole_end = 0, cut_end = 0;
    sd_http whole, parts;
    sd_http_init(&whole);
    sd_http_init(&parts);
    sd_http_result a = feed(&whole, data, len, &whole_end);
    sd_http_result b = feed(&parts, data, cut, &cut_end);
    if (b == SD_HTTP_MORE) b = feed(&parts, data, len, &cut_end);
    SD_ASSERT(a == b && whole.status == parts.status && whole.body.len == parts.body.len);
    SD_ASSERT(a != SD_HTTP_DONE || whole_end == cut_end);
    SD_ASSERT(whole.body.len <= SD_HTTP_MAX_BODY && whole.head.n_fields <= SD_HTTP_MAX_FIELDS);
    sd_http_free(&whole);
    sd_http_free(&parts);
    return 0;
}
