// How a model is asked where nobody says: what files may hold, which of them counts, and what of it
// reaches a request.
#include "model/defaults.h"

#include "base/files/path.h"
#include "base/files/replace.h"
#include "base/log.h"
#include "base/memory.h"
#include "model/adapter/defaults.h"
#include "model/formats/gguf_write.h"
#include "tests/unit/support/tiny/model.h"

#include <criterion/criterion.h>
#include <jansson.h>
#include <string.h>

static char *dir;
static void set_up(void) {
    dir = sd_tiny_dir();
    sd_log_set_level(SD_LOG_ERROR);
}
static void tear_down(void) {
    sd_tiny_remove(dir);
}
TestSuite(defaults, .init = set_up, .fini = tear_down, .timeout = 120);

static void write_text(const char *name, const char *text) {
    char *path = sd_path_join(dir, name);
    cr_assert_eq(sd_file_write(path, text, strlen(text), NULL), SD_OK);
    free(path);
}
static void make(const char *name) {
    char *path = sd_path_join(dir, name);
    cr_assert_eq(sd_mkdirs(path, NULL), SD_OK);
    free(path);
}
static sd_status of_adapter(sd_defaults *d, const char *name, sd_error *err) {
    char *path = sd_path_join(dir, name);
    *d = (sd_defaults){0};
    sd_status st = sd_adapter_defaults(d, path, err);
    free(path);
    return st;
}
static bool is(const sd_defaults *d, sd_default i, double value, sd_default_source from) {
    return d->from[i] == from && (from == SD_FROM_NOTHING || d->value[i] == value);
}

#define SERVE(system, share, sampling)                                                             \
    "\"serve\": {\"system\": " system ", \"system_share\": " share ", \"sampling\": {" sampling "}}"

Test(defaults, what_was_judged_is_written_and_read_as_it_was) {
    sd_defaults d = {.system = sd_strdup("Sag \"ja\".\n"), .system_share = 0.975}, again = {0};
    sd_error err = {0};
    sd_defaults_judged(&d, 1024);
    make("peft");
    char *path = sd_path_join(dir, "peft"), *file = sd_path_join(dir, "adapter.gguf");
    write_text("adapter.gguf", "x");
    for (int i = 0; i < 2; i++) { // inside a folder, beside a file
        const char *at = i ? file : path;
        cr_assert_eq(sd_defaults_write_beside(&d, at, &err), SD_OK, "%s", err.message);
        cr_assert_eq(sd_defaults_read_beside(&again, at, &err), SD_OK, "%s", err.message);
        cr_assert_str_eq(again.system, d.system);
        cr_assert_eq(again.system_share, 0.975);
        cr_assert(is(&again, SD_DEFAULT_TEMPERATURE, 0, SD_FROM_RUN));
        cr_assert(is(&again, SD_DEFAULT_TOP_P, 1, SD_FROM_RUN));
        cr_assert(is(&again, SD_DEFAULT_TOP_K, 0, SD_FROM_RUN));
        cr_assert(is(&again, SD_DEFAULT_MIN_P, 0, SD_FROM_RUN));
        cr_assert(is(&again, SD_DEFAULT_MAX_TOKENS, 1024, SD_FROM_RUN));
        sd_defaults_free(&again);
    }
    sd_path_kind kind;
    cr_assert(sd_path_look_in(&kind, path, "specdec.json", &err) == SD_OK && kind == SD_PATH_FILE);
    cr_assert(sd_path_look_in(&kind, dir, "adapter.gguf.specdec.json", &err) == SD_OK &&
              kind == SD_PATH_FILE);
    free(path), free(file);
    sd_defaults_free(&d);
}

