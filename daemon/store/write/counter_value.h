/*
 * counter_value: what is known of the last message of a key that is incremented.
 *
 * Used by counter. It is known from a read, or from the counter's own last write. A write that is based on it names its
 * revision, so it need not be true. But another stream, or one that was set back, uses its revisions again: it is used
 * for a second only, and on the same connection.
 */
#ifndef DAEMON_STORE_COUNTER_VALUE_H
#define DAEMON_STORE_COUNTER_VALUE_H

#include "daemon/nats/kv.h"
#include "daemon/store/context.h"

enum counter_value_kind {
    COUNTER_VALUE_UNKNOWN, /* it must be read */
    COUNTER_VALUE_ABSENT,  /* there is no message, or it is a marker, or it has expired */
    COUNTER_VALUE_NUMBER,
    COUNTER_VALUE_TEXT /* a value that is not a number */
};

struct counter_value {
    enum counter_value_kind kind;
    int64_t number;
    uint64_t revision;  /* of the message; 0: there is none */
    int64_t expires_us; /* 0: never */

    /* private */
    uint64_t known_ms, connection, stream;
};

/* Set it to the key's last message, which was just read. NULL: there is none. */
void counter_value_read(struct counter_value *value, const struct store *store, const char *bucket_name,
                        const struct kv_entry *entry);

/* Set it to a number that was just written. */
void counter_value_write(struct counter_value *value, const struct store *store, const char *bucket_name,
                         int64_t number, uint64_t revision, int64_t expires_us);

/* Return whether the next write may be based on it. A value that has expired meanwhile becomes absent. */
bool counter_value_is_usable(struct counter_value *value, const struct store *store, const char *bucket_name);

/* Set the error of an increment that the value does not allow. */
void counter_value_set_refusal(const struct counter_value *value, struct error *error);

/* Read a decimal integer of 64 bits, in its only form: no blanks, no plus, no leading zeros. False: it is none. */
bool counter_value_parse(const char *text, size_t length, int64_t *number);

#endif
