/* daemon.stats and daemon.metrics: what the daemon counts, as a map and as a text. */
#include "daemon/handlers/stats.h"

#include "daemon/handlers/methods.h"
#include "daemon/rpc/call.h"
#include "daemon/rpc/dispatch.h"
#include "daemon/rpc/pack.h"

#include <string.h>
#include <uv.h>

/* --- daemon.stats ---------------------------------------------------------------------------------- */

static void stats_pack_figure(msgpack_packer *packer, const struct figure *figure, const struct figures *figures)
{
    pack_str(packer, figure->member);
    switch (figure->form) {
    case FIGURE_NUMBER:
        msgpack_pack_uint64(packer, figure_value(figure, figures));
        break;
    case FIGURE_FLAG:
        if (figure_value(figure, figures) != 0)
            msgpack_pack_true(packer);
        else
            msgpack_pack_false(packer);
        break;
    case FIGURE_SECONDS:
        msgpack_pack_double(packer, (double)figure_value(figure, figures) / 1000.0);
        break;
    case FIGURE_TEXT:
        pack_str(packer, figure_text(figure, figures));
        break;
    }
}

static bool stats_is_in(const struct figure *figure, const struct figures *figures, const char *section)
{
    return figure->section != NULL && strcmp(figure->section, section) == 0 && figure_is_known(figure, figures);
}

static uint32_t stats_count_members(const struct figures *figures, const char *section)
{
    uint32_t count = 0;

    for (size_t row = 0; row < figures_of_daemon_count; row++)
        count += stats_is_in(&figures_of_daemon[row], figures, section);
    return count;
}

static void stats_pack_members(msgpack_packer *packer, const struct figures *figures, const char *section)
{
    for (size_t row = 0; row < figures_of_daemon_count; row++) {
        if (stats_is_in(&figures_of_daemon[row], figures, section))
            stats_pack_figure(packer, &figures_of_daemon[row], figures);
    }
}

void stats_pack_section(msgpack_packer *packer, const struct figures *figures, const char *section)
{
    uint32_t count = stats_count_members(figures, section);

    if (count == 0)
        return;
    pack_str(packer, section);
    msgpack_pack_map(packer, count);
    stats_pack_members(packer, figures, section);
}

/* Return the next section of the table, beginning with *row, which is moved after its begin. NULL: there is none. */
static const char *stats_next_section(const char *previous, size_t *row)
{
    for (; *row < figures_of_daemon_count; (*row)++) {
        const char *section = figures_of_daemon[*row].section;
        if (section != NULL && section[0] != '\0' && (previous == NULL || strcmp(section, previous) != 0))
            return section;
    }
    return NULL;
}

static uint32_t stats_count_sections(const struct figures *figures)
{
    const char *section = NULL;
    uint32_t count = 0;
    size_t row = 0;

    while ((section = stats_next_section(section, &row)) != NULL)
        count += stats_count_members(figures, section) > 0;
    return count;
}

static void stats_pack_methods(msgpack_packer *packer, const struct metrics *metrics)
{
    uint32_t used = 0;

    for (size_t row = 0; row < METHOD_COUNT; row++)
        used += metrics->methods[row].calls > 0;
    pack_str(packer, "methods");
    msgpack_pack_map(packer, used);
    for (size_t row = 0; row < METHOD_COUNT; row++) {
        const struct metrics_method *method = &metrics->methods[row];
        if (method->calls == 0)
            continue;
        pack_str(packer, methods_ops.methods[row].name);
        msgpack_pack_map(packer, 6);
        pack_named_unsigned(packer, "calls", method->calls);
        pack_named_unsigned(packer, "errors", metrics_count_errors(method));
        pack_named_unsigned(packer, "p50_us", metrics_quantile(&method->latency, 0.5));
        pack_named_unsigned(packer, "p99_us", metrics_quantile(&method->latency, 0.99));
        pack_named_unsigned(packer, "p999_us", metrics_quantile(&method->latency, 0.999));
        pack_named_unsigned(packer, "max_us", method->latency.max);
    }
}

static void stats_pack_errors(msgpack_packer *packer, const struct metrics *metrics)
{
    uint32_t used = 0;

    for (unsigned code = 1; code < ERROR_CODE_COUNT; code++)
        used += metrics->errors[code] > 0;
    pack_str(packer, "errors");
    msgpack_pack_map(packer, used);
    for (unsigned code = 1; code < ERROR_CODE_COUNT; code++) {
        if (metrics->errors[code] > 0)
            pack_named_unsigned(packer, error_code_name((enum error_code)code), metrics->errors[code]);
    }
}

void handle_daemon_stats(struct call *call)
{
    const struct metrics *metrics = call->dispatcher->metrics;
    const char *section = NULL;
    struct figures figures;
    size_t row = 0;

    figures_collect(&call_service(call)->monitor->sources, &figures);
    msgpack_packer *packer = call_begin_result(call);
    msgpack_pack_map(packer, stats_count_members(&figures, "") + stats_count_sections(&figures) + 2);
    stats_pack_members(packer, &figures, "");
    while ((section = stats_next_section(section, &row)) != NULL)
        stats_pack_section(packer, &figures, section);
    stats_pack_methods(packer, metrics);
    stats_pack_errors(packer, metrics);
    call_end_result(call);
}

/* --- daemon.metrics -------------------------------------------------------------------------------- */

/* A call that waits for the text. */
struct stats_wait {
    struct call *call;
    struct exposition_waiter waiter;
    struct arena_task task;
    struct timer timer;
};

static void stats_wait_end(struct stats_wait *wait)
{
    exposition_cancel(&wait->waiter);
    timer_stop(call_store(wait->call)->timers, &wait->timer);
}

static void stats_wait_cancel(struct arena_task *task)
{
    stats_wait_end(ARENA_TASK_OWNER(task, struct stats_wait, task));
}

static void stats_wait_on_deadline(struct timer *timer)
{
    struct stats_wait *wait = (struct stats_wait *)((char *)timer - offsetof(struct stats_wait, timer));

    call_fail_with(wait->call, ERROR_DEADLINE_EXCEEDED, "the figures of the buckets did not arrive in time; try again");
}

static void stats_wait_on_text(struct exposition_waiter *waiter, const char *text, size_t size)
{
    struct stats_wait *wait = (struct stats_wait *)((char *)waiter - offsetof(struct stats_wait, waiter));
    struct call *call = wait->call;

    if (text == NULL) {
        call_fail_out_of_memory(call);
        return;
    }
    msgpack_pack_str_with_body(call_begin_result(call), text, size);
    call_end_result(call);
}

void handle_daemon_metrics(struct call *call)
{
    struct stats_wait *wait = arena_zalloc(&call->arena, sizeof(*wait));

    if (wait == NULL) {
        call_fail_out_of_memory(call);
        return;
    }
    wait->call = call;
    wait->waiter.done = stats_wait_on_text;
    arena_begin_reading_task(&call->arena, &wait->task, stats_wait_cancel);
    timer_start(call_store(call)->timers, &wait->timer, call->deadline_ms, stats_wait_on_deadline);
    exposition_request(&call_service(call)->monitor->exposition, &wait->waiter);
}
