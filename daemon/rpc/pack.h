/*
 * pack: texts and members of maps, packed into an answer.
 *
 * Used by the handlers.
 */
#ifndef DAEMON_RPC_PACK_H
#define DAEMON_RPC_PACK_H

#include <msgpack.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* Pack a constant text, or one that was checked: it must be UTF-8. */
static inline void pack_str(msgpack_packer *packer, const char *text)
{
    msgpack_pack_str_with_body(packer, text, strlen(text));
}

/* Pack a text that another client of NATS has written: a str if it is UTF-8, otherwise a bin. */
void pack_foreign_text(msgpack_packer *packer, const char *text);

/* Pack a member of a map: its name and its value. */
void pack_named_integer(msgpack_packer *packer, const char *name, int64_t number);
void pack_named_unsigned(msgpack_packer *packer, const char *name, uint64_t number);
void pack_named_str(msgpack_packer *packer, const char *name, const char *text);
void pack_named_bool(msgpack_packer *packer, const char *name, bool flag);

#endif
