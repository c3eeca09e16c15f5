/*
 * pickle.c - the stack machine of Python's pickle (Lib/pickletools.py describes every opcode), protocols 2 to 5, as far
 * as data need it.
 */
#include "engine/io/pickle_internal.h"

#include <string.h>

#define ORDERED_DICT "collections.OrderedDict"
#define MAX_GLOBAL 200 /* bytes of a module's or a global's name */

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

/* ----------------------------------------------------------------------------------------------- globals */

static sag_status push_global(machine *m, const char *module, size_t m_length, const char *name, size_t n_length)
{
    if (m_length > MAX_GLOBAL || n_length > MAX_GLOBAL)
        PICKLE_FAIL(m, "a global's name of more than %d bytes", MAX_GLOBAL);
    char *text = sag_pickle_alloc(m->pickle, m_length + n_length + 2);
    if (!text) return sag_pickle_no_memory(m);
    memcpy(text, module, m_length);
    text[m_length] = '.';
    memcpy(text + m_length + 1, name, n_length);
    text[m_length + 1 + n_length] = 0;
    bool known = strcmp(text, ORDERED_DICT) == 0;
    for (const char *const *g = m->globals; *g && !known; g++) known = strcmp(text, *g) == 0;
    if (!known) PICKLE_FAIL(m, "names %s, which is not among what is read here; nothing of the file was run", text);
    return sag_pickle_push(m, (value){.kind = SAG_PICKLE_GLOBAL, .text = text, .length = strlen(text)});
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
    SAG_TRY(sag_pickle_pop(m, &name));
    SAG_TRY(sag_pickle_pop(m, &module));
    if (module->kind != SAG_PICKLE_TEXT || name->kind != SAG_PICKLE_TEXT)
        PICKLE_FAIL(m, "a global whose name is no text");
    return push_global(m, module->text, module->length, name->text, name->length);
}

/* A call stays a pair of name and arguments; an empty ordered dictionary is a dictionary. */
static sag_status reduce(machine *m)
{
    value *arguments, *callee;
    SAG_TRY(sag_pickle_pop(m, &arguments));
    SAG_TRY(sag_pickle_pop(m, &callee));
    if (callee->kind != SAG_PICKLE_GLOBAL || arguments->kind != SAG_PICKLE_TUPLE)
        PICKLE_FAIL(m, "calls %s with %s", sag_pickle_kind_name(callee->kind), sag_pickle_kind_name(arguments->kind));
    if (strcmp(callee->text, ORDERED_DICT) == 0) {
        if (arguments->count > 0) PICKLE_FAIL(m, "an OrderedDict that is made from arguments");
        return sag_pickle_push(m, (value){.kind = SAG_PICKLE_DICT});
    }
    value v = {.kind = SAG_PICKLE_CALL};
    SAG_TRY(sag_pickle_append(m, &v, (value *[]){callee, arguments}, 2));
    return sag_pickle_push(m, v);
}

/* A dictionary's own attributes (PyTorch's _metadata) are of no use here. */
static sag_status build(machine *m)
{
    value *state, *object;
    SAG_TRY(sag_pickle_pop(m, &state));
    SAG_TRY(sag_pickle_top(m, &object));
    if (object->kind != SAG_PICKLE_DICT) PICKLE_FAIL(m, "sets the state of %s", sag_pickle_kind_name(object->kind));
    return SAG_OK;
}

/* ---------------------------------------------------------------------------------------- simple values */

static sag_status push_whole(machine *m, sag_pickle_kind kind, int64_t whole)
{
    return sag_pickle_push(m, (value){.kind = kind, .whole = whole});
}

static sag_status read_text(machine *m, int bytes)
{
    uint64_t n;
    const uint8_t *p;
    SAG_TRY(take_number(m, bytes, &n));
    SAG_TRY(take(m, n, &p));
    return sag_pickle_push(m, (value){.kind = SAG_PICKLE_TEXT, .text = (const char *)p, .length = (size_t)n});
}

