// Whatever a template or a request asks for costs steps in proportion to its work, and memory of
// one account. Steps are counted here, not time: an input twice as long may take twice the steps
// (a sort and an unlucky hash a little more), never four times.
#include "base/clock.h"
#include "model/template/template.h"

#include <criterion/criterion.h>
#include <string.h>

static sd_status render(const char *source, const json_t *extra, sd_template_bounds *bounds,
                        sd_buf *out, sd_error *err) {
    sd_template *t;
    json_t *none = json_array();
    sd_status st = sd_template_open(&t, source, strlen(source), err);
    if (st == SD_OK)
        st = sd_template_render_within(t, none, NULL, extra, true, "", "", bounds, out, err);
    sd_template_close(t);
    json_decref(none);
    return st;
}

// l: n different strings, backwards; d: n keys; s: a text of n words; x: n characters.
static json_t *variables(int n) {
    json_t *l = json_array(), *d = json_object(), *o = json_object();
    sd_buf words = sd_buf_make(1 << 24), x = sd_buf_make(1 << 24);
    for (int i = 0; i < n; i++) {
        char key[32];
        snprintf(key, sizeof key, "k%07d", n - i);
        json_array_append_new(l, json_string(key));
        json_object_set_new(d, key, json_integer(i));
        sd_buf_printf(&words, "%s ", key);
        sd_buf_adds(&x, "a");
    }
    json_object_set_new(o, "l", l);
    json_object_set_new(o, "d", d);
    json_object_set_new(o, "s", json_string(words.data));
    json_object_set_new(o, "x", json_string(x.data));
    sd_buf_free(&words);
    sd_buf_free(&x);
    return o;
}

static int64_t steps_of(const char *source, int n) {
    int64_t steps = 0;
    sd_template_bounds bounds = {.steps = &steps};
    sd_buf out = sd_buf_make(1 << 26);
    sd_error err = {0};
    json_t *extra = variables(n);
    cr_assert_eq(render(source, extra, &bounds, &out, &err), SD_OK, "%s: %s", source, err.message);
    json_decref(extra);
    sd_buf_free(&out);
    return steps;
}

static const char *const LINEAR[] = {
    "{{ l | sort | length }}",
    "{{ l | unique | list | length }}",
    "{{ l | join(',') }}",
    "{{ l | tojson }}",
    "{{ d | tojson(sort_keys=true) }}",
    "{{ d | tojson(indent=4) }}",
    "{{ d }}",
    "{{ d == d }}{{ l == l }}",
    "{{ d | dictsort | length }}",
    "{{ l | groupby(0) | length }}",
    "{{ l | batch(3) | list | length }}",
    "{{ l | map('upper') | list | length }}",
    "{% for k in l %}{{ d[k] }}{{ k in d }}{{ d.get(k) }}{% endfor %}",
    "{% for k in l %}{% set a = k %}{{ loop.index }}{{ a }}{% endfor %}",
    "{% set ns = namespace() %}{% for k in l %}{% set ns.a = k %}{% endfor %}",
    "{{ s.split() | length }}{{ s.split(' ') | length }}{{ s.rsplit(' ', 5000) | length }}",
    "{{ s.replace('k', 'kkkk') }}{{ s.upper() }}{{ s.title() }}{{ s | escape }}{{ s | trim }}",
    "{{ s[::-1] }}{{ s[5:] }}{{ s[-1] }}{{ s * 3 }}{{ s ~ s }}{{ s + s }}",
    "{{ s.find('zz') }}{{ s.rfind('zz') }}{{ s.count('k') }}{{ 'zz' in s }}{{ s | length }}",
    "{{ x | reverse }}{{ x | list | length }}{{ x.isalpha() }}{{ [x] }}{{ x == x ~ '' }}",
    "{{ l[::-1] | length }}{{ (l + l) | length }}{{ l | reverse | list | length }}",
    "{{ s | wordwrap(20) | length }}{{ x | wordwrap(7) | length }}{{ x | wordwrap | length }}",
    "{{ l | pprint | length }}{{ d | pprint | length }}",
    "{{ s | indent(3) | length }}{{ s | striptags | length }}{{ s | urlencode | length }}",
    "{{ s | title | length }}{{ s | wordcount }}{{ s.partition('zz') }}{{ s.rpartition('zz') }}",
    "{{ '%s|%r' | format(s, s) | length }}{{ '{}{!r:>9}'.format(s, s) | length }}",
    "{{ l | slice(7) | list | length }}{{ l | random | length }}{{ l | sum(start='') if false }}",
    "{{ d | xmlattr | length }}{{ d | urlencode | length }}{{ d | items | list | length }}",
    "{{ l | sort(attribute='0,1') | length }}{{ (s | escape) + s }}{{ s.casefold() | length }}",
    "{{ s.expandtabs() | length }}{{ s.center(9) | length }}{{ s.encode() | list | length }}",
    "{% for i in l recursive %}{{ i }}{{ loop.index }}{% endfor %}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{% for i in l %}{{ m(i) }}{% endfor %}",
    "{{ dict(d) | length }}{{ l | first }}{{ l | last }}{{ l | min }}{{ l | max }}",
};

