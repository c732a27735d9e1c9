/*
 * Moves money from one account to another: transfer FROM TO AMOUNT. Either both accounts change or none, even if many
 * transfers run at once. Before:
 *     kvctl add bank && kvctl mput bank alice=100 bob=100
 */
#include <kvstore.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct transfer {
    const char *from;
    const char *to;
    long amount;
    const char *refused; /* why nothing was moved; NULL: the money was moved */
};

static void put_balance(struct kvs_txn *txn, const char *account, long balance)
{
    char text[24];
    int length = snprintf(text, sizeof(text), "%ld", balance);

    kvs_txn_put(txn, account, text, (size_t)length, NULL);
}

/* The library calls it again if another program changes an account before the commit. */
static enum kvs_code move(struct kvs_txn *txn, void *context)
{
    struct transfer *transfer = context;
    const struct kvs_entry *from, *to;
    enum kvs_code code;

    if ((code = kvs_txn_get(txn, transfer->from, &from)) != KVS_OK ||
        (code = kvs_txn_get(txn, transfer->to, &to)) != KVS_OK)
        return code;

    /* A transaction may write nothing. */
    transfer->refused = from == NULL || to == NULL                         ? "the account does not exist"
                        : strtol(from->value, NULL, 10) < transfer->amount ? "the balance is too low"
                                                                           : NULL;
    if (transfer->refused == NULL) {
        put_balance(txn, transfer->from, strtol(from->value, NULL, 10) - transfer->amount);
        put_balance(txn, transfer->to, strtol(to->value, NULL, 10) + transfer->amount);
    }
    return KVS_OK;
}

int main(int argc, char **argv)
{
    struct transfer transfer = {0};
    struct kvs_error error;

    if (argc != 4 || (transfer.amount = strtol(argv[3], NULL, 10)) <= 0 || strcmp(argv[1], argv[2]) == 0) {
        fprintf(stderr, "usage: transfer FROM TO AMOUNT\n");
        return 1;
    }
    transfer.from = argv[1];
    transfer.to = argv[2];
    struct kvs *kvs = kvs_connect(NULL, NULL, &error);
    if (kvs == NULL) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    enum kvs_code code = kvs_txn_run(kvs, "bank", move, &transfer, NULL);
    if (code != KVS_OK)
        transfer.refused = kvs_last_error(kvs)->message;
    if (transfer.refused != NULL)
        fprintf(stderr, "nothing was moved: %s\n", transfer.refused);
    kvs_close(kvs);
    return transfer.refused == NULL ? 0 : 1;
}
