/*
 * kvstore_raw: calls of any method of the protocol by its name, also of newer methods than this version of the library
 * knows. Results are trees of values.
 */
#ifndef KVSTORE_RAW_H
#define KVSTORE_RAW_H

#include "kvstore.h"

#ifdef __cplusplus
extern "C" {
#endif

/* --- Values -------------------------------------------------------------------------------- */
/*
 * A value of MessagePack. A function that asks for another type than the value has returns false, 0 or NULL. All
 * functions accept NULL, so that they can be nested:
 *     kvs_value_unsigned(kvs_value_member(kvs_value_member(health, "nats"), "rtt_us"))
 */

enum kvs_type {
    KVS_NIL,
    KVS_BOOLEAN,
    KVS_INTEGER, /* kvs_value_integer or kvs_value_unsigned, whichever fits */
    KVS_DOUBLE,
    KVS_STRING,
    KVS_BINARY,
    KVS_ARRAY,
    KVS_MAP
};

enum kvs_type kvs_value_type(const struct kvs_value *value); /* NULL is KVS_NIL */
bool kvs_value_boolean(const struct kvs_value *value);
int64_t kvs_value_integer(const struct kvs_value *value);                 /* 0 if it does not fit */
uint64_t kvs_value_unsigned(const struct kvs_value *value);               /* 0 if it does not fit */
double kvs_value_double(const struct kvs_value *value);                   /* of a KVS_DOUBLE or KVS_INTEGER */
const char *kvs_value_bytes(const struct kvs_value *value, size_t *size); /* of a KVS_STRING or KVS_BINARY; no NUL */
size_t kvs_value_count(const struct kvs_value *value);                    /* items of an array, members of a map */

/* Return an array's item or a map's value by its place; a map's key by its place; a map's value by its name. */
const struct kvs_value *kvs_value_item(const struct kvs_value *value, size_t place);
const struct kvs_value *kvs_value_key(const struct kvs_value *value, size_t place);
const struct kvs_value *kvs_value_member(const struct kvs_value *value, const char *name);

/* Return a copy, which outlives the callback that received value. NULL when out of memory. Release with kvs_free. */
struct kvs_value *kvs_value_copy(const struct kvs_value *value);

/* Return the value as an entry, also of a watch. NULL if it is not one or out of memory. Release with kvs_free. */
struct kvs_entry *kvs_value_entry(const struct kvs_value *value);

/* Whether the value is an error map; then *error is filled from it. */
bool kvs_value_error(const struct kvs_value *value, struct kvs_error *error);

/* --- JSON ---------------------------------------------------------------------------------- */
/*
 * JSON text with the members of protocol.md. Binary values that are UTF-8 are written as strings, others as
 * {"base64": "…"}. NULL when out of memory. Release with kvs_free.
 */
char *kvs_value_json(const struct kvs_value *value);
char *kvs_entry_json(const struct kvs_entry *entry);
char *kvs_error_json(const struct kvs_error *error);

/* --- Requests ------------------------------------------------------------------------------ */
/*
 * Add the parameters one by one, in the order of protocol.md. An array or map announces how many items or members it
 * has, and they follow (a member as its key, then its value). kvs_call and kvs_submit report what goes wrong meanwhile:
 * out of memory, or a wrong count.
 */
struct kvs_request;

/* Make a request; method is copied. NULL when out of memory, which all functions here accept and kvs_call reports. */
struct kvs_request *kvs_request_new(const char *method, size_t parameter_count);
void kvs_request_free(struct kvs_request *request);

void kvs_request_nil(struct kvs_request *request);
void kvs_request_boolean(struct kvs_request *request, bool value);
void kvs_request_integer(struct kvs_request *request, int64_t value);
void kvs_request_unsigned(struct kvs_request *request, uint64_t value);
void kvs_request_double(struct kvs_request *request, double value);
void kvs_request_string(struct kvs_request *request, const char *text);
void kvs_request_binary(struct kvs_request *request, const void *bytes, size_t size);
void kvs_request_array(struct kvs_request *request, size_t count);
void kvs_request_map(struct kvs_request *request, size_t count);

/*
 * Send the request and wait for its answer, for timeout_s and a second of grace (0: as for other calls). The daemon has
 * its own deadline: add the option timeout for another one. The request still belongs to the caller, and can be sent
 * again. result may be NULL.
 */
enum kvs_code kvs_call(struct kvs *kvs, const struct kvs_request *request, double timeout_s, struct kvs_value **result);

/* Receives a result as protocol.md describes it; see "Callbacks" in kvstore_async.h. */
typedef void kvs_value_fn(struct kvs *kvs, const struct kvs_error *error, const struct kvs_value *result,
                          void *context);

/* The asynchronous form of kvs_call. The request is copied and still belongs to the caller. */
enum kvs_code kvs_submit(struct kvs *kvs, const struct kvs_request *request, double timeout_s, kvs_value_fn *done,
                         void *context);

#ifdef __cplusplus
}
#endif

#endif
