#include "model/adapter/basis.h"

#include <string.h>

bool sd_adapter_row_moves(const sd_model *base, int i, bool file_interleaved) {
    sd_proj p = base->linear[i].kind->first;
    return (p == SD_WQ || p == SD_WK) && base->hp.rope_interleaved != file_interleaved;
}

int sd_adapter_interleave_row(int row, int D) {
    int head = row / D, within = row % D, half = within / (D / 2), pair = within % (D / 2);
    return head * D + 2 * pair + half;
}

void sd_adapter_delta_row(float *delta, const sd_lora *l, int row, int K) {
    memset(delta, 0, (size_t)K * sizeof *delta);
    for (int r = 0; r < l->r; r++) {
        float b = l->scale * l->B[(size_t)row * (size_t)l->r + (size_t)r];
        const float *A = l->A + (size_t)r * (size_t)K;
        for (int k = 0; k < K; k++) delta[k] += b * A[k];
    }
}
