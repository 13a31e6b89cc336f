/* out = matrix @ vectors, for each trial: call->shape is (trials, rows, inner, ..., columns), operand 0 the output
   with strides along (trials, rows, -, ..., columns), operand 1 the vectors along (trials, -, inner, ..., columns).

   The matrix is packed beforehand. With few columns, its rows lie along the lanes of vector registers: panels of up to
   LONG vectors of rows, in each the columns one after the other. With many, the columns of the output lie along the
   lanes: tiles of TILE_ROWS rows times up to three vectors of columns stay in registers (Goto and van de Geijn 2008),
   the inner axis is cut into blocks of INNER_BLOCK, so that what a tile reads of the vectors stays in the first cache,
   and the rows into blocks of ROW_BLOCK, so that what all tiles read of the matrix stays in the second. */

typedef REAL NAME(Vector) __attribute__((vector_size(VECTOR_BYTES)));
typedef REAL NAME(Anywhere) __attribute__((vector_size(VECTOR_BYTES), aligned(sizeof(REAL)), may_alias));
#define Vector NAME(Vector)
#define LOAD(from) (*(const NAME(Anywhere) *)(from))
#define STORE(to, value) (*(NAME(Anywhere) *)(to) = (value))

#define LANES ((int64_t)(VECTOR_BYTES / sizeof(REAL)))
#define LONG 8
#define SHORT 4
#define WIDEST 3
#define INNER_BLOCK ((int64_t)(2048 / sizeof(REAL)))
#define ROW_BLOCK 64

