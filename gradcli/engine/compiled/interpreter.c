/* Programs of calls on arrays, run step by step: gradcli.engine.compiled.table says what they are.

   Memory: a program holds the buffers of its operands as long as it lives. What an operand can touch is reckoned from
   its view when the program is made, and lies within its buffer; `run` keeps within the steps that were reckoned with.
   Only then is anything read or written, and nothing that runs checks again. */

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#if !defined(__GNUC__)
#error "this needs vector types: GCC or Clang"
#endif

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "operations.h"
#include "program.h"

#include "levels.h"

/* ------------------------------------------------------------------------------------------------- operations */

typedef enum { ONE, TWO, POWER, LDEXP, MULTIPLY_ADD, WHERE, SUM_OF_PRODUCTS, PRODUCT, SUM, SUM_PRODUCT, LARGEST,
    CUMSUM, CUMSUM_REVERSED, NORM, NORM_JACOBIAN, SOFTMAX, SOFTMAX_JACOBIAN, CLIP_NORM, CLIP_VALUE } Kind;

typedef struct {
    const char *name;
    Kind kind;
    int index;           /* in the table of its kind */
    int outputs, inputs; /* operands */
    int along_axis;      /* it takes an axis */
} Operation;

#define ONE_ENTRY(name, value) {#name, ONE, 0, 1, 1, 0},
#define TWO_ENTRY(name, value) {#name, TWO, 0, 1, 2, 0},
static Operation operations[] = {
    ONE_OPERAND(ONE_ENTRY)
    TWO_OPERANDS(TWO_ENTRY)
    {"power", POWER, 0, 1, 2, 0},
    {"ldexp", LDEXP, 0, 1, 2, 0},
    {"multiply_add", MULTIPLY_ADD, 0, 1, 3, 0},
    {"where", WHERE, 0, 1, 3, 0},
    {"sum_of_products", SUM_OF_PRODUCTS, 0, 1, 4, 0},
    {"product", PRODUCT, 0, 1, 2, 0},
    {"product_transposed", PRODUCT, 0, 1, 2, 0},
    {"product_add", PRODUCT, 0, 1, 2, 0},
    {"product_transposed_add", PRODUCT, 0, 1, 2, 0},
    {"sum_axis", SUM, 0, 1, 1, 1},
    {"sum_product", SUM_PRODUCT, 0, 1, 2, 1},
    {"largest", LARGEST, 0, 1, 1, 1},
    {"cumsum", CUMSUM, 0, 1, 1, 1},
    {"cumsum_reversed", CUMSUM_REVERSED, 0, 1, 1, 1},
    {"norm", NORM, 0, 2, 1, 1},
    {"norm_jacobian", NORM_JACOBIAN, 0, 1, 3, 1},
    {"softmax", SOFTMAX, 0, 1, 1, 1},
    {"softmax_jacobian", SOFTMAX_JACOBIAN, 0, 1, 2, 1},
    {"clip_norm", CLIP_NORM, 0, 2, 1, 1},
    {"clip_value", CLIP_VALUE, 0, 2, 1, 1},
};
enum { OPERATIONS = sizeof operations / sizeof *operations };

static void number_operations(void) {
    for (int i = 0; i < ONE_COUNT; i++) {
        operations[i].index = i;
    }
    for (int i = 0; i < TWO_COUNT; i++) {
        operations[ONE_COUNT + i].index = i;
    }
}

static const Operation *operation_named(const char *name) {
    for (int i = 0; i < OPERATIONS; i++) {
        if (strcmp(operations[i].name, name) == 0) {
            return &operations[i];
        }
    }
    return NULL;
}

/* ----------------------------------------------------------------------------------------------------- programs */

typedef struct {
    PyObject *object;
    int writable;
    Py_buffer buffer;
    char *lowest; /* its first byte */
} Held;

typedef struct Program {
    PyObject_HEAD
    struct Program *lender; /* one on other numbers, whose packed matrices serve here as well; or NULL */
    Call *calls;
    Py_ssize_t count, room;
    Held *held;
    Py_ssize_t held_count, held_room;
    char *scratch;
    int64_t scratch_bytes;
    int64_t local_steps, moving_steps; /* that a run may have */
    char type;
    int level;
    int running;
} Program;

enum { MOST_AXES = 8 };

/* An operand as its view says, the axis of steps apart. */
typedef struct {
    char *start;
    int axes;
    int64_t shape[MOST_AXES], stride[MOST_AXES];
    int64_t steps, step; /* steps: how many there are, where they differ in memory */
    int64_t lowest, highest; /* what it touches at one step, in bytes from `start`; the highest one excluded */
    int moving;
    int itemsize;
} View;

static int refuse(const char *operation, const char *sentence) {
    PyErr_Format(PyExc_ValueError, "%s: %s", operation, sentence);
    return -1;
}

/* Adds (count - 1) * stride to the reach of an operand; false where that leaves 64 bits. */
static int extend(int64_t count, int64_t stride, int64_t *lowest, int64_t *highest) {
    int64_t reach;
    if (__builtin_mul_overflow(count - 1, stride, &reach)) {
        return 0;
    }
    int64_t *end = reach < 0 ? lowest : highest;
    return !__builtin_add_overflow(*end, reach, end);
}

static Held *hold(Program *program, PyObject *object, int writable) {
    for (Py_ssize_t i = program->held_count - 1; i >= 0; i--) {
        if (program->held[i].object == object && program->held[i].writable >= writable) {
            return &program->held[i];
        }
    }
    if (program->held_count == program->held_room) {
        const Py_ssize_t room = program->held_room ? 2 * program->held_room : 16;
        Held *held = PyMem_Realloc(program->held, (size_t)room * sizeof *held);
        if (!held) {
            PyErr_NoMemory();
            return NULL;
        }
        program->held = held;
        program->held_room = room;
    }
    Held *held = &program->held[program->held_count];
    Py_buffer *buffer = &held->buffer;
    int64_t lowest = 0, highest = 0;
    if (PyObject_GetBuffer(object, buffer, PyBUF_STRIDES | (writable ? PyBUF_WRITABLE : 0)) < 0) {
        PyErr_Clear();
        PyErr_SetString(
            PyExc_ValueError, writable ? "a buffer that is written is to be writable" : "a buffer is to be an array"
        );
        return NULL;
    }
    int dense = buffer->ndim == 0 || buffer->strides;
    for (int i = 0; i < buffer->ndim && dense; i++) {
        dense = buffer->shape[i] > 0 && extend(buffer->shape[i], buffer->strides[i], &lowest, &highest);
    }
    if (!dense || highest - lowest + buffer->itemsize != buffer->len) {
        PyBuffer_Release(buffer);
        PyErr_SetString(PyExc_ValueError, "a buffer is to be contiguous, in whatever order of its axes");
        return NULL;
    }
    held->lowest = (char *)buffer->buf + lowest;
    held->object = object;
    held->writable = writable;
    program->held_count++;
    return held;
}

