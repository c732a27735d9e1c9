/*
 * handlers: one function per method, one file per family.
 *
 * Called by dispatch with a call whose number of arguments, options' names, bucket
 * name and access are checked. A handler checks the arguments' types and ranges,
 * starts the store's work in the call's arena and answers the call, now or later,
 * exactly once.
 */
#ifndef DAEMON_HANDLERS_HANDLERS_H
#define DAEMON_HANDLERS_HANDLERS_H

struct call;
struct dispatcher;
struct session;

/* kv */
void handle_kv_get(struct call *call);
void handle_kv_get_json(struct call *call);
void handle_kv_put(struct call *call);
void handle_kv_create(struct call *call);
void handle_kv_update(struct call *call);
void handle_kv_delete(struct call *call);
void handle_kv_purge(struct call *call);
void handle_kv_history(struct call *call);
void handle_kv_keys(struct call *call);

/* bulk */
void handle_bulk_get(struct call *call);
void handle_bulk_put(struct call *call);
void handle_bulk_delete(struct call *call);

/* txn */
void handle_txn_commit(struct call *call);

/* bucket */
void handle_bucket_create(struct call *call);
void handle_bucket_update(struct call *call);
void handle_bucket_delete(struct call *call);
void handle_bucket_purge(struct call *call);
void handle_bucket_compact(struct call *call);
void handle_bucket_info(struct call *call);
void handle_bucket_list(struct call *call);

/* watch */
void handle_watch_start(struct call *call);
void handle_watch_stop(struct call *call);
/* The access rules have changed: ends those watches of the session that they do not allow any more. */
void watches_check_access(struct dispatcher *dispatcher, struct session *session);

/* health */
void handle_health_check(struct call *call);
void handle_daemon_info(struct call *call);
void handle_daemon_stats(struct call *call);

#endif
