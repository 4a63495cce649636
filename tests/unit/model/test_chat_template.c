// Chat templates that are not in the model's files: from a file, and beside an adapter.
#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/memory.h"
#include "model/adapter/adapter.h"
#include "model/adapter/chat_template.h"
#include "model/chat.h"
#include "tests/unit/support/files.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

TestSuite(chat_template, .timeout = 60);

#define TURNS(begin, end)                                                                          \
    "{% for m in messages %}" begin "{{ m['role'] }}: {{ m['content'] }}" end "{% endfor %}"

static sd_model *bare(const sd_arch *arch, bool gguf) {
    sd_tiny_model t = sd_tiny_default(arch);
    t.chat_template = "";
    sd_model *m = sd_tiny_open(&t, gguf);
    cr_assert(m && !m->chat);
    return m;
}

static sd_template *read_text(const char *text) {
    sd_template *t;
    sd_error err = {0};
    cr_assert_eq(sd_chat_template_read(&t, temp_text("t.jinja", text), &err), SD_OK, "%s",
                 err.message);
    return t;
}

static void take(sd_model *m, const char *text) {
    sd_error err = {0};
    cr_assert_eq(sd_model_take_template(m, read_text(text), &err), SD_OK, "%s", err.message);
}

static int32_t id_of(const sd_model *m, const char *text) {
    return sd_tokenizer_find(m->tokenizer, text);
}

Test(chat_template, takes_the_place_of_the_models_own) {
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama); // with ChatML
    sd_model *m = sd_tiny_open(&t, true);
    sd_ids own = {0}, other = {0}, plain = {0};
    sd_error err = {0};
    json_t *messages = json_pack("[{s:s, s:s}]", "role", "user", "content", "hi");
    cr_assert_eq(sd_model_chat_ids(m, messages, NULL, NULL, true, &own, &err), SD_OK);
    cr_assert(!sd_model_template_is_taken(m));
    take(m, TURNS("[", "]"));
    cr_assert(sd_model_template_is_taken(m));
    cr_assert_eq(sd_model_chat_ids(m, messages, NULL, NULL, true, &other, &err), SD_OK);
    cr_assert_eq(sd_tokenizer_encode(m->tokenizer, "[user: hi]", 10, 0, &plain, &err), SD_OK);
    cr_assert(other.n == plain.n && memcmp(other.id, plain.id, sizeof *plain.id * plain.n) == 0);
    cr_assert_neq(own.n, other.n);
    sd_ids_free(&own), sd_ids_free(&other), sd_ids_free(&plain);
    json_decref(messages);
    sd_model_release(m);
}

// A base model's metadata names no end of a turn; the template does.
Test(chat_template, what_it_writes_behind_an_answer_ends_answers) {
    static const struct {
        const char *text, *end; // NULL: none is added
    } cases[] = {
        {TURNS("", "<|im_start|>\n"), "<|im_start|>"}, // no end of the metadata's
        {TURNS("<|im_start|>", "\n"), NULL},
        {TURNS("", "{{ ' ' }}<|im_start|><|im_end|>"), "<|im_start|>"},
        {"{% if messages[0]['role'] != 'system' %}{{ raise_exception('a system message!') }}"
         "{% endif %}" TURNS("", "<|im_start|>"),
         "<|im_start|>"},
        {"{{ messages[0]['content'] }}", NULL}, // leaves answers out
        {"{% if messages|length > 1 %}{{ raise_exception('one question only') }}{% endif %}"
         "{{ messages[0]['content'] }}<|im_start|>",
         NULL}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sd_model *m = bare(&sd_arch_qwen2, true);
        int before = m->n_end_tokens;
        int32_t start = id_of(m, "<|im_start|>");
        cr_assert(start >= 0 && !sd_model_is_end(m, start));
        take(m, cases[i].text);
        cr_assert_eq(m->n_end_tokens - before, cases[i].end ? 1 : 0, "%zu", i);
        if (cases[i].end) cr_assert(sd_model_is_end(m, id_of(m, cases[i].end)), "%zu", i);
        sd_model_release(m);
    }
}

