// The body of a request of any bytes, as each kind of request.
#include "decode/serve/api_request.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1) return 0;
    sd_api_request r;
    sd_api_error e;
    memset(&r, 0, sizeof r);
    if (sd_api_request_parse(&r, (sd_api_kind)(data[0] & 1), (const char *)data + 1, size - 1,
                             &e) == 0)
        sd_api_request_free(&r);
    return 0;
}
