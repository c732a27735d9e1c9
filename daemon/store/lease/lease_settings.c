#include "daemon/store/lease/lease_settings.h"

#include <stdio.h>

bool lease_settings_check(const struct bucket *bucket, struct error *error)
{
    if (bucket->max_age_ms == 0)
        return true;
    error_set(
        error, ERROR_UNSUPPORTED,
        "the values of this bucket expire after %.3g s, and so would locks and ephemeral keys, without notice; use "
        "a bucket without ttl",
        (double)bucket->max_age_ms / 1000.0);
    return false;
}

static void on_settings_read(void *arg, json_t *answer, unsigned err_code, const struct error *error)
{
    struct lease *lease = arg;

    (void)err_code;
    (void)error; /* the next renewal asks again */
    if (answer == NULL || lease->state != LEASE_ALIVE ||
        json_integer_value(json_object_get(json_object_get(answer, "config"), "max_age")) == 0)
        return;
    bucket_forget(lease->in->store, lease->in->name);
    lease_doubt(lease->in);
}

void lease_settings_look(struct lease *lease)
{
    struct store *store = lease->in->store;
    char stream[KV_STREAM_BYTES];

    if (lease->is_exclusive || lease->settings.request.state != REQUEST_IDLE)
        return;
    snprintf(stream, sizeof(stream), "KV_%s", lease->in->name);
    jetstream_call(&store->jetstream, &lease->settings, "STREAM.INFO", stream, NULL,
                   lease_now(lease) + lease_valid_for_ms(lease), on_settings_read, lease);
}
