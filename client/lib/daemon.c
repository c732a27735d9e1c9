/* The methods health.* and daemon.*, whose results are trees or a text. */
#include "client/lib/blocking.h"
#include "client/lib/deliver.h"

static void daemon_build(struct kvs *kvs, const char *method, const char *bucket,
                         const struct kvs_call_options *options)
{
    struct kvs_request *request = call_begin(kvs, method, bucket != NULL ? 1 : 0);

    if (bucket != NULL)
        kvs_request_string(request, bucket);
    request_copy_call_options(request, options);
}

static enum kvs_code daemon_run(struct kvs *kvs, const char *method, const char *bucket,
                                const struct kvs_call_options *options, struct kvs_value **tree)
{
    *tree = NULL;
    daemon_build(kvs, method, bucket, options);
    return blocking_run(kvs, reply_read_tree, tree);
}

static enum kvs_code daemon_submit(struct kvs *kvs, const char *method, const char *bucket,
                                   const struct kvs_call_options *options, kvs_value_fn *done, void *context)
{
    daemon_build(kvs, method, bucket, options);
    return call_submit(kvs, deliver_value(done, context));
}

enum kvs_code kvs_health(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options,
                         struct kvs_value **health)
{
    return daemon_run(kvs, "health.check", bucket, options, health);
}

enum kvs_code kvs_async_health(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options,
                               kvs_value_fn *done, void *context)
{
    return daemon_submit(kvs, "health.check", bucket, options, done, context);
}

enum kvs_code kvs_daemon_info(struct kvs *kvs, const struct kvs_call_options *options, struct kvs_value **info)
{
    return daemon_run(kvs, "daemon.info", NULL, options, info);
}

enum kvs_code kvs_async_daemon_info(struct kvs *kvs, const struct kvs_call_options *options, kvs_value_fn *done,
                                    void *context)
{
    return daemon_submit(kvs, "daemon.info", NULL, options, done, context);
}

enum kvs_code kvs_daemon_stats(struct kvs *kvs, const struct kvs_call_options *options, struct kvs_value **stats)
{
    return daemon_run(kvs, "daemon.stats", NULL, options, stats);
}

enum kvs_code kvs_async_daemon_stats(struct kvs *kvs, const struct kvs_call_options *options, kvs_value_fn *done,
                                     void *context)
{
    return daemon_submit(kvs, "daemon.stats", NULL, options, done, context);
}

enum kvs_code kvs_daemon_metrics(struct kvs *kvs, const struct kvs_call_options *options, struct kvs_value **text)
{
    *text = NULL;
    daemon_build(kvs, "daemon.metrics", NULL, options);
    return blocking_run(kvs, reply_read_text, text);
}

enum kvs_code kvs_async_daemon_metrics(struct kvs *kvs, const struct kvs_call_options *options, kvs_value_fn *done,
                                       void *context)
{
    return daemon_submit(kvs, "daemon.metrics", NULL, options, done, context);
}

enum kvs_code kvs_daemon_config(struct kvs *kvs, const struct kvs_call_options *options, struct kvs_value **config)
{
    return daemon_run(kvs, "daemon.config", NULL, options, config);
}

enum kvs_code kvs_async_daemon_config(struct kvs *kvs, const struct kvs_call_options *options, kvs_value_fn *done,
                                      void *context)
{
    return daemon_submit(kvs, "daemon.config", NULL, options, done, context);
}

static void daemon_build_dump(struct kvs *kvs, const struct kvs_dump_options *options)
{
    struct kvs_request *request = call_begin(kvs, "daemon.dump", 0);
    struct kvs_dump_options own;

    request_copy_options(request, &own, sizeof(own), options);
    request_option_unsigned(request, "limit", own.limit);
    request->timeout_s = own.timeout_s;
}

enum kvs_code kvs_daemon_dump(struct kvs *kvs, const struct kvs_dump_options *options, struct kvs_value **dump)
{
    *dump = NULL;
    daemon_build_dump(kvs, options);
    return blocking_run(kvs, reply_read_tree, dump);
}

enum kvs_code kvs_async_daemon_dump(struct kvs *kvs, const struct kvs_dump_options *options, kvs_value_fn *done,
                                    void *context)
{
    daemon_build_dump(kvs, options);
    return call_submit(kvs, deliver_value(done, context));
}

static void daemon_build_sessions(struct kvs *kvs, const struct kvs_sessions_options *options)
{
    struct kvs_request *request = call_begin(kvs, "daemon.sessions", 0);
    struct kvs_sessions_options own;

    request_copy_options(request, &own, sizeof(own), options);
    request_option_string(request, "sort", own.sort);
    request_option_unsigned(request, "limit", own.limit);
    request->timeout_s = own.timeout_s;
}

enum kvs_code kvs_daemon_sessions(struct kvs *kvs, const struct kvs_sessions_options *options,
                                  struct kvs_value **sessions)
{
    *sessions = NULL;
    daemon_build_sessions(kvs, options);
    return blocking_run(kvs, reply_read_tree, sessions);
}

enum kvs_code kvs_async_daemon_sessions(struct kvs *kvs, const struct kvs_sessions_options *options, kvs_value_fn *done,
                                        void *context)
{
    daemon_build_sessions(kvs, options);
    return call_submit(kvs, deliver_value(done, context));
}

static void daemon_build_kill_session(struct kvs *kvs, uint64_t session, const struct kvs_call_options *options)
{
    struct kvs_request *request = call_begin(kvs, "daemon.kill_session", 1);

    kvs_request_unsigned(request, session);
    request_copy_call_options(request, options);
}

enum kvs_code kvs_daemon_kill_session(struct kvs *kvs, uint64_t session, const struct kvs_call_options *options)
{
    daemon_build_kill_session(kvs, session, options);
    return blocking_run(kvs, NULL, NULL);
}

enum kvs_code kvs_async_daemon_kill_session(struct kvs *kvs, uint64_t session, const struct kvs_call_options *options,
                                            kvs_finished_fn *done, void *context)
{
    daemon_build_kill_session(kvs, session, options);
    return call_submit(kvs, deliver_nothing(done, context));
}