Test(template_bounds, an_input_twice_as_long_takes_about_twice_the_steps) {
    for (size_t i = 0; i < sizeof LINEAR / sizeof *LINEAR; i++) {
        int64_t once = steps_of(LINEAR[i], 5000), twice = steps_of(LINEAR[i], 10000);
        cr_expect(twice >= once && (double)twice <= 3.2 * (double)once, "%s: %lld, then %lld",
                  LINEAR[i], (long long)once, (long long)twice);
    }
}

Test(template_bounds, work_in_bytes_costs_steps) {
    // Each makes or walks over at least a million bytes.
    static const char *const sources[] = {
        "{{ 'x' * 1000000 }}", "{{ ('x' * 1000000) | upper | length }}",
        "{{ ('x' * 1000000) == ('x' * 1000000) }}", "{{ [('x' * 1000000)] | tojson | length }}",
        "{{ ('x' * 1000000).replace('y', 'z') | length }}"};
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++)
        cr_expect_geq(steps_of(sources[i], 1), 1000000 / 64, "%s", sources[i]);
}

// Widths that a text or a number names are work like any other.
Test(template_bounds, a_width_costs_what_it_makes) {
    static const char *const sources[] = {"{{ 'x'.center(%s) }}",
                                          "{{ '7'.zfill(%s) }}",
                                          "{{ '{:%s}'.format(1) }}",
                                          "{{ '{:.%sf}'.format(1.5) }}",
                                          "{{ '%%sd' % 1 }}",
                                          "{{ '%.%sf' % 1.5 }}",
                                          "{{ 'a\tb'.expandtabs(%s) }}",
                                          "{{ 'a' | indent(%s, true) }}",
                                          "{{ [[1]] | tojson(indent=%s) }}",
                                          "{{ 'ab' * %s }}",
                                          "{{ [1, 2] | batch(%s, 0) | first | length }}",
                                          "{{ [1] * %s }}"};
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
        char source[128];
        sd_buf out = sd_buf_make(1 << 26);
        sd_error err = {0};
        const char *gap = strstr(sources[i], "%s");
        snprintf(source, sizeof source, "%.*s%s%s", (int)(gap - sources[i]), sources[i], "100000",
                 gap + 2);
        cr_expect_geq(steps_of(source, 1), 100000 / 64, "%s", source);
        snprintf(source, sizeof source, "%.*s%s%s", (int)(gap - sources[i]), sources[i],
                 "999999999", gap + 2);
        sd_status st = render(source, NULL, NULL, &out, &err);
        cr_expect(st == SD_ELIMIT || st == SD_EINVAL, "%s: %s", source, err.message);
        sd_buf_free(&out);
    }
}

Test(template_bounds, powers_cost_steps_and_end) {
    int64_t small = steps_of("{{ (3 ** 10) > 1 }}", 1),
            large = steps_of("{{ (3 ** 40000) > 1 }}", 1);
    cr_expect_geq(large, 20 * small, "%lld, %lld", (long long)small, (long long)large);
    sd_buf out = sd_buf_make(1 << 20);
    sd_error err = {0};
    cr_expect_eq(render("{{ (3 ** 10000000) > 1 }}", NULL, NULL, &out, &err), SD_EINVAL);
    cr_expect(strstr(err.message, "too large"), "%s", err.message);
    sd_buf_free(&out);
}

