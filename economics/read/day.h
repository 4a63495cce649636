// Days of the calendar, as price files and logs write them.
#pragma once

#include <stdbool.h>

/// Of a month from 1 to 12.
int sd_days_of_month(int year, int month);
/// A day that exists, written as 2026-05-04.
bool sd_is_day(const char *text);
