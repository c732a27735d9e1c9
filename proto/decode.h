/*
 * decode: builds the objects of a MessagePack value.
 *
 * Used by rpc on values that frame_scan has let through. The objects are msgpack-c's, and the same that its unpacker
 * makes of such a value, but that an empty str has a pointer too. It does so in a third of the time, because it need
 * not stop in the middle of a value to go on when more bytes come.
 */
#ifndef PROTO_DECODE_H
#define PROTO_DECODE_H

#include <msgpack.h>
#include <stddef.h>

enum decode_result { DECODE_DONE, DECODE_MALFORMED, DECODE_NO_MEMORY };

/*
 * Decodes the one value that bytes are. Strings point into bytes, containers live in zone. MALFORMED also where there
 * are bytes too few or too many, or containers deeper than FRAME_DEPTH_MAX.
 */
enum decode_result decode_value(const char *bytes, size_t size, msgpack_zone *zone, msgpack_object *object);

#endif
