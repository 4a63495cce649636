// What a completion's or a chat's answer says, in a form in which two answers can be compared.
#pragma once

#include "base/memory.h"

/// The bytes of a whole answer from "choices" through "usage" but for what its prefix cache had,
/// malloc'ed; NULL: none are there.
char *answer_bytes(const sd_buf *body);
/// Texts, logprobs, ends and usage of an answer, malloc'ed. The pieces of a stream are put together;
/// NULL when it has an error or no end.
char *answer_meaning_of_whole(const sd_buf *body);
char *answer_meaning_of_stream(const sd_buf *body);
