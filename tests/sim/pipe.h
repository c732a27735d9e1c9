/*
 * pipe: a client's connection to a daemon: what libuv's streams and socket.h give to a session, and the client's end.
 *
 * Bytes take some time, come in pieces, and come in order. A pipe has room for some bytes that the client has not read.
 */
#ifndef SIM_PIPE_H
#define SIM_PIPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct pipe;

/* The callbacks of a client. */
struct pipe_client {
    void (*on_bytes)(void *arg); /* there is something to read: pipe_read */
    void (*on_end)(void *arg);   /* the daemon has closed it, and all was read */
    void *arg;
};

/* Make a pipe. Its descriptor goes to session_accept. It lives until the world ends. */
struct pipe *pipe_new(const struct pipe_client *client);
int pipe_descriptor(const struct pipe *pipe);

/* --- For the client -------------------------------------------------------------------------------- */

void pipe_write(struct pipe *pipe, const void *bytes, size_t size);

/* Read up to size bytes of what has come. Return their number. */
size_t pipe_read(struct pipe *pipe, void *bytes, size_t size);

/* Return when the daemon has closed its end; 0: it has not. */
uint64_t pipe_ended_ns(const struct pipe *pipe);

/* The client has gone. */
void pipe_leave(struct pipe *pipe);

/* Nobody accepts it: the client finds it closed. */
void pipe_refuse(struct pipe *pipe);

/* --- For loop, and at the world's end -------------------------------------------------------------- */

void pipe_close(uv_pipe_t *handle);
void pipe_finish_closing(uv_pipe_t *handle); /* before the close callback: what waits is cancelled */
void pipe_forget_all(void);

/* The daemon was killed: its ends of its pipes are closed. */
void pipe_break_all(const uv_loop_t *uv);

#endif