/* What a format of the buffer protocol says: 'd', 'f', 'i' for 32 and 'q' for 64 bits; 0 for others. */
static char type_of(const Py_buffer *buffer) {
    const char *format = buffer->format ? buffer->format : "B";
    if (*format == '@' || *format == '=') {
        format++;
    }
    if (strlen(format) != 1) {
        return 0;
    }
    if ((*format == 'd' && buffer->itemsize == 8) || (*format == 'f' && buffer->itemsize == 4)) {
        return *format;
    }
    if (strchr("ilq", *format)) {
        return buffer->itemsize == 4 ? 'i' : (buffer->itemsize == 8 ? 'q' : 0);
    }
    return 0;
}

/* Reads (buffer, view, moving). type: what the numbers are to be. */
static int read_operand(Program *program, const char *name, PyObject *operand, int writable, char type, View *view) {
    if (!PyTuple_Check(operand) || PyTuple_Size(operand) != 3) {
        return refuse(name, "an operand is (buffer, view, moving)");
    }
    const int moving = PyObject_IsTrue(PyTuple_GetItem(operand, 2));
    if (moving < 0) {
        return -1;
    }
    Held *held = hold(program, PyTuple_GetItem(operand, 0), writable);
    if (!held) {
        return -1;
    }
    Py_buffer buffer;
    if (PyObject_GetBuffer(PyTuple_GetItem(operand, 1), &buffer, PyBUF_FORMAT | PyBUF_STRIDES) < 0) {
        PyErr_Clear();
        return refuse(name, "a view is to be an array");
    }
    const int axes = buffer.ndim;
    const char found = type_of(&buffer);
    view->start = buffer.buf;
    view->itemsize = (int)buffer.itemsize;
    view->moving = moving;
    view->axes = axes ? axes - 1 : 0;
    view->steps = INT64_MAX;
    view->step = 0;
    view->lowest = 0;
    view->highest = buffer.itemsize;
    int within = axes <= MOST_AXES;
    int empty = 0;
    for (int i = 0; i < axes && within; i++) {
        empty |= buffer.shape[i] < 1;
        if (i) {
            view->shape[i - 1] = buffer.shape[i];
            view->stride[i - 1] = buffer.shape[i] == 1 ? 0 : buffer.strides[i];
            within = empty || extend(buffer.shape[i], buffer.strides[i], &view->lowest, &view->highest);
        } else if (buffer.shape[0] > 1 && buffer.strides[0] != 0) {
            view->steps = buffer.shape[0];
            view->step = buffer.strides[0];
        }
    }
    PyBuffer_Release(&buffer);
    if (axes > MOST_AXES) {
        return refuse(name, "a view has too many axes");
    }
    if (empty) {
        return refuse(name, "a view is to have at least one number");
    }
    if (found != type) {
        return refuse(name, type == 'i'   ? "the exponents are to be 32-bit integers"
                          : type == 'q' ? "the counters are to be 64-bit integers"
                          : type == 'd' ? "a view is to be of type float64"
                                        : "a view is to be of type float32");
    }
    int64_t lowest = view->lowest, highest = view->highest;
    if (within && view->step) {
        within = extend(view->steps, view->step, &lowest, &highest);
    }
    const int64_t offset = (int64_t)((intptr_t)view->start - (intptr_t)held->lowest);
    if (!within || offset < 0 || offset > held->buffer.len || lowest < -offset
        || highest > held->buffer.len - offset) {
        return refuse(name, "a view is to lie within its buffer");
    }
    intptr_t misplaced = (intptr_t)view->start | (intptr_t)view->step;
    for (int i = 0; i < view->axes; i++) {
        misplaced |= (intptr_t)view->stride[i];
    }
    if (misplaced & (view->itemsize - 1)) {
        return refuse(name, "a view is to be aligned");
    }
    int64_t *steps = moving ? &program->moving_steps : &program->local_steps;
    *steps = view->steps < *steps ? view->steps : *steps;
    return 0;
}

/* --------------------------------------------------------------------------------------------------- overlapping */

enum { SAME, APART, OVERLAPPING };

typedef struct {
    int64_t size, most; /* a coefficient > 0 of a whole number between 0 and `most` */
} Term;

static int by_size(const void *a, const void *b) {
    const int64_t x = ((const Term *)a)->size, y = ((const Term *)b)->size;
    return (x < y) - (x > y);
}

/* Whether a sum of the terms may lie in [low, high]; `work` bounds the search, and 1 is said where it ends it. */
static int may_reach(const Term *terms, int count, const int64_t *reach, int64_t low, int64_t high, int *work) {
    if (--*work < 0 || (low <= 0 && high >= 0)) {
        return 1;
    }
    if (!count || high < 0 || low > reach[0]) {
        return 0;
    }
    const int64_t rest = reach[1], size = terms->size;
    int64_t from = low - rest <= 0 ? 0 : (low - rest + size - 1) / size;
    const int64_t to = high / size < terms->most ? high / size : terms->most;
    for (; from <= to; from++) {
        if (may_reach(terms + 1, count - 1, reach + 1, low - from * size, high - from * size, work)) {
            return 1;
        }
    }
    return 0;
}

/* How the memory of an input lies to that of the output, at any one step. */
static int relation(const View *out, const View *in) {
    int64_t out_low = (intptr_t)out->start + out->lowest, out_high = (intptr_t)out->start + out->highest;
    int64_t in_low = (intptr_t)in->start + in->lowest, in_high = (intptr_t)in->start + in->highest;
    const int together = out->step == in->step && out->moving == in->moving;
    if (!together) {
        if (out->step) {
            extend(out->steps, out->step, &out_low, &out_high);
        }
        if (in->step) {
            extend(in->steps, in->step, &in_low, &in_high);
        }
    }
    if (out_high <= in_low || in_high <= out_low) {
        return APART;
    }
    if (!together) {
        return OVERLAPPING;
    }
    int same = out->start == in->start && out->axes == in->axes && out->itemsize == in->itemsize;
    for (int i = 0; i < out->axes && same; i++) {
        same = out->shape[i] == in->shape[i] && out->stride[i] == in->stride[i];
    }
    if (same) {
        return SAME;
    }
    /* An index of the one and an index of the other meet where a sum over both, of strides made positive, is within an
       item of the distance between the lowest addresses. Equal strides count as one. */
    Term terms[2 * MOST_AXES];
    int count = 0;
    for (int side = 0; side < 2; side++) {
        const View *view = side ? in : out;
        for (int i = 0; i < view->axes; i++) {
            const int64_t size = view->stride[i] < 0 ? -view->stride[i] : view->stride[i];
            if (!size || view->shape[i] == 1) {
                continue;
            }
            int j = 0;
            while (j < count && terms[j].size != size) {
                j++;
            }
            if (j == count) {
                terms[count++] = (Term){size, 0};
            }
            terms[j].most += view->shape[i] - 1;
        }
    }
    qsort(terms, (size_t)count, sizeof *terms, by_size);
    int64_t reach[2 * MOST_AXES + 1] = {0};
    for (int i = count - 1; i >= 0; i--) {
        reach[i] = reach[i + 1] + terms[i].size * terms[i].most;
    }
    /* out_low + sum of the output's = in_high - itemsize - (sum of the input's): both counted upwards. */
    const int64_t distance = in_high - in->itemsize - out_low;
    int work = 1000;
    return may_reach(terms, count, reach, distance - in->itemsize + 1, distance + out->itemsize - 1, &work) ? OVERLAPPING
                                                                                                            : APART;
}

