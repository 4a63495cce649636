// The order of values, and sorting by it.
#include "model/template/value/value.h"

static int sign_of(bool less, bool more) {
    return less ? -1 : more;
}

static bool compare_lists(sd_render *r, const sd_list *a, const sd_list *b, int *order) {
    for (size_t k = 0; k < a->n && k < b->n; k++) {
        if (sd_equal(r, &a->item[k], &b->item[k], 0)) continue;
        if (r->status != SD_OK) return false;
        if (r->depth >= SD_TMPL_MAX_CALLS) return sd_render_limit(r, "depth");
        r->depth++;
        bool ok = sd_compare(r, &a->item[k], &b->item[k], order);
        r->depth--;
        return ok;
    }
    *order = sign_of(a->n<b->n, a->n> b->n);
    return true;
}

bool sd_compare(sd_render *r, const sd_value *a, const sd_value *b, int *order) {
    if (!sd_spend(r, 1)) return false;
    if (sd_are_numbers(a, b)) return sd_compare_numbers(r, a, b, order);
    if ((a->kind == SD_V_STRING || a->kind == SD_V_BYTES) && a->kind == b->kind) {
        size_t n = a->s.n < b->s.n ? a->s.n : b->s.n;
        int c = n ? memcmp(a->s.p, b->s.p, n) : 0;
        *order = c ? sign_of(c<0, c> 0) : sign_of(a->s.n<b->s.n, a->s.n> b->s.n);
        return sd_spend_bytes(r, n);
    }
    if (sd_is_sequence(a) && a->kind == b->kind) return compare_lists(r, a->list, b->list, order);
    return sd_render_fail(r, "a %s and a %s have no order", sd_kind_name(a), sd_kind_name(b));
}

bool sd_satisfies(sd_op op, int order) {
    if (order == SD_UNORDERED) return false;
    return op == SD_OP_LT   ? order < 0
           : op == SD_OP_LE ? order <= 0
           : op == SD_OP_GT ? order > 0
                            : order >= 0;
}

// Stable merge sort.
bool sd_sort(sd_render *r, sd_keyed *k, size_t n, bool reverse) {
    sd_keyed *tmp = sd_render_alloc(r, n, sizeof *tmp);
    if (!tmp) return false;
    for (size_t width = 1; width < n; width *= 2) {
        for (size_t lo = 0; lo < n; lo += 2 * width) {
            size_t mid = lo + width < n ? lo + width : n, hi = mid + width < n ? mid + width : n;
            size_t i = lo, j = mid;
            for (size_t at = lo; at < hi; at++) {
                int order = 0;
                if (i < mid && j < hi && !sd_compare(r, &k[j].key, &k[i].key, &order)) return false;
                bool right = i >= mid || (j < hi && order == (reverse ? 1 : -1));
                tmp[at] = right ? k[j++] : k[i++];
            }
        }
        memcpy(k, tmp, n * sizeof *k);
        if (!sd_spend(r, n)) return false;
    }
    return true;
}
