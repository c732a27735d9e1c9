/* The verbs about the daemon. */
#include "client/kvctl/advice.h"
#include "client/kvctl/kvctl.h"
#include "client/kvctl/safe_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PINGS_DEFAULT 100u
#define PINGS_MAX     1000000u

/* Write why something is not healthy, in kvctl's words. */
static void daemon_translate_reason(const struct kvs_value *reason, const char *bucket, char text[KVS_MESSAGE_BYTES])
{
    char copy[KVS_MESSAGE_BYTES];
    size_t size;
    const char *bytes = kvs_value_bytes(reason, &size);

    snprintf(copy, sizeof(copy), "%.*s", bytes != NULL ? (int)size : 0, bytes != NULL ? bytes : "");
    advice_translate(copy, bucket != NULL ? bucket : "", text, KVS_MESSAGE_BYTES);
}

static bool daemon_text_of_health(const char *name, const struct kvs_value *value, struct short_text *text)
{
    char reason[KVS_MESSAGE_BYTES];

    if (strcmp(name, "error") != 0)
        return bucket_text_of_setting(name, value, text);
    daemon_translate_reason(value, NULL, reason);
    snprintf(text->text, sizeof(text->text), "%s", reason);
    return true;
}

/* Print the answer as JSON, with the reason in kvctl's words. */
static enum status daemon_print_health_json(const struct kvs_value *health, const char *reason)
{
    for (size_t i = 0; i < kvs_value_count(health); i++) {
        char *name = kvs_value_json(kvs_value_key(health, i)), *json = kvs_value_json(kvs_value_item(health, i));
        bool is_reason = name != NULL && strcmp(name, "\"error\"") == 0 && *reason != '\0';
        printf("%s%s:", i == 0 ? "{" : ",", name != NULL ? name : "null");
        if (is_reason)
            safe_text_write_json(stdout, reason);
        else
            fputs(json != NULL ? json : "null", stdout);
        kvs_free(name);
        kvs_free(json);
    }
    puts("}");
    return STATUS_OK;
}

enum status daemon_health(struct invocation *invocation)
{
    struct kvs_call_options options = KVS_CALL_OPTIONS(.timeout_s = invocation->timeout_s);
    const char *bucket = invocation->argument_count > 0 ? invocation->arguments[0] : NULL;
    enum status status = STATUS_OK;
    char reason[KVS_MESSAGE_BYTES];
    struct kvs_value *health;

    if (kvs_health(invocation->kvs, bucket, &options, &health) != KVS_OK)
        return report_error(kvs_last_error(invocation->kvs));
    daemon_translate_reason(kvs_value_member(health, "error"), bucket, reason);
    if (invocation->json)
        status = daemon_print_health_json(health, reason);
    else
        print_map(health, daemon_text_of_health);
    if (!kvs_value_boolean(kvs_value_member(health, "healthy"))) {
        report("not healthy%s%s", reason[0] != '\0' ? ": " : "", reason);
        status = STATUS_UNAVAILABLE;
    }
    kvs_free(health);
    return status;
}

/* --- ping ---------------------------------------------------------------------------------- */

static int ping_compare(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;

    return (a > b) - (a < b);
}

/* Measure count calls of health.check, which the daemon answers from memory. *nats_us is the ping time to NATS, or 0.
 */
static enum status ping_measure(struct invocation *invocation, int64_t *times_ns, uint64_t count, uint64_t *nats_us)
{
    struct kvs_call_options options = KVS_CALL_OPTIONS(.timeout_s = invocation->timeout_s);

    for (uint64_t i = 0; i < count; i++) {
        struct kvs_value *health;
        int64_t begin_ns = clock_monotonic_ns();
        if (kvs_health(invocation->kvs, NULL, &options, &health) != KVS_OK)
            return report_error(kvs_last_error(invocation->kvs));
        times_ns[i] = clock_monotonic_ns() - begin_ns;
        const struct kvs_value *nats = kvs_value_member(health, "nats");
        *nats_us = kvs_value_boolean(kvs_value_member(nats, "connected"))
                       ? kvs_value_unsigned(kvs_value_member(nats, "rtt_us"))
                       : 0;
        kvs_free(health);
    }
    qsort(times_ns, count, sizeof(*times_ns), ping_compare);
    return STATUS_OK;
}

enum status daemon_ping(struct invocation *invocation)
{
    uint64_t count = PINGS_DEFAULT, nats_us = 0;

    if (!arguments_number(invocation, "count", &count))
        return STATUS_FAILED;
    if (count > PINGS_MAX)
        return report("--count must be from 1 to %u", PINGS_MAX);
    int64_t *times_ns = calloc(count, sizeof(*times_ns));
    if (times_ns == NULL)
        return report("out of memory");
    enum status status = ping_measure(invocation, times_ns, count, &nats_us);
    double min_us = (double)times_ns[0] / 1000, median_us = (double)times_ns[count / 2] / 1000,
           max_us = (double)times_ns[count - 1] / 1000;
    free(times_ns);
    if (status != STATUS_OK)
        return status;

    if (invocation->json) {
        printf("{\"count\":%" PRIu64 ",\"min_us\":%.1f,\"median_us\":%.1f,\"max_us\":%.1f,\"nats_rtt_us\":", count,
               min_us, median_us, max_us);
        printf(nats_us > 0 ? "%" PRIu64 "}\n" : "null}\n", nats_us);
        return STATUS_OK;
    }
    printf("kvstored: median %.1f us, min %.1f us, max %.1f us (%" PRIu64 " round trips)\n", median_us, min_us, max_us,
           count);
    if (nats_us > 0)
        printf("nats:     %" PRIu64 " us from kvstored to the server and back\n", nats_us);
    else
        puts("nats:     not connected, or not measured yet");
    return STATUS_OK;
}
