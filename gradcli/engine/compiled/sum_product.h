/* out = sum of x y over the last axis of the call: matrices times vectors, where each trial and sequence has a matrix
   of its own. The first two axes are walked over; the sums lie along OUTER and MIDDLE.

   BESIDE: x is contiguous along MIDDLE, and y too or one number. As many sums as registers hold are added up together.
   BESIDE_IN_PLACE: the same for a large x, of which the terms of one sum are far apart: it is read as it lies, and each
   part of the output that fits into the first cache is added to, again and again.
   ALONG: x is contiguous along the axis of the sum, and y too or one number.
   ANYHOW: all else.

   But in ALONG, a sum is added up term by term, the first one first: whichever way is taken, and however many sums lie
   beside each other, it is the same to the last bit. */

#define ITEM ((int64_t)sizeof(REAL))
#define GROUP 4                /* vectors */
#define PART (8192 / ITEM)     /* of the output: numbers that stay in the first cache */
#define REPEATED (2048 / ITEM) /* of y: the same, one term, repeated */

/* `rows` sums along OUTER times `wide` vectors of sums along MIDDLE; the terms [begin, end) of each. */
#define BESIDE_TILE(suffix, VECTOR, ANYWHERE)                                                                         \
    static ALWAYS_INLINE void NAME(tile_of_##suffix)(                                                                 \
        const int rows, const int wide, const int kind, const Call *call, int64_t begin, int64_t end, const char *x,  \
        const char *y, char *out                                                                                      \
    ) {                                                                                                               \
        const int64_t x_next = call->stride[1][INNER], y_next = call->stride[2][INNER];                               \
        const int64_t x_row = kind == ONE_NUMBER_AND_SAME_X ? 0 : call->stride[1][OUTER];                             \
        const int64_t y_row = kind == SAME_FOR_ROWS ? 0 : call->stride[2][OUTER];                                     \
        const int64_t bytes = (int64_t)sizeof(VECTOR);                                                                \
        VECTOR sum[4][8];                                                                                             \
        UNROLL for (int i = 0; i < rows; i++) {                                                                       \
            UNROLL for (int v = 0; v < wide; v++) {                                                                   \
                sum[i][v] = (VECTOR){0};                                                                              \
                if (begin) {                                                                                          \
                    sum[i][v] = *(const ANYWHERE *)(out + i * call->stride[0][OUTER] + v * bytes);                    \
                }                                                                                                     \
            }                                                                                                         \
        }                                                                                                             \
        x += begin * x_next;                                                                                          \
        y += begin * y_next;                                                                                          \
        for (int64_t k = begin; k < end; k++) {                                                                       \
            UNROLL for (int i = 0; i < rows; i++) {                                                                   \
                UNROLL for (int v = 0; v < wide; v++) {                                                               \
                    const VECTOR of_x = *(const ANYWHERE *)(x + i * x_row + v * bytes);                               \
                    if (kind == ONE_NUMBER || kind == ONE_NUMBER_AND_SAME_X) {                                        \
                        sum[i][v] += of_x * *(const REAL *)(y + i * y_row);                                           \
                    } else {                                                                                          \
                        sum[i][v] += of_x * *(const ANYWHERE *)(y + i * y_row + v * bytes);                           \
                    }                                                                                                 \
                }                                                                                                     \
            }                                                                                                         \
            x += x_next;                                                                                              \
            y += y_next;                                                                                              \
        }                                                                                                             \
        UNROLL for (int i = 0; i < rows; i++) {                                                                       \
            UNROLL for (int v = 0; v < wide; v++) {                                                                   \
                *(ANYWHERE *)(out + i * call->stride[0][OUTER] + v * bytes) = sum[i][v];                              \
            }                                                                                                         \
        }                                                                                                             \
    }

typedef REAL NAME(Narrow) __attribute__((vector_size(16)));
typedef REAL NAME(NarrowAnywhere) __attribute__((vector_size(16), aligned(sizeof(REAL)), may_alias));
#define NARROW ((int64_t)(16 / sizeof(REAL)))