/* Whether no two places of an output are the same memory; false also where that is not plain. */
static int is_one_to_one(const View *view) {
    Term terms[MOST_AXES];
    int count = 0;
    for (int i = 0; i < view->axes; i++) {
        if (view->shape[i] > 1) {
            terms[count++] = (Term){view->stride[i] < 0 ? -view->stride[i] : view->stride[i], view->shape[i] - 1};
        }
    }
    qsort(terms, (size_t)count, sizeof *terms, by_size);
    int64_t reach = view->itemsize;
    for (int i = count - 1; i >= 0; i--) {
        if (terms[i].size < reach) {
            return 0;
        }
        reach += terms[i].size * terms[i].most;
    }
    return 1;
}

/* -------------------------------------------------------------------------------------------------------- calls */

static Call *new_call(Program *program) {
    if (program->count == program->room) {
        const Py_ssize_t room = program->room ? 2 * program->room : 32;
        Call *calls = PyMem_Realloc(program->calls, (size_t)room * sizeof *calls);
        if (!calls) {
            PyErr_NoMemory();
            return NULL;
        }
        program->calls = calls;
        program->room = room;
    }
    Call *call = &program->calls[program->count++];
    memset(call, 0, sizeof *call);
    return call;
}

/* Copies numbers of 8 or 4 bytes. */
static void gather(const char *from, int64_t from_stride, char *to, int64_t to_stride, int64_t item, int64_t count) {
    if (item == 8) {
        for (int64_t i = 0; i < count; i++) {
            memcpy(to + i * to_stride, from + i * from_stride, 8);
        }
    } else {
        for (int64_t i = 0; i < count; i++) {
            memcpy(to + i * to_stride, from + i * from_stride, 4);
        }
    }
}

static inline void advance(const Call *call, char **at, int axis) {
    for (int j = 0; j < OPERANDS; j++) {
        at[j] += call->stride[j][axis];
    }
}

/* Runs the inner kernel at each place along the axes before MIDDLE. */
static void walk(const Call *call, char *const *at) {
    char *first[OPERANDS], *second[OPERANDS], *third[OPERANDS];
    memcpy(first, at, sizeof first);
    for (int64_t i = 0; i < call->shape[0]; i++) {
        memcpy(second, first, sizeof second);
        for (int64_t j = 0; j < call->shape[1]; j++) {
            memcpy(third, second, sizeof third);
            for (int64_t k = 0; k < call->shape[OUTER]; k++) {
                call->inside(call, third);
                advance(call, third, OUTER);
            }
            advance(call, second, 1);
        }
        advance(call, first, 0);
    }
}

/* The same for a kernel that goes along OUTER itself. */
static void walk_two(const Call *call, char *const *at) {
    char *first[OPERANDS], *second[OPERANDS];
    memcpy(first, at, sizeof first);
    for (int64_t i = 0; i < call->shape[0]; i++) {
        memcpy(second, first, sizeof second);
        for (int64_t j = 0; j < call->shape[1]; j++) {
            call->inside(call, second);
            advance(call, second, 1);
        }
        advance(call, first, 0);
    }
}

enum { PIECE = 128 };

/* Runs a kernel for contiguous numbers on copies of the operands, piece by piece. */
static void copied(const Call *call, char *const *at) {
    const int64_t item = call->item, n = call->shape[INNER];
    double memory[OPERANDS][PIECE];
    char *copies[OPERANDS];
    for (int j = 0; j < OPERANDS; j++) {
        copies[j] = (char *)memory[j];
    }
    Call piece;
    memset(&piece, 0, sizeof piece);
    piece.shape[MIDDLE] = 1;
    for (int64_t row = 0; row < call->shape[MIDDLE]; row++) {
        for (int64_t from = 0; from < n; from += PIECE) {
            const int64_t count = n - from < PIECE ? n - from : PIECE;
            for (int j = 1; j < call->operands; j++) {
                const int64_t stride = call->stride[j][INNER];
                gather(at[j] + row * call->stride[j][MIDDLE] + from * stride, stride, copies[j], item, item, count);
            }
            piece.shape[INNER] = count;
            call->contiguous(&piece, copies);
            const int64_t stride = call->stride[0][INNER];
            gather(copies[0], item, at[0] + row * call->stride[0][MIDDLE] + from * stride, stride, item, count);
        }
    }
}

static void set_kernel(Call *call, Kernel kernel, int goes_along_outer) {
    const int flat = call->shape[0] == 1 && call->shape[1] == 1 && (goes_along_outer || call->shape[OUTER] == 1);
    call->inside = kernel;
    call->kernel = flat ? kernel : (goes_along_outer ? walk_two : walk);
}

static void set_addresses(Call *call, const View *views, int count) {
    for (int j = 0; j < OPERANDS; j++) {
        call->start[j] = views[0].start; /* also of operands that there are not */
    }
    for (int j = 0; j < count; j++) {
        call->start[j] = views[j].start;
        call->step[j] = views[j].step;
        call->moving |= (int64_t)views[j].moving << j;
    }
}

/* Puts axes together that lie behind each other in all operands, from the last on; returns how many are left. */
static int collapse(int axes, int64_t *shape, int64_t (*stride)[MOST_AXES], int operands) {
    int left = 0; /* those at the end, kept at [MOST_AXES - left, MOST_AXES) */
    for (int i = axes - 1; i >= 0; i--) {
        if (shape[i] == 1) {
            continue;
        }
        const int last = MOST_AXES - left;
        int joins = left > 0;
        for (int j = 0; j < operands && joins; j++) {
            joins = stride[j][i] == stride[j][last] * shape[last];
        }
        if (joins) {
            shape[last] *= shape[i];
            continue;
        }
        left++;
        shape[last - 1] = shape[i];
        for (int j = 0; j < operands; j++) {
            stride[j][last - 1] = stride[j][i];
        }
    }
    return left;
}

/* The strides of an operand along the axes of a shape: 0 where it has length 1 there. */
static int broadcast(const char *name, const View *view, int axes, const int64_t *shape, int64_t *stride) {
    if (view->axes && view->axes != axes) {
        return refuse(name, "all views are to have as many axes as the output");
    }
    for (int i = 0; i < axes; i++) {
        const int64_t length = view->axes ? view->shape[i] : 1;
        if (length != 1 && length != shape[i]) {
            return refuse(name, "the shapes do not fit each other");
        }
        stride[i] = length == 1 ? 0 : view->stride[i];
    }
    return 0;
}

