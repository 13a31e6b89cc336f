/* Functions of one number, for REAL = double or float. Included by kernels.h, once for each type and processor level.

   Everything up to libm's part at the end is straight-line code with selections, which compilers turn into vector code;
   the errors are those against the exact result, measured by tests/compiled/test_elementary.py. Nothing here may be
   compiled with -ffast-math: infinities, signed zeros, subnormals and NaN come out as NumPy has them. Multiplications
   and additions may be contracted to fused ones; no line depends on it, and none is harmed by it. */

#define SOFTPLUS_LINEAR_FROM ((REAL)20)

static inline REAL NAME(from_bits)(BITS bits) {
    REAL value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline BITS NAME(to_bits)(REAL value) {
    BITS bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

#if REAL_IS_DOUBLE
#define LARGEST DBL_MAX
#define INFINITE HUGE_VAL
#define NOT_A_NUMBER ((REAL)NAN)
#define MANTISSA_BITS 52
#define BIAS 1023
#define ROUNDER 0x1.8p52                     /* x + ROUNDER holds the whole number nearest to x in its lowest bits */
#define WHOLE 0x1p52                         /* its bits, with a whole number in the lowest, are 2^52 + that number */
#define SMALLEST_NORMAL 0x1p-1022
#define FROM_SUBNORMAL 0x1p54
#define FROM_SUBNORMAL_BITS 54
#define LOG2_E 0x1.71547652b82fep+0
#define LN2_HIGH 0x1.62e42fefa3000p-1        /* 41 bits: its product with an exponent is exact */
#define LN2_LOW 0x1.3de6af278ece6p-42
#define EXP_OVERFLOWS 710.0                  /* from here on exp is infinite */
#define EXP_LARGEST 0x1.62e42fefa39efp+9     /* of a larger one exp is infinite */
#define EXP_UNDERFLOWS (-746.0)              /* down to here exp is 0 */
#define EXP_NEARLY_UNDERFLOWS (-700.0)
#define EXPM1_IS_MINUS_1 (-40.0)
#define TANH_IS_1 20.0
#define SQRT_HALF_BITS 0x3fe6a09e667f3bcdULL
#else
#define LARGEST FLT_MAX
#define INFINITE HUGE_VALF
#define NOT_A_NUMBER NAN
#define MANTISSA_BITS 23
#define BIAS 127
#define ROUNDER 0x1.8p23f
#define WHOLE 0x1p23f
#define SMALLEST_NORMAL 0x1p-126f
#define FROM_SUBNORMAL 0x1p25f
#define FROM_SUBNORMAL_BITS 25
#define LOG2_E 0x1.715476p+0f
#define LN2_HIGH 0x1.62e000p-1f              /* 12 bits */
#define LN2_LOW 0x1.0bfbe8p-15f
#define EXP_OVERFLOWS 89.0f
#define EXP_LARGEST 0x1.62e42ep+6f
#define EXP_UNDERFLOWS (-104.0f)
#define EXP_NEARLY_UNDERFLOWS (-80.0f)
#define EXPM1_IS_MINUS_1 (-20.0f)
#define TANH_IS_1 10.0f
#define SQRT_HALF_BITS 0x3f3504f3U
#endif

#define SIGN_BIT ((BITS)1 << (sizeof(REAL) * 8 - 1))

static inline REAL NAME(size)(REAL x) {
    return NAME(from_bits)(NAME(to_bits)(x) & ~SIGN_BIT);
}

/* A size with the sign of x. */
static inline REAL NAME(with_sign)(REAL size, REAL x) {
    return NAME(from_bits)(NAME(to_bits)(size) | (NAME(to_bits)(x) & SIGN_BIT));
}

/* (e^r - 1 - r - r^2/2) / r^3 for |r| <= ln(2)/2, to 2^-60 (2^-31) of e^r: Chebyshev interpolation. */
static inline REAL NAME(exp_tail)(REAL r) {
#if REAL_IS_DOUBLE
    const REAL r2 = r * r, r4 = r2 * r2;
    return (0x1.5555555555555p-3 + r * 0x1.5555555554cb7p-5)
        + r2 * (0x1.1111111110e6ap-7 + r * 0x1.6c16c1738ff55p-10)
        + r4 * ((0x1.a01a01a4b322fp-13 + r * 0x1.a019c9a5652d3p-16)
        + r2 * ((0x1.71de17e40edfep-19 + r * 0x1.2880411bad1aap-22) + r2 * 0x1.af236aac51d05p-26));
#else
    const REAL r2 = r * r;
    return (0x1.555526p-3f + r * 0x1.55553ep-5f) + r2 * (0x1.11d950p-7f + r * 0x1.6cdef2p-10f);
#endif
}

/* A number as the sum of its rounding and what is lost by it. */
typedef struct {
    REAL high, low;
} NAME(Pair);

/* x = n ln(2) + r with |r| <= ln(2)/2: returns r and writes ROUNDER + n. x is within the bounds of exp. */
static inline NAME(Pair) NAME(reduced)(REAL x, REAL *rounded) {
    const REAL t = x * LOG2_E + ROUNDER;
    const REAL n = t - ROUNDER;
    const REAL above = x - n * LN2_HIGH; /* exact */
    const REAL r = above - n * LN2_LOW;
    *rounded = t;
    return (NAME(Pair)){r, (above - r) - n * LN2_LOW};
}

/* e^r - 1 - r for a reduced r. */
static inline REAL NAME(exp_curve)(NAME(Pair) r) {
    const REAL r2 = r.high * r.high;
    return r2 * ((REAL)0.5 + r.high * NAME(exp_tail)(r.high)) + r.low;
}

/* e^r - 1 for a reduced r. */
static inline NAME(Pair) NAME(expm1_reduced)(NAME(Pair) r) {
    const REAL curve = NAME(exp_curve)(r);
    const REAL sum = r.high + curve;
    return (NAME(Pair)){sum, curve - (sum - r.high)};
}

/* 2^n for ROUNDER + n, n an exponent of a normal number. */
static inline REAL NAME(power_of_2)(REAL rounded) {
    return NAME(from_bits)((NAME(to_bits)(rounded) + BIAS) << MANTISSA_BITS);
}

static inline REAL NAME(exp)(REAL x) {
    REAL bounded = x > EXP_OVERFLOWS ? EXP_OVERFLOWS : x;
    bounded = bounded < EXP_UNDERFLOWS ? EXP_UNDERFLOWS : bounded;
    REAL rounded;
    const NAME(Pair) r = NAME(reduced)(bounded, &rounded);
    const REAL near = 1 + r.high;
    const REAL value = near + ((r.high - (near - 1)) + NAME(exp_curve)(r));
    /* In two steps at the ends, where 2^n alone is infinite or subnormal. */
    const REAL shift = bounded < EXP_NEARLY_UNDERFLOWS ? (REAL)64 : (bounded > 0 ? (REAL)-1 : (REAL)0);
    const REAL back = bounded < EXP_NEARLY_UNDERFLOWS ? (REAL)0x1p-64 : (bounded > 0 ? (REAL)2 : (REAL)1);
    return value * NAME(power_of_2)(rounded + shift) * back;
}

/* e^x - 1 for x <= 0, and something else above. */
static inline REAL NAME(expm1_below_0)(REAL x) {
    const REAL bounded = x < EXPM1_IS_MINUS_1 ? EXPM1_IS_MINUS_1 : x;
    REAL rounded;
    const NAME(Pair) r = NAME(reduced)(bounded, &rounded);
    const REAL scale = NAME(power_of_2)(rounded);
    const NAME(Pair) p = NAME(expm1_reduced)(r);
    const REAL value = (scale - 1) + scale * p.high;
    return x == 0 ? x : value;
}

/* (e^2x - 1) / (e^2x + 1), both from e^2x - 1 = 2^n - 1 + 2^n (e^r - 1), which does not cancel. What their roundings
   lose is put back: without that the error is 2.8 units in the last place. */
static inline REAL NAME(tanh)(REAL x) {
    const REAL size = NAME(size)(x);
    const REAL twice = size > TANH_IS_1 ? 2 * TANH_IS_1 : 2 * size;
    REAL rounded;
    const NAME(Pair) r = NAME(reduced)(twice, &rounded);
    const REAL scale = NAME(power_of_2)(rounded);
    const NAME(Pair) p = NAME(expm1_reduced)(r);
    const REAL high = scale * p.high, low = scale * p.low;
    const REAL below = scale - 1, above = scale + 1;
    const REAL numerator = below + high, denominator = above + high;
    const REAL lost_above = (high - (numerator - below)) + low;
    const REAL lost_below = ((high - (denominator - above)) + low) + (1 - (above - scale));
#if LEVEL_HAS_FMA
    const REAL inverse = 1 / denominator;
    const REAL near = numerator * inverse;
    const REAL lost = FMA(-near, denominator, numerator) + (lost_above - near * lost_below);
    const REAL value = near + lost * inverse;
#else
    const REAL near = numerator / denominator;
    const REAL value = near + (lost_above - near * lost_below) / denominator;
#endif
    return NAME(with_sign)(value, x);
}

/* 1 / (1 + e^a), as 1/2 / (1/2 + 2^(n-1) + 2^(n-1) (e^r - 1)): that is sigmoid(-a). Where e^a is infinite it is 0, as
   that of NumPy's functions is. */
static inline REAL NAME(sigmoid_of_negated)(REAL a) {
    REAL bounded = a > EXP_LARGEST ? EXP_LARGEST : a;
    bounded = bounded < EXPM1_IS_MINUS_1 ? EXPM1_IS_MINUS_1 : bounded;
    REAL rounded;
    const NAME(Pair) r = NAME(reduced)(bounded, &rounded);
    const REAL half = NAME(power_of_2)(rounded - 1);
    const NAME(Pair) p = NAME(expm1_reduced)(r);
    const REAL high = half * p.high, low = half * p.low;
    const REAL above = (REAL)0.5 + half;
    const REAL denominator = above + high;
    const REAL lost = ((high - (denominator - above)) + low) + ((REAL)0.5 - (above - half));
    const REAL inverse = 1 / denominator;
    const REAL value = (REAL)0.5 * (inverse - inverse * (inverse * lost));
    return a > EXP_LARGEST ? 0 : value;
}

static inline REAL NAME(sigmoid)(REAL a) {
    return NAME(sigmoid_of_negated)(-a);
}

/* log x = k ln(2) + log(1 + f), sqrt(1/2) <= 1 + f < sqrt(2), by the series of 2 atanh(f / (2 + f)): fdlibm's e_log.c
   and e_logf.c (Sun Microsystems 1993), the coefficients theirs. */
static inline REAL NAME(log)(REAL x) {
    const REAL up = x < SMALLEST_NORMAL ? FROM_SUBNORMAL : (REAL)1;
    const BITS bits = NAME(to_bits)(x * up);
    /* k + BIAS + 1, taken from the bits without a signed shift, which not all processors have for vectors. */
    const BITS raised = (bits - SQRT_HALF_BITS + ((BITS)(BIAS + 1) << MANTISSA_BITS)) >> MANTISSA_BITS;
    const REAL f = NAME(from_bits)(bits - ((raised - (BIAS + 1)) << MANTISSA_BITS)) - 1;
    const REAL down = x < SMALLEST_NORMAL ? (REAL)(BIAS + 1 + FROM_SUBNORMAL_BITS) : (REAL)(BIAS + 1);
    const REAL k = (NAME(from_bits)(raised | NAME(to_bits)(WHOLE)) - WHOLE) - down;
    const REAL s = f / (2 + f), z = s * s;
#if REAL_IS_DOUBLE
    const REAL w = z * z;
    const REAL tail = w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01))
        + z * (6.666666666666735130e-01 + w * (2.857142874366239149e-01
        + w * (1.818357216161805012e-01 + w * 1.479819860510511658e-01)));
#else
    const REAL w = z * z;
    const REAL tail = w * (0x1.999c26p-2f + w * 0x1.f13c4cp-3f) + z * (0x1.555554p-1f + w * 0x1.23d3dcp-2f);
#endif
    const REAL half_square = (REAL)0.5 * f * f;
    const REAL finite = k * LN2_HIGH - ((half_square - (s * (half_square + tail) + k * LN2_LOW)) - f);
    const REAL positive = x > LARGEST ? x : (x == 0 ? -INFINITE : finite);
    return x < 0 ? NOT_A_NUMBER : (x != x ? x : positive);
}

