/* The integer model of a WD-Spikingformer as a plain C loop with row skip: what a processor does with the same tokens.

   Not tuned by hand: one thread per sequence, loops that a compiler turns into vectors. Decoders with NI-LIF neurons, one
   time step, winner-take-all attention and the membrane residual. Weights are bytes whatever their width in the image. */

#define _POSIX_C_SOURCE 200809L
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST_WINNERS = 8 };

typedef struct {
    const int8_t *weight;       /* [n_in][n_out] */
    const int32_t *bias;        /* [n_out], or null */
    const uint8_t *shift;       /* [n_out], or null */
} Matrix;

typedef struct {
    int32_t levels;             /* thresholds of each channel */
    const int32_t *threshold;   /* [levels][channels]; INT32_MAX: none */
    const int8_t *low;          /* [channels]: level below the first threshold */
} Neurons;

typedef struct {
    Neurons in, qkv, attn, mid, up;
    Matrix projection, out, first, second;
} Layer;

typedef struct {
    int32_t vocabulary, context, width, layers, heads, hidden, top_k, embed_shift, overlap;
    int32_t gather_shift[MOST_WINNERS];
    const int32_t *recency;     /* [heads]; 31: no bias */
    const int8_t *embedding;    /* [vocabulary][width] */
    const int8_t *position;     /* [context][width], or null */
    const Layer *layer;
    Neurons final;
    Matrix head;
} Model;

typedef struct {
    int32_t *acc;               /* sums of the widest operator */
    int16_t *residual;
    int8_t *spikes, *next;
    uint64_t *keys;             /* [layer][position][head][words] */
    int8_t *values;             /* [layer][position][width] */
} State;

static int words_of(const Model *m) { return (m->width / m->heads + 63) / 64; }

static void fire(const Neurons *n, int channels, const int32_t *acc, int8_t *spikes) {
    memcpy(spikes, n->low, channels);
    for (int d = 0; d < n->levels; d++) {
        const int32_t *threshold = n->threshold + (size_t)d * channels;
        for (int c = 0; c < channels; c++) spikes[c] += acc[c] >= threshold[c];
    }
}

static void linear(const Matrix *w, int n_in, int n_out, const int8_t *spikes, int32_t *acc) {
    memset(acc, 0, n_out * sizeof *acc);
    for (int i = 0; i < n_in; i++) {
        if (!spikes[i]) continue;
        const int16_t level = spikes[i];
        const int8_t *row = w->weight + (size_t)i * n_out;
        for (int c = 0; c < n_out; c++) acc[c] += (int16_t)(level * row[c]);
    }
}

static int16_t saturated(int32_t x) { return x > 32767 ? 32767 : x < -32768 ? -32768 : x; }

static void add(const Matrix *w, int width, const int32_t *acc, int16_t *residual) {
    for (int c = 0; c < width; c++) {
        const int32_t half = w->shift[c] ? 1 << (w->shift[c] - 1) : 0;
        residual[c] = saturated(residual[c] + ((acc[c] + w->bias[c] + half) >> w->shift[c]));
    }
}

static void widen(const int16_t *from, int channels, int32_t *acc) {
    for (int c = 0; c < channels; c++) acc[c] = from[c];
}

/* Winners by (score - recency bias, recency), best first; their values added with the shift of their rank. */
static void attend(const Model *m, const State *s, int layer, int position, const int8_t *query, int32_t *acc) {
    const int size = m->width / m->heads, words = words_of(m);
    memset(acc, 0, m->width * sizeof *acc);
    for (int h = 0; h < m->heads; h++) {
        uint64_t q[16] = {0};
        for (int c = 0; c < size; c++) q[c / 64] |= (uint64_t)query[h * size + c] << c % 64;
        int32_t score[MOST_WINNERS], where[MOST_WINNERS], found = 0;
        for (int j = 0; j <= position; j++) {
            const uint64_t *key = s->keys + (((size_t)layer * m->context + j) * m->heads + h) * words;
            int32_t raw = 0;
            for (int n = 0; n < words; n++) raw += __builtin_popcountll(q[n] & key[n]);
            if (m->overlap && !raw) continue;
            const int32_t biased = raw - ((position - j) >> m->recency[h]);
            int at = found < m->top_k ? found : m->top_k;
            while (at && biased >= score[at - 1]) at--;
            if (at == m->top_k) continue;
            if (found < m->top_k) found++;
            for (int n = found - 1; n > at; n--) score[n] = score[n - 1], where[n] = where[n - 1];
            score[at] = biased, where[at] = j;
        }
        for (int n = 0; n < found; n++) {
            const int8_t *value = s->values + ((size_t)layer * m->context + where[n]) * m->width + h * size;
            for (int c = 0; c < size; c++) acc[h * size + c] += value[c] * (1 << m->gather_shift[n]);
        }
    }
}

