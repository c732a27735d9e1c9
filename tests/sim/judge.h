/*
 * judge: compares what clients were answered with what the simulated server did.
 *
 * The server's changes, with their times, are the truth: they are the one order of all writes. So each call is judged
 * by itself. A write that has succeeded must be stored once, between its begin and its end, and its condition must have
 * held just before. A read must return what was there at one moment between its begin and its end. Calls of which all
 * is so are linearizable. The daemon of an embedded server answers reads from its memory, in which a write may come
 * after it was stored. There, the moment may also be before the call began, but not before a revision of the key (of a
 * read of several keys: of the bucket) was stored that any client had been answered before.
 */
#ifndef SIM_JUDGE_H
#define SIM_JUDGE_H

#include "tests/sim/client.h"
#include "tests/sim/stream.h"

#define HOSTS_MAX 3u

/* What was known on a host at a time. */
struct knowledge {
    uint64_t at_ns;
    /*
     * After the newest revision was stored that any client of the host had been answered by then: just after it, and
     * after the whole operation.
     */
    size_t change, moment;
};

struct knowledge_list {
    struct knowledge *items; /* in the order of time */
    size_t count;
};

/* The changes of one key, by their places. */
struct key_changes {
    size_t *places;
    size_t count;
};

/* What was stored with a value. */
struct written {
    const struct stored *stored; /* the last */
    size_t count;
};

struct stop {
    uint64_t begin_ns, end_ns;
};

struct judgement {
    const struct stream *stream;
    const struct load *load;
    struct client *const *clients;
    size_t client_count;
    size_t host_count;        /* client i is on host i % host_count */
    bool reads_memory;        /* the server is embedded */
    uint64_t staleness_ns;    /* the maximum of cached reads */
    uint64_t lag_ns;          /* that of reads from a replica */
    uint64_t slack_ns;        /* an answer may come this long after its deadline */
    const struct stop *stops; /* times at which a daemon was stopped: an answer may come later by their length */
    size_t stop_count;
    struct key_changes changes[CALL_KEYS_MAX + 1];             /* see judge_prepare */
    struct knowledge_list known[HOSTS_MAX][CALL_KEYS_MAX + 2]; /* of each key, and of the bucket */
    struct written *written;                                   /* by value */
    struct knowledge *after;                                   /* each revision was stored */
    bool is_quiet;     /* there are no faults: a call fails only if its condition does not hold */
    bool daemons_stay; /* none is shut down or killed: no session is lost */
    /*
     * The server came back older, or empty. What was acknowledged before promises_ns may be lost: of calls that began
     * before, only answers and duplicates are judged.
     */
    bool was_set_back;
    uint64_t promises_ns;
};

/* Return the sum of the stops between two times. */
uint64_t judge_stopped_ns(const struct stop *stops, size_t count, uint64_t from_ns, uint64_t to_ns);

/* Fill in the tables, and free them. */
void judge_prepare(struct judgement *judgement);
void judge_finish(struct judgement *judgement);

/* Return for how long after its begin an answer to a call may come, that was lost if it was not answered. */
uint64_t judge_allowed_ns(const struct judgement *judgement, uint64_t timeout_ns, uint64_t begin_ns, uint64_t end_ns,
                          bool is_lost);

/* Judge the calls of a client; world_fail if one is wrong. */
void judge_calls(const struct judgement *judgement, const struct client *client);

/* No message is stored twice. The stream was not set back. */
void judge_log(const struct stream *stream);

/* Each key was deleted as often as its clients were answered. */
void judge_deletions(const struct judgement *judgement);

/* Judge the watches of a client. */
void judge_watches(const struct judgement *judgement, const struct client *client);

/* The answer of a read was there at one moment of the call. */
void judge_read(const struct judgement *judgement, const struct call_record *record);

/* Judge a get that waits for a change. */
void judge_waiting_get(const struct judgement *judgement, const struct call_record *record);

/* Judge an increment, and the counter, for all clients together. */
void judge_increment(const struct judgement *judgement, const struct call_record *record);
void judge_counter(const struct judgement *judgement);

/* The bucket was purged only as its clients have asked. */
void judge_purges(const struct judgement *judgement);

/* Return whether what a call promises may be lost. */
bool judge_is_void(const struct judgement *judgement, const struct call_record *record);

/* End the process: a call has shown a fault. */
void judge_fail(const struct call_record *record, const char *why) __attribute__((noreturn));

/*
 * Return whether a key may have vanished, for which a watch of this time ends with revision_gone. After a fault the
 * daemon does not know that none has.
 */
bool judge_may_be_gone(const struct judgement *judgement, uint64_t begun_ns, uint64_t ended_ns);

/* Return whether each watch that is open has been delivered the last message of the stream. */
bool judge_is_delivered(const struct judgement *judgement, const struct client *client);

/* Return whether each watch that is open was delivered what the bucket has, and nothing else: also what vanished. */
bool judge_is_in_agreement(const struct judgement *judgement, const struct client *client);

#endif
