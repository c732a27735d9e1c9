#include "daemon/store/journal.h"

#include "daemon/base/clock.h"
#include "daemon/base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/*
 * As many as limits.calls: all calls in flight have an entry. At 14,000 writes per second, an entry stays for 4 s after
 * its write, longer than any client needs to read an answer that was sent.
 */
#define JOURNAL_ENTRIES 65536u

/* Changes with the layout of the file. */
#define JOURNAL_MAGIC UINT64_C(0x34306c6e726a766b)

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
    char boot_id[40]; /* of the machine: its clocks start again */
    uint32_t run;     /* counts the daemons that have opened the file */
    uint32_t next;    /* the place of the newest entry */
    uint32_t used;    /* places up to this one have been used: the pages after them are not touched */
    /* Of calls that were first sent before this time, the entries may have been dropped. */
    uint64_t complete_since_us;
    uint64_t last_removal_ms; /* 0: there was none */
    uint64_t digest_key[2];   /* random: no client can make two calls with one digest */
    struct journal_entry entries[JOURNAL_ENTRIES];
};

struct journal {
    struct journal_file *file;
    int descriptor;   /* holds the lock */
    uint32_t running; /* entries whose call is in progress */
    /* The places of entries by their id, in chains. Places count from 1; 0 ends a chain. */
    uint32_t first[JOURNAL_ENTRIES];
    uint32_t following[JOURNAL_ENTRIES + 1];
};

/* --- Entries by their id --------------------------------------------------------------------------- */

static struct journal_entry *journal_entry_at(const struct journal *journal, uint32_t place)
{
    return &journal->file->entries[place - 1];
}

static uint32_t *journal_chain(struct journal *journal, const char *id, size_t bytes, uint32_t part)
{
    return &journal->first[(hash_bytes(id, bytes) + part) % JOURNAL_ENTRIES];
}

static void journal_link(struct journal *journal, uint32_t place)
{
    const struct journal_entry *entry = journal_entry_at(journal, place);
    uint32_t *chain = journal_chain(journal, entry->id, entry->id_bytes, entry->part);

    journal->following[place] = *chain;
    *chain = place;
}

static void journal_unlink(struct journal *journal, uint32_t place)
{
    const struct journal_entry *entry = journal_entry_at(journal, place);

    uint32_t *at = journal_chain(journal, entry->id, entry->id_bytes, entry->part);

    for (; *at != 0; at = &journal->following[*at]) {
        if (*at == place) {
            *at = journal->following[place];
            return;
        }
    }
}

static uint32_t journal_find(struct journal *journal, const struct journal_call *call)
{
    uint32_t place = *journal_chain(journal, call->id, call->id_bytes, call->part);

    for (; place != 0; place = journal->following[place]) {
        const struct journal_entry *entry = journal_entry_at(journal, place);
        if (entry->part == call->part && entry->uid == call->uid && entry->id_bytes == call->id_bytes &&
            memcmp(entry->id, call->id, call->id_bytes) == 0)
            return place;
    }
    return 0;
}

/* --- The ring -------------------------------------------------------------------------------------- */

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

static void journal_free_entry(struct journal *journal, uint32_t place)
{
    journal_unlink(journal, place);
    journal_set_state(journal_entry_at(journal, place), ENTRY_FREE);
}

static void journal_drop(struct journal *journal, uint32_t place)
{
    struct journal_entry *entry = journal_entry_at(journal, place);

    if (entry->state == ENTRY_FREE)
        return;
    if (journal->file->complete_since_us <= entry->began_us)
        __atomic_store_n(&journal->file->complete_since_us, entry->began_us + 1, __ATOMIC_RELEASE);
    journal_free_entry(journal, place);
}

