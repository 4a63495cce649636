// A key of PEFT's rank_pattern and alpha_pattern: a regular expression for the end of a module's
// path, after a dot or from the path's start. Compiled once, matched against every module.
#pragma once

#include "base/status.h"

#include <stdbool.h>

typedef struct sd_module_pattern sd_module_pattern;

/// SD_EFORMAT: key is no regular expression; SD_ENOMEM. The caller, who knows where the key stands,
/// writes the message.
sd_status sd_module_pattern_open(sd_module_pattern **out, const char *key);
void sd_module_pattern_close(sd_module_pattern *p); // NULL is fine

/// *hit <- whether the path ends so. SD_ELIMIT: the key takes too long to match; SD_ENOMEM.
sd_status sd_module_pattern_match(bool *hit, const sd_module_pattern *p, const char *path);
