// The status page with its chat box: decode/serve/page.html, made an array by the build.
#pragma once

#include <stddef.h>

extern const unsigned char sd_page[];
extern const size_t sd_page_len;
