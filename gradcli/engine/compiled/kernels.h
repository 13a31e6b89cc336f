/* All kernels for one type, REAL_IS_DOUBLE being 1 or 0, and for the level of one_level.h. */

#if REAL_IS_DOUBLE
#define REAL double
#define BITS uint64_t
#define LIBM(function) function
#define FMA __builtin_fma
#define NAME(name) JOIN(name, LEVEL, _double)
#else
#define REAL float
#define BITS uint32_t
#define LIBM(function) function##f
#define FMA __builtin_fmaf
#define NAME(name) JOIN(name, LEVEL, _float)
#endif

#include "elementary.h"
#include "elementwise.h"
#include "product.h"
#include "across.h"
#include "sum_product.h"

#define ONE(name, value) NAME(name##_contiguous),
#define THREE(name) {NAME(name##_contiguous), NAME(name##_first_number), NAME(name##_second_number)}
#define TWO(name, value) THREE(name),

static const Kernels NAME(kernels) = {
    .level = TEXT(LEVEL),
    .one = {ONE_OPERAND(ONE)},
    .two = {TWO_OPERANDS(TWO)},
    .fill = NAME(fill),
    .any_power = NAME(any_power),
    .one_power = NAME(one_power),
    .ldexp = NAME(ldexp_strided),
    .multiply_add = THREE(multiply_add),
    .where = {
        NAME(where_000), NAME(where_001), NAME(where_010), NAME(where_011),
        NAME(where_100), NAME(where_101), NAME(where_110), NAME(where_111),
    },
    .sum_of_products = {
        NAME(sum_of_products_00), NAME(sum_of_products_01), NAME(sum_of_products_10), NAME(sum_of_products_11),
    },
    .product = NAME(product),
    .sum_product = {
        [BESIDE] = NAME(sum_product_beside),
        [BESIDE_IN_PLACE] = NAME(sum_product_in_place),
        [ALONG] = NAME(sum_product_along),
        [ANYHOW] = NAME(sum_product_anyhow),
    },
    .sum = NAME(sum),
    .largest = NAME(largest),
    .cumsum = NAME(cumsum),
    .norm = NAME(norm),
    .norm_jacobian = NAME(norm_jacobian),
    .softmax = NAME(softmax),
    .softmax_jacobian = NAME(softmax_jacobian),
    .clip_norm = NAME(clip_norm),
    .clip_value = NAME(clip_value),
    .sizes = NAME(sizes),
    .few_columns = NAME(few_columns),
    .packed_bytes = NAME(packed_bytes),
    .product_scratch = NAME(product_scratch),
    .pack = NAME(pack),
};

#undef ONE
#undef THREE
#undef TWO
#include "undefine.h"
