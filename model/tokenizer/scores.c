// Merges out of a vocabulary with scores, as SentencePiece's BPE means them (Kudo and Richardson,
// arXiv:1808.06226): no list of merges is kept, and two neighbours merge when their texts together
// are a token. Here every way to cut a token into two symbols becomes an entry of the merge table
// once, so that encoding does one lookup of two ids for each pair, as for byte-level BPE.
//
// All cuts of a token rank alike, and so do tokens of equal score: of these the leftmost in the text
// is merged first. Llama 2 needs that: its 16 runs of spaces have one score.
#include "model/tokenizer/bpe.h"

#include "base/list.h"
#include "base/utf8.h"

#include <math.h>

// A token is looked up once for each of its characters. These two bound the work that a hostile file
// can ask for to seconds.
enum { MAX_PIECE_BYTES = 512, MAX_PIECES_BYTES = 1 << 26 };

typedef struct {
    float score;
    int32_t id;
} scored;

static int best_first(const void *a, const void *b) {
    const scored *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? 1 : -1;
    return (x->id > y->id) - (x->id < y->id);
}

// Gives every mergeable token its rank: equal scores share one.
static sd_status rank_tokens(sd_bpe *b, const float *score, sd_error *err) {
    sd_status st = SD_OK;
    scored *order = sd_alloc((size_t)b->V, sizeof *order);
    size_t n = 0, bytes = 0;
    b->token_rank = sd_alloc((size_t)b->V, sizeof *b->token_rank);
    SD_CHECK_ALLOC(order && b->token_rank, err);
    for (int32_t i = 0; i < b->V; i++) {
        const char *text = b->text.data + b->start[i];
        b->token_rank[i] = SD_NO_RANK;
        if (b->length[i] == 0 || sd_bpe_find(b, text, b->length[i]) != i) continue;
        SD_CHECK(isfinite(score[i]), err, SD_EFORMAT,
                 "the score of token %d is %g, a finite number is wanted; convert the model again",
                 i, (double)score[i]);
        SD_CHECK(b->length[i] <= MAX_PIECE_BYTES, err, SD_EFORMAT,
                 "token %d has %u bytes, at most %d are supported where tokens merge by score", i,
                 b->length[i], MAX_PIECE_BYTES);
        bytes += b->length[i];
        order[n++] = (scored){score[i], i};
    }
    SD_CHECK(bytes <= MAX_PIECES_BYTES, err, SD_EFORMAT,
             "the tokens have %zu bytes of text, at most %d are supported where tokens merge by "
             "score",
             bytes, MAX_PIECES_BYTES);
    qsort(order, n, sizeof *order, best_first);
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || order[i].score != order[i - 1].score) b->n_ranks++;
        b->token_rank[order[i].id] = (uint32_t)b->n_ranks - 1;
    }
out:
    free(order);
    return st;
}

// The symbol that this part of a token is, when it is one: a token, or a single character.
static int32_t part_symbol(const sd_bpe *b, const char *text, size_t len) {
    int32_t id = sd_bpe_find(b, text, len), cp;
    if (id >= 0) return id;
    return (size_t)sd_utf8_next(text, len, &cp, NULL) == len && cp >= 0 ? b->V + cp : -1;
}

typedef struct {
    int32_t left, right, made;
} cut;

sd_status sd_bpe_merge_by_score(sd_bpe *b, const float *score, sd_error *err) {
    sd_status st = SD_OK;
    cut *all = NULL;
    size_t n = 0, cap = 0;
    SD_TRY(rank_tokens(b, score, err));
    for (int32_t id = 0; id < b->V; id++) {
        if (b->token_rank[id] == SD_NO_RANK) continue;
        const char *text = b->text.data + b->start[id];
        size_t len = b->length[id];
        for (size_t i = 1; i < len; i++) {
            if (((unsigned char)text[i] & 0xC0) == 0x80) continue; // within a character
            cut c = {.made = id, .left = part_symbol(b, text, i)};
            if (c.left < 0) continue;
            c.right = part_symbol(b, text + i, len - i);
            if (c.right < 0) continue;
            SD_CHECK_ALLOC(SD_GROW(all, n + 1, cap), err);
            all[n++] = c;
        }
        SD_CHECK(n <= SD_TOK_MAX_VOCAB, err, SD_EFORMAT,
                 "the tokens have more than %d merges; check the file", SD_TOK_MAX_VOCAB);
    }
    SD_TRY(sd_bpe_reserve_merges(b, (int)n, err));
    free(b->merged);
    b->merged = NULL;
    for (size_t i = 0; i < n; i++)
        *sd_bpe_merge_slot(b, all[i].left, all[i].right) =
            (sd_merge){(uint64_t)(uint32_t)all[i].left << 32 | (uint32_t)all[i].right,
                       b->token_rank[all[i].made], all[i].made};
    b->n_merges = (int)n;
out:
    free(all);
    return st;
}
