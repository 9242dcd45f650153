/* Winner-take-all attention on the CPU, forward and backward; the meaning is `attention.AnnealedWinners`.
 *
 * Rows of `spikes` and `grad_spikes` are [Q | K | V] of `heads` x `d` floats each, rows of `out` and `grad_out` are
 * heads x d; [B, T, .] throughout. `penalty` is int [heads, T], by distance. Queries and keys are binary, so a score
 * is a popcount and the softmax needs exp at integers only: one table per head.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define NONE INT32_MIN
#define LANES 16
#define MOST 8

typedef float vec __attribute__((vector_size(64), aligned(64)));

/* A score that never wins and whose softmax is exactly 0; its composite key stays within 32 bits. */
#define FAR (-(1 << 16))
/* Positions 0..i, rounded up to whole vectors: there are no scalar tails, positions past i score FAR or below. */
#define EACH(j, i) for (int64_t j = 0, j##_end = ((i) / LANES + 1) * LANES; j < j##_end; j++)

/* Everything that one (batch, head) needs. Values and keys as [t][blocks], values also as [d][t / LANES]. */
typedef struct {
    int64_t t, d, blocks, columns, span;
    vec *v, *vt, *k, *gk, *gv, *soft, *mixed, *dw, *q, *g;
    uint32_t *qlow, *qhigh, *klow, *khigh;
    int32_t *score, *key, *penalty;
    float *table;
} Scratch;

static void *take(int64_t count, int64_t size) { return aligned_alloc(64, (count * size + 127) / 64 * 64); }

static Scratch scratch_new(const int32_t *penalty, const float *temperature, int64_t t, int64_t heads, int64_t d) {
    Scratch s = {.t = t, .d = d, .blocks = (d + LANES - 1) / LANES, .columns = (t + LANES - 1) / LANES,
                 .span = 2 * t + 4 * d + 64};
    int64_t rows = t * s.blocks;
    s.v = take(rows, sizeof(vec)); s.k = take(rows, sizeof(vec));
    s.gk = take(rows, sizeof(vec)); s.gv = take(rows, sizeof(vec));
    s.vt = take(d * s.columns, sizeof(vec));
    s.soft = take(s.columns, sizeof(vec)); s.mixed = take(s.columns, sizeof(vec)); s.dw = take(s.columns, sizeof(vec));
    s.q = take(s.blocks, sizeof(vec)); s.g = take(s.blocks, sizeof(vec));
    s.qlow = take(t, 4); s.qhigh = take(t, 4); s.klow = take(s.columns, 64); s.khigh = take(s.columns, 64);
    s.score = take(s.columns, 64); s.key = take(s.columns, 64);
    s.penalty = take(heads * (t + LANES), 4);
    s.table = take(heads * s.span, sizeof(float));
    memset(s.v, 0, rows * sizeof(vec)); memset(s.k, 0, rows * sizeof(vec));
    memset(s.vt, 0, d * s.columns * sizeof(vec));
    memset(s.q, 0, s.blocks * sizeof(vec)); memset(s.g, 0, s.blocks * sizeof(vec));
    for (int64_t h = 0; h < heads; h++) {
        int32_t *row = s.penalty + h * (t + LANES);
        for (int64_t x = 0; x < t; x++) row[x] = penalty[h * t + t - 1 - x];
        for (int64_t x = 0; x < LANES; x++) row[t + x] = -2 * FAR;
        for (int64_t x = 0; x < s.span; x++) s.table[h * s.span + x] = expf(-temperature[h] * (float)x);
        s.table[(h + 1) * s.span - 1] = 0.f;
    }
    memset(s.klow, 0, s.columns * 64); memset(s.khigh, 0, s.columns * 64);
    return s;
}

static void scratch_free(Scratch s) {
    free(s.v); free(s.k); free(s.gk); free(s.gv); free(s.vt); free(s.soft); free(s.mixed); free(s.dw); free(s.q);
    free(s.g); free(s.qlow); free(s.qhigh); free(s.klow); free(s.khigh); free(s.score); free(s.key); free(s.penalty);
    free(s.table);
}

static void pack(const float *x, int64_t stride, int64_t t, int64_t d, uint32_t *low, uint32_t *high) {
    for (int64_t j = 0; j < t; j++) {
        uint64_t word = 0;
        for (int64_t c = 0; c < d; c++) word |= (uint64_t)(x[j * stride + c] > 0.5f) << c;
        low[j] = (uint32_t)word;
        high[j] = (uint32_t)(word >> 32);
    }
}

