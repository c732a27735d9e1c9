#include "daemon/nats/secrets.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const file_settings[SECRETS_FILES] = {[SECRETS_CREDENTIALS] = "nats.credentials",
                                                         [SECRETS_NKEY_SEED] = "nats.nkey_seed",
                                                         [SECRETS_CA] = "nats.tls.ca",
                                                         [SECRETS_CERTIFICATE] = "nats.tls.certificate",
                                                         [SECRETS_KEY] = "nats.tls.key"};

static bool copy_text(char **copy, const char *text)
{
    *copy = text != NULL ? strdup(text) : NULL;
    return text == NULL || *copy != NULL;
}

bool secrets_copy_settings(struct secrets *secrets, const struct conf *conf)
{
    const char *const settings[SECRETS_MEMBERS] = {[SECRETS_CREDENTIALS] = conf->nats.credentials,
                                                   [SECRETS_NKEY_SEED] = conf->nats.nkey_seed,
                                                   [SECRETS_CA] = conf->nats.tls.ca,
                                                   [SECRETS_CERTIFICATE] = conf->nats.tls.certificate,
                                                   [SECRETS_KEY] = conf->nats.tls.key,
                                                   [SECRETS_USER] = conf->nats.user,
                                                   [SECRETS_PASSWORD] = conf->nats.password,
                                                   [SECRETS_TOKEN] = conf->nats.token,
                                                   [SECRETS_SERVER_NAME] = conf->nats.tls.server_name};
    bool is_complete = true;

    *secrets = (struct secrets){.wants_tls = conf->nats.tls.enabled};
    for (size_t i = 0; i < SECRETS_MEMBERS; i++)
        is_complete = copy_text(&secrets->settings[i], settings[i]) && is_complete;
    return is_complete;
}

static bool copy_content(struct secrets_file *file, const struct secrets_file *from)
{
    if (from->bytes == NULL)
        return true;
    file->bytes = malloc(from->length + 1);
    if (file->bytes == NULL)
        return false;
    memcpy(file->bytes, from->bytes, from->length + 1);
    file->length = from->length;
    return true;
}

bool secrets_copy(struct secrets *secrets, const struct secrets *from)
{
    bool is_complete = true;

    *secrets = (struct secrets){.wants_tls = from->wants_tls};
    for (size_t i = 0; i < SECRETS_MEMBERS; i++)
        is_complete = copy_text(&secrets->settings[i], from->settings[i]) && is_complete;
    for (size_t i = 0; i < SECRETS_FILES; i++)
        is_complete = copy_content(&secrets->files[i], &from->files[i]) && is_complete;
    return is_complete;
}

/* Read a whole file into a block that has room for one more byte than it may have. Return NULL, or what is wrong. */
static const char *read_content(struct secrets_file *file, const char *path)
{
    struct stat status;
    const char *wrong = NULL;
    FILE *stream = fopen(path, "re");

    if (stream == NULL)
        return strerror(errno);
    setvbuf(stream, NULL, _IONBF, 0); /* no copy of a secret stays in a buffer */
    size_t size = fstat(fileno(stream), &status) == 0 && S_ISREG(status.st_mode) ? (size_t)status.st_size : 65536;
    if (size > SECRETS_FILE_BYTES_MAX)
        wrong = "it is larger than 4 MiB";
    else if ((file->bytes = calloc(1, size + 2)) == NULL)
        wrong = "out of memory";
    else if ((file->length = fread(file->bytes, 1, size + 1, stream)) > size)
        wrong = "it is being written, or too large for a file that is not a regular one";
    else if (ferror(stream))
        wrong = strerror(errno);
    else if (file->length == 0)
        wrong = "it is empty";
    fclose(stream);
    return wrong;
}

bool secrets_read_files(struct secrets *secrets, char *error, size_t error_bytes)
{
    for (size_t i = 0; i < SECRETS_FILES; i++) {
        const char *path = secrets->settings[i];
        const char *wrong = path != NULL ? read_content(&secrets->files[i], path) : NULL;

        if (wrong != NULL) {
            snprintf(error, error_bytes, "%s %s: %s", file_settings[i], path, wrong);
            return false;
        }
    }
    return true;
}

static bool is_same_text(const char *a, const char *b)
{
    return a == NULL || b == NULL ? a == b : strcmp(a, b) == 0;
}

/* A file that was moved and has the same content is the same secret. */
bool secrets_are_equal(const struct secrets *a, const struct secrets *b)
{
    for (size_t i = 0; i < SECRETS_FILES; i++) {
        if (a->files[i].length != b->files[i].length || (a->files[i].bytes == NULL) != (b->files[i].bytes == NULL) ||
            (a->files[i].bytes != NULL && memcmp(a->files[i].bytes, b->files[i].bytes, a->files[i].length) != 0))
            return false;
    }
    for (size_t i = SECRETS_FILES; i < SECRETS_MEMBERS; i++) {
        if (!is_same_text(a->settings[i], b->settings[i]))
            return false;
    }
    return a->wants_tls == b->wants_tls;
}

static bool write_all(int descriptor, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t written = write(descriptor, bytes, length);
        if (written <= 0)
            return false;
        bytes += written;
        length -= (size_t)written;
    }
    return true;
}

/*
 * The library reads a certificate with its intermediate ones only from a file: its function for memory takes the first
 * one alone (up to 3.14). So the content gets a file without a name.
 */
const char *secrets_open_file(struct secrets *secrets, enum secrets_member member, char path[SECRETS_PATH_BYTES])
{
    struct secrets_file *file = &secrets->files[member];

    if (!file->is_open) {
        file->descriptor = memfd_create("kvstored-secret", MFD_CLOEXEC);
        if (file->descriptor < 0)
            return NULL;
        file->is_open = true;
        if (!write_all(file->descriptor, file->bytes, file->length))
            return NULL;
    }
    snprintf(path, SECRETS_PATH_BYTES, "/proc/self/fd/%d", file->descriptor);
    return path;
}

void secrets_close_files(struct secrets *secrets)
{
    for (size_t i = 0; i < SECRETS_FILES; i++) {
        if (secrets->files[i].is_open)
            close(secrets->files[i].descriptor);
        secrets->files[i].is_open = false;
    }
}

void secrets_clear(struct secrets *secrets)
{
    secrets_close_files(secrets);
    for (size_t i = 0; i < SECRETS_MEMBERS; i++) {
        if (secrets->settings[i] != NULL)
            OPENSSL_cleanse(secrets->settings[i], strlen(secrets->settings[i]));
        free(secrets->settings[i]);
    }
    for (size_t i = 0; i < SECRETS_FILES; i++) {
        struct secrets_file *file = &secrets->files[i];
        if (file->bytes != NULL)
            OPENSSL_cleanse(file->bytes, file->length);
        free(file->bytes);
    }
    *secrets = (struct secrets){0};
}
