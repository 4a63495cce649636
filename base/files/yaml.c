// Such files are a page long and written by hand, so the tree is simple: linked children, and keys
// compared one by one. Aliases, depth and many nodes could make a small file expensive; they are
// refused while the file is scanned, before anything is built from it.
#include "base/files/yaml.h"

#include "base/utf8.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

typedef struct {
    sd_arena *arena;
    const char *origin;
    int nodes;
    sd_yaml *stack[SD_YAML_MAX_DEPTH];
    int depth;
    const char *key; // a map's key whose value comes next
    sd_yaml_mark key_mark;
    sd_yaml *root;
    int documents;
} builder;

sd_status sd_yaml_fail(sd_error *err, const sd_yaml_mark *mark, const char *fmt, ...) {
    char text[768];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    for (char *c = text; *c; c++) // values of several lines: a message is one sentence
        if ((unsigned char)*c < 32) *c = ' ';
    if (!mark || !mark->origin) return sd_fail(err, SD_EFORMAT, "%s", text);
    if (mark->line == 0) return sd_fail(err, SD_EFORMAT, "%.200s: %s", mark->origin, text);
    return sd_fail(err, SD_EFORMAT, "%.200s:%d:%d: %s", mark->origin, mark->line, mark->column,
                   text);
}

static sd_yaml_mark mark_of(const builder *b, yaml_mark_t m) {
    return (sd_yaml_mark){b->origin, (int)m.line + 1, (int)m.column + 1};
}

sd_yaml *sd_yaml_find(const sd_yaml *map, const char *key) {
    for (sd_yaml *c = map->first; c; c = c->next)
        if (c->key && strcmp(c->key, key) == 0) return c;
    return NULL;
}

bool sd_yaml_is_null(const sd_yaml *n) {
    static const char *const words[] = {"", "~", "null", "Null", "NULL", NULL};
    if (n->kind != SD_YAML_SCALAR || !n->plain) return false;
    for (int i = 0; words[i]; i++)
        if (strcmp(n->text, words[i]) == 0) return true;
    return false;
}

static bool looks_like_number(const char *s) {
    return s[0] && strspn(s, "0123456789+-.eE") == strlen(s);
}

// 010 is eight in YAML 1.1 and ten in 1.2, so it is refused.
static bool leading_zero(const char *s) {
    s += strspn(s, "+-");
    return s[0] == '0' && s[1] >= '0' && s[1] <= '9';
}

sd_status sd_yaml_set_option(const sd_option *o, void *values, const sd_yaml *n, sd_error *err) {
    sd_error e = {0};
    bool number = o->type == SD_OPT_INT || o->type == SD_OPT_FLOAT;
    if (n->kind != SD_YAML_SCALAR)
        return sd_yaml_fail(err, &n->mark, "%s: a plain value is wanted, not a %s", o->name,
                            n->kind == SD_YAML_MAP ? "map" : "list");
    if ((number || o->type == SD_OPT_FLAG) && !n->plain)
        return sd_yaml_fail(err, &n->mark, "%s: '%.60s' is a text; write it without quotes",
                            o->name, n->text);
    if (number && !looks_like_number(n->text))
        return sd_yaml_fail(err, &n->mark, "%s: '%.60s' is not a number; give one", o->name,
                            n->text);
    if (number && leading_zero(n->text))
        return sd_yaml_fail(err, &n->mark, "%s: '%.60s' begins with a zero; write it without",
                            o->name, n->text);
    if (sd_option_set(o, values, n->text, &e) == SD_OK) return SD_OK;
    // The option's own sentence speaks of "--key"; a file has no dashes.
    return sd_yaml_fail(err, &n->mark, "%s", e.message + strspn(e.message, "-"));
}

static void append(sd_yaml *parent, sd_yaml *child) {
    if (parent->last)
        parent->last->next = child;
    else
        parent->first = child;
    parent->last = child;
    parent->n++;
}

