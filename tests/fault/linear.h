/*
 * linear: checks whether a history of calls on keys is linearizable.
 *
 * Each key is a register of its own (linearizability is local), with the revision of its last write. The search is Wing
 * and Gong's, with Lowe's cache of what was tried. A call whose outcome is unknown may have taken effect at any time
 * since it began, or never.
 */
#ifndef FAULT_LINEAR_H
#define FAULT_LINEAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum linear_kind { LINEAR_GET, LINEAR_PUT, LINEAR_CREATE, LINEAR_UPDATE, LINEAR_DELETE };

enum linear_result {
    LINEAR_OK,
    LINEAR_REFUSED, /* create: the key exists; update: it has another revision */
    LINEAR_UNKNOWN
};

struct linear_call {
    enum linear_kind kind;
    enum linear_result result;
    unsigned key;
    uint64_t value;    /* written, each only once; or found by a get, 0: no key */
    uint64_t expected; /* revision that an update names */
    uint64_t revision; /* of the result, or of a refusal; 0: none */
    uint64_t begin_ns, end_ns;
};

/*
 * Return whether the history is linearizable. keys: each call's key is less. *wrong: the first key whose history is not
 * linearizable.
 */
bool linear_check(const struct linear_call *calls, size_t count, unsigned keys, unsigned *wrong);

#endif
