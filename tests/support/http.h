/*
 * http: a small HTTP client, and the addresses that it connects to.
 */
#ifndef SUPPORT_HTTP_H
#define SUPPORT_HTTP_H

#include <stdbool.h>

struct http_answer {
    unsigned status;    /* such as 200; 0: the connection ended without an answer */
    const char *header; /* kept until the test ends */
    const char *body;
};

/* Connect to "ADDRESS:PORT" or "unix:/PATH". Return the socket, or -1 if nobody listens. */
int http_connect(const char *address);

/* Send all of a text, for as long as the peer takes it. */
void http_send(int socket, const char *text);

/* Read to the end of the connection. The test fails if it does not come. Closes the socket. */
struct http_answer http_receive(int socket);

/* Wait until the peer has ended the connection, whatever it sends before. Closes the socket. */
void http_expect_end(int socket);

/* Discard what the peer has sent, and return whether it has ended the connection. */
bool http_has_ended(int socket);

/* Send a request for the path, with more lines of the header, each with its end, or "". */
struct http_answer http_get(const char *address, const char *path, const char *header);

#endif
