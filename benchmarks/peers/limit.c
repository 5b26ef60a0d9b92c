/* The int8 limit of one core: multiply-adds from registers alone, with the widest instruction that this processor has.
 *
 *     cc -O3 -march=native limit.c -o limit && ./limit 50      prints e.g.: avx512-vnni 489.2
 *
 * For about the given milliseconds of processor time; the best of its slices counts, in 10^9 multiply-adds a second.
 * Matrix units (AMX, SME) are not used: no candidate of this benchmark uses them on the processors it was made for.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__AVX512VNNI__)
#include <immintrin.h>
#define NAME "avx512-vnni"
#define WIDTH 64
typedef __m512i sums;
typedef __m512i bytes;
static sums add(sums c, bytes a, bytes b) { return _mm512_dpbusd_epi32(c, a, b); }
#elif defined(__AVXVNNI__)
#include <immintrin.h>
#define NAME "avx-vnni"
#define WIDTH 32
typedef __m256i sums;
typedef __m256i bytes;
static sums add(sums c, bytes a, bytes b) { return _mm256_dpbusd_avx_epi32(c, a, b); }
#elif defined(__AVX2__)
#include <immintrin.h>
#define NAME "avx2"
#define WIDTH 32
typedef __m256i sums;
typedef __m256i bytes;
static sums add(sums c, bytes a, bytes b) {
    /* b changes with c, or the product would be the same every time and computed once */
    __m256i pairs = _mm256_maddubs_epi16(_mm256_xor_si256(a, c), b);
    return _mm256_add_epi32(c, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#define NAME "neon-dotprod"
#define WIDTH 16
typedef int32x4_t sums;
typedef int8x16_t bytes;
static sums add(sums c, bytes a, bytes b) { return vdotq_s32(c, a, b); }
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#define NAME "neon"
#define WIDTH 16
typedef int32x4_t sums;
typedef int8x16_t bytes;
static sums add(sums c, bytes a, bytes b) {
    int16x8_t pairs = vmull_s8(vget_low_s8(a), vget_low_s8(b));
    return vpadalq_s16(c, vmlal_s8(pairs, vget_high_s8(a), vget_high_s8(b)));
}
#else
#define NAME "plain-c"
#define WIDTH 1
typedef int32_t sums;
typedef int32_t bytes;
static sums add(sums c, bytes a, bytes b) { return c + (int8_t)(a ^ c) * (int8_t)b; }
#endif

#define CHAINS 12 /* enough independent sums to hide the latency of two pipes, few enough to stay in registers */
#define ROUNDS 200000L

#if defined(__AVX512F__)
#define REGISTER "v"
#elif defined(__ARM_NEON)
#define REGISTER "w"
#elif defined(__x86_64__)
#define REGISTER "x"
#else
#define REGISTER "r"
#endif

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The sums are variables of their own: in an array they would be written back to memory in every round. */
static void slice(sums *c, bytes a, bytes b) {
    sums c0 = c[0], c1 = c[1], c2 = c[2], c3 = c[3], c4 = c[4], c5 = c[5];
    sums c6 = c[6], c7 = c[7], c8 = c[8], c9 = c[9], c10 = c[10], c11 = c[11];
    for (long n = 0; n < ROUNDS; n++) {
        __asm__ volatile("" : "+" REGISTER(a)); /* nothing may be moved out of the loop */
        c0 = add(c0, a, b), c1 = add(c1, a, b), c2 = add(c2, a, b), c3 = add(c3, a, b);
        c4 = add(c4, a, b), c5 = add(c5, a, b), c6 = add(c6, a, b), c7 = add(c7, a, b);
        c8 = add(c8, a, b), c9 = add(c9, a, b), c10 = add(c10, a, b), c11 = add(c11, a, b);
    }
    c[0] = c0, c[1] = c1, c[2] = c2, c[3] = c3, c[4] = c4, c[5] = c5;
    c[6] = c6, c[7] = c7, c[8] = c8, c[9] = c9, c[10] = c10, c[11] = c11;
}

int main(int argc, char **argv) {
    double budget = (argc > 1 ? atof(argv[1]) : 50.0) / 1000.0, best = 0.0, start = now();
    sums c[CHAINS];
    bytes a, b;
    memset(&a, argc + 2, sizeof a);
    memset(&b, argc, sizeof b);
    for (int i = 0; i < CHAINS; i++) memset(&c[i], i, sizeof c[i]);
    do {
        double before = now();
        slice(c, a, b);
        double rate = (double)ROUNDS * CHAINS * WIDTH / (now() - before) / 1e9;
        if (rate > best) best = rate;
    } while (now() - start < budget);
    int32_t sums_seen = 0;
    for (int i = 0; i < CHAINS; i++) {
        int32_t first;
        memcpy(&first, &c[i], sizeof first);
        sums_seen ^= first;
    }
    if (sums_seen == 0x7fffffff) fputs(" ", stderr); /* the sums are looked at, so they are computed */
    printf("%s %.1f\n", NAME, best);
    return 0;
}
