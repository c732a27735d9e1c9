/* The verb incr. */
#include "client/kvctl/kvctl.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static bool increment_read_number(const char *text, const char *what, int64_t *number)
{
    char *end;

    errno = 0;
    *number = strtoll(text, &end, 10);
    if (end != text && *end == '\0' && errno == 0)
        return true;
    report("%s must be an integer from -2^63 to 2^63 - 1, not '%.100s'", what, text);
    return false;
}

enum status increment_run(struct invocation *invocation)
{
    struct kvs_increment_options options =
        KVS_INCREMENT_OPTIONS(.timeout_s = invocation->timeout_s, .keep_ttl = arguments_flag(invocation, "keep-ttl"));
    const char *initial = arguments_value(invocation, "initial");
    int64_t delta = 1, value;
    uint64_t revision;

    if ((invocation->argument_count > 2 && !increment_read_number(invocation->arguments[2], "DELTA", &delta)) ||
        (initial != NULL && !increment_read_number(initial, "--initial", &options.initial)) ||
        !arguments_duration(invocation, "ttl", &options.ttl_s))
        return STATUS_FAILED;
    if (options.ttl_s < 0)
        return report("incr does not remove a TTL: kvctl touch %s %s none does", invocation->arguments[0],
                      invocation->arguments[1]);
    if (kvs_increment(invocation->kvs, invocation->arguments[0], invocation->arguments[1], delta, &options, &value,
                      &revision) != KVS_OK)
        return report_error(kvs_last_error(invocation->kvs));
    if (invocation->json)
        printf("{\"value\":%" PRId64 ",\"revision\":%" PRIu64 "}\n", value, revision);
    else
        printf("%" PRId64 "\n", value);
    return STATUS_OK;
}
