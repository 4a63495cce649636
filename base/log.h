// Lines for people, on standard error. Results never go through here.
#pragma once

typedef enum { SD_LOG_ERROR, SD_LOG_WARN, SD_LOG_INFO, SD_LOG_DEBUG } sd_log_level;

/// One line, "specdec: <message>"; levels above the set one are dropped. Thread-safe. The default
/// is SD_LOG_INFO.
void sd_log(sd_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void sd_log_set_level(sd_log_level level);
