// The packed forms of one adapter, one for each table and compute that decoded with it.
#pragma once

#include "model/adapter/adapter.h"

#include <pthread.h>

typedef struct {
    pthread_mutex_t lock;
    sd_adapter_packs *first;
} sd_adapter_cache;

void sd_adapter_cache_init(sd_adapter_cache *c);
void sd_adapter_cache_free(sd_adapter_cache *c, int slots); // slots: projections of the adapter
sd_status sd_adapter_cache_get(const sd_adapter_packs **out, sd_adapter_cache *c,
                               const sd_adapter *a, const sd_model *base, const sd_ops *ops,
                               sd_compute compute, sd_error *err);
