/* A program in memory: calls with checked addresses. interpreter.c makes it of views, kernels.h has what it runs. */

#include <stdint.h>

enum {
    AXES = 5,     /* of a call; the last is the inner loop */
    OPERANDS = 5, /* of a call; outputs come first */
    INNER = AXES - 1,
    MIDDLE = AXES - 2,
    OUTER = AXES - 3,
    MOST_COLUMNS = 32
};

typedef struct Call Call;

/* Do a call once, with its operands at these addresses. */
typedef void (*Kernel)(const Call *call, char *const *at);

struct Call {
    Kernel kernel;
    char *at[OPERANDS];      /* at this step of the run that is under way */
    int64_t next[OPERANDS];  /* bytes to the next one */
    int64_t shape[AXES];     /* of a product: trials, rows, inner, ..., columns */
    int64_t stride[OPERANDS][AXES];
    Kernel inside;           /* called for each place along the outer axes, where `kernel` walks over them */
    Kernel contiguous;       /* for copies of operands that are not */
    char *start[OPERANDS];   /* at index 0 */
    int64_t step[OPERANDS];  /* bytes from one index to the next */
    int64_t moving;          /* bit j: operand j is indexed by the absolute step */
    int64_t item, operands;
    double number;           /* the eps of a norm */
    int32_t add;             /* a product is added to its output */
    const struct Kernels *kernels;
    /* Of products: what is packed, from `matrix` with the strides of operand 2, for one trial or for each. */
    const char *matrix;
    char *packed;
    int64_t packed_trials, packed_bytes;
    int32_t few_columns, lent; /* how it is packed; and whether another program does that */
    char *scratch;
};

/* How the operands of an elementwise call lie along the inner axis. */
enum { CONTIGUOUS, FIRST_IS_NUMBER, SECOND_IS_NUMBER, LAYOUTS, STRIDED = LAYOUTS };
/* Of three inputs each may be one number along it, as the bits of an index say. */
enum { NUMBERS_OF_THREE = 8 };
/* Of a sum of two products the first input of each may. */
enum { NUMBERS_OF_FIRSTS = 4 };

/* How a sum of products goes over its numbers: see sum_product.h. */
enum { BESIDE, BESIDE_IN_PLACE, ALONG, ANYHOW, WAYS };
/* What its second input is to rows of sums. */
enum { EACH_ITS_OWN, SAME_FOR_ROWS, ONE_NUMBER, ONE_NUMBER_AND_SAME_X };

#define COUNT(name, value) +1
enum { ONE_COUNT = 0 ONE_OPERAND(COUNT), TWO_COUNT = 0 TWO_OPERANDS(COUNT) };
#undef COUNT

/* Everything for one type and one level of the processor. */
typedef struct Kernels {
    const char *level;
    Kernel one[ONE_COUNT];
    Kernel fill;              /* copies of one number */
    Kernel two[TWO_COUNT][LAYOUTS];
    Kernel any_power, one_power; /* the second has one exponent along the inner axis */
    Kernel ldexp;
    Kernel multiply_add[LAYOUTS];
    Kernel where[NUMBERS_OF_THREE];
    Kernel sum_of_products[NUMBERS_OF_FIRSTS];
    Kernel product;
    Kernel sum_product[WAYS];
    Kernel sum, largest, cumsum, norm, norm_jacobian, softmax, softmax_jacobian, clip_norm, clip_value;
    int (*few_columns)(const Call *call);
    int64_t (*packed_bytes)(const Call *call);
    int64_t (*product_scratch)(const Call *call);
    void (*pack)(const Call *call);
    /* Of each of up to MOST_COLUMNS columns of numbers (size, columns) the sum of squares and the largest magnitude. */
    void (*sizes)(
        const char *values, int64_t size, int64_t columns, const int64_t *stride, double *squares, double *largest
    );
} Kernels;
