/* The methods health.* and daemon.*, whose results are trees. */
#include "client/lib/blocking.h"

static enum kvs_code run_tree(struct kvs *kvs, const struct kvs_call_options *options, struct kvs_value **tree)
{
    *tree = NULL;
    return blocking_run(kvs, CALL_TIMEOUT(options), reply_read_tree, tree);
}

static void build_health(struct kvs *kvs, const char *bucket)
{
    struct kvs_request *request = call_begin(kvs, "health.check", bucket != NULL ? 1 : 0);

    if (bucket != NULL)
        kvs_request_string(request, bucket);
}

enum kvs_code kvs_health(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options,
                         struct kvs_value **health)
{
    build_health(kvs, bucket);
    return run_tree(kvs, options, health);
}

enum kvs_code kvs_async_health(struct kvs *kvs, const char *bucket, const struct kvs_call_options *options,
                               kvs_done_fn *done, void *context)
{
    build_health(kvs, bucket);
    return call_submit_value(kvs, CALL_TIMEOUT(options), done, context);
}

enum kvs_code kvs_daemon_info(struct kvs *kvs, const struct kvs_call_options *options, struct kvs_value **info)
{
    call_begin(kvs, "daemon.info", 0);
    return run_tree(kvs, options, info);
}

enum kvs_code kvs_async_daemon_info(struct kvs *kvs, const struct kvs_call_options *options, kvs_done_fn *done,
                                    void *context)
{
    call_begin(kvs, "daemon.info", 0);
    return call_submit_value(kvs, CALL_TIMEOUT(options), done, context);
}

enum kvs_code kvs_daemon_stats(struct kvs *kvs, const struct kvs_call_options *options, struct kvs_value **stats)
{
    call_begin(kvs, "daemon.stats", 0);
    return run_tree(kvs, options, stats);
}

enum kvs_code kvs_async_daemon_stats(struct kvs *kvs, const struct kvs_call_options *options, kvs_done_fn *done,
                                     void *context)
{
    call_begin(kvs, "daemon.stats", 0);
    return call_submit_value(kvs, CALL_TIMEOUT(options), done, context);
}
