// The switch of rounded.c.
#pragma once

#include <stdbool.h>

extern bool products_are_rounded;