static void step(const Model *m, State *s, int token, int position) {
    const int d = m->width, f = m->hidden, size = d / m->heads, words = words_of(m);
    for (int c = 0; c < d; c++) {
        int32_t x = m->embedding[(size_t)token * d + c] + (m->position ? m->position[(size_t)position * d + c] : 0);
        s->residual[c] = saturated(x * (1 << m->embed_shift));
    }
    for (int n = 0; n < m->layers; n++) {
        const Layer *layer = m->layer + n;
        widen(s->residual, d, s->acc);
        fire(&layer->in, d, s->acc, s->spikes);
        linear(&layer->projection, d, 3 * d, s->spikes, s->acc);
        fire(&layer->qkv, 3 * d, s->acc, s->next);
        uint64_t *keys = s->keys + ((size_t)n * m->context + position) * m->heads * words;
        memset(keys, 0, m->heads * words * sizeof *keys);
        for (int c = 0; c < d; c++) keys[c / size * words + c % size / 64] |= (uint64_t)s->next[d + c] << c % size % 64;
        memcpy(s->values + ((size_t)n * m->context + position) * d, s->next + 2 * d, d);
        attend(m, s, n, position, s->next, s->acc);
        fire(&layer->attn, d, s->acc, s->spikes);
        linear(&layer->out, d, d, s->spikes, s->acc);
        add(&layer->out, d, s->acc, s->residual);
        widen(s->residual, d, s->acc);
        fire(&layer->mid, d, s->acc, s->spikes);
        linear(&layer->first, d, f, s->spikes, s->acc);
        fire(&layer->up, f, s->acc, s->spikes);
        linear(&layer->second, f, d, s->spikes, s->acc);
        add(&layer->second, d, s->acc, s->residual);
    }
    widen(s->residual, d, s->acc);
    fire(&m->final, d, s->acc, s->spikes);
    linear(&m->head, d, m->vocabulary, s->spikes, s->acc);
    for (int c = 0; c < m->vocabulary; c++) s->acc[c] += m->head.bias[c];
}

/* Logits of every token, [n][vocabulary], where `logits` is not null. Returns the processor time of this thread in seconds, or
   a negative number where memory ran out. */
double decode(const Model *m, const int32_t *tokens, int n, int32_t *logits) {
    size_t widest = m->vocabulary > m->hidden ? m->vocabulary : m->hidden;
    if (widest < (size_t)3 * m->width) widest = 3 * m->width;
    const size_t cached = (size_t)m->layers * m->context;
    State s = {malloc(widest * sizeof *s.acc), malloc(m->width * sizeof *s.residual), malloc(widest), malloc(widest),
               malloc(cached * m->heads * words_of(m) * sizeof *s.keys), malloc(cached * m->width)};
    double seconds = -1;
    if (s.acc && s.residual && s.spikes && s.next && s.keys && s.values) {
        struct timespec begin, end;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
        for (int i = 0; i < n; i++) {
            step(m, &s, tokens[i], i);
            if (logits) memcpy(logits + (size_t)i * m->vocabulary, s.acc, m->vocabulary * sizeof *logits);
        }
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &end);
        seconds = (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec);
    }
    free(s.acc), free(s.residual), free(s.spikes), free(s.next), free(s.keys), free(s.values);
    return seconds;
}
