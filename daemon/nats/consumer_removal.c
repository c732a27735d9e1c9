#include "daemon/nats/consumer_removal.h"

#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

struct consumer_removal {
    struct jetstream_call call;
    struct jetstream *jetstream;
    struct consumer_removal *next, *previous;
};

static void removal_free(struct consumer_removal *removal)
{
    DL_DELETE2(removal->jetstream->removals, removal, previous, next);
    free(removal);
}

/* Whatever the answer: the server removes the consumer by itself in the end. */
static void on_removal_done(void *arg, json_t *answer, unsigned err_code, const struct error *error)
{
    (void)answer;
    (void)err_code;
    (void)error;
    removal_free(arg);
}

void consumer_removal_start(struct jetstream *jetstream, const char *stream, const char *consumer,
                            struct request *request, struct request_limit *limit, bool is_over)
{
    const struct requests *requests = jetstream->requests;
    struct consumer_removal *removal = calloc(1, sizeof(*removal));
    char name[512];

    if (removal == NULL)
        return;
    removal->jetstream = jetstream;
    DL_APPEND2(jetstream->removals, removal, previous, next);
    if (is_over)
        request_transfer_place(request, &removal->call.request);
    removal->call.request.limit = limit;
    removal->call.request.owner = request->owner;
    snprintf(name, sizeof(name), "%s.%s", stream, consumer);
    jetstream_call(jetstream, &removal->call, "CONSUMER.DELETE", name, NULL,
                   uv_now(requests->loop) + requests->conf->calls.attempt_timeout_ms, on_removal_done, removal);
}

void consumer_removal_cancel_all(struct jetstream *jetstream)
{
    while (jetstream->removals != NULL) {
        jetstream_cancel(&jetstream->removals->call);
        removal_free(jetstream->removals);
    }
}
