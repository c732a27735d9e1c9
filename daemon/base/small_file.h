/*
 * small_file: the whole of a file that fits into a buffer, such as those of /proc.
 *
 * Used by process_name, and for files about the embedded server.
 */
#ifndef DAEMON_SMALL_FILE_H
#define DAEMON_SMALL_FILE_H

#include <stddef.h>

/*
 * Read up to size - 1 bytes, and terminate them. flags are further ones for open(2). Return the number of bytes; 0 if
 * the file cannot be opened or read, too.
 */
size_t small_file_read(const char *path, int flags, char *text, size_t size);

#endif
