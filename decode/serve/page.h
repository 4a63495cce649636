// The page with the chat and the server's state: the files of decode/serve/page/, made one array by the build.
#pragma once

#include <stddef.h>

extern const unsigned char sd_page[];
extern const size_t sd_page_len;
