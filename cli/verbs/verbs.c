#include "cli/verbs.h"

#define SD_VERB_THERE(name, args, help) {#name, args, help, NULL},
#define SD_VERB_HERE(name, args, help) {#name, args, help, sd_verb_##name},
#ifdef SPECDEC_TUNING
#define SD_VERB_ROWS SD_VERB_LIST(SD_VERB_THERE, SD_VERB_HERE, SD_VERB_HERE)
#else
#define SD_VERB_ROWS SD_VERB_LIST(SD_VERB_HERE, SD_VERB_THERE, SD_VERB_HERE)
#endif

const sd_verb sd_verbs[] = {SD_VERB_ROWS{NULL, NULL, NULL, NULL}};