BESIDE_TILE(vectors, Vector, NAME(Anywhere))
BESIDE_TILE(numbers, REAL, REAL)
#if VECTOR_BYTES > 16
BESIDE_TILE(narrow_vectors, NAME(Narrow), NAME(NarrowAnywhere))
#endif
#undef BESIDE_TILE

/* All sums along MIDDLE, of four rows or of one. The last vector of a row ends where the row does, and may do some sums
   again, from their first term on. */
static ALWAYS_INLINE void NAME(beside_rows)(
    const int rows, const int kind, const Call *call, const char *x, const char *y, char *out
) {
    const int64_t count = call->shape[MIDDLE], size = call->shape[INNER];
    const int number = kind == ONE_NUMBER || kind == ONE_NUMBER_AND_SAME_X;
#define TILE_AT(suffix, rows, wide, row, begin, end)                                                                  \
    NAME(tile_of_##suffix)(                                                                                           \
        rows, wide, kind, call, begin, end, x + (row) * call->stride[1][OUTER] + i * ITEM,                            \
        y + (row) * call->stride[2][OUTER] + (number ? 0 : i * ITEM), out + (row) * call->stride[0][OUTER] + i * ITEM \
    )
    /* In parts, so that a line of the cache between two tiles is still there for the second one. */
    const int64_t widest = 8 * LANES, whole = count / widest * widest;
    const int64_t part = count < 2 * widest ? size : 1 + PART / count;
    for (int64_t begin = 0; begin < size && whole; begin += part) {
        for (int64_t i = 0; i < whole; i += widest) {
            for (int row = 0; row < rows; row++) {
                TILE_AT(vectors, 1, 8, row, begin, NAME(least)(begin + part, size));
            }
        }
    }
    int64_t i = whole; /* fewer than eight vectors are left */
    if (i + 4 * LANES <= count) {
        for (int row = 0; row < rows; row += 2) {
            TILE_AT(vectors, rows == 1 ? 1 : 2, 4, row, 0, size);
        }
        i += 4 * LANES;
    }
    if (i + 2 * LANES <= count) {
        TILE_AT(vectors, rows, 2, 0, 0, size);
        i += 2 * LANES;
    }
    for (; i < count && count >= LANES; i += LANES) {
        i = NAME(least)(i, count - LANES);
        TILE_AT(vectors, rows, 1, 0, 0, size);
    }
#if VECTOR_BYTES > 16
    for (; i < count && count >= NARROW; i += NARROW) {
        i = NAME(least)(i, count - NARROW);
        TILE_AT(narrow_vectors, rows, 1, 0, 0, size);
    }
#endif
    for (; i < count; i++) {
        TILE_AT(numbers, rows, 1, 0, 0, size);
    }
#undef TILE_AT
}

static ALWAYS_INLINE void NAME(beside_of)(const int kind, const Call *call, char *const *at) {
    const int64_t rows = call->shape[OUTER];
    /* To a single row it is all one whether others have the same numbers. */
    const int alone = kind == ONE_NUMBER_AND_SAME_X ? ONE_NUMBER : kind == SAME_FOR_ROWS ? EACH_ITS_OWN : kind;
    const char *x = at[1], *y = at[2];
    char *out = at[0];
    for (int64_t row = 0; row < rows;) {
        const int64_t taken = rows - row >= 4 ? 4 : 1;
        if (taken == 4) {
            NAME(beside_rows)(4, kind, call, x, y, out);
        } else {
            NAME(beside_rows)(1, alone, call, x, y, out);
        }
        row += taken;
        x += taken * call->stride[1][OUTER];
        y += taken * call->stride[2][OUTER];
        out += taken * call->stride[0][OUTER];
    }
}

static void NAME(sum_product_beside)(const Call *call, char *const *at) {
    if (call->stride[2][MIDDLE] == 0) {
        if (call->stride[1][OUTER] == 0) {
            NAME(beside_of)(ONE_NUMBER_AND_SAME_X, call, at);
        } else {
            NAME(beside_of)(ONE_NUMBER, call, at);
        }
    } else if (call->stride[2][OUTER] == 0) {
        NAME(beside_of)(SAME_FOR_ROWS, call, at);
    } else {
        NAME(beside_of)(EACH_ITS_OWN, call, at);
    }
}

