/*
 * client: a raw client of the daemon's socket, with the wire in plain view.
 *
 * Parameters are written as JSON with ' for ", as in
 *     client_call(client, "kv.put", "['%s', 'color', 'blue', {'ttl': 1}]", bucket)
 * Answers and notifications live until client_forget, or else until the test ends. If the daemon sends nothing for
 * PATIENCE_MS although something must come, the test fails. A client belongs to one thread.
 */
#ifndef SUPPORT_CLIENT_H
#define SUPPORT_CLIENT_H

#include "tests/support/daemon.h"
#include "tests/support/object.h"

#include <msgpack.h>
#include <sys/socket.h>
#include <sys/un.h>

struct client;

/* A response from the daemon. */
struct answer {
    bool has_msgid;
    uint32_t msgid;
    msgpack_object error; /* nil, or a map */
    msgpack_object result;
};

/* A notification: watch.entries, watch.ready or watch.ended of a watch, or lock.lost. */
struct notification {
    struct notification *next;
    const char *method;
    uint64_t watch;        /* its id; 0: the notification is of no watch */
    msgpack_object params; /* of a watch, its id is the first */
    msgpack_zone *zone;
};

struct client *client_open(const struct daemon *daemon);
struct client *client_open_path(const char *path);
struct client *client_open_address(const struct sockaddr_un *address, socklen_t length);

/* The same as another user, for a test that runs as root. See daemon_listen_without_file. */
struct client *client_open_as(unsigned user, const struct sockaddr_un *address, socklen_t length);

/* Connect to shared_daemon. Each test has a client of its own. */
struct client *client_open_shared(void);

/* Close the connection. What was received stays. */
void client_close(struct client *client);

int client_socket(const struct client *client);

/* --- Sending --------------------------------------------------------------------------------------- */

/* Write all of the bytes. Blocks while the daemon does not read. */
void client_write(struct client *client, const void *bytes, size_t size);

/* Write what the socket has room for now. Return the number of bytes. */
size_t client_write_some(struct client *client, const void *bytes, size_t size);

/* Write until the daemon has ended the session, or all is written. Reads nothing. Return the number of bytes. */
size_t client_write_to_end(struct client *client, const void *bytes, size_t size);

/* Send no more; answers still come. */
void client_shut_down(struct client *client);

/* Append a request to the buffer. */
void pack_request(msgpack_sbuffer *buffer, uint32_t msgid, const char *method, const char *params, ...)
    __attribute__((format(printf, 4, 5)));

/* Append [0, msgid, "kv.put", [bucket, key, a bin of size bytes]] to the buffer. */
void pack_put(msgpack_sbuffer *buffer, uint32_t msgid, const char *bucket, const char *key, const void *value,
              size_t size);

/* Send a request without waiting. Return its msgid. */
uint32_t client_send(struct client *client, const char *method, const char *params, ...)
    __attribute__((format(printf, 3, 4)));

/* --- Receiving ------------------------------------------------------------------------------------- */

/* Return the next response, whatever it answers, of those that were not read yet. */
struct answer *client_receive(struct client *client);

/* Return the answer to a msgid. Answers to other ones that come before it are kept. */
struct answer *client_wait(struct client *client, uint32_t msgid);

/* The same, but keep this one, too: it can be waited for again. */
const struct answer *client_peek(struct client *client, uint32_t msgid);

/* Read what there is, and return whether the answer to a msgid is there. */
bool client_has(struct client *client, uint32_t msgid);

/*
 * Read what there is and keep it; wait up to wait_ms for something to come if there is nothing. Return whether
 * something has come.
 */
bool client_read(struct client *client, unsigned wait_ms);

/* Return the next notification of a watch. What comes before it is kept, as notifications are in client_wait. */
struct notification *client_wait_notification(struct client *client, uint64_t watch);

/* Return the next notification of a watch if it has been read already, or NULL. */
struct notification *client_find_notification(struct client *client, uint64_t watch);

/* Make a call. Nothing else may come before its answer. */
void client_expect_nothing(struct client *client);

/* The daemon must close the connection, and send nothing before it does. */
void client_expect_end(struct client *client);

/* The daemon must say that it shuts down and that it has not begun what is not answered, and end the session. */
void client_expect_dismissal(struct client *client);

/*
 * Free the answers that have come, and the notifications that were returned. For tests that make calls for as long as
 * one says.
 */
void client_forget(struct client *client);

/* --- Calls ----------------------------------------------------------------------------------------- */

/* Send a request, and return its answer. */
struct answer *client_call(struct client *client, const char *method, const char *params, ...)
    __attribute__((format(printf, 3, 4)));

/* Call kv.put with a bin. */
struct answer *client_put(struct client *client, const char *bucket, const char *key, const void *value, size_t size);

/* Create a bucket of this test's own, and return its name. options: members, as in "'history': 5", or NULL. */
const char *client_new_bucket(struct client *client, const char *options);

/* --- Looking at answers ---------------------------------------------------------------------------- */

/* Return "ok", or the error's code. */
const char *answer_code(const struct answer *answer);

/* Return the error's outcome, or "". */
const char *answer_outcome(const struct answer *answer);

/* Return the error or the result, for people. */
const char *answer_text(const struct answer *answer);

#define assert_ok(given)                                                                                               \
    do {                                                                                                               \
        const struct answer *assert_ok_answer = (given);                                                               \
        ck_assert_msg(assert_ok_answer->error.type == MSGPACK_OBJECT_NIL, "%s", answer_text(assert_ok_answer));        \
    } while (0)

/* The answer must be an error of this code. */
#define assert_code(given, wanted)                                                                                     \
    do {                                                                                                               \
        const struct answer *assert_code_answer = (given);                                                             \
        ck_assert_msg(strcmp(answer_code(assert_code_answer), wanted) == 0, "%s instead of %s: %s",                    \
                      answer_code(assert_code_answer), wanted, answer_text(assert_code_answer));                       \
    } while (0)

/* The same, and its message must contain the text. */
#define assert_code_says(given, wanted, text)                                                                          \
    do {                                                                                                               \
        const struct answer *assert_says_answer = (given);                                                             \
        assert_code(assert_says_answer, wanted);                                                                       \
        ck_assert_msg(strstr(text_at(&assert_says_answer->error, "message"), text) != NULL, "'%s' does not say '%s'",  \
                      text_at(&assert_says_answer->error, "message"), text);                                           \
    } while (0)

/* Return the result as a revision; the answer must not be an error. */
uint64_t revision_of(const struct answer *answer);

#endif
