/* The verbs sessions and kill: list the sessions of the daemon, and end one of them. */
#include "client/kvctl/kvctl.h"

#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>

/* --- Text, also for top -------------------------------------------------------------------------- */

static uint64_t sessions_number(const struct kvs_value *session, const char *name)
{
    return kvs_value_unsigned(kvs_value_member(session, name));
}

struct short_text text_of_user(uint64_t uid)
{
    const struct passwd *user = getpwuid((uid_t)uid);
    struct short_text text;

    if (user != NULL)
        return text_of_bytes(user->pw_name, strlen(user->pw_name));
    snprintf(text.text, sizeof(text.text), "%" PRIu64, uid);
    return text;
}

uint64_t sessions_held_bytes(const struct kvs_value *session)
{
    return sessions_number(session, "call_bytes") + sessions_number(session, "unread_bytes") +
           sessions_number(session, "waiting_bytes");
}

/* --- sessions ------------------------------------------------------------------------------------- */

static enum status sessions_print(const struct kvs_value *answer)
{
    static const char *const titles[] = {"ID",      "PID",       "PROGRAM", "USER",    "AGE", "CALLS",
                                         "CALLS/S", "IN FLIGHT", "HELD",    "WATCHES", "IN",  "OUT"};
    const struct kvs_value *list = kvs_value_member(answer, "list");
    uint64_t own = sessions_number(answer, "own"), all = sessions_number(answer, "count");
    size_t columns = sizeof(titles) / sizeof(titles[0]), count = kvs_value_count(list);
    struct table table;

    table_begin(&table, columns);
    for (size_t i = 0; i < columns; i++)
        table_add(&table, "%s", titles[i]);
    for (size_t i = 0; i < count; i++) {
        const struct kvs_value *session = kvs_value_item(list, i);
        uint64_t id = sessions_number(session, "id");
        table_add(&table, "%" PRIu64 "%s", id, id == own ? "*" : "");
        table_add(&table, "%" PRIu64, sessions_number(session, "pid"));
        table_add(&table, "%s", text_of_value(kvs_value_member(session, "program")).text);
        table_add(&table, "%s", text_of_user(sessions_number(session, "uid")).text);
        table_add(&table, "%s", text_of_duration((int64_t)(sessions_number(session, "age_ms") / 1000)).text);
        table_add(&table, "%s", text_of_count(sessions_number(session, "calls")).text);
        table_add(&table, "%s", text_of_count(sessions_number(session, "calls_per_second")).text);
        table_add(&table, "%s", text_of_count(sessions_number(session, "calls_in_flight")).text);
        table_add(&table, "%s", text_of_size(sessions_held_bytes(session)).text);
        table_add(&table, "%s", text_of_count(sessions_number(session, "watches")).text);
        table_add(&table, "%s", text_of_size(sessions_number(session, "bytes_in")).text);
        table_add(&table, "%s", text_of_size(sessions_number(session, "bytes_out")).text);
    }
    enum status status = table_print(&table);
    if (status == STATUS_OK)
        print_omitted(count, all);
    return status;
}

enum status sessions_run(struct invocation *invocation)
{
    struct kvs_sessions_options options = KVS_SESSIONS_OPTIONS(.timeout_s = invocation->timeout_s);
    struct kvs_value *answer;

    if (!arguments_limit(invocation, &options.limit))
        return STATUS_FAILED;
    const char *sort = arguments_value(invocation, "sort");
    options.sort = sort != NULL && strcmp(sort, "in-flight") == 0 ? "in_flight" : sort;
    if (kvs_daemon_sessions(invocation->kvs, &options, &answer) != KVS_OK)
        return report_error(kvs_last_error(invocation->kvs));
    enum status status = invocation->json ? print_and_free(kvs_value_json(answer)) : sessions_print(answer);
    kvs_free(answer);
    return status;
}

/* --- kill ------------------------------------------------------------------------------------------ */

enum status sessions_kill(struct invocation *invocation)
{
    struct kvs_call_options options = KVS_CALL_OPTIONS(.timeout_s = invocation->timeout_s);
    uint64_t id;

    if (!arguments_read_number(invocation->arguments[0], "SESSION", &id))
        return STATUS_FAILED;
    if (kvs_daemon_kill_session(invocation->kvs, id, &options) != KVS_OK)
        return report_error(kvs_last_error(invocation->kvs));
    if (invocation->json)
        puts("null");
    return STATUS_OK;
}
