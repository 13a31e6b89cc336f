/* Functions along one axis: sums, largest numbers, norms, softmaxes, their Jacobian products, clipping. The axis is the
   last of the call; the others are walked over, or are MIDDLE, along which tiles of up to TILE numbers are treated
   together where they are contiguous. See gradcli.language.across and gradcli.diagnostics.clipping for the definitions. */

#define TILE MOST_COLUMNS
#define ITEM ((int64_t)sizeof(REAL))

/* The bodies below are compiled with the strides that are usual as constants, for vector code, and once with any:
   `beside`: the numbers along MIDDLE are contiguous, in all operands. `alone`: there is one along MIDDLE, and the axis is
   contiguous. MAIN(j) declares the strides of an operand for which that holds, ANY(j) those of another. */
#define MAIN(j)                                                                                                       \
    char *const base##j = at[j];                                                                                      \
    const int64_t side##j = beside ? ITEM : call->stride[j][MIDDLE];                                                  \
    const int64_t along##j = alone ? ITEM : call->stride[j][INNER]
#define ANY(j)                                                                                                        \
    char *const base##j = at[j];                                                                                      \
    const int64_t side##j = call->stride[j][MIDDLE], along##j = call->stride[j][INNER]
#define AT(j, i, k) (*(REAL *)(base##j + (i)*side##j + (k)*along##j))

/* Each number along MIDDLE has a sum of its own: `EACH` runs a statement for all of a tile. */
#define EACH_TILE                                                                                                     \
    for (int64_t first = 0, n; first < (alone ? 1 : call->shape[MIDDLE]); first += n)                                 \
        if (n = alone                                          ? 1                                                    \
                : call->shape[MIDDLE] - first < TILE ? call->shape[MIDDLE] - first                                    \
                                                     : TILE,                                                          \
            1)
#define EACH INDEPENDENT for (int64_t i = 0; i < n; i++)
#define ALONG INDEPENDENT for (int64_t k = 0; k < size; k++)

/* The sum of f(k) over the axis into sum[i]. Alone, a number has eight partial sums, which do not wait for each other. */
#define SUM(sum, value)                                                                                               \
    do {                                                                                                              \
        if (n == 1) {                                                                                                 \
            enum { i = 0 };                                                                                           \
            REAL part[8] = {0};                                                                                       \
            int64_t k = 0;                                                                                            \
            for (; k + 8 <= size; k += 8) {                                                                           \
                const int64_t whole = k;                                                                              \
                UNROLL for (int64_t s = 0; s < 8; s++) {                                                              \
                    const int64_t k = whole + s;                                                                      \
                    part[s] += value;                                                                                 \
                }                                                                                                     \
            }                                                                                                         \
            for (; k < size; k++) {                                                                                   \
                part[0] += value;                                                                                     \
            }                                                                                                         \
            sum[0] = ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));       \
        } else {                                                                                                      \
            EACH sum[i] = 0;                                                                                          \
            for (int64_t k = 0; k < size; k++) {                                                                      \
                EACH sum[i] += value;                                                                                 \
            }                                                                                                         \
        }                                                                                                             \
    } while (0)

/* Whether operands, given as bits, are contiguous along an axis. */
static inline int NAME(all_contiguous)(const Call *call, int operands, int axis) {
    for (int j = 0; j < OPERANDS; j++) {
        if (operands >> j & 1 && call->stride[j][axis] != ITEM) {
            return 0;
        }
    }
    return 1;
}

/* Runs a body in the way that its strides allow. `contiguous_beside` and `contiguous_along` are operands, as bits. */
#define DISPATCH(body, contiguous_beside, contiguous_along)                                                           \
    if (call->shape[MIDDLE] == 1 && NAME(all_contiguous)(call, contiguous_along, INNER)) {                            \
        NAME(body)(call, at, 0, 1);                                                                                   \
    } else if (NAME(all_contiguous)(call, contiguous_beside, MIDDLE)) {                                               \
        NAME(body)(call, at, 1, 0);                                                                                   \
    } else {                                                                                                          \
        NAME(body)(call, at, 0, 0);                                                                                   \
    }
#define BODY(name) static ALWAYS_INLINE void NAME(name)(const Call *call, char *const *at, const int beside, const int alone)

