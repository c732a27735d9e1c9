#include "tests/support/library.h"

#include "tests/support/test_run.h"

#include <poll.h>
#include <string.h>
#include <unistd.h>

#define WAIT_S ((double)PATIENCE_MS / 1000)

/* A pause of a program's own loop. */
#define PUMP_MS 50

struct kvs *library_connect(const struct daemon *daemon, const struct kvs_options *options)
{
    struct kvs_options patient = options != NULL ? *options : (struct kvs_options)KVS_OPTIONS();
    struct kvs_error error;

    test_run_check_leaks();
    patient.connect_timeout_s = DAEMON_CALL_TIMEOUT_S;
    patient.timeout_s = DAEMON_CALL_TIMEOUT_S;
    struct kvs *kvs = kvs_connect(daemon->socket_path, &patient, &error);

    ck_assert_msg(kvs != NULL, "%s", error.message);
    return kvs;
}

const char *library_new_bucket(struct kvs *kvs, unsigned history)
{
    static unsigned count;
    const char *bucket = format_text("library-%d-%u", (int)getpid(), ++count);
    struct kvs_bucket_options options = KVS_BUCKET_OPTIONS(.history = history);

    assert_done(kvs_bucket_create(kvs, bucket, &options, NULL));
    return bucket;
}

uint64_t library_put(struct kvs *kvs, const char *bucket, const char *key, const char *value)
{
    struct kvs_put_options options = KVS_PUT_OPTIONS(.timeout_s = WAIT_S);
    uint64_t revision;

    assert_done(kvs_put(kvs, bucket, key, value, strlen(value), &options, &revision));
    return revision;
}

uint64_t library_stat(struct kvs *kvs, const char *section, const char *name, const char *count)
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

/* --- Watches, blocking ----------------------------------------------------------------------------- */

struct kvs_event library_watch_next(struct kvs_watch *watch)
{
    struct kvs_event event;

    ck_assert_int_eq(kvs_watch_next(watch, WAIT_S, &event), KVS_OK);
    return event;
}

static const char *library_next_text(void *context)
{
    struct kvs_event event = library_watch_next(context);

    return watch_event_text(&event);
}

void library_watch_expect(struct kvs_watch *watch, const char *wanted)
{
    watch_events_expect(library_next_text, watch, wanted);
}

void library_watch_expect_after(struct kvs_watch *watch, uint64_t *last)
{
    struct kvs_event event = library_watch_next(watch);

    ck_assert_msg(event.type == KVS_EVENT_ENTRY, "%s after %d", watch_event_text(&event), (int)*last);
    ck_assert_uint_eq(event.entry->revision, *last + 1);
    (*last)++;
}

void library_watch_pump(struct kvs_watch *watch)
{
    struct kvs_event event;

    ck_assert_int_eq(kvs_watch_next(watch, (double)PUMP_MS / 1000, &event), KVS_OK);
    ck_assert_msg(event.type == KVS_EVENT_NONE, "%s", watch_event_text(&event));
}

/* --- Watches, asynchronous ------------------------------------------------------------------------- */

void library_watch_record(struct kvs *kvs, struct kvs_watch *watch, const struct kvs_event *event, void *context)
{
    struct kvs_event ignored;

    watch_recorder_add(context, event);
    /* Nothing may block in here. */
    ck_assert_int_eq(kvs_watch_next(watch, 0, &ignored), KVS_INVALID_ARGUMENT);
    ck_assert_int_eq(kvs_bucket_delete(kvs, "nowhere", NULL), KVS_INVALID_ARGUMENT);
}

void library_watch_record_first(struct kvs *kvs, struct kvs_watch *watch, const struct kvs_event *event, void *context)
{
    watch_recorder_add(context, event);
    if (event->type == KVS_EVENT_ENTRY)
        kvs_watch_stop(watch);
    ck_assert_int_eq(kvs_bucket_delete(kvs, "nowhere", NULL), KVS_INVALID_ARGUMENT);
}

void library_run_until(struct kvs *kvs, const unsigned *count, unsigned wanted)
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
