/*
 * suites: every suite of integration tests, one file NAME_test.c each, for main.c to run.
 * They run at the root of the tree, with the programs of the same build beside them.
 */
#ifndef INTEGRATION_SUITES_H
#define INTEGRATION_SUITES_H

#include "tests/support/selection.h"

#include <check.h>

Suite *access_suite(void);
Suite *argument_suite(void);
Suite *bucket_list_suite(void);
Suite *bucket_suite(void);
Suite *bulk_suite(void);
Suite *cached_read_suite(void);
Suite *call_cancel_suite(void);
Suite *compact_leave_suite(void);
Suite *compact_suite(void);
Suite *config_suite(void);
Suite *delete_matching_suite(void);
Suite *embedded_suite(void);
Suite *entries_suite(void);
Suite *ephemeral_suite(void);
Suite *external_suite(void);
Suite *foreign_suite(void);
Suite *dump_suite(void);
Suite *health_suite(void);
Suite *idle_suite(void);
Suite *increment_suite(void);
Suite *keys_suite(void);
Suite *kv_suite(void);
Suite *library_fault_suite(void);
Suite *library_suite(void);
Suite *libuv_suite(void);
Suite *life_suite(void);
Suite *limit_suite(void);
Suite *lock_library_suite(void);
Suite *lock_suite(void);
Suite *memory_suite(void);
Suite *metrics_suite(void);
Suite *endpoint_suite(void);
Suite *neighbour_suite(void);
Suite *outage_suite(void);
Suite *overload_suite(void);
Suite *pause_suite(void);
Suite *previous_suite(void);
Suite *renewal_suite(void);
Suite *repeat_suite(void);
Suite *room_suite(void);
Suite *session_suite(void);
Suite *sessions_suite(void);
Suite *slow_call_suite(void);
Suite *snapshot_suite(void);
Suite *tls_suite(void);
Suite *ttl_suite(void);
Suite *txn_suite(void);
Suite *waiting_get_suite(void);
Suite *watch_library_suite(void);
Suite *watch_limit_suite(void);
Suite *watch_loss_suite(void);
Suite *watch_scale_suite(void);
Suite *watch_suite(void);

#endif