// The run's manifest goes before what stands in its adapter/, and both before generation_config.json,
// each field for itself.
Test(defaults, of_an_adapter_come_from_the_first_file_that_says_them) {
    sd_defaults d;
    sd_error err = {0};
    make("run/adapter");
    write_text("run/adapter/adapter_config.json", "{}");
    cr_assert_eq(of_adapter(&d, "run", &err), SD_OK, "%s", err.message);
    cr_assert(!sd_defaults_any(&d));
    write_text(
        "run/adapter/generation_config.json",
        "{\"temperature\": 0.7, \"top_k\": 20, \"max_new_tokens\": 99, \"do_sample\": true}");
    cr_assert_eq(of_adapter(&d, "run", &err), SD_OK, "%s", err.message);
    cr_assert(is(&d, SD_DEFAULT_TEMPERATURE, 0.7, SD_FROM_ADAPTER) &&
              is(&d, SD_DEFAULT_TOP_K, 20, SD_FROM_ADAPTER) &&
              is(&d, SD_DEFAULT_MAX_TOKENS, 99, SD_FROM_ADAPTER) &&
              is(&d, SD_DEFAULT_TOP_P, 0, SD_FROM_NOTHING));
    write_text("run/adapter/specdec.json", "{" SERVE("\"s\"", "1", "\"temperature\": 0.5") "}");
    cr_assert_eq(of_adapter(&d, "run", &err), SD_OK, "%s", err.message);
    cr_assert(is(&d, SD_DEFAULT_TEMPERATURE, 0.5, SD_FROM_RUN) &&
              is(&d, SD_DEFAULT_TOP_K, 20, SD_FROM_ADAPTER));
    cr_assert_str_eq(d.system, "s");
    sd_defaults_free(&d);
    write_text("run/manifest.json", "{" SERVE("\"m\"", "1", "\"temperature\": 0") "}");
    cr_assert_eq(of_adapter(&d, "run", &err), SD_OK, "%s", err.message);
    cr_assert(is(&d, SD_DEFAULT_TEMPERATURE, 0, SD_FROM_RUN) &&
              is(&d, SD_DEFAULT_TOP_K, 20, SD_FROM_ADAPTER));
    cr_assert_str_eq(d.system, "m");
    sd_defaults_free(&d);
    cr_assert_eq(of_adapter(&d, "run/adapter", &err), SD_OK, "%s", err.message); // carried away
    cr_assert_str_eq(d.system, "s");
    sd_defaults_free(&d);
    write_text("run/manifest.json", "{\"specdec_run\": 1}"); // of a version that wrote no such part
    cr_assert_eq(of_adapter(&d, "run", &err), SD_OK, "%s", err.message);
    cr_assert_str_eq(d.system, "s");
    sd_defaults_free(&d);
}

Test(defaults, a_damaged_file_of_a_run_is_refused_by_name_and_value) {
    static const struct {
        const char *text, *says;
    } bad[] = {
        {"{\"serve\": 3}", "serve is 3"},
        {"{\"serve\": []}", "serve is []"},
        {"{" SERVE("7", "1", "") "}", "system is 7"},
        {"{" SERVE("[\"a\"]", "1", "") "}", "system is [\"a\"]"},
        {"{" SERVE("\"a\\u0000b\"", "1", "") "}", "is not JSON"},
        {"{" SERVE("\"a\"", "1.5", "") "}", "system_share is 1.5"},
        {"{" SERVE("\"a\"", "-1", "") "}", "system_share is -1"},
        {"{" SERVE("\"a\"", "\"all\"", "") "}", "system_share is \"all\""},
        {"{" SERVE("\"a\"", "1", "\"temperature\": \"hot\"") "}", "temperature is \"hot\""},
        {"{" SERVE("\"a\"", "1", "\"temperature\": 2.5") "}", "temperature is 2.5"},
        {"{" SERVE("\"a\"", "1", "\"temperature\": -1") "}", "temperature is -1"},
        {"{" SERVE("\"a\"", "1", "\"temperature\": true") "}", "temperature is true"},
        {"{" SERVE("\"a\"", "1", "\"top_p\": 0") "}", "top_p is 0"},
        {"{" SERVE("\"a\"", "1", "\"top_k\": 1.5") "}", "top_k is 1.5"},
        {"{" SERVE("\"a\"", "1", "\"top_k\": 99999999999") "}", "top_k is 99999999999"},
        {"{" SERVE("\"a\"", "1", "\"max_tokens\": 0") "}", "max_tokens is 0"},
        {"{\"serve\": {\"sampling\": [1]}}", "sampling is [1]"},
        {"{\"serve\": {\"sampling\": {\"temperature\": 0, \"temperature\": 1}}}", "is not JSON"},
        {"{\"serve\"", "is not JSON"},
    };
    make("peft");
    write_text("peft/adapter_config.json", "{}");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        sd_defaults d;
        sd_error err = {0};
        write_text("peft/specdec.json", bad[i].text);
        cr_assert_eq(of_adapter(&d, "peft", &err), SD_EFORMAT, "%s: %s", bad[i].text, err.message);
        cr_assert(strstr(err.message, "peft/specdec.json: ") && strstr(err.message, bad[i].says),
                  "%s: %s", bad[i].says, err.message);
        sd_defaults_free(&d);
    }
}

