// The opening and closing of a tokenizer, and the questions about it.
#include "model/tokenizer/internal.h"

#include "base/files/hash.h"
#include "base/list.h"

#include <string.h>

// ---- opening and closing

void sd_tokenizer_close(sd_tokenizer *t) {
    if (!t) return;
    sd_bpe_free(&t->bpe);
    for (int i = 0; i < t->n_steps; i++) pcre2_code_free(t->step[i].code);
    for (int i = 0; i < t->n_added; i++) free(t->added[i].text);
    free(t->added);
    sd_trie_free(&t->raw);
    sd_trie_free(&t->normal);
    free(t);
}

sd_status sd_tokenizer_add_added_token(sd_tokenizer *t, const sd_added_token *a, sd_error *err) {
    sd_status st = SD_OK;
    SD_CHECK(a->id >= 0 && a->id < t->bpe.V, err, SD_EFORMAT,
             "added token id %d is outside the vocabulary of %d; check the file", a->id, t->bpe.V);
    SD_CHECK_ALLOC(SD_GROW(t->added, t->n_added + 1, t->cap_added), err);
    sd_added_token copy = *a;
    copy.text = sd_strndup(a->text, a->len);
    SD_CHECK_ALLOC(copy.text, err);
    t->added[t->n_added++] = copy;
    t->bpe.flags[a->id] |= SD_TOKEN_ADDED | (a->special ? SD_TOKEN_SPECIAL : 0);
out:
    return st;
}

static sd_status hash_tokens(sd_tokenizer *t, sd_error *err) {
    static const char what[] = "tokens";
    sd_hasher *h;
    sd_status st = sd_hasher_open(&h, err);
    if (st != SD_OK) return st;
    sd_hasher_add(h, what, sizeof what);
    for (int32_t id = 0; id < t->bpe.V; id++) {
        size_t len;
        const char *text = sd_tokenizer_bytes(t, id, &len);
        const int32_t head[] = {id, (int32_t)len};
        if (len == 0) continue;
        sd_hasher_add(h, head, sizeof head);
        sd_hasher_add(h, text, len);
    }
    sd_sha256 sum = sd_hasher_close(h);
    memcpy(t->fingerprint, sum.hex, sizeof sum.hex);
    return SD_OK;
}

// All that decides ids: texts and kinds of the tokens, and the merges.
static sd_status hash_encoding(sd_tokenizer *t, sd_error *err) {
    sd_hasher *h;
    sd_status st = sd_hasher_open(&h, err);
    if (st != SD_OK) return st;
    const sd_bpe *b = &t->bpe;
    sd_hasher_add(h, &b->V, sizeof b->V);
    sd_hasher_add(h, b->length, (size_t)b->V * sizeof *b->length);
    sd_hasher_add(h, b->flags, (size_t)b->V);
    for (int i = 0; i < b->V;) { // tokens mostly lie one after the other
        size_t start = b->start[i], end = start;
        for (; i < b->V && b->start[i] == end; i++) end += b->length[i];
        if (end > start) sd_hasher_add(h, b->text.data + start, end - start);
        if (end == start) i++;
    }
    sd_hasher_add(h, &b->n_merges, sizeof b->n_merges);
    if (b->merged && b->n_merges)
        sd_hasher_add(h, b->merged, (size_t)b->n_merges * sizeof *b->merged);
    if (b->token_rank) sd_hasher_add(h, b->token_rank, (size_t)b->V * sizeof *b->token_rank);
    if (t->pieces) {
        int32_t rest[] = {(int32_t)t->prefix, t->strip_prefix, t->spaces_late};
        sd_hasher_add(h, rest, sizeof rest);
        sd_hasher_add(h, b->byte_id, sizeof b->byte_id);
    }
    sd_sha256 sum = sd_hasher_close(h);
    memcpy(t->encoding, sum.hex, sizeof sum.hex);
    return SD_OK;
}

sd_status sd_tokenizer_finish(sd_tokenizer *t, sd_error *err) {
    sd_status st = SD_OK;
    sd_bpe_finish(&t->bpe);
    sd_trie_init(&t->raw);
    sd_trie_init(&t->normal);
    for (int i = 0; i < t->n_added; i++) {
        sd_added_token *a = &t->added[i];
        if (a->len == 0) continue;
        if (a->normalized) {
            sd_buf b = sd_buf_make((size_t)1 << 24);
            const char *text = a->text;
            size_t len = a->len;
            st = sd_tokenizer_normalise(t, 0, &b, &text, &len, err);
            if (st == SD_OK && len) st = sd_trie_add(&t->normal, text, len, i, err);
            sd_buf_free(&b);
            if (st != SD_OK) goto out;
        } else {
            SD_TRY(sd_trie_add(&t->raw, a->text, a->len, i, err));
        }
    }
    if (t->bos >= t->bpe.V) t->bos = -1;
    if (t->eos >= t->bpe.V) t->eos = -1;
    SD_TRY(hash_tokens(t, err));
    SD_TRY(hash_encoding(t, err));
out:
    return st;
}

// ---- questions

int sd_tokenizer_size(const sd_tokenizer *t) {
    return t->bpe.V;
}

int32_t sd_tokenizer_bos(const sd_tokenizer *t) {
    return t->bos;
}

int32_t sd_tokenizer_eos(const sd_tokenizer *t) {
    return t->eos;
}

bool sd_tokenizer_is_special(const sd_tokenizer *t, int32_t id) {
    return id >= 0 && id < t->bpe.V && (t->bpe.flags[id] & SD_TOKEN_SPECIAL);
}

int32_t sd_tokenizer_find(const sd_tokenizer *t, const char *text) {
    size_t len = strlen(text);
    for (int i = 0; i < t->n_added; i++)
        if (t->added[i].len == len && memcmp(t->added[i].text, text, len) == 0)
            return t->added[i].id;
    return -1;
}

const char *sd_tokenizer_bytes(const sd_tokenizer *t, int32_t id, size_t *len) {
    if (id < 0 || id >= t->bpe.V || t->bpe.length[id] == 0) {
        *len = 0;
        return "";
    }
    *len = t->bpe.length[id];
    return t->bpe.text.data + t->bpe.start[id];
}

const char *sd_tokenizer_fingerprint(const sd_tokenizer *t) {
    return t->fingerprint;
}

const char *sd_tokenizer_encoding(const sd_tokenizer *t) {
    return t->encoding;
}

bool sd_tokenizer_has_fingerprint(const sd_tokenizer *t, const char *fingerprint) {
    return strcmp(t->fingerprint, fingerprint) == 0 || strcmp(t->encoding, fingerprint) == 0;
}
