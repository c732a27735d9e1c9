/*
 * call: what a client asked, and what it was answered, and both as messages. The judges compare them with what the
 * server did.
 */
#ifndef SIM_CALL_H
#define SIM_CALL_H

#include <msgpack.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Clients use these keys: "k0", "k1", ... */
#define CALL_KEYS_MAX 16u

/* The maximum number of parts of a call: see call_part. */
#define CALL_PARTS_MAX 6u

enum call_kind {
    CALL_PUT,
    CALL_CREATE,
    CALL_UPDATE,
    CALL_DELETE,
    CALL_PURGE,
    CALL_GET,
    CALL_BULK_PUT,
    CALL_BULK_GET,
    CALL_COMMIT,
    CALL_KEYS,
    CALL_ENTRIES,
    CALL_INCREMENT,
    CALL_PURGE_BUCKET,
    CALL_BULK_DELETE,
    CALL_GET_JSON,
    CALL_WAIT, /* kv.get with wait_above */
    CALL_CANCEL,
    CALL_SETUP, /* what the judges need not see */
    CALL_KINDS
};

enum call_result {
    CALL_RUNS,
    CALL_OK,
    CALL_FAILED,  /* an error whose outcome is none, or of a call that changes nothing */
    CALL_UNKNOWN, /* an error whose outcome is unknown */
    CALL_LOST     /* the session ended before the answer */
};

#define CALL_CODE_BYTES 32u

/* One key of a call. */
struct call_part {
    unsigned key;
    bool is_delete;          /* of a commit */
    bool is_check;           /* of a commit: the key has only a condition, and is not written */
    bool has_condition;      /* of an update, a deletion or a commit: the key must be at the revision expected */
    uint64_t expected;       /* of a get that waits: it wants a later one */
    uint64_t value;          /* written, each only once; 0: none */
    bool is_there;           /* read: the key exists */
    bool is_marker;          /* of a get that waits: the key was removed */
    uint64_t found;          /* its value */
    uint64_t revision;       /* of what was read or written; of a refusal, what the key is at; 0: none */
    enum call_result result; /* of bulk calls, each key's own */
    char code[CALL_CODE_BYTES];
};

struct call_record {
    struct call_record *next;
    unsigned client;
    unsigned number; /* of the client's calls */
    uint32_t msgid;
    enum call_kind kind;
    enum call_result result;
    bool is_cached;  /* a read with consistency cached */
    bool is_leader;  /* a read with consistency leader */
    bool is_refused; /* conflict or already_exists */
    bool must_succeed;
    bool if_exists; /* a delete that writes nothing if the key does not exist */
    bool has_id;    /* a write that is repeated if the daemon ends the session */
    bool is_parted; /* its session has ended, and it is to be repeated */
    bool is_repeated;
    uint64_t first_sent_us;     /* by the monotonic clock */
    char code[CALL_CODE_BYTES]; /* of the error; "": none */
    char text[200];
    uint64_t begin_ns, end_ns, timeout_ns;
    int64_t delta;  /* of an increment */
    unsigned ttl_s; /* of what it puts; 0: none */
    struct call_part parts[CALL_PARTS_MAX];
    size_t count;
    struct call_record *target; /* of call.cancel: what it is to cancel */
    struct call_record *cancel; /* the last call.cancel of this call; NULL: none */
    uint64_t keys_found;        /* of kv.keys and kv.entries, a bit for each key */
};

struct load;

const char *call_kind_name(enum call_kind kind);

/* Return whether it writes to keys: then it can have an id. */
bool call_writes(enum call_kind kind);

/* Return whether it deletes its keys. Those of a commit say it themselves. */
bool call_deletes(enum call_kind kind);

/* Return the result of a part: of a bulk call that has succeeded, each key has its own. */
enum call_result call_part_result(const struct call_record *record, const struct call_part *part);

/* Return whether it changes nothing. */
bool call_only_reads(enum call_kind kind);

/* Return whether the client has cancelled it, and was not told that it is too late. */
bool call_may_be_cancelled(const struct call_record *record);

/* Return how much of the timeout is left. */
uint64_t call_left_ns(const struct call_record *record);

/* --- Messages -------------------------------------------------------------------------------------- */

/* Pack the arguments, for caller_send. */
void call_pack(msgpack_sbuffer *arguments, const struct load *load, const struct call_record *record);

/* Take over an answer. revisions: what the client saw last of each key, which may change. */
void call_read_result(struct call_record *record, const msgpack_object *result, const struct load *load,
                      uint64_t revisions[CALL_KEYS_MAX]);
void call_read_error(struct call_record *record, const msgpack_object *error);

/* Of an entry: the number of its key, CALL_KEYS_MAX if it is not one of a client's; its value, 0 if it has none. */
unsigned call_key_of(const msgpack_object *object);
uint64_t call_value_of(const msgpack_object *object);

#endif
