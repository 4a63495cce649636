// Formats of strings, twice: the patterns that answers are offered, and checks by hand of any text. A
// pattern is stricter than its check: years from 1000 on, at most three labels of a host, and so on. And
// OpenAPI's formats of numbers, which are bounds.
#include "model/grammar/schema/schema.h"

#include <ctype.h>
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define YEAR "[12][0-9]{3}"
#define LEAP "(?:[12][0-9](?:0[48]|[2468][048]|[13579][26])|(?:1[26]|2[048])00)"
#define DATE                                                                                       \
    "(?:" YEAR                                                                                     \
    "-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|"         \
    "30)|02-(?:0[1-9]|1[0-9]|2[0-8]))|" LEAP "-02-29)"
#define TIME                                                                                       \
    "(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,6})?(?:Z|[+-](?:[01][0-9]|2[0-3]):["  \
    "0-5][0-9])"
#define LABEL "[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
#define HOST LABEL "(?:\\." LABEL "){0,2}"
#define OCTET "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define IPV4 OCTET "(?:\\." OCTET "){3}"
#define H16 "[0-9a-fA-F]{1,4}"
#define PCHAR "(?:[a-zA-Z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"
#define UUID(version, variant)                                                                     \
    "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-" version "[0-9a-fA-F]{3}-" variant                             \
    "[0-9a-fA-F]{3}-[0-9a-fA-F]{12}"

static const struct {
    const char *name, *pattern;
} patterns[] = {
    {"date", DATE},
    {"time", TIME},
    {"date-time", DATE "T" TIME},
    {"duration",
     "P(?:[0-9]{1,9}W|(?:[0-9]{1,9}Y(?:[0-9]{1,9}M(?:[0-9]{1,9}D)?)?|[0-9]{1,9}M(?:[0-9]{1,9}D)?|["
     "0-9]{1,9}D)"
     "(?:T(?:[0-9]{1,9}H(?:[0-9]{1,9}M(?:[0-9]{1,9}S)?)?|[0-9]{1,9}M(?:[0-9]{1,9}S)?|[0-9]{1,9}S))?"
     "|"
     "T(?:[0-9]{1,9}H(?:[0-9]{1,9}M(?:[0-9]{1,9}S)?)?|[0-9]{1,9}M(?:[0-9]{1,9}S)?|[0-9]{1,9}S))"},
    {"uuid", UUID("[0-9a-fA-F]", "[0-9a-fA-F]")},
    {"uuid1", UUID("1", "[89abAB]")},
    {"uuid3", UUID("3", "[89abAB]")},
    {"uuid4", UUID("4", "[89abAB]")},
    {"uuid5", UUID("5", "[89abAB]")},
    {"email", "[a-zA-Z0-9_+-]{1,30}(?:\\.[a-zA-Z0-9_+-]{1,30})?@" LABEL
              "(?:\\.[a-zA-Z0-9]{1,30})?\\.[a-zA-Z]{2,18}"},
    {"hostname", HOST},
    {"ipv4", IPV4},
    {"ipv6", "(?:" H16 ":){7}" H16 "|(?:" H16 ":){1,6}:" H16 "|(?:" H16 ":){1,5}(?::" H16
             "){2}|(?:" H16 ":){1,4}(?::" H16 "){3}|(?:" H16 ":){1,7}:|:(?::" H16 "){1,7}|::"},
    {"uri", "[a-zA-Z][a-zA-Z0-9+-]{1,12}:(?://" HOST "(?::[0-9]{1,5})?(?:/" PCHAR "*)*|" PCHAR
            "+)(?:\\?(?:" PCHAR "|[/?])*)?(?:#(?:" PCHAR "|[/?])*)?"},
};
enum { FORMATS = sizeof patterns / sizeof patterns[0] };

const char *sd_format_pattern(const char *format) {
    for (int i = 0; i < FORMATS; i++)
        if (strcmp(patterns[i].name, format) == 0) return patterns[i].pattern;
    return NULL;
}

// Hints to who shows or reads a text: every text is one.
static const char *const any_text[] = {"password", "path", "binary"};

// whole: integers alone. A double is any number that JSON's readers take; seconds are Pydantic's.
static const struct {
    const char *name;
    double min, max;
    bool whole;
} numbers[] = {
    {"int8", -128, 127, true},
    {"int16", -32768, 32767, true},
    {"int32", -2147483648.0, 2147483647.0, true},
    {"int64", -9223372036854775808.0, 9223372036854775807.0, true},
    {"uint8", 0, 255, true},
    {"uint16", 0, 65535, true},
    {"uint32", 0, 4294967295.0, true},
    {"uint64", 0, 18446744073709551615.0, true},
    {"float", -(double)FLT_MAX, (double)FLT_MAX, false},
    {"double", -DBL_MAX, DBL_MAX, false},
    {"time-delta", -DBL_MAX, DBL_MAX, false},
};
enum { NUMBERS = sizeof numbers / sizeof numbers[0] };

