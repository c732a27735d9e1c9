/* The verb check: verifies a backup, an export or a data directory, without the daemon. */
#include "client/kvctl/check_store.h"
#include "client/kvctl/transfer.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static enum status check_export(const struct invocation *invocation, const char *path)
{
    char digest[DIGEST_TEXT_BYTES];
    uint64_t entries;

    if (!export_verify(path, true, &entries, digest))
        return STATUS_FAILED;
    if (invocation->json)
        printf("{\"entries\":%" PRIu64 ",\"sha256\":\"%s\"}\n", entries, digest);
    else
        printf("%s, undamaged\n", text_of_things(entries, "entry", "entries").text);
    return STATUS_OK;
}

static enum status check_backup(const struct invocation *invocation, const char *directory)
{
    struct manifest manifest;
    enum status status = STATUS_OK;
    uint64_t entries = 0;

    if (!manifest_read(&manifest, directory)) {
        manifest_free(&manifest);
        return STATUS_FAILED;
    }
    for (size_t i = 0; i < manifest.count; i++) {
        entries += manifest.items[i].entries;
        if (!manifest_check_file(directory, &manifest.items[i]))
            status = STATUS_FAILED;
    }
    if (status == STATUS_OK && invocation->json)
        printf("{\"buckets\":%zu,\"entries\":%" PRIu64 "}\n", manifest.count, entries);
    else if (status == STATUS_OK)
        printf("%s, %s, undamaged\n", text_of_things(manifest.count, "bucket", "buckets").text,
               text_of_things(entries, "entry", "entries").text);
    manifest_free(&manifest);
    return status;
}

static enum status check_data_directory(const struct invocation *invocation, const char *directory)
{
    struct check_store check;
    enum status status = STATUS_FAILED;

    if (!check_store_open(&check, directory)) {
        check_store_close(&check);
        return STATUS_REFUSED;
    }
    check.is_quiet = invocation->json;
    check_store_run(&check);
    if (check.damaged == 0)
        status = STATUS_OK;
    check_store_close(&check);
    if (invocation->json)
        printf("{\"streams\":%" PRIu64 ",\"blocks\":%" PRIu64 ",\"messages\":%" PRIu64 ",\"compressed_blocks\":%" PRIu64
               ",\"findings\":%" PRIu64 "}\n",
               check.streams, check.blocks, check.messages, check.unread, check.damaged);
    else
        printf("%s, %s in %s: %s\n", text_of_things(check.streams, "stream", "streams").text,
               text_of_things(check.messages, "message", "messages").text,
               text_of_things(check.blocks, "block", "blocks").text, check.damaged == 0 ? "undamaged" : "DAMAGED");
    if (check.unread > 0)
        report_note("compressed, and not checked: %s", text_of_things(check.unread, "block", "blocks").text);
    return status;
}

static bool check_has(const char *directory, const char *name)
{
    char path[PATH_MAX];

    return (size_t)snprintf(path, sizeof(path), "%s/%s", directory, name) < sizeof(path) && access(path, F_OK) == 0;
}

enum status check_run(struct invocation *invocation)
{
    const char *path = invocation->arguments[0];
    struct stat state;

    if (stat(path, &state) != 0)
        return report("cannot open %.600s: %s", path, strerror(errno));
    if (!S_ISDIR(state.st_mode))
        return check_export(invocation, path);
    if (check_has(path, MANIFEST_NAME))
        return check_backup(invocation, path);
    if (check_has(path, "jetstream"))
        return check_data_directory(invocation, path);
    return report("%.600s has neither a %s of kvctl backup nor a jetstream directory: it is not a backup, or it is not "
                  "complete",
                  path, MANIFEST_NAME);
}
