// Chat templates: goldens from Jinja2 (tests/data/make_template_golden.py), limits, errors.
#include "model/template/template.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static sd_status render(const char *source, const json_t *messages, sd_buf *out, sd_error *err) {
    sd_template *t;
    json_t *none = json_array();
    sd_status st = sd_template_open(&t, source, strlen(source), err);
    if (st == SD_OK)
        st = sd_template_render(t, messages ? messages : none, NULL, NULL, true, "<s>", "</s>", out,
                                err);
    sd_template_close(t);
    json_decref(none);
    return st;
}

Test(template, renderings_equal_those_of_jinja2) {
    json_error_t why;
    json_t *rows = json_load_file(TEST_DATA "/template_golden.json", 0, &why), *row;
    size_t i;
    cr_assert(json_array_size(rows) >= 10);
    json_array_foreach(rows, i, row) {
        sd_error err = {0};
        sd_buf b = sd_buf_make(1 << 20);
        sd_status st = render(json_string_value(json_object_get(row, "template")),
                              json_object_get(row, "messages"), &b, &err);
        cr_expect_eq(st, SD_OK, "template %zu: %s", i, err.message);
        cr_expect_str_eq(b.data ? b.data : "", json_string_value(json_object_get(row, "text")),
                         "template %zu", i);
        sd_buf_free(&b);
    }
    json_decref(rows);
}

// Expressions and statements one by one, with what Jinja2 makes of them; null where it refuses.
Test(template, each_expression_gives_what_jinja2_gives) {
    json_error_t why;
    json_t *golden = json_load_file(TEST_DATA "/template_expressions.json", JSON_ALLOW_NUL, &why);
    const json_t *context = json_object_get(golden, "context"), *rows, *row;
    json_t *none = json_array();
    size_t i;
    rows = json_object_get(golden, "rows");
    cr_assert_geq(json_array_size(rows), 700);
    json_array_foreach(rows, i, row) {
        const char *source = json_string_value(json_array_get(row, 0));
        const json_t *want = json_array_get(row, 1);
        sd_error err = {0};
        sd_template *t;
        sd_buf b = sd_buf_make(1 << 20);
        sd_status st = sd_template_open(&t, source, strlen(source), &err);
        if (st == SD_OK)
            st = sd_template_render(t, none, NULL, context, true, "<s>", "</s>", &b, &err);
        bool same = json_is_null(want)
                        ? st != SD_OK
                        : st == SD_OK && b.len == json_string_length(want) &&
                              memcmp(b.data ? b.data : "", json_string_value(want), b.len) == 0;
        cr_expect(same, "%s: %s %s", source, b.data ? b.data : "", err.message);
        sd_template_close(t);
        sd_buf_free(&b);
    }
    json_decref(none);
    json_decref(golden);
}

static void refuses(const char *source, sd_status status, const char *named) {
    sd_error err = {0};
    sd_buf b = sd_buf_make(1 << 20);
    cr_expect_eq(render(source, NULL, &b, &err), status, "%s: %s", source, err.message);
    cr_expect(strstr(err.message, named) != NULL, "%s: %s", source, err.message);
    cr_expect_eq(b.len, 0, "nothing is written after a failure");
    sd_buf_free(&b);
}

Test(template, an_error_names_its_line) {
    refuses("a\nb\n{{ x.y }}", SD_EINVAL, "line 3");
    refuses("\n{% if x %}\n", SD_EFORMAT, "endif");
    refuses("\n\n{{ 1 +* }}", SD_EFORMAT, "line 3");
    refuses("{{ 1 | shrink }}", SD_EINVAL, "shrink");
    refuses("{% include 'x' %}", SD_EFORMAT, "include");
    refuses("{% extends 'x' %}", SD_EFORMAT, "extends");
    refuses("{{ lipsum() }}", SD_EINVAL, "lipsum");
    refuses("{{ 'a' | urlize }}", SD_EINVAL, "urlize");
}

Test(template, raise_exception_gives_its_own_message) {
    refuses("{{ raise_exception('roles must alternate') }}", SD_EINVAL, "roles must alternate");
}

