/*
 * request: builds the parameters of one call.
 *
 * Used by the methods' files (kv.c, bulk.c, txn.c, bucket.c, watch.c, daemon.c), which fill the handle's scratch
 * request, and by programs through the functions kvs_request_ of kvstore_raw.h. An error is kept in the request and
 * reported when it is submitted.
 */
#ifndef CLIENT_REQUEST_H
#define CLIENT_REQUEST_H

#include "client/lib/buffer.h"
#include "client/lib/kvstore_raw.h"

#include <msgpack.h>

struct kvs_request {
    const char *method;
    char *method_copy; /* what method points to if the request owns it, otherwise NULL */
    struct buffer params;
    msgpack_packer packer;
    double timeout_s; /* the option of the call; 0: none */
    bool no_memory;
    const char *wrong;  /* a sentence about a wrong argument, otherwise NULL */
    size_t options_at;  /* where in params the option map's header is; 0: there is no option yet */
    unsigned positions; /* positional parameters, in a request that request_begin began */
    unsigned options;
    bool takes_no_id;     /* although its method does */
    bool may_repeat;      /* it does no harm if the daemon executes it twice */
    size_t first_sent_at; /* where in params the eight bytes of the option first_sent are; 0: it has none */
};

/* Begin a request, in the memory of an earlier one. Add its positional parameters, then options. */
void request_begin(struct kvs_request *request, const char *method, unsigned positions);

/* Begin values that will be added to another request; they have no method. */
void request_begin_part(struct kvs_request *part);

/* Add the values of a part, and its error. */
void request_add_part(struct kvs_request *request, const struct kvs_request *part);

/* Begin an option; its value must be added next. */
void request_option(struct kvs_request *request, const char *name);

/* Add a map of headers that is not the value of an option. */
void request_headers(struct kvs_request *request, const struct kvs_header *headers, size_t count);

/* Add an option unless it has its default: false, 0 or NULL. */
void request_option_boolean(struct kvs_request *request, const char *name, bool value);
void request_option_integer(struct kvs_request *request, const char *name, int64_t value);
void request_option_unsigned(struct kvs_request *request, const char *name, uint64_t value);
void request_option_string(struct kvs_request *request, const char *name, const char *text);
void request_option_headers(struct kvs_request *request, const char *name, const struct kvs_header *headers,
                            size_t count);
void request_option_consistency(struct kvs_request *request, enum kvs_consistency consistency);

/* Add the options that select a page of keys or entries. */
void request_option_page(struct kvs_request *request, const char *filter, uint64_t limit, const char *after,
                         enum kvs_consistency consistency);

/* Copy a program's options struct to *own, as options_copy; what is wrong is kept in the request. */
void request_copy_options(struct kvs_request *request, void *own, size_t own_size, const void *options);

/* The same for a method whose only option is the timeout, which is set. */
void request_copy_call_options(struct kvs_request *request, const struct kvs_call_options *options);

/* The bytes of an id that request_add_id adds. */
#define REQUEST_ID_BYTES 16u

/* Add the options id and first_sent, with which the call can be repeated; first_sent is 0. */
void request_add_id(struct kvs_request *request, const char id[REQUEST_ID_BYTES]);

/* End the request: add the option timeout if timeout_s, or else default_s, is set. */
void request_end(struct kvs_request *request, double default_s);

/* Free what the request owns, but not the request. */
void request_release(struct kvs_request *request);

#endif