Test(defaults, a_system_text_has_a_largest_size) {
    sd_defaults d;
    sd_error err = {0};
    make("peft");
    write_text("peft/adapter_config.json", "{}");
    for (int over = 0; over < 2; over++) {
        size_t n = (size_t)SD_MAX_SYSTEM_TEXT + (size_t)over;
        char *long_text = sd_alloc(n + 1, 1), *page;
        memset(long_text, 'x', n);
        page = sd_sprintf("{\"serve\": {\"system\": \"%s\"}}", long_text);
        write_text("peft/specdec.json", page);
        sd_status st = of_adapter(&d, "peft", &err);
        cr_assert_eq(st, over ? SD_ELIMIT : SD_OK, "%s", err.message);
        if (over) cr_assert(strstr(err.message, "65537 bytes"), "%s", err.message);
        if (!over) cr_assert_str_eq(d.system, long_text);
        sd_defaults_free(&d);
        free(long_text), free(page);
    }
    char *huge = sd_alloc((2 << 20) + 1, 1); // a file that is no manifest is not even parsed
    memset(huge, ' ', 2 << 20);
    write_text("peft/specdec.json", huge);
    cr_assert_eq(of_adapter(&d, "peft", &err), SD_ELIMIT, "%s", err.message);
    free(huge);
}

// Conventions of others change: what is not understood is left out, and the rest counts.
Test(defaults, of_a_foreign_config_are_taken_where_they_can_be) {
    sd_defaults d = {0};
    make("peft");
    write_text("peft/generation_config.json",
               "{\"temperature\": \"hot\", \"top_p\": 7, \"top_k\": -1, \"min_p\": null, "
               "\"max_new_tokens\": 300.0, \"eos_token_id\": [1]}");
    char *folder = sd_path_join(dir, "peft");
    cr_assert_eq(sd_defaults_add_config(&d, folder, SD_FROM_MODEL, NULL), SD_OK);
    cr_assert(is(&d, SD_DEFAULT_TEMPERATURE, 0, SD_FROM_NOTHING) &&
              is(&d, SD_DEFAULT_TOP_P, 0, SD_FROM_NOTHING) &&
              is(&d, SD_DEFAULT_TOP_K, 0, SD_FROM_MODEL) &&
              is(&d, SD_DEFAULT_MIN_P, 0, SD_FROM_NOTHING) &&
              is(&d, SD_DEFAULT_MAX_TOKENS, 300, SD_FROM_MODEL));
    d = (sd_defaults){0};
    write_text("peft/generation_config.json", "{\"do_sample\": false, \"temperature\": 0.9}");
    cr_assert_eq(sd_defaults_add_config(&d, folder, SD_FROM_MODEL, NULL), SD_OK);
    cr_assert(is(&d, SD_DEFAULT_TEMPERATURE, 0, SD_FROM_MODEL));
    d = (sd_defaults){0};
    write_text("peft/generation_config.json", "{ no json");
    cr_assert_eq(sd_defaults_add_config(&d, folder, SD_FROM_MODEL, NULL), SD_OK);
    cr_assert(!sd_defaults_any(&d));
    free(folder);
}

