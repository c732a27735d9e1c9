#include "daemon/store/journal.h"

#include "daemon/base/clock.h"
#include "daemon/base/table.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <utlist.h>

/*
 * As many as limits.calls: all calls in flight have an entry. If one user makes 14,000 writes per second,
 * each entry stays for 4 s after its write, longer than any client needs to read an answer that was sent.
 */
#define JOURNAL_ENTRIES 65536u

/* Uids that are equal modulo this prime share a complete_since_us; those of containers are often 65,536 apart. */
#define JOURNAL_USERS 4093u

/* Changes with the layout of the file. */
#define JOURNAL_MAGIC UINT64_C(0x36306c6e726a766b)

enum journal_state {
    ENTRY_FREE,
    ENTRY_QUEUED, /* no copy was sent, or none is stored */
    ENTRY_SENT,   /* a copy was sent */
    ENTRY_STORED
};

struct journal_entry {
    uint32_t state;
    uint32_t caller_run; /* the run in which a call is in progress; 0: none is */
    uint32_t sender_run; /* the run that sent the copy */
    uint32_t uid;
    uint32_t part;
    uint32_t id_bytes;
    char id[JOURNAL_ID_MAX];
    uint64_t digest;
    uint64_t began_us;
    uint64_t revision;
    struct journal_copy copy;
};

struct journal_file {
    uint64_t magic;
    char boot_id[40];         /* of the machine: its clocks start again */
    uint32_t run;             /* counts the daemons that have opened the file */
    uint32_t used;            /* entries up to this one have been used: the pages after them are not touched */
    uint64_t last_removal_ms; /* 0: there was none */
    uint64_t digest_key[2];   /* random: no client can make two calls with one digest */
    /* By user. Of calls that were first sent before this time, the entries may have been dropped. */
    uint64_t complete_since_us[JOURNAL_USERS];
    struct journal_entry entries[JOURNAL_ENTRIES];
};

/* What the process knows of the entry with the same index. */
struct journal_place {
    struct journal_user *user;             /* NULL: the entry is free */
    struct journal_place *next, *previous; /* in the list of the user's ended calls, or of the free places */
    uint32_t following;                    /* number of the next place in its chain; 0: none */
};

/* Exists while it has an entry. */
struct journal_user {
    UT_hash_handle hh; /* by uid */
    uint32_t uid;
    uint32_t entries;                     /* also those of calls in progress */
    uint32_t ended;                       /* entries whose call has ended */
    struct journal_place *oldest;         /* of these, in the order in which the calls ended */
    struct journal_user *next, *previous; /* of the users with as many */
};

struct journal {
    struct journal_file *file;
    int descriptor;             /* holds the lock */
    struct journal_user *users; /* uthash */
    /* The users by the number of their entries that can be dropped, and the highest such number. */
    struct journal_user *by_ended[JOURNAL_ENTRIES + 1];
    uint32_t most_ended;
    struct journal_place *free_places;
    struct journal_place places[JOURNAL_ENTRIES];
    /* Numbers of places by the id of the entry, in chains. They count from 1; 0 ends a chain. */
    uint32_t first[JOURNAL_ENTRIES];
};

/* --- Entries by their id --------------------------------------------------------------------------- */

static struct journal_entry *journal_entry_at(const struct journal *journal, uint32_t place)
{
    return &journal->file->entries[place - 1];
}

static struct journal_place *journal_place_at(struct journal *journal, uint32_t place)
{
    return &journal->places[place - 1];
}

static uint32_t journal_number_of(const struct journal *journal, const struct journal_place *place)
{
    return (uint32_t)(place - journal->places) + 1;
}

static uint32_t *journal_chain(struct journal *journal, const char *id, size_t bytes, uint32_t part)
{
    return &journal->first[(hash_bytes(id, bytes) + part) % JOURNAL_ENTRIES];
}

static void journal_link(struct journal *journal, uint32_t place)
{
    const struct journal_entry *entry = journal_entry_at(journal, place);
    uint32_t *chain = journal_chain(journal, entry->id, entry->id_bytes, entry->part);

    journal_place_at(journal, place)->following = *chain;
    *chain = place;
}

