// Bounds of numbers as automata over their digits.
//
// A number is read from its first digit on, beside both bounds: by its length as soon as that
// decides, else digit by digit. A state is what is known so far: the sign, the part of the number,
// how many digits it has, how they compare with either bound, and the remainder.
#include "model/grammar/pattern/dfa.h"

#include "base/files/hash.h"
#include "base/list.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef enum { P_START, P_SIGN, P_ZERO, P_WHOLE, P_POINT, P_FRACTION } part;

typedef struct {
    uint8_t part, negative, n; // n: digits before the point; behind it, how many more there may be
    int8_t low, high;          // compared with the bounds: -1, 0, 1
    int32_t rest;
} known;

// The bounds of what follows a sign, as magnitudes.
typedef struct {
    bool none; // no number has this sign
    char low[64], high[64];
    int low_whole, high_whole, low_len, high_len; // digits before the point; in all, without it
    bool no_low, no_high;
} magnitudes;

typedef struct {
    magnitudes m[2]; // plus, minus
    bool integer;
    int64_t multiple;
    int fraction;
    known *state;
    int n, cap;
    int *slot;
} maker;

// A number with a point has 15 digits at most: no two such have the same double, so that one below a bound
// is below it as a double, too.
enum { SLOTS = 4 * SD_DFA_STATES, WHOLE_DIGITS = 18, DIGITS = 15 };
static const char MOST[] = "999999999999999999", INT64_MOST[] = "9223372036854775807";

// Digits without the point; zeros at the fraction's end dropped. whole <- those before the point.
static void digits(char *out, int *whole, int *len, const char *text) {
    *len = 0, *whole = -1;
    for (; *text && *len < 60; text++)
        if (*text == '.')
            *whole = *len;
        else
            out[(*len)++] = *text;
    if (*whole < 0) *whole = *len;
    while (*len > *whole && out[*len - 1] == '0') --*len;
}

// Compares two magnitudes.
static int compare(const char *a, int a_whole, int a_len, const char *b, int b_whole, int b_len) {
    if (a_whole != b_whole) return a_whole < b_whole ? -1 : 1;
    int c = memcmp(a, b, (size_t)(a_len < b_len ? a_len : b_len));
    if (c) return c < 0 ? -1 : 1;
    return (a_len > b_len) - (a_len < b_len);
}

static void set_magnitudes(magnitudes *m, const sd_decimal *d, bool negative) {
    bool has_low = negative ? d->has_max : d->has_min,
         has_high = negative ? d->has_min : d->has_max;
    const char *low = negative ? d->max : d->min, *high = negative ? d->min : d->max;
    bool low_beyond = has_low && (*low == '-') == !negative;    // all magnitudes are above it
    bool high_before = has_high && (*high == '-') == !negative; // none is below it
    char text[64];
    m->no_low = negative ? d->no_max : d->no_min, m->no_high = negative ? d->no_min : d->no_max;
    if (!has_low || low_beyond) m->no_low = false;
    // A bound of zero has no sign: seen from the other side it is zero as well.
    bool high_zero = has_high && strspn(high, "-0.") == strlen(high);
    bool low_zero = has_low && strspn(low, "-0.") == strlen(low);
    m->none = high_before; // "-0" is not written for a least number of 0
    snprintf(text, sizeof text, "%s",
             has_low && !low_beyond && !low_zero ? low + (*low == '-') : "0");
    if (has_low && low_zero) m->no_low = negative ? d->no_max : d->no_min;
    digits(m->low, &m->low_whole, &m->low_len, text);
    snprintf(text, sizeof text, "%s", high_zero ? "0" : has_high ? high + (*high == '-') : MOST);
    digits(m->high, &m->high_whole, &m->high_len, text);
    if (!has_high) m->no_high = false;
    if (!has_high && m->low_whole > WHOLE_DIGITS)
        digits(m->high, &m->high_whole, &m->high_len, INT64_MOST);
    if (compare(m->low, m->low_whole, m->low_len, m->high, m->high_whole, m->high_len) > 0)
        m->none = true;
}