Test(defaults, of_a_model_stand_in_its_folder_or_in_its_keys) {
    sd_error err = {0};
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    sd_model *m;
    sd_defaults d = {0};
    char *folder = sd_path_join(dir, "model");
    make("model");
    cr_assert_eq(sd_tiny_write_folder(folder, &t, &err), SD_OK, "%s", err.message);
    write_text("model/generation_config.json", "{\"temperature\": 0.6, \"top_p\": 0.9}");
    cr_assert_eq(sd_model_open(&m, folder, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_defaults_of_model(&d, m, &err), SD_OK, "%s", err.message);
    cr_assert(is(&d, SD_DEFAULT_TEMPERATURE, 0.6, SD_FROM_MODEL) &&
              is(&d, SD_DEFAULT_TOP_P, 0.9, SD_FROM_MODEL));
    // A merged export is a tuned model: what its run wrote goes before the config that was copied.
    write_text("model/specdec.json", "{" SERVE("\"s\"", "1", "\"temperature\": 0") "}");
    d = (sd_defaults){0};
    cr_assert_eq(sd_defaults_of_model(&d, m, &err), SD_OK, "%s", err.message);
    cr_assert(is(&d, SD_DEFAULT_TEMPERATURE, 0, SD_FROM_RUN) &&
              is(&d, SD_DEFAULT_TOP_P, 0.9, SD_FROM_MODEL));
    cr_assert_str_eq(d.system, "s");
    sd_defaults_free(&d);
    sd_model_release(m);
    free(folder);
}

// A copy of the file with the sampling that newer converters write; temp 9 is none.
static void with_sampling(const char *to, const char *from, float temp) {
    sd_error err = {0};
    sd_gguf *g;
    sd_gguf_writer *w;
    int32_t top_k = 20;
    cr_assert_eq(sd_gguf_open(&g, from, &err), SD_OK, "%s", err.message);
    cr_assert_eq(sd_gguf_writer_open(&w, to, &err), SD_OK, "%s", err.message);
    for (int i = 0; i < sd_gguf_key_count(g); i++) {
        sd_gguf_type type;
        size_t bytes;
        const char *key = sd_gguf_key_at(g, i, &type);
        const void *raw = sd_gguf_value_raw(g, i, &bytes);
        if (strcmp(key, "general.alignment") != 0)
            cr_assert_eq(sd_gguf_put_raw(w, key, type, raw, bytes, &err), SD_OK);
    }
    cr_assert_eq(sd_gguf_put_f32(w, "general.sampling.temp", temp, &err), SD_OK);
    cr_assert_eq(sd_gguf_put_f32(w, "general.sampling.top_p", 0.95f, &err), SD_OK);
    cr_assert_eq(
        sd_gguf_put_raw(w, "general.sampling.top_k", SD_GGUF_I32, &top_k, sizeof top_k, &err),
        SD_OK);
    cr_assert_eq(sd_gguf_put_str(w, "general.sampling.min_p", "small", &err), SD_OK);
    for (int i = 0; i < sd_gguf_tensor_count(g); i++) {
        const sd_gguf_tensor *t = sd_gguf_tensor_at(g, i);
        cr_assert_eq(sd_gguf_declare(w, t->name, t->dtype, t->n_dims, t->ne, &err), SD_OK);
    }
    for (int i = 0; i < sd_gguf_tensor_count(g); i++) {
        const sd_gguf_tensor *t = sd_gguf_tensor_at(g, i);
        cr_assert_eq(sd_gguf_write_tensor(w, t->data, t->bytes, &err), SD_OK);
    }
    cr_assert_eq(sd_gguf_writer_commit(w, &err), SD_OK, "%s", err.message);
    sd_gguf_close(g);
}

Test(defaults, of_a_gguf_file_are_its_sampling_keys) {
    sd_error err = {0};
    sd_tiny_model t = sd_tiny_default(&sd_arch_llama);
    char *plain = sd_path_join(dir, "plain.gguf"), *path = sd_path_join(dir, "keys.gguf");
    cr_assert_eq(sd_tiny_write_gguf(plain, &t, &err), SD_OK, "%s", err.message);
    for (int bad = 0; bad < 2; bad++) {
        sd_model *m;
        sd_defaults d = {0};
        with_sampling(path, plain, bad ? 9 : 0.7f);
        cr_assert_eq(sd_model_open(&m, path, &err), SD_OK, "%s", err.message);
        cr_assert_eq(sd_defaults_of_model(&d, m, &err), SD_OK, "%s", err.message);
        cr_assert(is(&d, SD_DEFAULT_TEMPERATURE, 0.7, bad ? SD_FROM_NOTHING : SD_FROM_MODEL) &&
                  is(&d, SD_DEFAULT_TOP_P, 0.95, SD_FROM_MODEL) &&
                  is(&d, SD_DEFAULT_TOP_K, 20, SD_FROM_MODEL) &&
                  is(&d, SD_DEFAULT_MIN_P, 0, SD_FROM_NOTHING)); // words are no number
        sd_model_release(m);
    }
    free(plain), free(path);
}

// ---- a request

static const sd_defaults judged = {
    .value = {0, 1, 0, 0, 512},
    .from = {SD_FROM_RUN, SD_FROM_RUN, SD_FROM_RUN, SD_FROM_RUN, SD_FROM_RUN},
    .system = (char *)(uintptr_t) "be brief",
    .system_share = 1};

Test(defaults, fill_what_was_not_given_and_say_so) {
    sd_asked a = {.value = {1, 1, 0, 0, 0}}; // a bare request, by the API's defaults
    char room[256];
    sd_defaults_say_filled(room, sizeof room, &a, &judged, SD_SYSTEM_FILLED);
    cr_assert_str_eq(room, "temperature, max_tokens, system");
    sd_defaults_say_departs(room, sizeof room, &a, &judged, SD_SYSTEM_FILLED);
    cr_assert_str_eq(room, "");
    sd_defaults_fill(&a, &judged);
    cr_assert(a.value[SD_DEFAULT_TEMPERATURE] == 0 && a.value[SD_DEFAULT_MAX_TOKENS] == 512);
    // Given fields win, one by one, also where they are the API's own value.
    a = (sd_asked){.value = {1, 0.9, 0, 0, 100}, .given = {true, true, false, false, true}};
    sd_defaults_say_filled(room, sizeof room, &a, &judged, SD_SYSTEM_OTHER);
    cr_assert_str_eq(room, "");
    sd_defaults_say_departs(room, sizeof room, &a, &judged, SD_SYSTEM_OTHER);
    cr_assert_str_eq(room, "temperature=1.0 (0), top_p=0.9 (1), max_tokens=100 (512), system");
    sd_defaults_fill(&a, &judged);
    cr_assert(a.value[SD_DEFAULT_TEMPERATURE] == 1 && a.value[SD_DEFAULT_TOP_P] == 0.9 &&
              a.value[SD_DEFAULT_MAX_TOKENS] == 100);
    // What passed through a float is what it was.
    a = (sd_asked){.value = {(double)0.7f}, .given = {true}};
    sd_defaults d = {.value = {0.7}, .from = {SD_FROM_RUN}};
    sd_defaults_say_departs(room, sizeof room, &a, &d, SD_SYSTEM_LEFT);
    cr_assert_str_eq(room, "");
    // A recommendation of a model's author is nothing to depart from.
    d = (sd_defaults){.value = {0.7}, .from = {SD_FROM_MODEL}};
    a.value[0] = 1;
    sd_defaults_say_departs(room, sizeof room, &a, &d, SD_SYSTEM_LEFT);
    cr_assert_str_eq(room, "");
    // The longest that can be said is not cut off in a header's room.
    sd_defaults all = {.value = {1.23457, 0.123456, INT32_MAX, 0.654321, 1 << 24}};
    a = (sd_asked){.value = {0.123456, 0.654321, INT32_MAX - 1000, 0.123456, (1 << 24) - 1},
                   .given = {true, true, true, true, true}};
    for (int i = 0; i < SD_DEFAULTS; i++) all.from[i] = SD_FROM_RUN;
    sd_defaults_say_departs(room, sizeof room, &a, &all, SD_SYSTEM_OTHER);
    cr_assert(strstr(room, "max_tokens=16777215 (16777216), system"), "%s", room);
}

static json_t *talk(const char *system) {
    json_t *m = json_array();
    if (system)
        json_array_append_new(m, json_pack("{s:s, s:s}", "role", "system", "content", system));
    json_array_append_new(m, json_pack("{s:s, s:s}", "role", "user", "content", "hi"));
    return m;
}
static sd_system_use fill(json_t *m, const sd_defaults *d) {
    sd_system_use use;
    cr_assert_eq(sd_defaults_fill_system(&use, m, d, NULL), SD_OK);
    return use;
}

Test(defaults, the_trained_system_text_comes_where_there_is_none) {
    json_t *bare = talk(NULL), *same = talk("be brief"), *other = talk("be long"), *none = talk("");
    cr_assert_eq(fill(bare, &judged), SD_SYSTEM_FILLED);
    cr_assert(json_equal(bare, same));
    cr_assert_eq(fill(same, &judged), SD_SYSTEM_LEFT);
    cr_assert_eq(fill(other, &judged), SD_SYSTEM_OTHER);
    cr_assert_eq(fill(none, &judged),
                 SD_SYSTEM_OTHER); // an empty one is how a client asks for none
    cr_assert_eq(json_array_size(none), 2);
    json_decref(bare);
    sd_defaults rarely = judged;
    for (int i = 0; i < 2; i++) { // from 0.95 on
        bare = talk(NULL);
        rarely.system_share = i ? 0.95 : 0.9499;
        cr_assert_eq(fill(bare, &rarely), i ? SD_SYSTEM_FILLED : SD_SYSTEM_LEFT);
        json_decref(bare);
    }
    json_decref(same), json_decref(other), json_decref(none);
}

Test(defaults, a_system_text_never_goes_from_one_model_to_another) {
    sd_defaults adapter = {.value = {0.3}, .from = {SD_FROM_ADAPTER}};
    sd_defaults_under(&adapter, &judged);
    cr_assert(is(&adapter, SD_DEFAULT_TEMPERATURE, 0.3, SD_FROM_ADAPTER) &&
              is(&adapter, SD_DEFAULT_MAX_TOKENS, 512, SD_FROM_RUN) && !adapter.system);
}
