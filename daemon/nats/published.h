/*
 * published: which requests wait for an answer, by the subject to which they published.
 *
 * Used by request, to find the request whose message the server has denied: its error names only the subject. Subjects
 * are not kept, only their hashes: that two different subjects in flight have the same 64 bits has a probability of at
 * most 2^-32.
 */
#ifndef DAEMON_NATS_PUBLISHED_H
#define DAEMON_NATS_PUBLISHED_H

#include <stdbool.h>
#include <stdint.h>

#define PUBLISHED_LISTS 1024u

/* The request embeds it, zeroed. All members are private. */
struct published_entry {
    struct published_entry *next, *previous;
    struct published_entry **list; /* NULL: in none */
    uint64_t subject_hash;
};

/* Zeroed: empty. Each list is in the order of publishing. */
struct published {
    struct published_entry *by_hash[PUBLISHED_LISTS];
    struct published_entry *of_several; /* requests that publish to several subjects */
};

/* Note that the entry has published to subject last. It is forgotten under its earlier subject. */
void published_note(struct published *published, struct published_entry *entry, const char *subject);

/* The same for an entry that publishes to several subjects, which it must be asked for. */
void published_note_several(struct published *published, struct published_entry *entry);

/* Does nothing if the entry is in no list. */
void published_forget(struct published_entry *entry);

/*
 * Return the entry that published to subject first; NULL: none is there. The server denies messages in the order in
 * which they come, one error for each. Entries of several subjects are asked by publishes.
 */
struct published_entry *published_find(const struct published *published, const char *subject,
                                       bool (*publishes)(const struct published_entry *entry, const char *subject));

#endif