static int64_t size_of(const View *view) {
    int64_t size = 1;
    for (int i = 0; i < view->axes; i++) {
        size *= view->shape[i];
    }
    return size;
}

/* Lets a call write into memory of the program's own instead, packed as the axes of `out` say; adds the copy after it. */
static void redirect(View *out, View *temporary, char *memory) {
    *temporary = *out;
    temporary->start = memory;
    temporary->step = 0;
    temporary->steps = INT64_MAX;
    temporary->moving = 0;
    int64_t stride = out->itemsize;
    for (int i = out->axes - 1; i >= 0; i--) {
        temporary->stride[i] = out->shape[i] == 1 ? 0 : stride;
        stride *= out->shape[i];
    }
    temporary->lowest = 0;
    temporary->highest = stride;
}

/* Of two products, makes the factor that is one number along the inner axis, if either is, the first of its two. */
static void order_factors(View *views, int64_t (*stride)[MOST_AXES]) {
    for (int j = 1; j < 4; j += 2) {
        if (stride[j][MOST_AXES - 1] && !stride[j + 1][MOST_AXES - 1]) {
            const View view = views[j];
            views[j] = views[j + 1];
            views[j + 1] = view;
            int64_t kept[MOST_AXES];
            memcpy(kept, stride[j], sizeof kept);
            memcpy(stride[j], stride[j + 1], sizeof kept);
            memcpy(stride[j + 1], kept, sizeof kept);
        }
    }
}

static int add_elementwise(Program *program, const Operation *operation, const View *given, int count) {
    const char *name = operation->name;
    View views[OPERANDS];
    memcpy(views, given, (size_t)count * sizeof *views);
    const View *out = &views[0];
    int64_t shape[MOST_AXES], stride[OPERANDS][MOST_AXES];
    memset(stride, 0, sizeof stride);
    memcpy(shape, out->shape, sizeof shape);
    for (int j = 0; j < count; j++) {
        if (broadcast(name, &views[j], out->axes, out->shape, stride[j]) < 0) {
            return -1;
        }
    }
    const int axes = collapse(out->axes, shape, stride, count);
    if (axes > AXES) {
        return refuse(name, "the views have more axes that do not lie behind each other than a call can have");
    }
    if (operation->kind == SUM_OF_PRODUCTS) {
        order_factors(views, stride);
    }
    Call *call = new_call(program);
    if (!call) {
        return -1;
    }
    for (int i = 0; i < AXES; i++) {
        const int there = i >= AXES - axes;
        call->shape[i] = there ? shape[MOST_AXES - AXES + i] : 1;
        for (int j = 0; j < count; j++) {
            call->stride[j][i] = there ? stride[j][MOST_AXES - AXES + i] : 0;
        }
    }
    set_addresses(call, views, count);
    const Kernels *kernels = levels[program->level][program->type == 'f'];
    const int64_t item = out->itemsize;
    int contiguous[OPERANDS] = {1, 1, 1, 1, 1}, number[OPERANDS] = {0};
    int either = 1, numbers = 0;
    for (int j = 0; j < count; j++) {
        contiguous[j] = call->shape[INNER] == 1 || call->stride[j][INNER] == item;
        number[j] = call->stride[j][INNER] == 0;
        either = either && (contiguous[j] || (j && number[j]));
        numbers |= j && !contiguous[j] ? 1 << (j - 1) : 0;
    }
    const int sums = operation->kind == SUM_OF_PRODUCTS;
    either = either && (!sums || (contiguous[2] && contiguous[4]));
    const int layout = operation->kind == WHERE || sums ? (either ? CONTIGUOUS : STRIDED)
        : !contiguous[0] || !contiguous[3]              ? STRIDED
        : contiguous[1] && contiguous[2]                ? CONTIGUOUS
        : count == 2                                    ? STRIDED
        : number[1] && contiguous[2]                    ? FIRST_IS_NUMBER
        : contiguous[1] && number[2]                    ? SECOND_IS_NUMBER
                                                        : STRIDED;
    const int which = layout == STRIDED ? CONTIGUOUS : layout;
    Kernel kernel;
    switch (operation->kind) {
    case ONE:
        kernel = kernels->one[operation->index];
        break;
    case TWO:
        kernel = kernels->two[operation->index][which];
        break;
    case POWER:
        kernel = contiguous[0] && contiguous[1] && number[2] ? kernels->one_power : kernels->any_power;
        break;
    case LDEXP:
        kernel = kernels->ldexp;
        break;
    case WHERE:
        kernel = kernels->where[either ? numbers : 0];
        break;
    case SUM_OF_PRODUCTS:
        kernel = kernels->sum_of_products[either ? (numbers & 1) | (numbers >> 1 & 2) : 0];
        break;
    default:
        kernel = kernels->multiply_add[which];
    }
    if (strcmp(name, "copy") == 0 && contiguous[0] && number[1]) {
        kernel = kernels->fill;
    } else if (layout == STRIDED && operation->kind != POWER && operation->kind != LDEXP) {
        call->contiguous = kernel;
        call->item = item;
        call->operands = count;
        kernel = copied;
    }
    set_kernel(call, kernel, 0);
    return 0;
}

static char *own_memory(Program *program, int64_t bytes) {
    /* 64 bytes more, for vectors that are aligned. */
    PyObject *memory = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)(bytes + 64));
    if (!memory) {
        return NULL;
    }
    Held *held = hold(program, memory, 1);
    if (!held) {
        Py_DECREF(memory);
        return NULL;
    }
    Py_DECREF(memory); /* its buffer keeps it */
    memset(held->buffer.buf, 0, (size_t)(bytes + 64));
    return (char *)(((intptr_t)held->buffer.buf + 63) & ~(intptr_t)63);
}

/* What the lender has packed for a call, if that is the same matrix in the same way; else NULL. */
static char *lent(const Program *program, const Call *call) {
    const Program *lender = program->lender;
    for (Py_ssize_t i = 0; lender && i < lender->count; i++) {
        const Call *other = &lender->calls[i];
        if (other->packed && other->kernels == call->kernels && other->matrix == call->matrix
            && other->few_columns == call->few_columns && other->packed_trials == call->packed_trials
            && other->shape[1] == call->shape[1] && other->shape[2] == call->shape[2]
            && memcmp(other->stride[2], call->stride[2], sizeof call->stride[2]) == 0) {
            return other->packed;
        }
    }
    return NULL;
}