static int number_of(maker *m, known k) {
    uint64_t h = sd_mix64((uint64_t)k.part | (uint64_t)k.negative << 8 | (uint64_t)k.n << 16 |
                          (uint64_t)(uint8_t)k.low << 24 | (uint64_t)(uint8_t)k.high << 32 |
                          (uint64_t)(uint32_t)k.rest << 40);
    size_t at = h % SLOTS;
    for (; m->slot[at]; at = (at + 1) % SLOTS) {
        known o = m->state[m->slot[at] - 1];
        if (o.part == k.part && o.negative == k.negative && o.n == k.n && o.low == k.low &&
            o.high == k.high && o.rest == k.rest)
            return m->slot[at] - 1;
    }
    if (m->n >= SD_DFA_STATES || !SD_GROW(m->state, m->n + 1, m->cap)) return -1;
    m->state[m->n] = k;
    m->slot[at] = ++m->n;
    return m->n - 1;
}

static int against(int so_far, char digit, const char *bound, int at, int len) {
    char b = at < len ? bound[at] : '0';
    return so_far ? so_far : (digit > b) - (digit < b);
}

static int whole_against(int so_far, int n, int whole) {
    return n < whole ? -1 : n > whole ? 1 : so_far;
}

// Both comparisons once the digits before the point are all there.
static known settle(const maker *m, known k) {
    const magnitudes *b = &m->m[k.negative];
    k.low = (int8_t)whole_against(k.low, k.n, b->low_whole);
    k.high = (int8_t)whole_against(k.high, k.n, b->high_whole);
    return k;
}

// How many digits there may be behind so many before the point. A lone zero counts for none.
static int room_behind(const maker *m, int whole, bool zero) {
    int room = DIGITS - (zero ? 0 : whole);
    return room < 0 ? 0 : room < m->fraction ? room : m->fraction;
}

// The place in a bound of the next digit of a number that has been the same so far, with `left` of its
// places behind the point to go.
static int place(const maker *m, const char *bound, int whole, int left) {
    return whole + room_behind(m, whole, whole == 1 && *bound == '0') - left;
}

static bool accepts(const maker *m, known k) {
    const magnitudes *b = &m->m[k.negative];
    int low = b->low_whole, high = b->high_whole;
    if (k.part != P_ZERO && k.part != P_WHOLE && k.part != P_FRACTION) return false;
    if (k.part == P_FRACTION)
        low = place(m, b->low, low, k.n), high = place(m, b->high, high, k.n);
    else
        k = settle(m, k);
    if (k.low == 0 && low < b->low_len) k.low = -1;
    if (k.high == 0 && high < b->high_len) k.high = -1;
    return (k.low > 0 || (k.low == 0 && !b->no_low)) &&
           (k.high < 0 || (k.high == 0 && !b->no_high)) && k.rest == 0;
}

// The state behind a digit; false: none.
static bool digit_after(const maker *m, known k, char c, known *out) {
    const magnitudes *b = &m->m[k.negative];
    *out = k;
    if (k.part == P_POINT || k.part == P_FRACTION) {
        if (k.n == 0) return false;
        int low = place(m, b->low, b->low_whole, k.n), high = place(m, b->high, b->high_whole, k.n);
        out->low = (int8_t)against(k.low, c, b->low, low, b->low_len);
        out->high = (int8_t)against(k.high, c, b->high, high, b->high_len);
        out->part = P_FRACTION, out->n--;
        return true;
    }
    bool begins = k.part == P_START || k.part == P_SIGN;
    if (k.part == P_ZERO || b->none || (!begins && k.n >= b->high_whole)) return false;
    if (begins && c == '0' && k.negative && m->integer) return false;
    int n = begins ? 0 : k.n;
    out->low = (int8_t)(n < b->low_whole ? against(k.low, c, b->low, n, b->low_len) : 1);
    out->high = (int8_t)against(k.high, c, b->high, n, b->high_len);
    out->part = begins && c == '0' ? P_ZERO : P_WHOLE;
    out->n = (uint8_t)(n + 1);
    if (m->multiple > 1) out->rest = (int32_t)(((int64_t)k.rest * 10 + (c - '0')) % m->multiple);
    return true;
}

