/* Neurons over T time steps, forward and backward: `run_neurons` of neurons.py in one pass over memory.
 *
 * Arrays are float [T, n], n = rows * channels; level is float [channels]. kind: see fast_neurons.KINDS; the surrogate is
 * 0 atan, 1 triangle, 2 window. Backward takes the saved potentials; resets have no gradient. */
#include <math.h>
#include <stdint.h>

#define BLOCK 512

enum { NI_LIF, LIF_HARD, LIF_SOFT, T_LIF, LIF_SUBTRACT, I_LIF };

static inline float levels(float u, float most) {
    float s = floorf(u + 0.5f);
    s = s < 0.f ? 0.f : s;
    return s > most ? most : s;
}

#define SPIKE_HARD (u >= 1.f ? 1.f : 0.f)
#define SPIKE_TERNARY ((u >= 1.f ? 1.f : 0.f) - (u <= -1.f ? 1.f : 0.f))

#define FORWARD(SPIKE, AFTER)                                        \
    for (int64_t i = 0; i < count; i++) {                            \
        float u = v[i] + x[i], s = SPIKE;                            \
        potential[i] = u;                                            \
        spikes[i] = s;                                               \
        v[i] = AFTER;                                                \
    }

void neurons_forward(const float *x0, const float *level, int64_t steps, int64_t rows, int64_t channels, int64_t kind,
                     float beta, float *spikes0, float *potential0) {
    int64_t n = rows * channels;
    float v[BLOCK];
    for (int64_t row = 0; row < rows; row++)
        for (int64_t at = 0; at < channels; at += BLOCK) {
            int64_t count = channels - at < BLOCK ? channels - at : BLOCK, start = row * channels + at;
            const float *most = level + at;
            for (int64_t i = 0; i < count; i++) v[i] = 0.f;
            for (int64_t t = 0; t < steps; t++) {
                const float *restrict x = x0 + t * n + start;
                float *restrict spikes = spikes0 + t * n + start, *restrict potential = potential0 + t * n + start;
                switch (kind) {
                case NI_LIF: FORWARD(levels(u, most[i]), 0.f) break;
                case LIF_HARD: FORWARD(SPIKE_HARD, beta * u * (1.f - s)) break;
                case LIF_SOFT: FORWARD(SPIKE_HARD, beta * (u - s)) break;
                case T_LIF: FORWARD(SPIKE_TERNARY, beta * (u - s)) break;
                case LIF_SUBTRACT: FORWARD(SPIKE_HARD, beta * u - s) break;
                case I_LIF: FORWARD(levels(u, most[i]), beta * (u - s)) break;
                }
            }
        }
}

static inline float slope(float x, int64_t surrogate, float a) {
    if (surrogate == 0) {
        float y = 1.57079632679f * a * x;
        return 0.5f * a / (1.f + y * y);
    }
    float distance = fabsf(x) * a;
    if (surrogate == 1) return distance < 1.f ? a * (1.f - distance) : 0.f;
    return distance < 0.5f ? a : 0.f;
}

#define INSIDE (u > -0.5f && u < most[i] + 0.5f ? 1.f : 0.f)

/* d = dL/dU_t; dL/dx_t = d and dL/dm_{t-1} = d, m = AFTER with the reset held fixed. */
#define BACKWARD(SLOPE, DECAY)                                       \
    for (int64_t i = 0; i < count; i++) {                            \
        float u = potential[i];                                      \
        float d = gradient[i] * (SLOPE) + carried[i] * (DECAY);      \
        out[i] = d;                                                  \
        carried[i] = d;                                              \
    }

#define BINARY(S)                                                                                      \
    switch (kind) {                                                                                    \
    case LIF_HARD: BACKWARD(slope(u - 1.f, S, a), u >= 1.f ? 0.f : beta) break;                        \
    case T_LIF: BACKWARD(slope(u - 1.f, S, a) + slope(-u - 1.f, S, a), beta) break;                    \
    default: BACKWARD(slope(u - 1.f, S, a), beta) break;                                               \
    }

void neurons_backward(const float *gradient0, const float *potential0, const float *level, int64_t steps, int64_t rows,
                      int64_t channels, int64_t kind, float beta, int64_t surrogate, float a, float *out0) {
    int64_t n = rows * channels;
    float carried[BLOCK];
    for (int64_t row = 0; row < rows; row++)
        for (int64_t at = 0; at < channels; at += BLOCK) {
            int64_t count = channels - at < BLOCK ? channels - at : BLOCK, start = row * channels + at;
            const float *most = level + at;
            for (int64_t i = 0; i < count; i++) carried[i] = 0.f;
            for (int64_t t = steps - 1; t >= 0; t--) {
                const float *restrict gradient = gradient0 + t * n + start, *restrict potential = potential0 + t * n + start;
                float *restrict out = out0 + t * n + start;
                if (kind == NI_LIF) { BACKWARD(INSIDE, 0.f) }
                else if (kind == I_LIF) { BACKWARD(INSIDE, beta) }
                else if (surrogate == 0) { BINARY(0) }
                else if (surrogate == 1) { BINARY(1) }
                else { BINARY(2) }
            }
        }
}
