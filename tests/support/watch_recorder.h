/*
 * watch_recorder: a watch, and what it delivers, as texts and as a record that can be compared with the stream.
 *
 * The watch is one of watch.start on a raw client, or one of libkvstore (see library.h). In texts an entry is
 * "key=value@revision", a delete "-key@revision", a purge "!key@revision", and an entry without its value
 * "+key:size@revision". The other events are "ready" and "ended: code".
 */
#ifndef SUPPORT_WATCH_RECORDER_H
#define SUPPORT_WATCH_RECORDER_H

#include "client/lib/kvstore.h"
#include "tests/support/client.h"
#include "tests/support/stream_log.h"

#define WATCH_PREFIX_BYTES 32u

enum watch_event { WATCH_ENTRY, WATCH_READY, WATCH_ENDED };

struct watch_recorder {
    struct client *client;
    bool owns_client;
    uint64_t id;
    char prefix[WATCH_PREFIX_BYTES]; /* of the keys that its filter means: "even." of "even.>", "" of all */

    /* The event that came last. */
    const msgpack_object *entries; /* of the last watch.entries, returned up to at */
    size_t at;
    const msgpack_object *object; /* the entry, or the error */
    uint64_t revision;            /* of an entry */
    uint64_t snapshot_revision;   /* of ready, if the watch has the option snapshot; otherwise 0 */

    /* The record. Nothing is recorded of what watch_recorder_next and the functions before it return. */
    struct stored *told; /* in order of delivery; operations as in stream_log.h */
    unsigned count, room;
    unsigned ready_at; /* number of entries before ready */
    unsigned readies, ends;
    const char *ended; /* the error's code; NULL: it goes on */
    uint64_t ended_revision;
};

/* Start a watch. options: members, as in "'filter': 'a.>'", or NULL. */
struct watch_recorder *watch_recorder_start(struct client *client, const char *bucket, const char *options);

/*
 * Start a watch on a session of its own. filter: ">", or tokens and ">". options: further members, or NULL. Only the
 * record of such a watch can be used.
 */
struct watch_recorder *watch_recorder_open(const struct daemon *daemon, const char *bucket, const char *filter,
                                           const char *options);

/* Close its session. */
void watch_recorder_close(struct watch_recorder *recorder);

/* Stop the watch, which must be answered without an error. */
void watch_recorder_stop(struct watch_recorder *recorder);

/* --- Events ---------------------------------------------------------------------------------------- */

/* Wait for the next event. */
enum watch_event watch_recorder_next(struct watch_recorder *recorder);

/* The next events must be these, as in "a=1@1 ready". */
void watch_recorder_expect(struct watch_recorder *recorder, const char *wanted);

/*
 * The next events must be these entries and, somewhere among them, ready: if a key is written while a watch begins, it
 * may be delivered before ready or after it.
 */
void watch_recorder_expect_and_ready(struct watch_recorder *recorder, const char *wanted);

/* The next event must be the end, with this code. Return the error. */
const msgpack_object *watch_recorder_expect_end(struct watch_recorder *recorder, const char *code);

/* Return the text of all events up to ready. */
const char *watch_recorder_text_to_ready(struct watch_recorder *recorder);

/* --- The record ------------------------------------------------------------------------------------ */

/* Record what has come. If nothing has, wait up to wait_ms for something. */
void watch_recorder_read(struct watch_recorder *recorder, unsigned wait_ms);

/* Record until this revision, or a later one, was delivered. */
void watch_recorder_wait(struct watch_recorder *recorder, uint64_t revision);
void watch_recorder_wait_ready(struct watch_recorder *recorder);

/* Return the revision that was delivered last; 0: none. */
uint64_t watch_recorder_last_revision(const struct watch_recorder *recorder);

/*
 * The record must have each entry of the log from this revision on whose key the watch means: in order, none missing,
 * none twice. Waits for ready, which must have come once.
 */
void watch_recorder_expect_log(struct watch_recorder *recorder, const struct stream_log *log, uint64_t from_revision);

/* Return the record as text; ready must not have come twice. */
const char *watch_recorder_text(const struct watch_recorder *recorder);

/* --- Watches of libkvstore ------------------------------------------------------------------------- */

/* Return a recorder for watch_recorder_add. */
struct watch_recorder *watch_recorder_new(void);

/* Add an event to the record. */
void watch_recorder_add(struct watch_recorder *recorder, const struct kvs_event *event);

/* Return the text of an event; "nothing" if it is none. */
const char *watch_event_text(const struct kvs_event *event);

/* Call next until their events are as long as the wanted text, with which they must be equal. */
void watch_events_expect(const char *(*next_text)(void *context), void *context, const char *wanted);

#endif
