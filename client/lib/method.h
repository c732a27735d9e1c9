/* method: what the library must know of a method beyond its name. */
#ifndef CLIENT_METHOD_H
#define CLIENT_METHOD_H

#include <stdbool.h>

/*
 * Whether a method writes nothing, so that a failed call has no outcome to be unsure of. False for a method that the
 * library does not know.
 */
bool method_only_reads(const char *method);

#endif