Test(template, nothing_runs_for_ever_or_fills_memory) {
    refuses("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
            SD_ELIMIT, "more than the allowed");
    refuses("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", SD_ELIMIT, "depth");
    refuses(
        "{% set ns = namespace(s='0123456789') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s "
        "%}{% endfor %}",
        SD_ELIMIT, "more than the allowed");
    refuses("{{ 'x' * 99999999999 }}", SD_ELIMIT, "memory");
}

Test(template, deep_nesting_is_refused_when_parsing) {
    enum { N = 5000 };
    char *source = malloc(2 * N + 16), *p = source;
    p += sprintf(p, "{{ ");
    for (int i = 0; i < N; i++) *p++ = '(';
    *p++ = '1';
    for (int i = 0; i < N; i++) *p++ = ')';
    sprintf(p, " }}");
    refuses(source, SD_EFORMAT, "nested too deeply");
    free(source);
}

Test(template, lists_and_dicts_cannot_be_changed) {
    refuses("{% set l = [1] %}{{ l.append(2) }}", SD_EINVAL, "cannot be changed");
}

Test(template, a_value_of_the_request_is_never_a_template) {
    sd_error err;
    sd_buf b = sd_buf_make(1000);
    json_t *m = json_pack("[{s:s, s:s}]", "role", "user", "content", "{{ 1 + 1 }}{% raw %}");
    cr_assert_eq(render("{{ messages[0].content }}", m, &b, &err), SD_OK);
    cr_assert_str_eq(b.data, "{{ 1 + 1 }}{% raw %}");
    json_decref(m);
    sd_buf_free(&b);
}

// As Llama 3's template asks for the day; a name that a request defines comes before it.
static const char llama_date[] = "{%- if not date_string is defined %}"
                                 "{%- if strftime_now is defined %}"
                                 "{%- set date_string = strftime_now('%d %b %Y') %}"
                                 "{%- else %}{%- set date_string = '26 Jul 2024' %}{%- endif %}"
                                 "{%- endif %}{{- date_string }}";

static void today(char *out, size_t cap) {
    time_t now = time(NULL);
    struct tm local;
    localtime_r(&now, &local);
    strftime(out, cap, "%d %b %Y", &local);
}

Test(template, the_date_is_that_of_the_rendering_in_local_time) {
    // Two zones 26 hours apart: in one of them it is another day than in UTC.
    static const char *const zones[] = {"UTC0", "<-12>12", "<+14>-14"};
    for (int i = 0; i < 3; i++) {
        char before[32], after[32];
        sd_error err = {0};
        sd_buf b = sd_buf_make(1 << 20);
        setenv("TZ", zones[i], 1);
        tzset();
        today(before, sizeof before);
        cr_assert_eq(render(llama_date, NULL, &b, &err), SD_OK, "%s", err.message);
        today(after, sizeof after);
        cr_assert(strcmp(b.data, before) == 0 || strcmp(b.data, after) == 0, "%s", b.data);
        sd_buf_free(&b);
    }
}

Test(template, a_date_that_the_request_gives_is_taken) {
    sd_template *t;
    sd_error err = {0};
    sd_buf b = sd_buf_make(1 << 20);
    json_t *none = json_array(), *extra = json_pack("{s:s}", "date_string", "01 Jan 2000");
    cr_assert_eq(sd_template_open(&t, llama_date, strlen(llama_date), &err), SD_OK);
    cr_assert_eq(sd_template_render(t, none, NULL, extra, true, "", "", &b, &err), SD_OK);
    cr_assert_str_eq(b.data, "01 Jan 2000");
    sd_template_close(t);
    json_decref(none);
    json_decref(extra);
    sd_buf_free(&b);
}

// Python's naive datetime: no zone, microseconds as %f.
Test(template, a_date_format_means_what_python_means_by_it) {
    sd_error err = {0};
    sd_buf b = sd_buf_make(1 << 20);
    cr_assert_eq(render("[{{ strftime_now('%z%Z') }}][{{ strftime_now('') }}]"
                        "[{{ strftime_now('%%f') }}][{{ strftime_now('%f') | length }}]",
                        NULL, &b, &err),
                 SD_OK, "%s", err.message);
    cr_assert_str_eq(b.data, "[][][%f][6]");
    sd_buf_free(&b);
}
