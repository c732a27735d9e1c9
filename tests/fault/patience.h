/*
 * patience: how long the tests of the faults wait. Only a fault runs into any of these limits.
 *
 * A test never waits for a time to pass: it waits for an event or a state, and these limits end the wait when that
 * does not come. They are so long that a machine that is busy with something else stays far below them.
 */
#ifndef FAULT_PATIENCE_H
#define FAULT_PATIENCE_H

#include "tests/support/process.h"

/* Of a call of the daemon that names no timeout: calls.timeout in the daemon's configuration. */
#define CALL_SECONDS 120u

/* Of a wait in a test: longer than a call, so that the call's error is seen. */
#undef PATIENCE_MS
#define PATIENCE_MS 200000u

/* Of a whole test: longer than a wait, so that the wait says what did not come. */
#define TEST_SECONDS "900"

#endif