BODY(sum_of) {
    const int64_t size = call->shape[INNER];
    MAIN(1);
    ANY(0);
    (void)along0;
    EACH_TILE {
        REAL total[TILE];
        SUM(total, AT(1, first + i, k));
        for (int64_t i = 0; i < n; i++) {
            AT(0, first + i, 0) = total[i];
        }
    }
}

static void NAME(sum)(const Call *call, char *const *at) {
    DISPATCH(sum_of, 2, 2)
}

/* NaN where there is one. Alone, a number has eight partial results, as a sum has. */
BODY(largest_of) {
    const int64_t size = call->shape[INNER];
    MAIN(1);
    ANY(0);
    (void)along0;
    EACH_TILE {
        REAL largest[TILE];
        EACH largest[i] = AT(1, first + i, 0);
        int64_t k = 1;
        if (alone && size >= 8) {
            REAL part[8];
            UNROLL for (int64_t s = 0; s < 8; s++) {
                part[s] = AT(1, first, s);
            }
            for (k = 8; k + 8 <= size; k += 8) {
                UNROLL for (int64_t s = 0; s < 8; s++) {
                    part[s] = NAME(maximum)(part[s], AT(1, first, k + s));
                }
            }
            for (int64_t s = 0; s < 8; s++) {
                largest[0] = NAME(maximum)(largest[0], part[s]);
            }
        }
        for (; k < size; k++) {
            EACH largest[i] = NAME(maximum)(largest[i], AT(1, first + i, k));
        }
        for (int64_t i = 0; i < n; i++) {
            AT(0, first + i, 0) = largest[i];
        }
    }
}

static void NAME(largest)(const Call *call, char *const *at) {
    DISPATCH(largest_of, 2, 2)
}

/* Operands: out, x; out may be x. */
BODY(cumsum_of) {
    const int64_t size = call->shape[INNER];
    MAIN(0);
    MAIN(1);
    EACH_TILE {
        REAL total[TILE];
        EACH {
            total[i] = AT(1, first + i, 0);
            AT(0, first + i, 0) = total[i];
        }
        if (n == 1) {
            REAL sum = total[0]; /* in a register */
            for (int64_t k = 1; k < size; k++) {
                sum += AT(1, first, k);
                AT(0, first, k) = sum;
            }
            continue;
        }
        for (int64_t k = 1; k < size; k++) {
            EACH {
                total[i] += AT(1, first + i, k);
                AT(0, first + i, k) = total[i];
            }
        }
    }
}

static void NAME(cumsum)(const Call *call, char *const *at) {
    DISPATCH(cumsum_of, 3, 3)
}

/* Operands: y, slope, a. */
BODY(norm_of) {
    const int64_t size = call->shape[INNER];
    const REAL share = 1 / (REAL)size, eps = (REAL)call->number;
    MAIN(0);
    MAIN(2);
    ANY(1);
    EACH_TILE {
        REAL mean[TILE], slope[TILE];
        SUM(mean, AT(2, first + i, k));
        EACH mean[i] *= share;
        ALONG {
            EACH AT(0, first + i, k) = AT(2, first + i, k) - mean[i];
        }
        SUM(slope, AT(0, first + i, k) * AT(0, first + i, k));
        EACH {
            const REAL variance = slope[i] * share + eps;
            /* sqrt(v) / v and not 1 / sqrt(v): where the squares overflow, y is then not a number, and not 0. */
            slope[i] = LIBM(sqrt)(variance) / variance;
        }
        ALONG {
            EACH AT(0, first + i, k) *= slope[i];
        }
        for (int64_t k = 0; k < (along1 ? size : 1); k++) {
            for (int64_t i = 0; i < n; i++) {
                AT(1, first + i, k) = slope[i];
            }
        }
    }
}

static void NAME(norm)(const Call *call, char *const *at) {
    DISPATCH(norm_of, 5, 5)
}