sd_format_kind sd_format_kind_of(const char *format) {
    double min, max;
    bool whole;
    if (sd_format_pattern(format)) return SD_FORMAT_PATTERN;
    if (sd_format_range(format, &min, &max, &whole)) return SD_FORMAT_NUMBER;
    for (size_t i = 0; i < sizeof any_text / sizeof any_text[0]; i++)
        if (strcmp(any_text[i], format) == 0) return SD_FORMAT_ANY_TEXT;
    return SD_FORMAT_UNKNOWN;
}

bool sd_format_range(const char *format, double *min, double *max, bool *whole) {
    for (int i = 0; i < NUMBERS; i++) {
        if (strcmp(numbers[i].name, format) != 0) continue;
        *min = numbers[i].min, *max = numbers[i].max, *whole = numbers[i].whole;
        return true;
    }
    return false;
}

// ---- checks by hand

typedef struct {
    const char *s, *end;
} text;

static bool take(text *t, char c) {
    if (t->s == t->end || *t->s != c) return false;
    t->s++;
    return true;
}

// min to max digits; -1: they are not there.
static long number(text *t, int min, int max) {
    long v = 0;
    int n = 0;
    for (; n < max && t->s < t->end && *t->s >= '0' && *t->s <= '9'; n++)
        v = v > 100000000 ? v : v * 10 + (*t->s - '0'), t->s++;
    return n < min ? -1 : v;
}

static bool is_date(text *t) {
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    long y = number(t, 4, 4), m = take(t, '-') ? number(t, 2, 2) : -1,
         d = take(t, '-') ? number(t, 2, 2) : -1;
    if (y < 0 || m < 1 || m > 12 || d < 1) return false;
    bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
    return d <= days[m - 1] + (m == 2 && leap);
}

// A minute's 61st second is that of 23:59 at Greenwich.
static bool is_time(text *t) {
    long h = number(t, 2, 2), m = take(t, ':') ? number(t, 2, 2) : -1,
         s = take(t, ':') ? number(t, 2, 2) : -1, off_h = 0, off_m = 0, sign = 1;
    if (h < 0 || h > 23 || m < 0 || m > 59 || s < 0 || s > 60) return false;
    if (take(t, '.') && number(t, 1, 30) < 0) return false;
    if (!take(t, 'Z') && !take(t, 'z')) {
        if (take(t, '-'))
            sign = -1;
        else if (!take(t, '+'))
            return false;
        off_h = number(t, 2, 2), off_m = take(t, ':') ? number(t, 2, 2) : -1;
        if (off_h < 0 || off_h > 23 || off_m < 0 || off_m > 59) return false;
    }
    long utc = (h * 60 + m - sign * (off_h * 60 + off_m) + 2880) % 1440;
    return s < 60 || utc == 23 * 60 + 59;
}

// Units in their order, each at most once and without a gap; how many.
static int units(text *t, const char *names) {
    int n = 0, last = -1;
    while (t->s < t->end && *t->s != 'T') {
        if (number(t, 1, 30) < 0 || t->s == t->end) return -1;
        const char *at = *t->s ? strchr(names, *t->s) : NULL;
        if (!at || (last >= 0 && at - names != last + 1)) return -1;
        last = (int)(at - names);
        t->s++, n++;
    }
    return n;
}

static bool is_duration(text *t) {
    if (!take(t, 'P')) return false;
    text weeks = *t;
    if (number(&weeks, 1, 30) >= 0 && take(&weeks, 'W')) return *t = weeks, true;
    int dates = units(t, "YMD"), times = 0;
    if (dates < 0) return false;
    if (take(t, 'T')) {
        times = units(t, "HMS");
        if (times <= 0) return false;
    }
    return dates + times > 0;
}

// version '\0': any, of any variant.
static bool is_uuid(text *t, char version) {
    for (int i = 0; i < 36; i++, t->s++) {
        if (t->s == t->end) return false;
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash ? *t->s != '-' : !isxdigit((unsigned char)*t->s)) return false;
        if (version && ((i == 14 && *t->s != version) || (i == 19 && !strchr("89abAB", *t->s))))
            return false;
    }
    return true;
}

static bool is_host(text *t) {
    const char *begin = t->s;
    while (t->s < t->end) {
        const char *label = t->s;
        while (t->s < t->end && (isalnum((unsigned char)*t->s) || *t->s == '-')) t->s++;
        if (t->s == label || t->s - label > 63 || *label == '-' || t->s[-1] == '-') return false;
        if (t->s == t->end) break;
        if (!take(t, '.') || t->s == t->end) return false;
    }
    return t->s > begin && t->s - begin <= 253;
}