/* Biased scores of row i into s.score; returns the largest, NONE if no position is eligible. */
static int32_t scores(const Scratch *s, int64_t h, int64_t i, int overlap) {
    const uint32_t *restrict low = s->klow, *restrict high = s->khigh;
    const int32_t *restrict penalty = s->penalty + h * (s->t + LANES) + s->t - 1 - i;
    int32_t *restrict score = s->score, best = NONE;
    uint32_t a = s->qlow[i], b = s->qhigh[i];
    if (s->d > 32 || overlap)
        EACH(j, i) {
            int32_t raw = __builtin_popcount(a & low[j]) + __builtin_popcount(b & high[j]);
            int32_t value = raw || !overlap ? raw - penalty[j] : FAR;
            score[j] = value;
            best = value > best ? value : best;
        }
    else
        EACH(j, i) {
            int32_t value = __builtin_popcount(a & low[j]) - penalty[j];
            score[j] = value;
            best = value > best ? value : best;
        }
    return best > FAR ? best : NONE;
}

/* exp(temperature (score - best)) into s.soft, not yet normalised; returns the sum. */
static float softmax(const Scratch *s, int64_t h, int32_t best, int64_t i) {
    const float *restrict table = s->table + h * s->span;
    const int32_t *restrict score = s->score;
    int32_t last = (int32_t)s->span - 1;
    float *restrict soft = (float *)s->soft, sum = 0.f;
    EACH(j, i) {
        int32_t below = best - score[j];
        float value = table[below < last ? below : last];
        soft[j] = value;
        sum += value;
    }
    return sum;
}

/* Rounds of softmax without the winners before (`attention.ranked_softmax`), from exp(.) in s.soft. Weight of position j is
 * soft[j] times `all`, or `a[r]` where it won rank r; its gradient soft[j] (dw[j] all - b_all), winners alike. */
typedef struct { int64_t n; float all, b_all, a[MOST], b[MOST]; } Rounds;

static Rounds rounds(const Scratch *s, const int32_t *won, const float *rank_weight, int64_t ranks, const float *dw, int64_t i) {
    Rounds f = {0};
    float *soft = (float *)s->soft, e[MOST], z[MOST], inner[MOST], rest = 0.f, pulled = 0.f;
    while (f.n < ranks && won[f.n] >= 0) { e[f.n] = soft[won[f.n]]; soft[won[f.n]] = 0.f; f.n++; }
    EACH(j, i) rest += soft[j];
    if (dw) EACH(j, i) pulled += soft[j] * dw[j];
    for (int64_t r = f.n - 1; r >= 0; r--) {
        soft[won[r]] = e[r];
        z[r] = rest += e[r];
        if (dw) inner[r] = (pulled += e[r] * dw[won[r]]);
    }
    for (int64_t r = 0; r < f.n; r++) {
        float w = z[r] > 1e-30f ? rank_weight[r] / z[r] : 0.f;
        f.a[r] = f.all += w;
        if (dw && w > 0.f) f.b_all += w * inner[r] / z[r];
        f.b[r] = f.b_all;
    }
    return f;
}

static inline __attribute__((always_inline)) void mix_values(const Scratch *s, const float *weight, int64_t i,
                                                             int64_t blocks, vec *out) {
    for (int64_t n = 0; n < blocks; n++) {
        const vec *v = s->v + n;
        vec a0 = {0}, a1 = {0}, a2 = {0}, a3 = {0};
        int64_t j = 0;
        for (; j + 3 <= i; j += 4) {
            a0 += weight[j] * v[j * blocks];
            a1 += weight[j + 1] * v[(j + 1) * blocks];
            a2 += weight[j + 2] * v[(j + 2) * blocks];
            a3 += weight[j + 3] * v[(j + 3) * blocks];
        }
        for (; j <= i; j++) a0 += weight[j] * v[j * blocks];
        out[n] = (a0 + a1) + (a2 + a3);
    }
}

