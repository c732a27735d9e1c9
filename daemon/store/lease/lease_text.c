#include "daemon/store/lease/lease_text.h"

#include "daemon/nats/connection.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

/* No daemon writes a longer TTL. */
#define LEASE_TTL_MAX_MS (24u * 3600u * 1000u)

const char *lease_text_write(struct arena *arena, const struct store *store, const struct lease_text *text)
{
    /* The name and the run consist of letters, digits, - and _: nothing has to be escaped. */
    size_t bytes = strlen(store->name) + strlen(text->run) + 128;
    char *value = arena_alloc(arena, bytes);

    if (value != NULL)
        snprintf(value, bytes,
                 "{\"state\":\"%s\",\"daemon\":\"%s\",\"run\":\"%s\",\"renewal\":%" PRIu64 ",\"ttl\":%" PRIu64 "}",
                 text->is_alive ? "alive" : "dead", store->name, text->run, text->renewal, text->ttl_ms);
    return value;
}

bool lease_text_read(const struct kv_entry *entry, struct lease_text *text)
{
    json_t *object = json_loadb(entry->value, entry->value_bytes, 0, NULL);
    const char *state = json_string_value(json_object_get(object, "state"));
    const char *run = json_string_value(json_object_get(object, "run"));
    json_int_t ttl_ms = json_integer_value(json_object_get(object, "ttl"));
    json_int_t renewal = json_integer_value(json_object_get(object, "renewal"));
    bool is_well = entry->operation == KV_PUT && state != NULL && run != NULL && strlen(run) < sizeof(text->run) &&
                   ttl_ms > 0 && ttl_ms <= (json_int_t)LEASE_TTL_MAX_MS && renewal >= 0;

    memset(text, 0, sizeof(*text));
    if (is_well) {
        text->is_alive = strcmp(state, "alive") == 0;
        strcpy(text->run, run);
        text->ttl_ms = (uint64_t)ttl_ms;
        text->renewal = (uint64_t)renewal;
    }
    json_decref(object);
    return is_well;
}

const char *lease_text_id(const char *key)
{
    size_t length = strlen(KV_LEASE_PREFIX);

    if (strncmp(key, KV_LEASE_PREFIX, length) != 0 || strlen(key) >= LEASE_KEY_BYTES)
        return NULL;
    return key + length;
}

const char *lease_text_lease_of(const struct kv_entry *entry)
{
    const char *id = entry->operation == KV_PUT ? message_header(entry->message, KV_HEADER_LEASE) : NULL;

    if (id != NULL && message_header(entry->message, "Nats-Stream-Source") != NULL)
        return NULL; /* the server has copied it from another bucket, with whose lease it lives there */
    return id != NULL && strlen(id) < LEASE_ID_BYTES && id[0] != '\0' ? id : NULL;
}

const char *lease_text_owner_of(const struct kv_entry *entry)
{
    const char *owner = message_header(entry->message, KV_HEADER_OWNER);

    return owner != NULL && strlen(owner) < LEASE_OWNER_BYTES ? owner : NULL;
}
