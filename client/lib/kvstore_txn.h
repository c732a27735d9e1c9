/*
 * kvstore_txn: transactions. kvstore.h includes it.
 *
 * A transaction commits several writes of one bucket together or not at all. It commits only if its conditions hold:
 * the keys read in it (kvs_txn_get) and checked (kvs_txn_check) are unchanged, and so are the keys of its creates and
 * updates. All conditions are about the state before the transaction. The transaction lives in the library: until
 * kvs_txn_commit nothing is written, locked or visible to others.
 *
 *     static enum kvs_code count(struct kvs_txn *txn, void *context)
 *     {
 *         char text[16];
 *         const struct kvs_entry *entry;
 *         enum kvs_code code = kvs_txn_get(txn, "counter", &entry);
 *         int length = snprintf(text, sizeof(text), "%d", entry != NULL ? atoi(entry->value) + 1 : 1);
 *         kvs_txn_put(txn, "counter", text, (size_t)length, NULL);
 *         return code;
 *     }
 *     …
 *     code = kvs_txn_run(kvs, "demo", count, NULL, NULL);
 *
 * A transaction with conditions on keys that it does not write commits only at a moment when nobody else writes to the
 * bucket: under constant writes it may fail with KVS_DEADLINE_EXCEEDED. Let it write what it reads.
 *
 * Transactions need nats-server 2.12 or later and a bucket that allows them. Buckets that kvstored creates do;
 * kvs_bucket_update upgrades others. Otherwise the commit is KVS_UNSUPPORTED.
 */
#ifndef KVSTORE_TXN_H
#define KVSTORE_TXN_H

#include "kvstore.h"

#ifdef __cplusplus
extern "C" {
#endif

struct kvs_txn;

/* Begin a transaction. NULL when out of memory, which the functions below accept and kvs_txn_commit reports. */
struct kvs_txn *kvs_txn_begin(struct kvs *kvs, const char *bucket);

/* Free a transaction; what was not committed never happens. Also allowed after kvs_close. NULL is allowed. */
void kvs_txn_free(struct kvs_txn *txn);

/*
 * Read a key with KVS_CONSISTENCY_LEADER and make the commit depend on it: KVS_CONFLICT if the key has changed by then.
 * A key that does not exist (or is deleted) is KVS_OK with *entry NULL, and must still not exist at the commit. The
 * entry belongs to the transaction and lives as long. A second read of the same key returns the same entry, even if the
 * transaction is going to write it. Two keys that others change together may be read one before and one after that
 * change; then the commit fails. If a read fails, the commit fails too.
 */
enum kvs_code kvs_txn_get(struct kvs_txn *txn, const char *key, const struct kvs_entry **entry);

/* Make the commit depend on a key's revision, as kvs_get returned it; 0: the key must not exist. */
void kvs_txn_check(struct kvs_txn *txn, const char *key, uint64_t revision);

/*
 * Add one operation, of at most 1,000, with the promises of the function of the same name without txn. The commit
 * reports wrong arguments. timeout_s of the options is ignored: the commit has its own.
 */
void kvs_txn_put(struct kvs_txn *txn, const char *key, const void *value, size_t value_size,
                 const struct kvs_put_options *options);
void kvs_txn_create(struct kvs_txn *txn, const char *key, const void *value, size_t value_size,
                    const struct kvs_put_options *options);
void kvs_txn_update(struct kvs_txn *txn, const char *key, const void *value, size_t value_size, uint64_t expected,
                    const struct kvs_put_options *options);
void kvs_txn_delete(struct kvs_txn *txn, const char *key);
void kvs_txn_purge(struct kvs_txn *txn, const char *key);

/*
 * Commit. KVS_OK: everything is written; *revisions is an array of *count, one for each operation in order, one block
 * (both may be NULL). KVS_CONFLICT, KVS_ALREADY_EXISTS: a condition does not hold, nothing was written, and
 * kvs_error.key is that condition's key. After any other failure mind kvs_error.outcome.
 * A transaction without operations is KVS_OK at once, without asking the daemon whether its checks hold. A transaction
 * that was committed cannot be committed again; one that failed can.
 */
enum kvs_code kvs_txn_commit(struct kvs_txn *txn, const struct kvs_call_options *options, uint64_t **revisions,
                             size_t *count);

/*
 * Reads, and adds operations to txn, for kvs_txn_run, which commits if the function returns KVS_OK and otherwise ends
 * with the returned code. The function may be called several times, and must not commit or free txn.
 */
typedef enum kvs_code kvs_txn_fn(struct kvs_txn *txn, void *context);

/*
 * Read, change, write: call function with a new transaction and commit it. If the commit fails because a key that was
 * read has changed, do it again after a short random pause, until the timeout: the option timeout_s (which may be
 * longer than that of one call), or the handle's, or 5 seconds. Returns the code of the last round.
 */
enum kvs_code kvs_txn_run(struct kvs *kvs, const char *bucket, kvs_txn_fn *function, void *context,
                          const struct kvs_call_options *options);

#ifdef __cplusplus
}
#endif

#endif
