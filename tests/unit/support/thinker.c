#include "tests/unit/support/thinker.h"

#include "base/files/path.h"
#include "tests/unit/support/must.h"
#include "tests/unit/support/tiny/model.h"

#include <string.h>

static const char *const tokens[] = {"\nHm", ".\n",         "</think>",    "\n\nYes",
                                     ".",    "<tool_call>", "</tool_call>"};
static const char template[] = "{% for m in messages %}{{ m.content }}{% endfor %}{% if tools %}"
                               "{{ tools | tojson }}{% endif %}"
                               "{% if false %}<tool_call>{% endif %}<think>\n";

void thinker_write(live *s) {
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    t.ctx = 4096;
    t.V = 296;
    t.added = tokens, t.n_added = 7;
    t.chat_template = template;
    *s = (live){.o = {.drain_s = 20}, .dir = sd_tiny_dir()};
    s->model = sd_path_join(s->dir, "tiny.gguf");
    MUST(sd_tiny_write_gguf(s->model, &t, &s->err) == SD_OK, "%s", s->err.message);
}

void thinker_start(live *s) {
    thinker_write(s);
    live_start_with(s, 2048, 4, 16, NULL);
}

json_t *thinker_events(const char *stream) {
    json_t *list = json_array();
    for (const char *at = stream; (at = strstr(at, "event: ")); at++) {
        const char *data = strstr(at, "\ndata: ");
        json_t *v = data ? json_loads(data + 7, JSON_DISABLE_EOF_CHECK, NULL) : NULL;
        const char *type = live_text_at(v, "type");
        MUST(v && strncmp(at + 7, type, strlen(type)) == 0 && at + 7 + strlen(type) == data, "%s",
             at);
        json_array_append_new(list, v);
    }
    return list;
}
