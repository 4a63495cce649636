// Numbers of either kind: an int or a float, and their order.
#include "model/template/value/value.h"

bool sd_number(sd_render *r, const sd_value *v, double *out) {
    if (v->kind == SD_V_FLOAT) {
        *out = v->f;
        return true;
    }
    return sd_is_int(v) && sd_int_to_double(r, v, out);
}

bool sd_are_numbers(const sd_value *a, const sd_value *b) {
    return (sd_is_int(a) || a->kind == SD_V_FLOAT) && (sd_is_int(b) || b->kind == SD_V_FLOAT);
}

// The comparison is exact, also between a float and an int that no float holds.
bool sd_compare_numbers(sd_render *r, const sd_value *a, const sd_value *b, int *order) {
    int64_t i, k;
    if (sd_small_int(a, &i) && sd_small_int(b, &k)) {
        *order = i < k ? -1 : i > k;
    } else if (a->kind == SD_V_FLOAT && b->kind == SD_V_FLOAT) {
        *order = a->f < b->f ? -1 : a->f > b->f ? 1 : a->f == b->f ? 0 : SD_UNORDERED;
    } else if (a->kind == SD_V_FLOAT) {
        if (!sd_int_compare_float(r, b, a->f, order)) return false;
        if (*order != SD_UNORDERED) *order = -*order;
    } else if (b->kind == SD_V_FLOAT) {
        return sd_int_compare_float(r, a, b->f, order);
    } else {
        *order = sd_int_compare(a, b);
    }
    return true;
}
