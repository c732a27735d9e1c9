/*
 * reply: turns the daemon's results into the types of the public functions.
 *
 * Used with blocking_run and by deliver. Each reader leaves nothing allocated if it fails, and checks every type,
 * because the daemon is not trusted. Entries are read in entry.c, a bucket's info in bucket_info.c, the rest in
 * reply.c.
 */
#ifndef CLIENT_REPLY_H
#define CLIENT_REPLY_H

#include "client/lib/kvstore_admin.h"

#include <stddef.h>

/* Turn a result into *out. KVS_PROTOCOL if it is not a result of the method; or KVS_NO_MEMORY. */
typedef enum kvs_code reply_reader(const struct kvs_value *result, void *out);

/* Read a result with reader into *out. NULL, or *error filled with what went wrong. */
const struct kvs_error *reply_read(reply_reader *reader, const struct kvs_value *result, void *out,
                                   struct kvs_error *error);

/* Where reply_read_entries, _strings and _revisions leave the block and its count. */
struct reply_entries {
    struct kvs_entry **entries;
    size_t *count;
};

struct reply_strings {
    char ***strings;
    size_t *count;
};

struct reply_revisions {
    uint64_t **revisions; /* NULL: not wanted */
    size_t *count;        /* NULL: not wanted */
    size_t expected;      /* a result with another count is refused */
};

enum kvs_code reply_read_revision(const struct kvs_value *result, void *out);  /* uint64_t *, may be NULL */
enum kvs_code reply_read_count(const struct kvs_value *result, void *out);     /* uint64_t *, may be NULL */
enum kvs_code reply_read_revisions(const struct kvs_value *result, void *out); /* struct reply_revisions * */
enum kvs_code reply_read_entry(const struct kvs_value *result, void *out);     /* struct kvs_entry **, NULL for nil */
enum kvs_code reply_read_entries(const struct kvs_value *result, void *out);   /* struct reply_entries * */
enum kvs_code reply_read_strings(const struct kvs_value *result, void *out);   /* struct reply_strings * */
enum kvs_code reply_read_json(const struct kvs_value *result, void *out);      /* char **, NULL for nil */
enum kvs_code reply_read_copy(const struct kvs_value *result, void *out);      /* struct kvs_value ** */
enum kvs_code reply_read_tree(const struct kvs_value *result, void *out);      /* struct kvs_value **; a map */
enum kvs_code reply_read_list(const struct kvs_value *result, void *out);      /* struct kvs_value **; an array */
enum kvs_code reply_read_text(const struct kvs_value *result, void *out);      /* struct kvs_value **; a string */
enum kvs_code reply_read_bucket_info(const struct kvs_value *result,
                                     void *out); /* struct kvs_bucket_info **, or NULL */

#endif
