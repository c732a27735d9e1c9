/*
 * redact: removes from a text what clients must not see.
 *
 * Used if an error of the NATS server, of its library or of the system becomes a message to a client. The daemon's log,
 * or the server's, has the whole text.
 */
#ifndef DAEMON_REDACT_H
#define DAEMON_REDACT_H

#include <stddef.h>

/*
 * Copy the text, cut to bytes, with "(path)" for each absolute path of a file ("open /data/…: no such file"). The '/'
 * of a URL, of a fraction and of a key within a subject is none.
 */
void redact_paths(char *copy, size_t bytes, const char *text);

#endif