/// A new node under the open collection, or the root.
static sd_status add_node(sd_yaml **out, builder *b, sd_yaml_kind kind, sd_yaml_mark mark,
                          sd_error *err) {
    if (++b->nodes > SD_YAML_MAX_NODES)
        return sd_yaml_fail(err, &mark, "more than %d values; shorten the file", SD_YAML_MAX_NODES);
    sd_yaml *n = sd_arena_alloc(b->arena, 1, sizeof *n);
    if (!n) return sd_fail(err, SD_ENOMEM, "out of memory while reading %s", b->origin);
    n->kind = kind;
    n->mark = mark;
    if (b->depth == 0) {
        b->root = n;
    } else {
        sd_yaml *parent = b->stack[b->depth - 1];
        if (parent->kind == SD_YAML_MAP) {
            n->key = b->key;
            n->key_mark = b->key_mark;
            b->key = NULL;
        }
        append(parent, n);
    }
    *out = n;
    return SD_OK;
}

static sd_status open_collection(builder *b, sd_yaml_kind kind, sd_yaml_mark mark, sd_error *err) {
    sd_yaml *n = NULL;
    bool key_wanted = b->depth && b->stack[b->depth - 1]->kind == SD_YAML_MAP && !b->key;
    if (key_wanted) return sd_yaml_fail(err, &mark, "a key must be a word, not a map or a list");
    if (b->depth == SD_YAML_MAX_DEPTH)
        return sd_yaml_fail(err, &mark, "nested deeper than %d levels; three are enough",
                            SD_YAML_MAX_DEPTH);
    sd_status st = add_node(&n, b, kind, mark, err);
    if (st == SD_OK) b->stack[b->depth++] = n;
    return st;
}

static sd_status add_scalar(builder *b, const yaml_event_t *e, sd_error *err) {
    sd_yaml_mark mark = mark_of(b, e->start_mark);
    const char *value = (const char *)e->data.scalar.value;
    size_t len = e->data.scalar.length;
    if (memchr(value, 0, len)) return sd_yaml_fail(err, &mark, "a text holds a 0 byte; remove it");
    char *text = sd_arena_strndup(b->arena, value, len);
    if (!text) return sd_fail(err, SD_ENOMEM, "out of memory while reading %s", b->origin);
    sd_yaml *parent = b->depth ? b->stack[b->depth - 1] : NULL;
    if (parent && parent->kind == SD_YAML_MAP && !b->key) {
        if (!text[0]) return sd_yaml_fail(err, &mark, "an empty key; name it");
        if (strcmp(text, "<<") == 0 && e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE)
            return sd_yaml_fail(err, &mark,
                                "merge keys (<<) are not supported; write the keys out");
        sd_yaml *twin = sd_yaml_find(parent, text);
        if (twin)
            return sd_yaml_fail(err, &mark, "'%.60s' is given twice, first in line %d; keep one",
                                text, twin->key_mark.line);
        b->key = text;
        b->key_mark = mark;
        return SD_OK;
    }
    sd_yaml *n = NULL;
    sd_status st = add_node(&n, b, SD_YAML_SCALAR, mark, err);
    if (st != SD_OK) return st;
    n->text = text;
    n->plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
    return SD_OK;
}

static sd_status refuse_decoration(const builder *b, const yaml_event_t *e, const void *anchor,
                                   const void *tag, sd_error *err) {
    sd_yaml_mark mark = mark_of(b, e->start_mark);
    if (anchor)
        return sd_yaml_fail(err, &mark, "anchors (&name) are not supported; write the value out");
    if (tag) return sd_yaml_fail(err, &mark, "tags (!name) are not supported; leave the tag out");
    return SD_OK;
}

