/*
 * denial: the NATS server's errors about permissions.
 *
 * Used by connection. Nothing is sent or kept here.
 */
#ifndef DAEMON_NATS_DENIAL_H
#define DAEMON_NATS_DENIAL_H

#include <stdbool.h>

/* A subject, with what the API's prefix and a bucket add. */
#define DENIAL_SUBJECT_BYTES 2048u

enum denial_kind { DENIAL_PUBLISH, DENIAL_SUBSCRIPTION };

/*
 * Parse "Permissions Violation for Publish to "subject"", or "for Subscription to …". The server quotes the subject as
 * Go quotes strings; ours have no characters that this would change. Return false if text is another error.
 */
bool denial_parse(const char *text, enum denial_kind *kind, char subject[DENIAL_SUBJECT_BYTES]);

#endif
