/*
 * session: a raw client of the daemon's socket, one per thread.
 *
 * Parameters are written as JSON with ' for ", as in
 *     session_call(session, "kv.put", "['%s', 'color', 'blue']", bucket)
 * An answer lives until its session is closed. Notifications are kept beside the answers, in their order.
 */
#ifndef FAULT_SESSION_H
#define FAULT_SESSION_H

#include "tests/support/object.h"
#include "tests/support/process.h"

#include <msgpack.h>

struct session;

struct answer {
    struct answer *next;
    msgpack_unpacked message;
    uint32_t msgid;
    const msgpack_object *error; /* nil, or a map */
    const msgpack_object *result;
};

struct session *session_open(const char *path);
void session_close(struct session *session);

/* Sends without waiting: the msgid. */
uint32_t session_send(struct session *session, const char *method, const char *params, ...)
    __attribute__((format(printf, 3, 4)));

/* The answer to a msgid. */
const struct answer *session_wait(struct session *session, uint32_t msgid);

/* Whether it is there; does not wait. */
bool session_has(struct session *session, uint32_t msgid);

const struct answer *session_call(struct session *session, const char *method, const char *params, ...)
    __attribute__((format(printf, 3, 4)));

/* Frees the answers that there are. */
void session_forget(struct session *session);

/* --- Notifications --------------------------------------------------------------------------------- */

struct notice {
    struct notice *next;
    msgpack_unpacked message;
    const char *method;
    const msgpack_object *params;
};

/* The first that was not taken yet, or that comes within the time; NULL: none. It lives until the next call. */
const struct notice *session_next_notice(struct session *session, unsigned patience_ms);

/* --- Looking at answers ---------------------------------------------------------------------------- */

/* "ok", or the error's code. */
const char *answer_code(const struct answer *answer);

/* The error's outcome; "" where it has none. */
const char *answer_outcome(const struct answer *answer);

/* All of it, for people. */
const char *answer_text(const struct answer *answer);

/* The result as a revision; the test fails when it is an error. */
uint64_t answer_revision(const struct answer *answer);

#define assert_ok(given)                                                                                               \
    do {                                                                                                               \
        const struct answer *assert_ok_answer = (given);                                                               \
        ck_assert_msg(strcmp(answer_code(assert_ok_answer), "ok") == 0, "%s", answer_text(assert_ok_answer));          \
    } while (0)

#define assert_code(given, wanted)                                                                                     \
    do {                                                                                                               \
        const struct answer *assert_code_answer = (given);                                                             \
        ck_assert_msg(strcmp(answer_code(assert_code_answer), wanted) == 0, "%s is wanted: %s", wanted,                \
                      answer_text(assert_code_answer));                                                                \
    } while (0)

#endif
