/*
 * usergroup: users and groups, given by name or by number.
 *
 * Used by access and server for what the configuration says.
 */
#ifndef DAEMON_USERGROUP_H
#define DAEMON_USERGROUP_H

#include <stdbool.h>

/* Return false if there is none. A number need not belong to a user or group. 4294967295 is refused: for chown(2) it
 * means "unchanged". */
bool usergroup_find_user(const char *name, unsigned *id);
bool usergroup_find_group(const char *name, unsigned *id);

#endif
