/*
 * request_text: requests in words, for errors, the log and daemon.dump.
 *
 * Used by request, requests and the handler of daemon.dump.
 */
#ifndef DAEMON_NATS_REQUEST_TEXT_H
#define DAEMON_NATS_REQUEST_TEXT_H

#include "daemon/nats/requests.h"

#define REQUEST_TEXT_BYTES 512

/* Describe the state that the request has entered, for the log. */
void request_text_transition(const struct request *request, char text[REQUEST_TEXT_BYTES]);

/* Set the error with which a request fails that has ended at its deadline. */
void request_text_set_error(const struct request *request, struct error *error);

const char *request_state_text(enum request_state state);

struct request_info request_text_info(const struct request *request);

#endif
