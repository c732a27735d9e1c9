#include "daemon/rpc/slow_log.h"

#include "daemon/rpc/arguments.h"
#include "daemon/rpc/dispatch.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NS_PER_MS 1000000u

/* A key is shown up to this length. */
#define KEY_SHOWN_BYTES 128

/* Write " key K", " 3 keys" or "". In all methods kv.* and bulk.*, the key or the keys come after the bucket. */
static void slow_log_write_keys(const struct call *call, char text[KEY_SHOWN_BYTES + 16])
{
    const char *name = call_method_name(call);
    const msgpack_object *argument = call->argument_count > 1 ? &call->arguments[1] : NULL;

    text[0] = '\0';
    if (call->bucket == NULL || argument == NULL)
        return;
    if (strncmp(name, "kv.", 3) == 0 && argument_is_text(argument)) {
        int length = argument->via.str.size < KEY_SHOWN_BYTES ? (int)argument->via.str.size : KEY_SHOWN_BYTES;
        snprintf(text, KEY_SHOWN_BYTES + 16, " key %.*s%s", length, argument->via.str.ptr,
                 argument->via.str.size > KEY_SHOWN_BYTES ? "..." : "");
    } else if (strncmp(name, "bulk.", 5) == 0 && argument->type == MSGPACK_OBJECT_ARRAY) {
        snprintf(text, KEY_SHOWN_BYTES + 16, " %" PRIu32 " keys", argument->via.array.size);
    } else if (strncmp(name, "bulk.", 5) == 0 && argument->type == MSGPACK_OBJECT_MAP) {
        snprintf(text, KEY_SHOWN_BYTES + 16, " %" PRIu32 " keys", argument->via.map.size);
    }
}

static void slow_log_write(const struct call *call, uint64_t now_ms, const char *ending)
{
    double took_s = (double)now_ms / 1000.0 - (double)call->started_ns / 1e9;
    double sent_s = (double)arena_sent_ms(&call->arena, now_ms) / 1000.0;
    if (sent_s > took_s) /* it is counted in whole milliseconds */
        sent_s = took_s;
    const char *program = call->session != NULL ? call->session->program : "";
    bool has_bucket = call->bucket != NULL;
    char keys[KEY_SHOWN_BYTES + 16];

    slow_log_write_keys(call, keys);
    log_write(
        CONF_LOG_WARNING,
        "slow call: %s%s%s%s took %.3f s (log.slow_call is %.3g s), of that %.3f s in queues of the daemon and %.3f "
        "s at NATS; %s; session %" PRIu64 " of pid %d uid %u%s%s%s",
        call_method_name(call), has_bucket ? " of bucket " : "", has_bucket ? call->bucket : "", keys, took_s,
        call->dispatcher->conf->log.slow_call_ms / 1000.0, took_s - sent_s, sent_s, ending, call->session_id,
        (int)call->pid, (unsigned)call->user->uid, program[0] != '\0' ? " (" : "", program,
        program[0] != '\0' ? ")" : "");
}

void slow_log_check(const struct call *call, const char *ending)
{
    unsigned limit_ms = call->dispatcher->conf->log.slow_call_ms;

    if (limit_ms == 0 || call->method == NULL)
        return;
    uint64_t now_ms = uv_now(call->dispatcher->loop);
    if (now_ms * NS_PER_MS >= call->started_ns + (uint64_t)limit_ms * NS_PER_MS &&
        log_may(&call->dispatcher->slow_log, "slow calls"))
        slow_log_write(call, now_ms, ending);
}
