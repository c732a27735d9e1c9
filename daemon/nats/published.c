#include "daemon/nats/published.h"

#include "daemon/base/hash.h"

#include <stddef.h>
#include <string.h>
#include <utlist.h>

static void move_to_list(struct published_entry **list, struct published_entry *entry)
{
    published_forget(entry);
    DL_APPEND2(*list, entry, previous, next);
    entry->list = list;
}

void published_note(struct published *published, struct published_entry *entry, const char *subject)
{
    entry->subject_hash = hash_bytes(subject, strlen(subject));
    move_to_list(&published->by_hash[entry->subject_hash % PUBLISHED_LISTS], entry);
}

void published_note_several(struct published *published, struct published_entry *entry)
{
    move_to_list(&published->of_several, entry);
}

void published_forget(struct published_entry *entry)
{
    if (entry->list == NULL)
        return;
    DL_DELETE2(*entry->list, entry, previous, next);
    entry->list = NULL;
}

struct published_entry *published_find(const struct published *published, const char *subject,
                                       bool (*publishes)(const struct published_entry *entry, const char *subject))
{
    uint64_t hash = hash_bytes(subject, strlen(subject));
    struct published_entry *entry = published->by_hash[hash % PUBLISHED_LISTS];

    while (entry != NULL && entry->subject_hash != hash)
        entry = entry->next;
    if (entry != NULL)
        return entry;
    entry = published->of_several;
    while (entry != NULL && !publishes(entry, subject))
        entry = entry->next;
    return entry;
}