/* Products that are to be added to sums: those of some rows of x and of y. */
typedef struct {
    const char *x, *y;
    int64_t x_next, y_next; /* bytes to the next row */
    REAL *out;
} NAME(Terms);

/* Adds `terms` of them to `wide` vectors of sums, `times` times, so many numbers apart. */
static ALWAYS_INLINE void NAME(add_vectors)(
    const int terms, const int wide, const int number, const NAME(Terms) * of, int64_t from, int64_t y_from,
    int64_t times, int64_t apart, int64_t y_apart
) {
    const REAL *x[4], *y[4];
    Vector factor[4];
    UNROLL for (int s = 0; s < terms; s++) {
        x[s] = (const REAL *)(of->x + s * of->x_next) + from;
        y[s] = (const REAL *)(of->y + s * of->y_next) + (number ? 0 : y_from);
        factor[s] = number ? *y[s] - (Vector){0} : (Vector){0};
    }
    REAL *out = of->out + from;
    for (int64_t i = 0; i < times; i++) {
        UNROLL for (int v = 0; v < wide; v++) {
            Vector sum = LOAD(out + v * LANES);
            UNROLL for (int s = 0; s < terms; s++) {
                sum += LOAD(x[s] + v * LANES) * (number ? factor[s] : (Vector)LOAD(y[s] + v * LANES));
            }
            STORE(out + v * LANES, sum);
        }
        UNROLL for (int s = 0; s < terms; s++) {
            x[s] += apart;
            y[s] += y_apart;
        }
        out += apart;
    }
}

/* What is no whole vector, number by number. */
static __attribute__((noinline)) void NAME(add_numbers)(
    int terms, const NAME(Terms) * of, int64_t x_from, int64_t y_from, int64_t times, int64_t apart
) {
    for (int64_t i = x_from; times > 0; times--, i += apart) {
        REAL sum = of->out[i];
        for (int s = 0; s < terms; s++) {
            sum += ((const REAL *)(of->x + s * of->x_next))[i] * ((const REAL *)(of->y + s * of->y_next))[y_from];
        }
        of->out[i] = sum;
    }
}

/* Adds `terms` of them to `length` sums, `times` times, so many numbers apart, with the same numbers of y. */
static ALWAYS_INLINE void NAME(add_terms)(
    const int terms, const int number, const NAME(Terms) * of, int64_t length, int64_t times, int64_t apart
) {
    const int64_t group = GROUP * LANES;
    if (times == 1 || length >= 2 * group) {
        for (int64_t begin = 0; begin < times * apart; begin += apart) {
            const int64_t groups = length / group, vectors = (length - groups * group) / LANES;
            int64_t from = groups * group;
            NAME(add_vectors)(terms, GROUP, number, of, begin, 0, groups, group, group);
            NAME(add_vectors)(terms, 1, number, of, begin + from, from, vectors, LANES, LANES);
            for (from += vectors * LANES; from < length; from++) {
                NAME(add_numbers)(terms, of, begin + from, number ? 0 : from, 1, 0);
            }
        }
        return;
    }
    int64_t from = 0;
    for (; from + group <= length; from += group) {
        NAME(add_vectors)(terms, GROUP, number, of, from, from, times, apart, 0);
    }
    for (; from + LANES <= length; from += LANES) {
        NAME(add_vectors)(terms, 1, number, of, from, from, times, apart, 0);
    }
    for (; from < length; from++) {
        NAME(add_numbers)(terms, of, from, number ? 0 : from, times, apart);
    }
}

/* How often a row of y is to be written one behind the other for whole groups of vectors, or for whole vectors. */
static inline int64_t NAME(copies_of)(int64_t row, int64_t rows) {
    for (int64_t unit = GROUP * LANES; unit >= LANES; unit /= GROUP) {
        int64_t copies = 1;
        while (copies * row % unit) {
            copies++;
        }
        if (copies * row <= REPEATED && copies <= rows / 2) {
            return copies;
        }
    }
    return 1;
}