/* matrix (R or 1, m, k), vectors (R, k, ...) -> (R, m, ...), the same axes behind. */
static int add_product(Program *program, const Operation *operation, const View *views) {
    const char *name = operation->name;
    const View *out = &views[0], *matrix = &views[1], *vectors = &views[2];
    const int transposed = strncmp(name, "product_transposed", 18) == 0;
    const int add = strcmp(name + strlen(name) - 4, "_add") == 0;
    if (matrix->axes != 3 || vectors->axes < 2 || out->axes != vectors->axes) {
        return refuse(name, "it takes a matrix (steps, R, m, k) and vectors (steps, R, k, ...)");
    }
    if (matrix->step) {
        return refuse(name, "the matrix is to be the same at every step");
    }
    const int rows = transposed ? 2 : 1, inner = transposed ? 1 : 2;
    int fits = out->shape[1] == matrix->shape[rows] && vectors->shape[1] == matrix->shape[inner]
        && (matrix->shape[0] == 1 || matrix->shape[0] == out->shape[0])
        && (vectors->shape[0] == 1 || vectors->shape[0] == out->shape[0]);
    /* What is repeated may be of any size, and is packed in full. */
    int64_t numbers;
    if (__builtin_mul_overflow(out->shape[0], out->shape[1] + 1024, &numbers)
        || __builtin_mul_overflow(numbers, vectors->shape[1], &numbers) || numbers > (int64_t)1 << 40) {
        return refuse(name, "the matrix is too large");
    }
    int64_t shape[MOST_AXES], stride[2][MOST_AXES];
    for (int i = 2; i < out->axes; i++) {
        fits = fits && out->shape[i] == vectors->shape[i];
        shape[i - 2] = out->shape[i];
        stride[0][i - 2] = out->stride[i];
        stride[1][i - 2] = vectors->stride[i];
    }
    if (!fits) {
        return refuse(name, "the shapes do not fit each other");
    }
    const int columns = collapse(out->axes - 2, shape, stride, 2);
    if (columns > 1) {
        return refuse(name, "the columns of a product are to lie behind each other");
    }
    Call *call = new_call(program);
    if (!call) {
        return -1;
    }
    call->shape[0] = out->shape[0];
    call->shape[1] = out->shape[1];
    call->shape[2] = vectors->shape[1];
    call->shape[INNER] = columns ? shape[MOST_AXES - 1] : 1;
    int64_t(*along)[AXES] = call->stride;
    along[0][0] = out->stride[0];
    along[0][1] = out->stride[1];
    along[0][INNER] = columns ? stride[0][MOST_AXES - 1] : out->itemsize;
    along[1][0] = vectors->shape[0] == 1 ? 0 : vectors->stride[0];
    along[1][2] = vectors->stride[1];
    along[1][INNER] = columns ? stride[1][MOST_AXES - 1] : out->itemsize;
    along[2][0] = matrix->stride[0];
    along[2][1] = matrix->stride[rows];
    along[2][2] = matrix->stride[inner];
    const View two[] = {*out, *vectors};
    set_addresses(call, two, 2);
    call->matrix = matrix->start;
    call->add = add;
    call->kernels = levels[program->level][program->type == 'f'];
    call->packed_trials = matrix->stride[0] ? call->shape[0] : 1;
    call->few_columns = call->kernels->few_columns(call);
    call->packed_bytes = call->kernels->packed_bytes(call);
    call->kernel = call->kernels->product;
    const int64_t scratch = call->kernels->product_scratch(call);
    program->scratch_bytes = scratch > program->scratch_bytes ? scratch : program->scratch_bytes;
    call->packed = lent(program, call);
    call->lent = call->packed != NULL;
    if (call->lent) {
        return 0;
    }
    call->packed = own_memory(program, call->packed_trials * call->packed_bytes);
    if (!call->packed) {
        return -1;
    }
    call->kernels->pack(call);
    return 0;
}

/* What a call along an axis goes over: that axis, and the others, which are at the end of `shape`. */
typedef struct {
    int64_t size, along[OPERANDS];
    int axes;
    int64_t shape[MOST_AXES], stride[OPERANDS][MOST_AXES];
} Division;

static int divide_axes(
    const char *name, Kind kind, const View *views, int outputs, int count, int axis, Division *division
) {
    const View *out = &views[0];
    if (axis < 1 || axis > out->axes) {
        return refuse(name, "there is no such axis");
    }
    axis--; /* of those behind the steps */
    const int sums = kind == SUM || kind == LARGEST || kind == SUM_PRODUCT;
    const View *full = kind == SUM || kind == LARGEST ? &views[1] : out;
    if (full->axes != out->axes) {
        return refuse(name, "all views are to have as many axes as the output");
    }
    int64_t *shape = division->shape, (*stride)[MOST_AXES] = division->stride;
    memset(division, 0, sizeof *division);
    memcpy(shape, full->shape, sizeof division->shape);
    if (kind == SUM_PRODUCT) {
        for (int j = 1; j < count && shape[axis] == 1; j++) {
            shape[axis] = views[j].axes == full->axes ? views[j].shape[axis] : 1;
        }
    }
    for (int j = 0; j < count; j++) {
        const int alone = (sums && j == 0) || ((kind == CLIP_NORM || kind == CLIP_VALUE) && j > 0);
        if (broadcast(name, &views[j], full->axes, shape, stride[j]) < 0) {
            return -1;
        }
        if (alone && views[j].axes && views[j].shape[axis] != 1) {
            return refuse(name, "an operand is to have length 1 along the axis");
        }
        division->along[j] = stride[j][axis];
        stride[j][axis] = 0;
    }
    for (int j = 0; j < outputs; j++) {
        int fits = views[j].axes == full->axes;
        for (int i = 0; i < full->axes && fits; i++) {
            fits = i == axis || views[j].shape[i] == shape[i];
        }
        if (!fits) {
            return refuse(name, "the shapes do not fit each other");
        }
    }
    division->size = shape[axis];
    for (int i = axis; i < full->axes - 1; i++) {
        shape[i] = shape[i + 1];
        for (int j = 0; j < count; j++) {
            stride[j][i] = stride[j][i + 1];
        }
    }
    division->axes = collapse(full->axes - 1, shape, stride, count);
    if (division->axes > AXES - 1) {
        return refuse(name, "the views have more axes that do not lie behind each other than a call can have");
    }
    return 0;
}

/* A new call with the axis as INNER and the last of the others at `last`. */
static Call *new_call_along(Program *program, const View *views, int count, const Division *division, int last) {
    Call *call = new_call(program);
    if (!call) {
        return NULL;
    }
    for (int i = 0; i < INNER; i++) {
        call->shape[i] = 1;
    }
    for (int i = 0; i < division->axes; i++) {
        const int from = MOST_AXES - 1 - i, to = last - i;
        call->shape[to] = division->shape[from];
        for (int j = 0; j < count; j++) {
            call->stride[j][to] = division->stride[j][from];
        }
    }
    call->shape[INNER] = division->size;
    for (int j = 0; j < count; j++) {
        call->stride[j][INNER] = division->along[j];
    }
    set_addresses(call, views, count);
    return call;
}

static Kernel kernel_along(const Kernels *kernels, Kind kind) {
    switch (kind) {
    case SUM:
        return kernels->sum;
    case LARGEST:
        return kernels->largest;
    case CUMSUM:
    case CUMSUM_REVERSED:
        return kernels->cumsum;
    case NORM:
        return kernels->norm;
    case NORM_JACOBIAN:
        return kernels->norm_jacobian;
    case SOFTMAX:
        return kernels->softmax;
    case SOFTMAX_JACOBIAN:
        return kernels->softmax_jacobian;
    case CLIP_NORM:
        return kernels->clip_norm;
    default:
        return kernels->clip_value;
    }
}

