// Variables: scopes, and names looked up from the inside out.
#include "model/template/render.h"

sd_scope *sd_push_scope(sd_render *r, sd_scope *parent) {
    sd_scope *s = sd_render_alloc(r, 1, sizeof *s);
    if (s) s->parent = parent;
    return s;
}

bool sd_define(sd_render *r, sd_scope *s, sd_str name, const sd_value *v) {
    sd_value key = sd_string(name.p, name.n);
    return sd_dict_put(r, &s->variables, &key, v);
}

bool sd_lookup(sd_render *r, sd_str name, sd_value *out, bool *found) {
    sd_value *v;
    for (sd_scope *s = r->scope; s; s = s->parent) {
        if (!sd_spend(r, 1) || !sd_dict_get(r, &s->variables, name, &v)) return false;
        if (!v) continue;
        *out = *v;
        *found = true;
        return true;
    }
    *found = false;
    return true;
}
