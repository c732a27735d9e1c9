#include "daemon/base/usergroup.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

static bool usergroup_parse_number(const char *text, unsigned *number)
{
    char *end;

    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || text[0] == '-' || value >= UINT32_MAX)
        return false;
    *number = (unsigned)value;
    return true;
}

bool usergroup_find_user(const char *name, unsigned *id)
{
    if (usergroup_parse_number(name, id))
        return true;
    struct passwd *user = getpwnam(name);
    if (user != NULL)
        *id = user->pw_uid;
    return user != NULL;
}

bool usergroup_find_group(const char *name, unsigned *id)
{
    if (usergroup_parse_number(name, id))
        return true;
    struct group *group = getgrnam(name);
    if (group != NULL)
        *id = group->gr_gid;
    return group != NULL;
}