static void journal_unlink(struct journal *journal, uint32_t place)
{
    const struct journal_entry *entry = journal_entry_at(journal, place);

    uint32_t *at = journal_chain(journal, entry->id, entry->id_bytes, entry->part);

    for (; *at != 0; at = &journal_place_at(journal, *at)->following) {
        if (*at == place) {
            *at = journal_place_at(journal, place)->following;
            return;
        }
    }
}

static uint32_t journal_find(struct journal *journal, const struct journal_call *call)
{
    uint32_t place = *journal_chain(journal, call->id, call->id_bytes, call->part);

    for (; place != 0; place = journal_place_at(journal, place)->following) {
        const struct journal_entry *entry = journal_entry_at(journal, place);
        if (entry->part == call->part && entry->uid == call->uid && entry->id_bytes == call->id_bytes &&
            memcmp(entry->id, call->id, call->id_bytes) == 0)
            return place;
    }
    return 0;
}

/* --- Users ----------------------------------------------------------------------------------------- */

/* Return the record of a user, created if there is none; NULL: out of memory. */
static struct journal_user *journal_obtain_user(struct journal *journal, uint32_t uid)
{
    struct journal_user *user = NULL;

    HASH_FIND(hh, journal->users, &uid, sizeof(uid), user);
    if (user != NULL || (user = calloc(1, sizeof(*user))) == NULL)
        return user;
    user->uid = uid;
    HASH_ADD(hh, journal->users, uid, sizeof(uid), user);
    DL_APPEND2(journal->by_ended[0], user, previous, next);
    return user;
}

/* By one at a time. If the last user with the highest number loses one, that user has the new highest number. */
static void journal_set_ended(struct journal *journal, struct journal_user *user, uint32_t ended)
{
    DL_DELETE2(journal->by_ended[user->ended], user, previous, next);
    DL_APPEND2(journal->by_ended[ended], user, previous, next);
    user->ended = ended;
    if (ended > journal->most_ended || journal->by_ended[journal->most_ended] == NULL)
        journal->most_ended = ended;
}

/* The call of the entry has ended. */
static void journal_list_ended(struct journal *journal, struct journal_place *place)
{
    DL_APPEND2(place->user->oldest, place, previous, next);
    journal_set_ended(journal, place->user, place->user->ended + 1);
}

static void journal_unlist_ended(struct journal *journal, struct journal_place *place)
{
    DL_DELETE2(place->user->oldest, place, previous, next);
    journal_set_ended(journal, place->user, place->user->ended - 1);
}

static void journal_leave_user(struct journal *journal, struct journal_place *place)
{
    struct journal_user *user = place->user;

    place->user = NULL;
    if (--user->entries > 0)
        return;
    DL_DELETE2(journal->by_ended[0], user, previous, next);
    HASH_DEL(journal->users, user);
    free(user);
}

static uint64_t *journal_complete_since(const struct journal *journal, uint32_t uid)
{
    return &journal->file->complete_since_us[uid % JOURNAL_USERS];
}

/* Entries that were made until now may be missing, and nobody knows whose. */
static void journal_forget_users(struct journal *journal)
{
    uint64_t now_us = clock_monotonic_us();

    for (uint32_t user = 0; user < JOURNAL_USERS; user++)
        *journal_complete_since(journal, user) = now_us + 1;
}

/* --- Places ---------------------------------------------------------------------------------------- */

static bool journal_is_running(const struct journal *journal, const struct journal_entry *entry)
{
    return entry->state != ENTRY_FREE && entry->caller_run == journal->file->run;
}

/*
 * The process may be killed between any two of these statements. An entry becomes visible with its state, which is
 * written last, and before it is overwritten it is dropped.
 */
static void journal_set_state(struct journal_entry *entry, enum journal_state state)
{
    __atomic_store_n(&entry->state, state, __ATOMIC_RELEASE);
}

static void journal_add_free_place(struct journal *journal, uint32_t number)
{
    LL_PREPEND(journal->free_places, journal_place_at(journal, number));
}

/* Free the entry of a call that has ended. */
static void journal_free_entry(struct journal *journal, uint32_t number)
{
    struct journal_place *place = journal_place_at(journal, number);

    journal_unlink(journal, number);
    journal_unlist_ended(journal, place);
    journal_leave_user(journal, place);
    journal_set_state(journal_entry_at(journal, number), ENTRY_FREE);
    journal_add_free_place(journal, number);
}

