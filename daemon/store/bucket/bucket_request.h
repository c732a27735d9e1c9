/*
 * bucket_request: a request about a bucket, which survives changes of the bucket.
 *
 * Used by read and write. It opens the bucket, and sends the request when its owner says so. If nobody listens on the
 * request's subject, the bucket was deleted, changed or moved: it is looked up again, and the request continues with
 * the new bucket.
 */
#ifndef DAEMON_STORE_BUCKET_REQUEST_H
#define DAEMON_STORE_BUCKET_REQUEST_H

#include "daemon/store/bucket/bucket.h"

struct bucket_request;

struct bucket_request_ops {
    /* The bucket is open. Called once, maybe from within bucket_request_open. */
    void (*opened)(struct bucket_request *request);

    /*
     * The bucket was looked up again; what the request refers to of the former struct bucket is valid until this
     * returns. Return true to resume the request, false if the owner has ended it. NULL: resume it.
     */
    bool (*refreshed)(struct bucket_request *request);

    /* The bucket could not be looked up, the first time or again. The owner ends the request. */
    void (*failed)(struct bucket_request *request, const struct error *error);
};

/* The owner embeds it, zeroed, and ends it before its memory ends. */
struct bucket_request {
    struct request base;
    struct bucket *bucket; /* NULL: not open yet */
    bool is_direct;        /* set by the owner: a direct get, which any replica may answer */

    /* private */
    struct store *store;
    const char *bucket_name;
    uint64_t deadline_ms;
    const struct bucket_request_ops *ops;
    struct bucket_wait wait;
    unsigned unserved; /* attempts in a row that had no responders */
};

/* Open the bucket. The name is borrowed until the end. arena: that of the call for which the request is. */
void bucket_request_open(struct bucket_request *request, struct store *store, const char *bucket_name,
                         struct arena *arena, uint64_t deadline_ms, const struct bucket_request_ops *ops);

/* The same for a bucket that is open, and an owner as in request: opened is not called. It must stay open until the
 * end. */
void bucket_request_use(struct bucket_request *request, struct store *store, struct bucket *bucket, uint64_t owner,
                        uint64_t deadline_ms, const struct bucket_request_ops *ops);

/* Start the request, once the bucket is open. ops->no_responders must be bucket_request_on_no_responders. */
void bucket_request_start(struct bucket_request *request, const struct request_ops *ops);
bool bucket_request_on_no_responders(struct request *base);

/* End what is in progress. The bucket stays open, and the request may be started again. */
void bucket_request_stop(struct bucket_request *request);

/*
 * End everything. Return the bucket, or NULL if it was not open: the caller must release it. Does nothing if it has
 * ended already.
 */
struct bucket *bucket_request_end(struct bucket_request *request);

/* End everything, and release the bucket. */
void bucket_request_cancel(struct bucket_request *request);

#endif
