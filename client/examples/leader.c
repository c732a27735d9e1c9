/*
 * Elects a leader: leader [NAME [PIECES]]. Of all processes that run it, on all hosts of a cluster, one at a time does
 * the work, until it has done its pieces. Start several, end one with Ctrl-C, and see another one lead. One that is
 * stopped (Ctrl-Z) stays the leader as long as its connection is open. Before: kvctl add demo
 */
#include <kvstore_lock.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PIECES_OF_A_TERM 3

/* A piece of work takes a tenth of a second, and must be over while the lock is vouched for. */
#define PIECE_S 0.1

/*
 * Count one more piece of work. The token is among the conditions of the commit: a process that was stopped in the
 * middle and continues after another one has become the leader gets KVS_CONFLICT, and changes nothing.
 */
static enum kvs_code do_piece(struct kvs *kvs, uint64_t token)
{
    struct kvs_txn *txn = kvs_txn_begin(kvs, "demo");
    const struct kvs_entry *entry;
    char text[24];

    nanosleep(&(struct timespec){.tv_nsec = (long)(PIECE_S * 1e9)}, NULL);
    kvs_txn_check(txn, "leader", token);
    enum kvs_code code = kvs_txn_get(txn, "pieces", &entry);
    if (code == KVS_OK) {
        int length = snprintf(text, sizeof(text), "%ld", entry != NULL ? strtol(entry->value, NULL, 10) + 1 : 1);
        kvs_txn_put(txn, "pieces", text, (size_t)length, NULL);
        code = kvs_txn_commit(txn, NULL, NULL, NULL);
    }
    kvs_txn_free(txn);
    return code;
}

/* Lead for a term, or until the lock is lost. Returns how many pieces were done. */
static long lead(struct kvs *kvs, struct kvs_lock *lock, long pieces)
{
    long done = 0;

    while (done < pieces && done < PIECES_OF_A_TERM && kvs_lock_valid_for(lock) > 2 * PIECE_S) {
        if (do_piece(kvs, kvs_lock_token(lock)) != KVS_OK) {
            fprintf(stderr, "%s\n", kvs_last_error(kvs)->message);
            break;
        }
        done++;
    }
    return done;
}

/* Campaign again and again until all pieces are done. */
static int run(struct kvs *kvs, const char *name, long pieces)
{
    /* keep: the leader stays the leader when the daemon restarts. */
    struct kvs_lock_options options =
        KVS_LOCK_OPTIONS(.wait_s = -1, .value = name, .value_size = strlen(name), .keep = true);

    while (pieces > 0) {
        struct kvs_lock *lock;
        if (kvs_lock_acquire(kvs, "demo", "leader", &options, &lock) != KVS_OK) {
            fprintf(stderr, "%s\n", kvs_last_error(kvs)->message);
            return 1;
        }
        printf("%s leads, with the token %" PRIu64 "\n", name, kvs_lock_token(lock));
        fflush(stdout);
        pieces -= lead(kvs, lock, pieces);
        if (kvs_lock_release(lock) != KVS_OK)
            printf("%s was the leader no longer: %s\n", name, kvs_last_error(kvs)->message);
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct kvs_options options = KVS_OPTIONS(.reconnect = true);
    struct kvs_error error;
    struct kvs *kvs = kvs_connect(NULL, &options, &error);

    if (kvs == NULL) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    int status = run(kvs, argc > 1 ? argv[1] : "example", argc > 2 ? atol(argv[2]) : 5);
    kvs_close(kvs);
    return status;
}
