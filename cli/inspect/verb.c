// specdec inspect: finds out what a path is from its first bytes or its files, and says what is in
// it. The report is one JSON object; for people it is printed as lines, lists of objects as a table
// row each, and texts of several lines under their name.
#include "base/files/file.h"
#include "base/files/path.h"
#include "base/json.h"
#include "cli/inspect/inspect.h"
#include "cli/verbs.h"
#include "model/formats/gguf.h"
#include "model/load/vocabulary.h"

#include <stdio.h>
#include <string.h>

typedef struct {
    bool json, metadata, tensors, devices;
} args;

static const sd_option rows[] = {
    {.name = "metadata",
     .type = SD_OPT_FLAG,
     .offset = offsetof(args, metadata),
     .help = "every metadata key of a GGUF file"},
    {.name = "tensors",
     .type = SD_OPT_FLAG,
     .offset = offsetof(args, tensors),
     .help = "every tensor with type and shape"},
    {.name = "devices",
     .type = SD_OPT_FLAG,
     .offset = offsetof(args, devices),
     .help = "no PATH: where models can run here, and what is missing"},
    {.name = "json",
     .type = SD_OPT_FLAG,
     .offset = offsetof(args, json),
     .help = "one JSON object"},
    {0}};

static sd_status inspect_folder(json_t **out, const char *path, const sd_inspect_options *o,
                                sd_error *err) {
    static const char *const names[] = {"adapter_config.json", "config.json",
                                        "recipe.resolved.yaml", "metrics.csv"};
    for (int i = 0; i < 4; i++) {
        sd_path_kind kind;
        sd_status st = sd_path_look_in(&kind, path, names[i], err);
        if (st != SD_OK) return st;
        if (kind == SD_PATH_NONE) continue;
        return i == 0   ? sd_inspect_peft(out, path, o, err)
               : i == 1 ? sd_inspect_model(out, path, o, err)
                        : sd_inspect_run(out, path, err);
    }
    bool vocabulary;
    sd_status st = sd_vocabulary_is(&vocabulary, path, err);
    if (st != SD_OK || vocabulary)
        return st != SD_OK ? st : sd_inspect_vocabulary(out, path, o, err);
    return sd_fail(err, SD_EFORMAT,
                   "%s: holds no config.json (model), adapter_config.json (adapter) or "
                   "recipe.resolved.yaml (run); give one of those folders",
                   path);
}

static sd_status inspect_gguf(json_t **out, const char *path, const sd_inspect_options *o,
                              sd_error *err) {
    sd_gguf *g;
    bool vocabulary;
    sd_status st = sd_gguf_open(&g, path, err);
    if (st != SD_OK) return st;
    bool adapter = sd_gguf_str_is(g, "general.type", "adapter");
    sd_gguf_close(g);
    if (adapter) return sd_inspect_gguf_adapter(out, path, o, err);
    st = sd_vocabulary_is(&vocabulary, path, err);
    if (st != SD_OK) return st;
    return vocabulary ? sd_inspect_vocabulary(out, path, o, err)
                      : sd_inspect_model(out, path, o, err);
}

static sd_status inspect(json_t **out, const char *path, const sd_inspect_options *o,
                         sd_error *err) {
    sd_path_kind kind;
    char head[8] = {0};
    size_t got;
    sd_status st = sd_path_look(&kind, path, err);
    if (st != SD_OK) return st;
    if (kind == SD_PATH_FOLDER) return inspect_folder(out, path, o, err);
    st = sd_file_head(head, sizeof head, &got, path, err);
    if (st != SD_OK) return st;
    const char *dot = strrchr(path, '.');
    if (memcmp(head, "GGUF", 4) == 0) return inspect_gguf(out, path, o, err);
    if (memcmp(head, "\x89HDF\r\n\x1a\n", 8) == 0) return sd_inspect_dataset(out, path, err);
    if (memcmp(head, "SDCORPUS", 8) == 0) return sd_inspect_corpus(out, path, err);
    if (dot && strcmp(dot, ".safetensors") == 0) return sd_inspect_safetensors(out, path, o, err);
    return sd_fail(err, SD_EFORMAT,
                   "%s: is no GGUF file, safetensors file, dataset or corpus index; give one of "
                   "these or a folder",
                   path);
}