/* Drop the oldest entry of the user that has most of them. Calls in progress keep theirs. */
static void journal_drop_one(struct journal *journal)
{
    uint32_t number = journal_number_of(journal, journal->by_ended[journal->most_ended]->oldest);
    const struct journal_entry *entry = journal_entry_at(journal, number);
    uint64_t *complete_since_us = journal_complete_since(journal, entry->uid);

    if (*complete_since_us <= entry->began_us)
        __atomic_store_n(complete_since_us, entry->began_us + 1, __ATOMIC_RELEASE);
    journal_free_entry(journal, number);
}

/* Return the number of a free place; 0: all are in use. */
static uint32_t journal_take_place(struct journal *journal)
{
    struct journal_file *file = journal->file;

    if (journal->free_places == NULL && file->used < JOURNAL_ENTRIES) {
        file->used++;
        journal_set_state(journal_entry_at(journal, file->used), ENTRY_FREE); /* unless the file is damaged, it is */
        return file->used;
    }
    if (journal->free_places == NULL && journal->most_ended > 0)
        journal_drop_one(journal);
    struct journal_place *place = journal->free_places;
    if (place == NULL)
        return 0;
    LL_DELETE(journal->free_places, place);
    return journal_number_of(journal, place);
}

/* The entry at this place is the user's. Return false if memory ran out. */
static bool journal_assign_place(struct journal *journal, uint32_t number, uint32_t uid)
{
    struct journal_user *user = journal_obtain_user(journal, uid);

    journal_place_at(journal, number)->user = user;
    if (user != NULL)
        user->entries++;
    return user != NULL;
}

static void journal_add(struct journal *journal, struct journal_call *call)
{
    uint32_t place = journal_take_place(journal);

    if (place == 0 || !journal_assign_place(journal, place, call->uid)) {
        if (place != 0)
            journal_add_free_place(journal, place);
        *journal_complete_since(journal, call->uid) = clock_monotonic_us() + 1;
        return;
    }
    struct journal_entry *entry = journal_entry_at(journal, place);
    entry->sender_run = 0;
    entry->part = call->part;
    entry->uid = call->uid;
    entry->id_bytes = (uint32_t)call->id_bytes;
    memcpy(entry->id, call->id, call->id_bytes);
    entry->digest = call->digest;
    entry->began_us = clock_monotonic_us();
    entry->revision = 0;
    entry->caller_run = journal->file->run;
    call->place = place;
    journal_set_state(entry, ENTRY_QUEUED);
    journal_link(journal, place);
}

/* --- Calls ----------------------------------------------------------------------------------------- */

void journal_describe(const struct journal *journal, struct journal_call *call, const void *bytes, size_t length)
{
    if (journal == NULL || call->id == NULL)
        return;
    const uint64_t key[2] = {journal->file->digest_key[0] ^ call->digest, journal->file->digest_key[1]};
    call->digest = hash_bytes_with(key, bytes, length);
}

/*
 * Begin a call that is not a repetition. It replaces the entry of an earlier call with the same id. Otherwise many
 * entries with one id would make one long chain of the hash table.
 */
static enum journal_finding journal_begin_first(struct journal *journal, struct journal_call *call)
{
    uint32_t place = journal_find(journal, call);

    if (place != 0 && journal_is_running(journal, journal_entry_at(journal, place)))
        return JOURNAL_OTHER_CALL;
    if (place != 0)
        journal_free_entry(journal, place);
    journal_add(journal, call);
    return JOURNAL_NEW;
}

enum journal_finding journal_begin(struct journal *journal, struct journal_call *call, uint64_t *revision,
                                   struct journal_copy *copy)
{
    call->was_asked = true;
    if (call->id == NULL || (journal == NULL && call->first_sent_us == 0))
        return JOURNAL_NEW;
    if (journal == NULL)
        return JOURNAL_FORGOTTEN;
    if (call->first_sent_us == 0)
        return journal_begin_first(journal, call);
    uint32_t place = journal_find(journal, call);
    if (place == 0) {
        if (call->first_sent_us < *journal_complete_since(journal, call->uid))
            return JOURNAL_FORGOTTEN;
        journal_add(journal, call);
        return JOURNAL_NEW;
    }

