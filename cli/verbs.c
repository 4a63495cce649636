#include "cli/verbs.h"

#define SD_VERB_ROW(name, args, help) {#name, args, help, sd_verb_##name},
const sd_verb sd_verbs[] = {SD_VERB_LIST(SD_VERB_ROW){NULL, NULL, NULL, NULL}};
