/*
 * pickle.c - the stack machine of Python's pickle (Lib/pickletools.py describes every opcode), protocols 2 to 5, as far
 * as data need it.
 */
#include "engine/io/pickle.h"

#include <string.h>

#define ORDERED_DICT "collections.OrderedDict"
#define MAX_GLOBAL 200 /* bytes of a module's or a global's name */
#define ARENA_BLOCK ((size_t)1 << 16)

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

#define PICKLE_FAIL(m, ...) return pickle_fail((m), sag_fail(SAG_ERR_FORMAT, __VA_ARGS__))

static sag_status pickle_fail(const machine *m, sag_status status)
{
    return sag_fail(status, "%s: pickle, byte %zu: %s", m->path, m->opcode, sag_error_message());
}

const char *sag_pickle_kind_name(sag_pickle_kind kind)
{
    static const char *const names[] = {"None",         "a boolean", "a number",  "a long number",
                                        "a number",     "text",      "a tuple",   "a list",
                                        "a dictionary", "a name",    "an object", "a storage"};
    return names[kind];
}

bool sag_pickle_is_text(const value *v, const char *text)
{
    return v->kind == SAG_PICKLE_TEXT && v->length == strlen(text) && memcmp(v->text, text, v->length) == 0;
}

/* ---------------------------------------------------------------------------------------------- memory */

static sag_status no_memory(const machine *m)
{
    return sag_fail(SAG_ERR_MEMORY, "%s: no memory for its pickle", m->path);
}

static void *arena_alloc(sag_pickle *p, size_t bytes)
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

static sag_status list_push(const machine *m, list *l, value *v)
{
    if (l->count == l->capacity) {
        int64_t wider = l->capacity ? l->capacity * 2 : 64;
        value **grown = sag_host_realloc(l->item, (size_t)wider * sizeof *grown);
        if (!grown) return no_memory(m);
        l->item = grown;
        l->capacity = wider;
    }
    l->item[l->count++] = v;
    return SAG_OK;
}

/* Bounds what is made, and with it what containers can hold. */
static sag_status count_value(machine *m)
{
    if (++m->values > SAG_PICKLE_MAX_VALUES) PICKLE_FAIL(m, "more than %lld values", (long long)SAG_PICKLE_MAX_VALUES);
    return SAG_OK;
}

/* A new value on the stack. */
static sag_status push(machine *m, value v)
{
    SAG_TRY(count_value(m));
    value *kept = arena_alloc(m->pickle, sizeof *kept);
    if (!kept) return no_memory(m);
    *kept = v;
    return list_push(m, &m->stack, kept);
}

static sag_status push_whole(machine *m, sag_pickle_kind kind, int64_t whole)
{
    return push(m, (value){.kind = kind, .whole = whole});
}

/* --------------------------------------------------------------------------------------------- operands */

static sag_status take(machine *m, uint64_t n, const uint8_t **p)
{
    *p = NULL;
    if (n > m->size - m->at) PICKLE_FAIL(m, "is cut short");
    *p = m->bytes + m->at;
    m->at += (size_t)n;
    return SAG_OK;
}

/* A little-endian unsigned number of so many bytes. */
static sag_status take_number(machine *m, int bytes, uint64_t *v)
{
    const uint8_t *p;
    *v = 0;
    SAG_TRY(take(m, (uint64_t)bytes, &p));
    for (int i = bytes - 1; i >= 0; i--) *v = *v << 8 | p[i];
    return SAG_OK;
}

static sag_status pop(machine *m, value **v)
{
    *v = NULL;
    if (m->stack.count == 0 || !m->stack.item[m->stack.count - 1]) PICKLE_FAIL(m, "takes a value where there is none");
    *v = m->stack.item[--m->stack.count];
    return SAG_OK;
}

static sag_status top(const machine *m, value **v)
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

