/*
 * attack: what a careless or malicious program can do to the daemon, for a given time.
 *
 * Used by the suite neighbour of tests/integration, and by the benchmark. Both measure the effect of each attack on the
 * client of neighbour.h. The daemon may defend itself as it likes: the attack's calls may fail, and its sessions may be
 * ended. Then it connects again. Nothing here needs Check.
 */
#ifndef SUPPORT_ATTACK_H
#define SUPPORT_ATTACK_H

#include <stddef.h>

struct kvs;

#define ATTACK_BUCKET "attack"

struct attack {
    const char *socket_path;
    const char *neighbour_bucket; /* the one that the neighbour uses */
    unsigned port;                /* of the embedded nats-server; 0: there is none */
    double seconds;
    char done[64];   /* how much it did, if it says so */
    char error[512]; /* "", or why there was no attack: a mistake in the attack itself */
};

struct attack_kind {
    const char *name;                                        /* what the other client does: "unread answers" */
    void (*prepare)(struct attack *attack, struct kvs *kvs); /* NULL: nothing to prepare */
    void (*run)(struct attack *attack);
    const char *(*why_not)(void); /* return why this machine cannot do it, or NULL. NULL: every machine can */
};

/* All attacks. The suite and the benchmark go through this list: a new attack is in both. */
extern const struct attack_kind attack_kinds[];
extern const size_t attack_count;

/* Return why this machine cannot run the attack, or NULL. */
const char *attack_why_not(const struct attack_kind *kind);

/* Create ATTACK_BUCKET with what the attack needs. Delete what was there before. */
void attack_prepare(const struct attack_kind *kind, struct attack *attack);

/* Attack for attack->seconds. */
void attack_run(const struct attack_kind *kind, struct attack *attack);

#endif
