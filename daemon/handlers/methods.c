#include "daemon/handlers/methods.h"

#include "daemon/nats/kv.h"
#include "daemon/store/bucket/bucket.h"

#define METHODS_ROW(family, verb, fewest, most, flags, options)                                                        \
    {#family "." #verb, handle_##family##_##verb, fewest, most, flags, options},

static const struct method methods[METHOD_COUNT] = {METHODS(METHODS_ROW)};

static bool methods_is_available(void *context, struct error *error)
{
    return store_is_available(((struct service *)context)->store, error);
}

static const char *methods_written_bucket(void *context, const char *bucket)
{
    const struct bucket *known = bucket_find_known(((struct service *)context)->store, bucket);

    return known != NULL && known->is_mirror ? known->origin : bucket;
}

const struct dispatcher_ops methods_ops = {methods, kv_check_bucket, methods_is_available, methods_written_bucket};