/* log(1 + e^a) = log(s) + c / s with s = 1 + e^a rounded and c what that lost. */
static inline REAL NAME(log_1_plus_exp)(REAL a) {
    const REAL e = NAME(exp)(a);
    const REAL s = 1 + e;
    const REAL lost = e > 1 ? 1 - (s - e) : e - (s - 1);
    return NAME(log)(s) + lost / s;
}

/* log(1 + e^a), and a itself above 20. */
static inline REAL NAME(softplus)(REAL a) {
    const REAL value = NAME(log_1_plus_exp)(a > SOFTPLUS_LINEAR_FROM ? SOFTPLUS_LINEAR_FROM : a);
    return a > SOFTPLUS_LINEAR_FROM ? a : value;
}

static inline REAL NAME(maximum)(REAL x, REAL y) {
    return x > y || x != x ? x : y;
}

static inline REAL NAME(minimum)(REAL x, REAL y) {
    return x < y || x != x ? x : y;
}

static inline REAL NAME(clipped)(REAL x, REAL low, REAL high) {
    return NAME(minimum)(NAME(maximum)(x, low), high);
}

/* log(1 / (1 + e^-a)): of a positive a the tail alone is left, of a negative one two terms of the same sign. */
static inline REAL NAME(log_sigmoid)(REAL a) {
    return NAME(minimum)(a, 0) - NAME(log_1_plus_exp)(-NAME(size)(a));
}