/* The sums of rows that lie behind each other, for all of which y is the same, or those of one row. */
static ALWAYS_INLINE void NAME(in_place_of)(
    const int number, const Call *call, int64_t rows, const char *at_x, const char *at_y, char *at_out
) {
    const int64_t size = call->shape[INNER], row = call->shape[MIDDLE];
    const int64_t x_next = call->stride[1][INNER], y_next = call->stride[2][INNER], count = row * rows;
    const int64_t copies = rows > 1 ? NAME(copies_of)(row, rows) : 1;
    const int64_t period = rows > 1 ? copies * row : PART;
    const int64_t part = period > PART ? period : PART / period * period;
    REAL repeated[4][REPEATED + VECTOR_BYTES / sizeof(REAL)];
    for (int64_t from = 0; from < count; from += part) {
        const int64_t here = NAME(least)(part, count - from);
        memset(at_out + from * ITEM, 0, (size_t)(here * ITEM));
        for (int64_t k = 0; k < size;) {
            const int64_t terms = size - k >= 4 ? 4 : 1;
            NAME(Terms) of = {
                .x = at_x + k * x_next + from * ITEM,
                .y = at_y + k * y_next + (number || rows > 1 ? 0 : from * ITEM),
                .x_next = x_next,
                .y_next = y_next,
                .out = (REAL *)at_out + from,
            };
            if (copies > 1) {
                for (int64_t s = 0; s < terms; s++) {
                    memcpy(repeated[s], of.y + s * y_next, (size_t)(row * ITEM));
                    /* What a vector writes behind its row is written over by the next one. */
                    for (int64_t to = row; to < period; to += row) {
                        for (int64_t i = 0; i < row; i += LANES) {
                            STORE(repeated[s] + to + i, LOAD(repeated[s] + i));
                        }
                    }
                }
                of.y = (const char *)repeated;
                of.y_next = (int64_t)sizeof *repeated;
            }
            const int64_t whole = here / period * period;
            NAME(Terms) rest = of;
            rest.x += whole * ITEM;
            rest.out += whole;
            if (terms == 4) {
                NAME(add_terms)(4, number, &of, period, here / period, period);
                NAME(add_terms)(4, number, &rest, here - whole, 1, here);
            } else {
                NAME(add_terms)(1, number, &of, period, here / period, period);
                NAME(add_terms)(1, number, &rest, here - whole, 1, here);
            }
            k += terms;
        }
    }
}

static void NAME(sum_product_in_place)(const Call *call, char *const *at) {
    const int64_t(*stride)[AXES] = call->stride;
    const int64_t rows = call->shape[OUTER], row = call->shape[MIDDLE] * ITEM;
    if (stride[0][OUTER] == row && stride[1][OUTER] == row && stride[2][OUTER] == 0 && stride[2][MIDDLE]) {
        NAME(in_place_of)(0, call, rows, at[1], at[2], at[0]);
        return;
    }
    for (int64_t i = 0; i < rows; i++) {
        const char *x = at[1] + i * stride[1][OUTER], *y = at[2] + i * stride[2][OUTER];
        char *out = at[0] + i * stride[0][OUTER];
        if (stride[2][MIDDLE] == 0) {
            NAME(in_place_of)(1, call, 1, x, y, out);
        } else {
            NAME(in_place_of)(0, call, 1, x, y, out);
        }
    }
}

static inline REAL NAME(over_lanes)(NAME(Narrow) parts) {
#if REAL_IS_DOUBLE
    return parts[0] + parts[1];
#else
    return (parts[0] + parts[2]) + (parts[1] + parts[3]);
#endif
}

