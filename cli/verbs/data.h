// The parts of `specdec data`.
#pragma once

#include "base/status.h"

sd_status sd_data_prepare(int argc, char **argv, sd_error *err);
sd_status sd_data_inspect(int argc, char **argv, sd_error *err);
sd_status sd_data_stats(int argc, char **argv, sd_error *err);
