/*
 * pickle.h - Python pickles as data. The few opcodes that state dicts are made of build a tree of values; a global
 * (a class or a function) is a name and nothing else, and a call of one is a pair of that name and its arguments.
 * Nothing is looked up and nothing is run. A global that the caller does not list is refused by name, and so is every
 * opcode that would make an object.
 *
 * Every opcode is handled in a loop, never by recursion, and makes at most a few words of memory, in all at most
 * SAG_PICKLE_MAX_VALUES values: neither depth nor lying lengths of a file can exhaust stack or memory. Values may be
 * shared, and a hostile file can make a list hold itself: whoever walks the tree must not follow it without bound.
 */
#ifndef SAG_PICKLE_H
#define SAG_PICKLE_H

#include "engine/sagan.h"

#define SAG_PICKLE_MAX_VALUES ((int64_t)1 << 22)

typedef enum sag_pickle_kind {
    SAG_PICKLE_NONE,
    SAG_PICKLE_BOOL,      /* whole: 0 or 1 */
    SAG_PICKLE_INT,       /* whole */
    SAG_PICKLE_BIG,       /* an integer of more than 8 bytes: text, two's complement, little-endian */
    SAG_PICKLE_FLOAT,     /* number */
    SAG_PICKLE_TEXT,      /* text, not zero-terminated */
    SAG_PICKLE_TUPLE,     /* item */
    SAG_PICKLE_LIST,      /* item */
    SAG_PICKLE_DICT,      /* item: key, value, key, value, ...; collections.OrderedDict too. `count` counts both */
    SAG_PICKLE_GLOBAL,    /* text: "torch._utils._rebuild_tensor_v2", zero-terminated */
    SAG_PICKLE_CALL,      /* item: global, tuple of arguments */
    SAG_PICKLE_PERSISTENT /* item: the identity of something outside the pickle */
} sag_pickle_kind;

typedef struct sag_pickle_value {
    sag_pickle_kind kind;
    int64_t count, capacity; /* of item */
    size_t length;           /* bytes of text */
    union {
        int64_t whole;
        double number;
        const char *text; /* in the pickle's bytes, or owned by the pickle */
        struct sag_pickle_value **item;
    };
} sag_pickle_value;

const char *sag_pickle_kind_name(sag_pickle_kind kind); /* "a tuple" */
bool sag_pickle_is_text(const sag_pickle_value *v, const char *text);

typedef struct sag_pickle sag_pickle; /* owns the values */

/*
 * Reads the pickle that begins at bytes[*at] and moves *at behind its end. `globals` lists the names that may occur
 * besides collections.OrderedDict and ends with NULL; `path` is for messages. The bytes must outlive the values.
 */
sag_status sag_pickle_read(const uint8_t *bytes, size_t size, size_t *at, const char *path, const char *const *globals,
                           sag_pickle **out);
const sag_pickle_value *sag_pickle_root(const sag_pickle *pickle);
void sag_pickle_free(sag_pickle *pickle); /* NULL is allowed */

#endif
