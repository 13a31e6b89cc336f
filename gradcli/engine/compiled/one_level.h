/* The kernels of one level for both types. What the level is, its file says before it includes this one: LEVEL (a name),
   VECTOR_BYTES, TILE_ROWS and LEVEL_HAS_FMA, which are taken back here. */

#define REAL_IS_DOUBLE 1
#include "kernels.h"
#define REAL_IS_DOUBLE 0
#include "kernels.h"
#undef LEVEL
#undef VECTOR_BYTES
#undef TILE_ROWS
#undef LEVEL_HAS_FMA