/* Two's complement of any length. */
static sag_status read_long(machine *m, int bytes)
{
    uint64_t n, v = 0;
    const uint8_t *p;
    SAG_TRY(take_number(m, bytes, &n));
    SAG_TRY(take(m, n, &p));
    if (n > 8) return sag_pickle_push(m, (value){.kind = SAG_PICKLE_BIG, .text = (const char *)p, .length = (size_t)n});
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
    return sag_pickle_push(m, v);
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
    SAG_TRY(sag_pickle_top(m, &v));
    SAG_TRY(sag_pickle_count(m));
    if (slot > (uint64_t)m->memo.count) PICKLE_FAIL(m, "remembers under %llu, out of turn", (unsigned long long)slot);
    if (slot == (uint64_t)m->memo.count) return sag_pickle_list_push(m, &m->memo, v);
    m->memo.item[slot] = v;
    return SAG_OK;
}

static sag_status recall(machine *m, int bytes)
{
    uint64_t slot;
    SAG_TRY(take_number(m, bytes, &slot));
    if (slot >= (uint64_t)m->memo.count) PICKLE_FAIL(m, "recalls %llu, which it never saw", (unsigned long long)slot);
    SAG_TRY(sag_pickle_count(m));
    return sag_pickle_list_push(m, &m->stack, m->memo.item[slot]);
}

/* --------------------------------------------------------------------------------------------- machine */

static sag_status stop(machine *m)
{
    SAG_TRY(sag_pickle_pop(m, &m->pickle->root));
    if (m->stack.count > 0) PICKLE_FAIL(m, "ends with values left over");
    m->done = true;
    return SAG_OK;
}

static sag_status mark(machine *m)
{
    SAG_TRY(sag_pickle_count(m));
    return sag_pickle_list_push(m, &m->stack, NULL);
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
    case '0': return sag_pickle_pop(m, &v);
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
    case ')': return sag_pickle_make(m, SAG_PICKLE_TUPLE, 0);
    case 0x85: return sag_pickle_make(m, SAG_PICKLE_TUPLE, 1);
    case 0x86: return sag_pickle_make(m, SAG_PICKLE_TUPLE, 2);
    case 0x87: return sag_pickle_make(m, SAG_PICKLE_TUPLE, 3);
    case 't': return sag_pickle_make(m, SAG_PICKLE_TUPLE, -1);
    case ']': return sag_pickle_make(m, SAG_PICKLE_LIST, 0);
    case 'l': return sag_pickle_make(m, SAG_PICKLE_LIST, -1);
    case '}': return sag_pickle_make(m, SAG_PICKLE_DICT, 0);
    case 'd': return sag_pickle_make(m, SAG_PICKLE_DICT, -1);
    case 'a': return sag_pickle_extend(m, SAG_PICKLE_LIST, 1);
    case 'e': return sag_pickle_extend(m, SAG_PICKLE_LIST, -1);
    case 's': return sag_pickle_extend(m, SAG_PICKLE_DICT, 2);
    case 'u': return sag_pickle_extend(m, SAG_PICKLE_DICT, -1);
    case 'q': return remember(m, 1);
    case 'r': return remember(m, 4);
    case 0x94: return remember(m, 0); /* MEMOIZE */
    case 'h': return recall(m, 1);
    case 'j': return recall(m, 4);
    case 'c': return read_global(m);
    case 0x93: return read_stack_global(m);
    case 'R': return reduce(m);
    case 'b': return build(m);
    case 'Q': return sag_pickle_make(m, SAG_PICKLE_PERSISTENT, 1); /* BINPERSID */
    default: PICKLE_FAIL(m, "opcode 0x%02x, which no state dict needs", (unsigned)n);
    }
}

sag_status sag_pickle_read(const uint8_t *bytes, size_t size, size_t *at, const char *path, const char *const *globals,
                           sag_pickle **out)
{
    *out = NULL;
    machine m = {.bytes = bytes, .size = size, .at = *at < size ? *at : size, .path = path, .globals = globals};
    m.pickle = sag_host_alloc(sizeof *m.pickle);
    if (!m.pickle) return sag_pickle_no_memory(&m);
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
