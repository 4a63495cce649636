// The page with the chat and the server's state: the files of decode/serve/page/, made one array by the build.
#pragma once

#include <stdbool.h>
#include <stddef.h>

extern const unsigned char sd_page[];
extern const size_t sd_page_len;

enum { SD_PAGE_POLICY = 512 };
/// The header line that holds the page to what it is: nothing from elsewhere, and no script but its own, which is
/// named by its hash; what a model's words could bring into the page does not run. False: without memory.
bool sd_page_policy(char out[SD_PAGE_POLICY]);
