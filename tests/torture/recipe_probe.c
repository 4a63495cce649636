// recipe_probe RECIPE [key=value ...]: the recipe as it was understood, one line a key; or the error
// on standard error and its exit code. Nothing named in the recipe is opened.
#include "trainer/recipe/recipe.h"

#include <stdio.h>

int main(int argc, char **argv) {
    sd_recipe r = {0};
    sd_error err = {0};
    sd_buf text = sd_buf_make(1 << 20);
    if (argc < 2) {
        fprintf(stderr, "usage: recipe_probe RECIPE [key=value ...]\n");
        return 2;
    }
    sd_status st = sd_recipe_load(&r, argv[1], (const char *const *)argv + 2, argc - 2, &err);
    if (st == SD_OK) st = sd_recipe_text(&r, &text, &err);
    if (st == SD_OK)
        fputs(text.data, stdout);
    else
        fprintf(stderr, "%s\n", err.message);
    sd_recipe_free(&r);
    sd_buf_free(&text);
    return sd_status_exit_code(st);
}