// ---- for people

// Files come from strangers: what would steer a terminal is shown, not sent.
static void print_char(char c) {
    unsigned char u = (unsigned char)c;
    if (u < 0x20 && u != '\n' && u != '\t')
        printf("\\x%02x", u);
    else if (u == 0x7f)
        fputs("\\x7f", stdout);
    else
        putchar(c);
}

static void print_scalar(const json_t *v) {
    switch (json_typeof(v)) {
    case JSON_STRING:
        for (const char *s = json_string_value(v); *s; s++) print_char(*s);
        break;
    case JSON_INTEGER:
        printf("%lld", (long long)json_integer_value(v));
        break;
    case JSON_REAL:
        printf("%g", json_real_value(v));
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        fputs(json_is_true(v) ? "yes" : "no", stdout);
        break;
    default:
        fputs("-", stdout);
    }
}

// One line: "name value, name value"; lists in brackets.
static void print_inline(json_t *v) {
    const char *name;
    json_t *x;
    size_t i;
    bool first = true;
    if (json_is_array(v)) {
        putchar('[');
        json_array_foreach(v, i, x) {
            if (i) fputs(", ", stdout);
            print_inline(x);
        }
        putchar(']');
    } else if (json_is_object(v)) {
        json_object_foreach(v, name, x) {
            printf("%s%s ", first ? "" : ", ", name);
            print_inline(x);
            first = false;
        }
    } else {
        print_scalar(v);
    }
}

static void print_text(const char *s) {
    for (bool start = true; *s; s++) {
        if (start) fputs("    ", stdout);
        print_char(*s);
        start = *s == '\n';
    }
    putchar('\n');
}

static void print_report(json_t *o) {
    const char *name;
    json_t *v, *x;
    size_t i;
    json_object_foreach(o, name, v) {
        const char *s = json_string_value(v);
        bool list = json_is_array(v) && json_is_object(json_array_get(v, 0));
        printf("%-23s ", name);
        if (s && (strchr(s, '\n') || strlen(s) > 200)) {
            putchar('\n');
            print_text(s);
        } else if (list || (json_is_object(v) && json_object_size(v) > 8)) {
            const char *key;
            putchar('\n');
            json_array_foreach(v, i, x) {
                fputs("    ", stdout);
                print_inline(x);
                putchar('\n');
            }
            json_object_foreach(json_is_object(v) ? v : NULL, key, x) {
                printf("    %s  ", key);
                print_inline(x);
                putchar('\n');
            }
        } else {
            print_inline(v);
            putchar('\n');
        }
    }
}

sd_status sd_verb_inspect(int argc, char **argv, sd_error *err) {
    if (sd_verb_help("inspect PATH | --devices",
                     "Says what a model, vocabulary, adapter, dataset, run or corpus index holds.",
                     rows, argc, argv))
        return SD_OK;
    sd_status st = SD_OK;
    args a = {0};
    sd_strings rest;
    json_t *report = NULL;
    SD_TRY(sd_options_parse(&rest, rows, &a, argc, argv, err));
    SD_CHECK(!a.devices || rest.n == 0, err, SD_EINVAL,
             "--devices is about this machine; give no PATH with it");
    SD_CHECK(a.devices || rest.n == 1, err, SD_EINVAL, "one PATH is wanted, not %d", rest.n);
    sd_inspect_options o = {a.metadata, a.tensors};
    SD_TRY(a.devices ? sd_inspect_devices(&report, err) : inspect(&report, rest.item[0], &o, err));
    if (a.json) {
        SD_TRY(sd_json_print(stdout, report, JSON_INDENT(1), err));
        putchar('\n');
    } else {
        print_report(report);
    }
out:
    json_decref(report);
    return st;
}