enum {
    LARGE = 1 << 18, /* bytes: half of a usual second cache */
    SHORT_ROW = 256  /* bytes: of shorter ones that do not lie behind each other it does not pay to go along each */
};

/* out = sum of x y along an axis; sum_product.h says in which ways. */
static int add_sum_product(Program *program, const char *name, const View *given, int axis) {
    enum { LAST = MOST_AXES - 1, BEFORE = MOST_AXES - 2 };
    View views[] = {given[0], given[1], given[2]};
    Division division;
    if (divide_axes(name, SUM_PRODUCT, views, 1, 3, axis, &division) < 0) {
        return -1;
    }
    int64_t(*const stride)[MOST_AXES] = division.stride, *const along = division.along;
    const int64_t item = views[0].itemsize;
    const int axes = division.axes, has_rows = axes > 1;
    int beside = axes > 0 && stride[0][LAST] == item && (stride[1][LAST] || stride[2][LAST]);
    for (int j = 1; j < 3 && beside; j++) {
        beside = stride[j][LAST] == 0 || stride[j][LAST] == item;
    }
    /* x is to be the one that is contiguous; of two that are, one that differs from row to row. */
    const int both = stride[1][LAST] == stride[2][LAST];
    const int turned = !beside ? along[1] != item : both ? has_rows && !stride[1][BEFORE] : !stride[1][LAST];
    if (turned) {
        views[1] = given[2];
        views[2] = given[1];
        if (divide_axes(name, SUM_PRODUCT, views, 1, 3, axis, &division) < 0) {
            return -1;
        }
    }
    int way = ANYHOW;
    if (beside) {
        double bytes = (double)(item * (along[1] ? division.size : 1));
        for (int i = MOST_AXES - axes; i < MOST_AXES; i++) {
            bytes *= stride[1][i] ? (double)division.shape[i] : 1;
        }
        const int64_t row = division.shape[LAST] * item;
        const int joined = has_rows && stride[0][BEFORE] == row && stride[1][BEFORE] == row && !stride[2][BEFORE];
        const int in_place = bytes > LARGE && along[1] != row && !(has_rows && !stride[1][BEFORE])
            && (row > SHORT_ROW || (joined && stride[2][LAST]));
        way = in_place ? BESIDE_IN_PLACE : BESIDE;
    } else if (along[1] == item && (along[2] == item || along[2] == 0)) {
        way = ALONG;
    }
    Call *call = new_call_along(program, views, 3, &division, beside || axes == AXES - 1 ? MIDDLE : OUTER);
    if (!call) {
        return -1;
    }
    set_kernel(call, levels[program->level][program->type == 'f']->sum_product[way], 1);
    return 0;
}

/* What works along one axis: that one becomes the last, and of the others the last one becomes MIDDLE if the numbers
   along it are contiguous, so that they are treated side by side. */
static int add_along_axis(
    Program *program, const Operation *operation, const View *views, int count, int axis, double number
) {
    Division division;
    if (divide_axes(operation->name, operation->kind, views, operation->outputs, count, axis, &division) < 0) {
        return -1;
    }
    /* Behind the axes that are walked over comes the one whose numbers are treated side by side. */
    int beside = division.axes > 0;
    for (int j = 0; j < count && beside; j++) {
        const int64_t there = division.stride[j][MOST_AXES - 1];
        beside = there == 0 || there == views[j].itemsize;
    }
    if (operation->kind == SUM && beside && division.stride[1][MOST_AXES - 1]) {
        /* The same to the last bit, in registers. */
        static const double one = 1;
        static const float one_of_float = 1;
        const View number = {.start = (char *)(program->type == 'd' ? (const void *)&one : (const void *)&one_of_float)};
        const View factors[] = {views[0], views[1], number};
        return add_sum_product(program, operation->name, factors, axis);
    }
    beside = beside || division.axes == AXES - 1;
    Call *call = new_call_along(program, views, count, &division, beside ? MIDDLE : OUTER);
    if (!call) {
        return -1;
    }
    call->number = number;
    if (operation->kind == CUMSUM_REVERSED) {
        for (int j = 0; j < count; j++) {
            call->start[j] += (division.size - 1) * division.along[j];
            call->stride[j][INNER] = -division.along[j];
        }
    }
    set_kernel(call, kernel_along(levels[program->level][program->type == 'f'], operation->kind), 0);
    return 0;
}

/* The type of an operand: that of the program, but for exponents, counters and thresholds. */
static char type_of_operand(const Program *program, const Operation *operation, int j) {
    if (operation->kind == LDEXP && j == 2) {
        return 'i';
    }
    if (operation->kind == CLIP_NORM || operation->kind == CLIP_VALUE) {
        return j == 0 ? program->type : (j == 1 ? 'q' : 'd');
    }
    return program->type;
}

/* Whether an input may be the output itself, for one along an axis. */
static int may_be_same(const Operation *operation, int j) {
    switch (operation->kind) {
    case NORM:
        return j == 2;
    case CUMSUM:
    case CUMSUM_REVERSED:
    case SOFTMAX:
        return j == 1;
    case NORM_JACOBIAN:
        return j == 3;
    case SOFTMAX_JACOBIAN:
        return j == 2;
    default:
        return 0;
    }
}

