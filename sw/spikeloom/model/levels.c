/* Norm and NI-LIF levels on the CPU, forward and backward; the meaning is `neurons.Neurons`.
 *
 * x, out and gradients are float [n, c], everything per channel float [c]. u = a x + b; out = unit * floor(clamp(u, low, level) + 1/2).
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

/* Mean and variance of each channel: two passes, sums of BLOCK rows at a time so that float is exact enough. */
#define BLOCK 64

void moments(const float *restrict x, int64_t n, int64_t c, float *restrict mean, float *restrict var, float *restrict part) {
    memset(mean, 0, c * sizeof(float));
    memset(var, 0, c * sizeof(float));
    for (int64_t from = 0; from < n; from += BLOCK) {
        int64_t to = from + BLOCK < n ? from + BLOCK : n;
        memset(part, 0, c * sizeof(float));
        for (int64_t i = from; i < to; i++)
            for (int64_t j = 0; j < c; j++) part[j] += x[i * c + j];
        for (int64_t j = 0; j < c; j++) mean[j] += part[j];
    }
    for (int64_t j = 0; j < c; j++) mean[j] /= (float)n;
    for (int64_t from = 0; from < n; from += BLOCK) {
        int64_t to = from + BLOCK < n ? from + BLOCK : n;
        memset(part, 0, c * sizeof(float));
        for (int64_t i = from; i < to; i++)
            for (int64_t j = 0; j < c; j++) {
                float d = x[i * c + j] - mean[j];
                part[j] += d * d;
            }
        for (int64_t j = 0; j < c; j++) var[j] += part[j];
    }
    for (int64_t j = 0; j < c; j++) var[j] /= (float)n;
}

void levels_forward(const float *restrict x, const float *restrict a, const float *restrict b, const float *restrict low,
                    const float *restrict level, const float *restrict unit, int64_t n, int64_t c, float *restrict out) {
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < c; j++) {
            float u = a[j] * x[i * c + j] + b[j];
            u = u > low[j] ? u : low[j];
            u = u < level[j] ? u : level[j];
            out[i * c + j] = floorf(u + 0.5f) * unit[j];
        }
}

/* h = gradient of u; sums over rows of h and of h (x - mean) a. With `moving` the mean and the variance moved with x. */
void levels_backward(const float *restrict grad_out, const float *restrict x, const float *restrict a, const float *restrict b,
                     const float *restrict mean, const float *restrict low, const float *restrict level,
                     const float *restrict unit, const float *restrict inverse_square_gain, int64_t moving, int64_t n,
                     int64_t c, float *restrict grad_x, float *restrict sum, float *restrict weighted) {
    memset(sum, 0, c * sizeof(float));
    memset(weighted, 0, c * sizeof(float));
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < c; j++) {
            float u = a[j] * x[i * c + j] + b[j];
            float h = u > low[j] - 0.5f && u < level[j] + 0.5f ? grad_out[i * c + j] * unit[j] : 0.f;
            grad_x[i * c + j] = h;
            sum[j] += h;
            weighted[j] += h * (x[i * c + j] - mean[j]) * a[j];
        }
    float share = moving ? 1.f / (float)n : 0.f;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < c; j++) {
            float centred = (x[i * c + j] - mean[j]) * a[j];
            float h = grad_x[i * c + j] - share * (sum[j] + centred * inverse_square_gain[j] * weighted[j]);
            grad_x[i * c + j] = a[j] * h;
        }
}