/* Return a free place, of the oldest entry that is not in use; 0: all are in use. */
static uint32_t journal_take_place(struct journal *journal)
{
    struct journal_file *file = journal->file;

    if (journal->running == JOURNAL_ENTRIES)
        return 0;
    for (unsigned tries = 0; tries < JOURNAL_ENTRIES; tries++) {
        uint32_t place = file->next % JOURNAL_ENTRIES + 1;
        file->next = place;
        if (place > file->used) {
            file->used = place;
            journal_set_state(journal_entry_at(journal, place), ENTRY_FREE); /* unless the file is damaged, it is */
            return place;
        }
        if (!journal_is_running(journal, journal_entry_at(journal, place))) {
            journal_drop(journal, place);
            return place;
        }
    }
    return 0;
}

static void journal_run_call(struct journal *journal, struct journal_call *call, uint32_t place)
{
    journal_entry_at(journal, place)->caller_run = journal->file->run;
    journal->running++;
    call->place = place;
}

static void journal_add(struct journal *journal, struct journal_call *call)
{
    uint32_t place = journal_take_place(journal);

    if (place == 0) {
        journal->file->complete_since_us = clock_monotonic_us() + 1;
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
    journal_run_call(journal, call, place);
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
        if (call->first_sent_us < journal->file->complete_since_us)
            return JOURNAL_FORGOTTEN;
        journal_add(journal, call);
        return JOURNAL_NEW;
    }

    struct journal_entry *entry = journal_entry_at(journal, place);
    if (entry->digest != call->digest)
        return JOURNAL_OTHER_CALL;
    if (journal_is_running(journal, entry))
        return JOURNAL_RUNNING;
    switch (entry->state) {
    case ENTRY_STORED:
        *revision = entry->revision;
        *copy = entry->copy;
        return JOURNAL_STORED;
    case ENTRY_SENT:
        journal_run_call(journal, call, place);
        *copy = entry->copy;
        copy->is_of_last_run = entry->sender_run + 1 == journal->file->run;
        if (entry->sender_run != journal->file->run)
            copy->connection = 0;
        return JOURNAL_IN_DOUBT;
    default:
        journal_run_call(journal, call, place);
        return JOURNAL_NEW;
    }
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
    journal->running--;
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

static void journal_prepare_file(struct journal *journal)
{
    struct journal_file *file = journal->file;
    char boot_id[sizeof(file->boot_id)];

    journal_read_boot_id(boot_id);
    if (file->magic != JOURNAL_MAGIC || memcmp(file->boot_id, boot_id, sizeof(boot_id)) != 0) {
        if (file->magic != 0)
            memset(file, 0, sizeof(*file));
        memcpy(file->boot_id, boot_id, sizeof(boot_id));
        hash_make_key(file->digest_key);
        file->complete_since_us = clock_monotonic_us() + 1;
        file->magic = JOURNAL_MAGIC;
    }
    file->run++;
    for (uint32_t place = 1; place <= file->used && place <= JOURNAL_ENTRIES; place++) {
        struct journal_entry *entry = journal_entry_at(journal, place);
        if (entry->state == ENTRY_FREE)
            continue;
        if (journal_is_sound(journal, entry)) {
            journal_link(journal, place);
        } else {
            journal_set_state(entry, ENTRY_FREE);
            file->complete_since_us = clock_monotonic_us() + 1;
        }
    }
}

struct journal *journal_open(const char *path, const char **reason)
{
    struct journal *journal = calloc(1, sizeof(*journal));

    *reason = strerror(ENOMEM);
    if (journal == NULL)
        return NULL;
    journal->descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (journal->descriptor < 0)
        goto fail;
    if (!journal_is_ours(journal->descriptor) || flock(journal->descriptor, LOCK_EX | LOCK_NB) != 0)
        goto fail_open;
    journal->file = journal_map(journal->descriptor);
    if (journal->file == NULL)
        goto fail_open;
    journal_prepare_file(journal);
    return journal;

fail_open:
    *reason = strerror(errno);
    close(journal->descriptor);
    free(journal);
    return NULL;
fail:
    *reason = strerror(errno);
    free(journal);
    return NULL;
}

void journal_close(struct journal *journal)
{
    if (journal == NULL)
        return;
    munmap(journal->file, sizeof(*journal->file));
    close(journal->descriptor);
    free(journal);
}
