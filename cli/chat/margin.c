#include "cli/chat/margin.h"

#include "base/utf8.h"

#include <string.h>
#include <utf8proc.h>

enum { TAB = 8 };

static void put_word(sd_margin *m) {
    if (m->len == 0) return;
    if (!m->broken && m->column > 0 && m->column + m->width > m->columns) {
        fputc('\n', m->out);
        m->column = 0;
    }
    fwrite(m->word, 1, m->len, m->out);
    m->column += m->width;
    if (m->column > m->columns) m->column = (m->column - 1) % m->columns + 1;
    m->len = 0;
    m->width = 0;
}

// A space that does not fit ends the line.
static void put_space(sd_margin *m) {
    m->broken = false;
    if (m->column == m->columns) {
        fputc('\n', m->out);
        m->column = 0;
        return;
    }
    fputc(' ', m->out);
    m->column++;
}

static void put_character(sd_margin *m, int32_t cp) {
    char bytes[4];
    bool control = cp < 0x20 || (cp >= 0x7F && cp < 0xA0);
    if (control || cp < 0) cp = SD_REPLACEMENT;
    int n = sd_utf8_put(bytes, cp), width = utf8proc_charwidth(cp);
    bool wide = width == 2; // of scripts that have no spaces: each may begin a line
    if (wide) put_word(m);
    if (m->len + sizeof bytes > sizeof m->word || (m->width > 0 && m->width + width > m->columns)) {
        put_word(m); // it fits into no line: the terminal breaks it
        m->broken = true;
    }
    memcpy(m->word + m->len, bytes, (size_t)n);
    m->len += (size_t)n;
    m->width += width;
    if (wide) put_word(m);
}

void sd_margin_write(sd_margin *m, const char *text, size_t len) {
    if (m->columns <= 0) {
        fwrite(text, 1, len, m->out);
        return;
    }
    for (size_t i = 0; i < len;) {
        int32_t cp;
        i += (size_t)sd_utf8_next(text + i, len - i, &cp, NULL);
        if (cp == '\n') {
            put_word(m);
            fputc('\n', m->out);
            m->column = 0;
            m->broken = false;
        } else if (cp == ' ') {
            put_word(m);
            put_space(m);
        } else if (cp == '\t') {
            put_word(m);
            do put_space(m);
            while (m->column % TAB != 0 && m->column < m->columns);
        } else if (cp != '\r') {
            put_character(m, cp);
        }
    }
}

void sd_margin_end(sd_margin *m) {
    if (m->columns > 0) put_word(m);
    m->column = 0;
}