/* Sums of `rows` rows: of each, two vectors of partial sums, which do not wait for each other, and what is left. */
static ALWAYS_INLINE void NAME(along_rows)(
    const int rows, const int kind, const Call *call, const char *x, const char *y, char *out
) {
    const int64_t size = call->shape[INNER];
    const int64_t x_row = call->stride[1][OUTER], y_row = kind == SAME_FOR_ROWS ? 0 : call->stride[2][OUTER];
    const int number = kind == ONE_NUMBER;
#define Y(i, k) (number ? *(const REAL *)(y + (i)*y_row) : *((const REAL *)(y + (i)*y_row) + (k)))
    Vector sum[4][2];
    UNROLL for (int i = 0; i < rows; i++) {
        sum[i][0] = sum[i][1] = (Vector){0};
    }
    int64_t k = 0;
#define ADD(half)                                                                                                     \
    UNROLL for (int i = 0; i < rows; i++) {                                                                           \
        const Vector of_x = LOAD((const REAL *)(x + i * x_row) + k);                                                  \
        if (number) {                                                                                                 \
            sum[i][half] += of_x * *(const REAL *)(y + i * y_row);                                                    \
        } else {                                                                                                      \
            sum[i][half] += of_x * LOAD((const REAL *)(y + i * y_row) + k);                                           \
        }                                                                                                             \
    }                                                                                                                 \
    k += LANES;
    while (k + 2 * LANES <= size) {
        ADD(0)
        ADD(1)
    }
    if (k + LANES <= size) {
        ADD(0)
    }
#undef ADD
    for (int i = 0; i < rows; i++) {
        REAL part[VECTOR_BYTES / sizeof(REAL)], rest = 0;
        STORE(part, sum[i][0] + sum[i][1]);
        NAME(Narrow) total = *(const NAME(NarrowAnywhere) *)part;
        UNROLL for (int64_t l = NARROW; l < LANES; l += NARROW) {
            total += *(const NAME(NarrowAnywhere) *)(part + l);
        }
        for (int64_t left = k; left < size; left++) {
            rest += *((const REAL *)(x + i * x_row) + left) * Y(i, left);
        }
        *(REAL *)(out + i * call->stride[0][OUTER]) = NAME(over_lanes)(total) + rest;
    }
#undef Y
}

static ALWAYS_INLINE void NAME(along_of)(const int kind, const Call *call, char *const *at) {
    const int64_t rows = call->shape[OUTER];
    for (int64_t i = 0; i < call->shape[MIDDLE]; i++) {
        const char *x = at[1] + i * call->stride[1][MIDDLE], *y = at[2] + i * call->stride[2][MIDDLE];
        char *out = at[0] + i * call->stride[0][MIDDLE];
        for (int64_t row = 0; row < rows;) {
            const int64_t taken = rows - row >= 4 ? 4 : 1;
            if (taken == 4) {
                NAME(along_rows)(4, kind, call, x, y, out);
            } else {
                NAME(along_rows)(1, kind, call, x, y, out);
            }
            row += taken;
            x += taken * call->stride[1][OUTER];
            y += taken * call->stride[2][OUTER];
            out += taken * call->stride[0][OUTER];
        }
    }
}

static void NAME(sum_product_along)(const Call *call, char *const *at) {
    if (call->stride[2][INNER] == 0) {
        NAME(along_of)(ONE_NUMBER, call, at);
    } else if (call->stride[2][OUTER] == 0) {
        NAME(along_of)(SAME_FOR_ROWS, call, at);
    } else {
        NAME(along_of)(EACH_ITS_OWN, call, at);
    }
}

static void NAME(sum_product_anyhow)(const Call *call, char *const *at) {
    const int64_t size = call->shape[INNER];
    for (int64_t row = 0; row < call->shape[OUTER]; row++) {
        for (int64_t i = 0; i < call->shape[MIDDLE]; i++) {
            const char *x = at[1] + row * call->stride[1][OUTER] + i * call->stride[1][MIDDLE];
            const char *y = at[2] + row * call->stride[2][OUTER] + i * call->stride[2][MIDDLE];
            REAL sum = 0;
            for (int64_t k = 0; k < size; k++, x += call->stride[1][INNER], y += call->stride[2][INNER]) {
                sum += *(const REAL *)x * *(const REAL *)y;
            }
            *(REAL *)(at[0] + row * call->stride[0][OUTER] + i * call->stride[0][MIDDLE]) = sum;
        }
    }
}

#undef ITEM
#undef GROUP
#undef PART
#undef REPEATED
#undef NARROW