Test(chat_template, what_is_no_template_is_refused_in_one_sentence) {
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "is empty"},
        {"{% for x in %}", "line 1: expected an expression"},
        {"{{ messages[0]['content'] }}\n{{ oops(", "line 2"},
        {"a recipe: 1\n", "does not hold that message"},
        {"{{ raise_exception('never') }}", "never"},
        {"{{ messages[0]['text'] | upper }}", "does not hold that message"},
        {"{% set n = namespace(i=0) %}{% for a in range(99999) %}{% for b in range(99999) %}"
         "{% set n.i = n.i + 1 %}{% endfor %}{% endfor %}",
         "cannot render"}};
    sd_template *t;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sd_error err = {0};
        const char *path = temp_text("t.jinja", cases[i].text);
        sd_status st = sd_chat_template_read(&t, path, &err);
        cr_assert_eq(sd_status_exit_code(st), 2, "%zu: %d", i, st);
        cr_assert(!t && strstr(err.message, cases[i].says) && strncmp(err.message, path, 4) == 0,
                  "%zu: %s", i, err.message);
        cr_assert(!strchr(err.message, '\n'), "%s", err.message);
    }
    sd_error err = {0};
    cr_assert_eq(sd_chat_template_read(&t, "/nowhere.jinja", &err), SD_ENOTFOUND);
    cr_assert(strstr(err.message, "/nowhere.jinja: "), "%s", err.message);
    cr_assert_eq(sd_chat_template_read(&t, "/tmp", &err), SD_EINVAL);
    char *long_one = sd_alloc((2 << 20) + 1, 1);
    memset(long_one, ' ', 2 << 20);
    cr_assert_eq(sd_status_exit_code(sd_chat_template_read(&t, temp_text("l", long_one), &err)), 2);
    free(long_one);
}

// What SmolLM2's template says of a tool call is "content is undefined".
Test(chat_template, a_tool_call_that_it_does_not_write_is_named) {
    sd_model *m = bare(&sd_arch_llama, true);
    sd_ids ids = {0};
    sd_error err = {0};
    json_t *call = json_loads("[{\"role\": \"user\", \"content\": \"q\"}, {\"role\": "
                              "\"assistant\", \"tool_calls\": []}]",
                              0, NULL);
    take(m, "{% for m in messages %}{{ m['role'] + m['content'] }}{% endfor %}");
    cr_assert_eq(sd_model_chat_ids(m, call, NULL, NULL, true, &ids, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "message 2 has tool calls and no content"), "%s", err.message);
    json_object_del(json_array_get(call, 1), "tool_calls");
    cr_assert_eq(sd_model_chat_ids(m, call, NULL, NULL, true, &ids, &err), SD_EINVAL);
    cr_assert(!strstr(err.message, "tool calls"), "%s", err.message);
    json_object_set_new(json_array_get(call, 1), "tool_calls", json_array());
    take(m, "{% for m in messages %}{{ m['role'] + m['content'] }}{{ m.tool_calls }}{% endfor %}");
    cr_assert_eq(sd_model_chat_ids(m, call, NULL, NULL, true, &ids, &err), SD_EINVAL);
    cr_assert(!strstr(err.message, "tool calls"), "%s", err.message);
    json_decref(call);
    sd_ids_free(&ids);
    sd_model_release(m);
}

// ---- beside an adapter

static sd_adapter *adapter_of(const sd_model *m) {
    static float factors[2][1024];
    for (int i = 0; i < 1024; i++) factors[0][i] = 0.01f * (float)(i % 7), factors[1][i] = 0.02f;
    sd_lora *lora = sd_alloc((size_t)m->n_linears, sizeof *lora);
    lora[SD_WQ] = (sd_lora){.r = 2, .A = factors[0], .B = factors[1], .scale = 2};
    sd_adapter *a;
    sd_error err = {0};
    cr_assert_eq(sd_adapter_from_factors(&a, "t", lora, m, &err), SD_OK, "%s", err.message);
    free(lora);
    return a;
}

static void says(const char *path, const char *want) {
    sd_template *t;
    sd_error err = {0};
    cr_assert_eq(sd_adapter_template(&t, path, &err), SD_OK, "%s", err.message);
    cr_assert_eq(!t, !want, "%s", path);
    if (want) cr_assert_str_eq(sd_template_source(t), want);
    sd_template_close(t);
}

