/*
 * daemon.dump: what waits where.
 *
 * Each list has at most `limit` items and some LIST_BYTES_MAX, and its count has all. Calls, requests and watches, of
 * which there may be tens of thousands, are visited only until their list is full: others know how many there are.
 * Sessions and buckets are counted by visiting each once. With 10,000 sessions that have a watch each, an answer with
 * the default limit takes 0.3 ms.
 */
#include "daemon/handlers/entry.h"
#include "daemon/handlers/methods.h"
#include "daemon/handlers/watch.h"
#include "daemon/nats/request_text.h"
#include "daemon/rpc/arguments.h"
#include "daemon/rpc/options.h"
#include "daemon/store/follow/local_copy_info.h"
#include "daemon/store/write/group_commit.h"

#include <string.h>

#define LIMIT_STANDARD 100
#define LIMIT_MAX      1000

/* A list that is larger takes no more items: the 64 filters of a watch may have a thousand bytes each. */
#define LIST_BYTES_MAX (256u * 1024u)

struct dump {
    struct call *call;
    msgpack_packer *packer;
    uint32_t limit;
    uint64_t now_ns; /* uv_hrtime */

    /* The list that is being packed. */
    size_t header; /* its offset in the out-buffer */
    uint32_t listed;
    uint64_t count;
    const struct session *session; /* of the watches that are being listed */
};

/* --- Packing --------------------------------------------------------------------------------------- */

static void dump_text(struct dump *dump, const char *name, const char *text)
{
    pack_str(dump->packer, name);
    pack_str(dump->packer, text);
}

static void dump_number(struct dump *dump, const char *name, uint64_t number)
{
    pack_str(dump->packer, name);
    msgpack_pack_uint64(dump->packer, number);
}

static void dump_flag(struct dump *dump, const char *name, bool flag)
{
    pack_str(dump->packer, name);
    if (flag)
        msgpack_pack_true(dump->packer);
    else
        msgpack_pack_false(dump->packer);
}

/* An array header (array 32), whose count is set when the list ends. */
#define HEADER_BYTES 5u

static void dump_begin_list(struct dump *dump, const char *name, unsigned members)
{
    static const char header[HEADER_BYTES] = {(char)0xdd};

    pack_str(dump->packer, name);
    msgpack_pack_map(dump->packer, members);
    pack_str(dump->packer, "list");
    dump->header = dump->call->out->size;
    dump->listed = 0;
    dump->count = 0;
    msgpack_sbuffer_write(dump->call->out, header, sizeof(header));
}

static bool dump_list_is_full(const struct dump *dump)
{
    return dump->listed >= dump->limit || dump->call->out->size - dump->header > LIST_BYTES_MAX;
}

/* Count an item. Return whether it is listed: then pack a map of its members. */
static bool dump_begin_item(struct dump *dump, unsigned members)
{
    dump->count++;
    if (dump_list_is_full(dump))
        return false;
    dump->listed++;
    msgpack_pack_map(dump->packer, members);
    return true;
}

static void dump_end_list(struct dump *dump)
{
    unsigned char *header = (unsigned char *)dump->call->out->data + dump->header;

    for (unsigned i = 1; i < HEADER_BYTES; i++)
        header[i] = (unsigned char)(dump->listed >> (8 * (HEADER_BYTES - 1 - i)));
    dump_number(dump, "count", dump->count);
}

/* --- Sessions and calls ---------------------------------------------------------------------------- */

static const char *dump_session_state(const struct session *session)
{
    switch (session->state) {
    case SESSION_OPEN:
        return session->inbox.state == INBOX_PAUSED ? "paused" : "open";
    case SESSION_DRAINING:
    case SESSION_LAST_ANSWERS:
        return "last answers";
    case SESSION_LINGERING:
        return "refused";
    case SESSION_CLOSING:
        return "closing";
    }
    return "unknown";
}

static bool dump_is_idle(const struct session *session)
{
    return session->state == SESSION_OPEN && session_count(session, SESSION_PENDING) == 0 &&
           session_count(session, SESSION_WATCH) == 0 && outbox_unread_bytes(session) == 0 &&
           inbox_kept_bytes(session) == 0;
}

/* Idle sessions are counted only: among thousands of them nobody looks for one. */
static void dump_sessions(struct dump *dump)
{
    uint64_t idle = 0;

    dump_begin_list(dump, "sessions", 3);
    for (const struct session *session = call_service(dump->call)->sessions->first; session != NULL;
         session = session->next) {
        if (dump_is_idle(session)) {
            idle++;
            continue;
        }
        if (!dump_begin_item(dump, 9))
            continue;
        dump_number(dump, "id", session->id);
        dump_number(dump, "pid", (uint64_t)session->pid);
        dump_number(dump, "uid", session->uid);
        dump_text(dump, "state", dump_session_state(session));
        dump_number(dump, "calls", session_count(session, SESSION_PENDING));
        dump_number(dump, "call_bytes", session->pending_bytes);
        dump_number(dump, "unread_bytes", outbox_unread_bytes(session));
        dump_number(dump, "waiting_bytes", inbox_kept_bytes(session));
        dump_number(dump, "watches", session_count(session, SESSION_WATCH));
    }
    dump_end_list(dump);
    dump_number(dump, "idle", idle);
}

