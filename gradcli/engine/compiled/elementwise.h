/* Loops over the numbers of elementwise calls. A kernel does the two inner axes, of which the last one is contiguous, or
   of length 1, in the output, and in inputs that are not one number along it; interpreter.c brings others to that. */

/* A statement for each row, with the addresses of its operands at the row in `to` and `from`. Mostly there is one row,
   and its inner axis is short: the strides are looked up when they are needed. */
#define EACH_ROW                                                                                                      \
    char *to = at[0];                                                                                                 \
    const char *from[OPERANDS - 1] = {at[1], at[2], at[3], at[4]};                                                    \
    for (int64_t row = call->shape[MIDDLE]; row > 0; row--, to += call->stride[0][MIDDLE],                            \
                 from[0] += call->stride[1][MIDDLE], from[1] += call->stride[2][MIDDLE],                              \
                 from[2] += call->stride[3][MIDDLE], from[3] += call->stride[4][MIDDLE])

#define ONE(name, value)                                                                                              \
    static void NAME(name##_contiguous)(const Call *call, char *const *at) {                                          \
        const int64_t n = call->shape[INNER];                                                                         \
        EACH_ROW {                                                                                                    \
            REAL *out = (REAL *)to;                                                                           \
            const REAL *first = (const REAL *)from[0];                                                             \
            INDEPENDENT for (int64_t i = 0; i < n; i++) {                                                             \
                const REAL x = first[i];                                                                              \
                out[i] = value;                                                                                       \
            }                                                                                                         \
        }                                                                                                             \
    }
ONE_OPERAND(ONE)
#undef ONE

static void NAME(fill)(const Call *call, char *const *at) {
    const int64_t n = call->shape[INNER];
    EACH_ROW {
        REAL *out = (REAL *)to;
        const REAL x = *(const REAL *)from[0];
        INDEPENDENT for (int64_t i = 0; i < n; i++) {
            out[i] = x;
        }
    }
}

#define TWO_LOOP(X, Y, value)                                                                                         \
    const int64_t n = call->shape[INNER];                                                                             \
    EACH_ROW {                                                                                                        \
        REAL *out = (REAL *)to;                                                                               \
        const REAL *first = (const REAL *)from[0], *second = (const REAL *)from[1];                             \
        const REAL first_number = *first, second_number = *second;                                                    \
        (void)first_number;                                                                                           \
        (void)second_number;                                                                                          \
        INDEPENDENT for (int64_t i = 0; i < n; i++) {                                                                 \
            const REAL x = X, y = Y;                                                                                  \
            out[i] = value;                                                                                           \
        }                                                                                                             \
    }

#define TWO(name, value)                                                                                              \
    static void NAME(name##_contiguous)(const Call *call, char *const *at) {                                          \
        TWO_LOOP(first[i], second[i], value)                                                                          \
    }                                                                                                                 \
    static void NAME(name##_first_number)(const Call *call, char *const *at) {                                        \
        TWO_LOOP(first_number, second[i], value)                                                                      \
    }                                                                                                                 \
    static void NAME(name##_second_number)(const Call *call, char *const *at) {                                       \
        TWO_LOOP(first[i], second_number, value)                                                                      \
    }
TWO_OPERANDS(TWO)
#undef TWO
#undef TWO_LOOP

static void NAME(any_power)(const Call *call, char *const *at) {
    const int64_t n = call->shape[INNER];
    EACH_ROW {
        char *out = to;
        const char *first = from[0], *second = from[1];
        for (int64_t i = 0; i < n; i++) {
            *(REAL *)out = NAME(power)(*(const REAL *)first, *(const REAL *)second);
            out += call->stride[0][INNER];
            first += call->stride[1][INNER];
            second += call->stride[2][INNER];
        }
    }
}

/* x to one power: those that derivatives, squares and roots are made of need no logarithm. */
static void NAME(one_power)(const Call *call, char *const *at) {
    const int64_t n = call->shape[INNER];
    EACH_ROW {
        REAL *out = (REAL *)to;
        const REAL *first = (const REAL *)from[0];
        const REAL y = *(const REAL *)from[1];
        if (y == 2) {
            INDEPENDENT for (int64_t i = 0; i < n; i++) {
                out[i] = first[i] * first[i];
            }
        } else if (y == 3) {
            INDEPENDENT for (int64_t i = 0; i < n; i++) {
                out[i] = first[i] * first[i] * first[i];
            }
        } else if (y == -1) {
            INDEPENDENT for (int64_t i = 0; i < n; i++) {
                out[i] = 1 / first[i];
            }
        } else if (y == -2) {
            INDEPENDENT for (int64_t i = 0; i < n; i++) {
                const REAL inverse = 1 / first[i];
                out[i] = inverse * inverse;
            }
        } else if (y == (REAL)0.5) {
            INDEPENDENT for (int64_t i = 0; i < n; i++) {
                out[i] = LIBM(sqrt)(first[i]);
            }
        } else {
            for (int64_t i = 0; i < n; i++) {
                out[i] = NAME(power)(first[i], y);
            }
        }
    }
}

