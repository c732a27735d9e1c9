/*
 * secrets: what a login at a NATS server needs, in memory. It is settings of the section nats, and the contents of the
 * files that they name.
 *
 * Used by dialer and credentials. The contents stay valid if a file is replaced or removed, so a connection can be made
 * with the secrets of an earlier one.
 */
#ifndef DAEMON_NATS_SECRETS_H
#define DAEMON_NATS_SECRETS_H

#include "conf/conf.h"

#include <stdbool.h>
#include <stddef.h>

/* The files come first. */
enum secrets_member {
    SECRETS_CREDENTIALS,
    SECRETS_NKEY_SEED,
    SECRETS_CA,
    SECRETS_CERTIFICATE,
    SECRETS_KEY,
    SECRETS_FILES,

    SECRETS_USER = SECRETS_FILES,
    SECRETS_PASSWORD,
    SECRETS_TOKEN,
    SECRETS_SERVER_NAME,
    SECRETS_MEMBERS
};

/* A file may have this many bytes. */
#define SECRETS_FILE_BYTES_MAX ((size_t)4 * 1024 * 1024)

/* Zeroed: none. */
struct secrets {
    bool wants_tls;                  /* the section nats.tls is present */
    char *settings[SECRETS_MEMBERS]; /* of a file its path; NULL: not set */
    struct secrets_file {
        char *bytes; /* with a NUL after them; NULL: not read */
        size_t length;
        int descriptor; /* of secrets_open_file, if is_open */
        bool is_open;
    } files[SECRETS_FILES];
};

/* Copy the settings; the files are not read. Return false if memory ran out; secrets_clear is needed even then. */
bool secrets_copy_settings(struct secrets *secrets, const struct conf *conf);

/* Copy settings and contents into zeroed secrets. Return false as above. */
bool secrets_copy(struct secrets *secrets, const struct secrets *from);

/* Read the files. This may block. Return false with a sentence that names the setting and the file. */
bool secrets_read_files(struct secrets *secrets, char *error, size_t error_bytes);

bool secrets_are_equal(const struct secrets *a, const struct secrets *b);

/* Return a path at which the library can read the content until secrets_close_files. NULL: the system refuses. */
#define SECRETS_PATH_BYTES 32
const char *secrets_open_file(struct secrets *secrets, enum secrets_member file, char path[SECRETS_PATH_BYTES]);

void secrets_close_files(struct secrets *secrets);

/* Close, erase and free everything. */
void secrets_clear(struct secrets *secrets);

#endif
