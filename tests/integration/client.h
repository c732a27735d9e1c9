/*
 * client: a raw client of the daemon's socket, with the wire in plain view.
 *
 * Parameters are written as JSON with ' for ", as in
 *     client_call(client, "kv.put", "['%s', 'color', 'blue', {'ttl': 1}]", bucket)
 * Answers live until the test ends. What must come and does not within PATIENCE_MS fails the test.
 */
#ifndef INTEGRATION_CLIENT_H
#define INTEGRATION_CLIENT_H

#include "tests/integration/daemon.h"
#include "tests/support/object.h"

#include <msgpack.h>
#include <sys/socket.h>
#include <sys/un.h>

struct client;

/* A message from the daemon. */
struct answer {
    bool has_msgid;
    uint32_t msgid;
    msgpack_object error; /* nil, or a map */
    msgpack_object result;
};

/* One of a watch: watch.entries, watch.ready or watch.ended. */
struct notification {
    struct notification *next;
    const char *method;
    uint64_t watch;
    msgpack_object params; /* the watch's id is the first */
};

struct client *client_open(const struct daemon *daemon);
struct client *client_open_path(const char *path);
struct client *client_open_address(const struct sockaddr_un *address, socklen_t length);

/* To shared_daemon; each test's own. */
struct client *client_open_shared(void);

void client_close(struct client *client);
int client_socket(const struct client *client);

/* --- Sending --------------------------------------------------------------------------------------- */

/* All of them; blocks while the daemon does not read. */
void client_write(struct client *client, const void *bytes, size_t size);

/* Writes what the socket has room for now: the number of bytes. */
size_t client_write_some(struct client *client, const void *bytes, size_t size);

/* Writes until the daemon has ended the session, or all is written: the number of bytes. Reads nothing. */
size_t client_write_to_end(struct client *client, const void *bytes, size_t size);

/* No more will be sent; answers still come. */
void client_shut_down(struct client *client);

/* Appends a request to buffer. */
void pack_request(msgpack_sbuffer *buffer, uint32_t msgid, const char *method, const char *params, ...)
    __attribute__((format(printf, 4, 5)));

/* Appends [0, msgid, "kv.put", [bucket, key, a bin of size bytes]] to buffer. */
void pack_put(msgpack_sbuffer *buffer, uint32_t msgid, const char *bucket, const char *key, const void *value,
              size_t size);

/* Sends a request without waiting; answers its msgid. */
uint32_t client_send(struct client *client, const char *method, const char *params, ...)
    __attribute__((format(printf, 3, 4)));

/* --- Receiving ------------------------------------------------------------------------------------- */

/* The next message, whatever it answers. */
struct answer *client_receive(struct client *client);

/* The answer to a msgid; those to others that come before it are kept for later. */
struct answer *client_wait(struct client *client, uint32_t msgid);

/* The next notification of a watch; what comes before it is kept for later, as notifications are in client_wait. */
struct notification *client_wait_notification(struct client *client, uint64_t watch);

/* One of those of a watch that have been read already, or NULL. */
struct notification *client_find_notification(struct client *client, uint64_t watch);

/* Nothing may have come before the answer to a call that is made now. */
void client_expect_nothing(struct client *client);

/* The daemon must close the connection, with nothing before it. */
void client_expect_end(struct client *client);

/* Sends and waits. */
struct answer *client_call(struct client *client, const char *method, const char *params, ...)
    __attribute__((format(printf, 3, 4)));

/* kv.put of a bin. */
struct answer *client_put(struct client *client, const char *bucket, const char *key, const void *value, size_t size);

/* A bucket of this test's own: its name. options: members, as in "'history': 5", or NULL. */
const char *client_new_bucket(struct client *client, const char *options);

/* --- Looking at answers ---------------------------------------------------------------------------- */

/* "ok", or the error's code. */
const char *answer_code(const struct answer *answer);

/* The error as text; "no error". */
const char *answer_error(const struct answer *answer);

#define assert_ok(given)                                                                                               \
    do {                                                                                                               \
        const struct answer *assert_ok_answer = (given);                                                               \
        ck_assert_msg(assert_ok_answer->error.type == MSGPACK_OBJECT_NIL, "%s", answer_error(assert_ok_answer));       \
    } while (0)

/* The answer is an error of this code. */
#define assert_code(given, wanted)                                                                                     \
    do {                                                                                                               \
        const struct answer *assert_code_answer = (given);                                                             \
        ck_assert_msg(strcmp(answer_code(assert_code_answer), wanted) == 0, "%s instead of %s: %s",                    \
                      answer_code(assert_code_answer), wanted,                                                         \
                      object_text(assert_code_answer->error.type == MSGPACK_OBJECT_NIL ? &assert_code_answer->result   \
                                                                                       : &assert_code_answer->error)); \
    } while (0)

/* ... whose message has this in it. */
#define assert_code_says(given, wanted, text)                                                                          \
    do {                                                                                                               \
        const struct answer *assert_says_answer = (given);                                                             \
        assert_code(assert_says_answer, wanted);                                                                       \
        ck_assert_msg(strstr(text_at(&assert_says_answer->error, "message"), text) != NULL, "'%s' does not say '%s'",  \
                      text_at(&assert_says_answer->error, "message"), text);                                           \
    } while (0)

/* The result as a revision. */
uint64_t revision_of(const struct answer *answer);

#endif
