// A chat template of any bytes, rendered with a small conversation.
#include "model/template_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static json_t *messages, *tools, *extra;
    sd_template *t = NULL;
    sd_error err;
    if (!messages) {
        json_error_t why;
        messages =
            json_loads("[{\"role\": \"system\", \"content\": \"s\\n\"}, {\"role\": \"user\", "
                       "\"content\": \"h\\u00e9\"}, {\"role\": \"assistant\", \"content\": "
                       "null, \"reasoning\": \"r\", \"tool_calls\": [{\"function\": "
                       "{\"name\": \"f\", \"arguments\": {\"a\": [1, 2.5, true]}}}]}]",
                       0, &why);
        tools = json_loads("[{\"function\": {\"name\": \"f\"}}]", 0, &why);
        extra = json_loads("{\"n\": -3, \"d\": {\"k\": \"v\"}, \"l\": [3, 1, 2]}", 0, &why);
    }
    if (sd_template_open(&t, (const char *)data, size, &err) != SD_OK) return 0;
    sd_buf b = sd_buf_make(1 << 26);
    sd_template_render(t, messages, tools, extra, true, "<s>", "</s>", &b, &err);
    sd_buf_free(&b);
    sd_template_close(t);
    return 0;
}
