/* The int8 limit of one core: multiply-adds from registers alone, with the widest vectors that this processor has and,
 * where it has them, with its matrix tiles (AMX).
 *
 *     cc -O3 -march=native limit.c -o limit && ./limit 50      prints e.g.: avx512-vnni 182.7
 *                                                                           amx-int8 3104.1
 *
 * For about the given milliseconds of processor time each; the best slice counts, in 10^9 multiply-adds a second. The
 * tiles' functions name their own target, so that a compiler that was told nothing of AMX builds them too; what the
 * processor and the system allow is asked when the program runs.
 */
#define _GNU_SOURCE /* for syscall */
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

/* The compilers that know AMX; the tiles are asked for in Linux's way only. */
#if defined(__x86_64__) && defined(__linux__) && \
    ((defined(__clang__) && __clang_major__ >= 12) || (!defined(__clang__) && defined(__GNUC__) && __GNUC__ >= 11))
#define TILES 1
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

/* 10^9 multiply-adds a second with vectors. */
static double vectors(double budget, int seed) {
    double best = 0.0, start = now();
    sums c[CHAINS];
    bytes a, b;
    memset(&a, seed + 2, sizeof a);
    memset(&b, seed, sizeof b);
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
    return best;
}

#if defined(TILES)
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#define REQUEST_PERMISSION 0x1023 /* arch_prctl's ARCH_REQ_XCOMP_PERM: tiles are off until a process asks for them */
#define TILE_DATA 18
#define TILE_MACS (16L * 16 * 64) /* 16 rows and 16 columns of sums over 64 bytes */
#define TILE_CHAINS 6             /* of eight tiles; two hold the factors */
#define TILE_ROUNDS 20000L

/* Whether the processor has int8 tiles (leaf 7: EDX bits 24 and 25) and the system lets this process use them. */
static int have_tiles(void) {
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || (d >> 24 & 3) != 3) return 0;
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

__attribute__((target("amx-tile,amx-int8"))) static double tiles(double budget) {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t bytes_a_row[16];
        uint8_t rows[16];
    } __attribute__((packed, aligned(64))) shape = {.palette = 1};
    static int8_t factors[16 * 64] __attribute__((aligned(64)));
    for (int i = 0; i < 8; i++) shape.bytes_a_row[i] = 64, shape.rows[i] = 16;
    memset(factors, 3, sizeof factors);
    _tile_loadconfig(&shape);
    _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3); _tile_zero(4); _tile_zero(5);
    _tile_loadd(6, factors, 64);
    _tile_loadd(7, factors, 64);
    double best = 0.0, start = now();
    do {
        double before = now();
        for (long n = 0; n < TILE_ROUNDS; n++) {
            _tile_dpbssd(0, 6, 7); _tile_dpbssd(1, 6, 7); _tile_dpbssd(2, 6, 7);
            _tile_dpbssd(3, 6, 7); _tile_dpbssd(4, 6, 7); _tile_dpbssd(5, 6, 7);
        }
        double rate = (double)TILE_ROUNDS * TILE_CHAINS * TILE_MACS / (now() - before) / 1e9;
        if (rate > best) best = rate;
    } while (now() - start < budget);
    _tile_release();
    return best;
}
#endif

int main(int argc, char **argv) {
    double budget = (argc > 1 ? atof(argv[1]) : 50.0) / 1000.0;
    printf("%s %.1f\n", NAME, vectors(budget, argc));
#if defined(TILES)
    if (have_tiles()) printf("amx-int8 %.1f\n", tiles(budget));
#endif
    return 0;
}
