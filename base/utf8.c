#include "base/utf8.h"

#include <string.h>

static bool is_tail(unsigned char c) {
    return (c & 0xC0) == 0x80;
}

int sd_utf8_next(const char *s, size_t len, int32_t *cp, bool *truncated) {
    const unsigned char *u = (const unsigned char *)s;
    unsigned char lead = u[0], low = 0x80, high = 0xBF; // bounds of the second byte
    int want;
    if (truncated) *truncated = false;
    *cp = -1;
    if (lead < 0x80) {
        *cp = lead;
        return 1;
    }
    if (lead >= 0xC2 && lead <= 0xDF)
        want = 2;
    else if (lead >= 0xE0 && lead <= 0xEF)
        want = 3;
    else if (lead >= 0xF0 && lead <= 0xF4)
        want = 4;
    else
        return 1;
    if (lead == 0xE0) low = 0xA0;  // shorter forms exist
    if (lead == 0xED) high = 0x9F; // surrogates
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F; // above U+10FFFF
    int32_t value = lead & (0xFF >> (want + 1));
    for (int i = 1; i < want; i++) {
        if ((size_t)i == len) {
            if (truncated) *truncated = true;
            return i;
        }
        if (!is_tail(u[i]) || (i == 1 && (u[i] < low || u[i] > high))) return i;
        value = value << 6 | (u[i] & 0x3F);
    }
    *cp = value;
    return want;
}

int sd_utf8_put(char *out, int32_t cp) {
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xC0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3F));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xE0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3F));
        out[2] = (char)(0x80 | (cp & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3F));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3F));
    out[3] = (char)(0x80 | (cp & 0x3F));
    return 4;
}

size_t sd_utf8_valid_prefix(const char *s, size_t len) {
    size_t i = 0;
    while (i < len) {
        uint64_t eight;
        if (len - i >= 8) { // most text is ASCII
            memcpy(&eight, s + i, 8);
            if (!(eight & 0x8080808080808080u)) {
                i += 8;
                continue;
            }
        }
        int32_t cp;
        int n = sd_utf8_next(s + i, len - i, &cp, NULL);
        if (cp < 0) return i;
        i += (size_t)n;
    }
    return i;
}

bool sd_utf8_lossy(sd_buf *out, const char *s, size_t len) {
    while (len > 0) {
        size_t good = sd_utf8_valid_prefix(s, len);
        if (!sd_buf_add(out, s, good)) return false;
        s += good;
        len -= good;
        if (len == 0) break;
        int32_t cp;
        size_t bad = (size_t)sd_utf8_next(s, len, &cp, NULL);
        if (!sd_buf_add(out, "\xEF\xBF\xBD", 3)) return false;
        s += bad;
        len -= bad;
    }
    return true;
}

const char *sd_odd_encoding(const char *bytes, size_t len) {
    const unsigned char *p = (const unsigned char *)bytes;
    if (len >= 4 && memcmp(p, "\xFF\xFE\0\0", 4) == 0) return "UTF-32";
    if (len >= 4 && memcmp(p, "\0\0\xFE\xFF", 4) == 0) return "UTF-32";
    if (len >= 2 && (memcmp(p, "\xFF\xFE", 2) == 0 || memcmp(p, "\xFE\xFF", 2) == 0))
        return "UTF-16";
    // Without a mark: every second byte of a Latin text is 0.
    if (len >= 4 && ((p[0] && !p[1] && p[2] && !p[3]) || (!p[0] && p[1] && !p[2] && p[3])))
        return "UTF-16";
    return NULL;
}
