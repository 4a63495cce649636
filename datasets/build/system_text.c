// Texts may be as many as records and longer than their answers. So only their hashes are counted,
// in a table with open addressing, and one text is kept: when a count passes the largest, its text
// is that of the record at hand.
#include "datasets/build/system_text.h"

#include "base/files/hash.h"
#include "base/memory.h"
#include "model/defaults.h"

#include <string.h>

struct sd_system_count {
    uint64_t hash[2]; // of SHA-256, its first half: nobody finds two texts with the same one
    int64_t records;  // 0: the slot is free
};
typedef struct sd_system_count count;

static uint64_t of_hex(const char *digit) {
    uint64_t x = 0;
    for (int i = 0; i < 16; i++)
        x = x << 4 | (uint64_t)(digit[i] <= '9' ? digit[i] - '0' : digit[i] - 'a' + 10);
    return x;
}

static count *find(count *slot, size_t cap, const uint64_t hash[2]) {
    size_t i = hash[0] & (cap - 1);
    while (slot[i].records && (slot[i].hash[0] != hash[0] || slot[i].hash[1] != hash[1]))
        i = (i + 1) & (cap - 1);
    return &slot[i];
}

static sd_status make_room(sd_system_texts *s, sd_error *err) {
    if (4 * (s->n + 1) <= 3 * s->cap) return SD_OK;
    size_t cap = s->cap ? 2 * s->cap : 64;
    count *slot = sd_alloc(cap, sizeof *slot);
    if (!slot) return sd_fail(err, SD_ENOMEM, "out of memory");
    for (size_t i = 0; i < s->cap; i++)
        if (s->slot[i].records) *find(slot, cap, s->slot[i].hash) = s->slot[i];
    free(s->slot);
    s->slot = slot;
    s->cap = cap;
    return SD_OK;
}

static const json_t *text_of(const sd_example *ex) {
    if (ex->kind != SD_EXAMPLE_CHAT) return NULL;
    const json_t *first = json_array_get(ex->messages, 0);
    const char *role = json_string_value(json_object_get(first, "role"));
    const json_t *content = json_object_get(first, "content");
    return role && strcmp(role, "system") == 0 && json_is_string(content) ? content : NULL;
}

sd_status sd_system_texts_add(sd_system_texts *s, const sd_example *ex, sd_error *err) {
    sd_status st = SD_OK;
    sd_sha256 sum;
    const json_t *content = text_of(ex);
    if (!content) return SD_OK;
    const char *text = json_string_value(content);
    size_t len = json_string_length(content);
    SD_TRY(sd_sha256_of(&sum, text, len, err));
    SD_TRY(make_room(s, err));
    uint64_t hash[2] = {of_hex(sum.hex), of_hex(sum.hex + 16)};
    count *c = find(s->slot, s->cap, hash);
    if (!c->records) {
        s->n++;
        memcpy(c->hash, hash, sizeof hash);
    }
    if (++c->records <= s->records) goto out;
    s->records = c->records;
    bool kept = len <= SD_MAX_SYSTEM_TEXT && strlen(text) == len;
    if (kept && s->text && strcmp(s->text, text) == 0) goto out;
    free(s->text);
    s->text = kept ? sd_strndup(text, len) : NULL;
    SD_CHECK(s->text || !kept, err, SD_ENOMEM, "out of memory");
out:
    return st;
}

void sd_system_texts_free(sd_system_texts *s) {
    free(s->text);
    free(s->slot);
    *s = (sd_system_texts){0};
}
