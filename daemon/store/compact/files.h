/*
 * files: determines on a worker thread which markers of a chunk must be retained.
 *
 * Used by compact, in embedded mode: see remains.
 */
#ifndef DAEMON_STORE_COMPACT_FILES_H
#define DAEMON_STORE_COMPACT_FILES_H

#include "daemon/store/compact/chunk.h"
#include "daemon/store/context.h"

struct compact_files;

/*
 * Look through the files of a stream of the embedded server, and set is_retained of each marker. done is called once,
 * from the loop. The chunk must live until then, or until compact_files_forget. NULL: out of memory.
 */
struct compact_files *compact_files_start(struct store *store, const char *stream, struct compact_chunk *chunk,
                                          void (*done)(void *arg), void *arg);

/* done is no longer called. The look ends soon, and frees itself. */
void compact_files_forget(struct compact_files *files);

#endif