// Parsing makes one pass: memory and nesting are bounded, whatever the model's file holds.
Test(template_bounds, a_template_of_a_megabyte_of_anything_is_parsed_or_refused) {
    static const char *const parts[] = {"'a' ", "{{x}}", "{%-",       "{#",
                                        "[[",   "{{ -",  "{% raw %}", "{% if x %}",
                                        "a.",   "1_",    "{{ '",      "{% block a %}"};
    char *source = malloc(1 << 20);
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        for (int inside = 0; inside < 2; inside++) {
            size_t n = 0, len = strlen(parts[i]);
            if (inside) n = (size_t)sprintf(source, "{{ ");
            for (; n + len + 4 < 1 << 20; n += len) memcpy(source + n, parts[i], len);
            if (inside) memcpy(source + n, " }}", 3), n += 3;
            sd_template *t = NULL;
            sd_error err = {0};
            sd_status st = sd_template_open(&t, source, n, &err);
            cr_expect(st == SD_OK || st == SD_EFORMAT, "%s: %s", parts[i], err.message);
            sd_template_close(t);
        }
    free(source);
}

Test(template_bounds, many_variables_are_found_without_a_search) {
    int64_t steps = 0;
    sd_template_bounds bounds = {.steps = &steps};
    sd_buf out = sd_buf_make(1 << 20);
    sd_error err = {0};
    json_t *extra = json_object();
    for (int i = 0; i < 80000; i++) {
        char key[16];
        snprintf(key, sizeof key, "k%d", i);
        json_object_set_new(extra, key, json_integer(i));
    }
    cr_assert_eq(render("{% for i in range(1000) %}{{ k0 + k79999 }}{% endfor %}", extra, &bounds,
                        &out, &err),
                 SD_OK, "%s", err.message);
    cr_expect_leq(steps, 80000 * 30, "%lld steps", (long long)steps);
    json_decref(extra);
    sd_buf_free(&out);
}

static const char for_ever[] = "{% for a in range(99999) %}{% for b in range(99) %}{{ a ** b }}"
                               "{% endfor %}{% endfor %}";

Test(template_bounds, a_rendering_ends_when_nobody_waits_for_it) {
    atomic_bool stop = true;
    int64_t steps = 0;
    sd_template_bounds bounds = {.stop = &stop, .steps = &steps};
    sd_buf out = sd_buf_make(1 << 20);
    sd_error err = {0};
    cr_expect_eq(render(for_ever, NULL, &bounds, &out, &err), SD_EINTERRUPTED, "%s", err.message);
    cr_expect_leq(steps, 10000, "it is looked at every few thousand steps: %lld", (long long)steps);
    cr_expect_eq(out.len, 0);
    sd_buf_free(&out);
}

Test(template_bounds, a_rendering_ends_at_its_deadline) {
    int64_t steps = 0;
    sd_template_bounds bounds = {.deadline_ns = sd_now_ns() - 1, .steps = &steps};
    sd_buf out = sd_buf_make(1 << 20);
    sd_error err = {0};
    cr_expect_eq(render(for_ever, NULL, &bounds, &out, &err), SD_ELIMIT);
    cr_expect(strstr(err.message, "time"), "%s", err.message);
    cr_expect_leq(steps, 10000);
    sd_buf_free(&out);
}

Test(template_bounds, a_text_ends_at_its_bytes) {
    sd_buf out = sd_buf_make(1 << 20);
    sd_error err = {0};
    for (size_t max = 99; max <= 100; max++) {
        sd_template_bounds bounds = {.max_bytes = max};
        sd_status st =
            render("{% for i in range(10) %}0123456789{% endfor %}", NULL, &bounds, &out, &err);
        cr_expect_eq(st, max == 100 ? SD_OK : SD_ELIMIT, "%zu: %s", max, err.message);
    }
    cr_expect_eq(out.len, 100);
    sd_buf_free(&out);
}

Test(template_bounds, texts_being_built_and_values_share_one_account) {
    // Ten nested texts of 40 MB each: each fits alone, and nothing of them is a value yet.
    sd_buf source = sd_buf_make(1 << 16), out = sd_buf_make(1 << 26);
    sd_error err = {0};
    for (int i = 0; i < 10; i++) sd_buf_adds(&source, "{% set a %}{{ x * 40000000 }}");
    for (int i = 0; i < 10; i++) sd_buf_adds(&source, "{% endset %}");
    json_t *extra = variables(1);
    cr_expect_eq(render(source.data, extra, NULL, &out, &err), SD_ELIMIT);
    cr_expect(strstr(err.message, "memory"), "%s", err.message);
    json_decref(extra);
    sd_buf_free(&source);
    sd_buf_free(&out);
}
