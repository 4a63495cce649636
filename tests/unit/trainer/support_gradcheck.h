// Central differences in random directions, for the double build of the training mathematics.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// The function under test, at x.
typedef double (*gradcheck_fn)(const double *x, void *ctx);

/// Fills with reproducible values, uniform in (-scale, scale).
void gradcheck_fill(double *x, size_t n, uint64_t seed, double scale);
void gradcheck_fill_f32(float *x, size_t n, uint64_t seed, double centre, double scale);

/// The largest relative error of grad . d against (f(x + h d) - f(x - h d)) / 2h, h = 1e-4, over 32
/// random directions of unit length. Relative to the larger of the two or of a hundredth of |grad|
/// (a direction nearly at a right angle to the gradient carries rounding only). x is restored.
double gradcheck_error(double *x, const double *grad, size_t n, gradcheck_fn f, void *ctx);
