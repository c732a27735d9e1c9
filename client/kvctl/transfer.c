#include "client/kvctl/transfer.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SHOW_EVERY_MS  500
#define WAIT_DEFAULT_S 60
#define PAUSE_FIRST_MS 50u
#define PAUSE_LAST_MS  1000u

/* --- Progress ------------------------------------------------------------------------------------- */

void progress_begin(struct progress *progress, const char *what)
{
    progress->is_shown = isatty(STDERR_FILENO) == 1;
    progress->what = what;
    progress->begun_ms = progress->shown_ms = clock_monotonic_ms();
}

void progress_show(struct progress *progress, uint64_t count, uint64_t done_bytes, uint64_t total_bytes)
{
    if (!progress->is_shown)
        return;
    int64_t now_ms = clock_monotonic_ms(), age_ms = now_ms - progress->begun_ms;
    if (now_ms - progress->shown_ms < SHOW_EVERY_MS)
        return;
    progress->shown_ms = now_ms;
    fprintf(stderr, "\r%s: %s entries, %s, %s entries/s", progress->what, text_of_count(count).text,
            text_of_size(done_bytes).text, text_of_count(count * 1000 / (uint64_t)(age_ms > 0 ? age_ms : 1)).text);
    if (total_bytes > 0)
        fprintf(stderr, ", %.0f %%", 100.0 * (double)done_bytes / (double)total_bytes);
    fputs("\033[K", stderr);
    fflush(stderr);
}

void progress_end(struct progress *progress)
{
    if (progress->is_shown && progress->shown_ms != progress->begun_ms)
        fputs("\r\033[K", stderr);
    progress->is_shown = false;
}

/* --- Waiting -------------------------------------------------------------------------------------- */

bool transfer_read_wait(const struct invocation *invocation, int64_t *wait_s)
{
    *wait_s = WAIT_DEFAULT_S;
    if (!arguments_duration(invocation, "wait", wait_s))
        return false;
    if (*wait_s < 0) /* "none" */
        *wait_s = INT32_MAX;
    return true;
}

void transfer_wait(struct kvs *kvs, int max_ms)
{
    struct pollfd waited = {.fd = kvs_fd(kvs), .events = kvs_events(kvs)};
    int timeout_ms = kvs_timeout_ms(kvs);

    poll(&waited, 1, timeout_ms >= 0 && timeout_ms < max_ms ? timeout_ms : max_ms);
}

bool transfer_is_temporary(const struct kvs_error *error)
{
    return error->code == KVS_IO || error->code == KVS_UNAVAILABLE || error->code == KVS_DEADLINE_EXCEEDED ||
           error->code == KVS_RESOURCE_EXHAUSTED || error->outcome == KVS_OUTCOME_UNKNOWN;
}

void patience_renew(struct patience *patience)
{
    patience->heard_ms = clock_monotonic_ms();
    patience->pause_ms = PAUSE_FIRST_MS;
    patience->is_away = false;
}

bool patience_pause(struct patience *patience, const struct kvs_error *error, enum status *status)
{
    int64_t silent_ms = clock_monotonic_ms() - patience->heard_ms;

    if (!transfer_is_temporary(error) || silent_ms > patience->wait_s * 1000) {
        *status = report_error(error);
        return false;
    }
    if (!patience->is_away && silent_ms > 1000) {
        report_note("%s; trying again", error->message);
        patience->is_away = true;
    }
    usleep(patience->pause_ms * 1000);
    if (patience->pause_ms < PAUSE_LAST_MS)
        patience->pause_ms *= 2;
    return true;
}

/* Before the first entry of a large bucket, much may have to be read: that takes longer than a call. */
#define SILENCE_MIN_S 5.0

enum status transfer_next_event(const struct invocation *invocation, struct kvs_watch *watch, struct kvs_event *event)
{
    double silence_s = invocation->timeout_s > 0 ? invocation->timeout_s : WAIT_DEFAULT_S;

    if (silence_s < SILENCE_MIN_S)
        silence_s = SILENCE_MIN_S;

    if (kvs_watch_next(watch, silence_s, event) != KVS_OK)
        return report_error(kvs_last_error(invocation->kvs));
    if (event->type == KVS_EVENT_ENDED)
        return report_error(event->error);
    if (event->type != KVS_EVENT_NONE)
        return STATUS_OK;
    report("nothing was received for %g s: the daemon or NATS is away; see --timeout", silence_s);
    return STATUS_UNAVAILABLE;
}

/* --- Files ---------------------------------------------------------------------------------------- */

void transfer_digest(const SHA256_CTX *digest, char text[DIGEST_TEXT_BYTES])
{
    unsigned char bytes[SHA256_DIGEST_LENGTH];
    SHA256_CTX copy = *digest;

    SHA256_Final(bytes, &copy);
    for (size_t i = 0; i < sizeof(bytes); i++)
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
}

FILE *transfer_open_plain_file(const char *path)
{
    int descriptor = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    struct stat state;

    if (descriptor < 0) {
        report("cannot open %.600s: %s", path, strerror(errno));
        return NULL;
    }
    FILE *file = fstat(descriptor, &state) == 0 && S_ISREG(state.st_mode) ? fdopen(descriptor, "r") : NULL;
    if (file == NULL) {
        close(descriptor);
        report("%.600s is not a plain file", path);
    }
    return file;
}

bool transfer_sync_directory(const char *path)
{
    char *copy = strdup(path);
    int descriptor = copy != NULL ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    bool is_synced = descriptor >= 0 && fsync(descriptor) == 0;
    int reason = errno;

    if (descriptor >= 0)
        close(descriptor);
    free(copy);
    errno = reason;
    return is_synced;
}