static inline REAL NAME(elu)(REAL x) {
    const REAL below = NAME(expm1_below_0)(x);
    return x > 0 ? x : below;
}

static inline REAL NAME(selu)(REAL x) {
    const REAL below = (REAL)1.6732632423543772 * NAME(expm1_below_0)(x);
    return (REAL)1.0507009873554805 * (x > 0 ? x : below);
}

static inline REAL NAME(softplus_slope)(REAL x) {
    const REAL slope = NAME(sigmoid)(x);
    return x > SOFTPLUS_LINEAR_FROM ? 1 : slope;
}

static inline REAL NAME(normal_density)(REAL x) {
    return NAME(exp)((REAL)-0.5 * x * x) * (REAL)0.3989422804014327;
}

/* What follows calls the C library, number by number: as exact as that is, in general to one unit in the last place.
   The error function is computed in double, as gradcli.language.functions does it. */

static inline REAL NAME(erf)(REAL x) {
    return (REAL)erf((double)x);
}

static inline REAL NAME(normal_cdf)(REAL x) {
    return (NAME(erf)((REAL)0.7071067811865476 * x) + 1) * (REAL)0.5;
}

static inline REAL NAME(sin)(REAL x) {
    return LIBM(sin)(x);
}

static inline REAL NAME(cos)(REAL x) {
    return LIBM(cos)(x);
}

static inline REAL NAME(power)(REAL x, REAL y) {
    return LIBM(pow)(x, y);
}

/* x 2^e, rounded once. */
static inline REAL NAME(ldexp)(REAL x, int32_t e) {
    if (e < 1 - BIAS || e > BIAS) {
        return LIBM(ldexp)(x, e);
    }
    return x * NAME(from_bits)((BITS)(e + BIAS) << MANTISSA_BITS);
}