static sd_status take_event(builder *b, const yaml_event_t *e, sd_error *err) {
    sd_yaml_mark mark = mark_of(b, e->start_mark);
    sd_status st = SD_OK;
    switch (e->type) {
    case YAML_DOCUMENT_START_EVENT:
        if (++b->documents > 1)
            return sd_yaml_fail(err, &mark, "a second document; keep one in a file");
        return SD_OK;
    case YAML_ALIAS_EVENT:
        return sd_yaml_fail(err, &mark, "aliases (*name) are not supported; write the value out");
    case YAML_SCALAR_EVENT:
        st = refuse_decoration(b, e, e->data.scalar.anchor, e->data.scalar.tag, err);
        return st != SD_OK ? st : add_scalar(b, e, err);
    case YAML_MAPPING_START_EVENT:
        st = refuse_decoration(b, e, e->data.mapping_start.anchor, e->data.mapping_start.tag, err);
        return st != SD_OK ? st : open_collection(b, SD_YAML_MAP, mark, err);
    case YAML_SEQUENCE_START_EVENT:
        st =
            refuse_decoration(b, e, e->data.sequence_start.anchor, e->data.sequence_start.tag, err);
        return st != SD_OK ? st : open_collection(b, SD_YAML_LIST, mark, err);
    case YAML_MAPPING_END_EVENT:
    case YAML_SEQUENCE_END_EVENT:
        b->depth--;
        return SD_OK;
    default:
        return SD_OK;
    }
}

/// libyaml gives a byte offset for wrong bytes and a mark for wrong grammar.
static sd_status scan_failed(const builder *b, const yaml_parser_t *p, const char *data, size_t len,
                             sd_error *err) {
    // A bracket or quote that is never closed is noticed at the end; the context's mark is its
    // start.
    bool unclosed = p->context && p->problem && strstr(p->problem, "unexpected end of stream");
    const yaml_mark_t *at = unclosed ? &p->context_mark : &p->problem_mark;
    sd_yaml_mark m = {b->origin, (int)at->line + 1, (int)at->column + 1};
    if (p->error == YAML_MEMORY_ERROR)
        return sd_fail(err, SD_ENOMEM, "out of memory while reading %s", b->origin);
    if (p->error == YAML_READER_ERROR) {
        m.line = m.column = 1;
        for (size_t i = 0; i < p->problem_offset && i < len; i++) {
            m.column++;
            if (data[i] == '\n') m.line++, m.column = 1;
        }
    }
    const char *problem = p->problem ? p->problem : "not YAML";
    return sd_yaml_fail(err, &m, "%s%s%s; check the indentation, quotes and brackets there",
                        p->context ? p->context : "", p->context ? ": " : "", problem);
}

sd_status sd_yaml_parse(sd_yaml **out, sd_arena *arena, const char *origin, const char *data,
                        size_t len, sd_error *err) {
    sd_status st = SD_OK;
    builder b = {.arena = arena, .origin = origin};
    yaml_parser_t p;
    *out = NULL;
    if (len > SD_YAML_MAX_BYTES)
        return sd_fail(err, SD_ELIMIT, "%s: larger than %d bytes; such a file is about a page",
                       origin, SD_YAML_MAX_BYTES);
    const char *encoding = sd_odd_encoding(data, len);
    if (encoding)
        return sd_yaml_fail(err, &(sd_yaml_mark){origin, 1, 1},
                            "is %s, want UTF-8; save it as UTF-8", encoding);
    if (len >= 3 && memcmp(data, "\xEF\xBB\xBF", 3) == 0) data += 3, len -= 3; // no text
    if (!yaml_parser_initialize(&p)) return sd_fail(err, SD_ENOMEM, "out of memory");
    yaml_parser_set_encoding(&p, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&p, (const unsigned char *)data, len);
    for (bool end = false; !end;) {
        yaml_event_t e;
        if (!yaml_parser_parse(&p, &e)) {
            st = scan_failed(&b, &p, data, len, err);
            goto out;
        }
        st = take_event(&b, &e, err);
        end = e.type == YAML_STREAM_END_EVENT;
        yaml_event_delete(&e);
        if (st != SD_OK) goto out;
    }
    if (!b.root) SD_TRY(add_node(&b.root, &b, SD_YAML_MAP, (sd_yaml_mark){origin, 1, 1}, err));
    *out = b.root;
out:
    yaml_parser_delete(&p);
    return st;
}

