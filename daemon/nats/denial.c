#include "daemon/nats/denial.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

bool denial_parse(const char *text, enum denial_kind *kind, char subject[DENIAL_SUBJECT_BYTES])
{
    static const char *const beginnings[] = {[DENIAL_PUBLISH] = "Permissions Violation for Publish to \"",
                                             [DENIAL_SUBSCRIPTION] = "Permissions Violation for Subscription to \""};

    for (unsigned i = 0; i < sizeof(beginnings) / sizeof(beginnings[0]); i++) {
        size_t length = strlen(beginnings[i]);
        if (strncasecmp(text, beginnings[i], length) != 0)
            continue;
        *kind = (enum denial_kind)i;
        snprintf(subject, DENIAL_SUBJECT_BYTES, "%.*s", (int)strcspn(text + length, "\""), text + length);
        return true;
    }
    return false;
}