/* (name, outputs, inputs, axis, number) */
static int add_call(Program *program, PyObject *described) {
    const char *name;
    PyObject *outputs, *inputs;
    int axis;
    double number;
    if (!PyTuple_Check(described)
        || !PyArg_ParseTuple(
            described, "sO!O!id", &name, &PyTuple_Type, &outputs, &PyTuple_Type, &inputs, &axis, &number
        )) {
        PyErr_Clear();
        return refuse("a call", "it is (name, outputs, inputs, axis, number)");
    }
    const Operation *operation = operation_named(name);
    if (!operation) {
        return refuse(name, "there is no such operation");
    }
    if (PyTuple_Size(outputs) != operation->outputs || PyTuple_Size(inputs) != operation->inputs) {
        return refuse(name, "it has another number of operands");
    }
    const int count = operation->outputs + operation->inputs;
    View views[OPERANDS];
    for (int j = 0; j < count; j++) {
        const int written = j < operation->outputs;
        PyObject *operand = PyTuple_GetItem(written ? outputs : inputs, written ? j : j - operation->outputs);
        if (read_operand(program, name, operand, written, type_of_operand(program, operation, j), &views[j]) < 0) {
            return -1;
        }
        if (written && views[j].axes == 0 && views[j].steps == INT64_MAX) {
            views[j].axes = 0;
        }
    }
    const int slope = operation->kind == NORM; /* its second output may repeat along the axis */
    if (!is_one_to_one(&views[0]) || (operation->outputs == 2 && !slope && !is_one_to_one(&views[1]))) {
        return refuse(name, "an output is to have a place of its own for every number");
    }
    if (operation->along_axis) {
        for (int j = 1; j < count; j++) {
            const int found = relation(&views[0], &views[j]);
            const int other = operation->outputs == 2 && j > 1 ? relation(&views[1], &views[j]) : APART;
            if (found == OVERLAPPING || (found == SAME && !may_be_same(operation, j)) || other != APART) {
                return refuse(name, "its operands may not overlap");
            }
        }
        return operation->kind == SUM_PRODUCT ? add_sum_product(program, name, views, axis)
                                              : add_along_axis(program, operation, views, count, axis, number);
    }
    /* What an output overlaps without being the same is to be read before it is written, all of it. */
    int overlapping = 0;
    for (int j = 1; j < count; j++) {
        if (operation->kind == PRODUCT && j == 1) {
            continue; /* the matrix is packed before */
        }
        const int found = relation(&views[0], &views[j]);
        overlapping |= found == OVERLAPPING || (found == SAME && operation->kind == PRODUCT);
    }
    if (overlapping && operation->kind == PRODUCT && strcmp(name + strlen(name) - 4, "_add") == 0) {
        return refuse(name, "its operands may not overlap");
    }
    View out = views[0];
    if (overlapping) {
        char *memory = own_memory(program, size_of(&out) * out.itemsize);
        if (!memory) {
            return -1;
        }
        redirect(&out, &views[0], memory);
    }
    const int done = operation->kind == PRODUCT ? add_product(program, operation, views)
                                                : add_elementwise(program, operation, views, count);
    if (done < 0 || !overlapping) {
        return done;
    }
    const View copied[] = {out, views[0]};
    return add_elementwise(program, operation_named("copy"), copied, 2);
}

/* ------------------------------------------------------------------------------------------------- the type Program */

static void program_dealloc(PyObject *self) {
    Program *program = (Program *)self;
    PyTypeObject *type = Py_TYPE(self);
    for (Py_ssize_t i = 0; i < program->held_count; i++) {
        PyBuffer_Release(&program->held[i].buffer);
    }
    PyMem_Free(program->held);
    PyMem_Free(program->calls);
    Py_XDECREF((PyObject *)program->lender);
    freefunc release = (freefunc)PyType_GetSlot(type, Py_tp_free);
    release(self);
    Py_DECREF(type);
}

static PyObject *program_new(PyTypeObject *type, PyObject *arguments, PyObject *keywords) {
    static char *names[] = {"number", "calls", "level", "lender", NULL};
    const char *number, *wanted = NULL;
    PyObject *calls, *lender = Py_None;
    if (!PyArg_ParseTupleAndKeywords(
            arguments, keywords, "sO!|zO", names, &number, &PyList_Type, &calls, &wanted, &lender
        )) {
        return NULL;
    }
    if (lender != Py_None && Py_TYPE(lender) != type) {
        PyErr_SetString(PyExc_TypeError, "a lender is a program");
        return NULL;
    }
    if (strcmp(number, "d") != 0 && strcmp(number, "f") != 0) {
        PyErr_SetString(PyExc_ValueError, "the type of a program is \"d\" or \"f\"");
        return NULL;
    }
    int level = 0;
    while (wanted && level < level_count && strcmp(levels[level][0]->level, wanted) != 0) {
        level++;
    }
    if (level == level_count) {
        PyErr_SetString(PyExc_ValueError, "this processor has no such level");
        return NULL;
    }
    allocfunc make = (allocfunc)PyType_GetSlot(type, Py_tp_alloc);
    Program *program = (Program *)make(type, 0);
    if (!program) {
        return NULL;
    }
    program->type = *number;
    program->level = level;
    program->local_steps = program->moving_steps = INT64_MAX;
    if (lender != Py_None) {
        Py_INCREF(lender);
        program->lender = (Program *)lender;
    }
    for (Py_ssize_t i = 0; i < PyList_Size(calls); i++) {
        PyObject *call = PyList_GetItem(calls, i);
        Py_INCREF(call);
        const int done = add_call(program, call);
        Py_DECREF(call);
        if (done < 0) {
            Py_DECREF(program);
            return NULL;
        }
    }
    if (program->scratch_bytes) {
        program->scratch = own_memory(program, program->scratch_bytes);
        if (!program->scratch) {
            Py_DECREF(program);
            return NULL;
        }
        for (Py_ssize_t i = 0; i < program->count; i++) {
            program->calls[i].scratch = program->scratch;
        }
    }
    return (PyObject *)program;
}

static int begin(Program *program) {
    if (program->running) {
        PyErr_SetString(PyExc_ValueError, "the program is running already, in another thread");
        return -1;
    }
    program->running = 1;
    return 0;
}

static PyObject *program_pack(PyObject *self, PyObject *Py_UNUSED(nothing)) {
    Program *program = (Program *)self;
    if (begin(program) < 0) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < program->count; i++) {
        if (program->calls[i].packed && !program->calls[i].lent) {
            program->calls[i].kernels->pack(&program->calls[i]);
        }
    }
    Py_END_ALLOW_THREADS
    program->running = 0;
    Py_RETURN_NONE;
}

static void run_calls(Program *program, int64_t first, int64_t count, int reverse) {
    Call *const calls = program->calls, *const end = calls + program->count;
    for (Call *call = calls; call < end; call++) {
        for (int j = 0; j < OPERANDS; j++) {
            const int64_t from = (call->moving >> j & 1 ? first : 0) + (reverse ? count - 1 : 0);
            call->at[j] = call->start[j] + from * call->step[j];
            call->next[j] = reverse ? -call->step[j] : call->step[j];
        }
    }
    for (int64_t i = 0; i < count; i++) {
        for (Call *call = calls; call < end; call++) {
            call->kernel(call, call->at);
            /* By way of whole numbers: behind the last step they lead nowhere. */
            for (int j = 0; j < OPERANDS; j++) {
                call->at[j] = (char *)((uintptr_t)call->at[j] + (uintptr_t)call->next[j]);
            }
        }
    }
}

static PyObject *program_run(PyObject *self, PyObject *arguments) {
    Program *program = (Program *)self;
    long long first, count;
    int reverse;
    if (!PyArg_ParseTuple(arguments, "LLp", &first, &count, &reverse)) {
        return NULL;
    }
    if (first < 0 || count < 0 || count > program->local_steps || first > program->moving_steps
        || count > program->moving_steps - first) {
        PyErr_SetString(PyExc_ValueError, "the program has not so many steps");
        return NULL;
    }
    if (begin(program) < 0) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    run_calls(program, first, count, reverse);
    Py_END_ALLOW_THREADS
    program->running = 0;
    Py_RETURN_NONE;
}

