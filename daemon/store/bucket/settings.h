/*
 * settings: translates the settings of a bucket between the protocol's names and a stream's configuration in JSON
 * (ADR-8, ADR-10, ADR-43).
 *
 * Used by admin, and by the handlers, which fill in a bucket_config. An update changes only the settings that were
 * given, and keeps those that it does not know.
 */
#ifndef DAEMON_STORE_SETTINGS_H
#define DAEMON_STORE_SETTINGS_H

#include "daemon/base/arena.h"
#include "proto/error.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The longest ttl: 100 years. */
#define BUCKET_TTL_MAX_S (100LL * 365 * 24 * 3600)

/* Which settings are given. */
enum bucket_setting {
    BUCKET_DESCRIPTION = 1 << 0,
    BUCKET_HISTORY = 1 << 1,
    BUCKET_TTL = 1 << 2,
    BUCKET_MAX_VALUE_SIZE = 1 << 3,
    BUCKET_MAX_BYTES = 1 << 4,
    BUCKET_STORAGE = 1 << 5,
    BUCKET_REPLICAS = 1 << 6,
    BUCKET_COMPRESSION = 1 << 7,
    BUCKET_PLACEMENT = 1 << 8,
    BUCKET_REPUBLISH = 1 << 9,
    BUCKET_MIRROR = 1 << 10,
    BUCKET_SOURCES = 1 << 11,
    BUCKET_METADATA = 1 << 12,
    BUCKET_LIMIT_MARKER_TTL = 1 << 13,
    BUCKET_MARKER_TTL = 1 << 14
};

/* The mirror, or a source, of a bucket. */
struct bucket_source {
    const char *bucket;
    const char *domain; /* JetStream domain it is in; NULL: ours */
    const char *filter; /* of keys; NULL: all */
};

struct bucket_pair {
    const char *name;
    const char *value;
};

/* Strings and arrays are borrowed, usually from a call's arena. */
struct bucket_config {
    unsigned set; /* of enum bucket_setting */
    const char *description;
    int64_t history;        /* values per key, 1 to 64 */
    int64_t ttl_s;          /* of every value; 0: for ever */
    int64_t max_value_size; /* bytes; -1: no limit */
    int64_t max_bytes;      /* of the whole bucket; -1: no limit */
    bool in_memory;         /* storage: memory, not file */
    int64_t replicas;
    bool compression;
    const char *placement_cluster;
    const char **placement_tags;
    size_t placement_tag_count;
    const char *republish_source;
    const char *republish_destination;
    bool republish_headers_only;
    struct bucket_source mirror;
    struct bucket_source *sources;
    size_t source_count;
    struct bucket_pair *metadata;
    size_t metadata_count;
    int64_t limit_marker_ttl_s; /* of the markers that the server leaves; 0: none */
    int64_t marker_ttl_s;       /* of the markers of deleted keys; 0: they stay */
};

struct bucket_info {
    const char *name;
    struct bucket_config config; /* all settings that the bucket has are in config.set */
    uint64_t values;             /* messages: values and markers, history included */
    uint64_t bytes;
    uint64_t last_revision;
    bool allows_ttl;
    bool allows_atomic;
    bool is_full;   /* less is left of max_bytes than a message takes without its value, or than a tenth */
    bool is_sealed; /* the stream is sealed: it never takes messages again */
};

/*
 * Return the configuration of a new stream, with defaults for settings that are not given, for a server of the given
 * API level. Its duplicate window is window_ms or longer. NULL: see *error.
 */
json_t *bucket_config_to_stream(const char *name, const struct bucket_config *config, unsigned level,
                                uint64_t window_ms, struct error *error);

/*
 * Change the configuration of an existing stream in place: the settings that are given, and what the server supports by
 * now (TTL per key, atomic batches, the duplicate window). False if a setting cannot be changed: see *error.
 */
bool bucket_config_update_stream(json_t *stream, const struct bucket_config *config, unsigned level, uint64_t window_ms,
                                 struct error *error);

/* Return whether a stream is a mirror or has sources. config: the "config" of an answer. */
bool bucket_config_has_origin(json_t *config);

/* Read an answer of STREAM.INFO, CREATE or UPDATE. Strings are the answer's or in the arena. False: out of memory. */
bool bucket_config_read_info(struct arena *arena, const char *name, json_t *answer, struct bucket_info *info);

/* Return the largest value in bytes that the bucket of this stream configuration allows; -1: no limit of its own. */
int64_t bucket_config_max_value_size(json_t *stream);

/* Return the marker_ttl in seconds of the bucket of this stream configuration; 0: none. */
int64_t bucket_config_marker_ttl(json_t *stream);

#endif
