/* pickle_internal.h - the machine, as pickle.c (opcodes) and pickle_stack.c (memory, stack, containers) share it. */
#ifndef SAG_PICKLE_INTERNAL_H
#define SAG_PICKLE_INTERNAL_H

#include "engine/io/pickle.h"

typedef sag_pickle_value value;

typedef struct block {
    struct block *next;
    size_t size, used;
    char bytes[] __attribute__((aligned(16)));
} block;

typedef struct list { /* of pointers, growing */
    value **item;
    int64_t count, capacity;
} list;

struct sag_pickle {
    block *blocks;
    value *root;
};

typedef struct machine {
    sag_pickle *pickle;
    const uint8_t *bytes;
    size_t size, at; /* at: the next byte */
    size_t opcode;   /* where the current opcode lies */
    const char *path;
    const char *const *globals;
    list stack; /* NULL: a mark */
    list memo;
    int64_t values; /* pushed so far */
    bool done;
} machine;

/* The stored message with the file and the place in front of it. */
sag_status sag_pickle_fail(const machine *m, sag_status status);
#define PICKLE_FAIL(m, ...) return sag_pickle_fail((m), sag_fail(SAG_ERR_FORMAT, __VA_ARGS__))

sag_status sag_pickle_no_memory(const machine *m);
void *sag_pickle_alloc(sag_pickle *p, size_t bytes); /* zeroed, as long as the pickle; NULL on failure */
sag_status sag_pickle_list_push(const machine *m, list *l, value *v);
/* Bounds what is made, and with it what containers can hold. */
sag_status sag_pickle_count(machine *m);

sag_status sag_pickle_push(machine *m, value v); /* a new value on the stack */
sag_status sag_pickle_pop(machine *m, value **v);
sag_status sag_pickle_top(const machine *m, value **v);

sag_status sag_pickle_append(machine *m, value *to, value *const *from, int64_t n); /* to a container's items */
/* The last n values of the stack, or for n < 0 those above the last mark, become one, */
sag_status sag_pickle_make(machine *m, sag_pickle_kind kind, int64_t n);
/* or go into the list or dictionary under them. */
sag_status sag_pickle_extend(machine *m, sag_pickle_kind kind, int64_t n);

#endif
