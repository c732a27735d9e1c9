/*
 * deliver: takes the answer of an asynchronous call to the program's callback, as the type that it expects.
 *
 * Used by the methods' files. Each function returns the receiver for call_submit; done may be NULL. If the result
 * cannot be read, the callback gets an error, and nothing stays allocated after it.
 */
#ifndef CLIENT_DELIVER_H
#define CLIENT_DELIVER_H

#include "client/lib/call_table.h"
#include "client/lib/kvstore_admin.h"
#include "client/lib/kvstore_async.h"
#include "client/lib/kvstore_raw.h"

struct call_receiver deliver_nothing(kvs_finished_fn *done, void *context);
struct call_receiver deliver_revision(kvs_revision_fn *done, void *context);
struct call_receiver deliver_count(kvs_count_fn *done, void *context);
struct call_receiver deliver_entry(kvs_entry_fn *done, void *context);
struct call_receiver deliver_entries(kvs_entries_fn *done, void *context);
struct call_receiver deliver_json(kvs_json_fn *done, void *context);
struct call_receiver deliver_names(kvs_names_fn *done, void *context);
struct call_receiver deliver_revisions(size_t expected_count, kvs_commit_fn *done, void *context);
struct call_receiver deliver_bucket_info(kvs_bucket_fn *done, void *context);
struct call_receiver deliver_value(kvs_value_fn *done, void *context);

#endif
