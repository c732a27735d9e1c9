/*
 * A program with a libuv loop: it watches a bucket, and writes a key every 100 ms with a timer of its own. After ten
 * changes it ends. Compile: cc libuv.c $(pkg-config --cflags --libs kvstore libuv). Before: kvctl add demo
 */
#include <kvstore_libuv.h>

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define CHANGES 10

struct program {
    struct kvs *kvs;
    struct kvs_libuv *adapter;
    uv_timer_t timer;
    unsigned written;
    unsigned seen;
    bool has_ended;
    int status;
};

/* kvs_close calls the callbacks of what is left, which end up here once more. */
static void end(struct program *program, int status)
{
    if (program->has_ended)
        return;
    program->has_ended = true;
    program->status = status;
    kvs_libuv_detach(program->adapter);
    uv_close((uv_handle_t *)&program->timer, NULL);
}

static void fail(struct program *program, const struct kvs_error *error)
{
    if (!program->has_ended)
        fprintf(stderr, "%s\n", error->message);
    end(program, 1);
}

static void on_put(struct kvs *kvs, const struct kvs_error *error, uint64_t revision, void *context)
{
    (void)kvs;
    (void)revision;
    if (error != NULL)
        fail(context, error);
}

static void on_timer(uv_timer_t *timer)
{
    struct program *program = timer->data;
    char text[16];

    int length = snprintf(text, sizeof(text), "%u", ++program->written);
    if (kvs_async_put(program->kvs, "demo", "libuv", text, (size_t)length, NULL, on_put, program) != KVS_OK)
        fail(program, kvs_last_error(program->kvs));
}

static void on_event(struct kvs *kvs, struct kvs_watch *watch, const struct kvs_event *event, void *context)
{
    struct program *program = context;

    (void)kvs;
    (void)watch;
    if (event->type == KVS_EVENT_ENDED) {
        fail(program, event->error);
    } else if (event->type == KVS_EVENT_ENTRY) {
        printf("%s is %s (revision %" PRIu64 ")\n", event->entry->key, event->entry->value, event->entry->revision);
        if (++program->seen == CHANGES)
            end(program, 0);
    }
}

int main(void)
{
    static const char *const filters[] = {"libuv"};
    struct kvs_options options = KVS_OPTIONS(.reconnect = true); /* the watch resumes if the daemon restarts */
    struct kvs_watch_options watch = KVS_WATCH_OPTIONS(.filters = filters, .filter_count = 1, .updates_only = true);
    uv_loop_t *loop = uv_default_loop();
    struct program program = {.status = 1};
    struct kvs_error error;

    program.kvs = kvs_connect(NULL, &options, &error);
    if (program.kvs == NULL) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    uv_timer_init(loop, &program.timer);
    program.timer.data = &program;
    program.adapter = kvs_libuv_attach(loop, program.kvs);
    if (program.adapter == NULL)
        end(&program, 1);
    else if (kvs_async_watch(program.kvs, "demo", &watch, on_event, &program, NULL) != KVS_OK)
        fail(&program, kvs_last_error(program.kvs));
    else
        uv_timer_start(&program.timer, on_timer, 100, 100);
    uv_run(loop, UV_RUN_DEFAULT);
    kvs_close(program.kvs);
    uv_loop_close(loop);
    return program.status;
}
