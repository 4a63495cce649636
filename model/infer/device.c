#include "model/infer/backend.h"

#define ADDRESS(backend, word) &sd_backend_##backend,
const sd_backend *const sd_backends[] = {SD_DEVICE_LIST(ADDRESS) NULL};
#undef ADDRESS

const sd_backend *sd_device_backend(int choice) {
    if (choice > 0) return sd_backends[choice - 1];
    int i = 0;
    while (sd_backends[i + 1] && !sd_backends[i]->available()) i++;
    return sd_backends[i];
}