static inline int64_t NAME(least)(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static inline int64_t NAME(rounded_up)(int64_t count, int64_t to) {
    return (count + to - 1) / to * to;
}

static int NAME(few_columns)(const Call *call) {
    return call->shape[INNER] < LANES;
}

static int64_t NAME(packed_bytes)(const Call *call) {
    const int64_t rows = NAME(rounded_up)(call->shape[1], call->few_columns ? LANES : TILE_ROWS);
    return rows * call->shape[2] * (int64_t)sizeof(REAL);
}

static void NAME(pack)(const Call *call) {
    const int64_t rows = call->shape[1], inner = call->shape[2];
    const int64_t *stride = call->stride[2];
    for (int64_t trial = 0; trial < call->packed_trials; trial++) {
        const char *matrix = call->matrix + trial * stride[0];
        REAL *to = (REAL *)(call->packed + trial * call->packed_bytes);
        const int64_t block = call->few_columns ? inner : INNER_BLOCK;
        for (int64_t from = 0; from < inner; from += block) {
            const int64_t end = NAME(least)(from + block, inner);
            for (int64_t row = 0; row < rows;) {
                const int64_t left = rows - row;
                const int64_t panel
                    = call->few_columns ? NAME(least)(LONG * LANES, NAME(rounded_up)(left, LANES)) : TILE_ROWS;
                for (int64_t j = from; j < end; j++) {
                    for (int64_t i = 0; i < panel; i++) {
                        *to++ = i < left ? *(const REAL *)(matrix + (row + i) * stride[1] + j * stride[2]) : 0;
                    }
                }
                row += panel;
            }
        }
    }
}

/* A part of a panel of rows times few columns: `longs` vectors of rows. The loops over constants are unrolled. */
static ALWAYS_INLINE void NAME(panel)(
    const int longs, const int columns, const REAL *matrix, int64_t panel, int64_t inner, const char *vectors,
    const int64_t *vector_stride, REAL *sums
) {
    /* With few chains of additions, each of which waits for itself, twice as many are made. */
    const int split = longs * columns <= 4 ? 2 : 1;
    Vector sum[2][SHORT * 3 > LONG ? SHORT * 3 : LONG];
    for (int s = 0; s < split; s++) {
        UNROLL for (int i = 0; i < longs * columns; i++) {
            sum[s][i] = (Vector){0};
        }
    }
    const int64_t along = vector_stride[2], across = vector_stride[INNER];
    int64_t j = 0;
    for (; j + split <= inner; j += split) {
        UNROLL for (int s = 0; s < split; s++) {
            UNROLL for (int c = 0; c < columns; c++) {
                const REAL x = *(const REAL *)(vectors + c * across);
                UNROLL for (int i = 0; i < longs; i++) {
                    sum[s][c * longs + i] += LOAD(matrix + i * LANES) * x;
                }
            }
            vectors += along;
            matrix += panel;
        }
    }
    for (; j < inner; j++) {
        UNROLL for (int c = 0; c < columns; c++) {
            const REAL x = *(const REAL *)(vectors + c * across);
            UNROLL for (int i = 0; i < longs; i++) {
                sum[0][c * longs + i] += LOAD(matrix + i * LANES) * x;
            }
        }
        vectors += along;
        matrix += panel;
    }
    UNROLL for (int i = 0; i < longs * columns; i++) {
        STORE(sums + i * LANES, split == 2 ? sum[0][i] + sum[1][i] : sum[0][i]);
    }
}

static inline void NAME(put)(const Call *call, REAL *to, REAL value) {
    *to = call->add ? *to + value : value;
}

/* `longs` vectors of rows times `columns` columns, written where they belong; `rows` of them are there. */
static inline void NAME(some_columns)(
    const Call *call, int longs, int columns, const REAL *matrix, int64_t panel, const char *vectors, char *out,
    int64_t rows
) {
    REAL sums[LONG * WIDEST * (VECTOR_BYTES / sizeof(REAL))];
    switch (columns * 16 + longs) {
#define CASE(columns, longs)                                                                                          \
    case columns * 16 + longs:                                                                                        \
        NAME(panel)(longs, columns, matrix, panel, call->shape[2], vectors, call->stride[1], sums);                   \
        break;
        CASE(1, 1) CASE(1, 2) CASE(1, 3) CASE(1, 4) CASE(1, 5) CASE(1, 6) CASE(1, 7) CASE(1, 8)
        CASE(2, 1) CASE(2, 2) CASE(2, 3) CASE(2, 4)
        CASE(3, 1) CASE(3, 2) CASE(3, 3) CASE(3, 4)
#undef CASE
    default:
        break;
    }
    const int64_t along = call->stride[0][1], across = call->stride[0][INNER];
    if (columns == 1 && along == (int64_t)sizeof(REAL) && !call->add) {
        memcpy(out, sums, (size_t)rows * sizeof(REAL));
        return;
    }
    for (int c = 0; c < columns; c++) {
        for (int64_t i = 0; i < rows; i++) {
            NAME(put)(call, (REAL *)(out + i * along + c * across), sums[c * longs * LANES + i]);
        }
    }
}

static void NAME(product_of_few)(const Call *call, const REAL *matrix, const char *vectors, char *out) {
    const int64_t rows = call->shape[1], inner = call->shape[2], columns = call->shape[INNER];
    for (int64_t row = 0; row < rows;) {
        const int64_t left = rows - row;
        const int64_t panel = NAME(least)(LONG * LANES, NAME(rounded_up)(left, LANES));
        for (int64_t c = 0; c < columns;) {
            /* Never one column at the end alone: 4 are 2 and 2. */
            const int64_t rest = columns - c;
            const int64_t taken = rest == 4 ? 2 : NAME(least)(rest, WIDEST);
            const int64_t most = taken == 1 ? LONG : SHORT;
            for (int64_t i = 0; i < panel; i += most * LANES) {
                const int64_t longs = NAME(least)(most, (panel - i) / LANES);
                NAME(some_columns)(
                    call, (int)longs, (int)taken, matrix + i, panel, vectors + c * call->stride[1][INNER],
                    out + (row + i) * call->stride[0][1] + c * call->stride[0][INNER],
                    NAME(least)(left - i, longs * LANES)
                );
            }
            c += taken;
        }
        matrix += panel * inner;
        row += panel;
    }
}

/* TILE_ROWS rows times `wide` vectors of columns, added to `out` or put there. */
static ALWAYS_INLINE void NAME(tile)(
    const int wide, const REAL *matrix, const REAL *vectors, int64_t vector_row, int64_t inner, REAL *out,
    int64_t out_row, int add
) {
    /* One vector of columns alone is two chains of additions each, so that they wait less for themselves. */
    const int split = wide == 1 ? 2 : 1;
    Vector sum[2][TILE_ROWS][WIDEST];
    UNROLL for (int s = 0; s < split; s++) {
        UNROLL for (int i = 0; i < TILE_ROWS; i++) {
            UNROLL for (int v = 0; v < wide; v++) {
                sum[s][i][v] = (Vector){0};
            }
        }
    }
    int64_t j = 0;
    for (; j + split <= inner; j += split) {
        UNROLL for (int s = 0; s < split; s++) {
            Vector x[WIDEST];
            UNROLL for (int v = 0; v < wide; v++) {
                x[v] = LOAD(vectors + v * LANES);
            }
            UNROLL for (int i = 0; i < TILE_ROWS; i++) {
                const REAL w = matrix[i];
                UNROLL for (int v = 0; v < wide; v++) {
                    sum[s][i][v] += x[v] * w;
                }
            }
            vectors += vector_row;
            matrix += TILE_ROWS;
        }
    }
    for (; j < inner; j++) {
        UNROLL for (int i = 0; i < TILE_ROWS; i++) {
            UNROLL for (int v = 0; v < wide; v++) {
                sum[0][i][v] += LOAD(vectors + v * LANES) * matrix[i];
            }
        }
        vectors += vector_row;
        matrix += TILE_ROWS;
    }
    UNROLL for (int i = 0; i < TILE_ROWS; i++) {
        UNROLL for (int v = 0; v < wide; v++) {
            const Vector value = split == 2 ? sum[0][i][v] + sum[1][i][v] : sum[0][i][v];
            REAL *to = out + i * out_row + v * LANES;
            STORE(to, add ? (Vector)LOAD(to) + value : value);
        }
    }
}

/* How many vectors of columns the next panel takes of those left: never one alone behind others. */
static inline int64_t NAME(width)(int64_t left) {
    return left == 4 ? 2 : NAME(least)(left, WIDEST);
}

/* A tile at the edge of the output, or of one without contiguous columns: by way of a buffer. */
static void NAME(edge)(
    const Call *call, const REAL *sums, int64_t wide, char *out, int64_t rows, int64_t columns, int add
) {
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t c = 0; c < columns; c++) {
            REAL *to = (REAL *)(out + i * call->stride[0][1] + c * call->stride[0][INNER]);
            const REAL sum = sums[i * wide * LANES + c];
            *to = add ? *to + sum : sum;
        }
    }
}

