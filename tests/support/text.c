#include "tests/support/text.h"

#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Linked, so that nothing of it counts as leaked: the process ends with the test. */
struct kept {
    struct kept *next;
    void *block;
};
static struct kept *all_kept;
static pthread_mutex_t kept_lock = PTHREAD_MUTEX_INITIALIZER;

void *keep(void *block)
{
    struct kept *kept = malloc(sizeof(*kept));

    ck_assert_ptr_nonnull(block);
    ck_assert_ptr_nonnull(kept);
    pthread_mutex_lock(&kept_lock);
    *kept = (struct kept){all_kept, block};
    all_kept = kept;
    pthread_mutex_unlock(&kept_lock);
    return block;
}

char *format_text(const char *format, ...)
{
    char *text = NULL;
    va_list args;

    va_start(args, format);
    int length = vasprintf(&text, format, args);
    va_end(args);
    ck_assert_int_ge(length, 0);
    return keep(text);
}

void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "we");

    ck_assert_msg(file != NULL, "%s: %s", path, strerror(errno));
    fputs(text, file);
    ck_assert_int_eq(fclose(file), 0);
}

void write_program(const char *path, const char *text)
{
    write_file(path, text);
    ck_assert_int_eq(chmod(path, 0755), 0);
}

char *read_file(const char *path)
{
    FILE *file = fopen(path, "re"), *text;
    char block[4096], *whole = NULL;
    size_t size = 0, length;

    text = open_memstream(&whole, &size);
    while (file != NULL && (length = fread(block, 1, sizeof(block), file)) > 0)
        fwrite(block, 1, length, text);
    if (file != NULL)
        fclose(file);
    fclose(text);
    return keep(whole);
}
