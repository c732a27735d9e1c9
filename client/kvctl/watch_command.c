#include "client/kvctl/watch_command.h"

#include "client/kvctl/command.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define VARIABLE_BYTES (KVS_KEY_MAX + 64)

/* Return a descriptor from which the bytes can be read; -1 after a message. */
static int watch_command_open_input(const char *bytes, size_t size)
{
    int input = memfd_create("kvctl-value", MFD_CLOEXEC);

    for (size_t written = 0; input >= 0 && written < size;) {
        ssize_t more = write(input, bytes + written, size - written);
        if (more < 0 && errno != EINTR) {
            close(input);
            input = -1;
        }
        written += more > 0 ? (size_t)more : 0;
    }
    if (input < 0 || lseek(input, 0, SEEK_SET) < 0)
        report("cannot pass the value to the command: %s", strerror(errno));
    return input;
}

static int watch_command_open_entry(const struct invocation *invocation, const struct kvs_entry *entry)
{
    if (!invocation->json)
        return watch_command_open_input(entry->value, entry->value != NULL ? entry->value_size : 0);
    char *json = kvs_entry_json(entry), *line = NULL;
    int size = json != NULL ? asprintf(&line, "%s\n", json) : -1;
    kvs_free(json);
    if (size < 0) {
        report("out of memory");
        return -1;
    }
    int input = watch_command_open_input(line, (size_t)size);
    free(line);
    return input;
}

enum watch_command_end watch_command_run(const struct invocation *invocation, const struct kvs_entry *entry,
                                         enum status *status)
{
    char bucket[KVS_BUCKET_MAX + 64], key[VARIABLE_BYTES], operation[64], revision[64];
    const char *const variables[] = {bucket, key, operation, revision, NULL};
    bool is_interrupted = false;

    snprintf(bucket, sizeof(bucket), "KVCTL_BUCKET=%s", invocation->arguments[0]);
    snprintf(key, sizeof(key), "KVCTL_KEY=%s", entry->key);
    snprintf(operation, sizeof(operation), "KVCTL_OPERATION=%s", text_of_operation(entry->operation));
    snprintf(revision, sizeof(revision), "KVCTL_REVISION=%" PRIu64, entry->revision);
    struct command command = {
        .words = invocation->command, .variables = variables, .input = watch_command_open_entry(invocation, entry)};
    *status = STATUS_FAILED;
    if (command.input < 0)
        return WATCH_COMMAND_FAILED;
    fflush(stdout);
    int result = command_run(&command, &is_interrupted);
    close(command.input);
    *status = (enum status)(result < 0 ? -result : result);
    if (is_interrupted)
        return WATCH_COMMAND_INTERRUPTED;
    if (result == 0)
        return WATCH_COMMAND_DONE;
    if (result > 0)
        report_note("the command has failed with status %d, for key %s at revision %" PRIu64, result, entry->key,
                    entry->revision);
    return WATCH_COMMAND_FAILED;
}
