// Any bytes as a request's body, for both endpoints: a request or an error with a sentence.
#include "base/status.h"
#include "decode/serve/api_request.h"
#include "decode/serve/api_response.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size) {
    for (int kind = SD_API_CHAT; kind <= SD_API_COMPLETION; kind++) {
        sd_api_request r;
        sd_api_error e;
        int status = sd_api_request_parse(&r, (sd_api_kind)kind, (const char *)bytes, size, &e);
        SD_ASSERT(status == e.status && (status == 0 || (status >= 400 && e.message[0])));
        if (status) {
            json_t *v = sd_error_json(&e);
            SD_ASSERT(v);
            json_decref(v);
        } else {
            SD_ASSERT(kind == SD_API_CHAT ? json_array_size(r.messages) > 0 : r.n_prompts > 0);
        }
        sd_api_request_free(&r);
    }
    return 0;
}
