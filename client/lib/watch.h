/*
 * watch: the watches of a handle, from the call that starts one to the event that ends it.
 *
 * Used by kvstore.c, which reports notifications, the passing of time and the end of the connection. watch.c has the
 * states of a watch, watch_notification.c the daemon's notifications, watch_queue.c the blocking form.
 *
 * A watch is started with two calls. bucket.info returns the bucket's last revision: a watch that resumes before it has
 * delivered an entry resumes there, and a bucket with fewer revisions than were delivered was recreated. Then
 * watch.start. A watch that the program has stopped lives until the daemon has stopped it too.
 */
#ifndef CLIENT_WATCH_H
#define CLIENT_WATCH_H

#include "client/lib/handle.h"
#include "client/lib/kvstore_async.h"
#include "proto/rpc.h"

enum watch_state {
    WATCH_WAITING,  /* will be started (again) at due_ms */
    WATCH_ASKING,   /* bucket.info is in flight */
    WATCH_STARTING, /* watch.start is in flight */
    WATCH_RUNNING,
    WATCH_UNWANTED, /* will be stopped at due_ms */
    WATCH_STOPPING, /* watch.stop is in flight */
    WATCH_ENDED
};

/* The events of one message that wait for kvs_watch_next, in one block. */
struct watch_batch {
    struct watch_batch *next;
    size_t size_bytes;
    enum kvs_event_type type;
    uint64_t revision;               /* of KVS_EVENT_READY */
    const struct kvs_entry *entries; /* of KVS_EVENT_ENTRY */
    size_t count;
    size_t taken; /* by the program so far */
};

struct kvs_watch {
    struct kvs *kvs;
    struct kvs_watch *next;
    enum watch_state state;
    bool is_released; /* the program has stopped the watch: it is freed when none of its calls is in flight */
    uint64_t id;      /* the daemon's id, in the states RUNNING, UNWANTED and STOPPING */
    int64_t due_ms;
    unsigned pause_ms; /* after the last attempt to start or stop it; 0: it succeeded */

    bool was_started;            /* the daemon has accepted it once */
    bool is_ready;               /* KVS_EVENT_READY was delivered */
    bool has_delivered;          /* an entry was delivered, with … */
    uint64_t delivered_revision; /* … this last revision */
    uint64_t base_revision;      /* the bucket's last revision before the daemon accepted the watch */

    struct kvs_error error; /* why it has ended */
    bool must_deliver_end;  /* its callback does not know that it has ended */
    kvs_event_fn *on_event; /* NULL: of kvs_watch */
    void *context;
    struct watch_batch *first; /* of kvs_watch */
    struct watch_batch *last;
    size_t queued_bytes;

    const char *bucket;
    struct kvs_watch_options options; /* its own copy, defaults filled in */
};

/*
 * Make a watch and begin to start it. NULL if that is refused, with the reason in kvs->error. If on_event is NULL, its
 * events are queued.
 */
struct kvs_watch *watch_begin(struct kvs *kvs, const char *bucket, const struct kvs_watch_options *options,
                              kvs_event_fn *on_event, void *context);

/* Call the callback of an asynchronous watch. */
void watch_deliver(struct kvs_watch *watch, const struct kvs_event *event);

/* End a watch without a call in flight, and deliver the end. */
void watch_end(struct kvs_watch *watch, const struct kvs_error *reason);

/* Return the watch with the daemon's id, or NULL. */
struct kvs_watch *watch_find(struct kvs *kvs, uint64_t id);

/* Make the daemon stop a watch that this handle does not have. */
void watch_stop_id(struct kvs *kvs, uint64_t id);

/* Start and stop the watches that are due, and free ended watches. The connection must be open. */
void watch_run(struct kvs *kvs);

/*
 * The connection was lost. First call watch_lose_all, which decides which watches resume. After the calls in flight
 * have ended, call watch_deliver_ends, which calls the callbacks of the others.
 */
void watch_lose_all(struct kvs *kvs, const struct kvs_error *reason);
void watch_deliver_ends(struct kvs *kvs);

/* Free all watches without calling a callback. */
void watch_free_all(struct kvs *kvs);

/* --- watch_notification.c ------------------------------------------------------------------------ */

/*
 * Receive a notification. False if it is not about a watch of this handle. Otherwise *wrong is NULL, or what is wrong
 * with it, to continue "its message ".
 */
bool watch_receive(struct kvs *kvs, const struct rpc_message *message, const char **wrong);

/* --- watch_queue.c ------------------------------------------------------------------------------- */

/* Queue a batch, which the watch then owns. False if too many bytes wait: the batch still belongs to the caller. */
bool watch_queue_add(struct kvs_watch *watch, struct watch_batch *batch);

/* Whether kvs_watch_next has an event to return. */
bool watch_has_event(const struct kvs_watch *watch);

/* Drop all queued events. */
void watch_queue_clear(struct kvs_watch *watch);

#endif