static void dump_calls(struct dump *dump)
{
    dump_begin_list(dump, "calls", 2);
    for (const struct call *call = dump->call->dispatcher->calls; call != NULL; call = call->next) {
        if (!dump_begin_item(dump, 7u + (call->bucket != NULL)))
            break;
        dump_number(dump, "id", call->id);
        dump_number(dump, "pid", (uint64_t)call->pid);
        dump_number(dump, "uid", call->user->uid);
        dump_text(dump, "method", call_method_name(call));
        if (call->bucket != NULL)
            dump_text(dump, "bucket", call->bucket);
        dump_text(dump, "state", call_state_name(call_state(call)));
        dump_number(dump, "age_ms", (dump->now_ns - call->started_ns) / 1000000);
        dump_number(dump, "bytes", call->bytes);
    }
    dump->count = dump->call->dispatcher->metrics->calls;
    dump_end_list(dump);
}

static bool dump_watch(void *arg, const struct watch_info *info)
{
    struct dump *dump = arg;

    if (!dump_begin_item(dump, 6))
        return true;
    dump_number(dump, "id", info->id);
    dump_number(dump, "pid", (uint64_t)dump->session->pid);
    dump_number(dump, "uid", dump->session->uid);
    dump_text(dump, "bucket", info->bucket);
    dump_text(dump, "state", info->state);
    pack_str(dump->packer, "filters");
    msgpack_pack_array(dump->packer, info->filter_count);
    for (size_t i = 0; i < info->filter_count; i++)
        pack_str(dump->packer, info->filters[i]);
    return true;
}

/* Visit only the watches that are listed. The sessions know how many watches they have. */
static void dump_watches(struct dump *dump)
{
    dump_begin_list(dump, "watches", 2);
    for (const struct session *session = call_service(dump->call)->sessions->first; session != NULL;
         session = session->next) {
        dump->session = session;
        if (dump_list_is_full(dump))
            dump->count += session_count(session, SESSION_WATCH);
        else
            watches_each(session, dump_watch, dump);
    }
    dump_end_list(dump);
}

/* --- The store ------------------------------------------------------------------------------------- */

static bool dump_request(void *arg, const struct request_info *info)
{
    struct dump *dump = arg;
    bool has_call = info->call_id != 0, has_trouble = info->trouble[0] != '\0';

    if (!dump_begin_item(dump, 4u + has_call + has_trouble))
        return false;
    dump_text(dump, "kind", info->kind);
    dump_text(dump, "state", info->state);
    dump_number(dump, "age_ms", info->age_ms);
    dump_number(dump, "attempts", info->attempts);
    if (has_call)
        dump_number(dump, "call", info->call_id);
    if (has_trouble)
        dump_text(dump, "trouble", info->trouble);
    return true;
}

static void dump_requests(struct dump *dump)
{
    const struct requests *requests = &call_store(dump->call)->requests;
    uint32_t states = 0;

    dump_begin_list(dump, "requests", 3);
    requests_each(requests, dump_request, dump);
    dump->count = 0;
    for (enum request_state state = REQUEST_IDLE; state < REQUEST_STATES; state++) {
        dump->count += requests_count(requests, state);
        states += requests_count(requests, state) > 0;
    }
    dump_end_list(dump);
    pack_str(dump->packer, "states");
    msgpack_pack_map(dump->packer, states);
    for (enum request_state state = REQUEST_IDLE; state < REQUEST_STATES; state++) {
        if (requests_count(requests, state) > 0)
            dump_number(dump, request_state_text(state), requests_count(requests, state));
    }
}

static void dump_followed_bucket(void *arg, const struct local_copy_info *info)
{
    struct dump *dump = arg;

    if (!dump_begin_item(dump, 9u + (info->error != NULL)))
        return;
    dump_text(dump, "bucket", info->bucket);
    dump_text(dump, "feed", info->feed);
    dump_number(dump, "position", info->position);
    dump_number(dump, "resyncs", info->resyncs);
    dump_number(dump, "watches", info->watches);
    dump_number(dump, "waiting_calls", info->waits);
    dump_number(dump, "keys", info->keys);
    dump_number(dump, "bytes", info->bytes);
    dump_flag(dump, "answers_reads", info->answers_reads);
    if (info->error != NULL)
        dump_text(dump, "error", info->error);
}

static void dump_group_commit(void *arg, const struct group_commit_info *info)
{
    struct dump *dump = arg;

    if (!dump_begin_item(dump, 4))
        return;
    dump_text(dump, "bucket", info->bucket);
    dump_number(dump, "waiting", info->waiting);
    dump_number(dump, "single", info->single);
    dump_number(dump, "in_batch", info->in_batch);
}

/* --- daemon.dump ----------------------------------------------------------------------------------- */

void handle_daemon_dump(struct call *call)
{
    struct dump dump = {.call = call, .now_ns = uv_hrtime()};
    int64_t limit;

    if (!option_integer(call, "limit", 1, LIMIT_MAX, LIMIT_STANDARD, &limit))
        return;
    dump.limit = (uint32_t)limit;
    dump.packer = call_begin_result(call);
    msgpack_pack_map(dump.packer, 6);
    dump_sessions(&dump);
    dump_calls(&dump);
    dump_watches(&dump);
    dump_requests(&dump);
    dump_begin_list(&dump, "followed_buckets", 2);
    local_copy_each(call_store(call), dump_followed_bucket, &dump);
    dump_end_list(&dump);
    dump_begin_list(&dump, "group_commits", 2);
    group_commit_each(call_store(call), dump_group_commit, &dump);
    dump_end_list(&dump);
    call_end_result(call);
}
