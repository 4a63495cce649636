// A training recipe of any bytes, and as an override.
#include "trainer/recipe/recipe.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    sd_recipe r;
    sd_error err;
    sd_recipe_parse(&r, "input", (const char *)data, size, NULL, 0, &err);
    sd_recipe_free(&r);
    char *text = malloc(size + 1);
    if (size) memcpy(text, data, size);
    text[size] = '\0';
    const char *override[] = {text};
    sd_recipe_parse(&r, "input", "model: m\n", 9, override, 1, &err);
    sd_recipe_free(&r);
    free(text);
    return 0;
}