/* Operands: out, y, slope, v; out may be v. */
BODY(norm_jacobian_of) {
    const int64_t size = call->shape[INNER];
    const REAL share = 1 / (REAL)size;
    MAIN(0);
    MAIN(1);
    MAIN(3);
    char *const base2 = at[2];
    const int64_t side2 = beside ? ITEM : call->stride[2][MIDDLE], along2 = call->stride[2][INNER];
    EACH_TILE {
        REAL mean[TILE], total[TILE], slope[TILE];
        SUM(mean, AT(3, first + i, k));
        SUM(total, AT(1, first + i, k) * AT(3, first + i, k));
        for (int64_t i = 0; i < n; i++) {
            mean[i] *= share;
            total[i] *= share;
            slope[i] = AT(2, first + i, 0);
        }
        if (along2) {
            ALONG {
                EACH AT(0, first + i, k)
                    = (AT(3, first + i, k) - mean[i] - AT(1, first + i, k) * total[i]) * AT(2, first + i, k);
            }
        } else {
            ALONG {
                EACH AT(0, first + i, k)
                    = (AT(3, first + i, k) - mean[i] - AT(1, first + i, k) * total[i]) * slope[i];
            }
        }
    }
}

static void NAME(norm_jacobian)(const Call *call, char *const *at) {
    DISPATCH(norm_jacobian_of, 15, 11)
}

static void NAME(exp_of_row)(REAL *row, int64_t n) {
    INDEPENDENT for (int64_t i = 0; i < n; i++) {
        row[i] = NAME(exp)(row[i]);
    }
}

/* Operands: y, a. */
BODY(softmax_of) {
    const int64_t size = call->shape[INNER];
    MAIN(0);
    MAIN(1);
    EACH_TILE {
        REAL largest[TILE], total[TILE];
        EACH largest[i] = AT(1, first + i, 0);
        for (int64_t k = 1; k < size; k++) {
            EACH largest[i] = NAME(maximum)(largest[i], AT(1, first + i, k));
        }
        ALONG {
            EACH AT(0, first + i, k) = AT(1, first + i, k) - largest[i];
        }
        if (alone) {
            NAME(exp_of_row)(&AT(0, first, 0), size);
        } else if (beside) {
            for (int64_t k = 0; k < size; k++) {
                NAME(exp_of_row)(&AT(0, first, k), n);
            }
        } else {
            for (int64_t k = 0; k < size; k++) {
                for (int64_t i = 0; i < n; i++) {
                    NAME(exp_of_row)(&AT(0, first + i, k), 1);
                }
            }
        }
        SUM(total, AT(0, first + i, k));
        ALONG {
            EACH AT(0, first + i, k) /= total[i];
        }
    }
}

static void NAME(softmax)(const Call *call, char *const *at) {
    DISPATCH(softmax_of, 3, 3)
}

/* Operands: out, y, v; out may be v. */
BODY(softmax_jacobian_of) {
    const int64_t size = call->shape[INNER];
    MAIN(0);
    MAIN(1);
    MAIN(2);
    EACH_TILE {
        REAL total[TILE];
        SUM(total, AT(1, first + i, k) * AT(2, first + i, k));
        ALONG {
            EACH AT(0, first + i, k) = (AT(2, first + i, k) - total[i]) * AT(1, first + i, k);
        }
    }
}

static void NAME(softmax_jacobian)(const Call *call, char *const *at) {
    DISPATCH(softmax_jacobian_of, 7, 7)
}

#undef AT
#define AT(j, i, k) (*(REAL *)(at[j] + (i)*call->stride[j][MIDDLE] + (k)*call->stride[j][INNER]))
#define THRESHOLD(i) (*(const double *)(at[2] + (i) * call->stride[2][MIDDLE]))
#define COUNTER(i) (*(int64_t *)(at[1] + (i) * call->stride[1][MIDDLE]))

static inline REAL NAME(largest_size)(const Call *call, char *const *at, int64_t i) {
    REAL largest = 0;
    for (int64_t k = 0; k < call->shape[INNER]; k++) {
        largest = NAME(maximum)(largest, NAME(size)(AT(0, i, k)));
    }
    return largest;
}

