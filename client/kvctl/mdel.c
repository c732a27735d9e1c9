/* The verb mdel: deletes all keys that match a filter. */
#include "client/kvctl/kvctl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/*
 * Ask on the terminal that kvctl was started from, whatever its standard files are. Without a terminal, as in a service
 * or a cron job, the command line is the answer.
 */
static bool mdel_is_confirmed(const struct invocation *invocation)
{
    char answer[16] = "";

    if (arguments_flag(invocation, "yes"))
        return true;
    FILE *terminal = fopen("/dev/tty", "r+e");
    if (terminal == NULL)
        return !isatty(STDIN_FILENO) && !isatty(STDOUT_FILENO) && !isatty(STDERR_FILENO);
    if (tcgetpgrp(fileno(terminal)) != getpgrp()) { /* in the background, reading from it would stop the process */
        fclose(terminal);
        return false;
    }
    fprintf(terminal, "Delete all keys of bucket %s that match %s? [y/N] ", invocation->arguments[0],
            invocation->arguments[1]);
    fflush(terminal); /* C requires it before reading */
    bool is_answered = fgets(answer, sizeof(answer), terminal) != NULL;
    fclose(terminal);
    return is_answered && (answer[0] == 'y' || answer[0] == 'Y');
}

enum status mdel_run(struct invocation *invocation)
{
    struct kvs_call_options options = KVS_CALL_OPTIONS(.timeout_s = invocation->timeout_s);
    const char *bucket = invocation->arguments[0], *filter = invocation->arguments[1];
    uint64_t count = 0;

    if (!mdel_is_confirmed(invocation))
        return report("nothing was deleted: answer y, or give --yes");
    enum kvs_code code = arguments_flag(invocation, "purge")
                             ? kvs_bucket_purge_matching(invocation->kvs, bucket, filter, &options, &count)
                             : kvs_delete_matching(invocation->kvs, bucket, filter, &options, &count);
    if (code != KVS_OK)
        return report_error(kvs_last_error(invocation->kvs));
    printf(invocation->json ? "{\"deleted\":%" PRIu64 "}\n" : "%" PRIu64 "\n", count);
    return STATUS_OK;
}
