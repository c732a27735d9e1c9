/*
 * decode: the objects of a MessagePack value.
 *
 * Used by rpc on values that frame_scan has accepted. The objects are those of msgpack-c's unpacker, except that an
 * empty str has a pointer that is not NULL. Decoding takes a third of the unpacker's time, because the value is whole.
 */
#ifndef PROTO_DECODE_H
#define PROTO_DECODE_H

#include <msgpack.h>
#include <stddef.h>

enum decode_result { DECODE_DONE, DECODE_MALFORMED, DECODE_NO_MEMORY };

/*
 * Decode the one value that bytes hold. Strings point into bytes, containers live in zone. MALFORMED also if bytes are
 * missing, if bytes follow the value, or if containers are nested deeper than FRAME_DEPTH_MAX.
 */
enum decode_result decode_value(const char *bytes, size_t size, msgpack_zone *zone, msgpack_object *object);

#endif
