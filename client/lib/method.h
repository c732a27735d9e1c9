/* method: what the library must know of a method beyond its name. */
#ifndef CLIENT_METHOD_H
#define CLIENT_METHOD_H

#include <stdbool.h>

/*
 * Whether a method writes nothing, so that a failed call has no outcome to be unsure of. False for a method that the
 * library does not know.
 */
bool method_only_reads(const char *method);

/* Return whether a call of it takes an id, so that it can be repeated after its session was lost. */
bool method_takes_id(const char *method);

/* Return whether it is about the session in which it is called, so that it has no meaning in another one. */
bool method_is_of_session(const char *method);

#endif
