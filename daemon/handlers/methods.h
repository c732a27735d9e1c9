/*
 * methods: the handlers, one function per method, one file per family.
 *
 * Dispatch calls a handler with a call whose number of arguments, option names, bucket name and access are checked. A
 * handler checks the types and ranges of the arguments, starts the store's work in the call's arena and answers the
 * call exactly once, now or later.
 */
#ifndef DAEMON_HANDLERS_METHODS_H
#define DAEMON_HANDLERS_METHODS_H

#include "daemon/handlers/service.h"
#include "proto/methods.h"

/* A handler for each row of METHODS: handle_kv_get is that of kv.get. */
#define METHODS_DECLARE(family, verb, ...) void handle_##family##_##verb(struct call *call);
METHODS(METHODS_DECLARE)
#undef METHODS_DECLARE

/* For dispatcher_init, with a struct service as context. */
extern const struct dispatcher_ops methods_ops;

#endif
