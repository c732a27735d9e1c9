/*
 * names: users and groups, given by name or by number.
 *
 * Used by access and server for what the configuration says.
 */
#ifndef DAEMON_NAMES_H
#define DAEMON_NAMES_H

#include <stdbool.h>

/* False: there is none. A number need not belong to anybody; 4294967295 is nobody's (chown(2) takes it for 'as it
 * was'). */
bool names_find_user(const char *name, unsigned *id);
bool names_find_group(const char *name, unsigned *id);

#endif