static PyMethodDef program_methods[] = {
    {"run", program_run, METH_VARARGS, "run(first, count, reverse): do all calls, for `count` steps from `first` on."},
    {"pack", program_pack, METH_NOARGS, "Read the matrices of products again, but those that a lender has."},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot program_slots[] = {
    {Py_tp_new, program_new},
    {Py_tp_dealloc, program_dealloc},
    {Py_tp_methods, program_methods},
    {Py_tp_doc, "Program(number, calls, level=None, lender=None): calls on arrays, checked and ready to run."},
    {0, NULL},
};

static PyType_Spec program_spec = {
    "gradcli.engine.compiled._interpreter.Program", sizeof(Program), 0, Py_TPFLAGS_DEFAULT, program_slots
};

/* ------------------------------------------------------------------------------------------------------- norms */

/* log2 of a norm the square of which leaves the range of floats: scaled first. `largest` is its largest magnitude. */
static double careful_log2_norm(
    const char *values, int64_t size, int64_t stride, int is_double, double largest
) {
    if (largest == 0) {
        return -HUGE_VAL;
    }
    if (!isfinite(largest)) {
        return (double)NAN;
    }
    int exponent;
    frexp(largest, &exponent);
    double squares = 0;
    for (int64_t k = 0; k < size; k++, values += stride) {
        const double value = ldexp(is_double ? *(const double *)values : (double)*(const float *)values, -exponent);
        squares += value * value;
    }
    return 0.5 * log2(squares) + exponent;
}

typedef struct {
    const char *values;
    int64_t shape[4], stride[4]; /* (n, R, size, B) */
    double *log2_norms, *largest; /* (n, R, B); either may be NULL */
    int is_double;
} Norms;

static void find_norms(const Norms *norms) {
    const Kernels *kernels = levels[0][!norms->is_double];
    const int64_t size = norms->shape[2], columns = norms->shape[3];
    int64_t place = 0;
    for (int64_t i = 0; i < norms->shape[0]; i++) {
        for (int64_t r = 0; r < norms->shape[1]; r++) {
            for (int64_t from = 0; from < columns; from += MOST_COLUMNS) {
                const int64_t count = columns - from < MOST_COLUMNS ? columns - from : MOST_COLUMNS;
                const char *values
                    = norms->values + i * norms->stride[0] + r * norms->stride[1] + from * norms->stride[3];
                double squares[MOST_COLUMNS], largest[MOST_COLUMNS];
                kernels->sizes(values, size, count, norms->stride + 2, squares, largest);
                for (int64_t b = 0; b < count; b++, place++) {
                    if (norms->largest) {
                        norms->largest[place] = largest[b];
                    }
                    if (norms->log2_norms) {
                        norms->log2_norms[place] = squares[b] > 1e-200 && squares[b] < 1e200
                            ? 0.5 * log2(squares[b])
                            : careful_log2_norm(
                                values + b * norms->stride[3], size, norms->stride[2], norms->is_double, largest[b]
                            );
                    }
                }
            }
        }
    }
}

static int norms_output(PyObject *array, Py_buffer *buffer, const Py_buffer *values, double **numbers) {
    buffer->obj = NULL;
    *numbers = NULL;
    if (array == Py_None) {
        return 0;
    }
    if (PyObject_GetBuffer(array, buffer, PyBUF_C_CONTIGUOUS | PyBUF_FORMAT | PyBUF_WRITABLE) < 0) {
        return -1;
    }
    if (type_of(buffer) != 'd' || buffer->ndim != 3 || buffer->shape[0] != values->shape[0]
        || buffer->shape[1] != values->shape[1] || buffer->shape[2] != values->shape[3]) {
        PyErr_SetString(PyExc_ValueError, "what is found of values (n, R, size, B) is (n, R, B), of type float64");
        return -1;
    }
    *numbers = buffer->buf;
    return 0;
}

static PyObject *log2_norms(PyObject *Py_UNUSED(self), PyObject *arguments) {
    PyObject *array, *outputs[2];
    if (!PyArg_ParseTuple(arguments, "OOO", &array, &outputs[0], &outputs[1])) {
        return NULL;
    }
    Py_buffer values, found[2];
    found[0].obj = found[1].obj = NULL;
    if (PyObject_GetBuffer(array, &values, PyBUF_STRIDES | PyBUF_FORMAT) < 0) {
        return NULL;
    }
    const char type = type_of(&values);
    Norms norms = {.values = values.buf, .is_double = type == 'd'};
    int wrong = 0;
    if (values.ndim != 4 || (type != 'd' && type != 'f')) {
        PyErr_SetString(PyExc_ValueError, "the values are to be (n, R, size, B), of type float64 or float32");
        wrong = 1;
    }
    wrong = wrong || norms_output(outputs[0], &found[0], &values, &norms.log2_norms) < 0
        || norms_output(outputs[1], &found[1], &values, &norms.largest) < 0;
    for (int i = 0; i < 4 && !wrong; i++) {
        norms.shape[i] = values.shape[i];
        norms.stride[i] = values.strides[i];
        if (norms.stride[i] % values.itemsize) {
            PyErr_SetString(PyExc_ValueError, "the values are to be aligned");
            wrong = 1;
        }
    }
    if (!wrong) {
        Py_BEGIN_ALLOW_THREADS
        find_norms(&norms);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&values);
    PyBuffer_Release(&found[0]);
    PyBuffer_Release(&found[1]);
    if (wrong) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* ---------------------------------------------------------------------------------------------------- the module */

static PyMethodDef functions[] = {
    {"log2_norms", log2_norms, METH_VARARGS, "log2_norms(values, norms, largest): see table.log2_norms."},
    {NULL, NULL, 0, NULL},
};

static PyObject *tuple_of_names(int count, const char *(*name)(int)) {
    PyObject *names = PyTuple_New(count);
    for (int i = 0; names && i < count; i++) {
        PyObject *text = PyUnicode_FromString(name(i));
        if (!text || PyTuple_SetItem(names, i, text) < 0) {
            Py_CLEAR(names);
        }
    }
    return names;
}

static const char *operation_name(int i) {
    return operations[i].name;
}

static const char *level_name(int i) {
    return levels[i][0]->level;
}

static int execute(PyObject *module) {
    number_operations();
    find_levels();
    PyObject *type = PyType_FromModuleAndSpec(module, &program_spec, NULL);
    PyObject *names = tuple_of_names(OPERATIONS, operation_name), *found = tuple_of_names(level_count, level_name);
    const int failed = !type || !names || !found || PyModule_AddObjectRef(module, "Program", type) < 0
        || PyModule_AddObjectRef(module, "OPERATIONS", names) < 0 || PyModule_AddObjectRef(module, "LEVELS", found) < 0;
    Py_XDECREF(type);
    Py_XDECREF(names);
    Py_XDECREF(found);
    return failed ? -1 : 0;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, execute},
    {0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "gradcli.engine.compiled._interpreter",
    .m_doc = "Runs programs of calls on arrays; see gradcli.engine.compiled.table.",
    .m_methods = functions,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__interpreter(void) {
    return PyModuleDef_Init(&module);
}
