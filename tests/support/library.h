/*
 * library: libkvstore as tests use it, and its watches.
 */
#ifndef SUPPORT_LIBRARY_H
#define SUPPORT_LIBRARY_H

#include "client/lib/kvstore_admin.h"
#include "tests/support/daemon.h"
#include "tests/support/watch_recorder.h"

/* The call, on a connection with the name kvs, must succeed. */
#define assert_done(call)                                                                                              \
    do {                                                                                                               \
        enum kvs_code assert_done_code = (call);                                                                       \
        ck_assert_msg(assert_done_code == KVS_OK, "%s: %s: %s", #call, kvs_code_name(assert_done_code),                \
                      kvs_last_error(kvs)->message);                                                                   \
    } while (0)

/* Connect, with timeouts as long as those of the daemon's calls. options: others, or NULL. */
struct kvs *library_connect(const struct daemon *daemon, const struct kvs_options *options);

/* Create a bucket of this test's own, and return its name. */
const char *library_new_bucket(struct kvs *kvs, unsigned history);

/* Write a key, for as long as a test waits. Return its revision. */
uint64_t library_put(struct kvs *kvs, const char *bucket, const char *key, const char *value);

/*
 * Return a number of daemon.stats, as in "watches", NULL, "ended" or "methods", "kv.get", "calls"; 0 if it is not
 * there.
 */
uint64_t library_stat(struct kvs *kvs, const char *section, const char *name, const char *count);

/* --- Watches, blocking ----------------------------------------------------------------------------- */

/* Return the next event, or KVS_EVENT_NONE if none comes for as long as a test waits. */
struct kvs_event library_watch_next(struct kvs_watch *watch);

/* The next events must be these, as in "a=1@1 ready": see watch_recorder.h. */
void library_watch_expect(struct kvs_watch *watch, const char *wanted);

/* The next event must be the entry after the revision *last, which becomes this one's. */
void library_watch_expect_after(struct kvs_watch *watch, uint64_t *last);

/* Let the library work for a moment. No event may come. */
void library_watch_pump(struct kvs_watch *watch);

/* --- Watches, asynchronous ------------------------------------------------------------------------- */

/* Function of a watch whose context is a struct watch_recorder: record the event. */
void library_watch_record(struct kvs *kvs, struct kvs_watch *watch, const struct kvs_event *event, void *context);

/* The same, and stop the watch with its first entry. */
void library_watch_record_first(struct kvs *kvs, struct kvs_watch *watch, const struct kvs_event *event, void *context);

/* Run a loop of the program's own until *count is the wanted number. */
void library_run_until(struct kvs *kvs, const unsigned *count, unsigned wanted);

#endif