    struct journal_entry *entry = journal_entry_at(journal, place);
    if (entry->digest != call->digest)
        return JOURNAL_OTHER_CALL;
    if (journal_is_running(journal, entry))
        return JOURNAL_RUNNING;
    if (entry->state == ENTRY_STORED) {
        *revision = entry->revision;
        *copy = entry->copy;
        return JOURNAL_STORED;
    }
    journal_unlist_ended(journal, journal_place_at(journal, place));
    entry->caller_run = journal->file->run;
    call->place = place;
    if (entry->state != ENTRY_SENT)
        return JOURNAL_NEW;
    *copy = entry->copy;
    copy->is_of_last_run = entry->sender_run + 1 == journal->file->run;
    if (entry->sender_run != journal->file->run)
        copy->connection = 0;
    return JOURNAL_IN_DOUBT;
}

void journal_note_sent(struct journal *journal, const struct journal_call *call, const struct journal_copy *copy)
{
    if (journal == NULL || call->place == 0)
        return;
    struct journal_entry *entry = journal_entry_at(journal, call->place);
    journal_set_state(entry, ENTRY_QUEUED); /* an earlier copy is not stored, and this one was not flushed yet */
    entry->copy = *copy;
    entry->sender_run = journal->file->run;
    journal_set_state(entry, ENTRY_SENT);
}

void journal_note_refused(struct journal *journal, const struct journal_call *call)
{
    if (journal != NULL && call->place != 0)
        journal_set_state(journal_entry_at(journal, call->place), ENTRY_QUEUED);
}

void journal_end(struct journal *journal, struct journal_call *call, uint64_t revision, const struct error *error)
{
    if (journal == NULL || call->place == 0)
        return;
    struct journal_entry *entry = journal_entry_at(journal, call->place);
    if (error == NULL) {
        entry->revision = revision;
        journal_set_state(entry, ENTRY_STORED);
    } else if (error->outcome != ERROR_OUTCOME_UNKNOWN) {
        journal_set_state(entry, ENTRY_QUEUED);
    }
    journal_cancel(journal, call);
}

void journal_forget(struct journal *journal, struct journal_call *call)
{
    if (journal == NULL || call->place == 0)
        return;
    uint32_t place = call->place;
    journal_cancel(journal, call);
    journal_free_entry(journal, place);
}

void journal_cancel(struct journal *journal, struct journal_call *call)
{
    if (journal == NULL || call->place == 0)
        return;
    journal_entry_at(journal, call->place)->caller_run = 0;
    journal_list_ended(journal, journal_place_at(journal, call->place));
    call->place = 0;
}

void journal_note_removal(struct journal *journal, uint64_t now_ms)
{
    if (journal != NULL)
        journal->file->last_removal_ms = now_ms;
}

bool journal_nothing_removed_since(const struct journal *journal, uint64_t since_ms)
{
    return journal != NULL && (journal->file->last_removal_ms == 0 || journal->file->last_removal_ms < since_ms);
}

/* --- Life ------------------------------------------------------------------------------------------ */

static void journal_read_boot_id(char boot_id[40])
{
    FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");

    memset(boot_id, 0, 40);
    if (file == NULL)
        return;
    if (fread(boot_id, 1, 36, file) != 36)
        memset(boot_id, 0, 40);
    fclose(file);
}

/* Return whether nobody else can write to the file: its directory may be open to others. */
static bool journal_is_ours(int descriptor)
{
    struct stat status;

    if (fstat(descriptor, &status) != 0)
        return false;
    errno = EPERM;
    return S_ISREG(status.st_mode) && status.st_uid == geteuid() && status.st_nlink == 1 &&
           (status.st_mode & (S_IRWXG | S_IRWXO)) == 0;
}

/* Map the locked file, whose space is reserved: a store to a page for which there is no space would kill the daemon. */
static struct journal_file *journal_map(int descriptor)
{
    const size_t bytes = sizeof(struct journal_file);
    struct stat status;

    /* If a part of it was cut off, nobody knows which entries were in that part: begin again. */
    if (fstat(descriptor, &status) != 0 || (status.st_size != (off_t)bytes && ftruncate(descriptor, 0) != 0))
        return NULL;
    int failure = posix_fallocate(descriptor, 0, (off_t)bytes);
    if (failure != 0) {
        errno = failure;
        return NULL;
    }
    void *mapped = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    return mapped != MAP_FAILED ? mapped : NULL;
}

