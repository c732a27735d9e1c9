/*
 * flood: many sessions that send the same calls over and over. The attacks of attack.c are floods.
 *
 * A flood does not check answers. If the daemon ends a session, the flood connects again.
 */
#ifndef SUPPORT_FLOOD_H
#define SUPPORT_FLOOD_H

#include "tests/support/attack.h"

#include <msgpack.h>
#include <stddef.h>
#include <stdint.h>

#define FLOOD_SESSIONS_MAX 64u

/* --- Calls as bytes -------------------------------------------------------------------------------- */

struct calls {
    msgpack_sbuffer buffer;
    msgpack_packer packer;
    uint32_t count; /* the next msgid */
};

void calls_begin(struct calls *calls);

/* Add the beginning of a request; the rest of its parameters must follow. */
void calls_add(struct calls *calls, const char *method, unsigned param_count, const char *first);

void calls_add_text(struct calls *calls, const char *text);
void calls_add_zeros(struct calls *calls, size_t size);

/* Add the option "consistency": "cached". */
void calls_add_cached(struct calls *calls);

/* Return name, which becomes prefix and number. */
const char *calls_numbered(char name[64], const char *prefix, unsigned number);

/* --- Floods ---------------------------------------------------------------------------------------- */

/* What a session does after it has sent its calls. */
enum flood_manner {
    FLOOD_REPEAT, /* reads all answers, then connects and sends the calls again */
    FLOOD_LEAVE,  /* closes at once, then connects and sends the calls again */
    FLOOD_STAY,   /* reads whatever comes */
    FLOOD_IGNORE  /* reads nothing, from the beginning */
};

/* Send the calls in one piece on each of the sessions, for attack->seconds. Frees the calls. */
void flood_run(struct attack *attack, unsigned sessions, enum flood_manner manner, struct calls *calls);

/* Return a connection that does not block, or -1 if the daemon does not take it now. */
int flood_dial(const char *path);

/* Keep the first error of an attack. */
void attack_note_error(struct attack *attack, const char *what);

double attack_now_s(void);

#endif