static sag_status append(machine *m, value *to, value *const *from, int64_t n)
{
    if (to->count + n > to->capacity) {
        int64_t wider = to->capacity * 2 > to->count + n ? to->capacity * 2 : to->count + n;
        value **grown = arena_alloc(m->pickle, (size_t)wider * sizeof *grown);
        if (!grown) return no_memory(m);
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
    for (int64_t i = 0; i < *n; i++) SAG_TRY(pop(m, &one));
    *first = m->stack.item ? m->stack.item + m->stack.count : NULL;
    return SAG_OK;
}

static sag_status check_pairs(const machine *m, sag_pickle_kind kind, int64_t n)
{
    if (kind == SAG_PICKLE_DICT && n % 2) PICKLE_FAIL(m, "a key without a value");
    return SAG_OK;
}

/* The last n values become one. */
static sag_status make(machine *m, sag_pickle_kind kind, int64_t n)
{
    value **first, v = {.kind = kind};
    SAG_TRY(pop_items(m, &first, &n));
    SAG_TRY(check_pairs(m, kind, n));
    SAG_TRY(append(m, &v, first, n));
    return push(m, v);
}

/* The last n values go into the list or dictionary under them. */
static sag_status extend(machine *m, sag_pickle_kind kind, int64_t n)
{
    value **first, *to;
    SAG_TRY(pop_items(m, &first, &n));
    SAG_TRY(top(m, &to));
    if (to->kind != kind)
        PICKLE_FAIL(m, "adds to %s as if it were %s", sag_pickle_kind_name(to->kind), sag_pickle_kind_name(kind));
    SAG_TRY(check_pairs(m, kind, n));
    return append(m, to, first, n);
}

/* ----------------------------------------------------------------------------------------------- globals */

static sag_status push_global(machine *m, const char *module, size_t m_length, const char *name, size_t n_length)
{
    if (m_length > MAX_GLOBAL || n_length > MAX_GLOBAL)
        PICKLE_FAIL(m, "a global's name of more than %d bytes", MAX_GLOBAL);
    char *text = arena_alloc(m->pickle, m_length + n_length + 2);
    if (!text) return no_memory(m);
    memcpy(text, module, m_length);
    text[m_length] = '.';
    memcpy(text + m_length + 1, name, n_length);
    text[m_length + 1 + n_length] = 0;
    bool known = strcmp(text, ORDERED_DICT) == 0;
    for (const char *const *g = m->globals; *g && !known; g++) known = strcmp(text, *g) == 0;
    if (!known) PICKLE_FAIL(m, "names %s, which is not among what is read here; nothing of the file was run", text);
    return push(m, (value){.kind = SAG_PICKLE_GLOBAL, .text = text, .length = strlen(text)});
}

/* Two lines of text: the module and the name. */
static sag_status read_global(machine *m)
{
    const char *line[2];
    size_t length[2];
    for (int i = 0; i < 2; i++) {
        line[i] = (const char *)m->bytes + m->at;
        const char *end = memchr(line[i], '\n', m->size - m->at);
        if (!end) PICKLE_FAIL(m, "is cut short");
        length[i] = (size_t)(end - line[i]);
        m->at += length[i] + 1;
    }
    return push_global(m, line[0], length[0], line[1], length[1]);
}

static sag_status read_stack_global(machine *m)
{
    value *module, *name;
    SAG_TRY(pop(m, &name));
    SAG_TRY(pop(m, &module));
    if (module->kind != SAG_PICKLE_TEXT || name->kind != SAG_PICKLE_TEXT)
        PICKLE_FAIL(m, "a global whose name is no text");
    return push_global(m, module->text, module->length, name->text, name->length);
}

/* A call stays a pair of name and arguments; an empty ordered dictionary is a dictionary. */
static sag_status reduce(machine *m)
{
    value *arguments, *callee;
    SAG_TRY(pop(m, &arguments));
    SAG_TRY(pop(m, &callee));
    if (callee->kind != SAG_PICKLE_GLOBAL || arguments->kind != SAG_PICKLE_TUPLE)
        PICKLE_FAIL(m, "calls %s with %s", sag_pickle_kind_name(callee->kind), sag_pickle_kind_name(arguments->kind));
    if (strcmp(callee->text, ORDERED_DICT) == 0) {
        if (arguments->count > 0) PICKLE_FAIL(m, "an OrderedDict that is made from arguments");
        return push(m, (value){.kind = SAG_PICKLE_DICT});
    }
    value v = {.kind = SAG_PICKLE_CALL};
    SAG_TRY(append(m, &v, (value *[]){callee, arguments}, 2));
    return push(m, v);
}

/* A dictionary's own attributes (PyTorch's _metadata) are of no use here. */
static sag_status build(machine *m)
{
    value *state, *object;
    SAG_TRY(pop(m, &state));
    SAG_TRY(top(m, &object));
    if (object->kind != SAG_PICKLE_DICT) PICKLE_FAIL(m, "sets the state of %s", sag_pickle_kind_name(object->kind));
    return SAG_OK;
}

/* ---------------------------------------------------------------------------------------- simple values */

static sag_status read_text(machine *m, int bytes)
{
    uint64_t n;
    const uint8_t *p;
    SAG_TRY(take_number(m, bytes, &n));
    SAG_TRY(take(m, n, &p));
    return push(m, (value){.kind = SAG_PICKLE_TEXT, .text = (const char *)p, .length = (size_t)n});
}

/* Two's complement of any length. */
static sag_status read_long(machine *m, int bytes)
{
    uint64_t n, v = 0;
    const uint8_t *p;
    SAG_TRY(take_number(m, bytes, &n));
    SAG_TRY(take(m, n, &p));
    if (n > 8) return push(m, (value){.kind = SAG_PICKLE_BIG, .text = (const char *)p, .length = (size_t)n});
    if (n > 0 && p[n - 1] & 0x80) v = UINT64_MAX;
    for (int i = (int)n - 1; i >= 0; i--) v = v << 8 | p[i];
    return push_whole(m, SAG_PICKLE_INT, (int64_t)v);
}

static sag_status read_float(machine *m)
{
    const uint8_t *p;
    uint64_t bits = 0;
    SAG_TRY(take(m, 8, &p));
    for (int i = 0; i < 8; i++) bits = bits << 8 | p[i];
    value v = {.kind = SAG_PICKLE_FLOAT};
    memcpy(&v.number, &bits, sizeof bits);
    return push(m, v);
}

static sag_status read_whole(machine *m, int bytes)
{
    uint64_t v;
    SAG_TRY(take_number(m, bytes, &v));
    return push_whole(m, SAG_PICKLE_INT, bytes == 4 ? (int32_t)(uint32_t)v : (int64_t)v);
}

/* ------------------------------------------------------------------------------------------------- memo */

/* Python numbers what it remembers from 0 without holes. */
static sag_status remember(machine *m, int bytes)
{
    uint64_t slot = (uint64_t)m->memo.count;
    value *v;
    if (bytes > 0) SAG_TRY(take_number(m, bytes, &slot));
    SAG_TRY(top(m, &v));
    SAG_TRY(count_value(m));
    if (slot > (uint64_t)m->memo.count) PICKLE_FAIL(m, "remembers under %llu, out of turn", (unsigned long long)slot);
    if (slot == (uint64_t)m->memo.count) return list_push(m, &m->memo, v);
    m->memo.item[slot] = v;
    return SAG_OK;
}

static sag_status recall(machine *m, int bytes)
{
    uint64_t slot;
    SAG_TRY(take_number(m, bytes, &slot));
    if (slot >= (uint64_t)m->memo.count) PICKLE_FAIL(m, "recalls %llu, which it never saw", (unsigned long long)slot);
    SAG_TRY(count_value(m));
    return list_push(m, &m->stack, m->memo.item[slot]);
}

/* --------------------------------------------------------------------------------------------- machine */

static sag_status stop(machine *m)
{
    SAG_TRY(pop(m, &m->pickle->root));
    if (m->stack.count > 0) PICKLE_FAIL(m, "ends with values left over");
    m->done = true;
    return SAG_OK;
}

static sag_status mark(machine *m)
{
    SAG_TRY(count_value(m));
    return list_push(m, &m->stack, NULL);
}

static sag_status step(machine *m)
{
    uint64_t n;
    value *v;
    m->opcode = m->at;
    SAG_TRY(take_number(m, 1, &n));
    switch ((uint8_t)n) {
    case 0x80: /* PROTO */
        SAG_TRY(take_number(m, 1, &n));
        if (n < 2 || n > 5) PICKLE_FAIL(m, "has protocol %d; 2 to 5 are known", (int)n);
        return SAG_OK;
    case 0x95: return take_number(m, 8, &n); /* FRAME */
    case '.': return stop(m);
    case '(': return mark(m);
    case '0': return pop(m, &v);
    case 'N': return push_whole(m, SAG_PICKLE_NONE, 0);
    case 0x88: return push_whole(m, SAG_PICKLE_BOOL, 1);
    case 0x89: return push_whole(m, SAG_PICKLE_BOOL, 0);
    case 'K': return read_whole(m, 1); /* BININT1 */
    case 'M': return read_whole(m, 2); /* BININT2 */
    case 'J': return read_whole(m, 4); /* BININT */
    case 0x8a: return read_long(m, 1);
    case 0x8b: return read_long(m, 4);
    case 'G': return read_float(m);
    case 'X': return read_text(m, 4);  /* BINUNICODE */
    case 0x8c: return read_text(m, 1); /* SHORT_BINUNICODE */
    case 0x8d: return read_text(m, 8); /* BINUNICODE8 */
    case 'U': return read_text(m, 1);  /* SHORT_BINSTRING, Python 2 */
    case 'T': return read_text(m, 4);  /* BINSTRING */
    case ')': return make(m, SAG_PICKLE_TUPLE, 0);
    case 0x85: return make(m, SAG_PICKLE_TUPLE, 1);
    case 0x86: return make(m, SAG_PICKLE_TUPLE, 2);
    case 0x87: return make(m, SAG_PICKLE_TUPLE, 3);
    case 't': return make(m, SAG_PICKLE_TUPLE, -1);
    case ']': return make(m, SAG_PICKLE_LIST, 0);
    case 'l': return make(m, SAG_PICKLE_LIST, -1);
    case '}': return make(m, SAG_PICKLE_DICT, 0);
    case 'd': return make(m, SAG_PICKLE_DICT, -1);
    case 'a': return extend(m, SAG_PICKLE_LIST, 1);
    case 'e': return extend(m, SAG_PICKLE_LIST, -1);
    case 's': return extend(m, SAG_PICKLE_DICT, 2);
    case 'u': return extend(m, SAG_PICKLE_DICT, -1);
    case 'q': return remember(m, 1);
    case 'r': return remember(m, 4);
    case 0x94: return remember(m, 0); /* MEMOIZE */
    case 'h': return recall(m, 1);
    case 'j': return recall(m, 4);
    case 'c': return read_global(m);
    case 0x93: return read_stack_global(m);
    case 'R': return reduce(m);
    case 'b': return build(m);
    case 'Q': return make(m, SAG_PICKLE_PERSISTENT, 1); /* BINPERSID */
    default: PICKLE_FAIL(m, "opcode 0x%02x, which no state dict needs", (unsigned)n);
    }
}

sag_status sag_pickle_read(const uint8_t *bytes, size_t size, size_t *at, const char *path, const char *const *globals,
                           sag_pickle **out)
{
    *out = NULL;
    machine m = {.bytes = bytes, .size = size, .at = *at < size ? *at : size, .path = path, .globals = globals};
    m.pickle = sag_host_alloc(sizeof *m.pickle);
    if (!m.pickle) return no_memory(&m);
    sag_status status = SAG_OK;
    while (status == SAG_OK && !m.done) status = step(&m);
    sag_host_free(m.stack.item);
    sag_host_free(m.memo.item);
    if (status != SAG_OK) {
        sag_pickle_free(m.pickle);
        return status;
    }
    *at = m.at;
    *out = m.pickle;
    return SAG_OK;
}

const sag_pickle_value *sag_pickle_root(const sag_pickle *pickle)
{
    return pickle->root;
}

void sag_pickle_free(sag_pickle *p)
{
    if (!p) return;
    while (p->blocks) {
        block *next = p->blocks->next;
        sag_host_free(p->blocks);
        p->blocks = next;
    }
    sag_host_free(p);
}