static void NAME(ldexp_strided)(const Call *call, char *const *at) {
    const int64_t n = call->shape[INNER];
    EACH_ROW {
        char *out = to;
        const char *first = from[0], *second = from[1];
        const int32_t exponent = *(const int32_t *)second;
        if (call->stride[2][INNER] == 0 && exponent >= 1 - BIAS && exponent <= BIAS) {
            const REAL factor = NAME(ldexp)(1, exponent);
            for (int64_t i = 0; i < n; i++, out += call->stride[0][INNER], first += call->stride[1][INNER]) {
                *(REAL *)out = *(const REAL *)first * factor;
            }
            continue;
        }
        for (int64_t i = 0; i < n; i++) {
            *(REAL *)out = NAME(ldexp)(*(const REAL *)first, *(const int32_t *)second);
            out += call->stride[0][INNER];
            first += call->stride[1][INNER];
            second += call->stride[2][INNER];
        }
    }
}

/* x y + z, rounded once where the level can. The compiler would do the same unasked, but of a x + b y round whichever
   product it likes. */
static ALWAYS_INLINE REAL NAME(multiplied_and_added)(REAL x, REAL y, REAL z) {
#if LEVEL_HAS_FMA
    return FMA(x, y, z);
#else
    return x * y + z;
#endif
}

/* out = x y + z; z may be out. */
#define MULTIPLY_ADD(suffix, X, Y)                                                                                    \
    static void NAME(multiply_add_##suffix)(const Call *call, char *const *at) {                                      \
        const int64_t n = call->shape[INNER];                                                                         \
        EACH_ROW {                                                                                                    \
            REAL *out = (REAL *)to;                                                                           \
            const REAL *first = (const REAL *)from[0], *second = (const REAL *)from[1];                         \
            const REAL *third = (const REAL *)from[2];                                                             \
            const REAL first_number = *first, second_number = *second;                                                \
            (void)first_number;                                                                                       \
            (void)second_number;                                                                                      \
            INDEPENDENT for (int64_t i = 0; i < n; i++) {                                                             \
                out[i] = NAME(multiplied_and_added)(X, Y, third[i]);                                                  \
            }                                                                                                         \
        }                                                                                                             \
    }
MULTIPLY_ADD(contiguous, first[i], second[i])
MULTIPLY_ADD(first_number, first_number, second[i])
MULTIPLY_ADD(second_number, first[i], second_number)
#undef MULTIPLY_ADD

/* out = a x + b y; any of them may be out. The bits are those of b y written to memory, and a x added to that. In a
   suffix, read as a binary number, bit 0 says that a is one number along the inner axis, and bit 1 that b is. */
#define SUM_OF_PRODUCTS(suffix, A, B)                                                                                 \
    static void NAME(sum_of_products_##suffix)(const Call *call, char *const *at) {                                   \
        const int64_t n = call->shape[INNER];                                                                         \
        EACH_ROW {                                                                                                    \
            REAL *out = (REAL *)to;                                                                                   \
            const REAL *a = (const REAL *)from[0], *x = (const REAL *)from[1];                                        \
            const REAL *b = (const REAL *)from[2], *y = (const REAL *)from[3];                                        \
            const REAL a_number = *a, b_number = *b;                                                                  \
            (void)a_number;                                                                                           \
            (void)b_number;                                                                                           \
            INDEPENDENT for (int64_t i = 0; i < n; i++) {                                                             \
                out[i] = NAME(multiplied_and_added)(A, x[i], B * y[i]);                                               \
            }                                                                                                         \
        }                                                                                                             \
    }
SUM_OF_PRODUCTS(00, a[i], b[i])
SUM_OF_PRODUCTS(01, a_number, b[i])
SUM_OF_PRODUCTS(10, a[i], b_number)
SUM_OF_PRODUCTS(11, a_number, b_number)
#undef SUM_OF_PRODUCTS

/* mask != 0 ? p : q. What is not taken is read, but nothing is computed of it. In a suffix, read as a binary number, bit j
   says that input j is one number along the inner axis. */
#define WHERE(suffix, M, P, Q)                                                                                        \
    static void NAME(where_##suffix)(const Call *call, char *const *at) {                                             \
        const int64_t n = call->shape[INNER];                                                                         \
        EACH_ROW {                                                                                                    \
            REAL *out = (REAL *)to;                                                                                   \
            const REAL *mask = (const REAL *)from[0];                                                                 \
            const REAL *first = (const REAL *)from[1], *second = (const REAL *)from[2];                               \
            const REAL mask_number = *mask, first_number = *first, second_number = *second;                           \
            (void)mask_number;                                                                                        \
            (void)first_number;                                                                                       \
            (void)second_number;                                                                                      \
            INDEPENDENT for (int64_t i = 0; i < n; i++) {                                                             \
                const REAL m = M, p = P, q = Q;                                                                       \
                out[i] = m != 0 ? p : q;                                                                              \
            }                                                                                                         \
        }                                                                                                             \
    }
WHERE(000, mask[i], first[i], second[i])
WHERE(001, mask_number, first[i], second[i])
WHERE(010, mask[i], first_number, second[i])
WHERE(011, mask_number, first_number, second[i])
WHERE(100, mask[i], first[i], second_number)
WHERE(101, mask_number, first[i], second_number)
WHERE(110, mask[i], first_number, second_number)
WHERE(111, mask_number, first_number, second_number)
#undef WHERE

#undef EACH_ROW
