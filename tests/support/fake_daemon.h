/*
 * fake_daemon: a daemon that the test plays itself, message by message.
 *
 * It shows libkvstore what a real daemon does seldom, or not at a moment that a test can choose. Messages are written
 * as JSON with ' for ", as in object.h. If nothing comes for PATIENCE_MS although something must come, the test fails.
 */
#ifndef SUPPORT_FAKE_DAEMON_H
#define SUPPORT_FAKE_DAEMON_H

#include "client/lib/kvstore_async.h"

#include <stdint.h>

struct fake_daemon;

/* A request of the program. */
struct fake_request {
    uint32_t msgid;
    const char *method;
    const char *params; /* as text, see object_text */
};

/* Listen on a socket of this test's own. */
struct fake_daemon *fake_daemon_start(void);

/* Connect to it. options: a long timeout is filled in if there is none. */
struct kvs *fake_daemon_connect(struct fake_daemon *fake, const struct kvs_options *options);

/* Let nobody connect, and close the connection, as a daemon that has ended; or listen again. */
void fake_daemon_end(struct fake_daemon *fake);
void fake_daemon_listen(struct fake_daemon *fake);

/* Close the connection. What it has not read is lost. The next function accepts the next connection. */
void fake_daemon_hang_up(struct fake_daemon *fake);

/* Return the next request. Let the handle kvs work meanwhile; NULL: another thread uses it. */
struct fake_request fake_daemon_receive(struct fake_daemon *fake, struct kvs *kvs);

/* The next request must be of this method. */
struct fake_request fake_daemon_expect(struct fake_daemon *fake, struct kvs *kvs, const char *method);

/* Send a message, as in "[2, 'watch.ready', [1, %u]]". */
void fake_daemon_send(struct fake_daemon *fake, const char *message, ...) __attribute__((format(printf, 2, 3)));

/* Add a message that is sent with the next one, so that they arrive together. */
void fake_daemon_pack(struct fake_daemon *fake, const char *message, ...) __attribute__((format(printf, 2, 3)));

#endif