static void pull_values(const Scratch *s, int64_t i) {
    const float *g = (const float *)s->g;
    for (int64_t n = 0; n <= i / LANES; n++) {
        vec a = {0}, b = {0};
        int64_t c = 0;
        for (; c + 1 < s->d; c += 2) {
            a += g[c] * s->vt[c * s->columns + n];
            b += g[c + 1] * s->vt[(c + 1) * s->columns + n];
        }
        if (c < s->d) a += g[c] * s->vt[c * s->columns + n];
        s->dw[n] = a + b;
    }
}

static inline __attribute__((always_inline)) void push_row(const Scratch *s, int64_t i, int64_t blocks,
                                                           int values, vec *gq) {
    const float *dl = (const float *)s->dw, *mixed = (const float *)s->mixed;
    for (int64_t n = 0; n < blocks; n++) {
        vec q = s->q[n], g = s->g[n], a = {0}, b = {0};
        const vec *k = s->k + n;
        vec *gk = s->gk + n, *gv = s->gv + n;
        int64_t j = 0;
        for (; j + 1 <= i; j += 2) {
            int64_t x = j * blocks, y = x + blocks;
            a += dl[j] * k[x];
            gk[x] += dl[j] * q;
            if (values) gv[x] += mixed[j] * g;
            b += dl[j + 1] * k[y];
            gk[y] += dl[j + 1] * q;
            if (values) gv[y] += mixed[j + 1] * g;
        }
        if (j <= i) {
            a += dl[j] * k[j * blocks];
            gk[j * blocks] += dl[j] * q;
            if (values) gv[j * blocks] += mixed[j] * g;
        }
        gq[n] = a + b;
    }
}

void winners_forward(const float *spikes, const int32_t *penalty, const float *temperature, float hardness,
                     const float *rank_weight, int64_t ranks, int64_t batch, int64_t t, int64_t heads, int64_t d,
                     int64_t overlap, int64_t ranked, float *out, int32_t *winners) {
    int64_t width = heads * d, stride = 3 * width;
    Scratch s = scratch_new(penalty, temperature, t, heads, d);
    float *soft = (float *)s.soft;
    for (int64_t b = 0; b < batch; b++)
        for (int64_t h = 0; h < heads; h++) {
            const float *base = spikes + b * t * stride + h * d;
            pack(base, stride, t, d, s.qlow, s.qhigh);
            pack(base + width, stride, t, d, s.klow, s.khigh);
            for (int64_t j = 0; j < t; j++) memcpy(s.v + j * s.blocks, base + 2 * width + j * stride, d * sizeof(float));
            for (int64_t i = 0; i < t; i++) {
                int32_t best = scores(&s, h, i, overlap);
                int32_t *won = winners + ((b * heads + h) * t + i) * ranks;
                vec row[4] = {{0}};
                int32_t *restrict key = s.key;
                const int32_t *restrict score = s.score;
                EACH(j, i) key[j] = score[j] * (int32_t)t + (int32_t)j;
                for (int64_t r = 0; r < ranks; r++) {
                    int32_t top = NONE;
                    EACH(j, i) top = key[j] > top ? key[j] : top;
                    if (top < (FAR / 2) * (int32_t)t) { won[r] = -1; continue; }
                    int64_t j = ((int64_t)top % t + t) % t;
                    key[j] = NONE;
                    won[r] = (int32_t)j;
                    for (int64_t n = 0; n < s.blocks; n++) row[n] += hardness * rank_weight[r] * s.v[j * s.blocks + n];
                }
                if (best != NONE && hardness < 1.f) {
                    vec more[4] = {{0}};
                    float share = (1.f - hardness) / softmax(&s, h, best, i);
                    if (ranked) {
                        Rounds f = rounds(&s, won, rank_weight, ranks, NULL, i);
                        share = 1.f - hardness;
                        for (int64_t r = 0; r < f.n; r++) soft[won[r]] *= f.a[r] / f.all;
                        share *= f.all;
                    }
                    EACH(j, i) soft[j] *= share;
                    if (s.blocks == 1) mix_values(&s, soft, i, 1, more);
                    else mix_values(&s, soft, i, s.blocks, more);
                    for (int64_t n = 0; n < s.blocks; n++) row[n] += more[n];
                }
                memcpy(out + (b * t + i) * width + h * d, row, d * sizeof(float));
            }
        }
    scratch_free(s);
}