static bool is_ipv4(text *t) {
    for (int i = 0; i < 4; i++) {
        if (i && !take(t, '.')) return false;
        const char *from = t->s;
        long v = number(t, 1, 3);
        if (v < 0 || v > 255 || (*from == '0' && t->s - from > 1)) return false;
    }
    return true;
}

static bool is_ipv6(text *t) {
    int groups = 0;
    bool gap = false;
    if (t->end - t->s >= 2 && t->s[0] == ':' && t->s[1] == ':') gap = true, t->s += 2;
    while (t->s < t->end) {
        const char *from = t->s;
        while (t->s < t->end && isxdigit((unsigned char)*t->s)) t->s++;
        if (t->s < t->end && *t->s == '.') { // the last four bytes as IPv4
            t->s = from;
            if (!is_ipv4(t)) return false;
            groups += 2;
            break;
        }
        if (t->s == from || t->s - from > 4) return false;
        groups++;
        if (t->s == t->end) break;
        if (!take(t, ':') || t->s == t->end) return false;
        if (*t->s == ':') {
            if (gap) return false;
            gap = true, t->s++;
        }
    }
    return gap ? groups < 8 : groups == 8;
}

// The part before the @: words with single dots between them, or anything in quotes.
static bool is_mailbox(text *t) {
    if (take(t, '"')) {
        while (t->s < t->end && *t->s != '"') {
            if (*t->s == '\\' && t->s + 1 < t->end) t->s++;
            if ((unsigned char)*t->s < 0x20) return false;
            t->s++;
        }
        return take(t, '"');
    }
    bool dot = true; // none at the ends, no two in a row
    const char *begin = t->s;
    for (; t->s < t->end && *t->s != '@'; t->s++) {
        if (*t->s == '.' ? dot
                         : *t->s == '\0' || (!isalnum((unsigned char)*t->s) &&
                                             !strchr("!#$%&'*+-/=?^_`{|}~", *t->s)))
            return false;
        dot = *t->s == '.';
    }
    return !dot && t->s - begin <= 64;
}

static bool is_email(text *t) {
    if (!is_mailbox(t) || !take(t, '@')) return false;
    if (!take(t, '[')) return is_host(t);
    static const char ipv6[] = "IPv6:";
    const char *close = memchr(t->s, ']', (size_t)(t->end - t->s));
    if (!close) return false;
    text address = {t->s, close};
    bool six = close - t->s > 5 && memcmp(t->s, ipv6, 5) == 0;
    if (six) address.s += 5;
    t->s = close + 1;
    return (six ? is_ipv6(&address) : is_ipv4(&address)) && address.s == address.end;
}

static bool is_uri(text *t) {
    if (t->s == t->end || !isalpha((unsigned char)*t->s)) return false;
    while (t->s < t->end && (isalnum((unsigned char)*t->s) || (*t->s && strchr("+-.", *t->s))))
        t->s++;
    if (!take(t, ':')) return false;
    bool fragment = false;
    for (; t->s < t->end; t->s++) {
        if (*t->s == '%') {
            if (t->end - t->s < 3 || !isxdigit((unsigned char)t->s[1]) ||
                !isxdigit((unsigned char)t->s[2]))
                return false;
        } else if (*t->s == '#') {
            if (fragment) return false;
            fragment = true;
        } else if (!isalnum((unsigned char)*t->s) &&
                   (*t->s == '\0' || !strchr("-._~!$&'()*+,;=:@/?[]", *t->s))) {
            return false;
        }
    }
    return true;
}

bool sd_format_check(const char *format, const char *s, size_t len, bool *known) {
    text t = {s, s + len};
    bool ok = false, is_known = sd_format_pattern(format) != NULL;
    if (known) *known = is_known;
    if (strcmp(format, "date") == 0) ok = is_date(&t);
    if (strcmp(format, "time") == 0) ok = is_time(&t);
    if (strcmp(format, "date-time") == 0)
        ok = is_date(&t) && (take(&t, 'T') || take(&t, 't')) && is_time(&t);
    if (strcmp(format, "duration") == 0) ok = is_duration(&t);
    if (strncmp(format, "uuid", 4) == 0) ok = is_uuid(&t, format[4]);
    if (strcmp(format, "email") == 0) ok = is_email(&t);
    if (strcmp(format, "hostname") == 0) ok = is_host(&t);
    if (strcmp(format, "ipv4") == 0) ok = is_ipv4(&t);
    if (strcmp(format, "ipv6") == 0) ok = is_ipv6(&t);
    if (strcmp(format, "uri") == 0) ok = is_uri(&t);
    return ok && is_known && t.s == t.end;
}