/* Operands: an adjoint, scaled down in place to the threshold where its norm is above; a counter of those; thresholds. */
static void NAME(clip_norm)(const Call *call, char *const *at) {
    for (int64_t i = 0; i < call->shape[MIDDLE]; i++) {
        const REAL largest = NAME(largest_size)(call, at, i);
        /* Scaled by its largest entry first: the square of a mantissa may leave the range of floats. */
        const REAL unit = largest > 0 ? largest : 1;
        REAL squares = 0;
        for (int64_t k = 0; k < call->shape[INNER]; k++) {
            const REAL part = AT(0, i, k) / unit;
            squares += part * part;
        }
        const double norm = (double)(unit * LIBM(sqrt)(squares));
        if (norm > THRESHOLD(i)) {
            const double factor = THRESHOLD(i) / norm;
            for (int64_t k = 0; k < call->shape[INNER]; k++) {
                AT(0, i, k) = (REAL)((double)AT(0, i, k) * factor);
            }
            COUNTER(i)++;
        }
    }
}

/* The same, entry by entry. */
static void NAME(clip_value)(const Call *call, char *const *at) {
    for (int64_t i = 0; i < call->shape[MIDDLE]; i++) {
        const double threshold = THRESHOLD(i);
        if ((double)NAME(largest_size)(call, at, i) > threshold) {
            COUNTER(i)++;
        }
        for (int64_t k = 0; k < call->shape[INNER]; k++) {
            const double entry = (double)AT(0, i, k);
            AT(0, i, k) = (REAL)(entry > threshold ? threshold : (entry < -threshold ? -threshold : entry));
        }
    }
}

#undef AT
#undef SUM
#undef EACH
#undef EACH_TILE
#undef ALONG
#undef MAIN
#undef ANY
#undef DISPATCH
#undef BODY
#undef ITEM
#undef TILE
#undef THRESHOLD
#undef COUNTER

#define VALUE(i, k) ((double)*(const REAL *)(values + (k) * along + (i) * aside))

/* One sequence: eight sums that do not wait for each other. `along` is a constant where it is contiguous. */
static ALWAYS_INLINE void NAME(size_of_one)(
    const char *values, int64_t size, int64_t along, double *squares, double *largest
) {
    const int64_t aside = 0;
    double part[8] = {0}, most[8] = {0};
    int64_t k = 0;
    for (; k + 8 <= size; k += 8) {
        UNROLL for (int i = 0; i < 8; i++) {
            const double value = VALUE(0, k + i), magnitude = value < 0 ? -value : value;
            part[i] += value * value;
            most[i] = magnitude > most[i] || magnitude != magnitude ? magnitude : most[i];
        }
    }
    for (; k < size; k++) {
        const double value = VALUE(0, k), magnitude = value < 0 ? -value : value;
        part[0] += value * value;
        most[0] = magnitude > most[0] || magnitude != magnitude ? magnitude : most[0];
    }
    *squares = ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
    *largest = 0;
    for (int i = 0; i < 8; i++) {
        *largest = most[i] > *largest || most[i] != most[i] ? most[i] : *largest;
    }
}

static ALWAYS_INLINE void NAME(sizes_of_some)(
    const char *values, int64_t size, int64_t columns, int64_t along, int64_t aside, double *restrict squares,
    double *restrict largest
) {
    for (int64_t i = 0; i < columns; i++) {
        squares[i] = largest[i] = 0;
    }
    for (int64_t k = 0; k < size; k++) {
        for (int64_t i = 0; i < columns; i++) {
            const double value = VALUE(i, k), magnitude = value < 0 ? -value : value;
            squares[i] += value * value;
            largest[i] = magnitude > largest[i] || magnitude != magnitude ? magnitude : largest[i];
        }
    }
}

static void NAME(sizes)(
    const char *values, int64_t size, int64_t columns, const int64_t *stride, double *squares, double *largest
) {
    const int64_t item = (int64_t)sizeof(REAL);
    if (columns == 1 && stride[0] == item) {
        NAME(size_of_one)(values, size, item, squares, largest);
    } else if (columns == 1) {
        NAME(size_of_one)(values, size, stride[0], squares, largest);
    } else if (stride[1] == item) {
        NAME(sizes_of_some)(values, size, columns, stride[0], item, squares, largest);
    } else {
        NAME(sizes_of_some)(values, size, columns, stride[0], stride[1], squares, largest);
    }
}

#undef VALUE
