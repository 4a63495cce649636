// Where drafted tokens come from, for whoever counts or names them.
#pragma once

typedef enum { SD_SOURCE_SUFFIX, SD_SOURCE_CORPUS, SD_SOURCE_MODEL, SD_SOURCE_COUNT } sd_source;
const char *sd_source_name(sd_source s); // "suffix", "index", "draft"

enum { SD_MAX_DRAFT = 48 }; // tokens of one draft