Test(chat_template, travels_with_every_form_of_an_adapter_and_with_a_merged_model) {
    static const char text[] = TURNS("<|im_start|>", "<|im_end|>\n") "\n";
    for (int gguf = 0; gguf < 2; gguf++)
        for (int taken = 0; taken < 2; taken++) {
            sd_error err = {0};
            sd_tiny_model tiny = sd_tiny_default(&sd_arch_llama);
            char *dir = sd_tiny_dir(), *source = sd_path_join(dir, "base.gguf"),
                 *peft = sd_path_join(dir, "peft"), *file = sd_path_join(dir, "a.gguf"),
                 *merged = sd_path_join(dir, "merged");
            sd_model *m, *again;
            if (!gguf) cr_assert_eq(sd_mkdirs(source, &err), SD_OK);
            cr_assert_eq(gguf ? sd_tiny_write_gguf(source, &tiny, &err)
                              : sd_tiny_write_folder(source, &tiny, &err),
                         SD_OK);
            cr_assert_eq(sd_model_open(&m, source, &err), SD_OK, "%s", err.message);
            char *own = sd_strdup(sd_template_source(m->chat));
            if (taken) take(m, text);
            sd_adapter *a = adapter_of(m);
            cr_assert_eq(sd_adapter_write_peft(peft, a, m, NULL, &err), SD_OK, "%s", err.message);
            cr_assert_eq(sd_adapter_write_gguf(file, a, m, &err), SD_OK, "%s", err.message);
            cr_assert_eq(sd_adapter_write_merged(merged, a, m, &err), SD_OK, "%s", err.message);
            says(peft, taken ? text : NULL);
            says(file, taken ? text : NULL);
            cr_assert_eq(sd_model_open(&again, merged, &err), SD_OK, "%s", err.message);
            cr_assert(again->chat);
            cr_assert_str_eq(sd_template_source(again->chat), taken ? text : own);
            sd_model_release(again);
            sd_adapter_release(a);
            sd_model_release(m);
            free(own), free(source), free(peft), free(file), free(merged);
            sd_tiny_remove(dir);
        }
}

static void write_in(const char *dir, const char *name, const char *text) {
    char *path = sd_path_join(dir, name);
    cr_assert_eq(sd_file_write(path, text, strlen(text), NULL), SD_OK);
    free(path);
}

// A pipe would be waited for, for ever where an adapter came with it.
Test(chat_template, a_pipe_beside_an_adapter_is_refused_and_not_waited_for) {
    char *dir = sd_tiny_dir(), *file = sd_path_join(dir, "chat_template.jinja");
    sd_error err = {0};
    sd_template *t;
    write_in(dir, "adapter_config.json", "{}");
    cr_assert_eq(mkfifo(file, 0600), 0);
    cr_assert_eq(sd_adapter_template(&t, dir, &err), SD_EINVAL);
    cr_assert(!t && strstr(err.message, "chat_template.jinja: is no regular file"), "%s",
              err.message);
    free(file);
    sd_tiny_remove(dir);
}

Test(chat_template, a_run_whose_manifest_names_another_is_refused) {
    static const char text[] = TURNS("", "\n");
    char *run = sd_tiny_dir(), *adapter = sd_path_join(run, "adapter");
    char *file = sd_path_join(adapter, "chat_template.jinja");
    char manifest[256];
    sd_error err = {0};
    sd_sha256 hash;
    sd_template *t;
    cr_assert_eq(sd_mkdirs(adapter, &err), SD_OK);
    cr_assert_eq(sd_sha256_of(&hash, text, strlen(text), &err), SD_OK);
    snprintf(manifest, sizeof manifest,
             "{\"artefacts\": {\"chat_template\": {\"file\": \"x\", \"sha256\": \"%s\"}}}",
             hash.hex);
    write_in(run, "manifest.json", manifest);
    cr_assert_eq(sd_adapter_template(&t, run, &err), SD_EINVAL);
    cr_assert(strstr(err.message, "chat_template.jinja: is missing"), "%s", err.message);
    write_in(adapter, "chat_template.jinja", text);
    says(run, text);
    write_in(adapter, "chat_template.jinja", TURNS("", ""));
    cr_assert_eq(sd_adapter_template(&t, run, &err), SD_EINVAL);
    cr_assert(!t && strstr(err.message, "it changed after training"), "%s", err.message);
    write_in(run, "manifest.json", "{\"artefacts\": {\"chat_template\": {\"sha256\": 5}}}");
    cr_assert_eq(sd_adapter_template(&t, run, &err), SD_EFORMAT);
    write_in(run, "manifest.json", "{}"); // of a run that began without
    says(run, TURNS("", ""));
    unlink(file);
    says(run, NULL);
    free(adapter), free(file);
    sd_tiny_remove(run);
}
