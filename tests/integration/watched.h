/*
 * watched: how the tests of libkvstore's watches look at what a watch tells.
 *
 * Entries are written "key=value@revision", "-key@revision" of a delete or purge, "+key:size@revision" without the
 * value.
 */
#ifndef INTEGRATION_WATCHED_H
#define INTEGRATION_WATCHED_H

#include "client/lib/kvstore.h"
#include "tests/support/daemon.h"

#define assert_done(call)                                                                                              \
    do {                                                                                                               \
        enum kvs_code assert_done_code = (call);                                                                       \
        ck_assert_msg(assert_done_code == KVS_OK, "%s: %s: %s", #call, kvs_code_name(assert_done_code),                \
                      kvs_last_error(kvs)->message);                                                                   \
    } while (0)

struct kvs *watched_connect(const struct daemon *daemon, const struct kvs_options *options);

/* A bucket of this test's own: its name. */
const char *watched_bucket(struct kvs *kvs, unsigned history);

/* Writes a key, for as long as a test waits: its revision. */
uint64_t watched_put(struct kvs *kvs, const char *bucket, const char *key, const char *value);

/* --- Blocking -------------------------------------------------------------------------------------- */

/* The next event, or KVS_EVENT_NONE when none comes for as long as a test waits. */
struct kvs_event watched_next(struct kvs_watch *watch);

/* The next events must be these, as in "a=1@1 ready". */
void watched_expect(struct kvs_watch *watch, const char *wanted);

/* The next event must be the entry after the revision *last, which becomes this one's. */
void watched_expect_behind(struct kvs_watch *watch, uint64_t *last);

/* Lets the library do what it has to do, for a moment. No event may come. */
void watched_pump(struct kvs_watch *watch);

/* "ready", "ended: io", "nothing", or the entry. */
const char *text_of_event(const struct kvs_event *event);

/* --- Asynchronous ---------------------------------------------------------------------------------- */

/* What a function has been told. */
struct told {
    const char *text; /* all of it, a blank behind each event; NULL: nothing */
    unsigned entries, ready, ended;
    uint64_t last;          /* revision */
    struct kvs_error error; /* of the end */
    bool stops;             /* the watch, with its first entry */
};

/* The function of a watch; its context is a struct told. */
void watched_tell(struct kvs *kvs, struct kvs_watch *watch, const struct kvs_event *event, void *context);

/* A loop of the program's own: until *count is wanted. */
void watched_run_until(struct kvs *kvs, const unsigned *count, unsigned wanted);

/* --- What the daemon counts ------------------------------------------------------------------------ */

/* A number of daemon.stats, as in "watches", NULL, "ended" or "methods", "kv.get", "calls"; 0 where it is not there. */
uint64_t watched_stat(struct kvs *kvs, const char *section, const char *name, const char *count);

#endif