static void NAME(pack_vectors)(const Call *call, const char *vectors, int64_t inner, REAL *to) {
    const int64_t along = call->stride[1][2], across = call->stride[1][INNER], columns = call->shape[INNER];
    int64_t vectors_left = NAME(rounded_up)(columns, LANES) / LANES;
    for (int64_t column = 0; column < columns;) {
        const int64_t wide = NAME(width)(vectors_left) * LANES;
        const int64_t there = NAME(least)(wide, columns - column);
        const char *from = vectors + column * across;
        for (int64_t j = 0; j < inner; j++, from += along, to += wide) {
            if (there == wide && across == (int64_t)sizeof(REAL)) {
                for (int64_t v = 0; v < wide; v += LANES) {
                    STORE(to + v, LOAD((const REAL *)from + v));
                }
                continue;
            }
            for (int64_t i = 0; i < wide; i++) {
                to[i] = i < there ? *(const REAL *)(from + i * across) : 0;
            }
        }
        column += wide;
        vectors_left -= wide / LANES;
    }
}

static int64_t NAME(product_scratch)(const Call *call) {
    if (call->few_columns) {
        return 0;
    }
    const int64_t columns = NAME(rounded_up)(call->shape[INNER], LANES);
    return columns * NAME(least)(call->shape[2], INNER_BLOCK) * (int64_t)sizeof(REAL);
}

static void NAME(product_of_many)(const Call *call, const REAL *matrix, const char *vectors, char *out) {
    const int64_t rows = call->shape[1], inner = call->shape[2], columns = call->shape[INNER];
    const int64_t out_row = call->stride[0][1], across = call->stride[0][INNER];
    const int64_t padded_rows = NAME(rounded_up)(rows, TILE_ROWS);
    REAL *const packed = (REAL *)call->scratch;
    for (int64_t from = 0; from < inner; from += INNER_BLOCK) {
        const int64_t depth = NAME(least)(INNER_BLOCK, inner - from);
        const int add = call->add || from > 0;
        NAME(pack_vectors)(call, vectors + from * call->stride[1][2], depth, packed);
        for (int64_t block = 0; block < rows; block += ROW_BLOCK) {
            const int64_t block_end = NAME(least)(block + ROW_BLOCK, rows);
            const REAL *panel = packed;
            int64_t vectors_left = NAME(rounded_up)(columns, LANES) / LANES;
            for (int64_t column = 0; column < columns;) {
                const int64_t wide = NAME(width)(vectors_left);
                for (int64_t row = block; row < block_end; row += TILE_ROWS) {
                    const REAL *tile = matrix + from * padded_rows + row * depth;
                    char *const corner = out + row * out_row + column * across;
                    const int whole = row + TILE_ROWS <= rows && column + wide * LANES <= columns
                        && across == (int64_t)sizeof(REAL);
                    REAL sums[TILE_ROWS * WIDEST * (VECTOR_BYTES / sizeof(REAL))];
                    REAL *const to = whole ? (REAL *)corner : sums;
                    const int64_t to_row = whole ? out_row / (int64_t)sizeof(REAL) : wide * LANES;
                    switch (wide) {
                    case 1:
                        NAME(tile)(1, tile, panel, LANES, depth, to, to_row, whole && add);
                        break;
                    case 2:
                        NAME(tile)(2, tile, panel, 2 * LANES, depth, to, to_row, whole && add);
                        break;
                    default:
                        NAME(tile)(3, tile, panel, 3 * LANES, depth, to, to_row, whole && add);
                    }
                    if (!whole) {
                        NAME(edge)(
                            call, sums, wide, corner, NAME(least)(TILE_ROWS, rows - row),
                            NAME(least)(wide * LANES, columns - column), add
                        );
                    }
                }
                panel += wide * LANES * depth;
                column += wide * LANES;
                vectors_left -= wide;
            }
        }
    }
}

static void NAME(product)(const Call *call, char *const *at) {
    const int64_t next = call->packed_trials == 1 ? 0 : call->packed_bytes;
    for (int64_t trial = 0; trial < call->shape[0]; trial++) {
        const REAL *matrix = (const REAL *)(call->packed + trial * next);
        const char *vectors = at[1] + trial * call->stride[1][0];
        char *out = at[0] + trial * call->stride[0][0];
        if (call->few_columns) {
            NAME(product_of_few)(call, matrix, vectors, out);
        } else {
            NAME(product_of_many)(call, matrix, vectors, out);
        }
    }
}
