/*
 * watch: the watches of a handle, from the call that starts one to the event that ends it.
 *
 * Used by connection (which hands it notifications, the passing of time and the end of the
 * connection). watch.c has the life of a watch, watch_notification.c what the daemon tells of it,
 * watch_queue.c the blocking face.
 *
 * A watch is started in two calls. bucket.info tells where the bucket stands: a watch that goes on before
 * it has told an entry goes on from there, and a bucket with fewer revisions than were told has been made
 * anew. Then watch.start. A watch that the program does not want any more lives until the daemon has heard of it.
 */
#ifndef CLIENT_WATCH_H
#define CLIENT_WATCH_H

#include "client/lib/handle.h"
#include "client/lib/kvstore_async.h"
#include "proto/rpc.h"

enum watch_state {
    WATCH_AWAY,     /* is to be started (again) at due_ms */
    WATCH_LOOKING,  /* bucket.info is in flight */
    WATCH_STARTING, /* watch.start is in flight */
    WATCH_RUNNING,
    WATCH_UNWANTED, /* is to be stopped at due_ms */
    WATCH_STOPPING, /* watch.stop is in flight */
    WATCH_ENDED
};

/* Events of one message that wait for kvs_watch_next, in one block. */
struct watch_batch {
    struct watch_batch *next;
    size_t size_bytes;
    enum kvs_event_type type;
    const struct kvs_entry *entries; /* of KVS_EVENT_ENTRY */
    size_t count;
    size_t given; /* to the program so far */
};

struct kvs_watch {
    struct kvs *kvs;
    struct kvs_watch *next;
    enum watch_state state;
    bool is_forgotten; /* the program has stopped it: freed once nothing is in flight for it */
    uint64_t id;       /* the daemon's, while it is running, unwanted or stopping */
    int64_t due_ms;
    unsigned pause_ms; /* of the last attempt to start or stop it; 0: it went well */

    bool was_started;       /* the daemon has taken it once */
    bool is_ready;          /* KVS_EVENT_READY was told */
    bool has_told;          /* an entry, with … */
    uint64_t told_revision; /* … this revision as the last one */
    uint64_t base_revision; /* the bucket's last one before the daemon has taken the watch */

    struct kvs_error error; /* why it has ended */
    bool owes_end;          /* its function is still to hear of it */
    kvs_event_fn *on_event; /* NULL: of kvs_watch */
    void *context;
    struct watch_batch *first; /* of kvs_watch */
    struct watch_batch *last;
    size_t queued_bytes;

    const char *bucket;
    struct kvs_watch_options options; /* its own copy, defaults filled in */
};

/*
 * Makes a watch and begins to start it. Where that is refused: NULL, with the reason in kvs->error. on_event NULL:
 * its events are queued.
 */
struct kvs_watch *watch_begin(struct kvs *kvs, const char *bucket, const struct kvs_watch_options *options,
                              kvs_event_fn *on_event, void *context);

/* Calls the function of an asynchronous watch. */
void watch_deliver(struct kvs_watch *watch, const struct kvs_event *event);

/* Ends a watch for which no call is in flight, and tells so. */
void watch_end(struct kvs_watch *watch, const struct kvs_error *reason);

/* The watch that the daemon knows by this id; or NULL. */
struct kvs_watch *watch_find(struct kvs *kvs, uint64_t id);

/* Has the daemon stop a watch that nobody here wants. */
void watch_stop_id(struct kvs *kvs, uint64_t id);

/* Starts and stops what is due, and frees what nobody needs any more. The connection is open. */
void watch_run(struct kvs *kvs);

/*
 * The connection was lost. First watch_lose_all, which decides what goes on; then, when the calls in flight have ended,
 * watch_deliver_ends, which calls the functions of those that do not.
 */
void watch_lose_all(struct kvs *kvs, const struct kvs_error *reason);
void watch_deliver_ends(struct kvs *kvs);

/* Frees all of them, and calls nobody. */
void watch_free_all(struct kvs *kvs);

/* --- watch_notification.c ------------------------------------------------------------------------ */

/*
 * A notification has arrived. False where it is none of a watch of this handle. Otherwise *wrong is NULL, or what is
 * wrong with it, to follow on "its message ".
 */
bool watch_receive(struct kvs *kvs, const struct rpc_message *message, const char **wrong);

/* --- watch_queue.c ------------------------------------------------------------------------------- */

/* Queues a batch, which the watch owns from now on. False where too much waits already: it is still the caller's. */
bool watch_queue_add(struct kvs_watch *watch, struct watch_batch *batch);

/* Whether kvs_watch_next has something to tell. */
bool watch_has_event(const struct kvs_watch *watch);

/* Drops all that waits. */
void watch_queue_clear(struct kvs_watch *watch);

#endif
