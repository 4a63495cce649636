// Vocabularies write bytes as printable characters, as GPT-2's does: '!'..'~', U+00A1..U+00AC and
// U+00AE..U+00FF stand for themselves; the other 68 bytes, in order, are U+0100 and up.
#include "model/tokenizer/bpe.h"

#include "base/utf8.h"

static int byte_of_char(int32_t cp) {
    if ((cp >= '!' && cp <= '~') || (cp >= 0xA1 && cp <= 0xFF && cp != 0xAD)) return cp;
    if (cp < 0x100 || cp > 0x143) return -1;
    int n = cp - 0x100;
    if (n < 33) return n;
    if (n < 33 + 34) return 127 + (n - 33);
    return 0xAD;
}

bool sd_bytes_from_printable(sd_buf *out, const char *text, size_t len, bool *ok) {
    size_t before = out->len;
    *ok = true;
    for (size_t i = 0; i < len;) {
        int32_t cp;
        i += (size_t)sd_utf8_next(text + i, len - i, &cp, NULL);
        int byte = cp < 0 ? -1 : byte_of_char(cp);
        if (byte < 0) {
            out->len = before;
            *ok = false;
            return true;
        }
        if (!sd_buf_addc(out, (char)byte)) return false;
    }
    return true;
}
