// Everything that a template finds by name: attributes and methods of values, filters, tests and
// functions.
//
// The room, from the ground up:
//
//   methods.c      methods of dicts, lists, loops   methods_*.c   methods of strings
//   attributes.c   a.b, a[b], paths, methods        globals.c     range, namespace, cycler, ...
//   filters_*.c    filters by their subject         tests.c       what stands after "is"
//   by_name.c      filters and tests by name; map, select and reject, which call them by name
#pragma once

#include "model/template/value/value.h"

// A row of a table of filters or methods. Each table ends with a row without a name.
typedef struct {
    const char *name;
    sd_builtin call;
} sd_builtin_row;

// A filter or a method: `in` is what stands before the | or the dot.
#define SD_BUILTIN(name)                                                                           \
    static bool name(sd_render *r, const sd_value *in, sd_args *a, sd_value *out)

// ---- reaching into values (attributes.c)

bool sd_attribute(sd_render *r, const sd_value *v, sd_str name, sd_value *out);
bool sd_item(sd_render *r, const sd_value *v, const sd_value *index, sd_value *out);
/// A dotted path ("function.name"), an index or none, as map(attribute=...) takes it; what is
/// undefined on the way becomes `otherwise` (NULL: stays).
bool sd_path(sd_render *r, const sd_value *v, const sd_value *path, const sd_value *otherwise,
             sd_value *out);

extern const sd_builtin_row sd_string_methods[], sd_case_methods[], sd_split_methods[],
    sd_bytes_methods[], sd_dict_methods[], sd_list_methods[], sd_loop_methods[],
    sd_cycler_methods[];                                   // methods*.c
sd_builtin sd_find_method(const sd_value *v, sd_str name); // NULL: v has none of that name
bool sd_is_unsafe_method(const sd_value *v, sd_str name);  // it would change its object
bool sd_call_bound(sd_render *r, sd_builtin method, const sd_value *self, sd_args *a,
                   sd_value *out);
/// Calls a method that self is known to have.
bool sd_call_method(sd_render *r, const char *name, const sd_value *self, sd_args *a,
                    sd_value *out);

// How a field of str.format reaches on: .name and [key].
typedef struct {
    bool (*attribute)(sd_render *r, const sd_value *v, sd_str name, sd_value *out);
    bool (*item)(sd_render *r, const sd_value *v, const sd_value *index, sd_value *out);
} sd_reach;
/// str.format(a), or with the values of map where it is not NULL (methods_format.c).
bool sd_format_fields(sd_render *r, const sd_value *format, sd_args *a, sd_dict *map,
                      const sd_reach *reach, sd_value *out);

// ---- filters and tests (by_name.c, tests.c)

extern const sd_builtin_row sd_text_filters[], sd_sequence_filters[], sd_number_filters[],
    sd_html_filters[], sd_line_filters[];
bool sd_apply_filter(sd_render *r, sd_str name, const sd_value *in, sd_args *a, sd_value *out);
bool sd_is_test(sd_str name);
/// A test of the value itself. sd_apply_test also knows the tests filter and test, which ask
/// whether there is one of a name.
bool sd_value_test(sd_render *r, sd_str name, const sd_value *in, sd_args *a, bool *out);
bool sd_apply_test(sd_render *r, sd_str name, const sd_value *in, sd_args *a, bool *out);

// ---- functions (globals.c)

sd_function sd_find_global(sd_str name);
bool sd_call_joiner(sd_cycle *t, sd_value *out);
