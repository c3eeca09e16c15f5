/* pickle_stack.c - the pickle machine's memory, its stack, and the containers that are made of what lies on it. */
#include "engine/io/pickle_internal.h"

#include <string.h>

#define ARENA_BLOCK ((size_t)1 << 16)

sag_status sag_pickle_fail(const machine *m, sag_status status)
{
    return sag_fail(status, "%s: pickle, byte %zu: %s", m->path, m->opcode, sag_error_message());
}

/* ---------------------------------------------------------------------------------------------- memory */

sag_status sag_pickle_no_memory(const machine *m)
{
    return sag_fail(SAG_ERR_MEMORY, "%s: no memory for its pickle", m->path);
}

void *sag_pickle_alloc(sag_pickle *p, size_t bytes)
{
    bytes = (bytes + 15) / 16 * 16;
    if (!p->blocks || p->blocks->size - p->blocks->used < bytes) {
        size_t size = bytes > ARENA_BLOCK ? bytes : ARENA_BLOCK;
        block *b = sag_host_alloc(sizeof *b + size);
        if (!b) return NULL;
        b->size = size;
        b->next = p->blocks;
        p->blocks = b;
    }
    void *at = p->blocks->bytes + p->blocks->used;
    p->blocks->used += bytes;
    return at;
}

sag_status sag_pickle_list_push(const machine *m, list *l, value *v)
{
    if (l->count == l->capacity) {
        int64_t wider = l->capacity ? l->capacity * 2 : 64;
        value **grown = sag_host_realloc(l->item, (size_t)wider * sizeof *grown);
        if (!grown) return sag_pickle_no_memory(m);
        l->item = grown;
        l->capacity = wider;
    }
    l->item[l->count++] = v;
    return SAG_OK;
}

sag_status sag_pickle_count(machine *m)
{
    if (++m->values > SAG_PICKLE_MAX_VALUES) PICKLE_FAIL(m, "more than %lld values", (long long)SAG_PICKLE_MAX_VALUES);
    return SAG_OK;
}

sag_status sag_pickle_push(machine *m, value v)
{
    SAG_TRY(sag_pickle_count(m));
    value *kept = sag_pickle_alloc(m->pickle, sizeof *kept);
    if (!kept) return sag_pickle_no_memory(m);
    *kept = v;
    return sag_pickle_list_push(m, &m->stack, kept);
}

/* ----------------------------------------------------------------------------------------------- stack */

sag_status sag_pickle_pop(machine *m, value **v)
{
    *v = NULL;
    if (m->stack.count == 0 || !m->stack.item[m->stack.count - 1]) PICKLE_FAIL(m, "takes a value where there is none");
    *v = m->stack.item[--m->stack.count];
    return SAG_OK;
}

sag_status sag_pickle_top(const machine *m, value **v)
{
    *v = NULL;
    if (m->stack.count == 0 || !m->stack.item[m->stack.count - 1]) PICKLE_FAIL(m, "takes a value where there is none");
    *v = m->stack.item[m->stack.count - 1];
    return SAG_OK;
}

/* The values above the last mark, which all go from the stack; they stay readable until the next push. */
static sag_status pop_to_mark(machine *m, value ***first, int64_t *n)
{
    int64_t i = m->stack.count;
    while (i > 0 && m->stack.item[i - 1]) i--;
    if (i == 0) PICKLE_FAIL(m, "goes back to a mark where there is none");
    *first = m->stack.item + i;
    *n = m->stack.count - i;
    m->stack.count = i - 1;
    return SAG_OK;
}

/* -------------------------------------------------------------------------------------------- containers */

sag_status sag_pickle_append(machine *m, value *to, value *const *from, int64_t n)
{
    if (to->count + n > to->capacity) {
        int64_t wider = to->capacity * 2 > to->count + n ? to->capacity * 2 : to->count + n;
        value **grown = sag_pickle_alloc(m->pickle, (size_t)wider * sizeof *grown);
        if (!grown) return sag_pickle_no_memory(m);
        if (to->count > 0) memcpy(grown, to->item, (size_t)to->count * sizeof *grown);
        to->item = grown;
        to->capacity = wider;
    }
    if (n > 0) memcpy(to->item + to->count, from, (size_t)n * sizeof *from);
    to->count += n;
    return SAG_OK;
}

/* The last *n values of the stack, or those above the mark (*n < 0), which all go from it. */
static sag_status pop_items(machine *m, value ***first, int64_t *n)
{
    value *one;
    if (*n < 0) return pop_to_mark(m, first, n);
    for (int64_t i = 0; i < *n; i++) SAG_TRY(sag_pickle_pop(m, &one));
    *first = m->stack.item ? m->stack.item + m->stack.count : NULL;
    return SAG_OK;
}

static sag_status check_pairs(const machine *m, sag_pickle_kind kind, int64_t n)
{
    if (kind == SAG_PICKLE_DICT && n % 2) PICKLE_FAIL(m, "a key without a value");
    return SAG_OK;
}

sag_status sag_pickle_make(machine *m, sag_pickle_kind kind, int64_t n)
{
    value **first, v = {.kind = kind};
    SAG_TRY(pop_items(m, &first, &n));
    SAG_TRY(check_pairs(m, kind, n));
    SAG_TRY(sag_pickle_append(m, &v, first, n));
    return sag_pickle_push(m, v);
}

sag_status sag_pickle_extend(machine *m, sag_pickle_kind kind, int64_t n)
{
    value **first, *to;
    SAG_TRY(pop_items(m, &first, &n));
    SAG_TRY(sag_pickle_top(m, &to));
    if (to->kind != kind)
        PICKLE_FAIL(m, "adds to %s as if it were %s", sag_pickle_kind_name(to->kind), sag_pickle_kind_name(kind));
    SAG_TRY(check_pairs(m, kind, n));
    return sag_pickle_append(m, to, first, n);
}
