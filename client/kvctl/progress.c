#include "client/kvctl/transfer.h"

#include <unistd.h>

#define SHOW_EVERY_MS  500
#define WAIT_DEFAULT_S 60

bool transfer_read_wait(const struct invocation *invocation, int64_t *wait_s)
{
    *wait_s = WAIT_DEFAULT_S;
    if (!arguments_duration(invocation, "wait", wait_s))
        return false;
    if (*wait_s < 0) /* "none" */
        *wait_s = INT32_MAX;
    return true;
}

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
