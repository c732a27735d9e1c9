#include "tests/sim/caller.h"

#include "tests/sim/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- Packing and reading --------------------------------------------------------------------------- */

msgpack_packer caller_begin(msgpack_sbuffer *arguments, size_t count)
{
    msgpack_packer packer;

    msgpack_sbuffer_init(arguments);
    msgpack_packer_init(&packer, arguments, msgpack_sbuffer_write);
    msgpack_pack_array(&packer, count);
    return packer;
}

void pack_text(msgpack_packer *packer, const char *text)
{
    msgpack_pack_str_with_body(packer, text, strlen(text));
}

void pack_binary(msgpack_packer *packer, const char *text)
{
    msgpack_pack_bin_with_body(packer, text, strlen(text));
}

void pack_seconds(msgpack_packer *packer, const char *name, uint64_t ns)
{
    pack_text(packer, name);
    msgpack_pack_double(packer, (double)ns / 1e9);
}

const msgpack_object *map_at(const msgpack_object *map, const char *name)
{
    if (map->type != MSGPACK_OBJECT_MAP)
        return NULL;
    for (uint32_t i = 0; i < map->via.map.size; i++) {
        const msgpack_object *key = &map->via.map.ptr[i].key;
        if (key->type == MSGPACK_OBJECT_STR && key->via.str.size == strlen(name) &&
            memcmp(key->via.str.ptr, name, key->via.str.size) == 0)
            return &map->via.map.ptr[i].val;
    }
    return NULL;
}

void copy_text(char *to, size_t size, const msgpack_object *from)
{
    to[0] = '\0';
    if (from != NULL && from->type == MSGPACK_OBJECT_STR)
        snprintf(to, size, "%.*s", (int)from->via.str.size, from->via.str.ptr);
}

uint64_t number_of(const msgpack_object *object)
{
    return object != NULL && object->type == MSGPACK_OBJECT_POSITIVE_INTEGER ? object->via.u64 : 0;
}

bool bool_of(const msgpack_object *object)
{
    return object->type == MSGPACK_OBJECT_BOOLEAN && object->via.boolean;
}

/* --- The session ----------------------------------------------------------------------------------- */

static void caller_forget_session(struct caller *caller)
{
    caller->pipe = NULL;
    caller->received.size = 0;
    caller->is_stalled = false;
}

static void caller_take(struct caller *caller, const msgpack_object *message)
{
    if (message->type != MSGPACK_OBJECT_ARRAY || message->via.array.size < 3)
        world_fail("%s: a message that is neither response nor notification", caller->name);
    caller->on_message(caller->arg, message);
}

static void caller_read(struct caller *caller)
{
    char bytes[16384];
    size_t length, offset = 0, begin = 0;
    msgpack_unpacked unpacked;
    const struct pipe *pipe = caller->pipe;

    if (caller->is_stalled)
        return;
    while ((length = pipe_read(caller->pipe, bytes, sizeof(bytes))) > 0)
        msgpack_sbuffer_write(&caller->received, bytes, length);
    msgpack_unpacked_init(&unpacked);
    while (caller->pipe == pipe && caller->received.size > offset &&
           msgpack_unpack_next(&unpacked, caller->received.data, caller->received.size, &offset) ==
               MSGPACK_UNPACK_SUCCESS) {
        begin = offset;
        caller_take(caller, &unpacked.data);
    }
    msgpack_unpacked_destroy(&unpacked);
    if (caller->pipe != pipe)
        return; /* it has left */
    if (begin > 0)
        memmove(caller->received.data, caller->received.data + begin, caller->received.size - begin);
    caller->received.size -= begin;
}

static void caller_on_bytes(void *arg)
{
    caller_read(arg);
}

static void caller_on_end(void *arg)
{
    struct caller *caller = arg;
    uint64_t ended_ns = pipe_ended_ns(caller->pipe);

    trace("%s: its session has ended", caller->name);
    caller_forget_session(caller);
    caller->on_end(caller->arg, ended_ns);
}

bool caller_connect(struct caller *caller)
{
    const struct pipe_client callbacks = {caller_on_bytes, caller_on_end, caller};

    if (caller->pipe == NULL && host_is_running(caller->host)) {
        caller->pipe = pipe_new(&callbacks);
        host_connect(caller->host, caller->pipe);
    }
    return caller->pipe != NULL;
}

bool caller_is_connected(const struct caller *caller)
{
    return caller->pipe != NULL;
}

void caller_leave(struct caller *caller)
{
    if (caller->pipe == NULL)
        return;
    trace("%s leaves", caller->name);
    pipe_leave(caller->pipe);
    caller_forget_session(caller);
}

static void caller_read_again(void *arg)
{
    struct caller *caller = arg;

    if (!caller->is_stalled)
        return;
    caller->is_stalled = false;
    caller_read(caller);
}

void caller_stall(struct caller *caller, uint64_t ns)
{
    trace("%s stops reading", caller->name);
    caller->is_stalled = true;
    world_after(ns, caller_read_again, caller);
}

uint32_t caller_send(struct caller *caller, const char *method, msgpack_sbuffer *arguments)
{
    msgpack_sbuffer buffer;
    msgpack_packer packer;

    msgpack_sbuffer_init(&buffer);
    msgpack_packer_init(&packer, &buffer, msgpack_sbuffer_write);
    msgpack_pack_array(&packer, 4);
    msgpack_pack_uint8(&packer, 0);
    msgpack_pack_uint32(&packer, ++caller->msgids);
    pack_text(&packer, method);
    msgpack_sbuffer_write(&buffer, arguments->data, arguments->size);
    pipe_write(caller->pipe, buffer.data, buffer.size);
    msgpack_sbuffer_destroy(&buffer);
    msgpack_sbuffer_destroy(arguments);
    return caller->msgids;
}

void caller_free(struct caller *caller)
{
    msgpack_sbuffer_destroy(&caller->received);
}