void winners_backward(const float *grad_out, const float *spikes, const int32_t *penalty, const float *temperature,
                      float hardness, const float *rank_weight, int64_t ranks, int64_t batch, int64_t t, int64_t heads,
                      int64_t d, int64_t overlap, int64_t ranked, const int32_t *winners, float *grad_spikes,
                      float *grad_temperature) {
    int64_t width = heads * d, stride = 3 * width;
    Scratch s = scratch_new(penalty, temperature, t, heads, d);
    for (int64_t h = 0; h < heads; h++) grad_temperature[h] = 0.f;
    for (int64_t b = 0; b < batch; b++)
        for (int64_t h = 0; h < heads; h++) {
            const float *base = spikes + b * t * stride + h * d;
            float *grad = grad_spikes + b * t * stride + h * d;
            float *vt = (float *)s.vt;
            pack(base, stride, t, d, s.qlow, s.qhigh);
            pack(base + width, stride, t, d, s.klow, s.khigh);
            for (int64_t j = 0; j < t; j++) {
                memcpy(s.k + j * s.blocks, base + width + j * stride, d * sizeof(float));
                for (int64_t c = 0; c < d; c++) vt[c * s.columns * LANES + j] = base[2 * width + j * stride + c];
            }
            memset(s.gk, 0, t * s.blocks * sizeof(vec));
            memset(s.gv, 0, t * s.blocks * sizeof(vec));
            for (int64_t i = 0; i < t; i++) {
                vec gq[4] = {{0}};
                int32_t best = scores(&s, h, i, overlap);
                if (best != NONE) {
                    float norm = 1.f / softmax(&s, h, best, i), inner = 0.f, heat = 0.f;
                    float *restrict soft = (float *)s.soft, *restrict dw = (float *)s.dw, *restrict mixed = (float *)s.mixed;
                    const int32_t *restrict score = s.score;
                    memcpy(s.g, grad_out + (b * t + i) * width + h * d, d * sizeof(float));
                    memcpy(s.q, base + i * stride, d * sizeof(float));
                    pull_values(&s, i);
                    float temper = temperature[h], keep = 1.f - hardness;
                    const int32_t *won = winners + ((b * heads + h) * t + i) * ranks;
                    if (ranked) {
                        Rounds f = rounds(&s, won, rank_weight, ranks, dw, i);
                        float own[MOST], pull[MOST];
                        for (int64_t r = 0; r < f.n; r++) {
                            float e = soft[won[r]];
                            own[r] = keep * e * f.a[r];
                            pull[r] = e * (dw[won[r]] * f.a[r] - f.b[r]);
                        }
                        EACH(j, i) {
                            float dl = soft[j] * (dw[j] * f.all - f.b_all);
                            mixed[j] = keep * soft[j] * f.all;
                            soft[j] = dl;
                        }
                        for (int64_t r = 0; r < f.n; r++) { mixed[won[r]] = own[r]; soft[won[r]] = pull[r]; }
                        EACH(j, i) {
                            heat += soft[j] * (float)score[j];
                            dw[j] = soft[j] * temper;
                        }
                    } else {
                        EACH(j, i) {
                            soft[j] *= norm;
                            inner += soft[j] * dw[j];
                            mixed[j] = keep * soft[j];
                        }
                        EACH(j, i) {
                            float dl = soft[j] * (dw[j] - inner);
                            heat += dl * (float)score[j];
                            dw[j] = dl * temper;
                        }
                    }
                    grad_temperature[h] += heat;
                    for (int64_t r = 0; r < ranks; r++)
                        if (won[r] >= 0) mixed[won[r]] += hardness * rank_weight[r];
                    if (s.blocks == 1 && hardness < 1.f) push_row(&s, i, 1, 1, gq);
                    else if (s.blocks == 1) push_row(&s, i, 1, 0, gq);
                    else push_row(&s, i, s.blocks, 1, gq);
                    if (s.blocks == 1 && hardness >= 1.f)
                        for (int64_t r = 0; r < ranks; r++)
                            if (won[r] >= 0) s.gv[won[r]] += rank_weight[r] * s.g[0];
                }
                memcpy(grad + i * stride, gq, d * sizeof(float));
            }
            for (int64_t j = 0; j < t; j++) {
                memcpy(grad + width + j * stride, s.gk + j * s.blocks, d * sizeof(float));
                memcpy(grad + 2 * width + j * stride, s.gv + j * s.blocks, d * sizeof(float));
            }
        }
    scratch_free(s);
}
