/* The elementwise operations: one list, from which the loops, the table of kernels and the names come.

   ONE(name, value of x), TWO(name, value of x and y). What gradcli.language.functions calls by a name is here under
   the same name, with the same branches and conventions. */

#define ONE_OPERAND(ONE)                                                                                              \
    ONE(copy, x)                                                                                                      \
    ONE(identity, x)                                                                                                  \
    ONE(negative, -x)                                                                                                 \
    ONE(reciprocal, 1 / x)                                                                                            \
    ONE(square, x * x)                                                                                                \
    ONE(abs, NAME(size)(x))                                                                                           \
    ONE(sqrt, LIBM(sqrt)(x))                                                                                          \
    ONE(exp, NAME(exp)(x))                                                                                            \
    ONE(log, NAME(log)(x))                                                                                            \
    ONE(tanh, NAME(tanh)(x))                                                                                          \
    ONE(sigmoid, NAME(sigmoid)(x))                                                                                    \
    ONE(sigmoid_of_negated, NAME(sigmoid_of_negated)(x))                                                              \
    ONE(relu, NAME(maximum)(x, 0))                                                                                    \
    ONE(leaky_relu, NAME(maximum)(x, (REAL)0.01 * x))                                                                 \
    ONE(elu, NAME(elu)(x))                                                                                            \
    ONE(selu, NAME(selu)(x))                                                                                          \
    ONE(silu, x * NAME(sigmoid)(x))                                                                                   \
    ONE(gelu, x * NAME(normal_cdf)(x))                                                                                \
    ONE(softplus, NAME(softplus)(x))                                                                                  \
    ONE(log_sigmoid, NAME(log_sigmoid)(x))                                                                            \
    ONE(softsign, x / (1 + NAME(size)(x)))                                                                            \
    ONE(hard_sigmoid, NAME(clipped)(x * (REAL)(1.0 / 6.0) + (REAL)0.5, 0, 1))                                         \
    ONE(hard_tanh, NAME(clipped)(x, -1, 1))                                                                           \
    ONE(erf, NAME(erf)(x))                                                                                            \
    ONE(sin, NAME(sin)(x))                                                                                            \
    ONE(cos, NAME(cos)(x))                                                                                            \
    ONE(_positive, x > 0 ? (REAL)1 : (REAL)0)                                                                         \
    ONE(_nonpositive, x <= 0 ? (REAL)1 : (REAL)0)                                                                     \
    ONE(_sign, x > 0 ? (REAL)1 : (x < 0 ? (REAL)-1 : (x == 0 ? (REAL)0 : x)))                                         \
    ONE(_within_1, NAME(size)(x) < 1 ? (REAL)1 : (REAL)0)                                                             \
    ONE(_within_3, NAME(size)(x) < 3 ? (REAL)1 : (REAL)0)                                                             \
    ONE(_negative_part, NAME(minimum)(x, 0))                                                                          \
    ONE(_normal_cdf, NAME(normal_cdf)(x))                                                                             \
    ONE(_normal_density, NAME(normal_density)(x))                                                                     \
    ONE(_softplus_slope, NAME(softplus_slope)(x))

#define TWO_OPERANDS(TWO)                                                                                             \
    TWO(add, x + y)                                                                                                   \
    TWO(subtract, x - y)                                                                                              \
    TWO(multiply, x * y)                                                                                              \
    TWO(divide, x / y)                                                                                                \
    TWO(maximum, NAME(maximum)(x, y))                                                                                 \
    TWO(minimum, NAME(minimum)(x, y))                                                                                 \
    TWO(greater, x > y ? (REAL)1 : (REAL)0)                                                                           \
    TWO(greater_equal, x >= y ? (REAL)1 : (REAL)0)                                                                    \
    TWO(equal, x == y ? (REAL)1 : (REAL)0)