/// The child that a step of a dotted path names. It is made when it is missing.
static sd_status step_into(sd_yaml **out, sd_yaml *at, sd_arena *arena, const char *word,
                           sd_yaml_mark mark, sd_error *err) {
    sd_yaml *child = NULL;
    bool number = word[0] && strspn(word, "0123456789") == strlen(word) && strlen(word) < 6;
    if (at->kind == SD_YAML_SCALAR && (sd_yaml_is_null(at) || !at->text)) {
        at->kind = number ? SD_YAML_LIST : SD_YAML_MAP; // nothing stood here
        at->text = NULL;
        at->mark = mark;
    }
    if (at->kind == SD_YAML_SCALAR)
        return sd_yaml_fail(err, &mark, "'%.60s' lies below a plain value; check the path", word);
    if (at->kind == SD_YAML_LIST) {
        int index = number ? (int)strtol(word, NULL, 10) : -1;
        if (index < 0 || index > at->n)
            return sd_yaml_fail(err, &mark,
                                "'%.60s' is not an index into a list of %d; give 0 to %d", word,
                                at->n, at->n);
        child = at->first;
        for (int i = 0; i < index; i++) child = child->next;
    } else {
        child = sd_yaml_find(at, word);
    }
    if (!child) {
        child = sd_arena_alloc(arena, 1, sizeof *child);
        char *key = sd_arena_strndup(arena, word, strlen(word));
        if (!child || !key) return sd_fail(err, SD_ENOMEM, "out of memory");
        child->kind = SD_YAML_SCALAR;
        child->text = "";
        child->plain = true;
        child->key = at->kind == SD_YAML_MAP ? key : NULL;
        child->mark = child->key_mark = mark;
        append(at, child);
    }
    *out = child;
    return SD_OK;
}

sd_status sd_yaml_override(sd_yaml *root, sd_arena *arena, const char *assignment, sd_error *err) {
    enum { MAX_PATH = 256 };
    sd_status st = SD_OK;
    char path[MAX_PATH];
    sd_buf origin = sd_buf_make(1024);
    const char *equals = strchr(assignment, '=');
    SD_CHECK(equals && equals > assignment, err, SD_EINVAL,
             "override '%.80s': is not key=value; give e.g. train.learning_rate=1e-4", assignment);
    SD_CHECK((size_t)(equals - assignment) < sizeof path, err, SD_EINVAL,
             "override '%.80s': the key is too long", assignment);
    memcpy(path, assignment, (size_t)(equals - assignment));
    path[equals - assignment] = '\0';
    SD_CHECK(sd_buf_printf(&origin, "override '%.200s'", assignment), err, SD_ENOMEM,
             "out of memory");
    sd_yaml_mark mark = {sd_arena_strndup(arena, origin.data, origin.len), 0, 0};
    SD_CHECK_ALLOC(mark.origin, err);

    sd_yaml *value, *at = root;
    char *word = path;
    for (;;) {
        size_t len = strcspn(word, ".");
        bool more = word[len] == '.';
        word[len] = '\0';
        SD_CHECK(len > 0, err, SD_EINVAL, "%s: an empty part in the key; give a.b=value",
                 mark.origin);
        SD_TRY(step_into(&at, at, arena, word, mark, err));
        if (!more) break;
        word += len + 1;
    }
    SD_CHECK(at->kind != SD_YAML_MAP || at->n == 0 || !sd_yaml_find(root, path) ||
                 sd_yaml_find(root, path) != at,
             err, SD_EFORMAT,
             "%s: would drop the %d keys that '%.60s' has; override them one by one, e.g. "
             "%.60s.%.60s=...",
             mark.origin, at->n, path, path, at->first->key);
    SD_TRY(sd_yaml_parse(&value, arena, mark.origin, equals + 1, strlen(equals + 1), err));
    if (value->kind == SD_YAML_MAP && value->n == 0 && !strchr(equals, '{')) { // nothing given
        value->kind = SD_YAML_SCALAR;
        value->text = "";
        value->plain = true;
    }
    at->kind = value->kind, at->text = value->text, at->plain = value->plain;
    at->first = value->first, at->last = value->last, at->n = value->n;
    at->mark = at->key_mark = mark;
out:
    sd_buf_free(&origin);
    return st;
}