static bool add_edges(maker *m, sd_dfa_maker *d, known k) {
    known next;
    if (k.part == P_START && !m->m[1].none) { // '-' and '.' come before the digits
        int to = number_of(m, (known){.part = P_SIGN, .negative = 1});
        if (to < 0 || !sd_dfa_edge_add(d, '-', '-', to)) return false;
    }
    bool whole = k.part == P_ZERO || k.part == P_WHOLE;
    int room = whole && !m->integer ? room_behind(m, k.n, k.part == P_ZERO) : 0;
    if (room > 0) {
        next = settle(m, k);
        next.part = P_POINT, next.n = (uint8_t)room;
        int to = number_of(m, next);
        if (to < 0 || !sd_dfa_edge_add(d, '.', '.', to)) return false;
    }
    for (char c = '0'; c <= '9'; c++) {
        if (!digit_after(m, k, c, &next)) continue;
        int to = number_of(m, next);
        if (to < 0 || !sd_dfa_edge_add(d, c, c, to)) return false;
    }
    return true;
}

sd_status sd_decimal_dfa(sd_dfa **out, const sd_decimal *d, sd_error *err) {
    sd_status st = SD_OK;
    sd_dfa_maker dfa = {0};
    maker m = {.integer = d->integer,
               .multiple = d->multiple,
               .fraction = d->fraction < DIGITS ? d->fraction : DIGITS};
    m.slot = sd_alloc(SLOTS, sizeof *m.slot);
    SD_CHECK_ALLOC(m.slot, err);
    set_magnitudes(&m.m[0], d, false);
    set_magnitudes(&m.m[1], d, true);
    bool ok = d->multiple < INT32_MAX && number_of(&m, (known){.part = P_START}) == 0;
    for (int k = 0; ok && k < m.n; k++)
        ok = sd_dfa_state(&dfa, accepts(&m, m.state[k])) && add_edges(&m, &dfa, m.state[k]);
    SD_CHECK(ok, err, SD_ELIMIT,
             "bounds and multipleOf together take more than %d states; give a smaller multipleOf",
             SD_DFA_STATES);
    st = sd_dfa_finish(out, &dfa, err);
out:
    free(m.slot), free(m.state);
    free(dfa.first), free(dfa.edge), free(dfa.accept);
    return st;
}

bool sd_decimal_text(char out[48], double x) {
    char text[64], all[400];
    if (!isfinite(x)) return false;
    for (int precision = 1; precision <= 17; precision++) {
        snprintf(text, sizeof text, "%.*e", precision - 1, x);
        double back = strtod(text, NULL);
        if (back >= x && back <= x) break;
    }
    // d.ddde+xx: the digits, moved by the exponent.
    char *e = strchr(text, 'e'), *p = text, mantissa[32];
    int exponent = e ? atoi(e + 1) : 0, n = 0;
    bool negative = *p == '-';
    for (; *p && *p != 'e'; p++)
        if (*p >= '0' && *p <= '9' && n < 31) mantissa[n++] = *p;
    while (n > 1 && mantissa[n - 1] == '0') n--;
    if (exponent > 38 || exponent < -38) return false;
    size_t k = 0;
    if (negative) all[k++] = '-';
    for (int i = exponent < 0 ? exponent : 0; i < n || i <= exponent; i++) {
        if (i == exponent + 1) all[k++] = '.';
        all[k++] = i >= 0 && i < n ? mantissa[i] : '0';
    }
    all[k] = '\0';
    if (k > 40) return false;
    memcpy(out, all, k + 1);
    return true;
}