/* Another program may have written to the file, or the disk has damaged it. */
static bool journal_is_sound(const struct journal *journal, const struct journal_entry *entry)
{
    size_t length = strnlen(entry->copy.message_id, sizeof(entry->copy.message_id));
    bool has_copy = length > 0 && length < sizeof(entry->copy.message_id);

    return entry->state <= ENTRY_STORED && entry->caller_run < journal->file->run &&
           entry->id_bytes >= JOURNAL_ID_MIN && entry->id_bytes <= JOURNAL_ID_MAX &&
           (entry->state != ENTRY_SENT || has_copy);
}

static int journal_compare_age(const void *a, const void *b)
{
    const struct journal_entry *left = *(const struct journal_entry *const *)a;
    const struct journal_entry *right = *(const struct journal_entry *const *)b;

    return left->began_us < right->began_us ? -1 : left->began_us > right->began_us;
}

static void journal_adopt_entry(struct journal *journal, struct journal_entry *entry)
{
    uint32_t number = (uint32_t)(entry - journal->file->entries) + 1;

    if (journal_is_sound(journal, entry) && journal_assign_place(journal, number, entry->uid)) {
        journal_list_ended(journal, journal_place_at(journal, number));
        journal_link(journal, number);
        return;
    }
    journal_set_state(entry, ENTRY_FREE);
    journal_add_free_place(journal, number);
    journal_forget_users(journal);
}

/* List the entries of the daemons before this one, the oldest first. Return -1 if memory ran out. */
static int journal_adopt_entries(struct journal *journal)
{
    struct journal_file *file = journal->file;
    size_t count = 0;

    if (file->used > JOURNAL_ENTRIES)
        file->used = JOURNAL_ENTRIES;
    struct journal_entry **entries = calloc(file->used + 1, sizeof(struct journal_entry *));
    if (entries == NULL)
        return -1;
    for (uint32_t number = 1; number <= file->used; number++) {
        struct journal_entry *entry = journal_entry_at(journal, number);
        if (entry->state != ENTRY_FREE)
            entries[count++] = entry;
        else
            journal_add_free_place(journal, number);
    }
    qsort(entries, count, sizeof(struct journal_entry *), journal_compare_age);
    for (size_t i = 0; i < count; i++)
        journal_adopt_entry(journal, entries[i]);
    free(entries);
    return 0;
}

static int journal_prepare_file(struct journal *journal)
{
    struct journal_file *file = journal->file;
    char boot_id[sizeof(file->boot_id)];

    journal_read_boot_id(boot_id);
    if (file->magic != JOURNAL_MAGIC || memcmp(file->boot_id, boot_id, sizeof(boot_id)) != 0) {
        if (file->magic != 0)
            memset(file, 0, sizeof(*file));
        memcpy(file->boot_id, boot_id, sizeof(boot_id));
        hash_make_key(file->digest_key);
        journal_forget_users(journal);
        file->magic = JOURNAL_MAGIC;
    }
    file->run++;
    return journal_adopt_entries(journal);
}

static int journal_use_file(struct journal *journal, const char *path)
{
    journal->descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (journal->descriptor < 0 || !journal_is_ours(journal->descriptor) ||
        flock(journal->descriptor, LOCK_EX | LOCK_NB) != 0)
        return -1;
    journal->file = journal_map(journal->descriptor);
    return journal->file != NULL ? journal_prepare_file(journal) : -1;
}

struct journal *journal_open(const char *path, const char **reason)
{
    struct journal *journal = calloc(1, sizeof(*journal));

    if (journal != NULL && journal_use_file(journal, path) == 0)
        return journal;
    *reason = strerror(errno);
    journal_close(journal);
    return NULL;
}

void journal_close(struct journal *journal)
{
    struct journal_user *user, *next;

    if (journal == NULL)
        return;
    HASH_ITER(hh, journal->users, user, next)
    {
        HASH_DEL(journal->users, user);
        free(user);
    }
    if (journal->file != NULL)
        munmap(journal->file, sizeof(*journal->file));
    if (journal->descriptor >= 0)
        close(journal->descriptor);
    free(journal);
}
