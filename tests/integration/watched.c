#include "tests/integration/watched.h"

#include <poll.h>
#include <string.h>
#include <unistd.h>

#define WAIT_S ((double)PATIENCE_MS / 1000)

/* A pause of a program's own loop. */
#define PUMP_MS 50

struct kvs *watched_connect(const struct daemon *daemon, const struct kvs_options *options)
{
    struct kvs_options patient = options != NULL ? *options : (struct kvs_options){0};
    struct kvs_error error;

    patient.connect_timeout_s = DAEMON_CALL_TIMEOUT_S;
    patient.timeout_s = DAEMON_CALL_TIMEOUT_S;
    struct kvs *kvs = kvs_connect(daemon->socket_path, &patient, &error);

    ck_assert_msg(kvs != NULL, "%s", error.message);
    return kvs;
}

const char *watched_bucket(struct kvs *kvs, unsigned history)
{
    static unsigned count;
    const char *bucket = format_text("watched-%d-%u", (int)getpid(), ++count);
    struct kvs_bucket_options options = {.history = history};

    assert_done(kvs_bucket_create(kvs, bucket, &options, NULL));
    return bucket;
}

uint64_t watched_put(struct kvs *kvs, const char *bucket, const char *key, const char *value)
{
    struct kvs_put_options options = {.timeout_s = WAIT_S};
    uint64_t revision;

    assert_done(kvs_put(kvs, bucket, key, value, strlen(value), &options, &revision));
    return revision;
}

/* "key=value@revision", "-key@revision" of a delete, "+key:size@revision" without the value. */
static const char *text_of_entry(const struct kvs_entry *entry)
{
    if (entry->operation != KVS_OPERATION_PUT)
        return format_text("-%s@%d", entry->key, (int)entry->revision);
    if (entry->value == NULL)
        return format_text("+%s:%zu@%d", entry->key, entry->value_size, (int)entry->revision);
    return format_text("%s=%s@%d", entry->key, entry->value, (int)entry->revision);
}

const char *text_of_event(const struct kvs_event *event)
{
    switch (event->type) {
    case KVS_EVENT_ENTRY:
        return text_of_entry(event->entry);
    case KVS_EVENT_READY:
        return "ready";
    case KVS_EVENT_ENDED:
        return format_text("ended: %s", kvs_code_name(event->error->code));
    default:
        return "nothing";
    }
}

struct kvs_event watched_next(struct kvs_watch *watch)
{
    struct kvs_event event;

    ck_assert_int_eq(kvs_watch_next(watch, WAIT_S, &event), KVS_OK);
    return event;
}

/* The next events, in one text. */
void watched_expect(struct kvs_watch *watch, const char *wanted)
{
    const char *told = "";
    size_t length = strlen(wanted);

    while (strlen(told) < length) {
        struct kvs_event event = watched_next(watch);
        told = format_text("%s%s%s", told, *told != '\0' ? " " : "", text_of_event(&event));
        if (event.type == KVS_EVENT_NONE || event.type == KVS_EVENT_ENDED)
            break;
    }
    ck_assert_str_eq(told, wanted);
}

/* The next event is the entry behind *last. */
void watched_expect_behind(struct kvs_watch *watch, uint64_t *last)
{
    struct kvs_event event = watched_next(watch);

    ck_assert_msg(event.type == KVS_EVENT_ENTRY, "%s behind %d", text_of_event(&event), (int)*last);
    ck_assert_uint_eq(event.entry->revision, *last + 1);
    (*last)++;
}

void watched_pump(struct kvs_watch *watch)
{
    struct kvs_event event;

    ck_assert_int_eq(kvs_watch_next(watch, (double)PUMP_MS / 1000, &event), KVS_OK);
    ck_assert_msg(event.type == KVS_EVENT_NONE, "%s", text_of_event(&event));
}

void watched_tell(struct kvs *kvs, struct kvs_watch *watch, const struct kvs_event *event, void *context)
{
    struct told *told = context;
    struct kvs_event ignored;

    told->text = format_text("%s%s ", told->text != NULL ? told->text : "", text_of_event(event));
    switch (event->type) {
    case KVS_EVENT_ENTRY:
        told->entries++;
        told->last = event->entry->revision;
        if (told->stops)
            kvs_watch_stop(watch);
        break;
    case KVS_EVENT_READY:
        told->ready++;
        break;
    default:
        told->ended++;
        told->error = *event->error;
    }
    /* Nothing may block in here. */
    if (!told->stops)
        ck_assert_int_eq(kvs_watch_next(watch, 0, &ignored), KVS_INVALID_ARGUMENT);
    ck_assert_int_eq(kvs_bucket_delete(kvs, "nowhere", NULL), KVS_INVALID_ARGUMENT);
}

void watched_run_until(struct kvs *kvs, const unsigned *count, unsigned wanted)
{
    uint64_t end = now_ms() + PATIENCE_MS;

    kvs_process(kvs);
    while (*count < wanted) {
        struct pollfd wait = {.fd = kvs_fd(kvs), .events = kvs_events(kvs)};
        int timeout_ms = kvs_timeout_ms(kvs);
        ck_assert_msg(now_ms() < end, "the function has been called %u times, not %u", *count, wanted);
        poll(&wait, 1, timeout_ms < 0 || timeout_ms > PUMP_MS ? PUMP_MS : timeout_ms);
        kvs_process(kvs);
    }
}

/* --- What the daemon counts ------------------------------------------------------------------------ */

uint64_t watched_stat(struct kvs *kvs, const char *section, const char *name, const char *count)
{
    struct kvs_value *stats;

    assert_done(kvs_daemon_stats(kvs, NULL, &stats));
    const struct kvs_value *found = kvs_value_member(stats, section);
    if (found != NULL && name != NULL)
        found = kvs_value_member(found, name);
    if (found != NULL)
        found = kvs_value_member(found, count);
    uint64_t value = found != NULL ? kvs_value_unsigned(found) : 0;
    kvs_free(stats);
    return value;
}
