/*
 * suites: every suite of unit tests, one file NAME_test.c each, for main.c to run.
 * The tests run at the root of the tree, as tests/run does it.
 */
#ifndef UNIT_SUITES_H
#define UNIT_SUITES_H

#include "tests/support/selection.h"

#include <check.h>

Suite *access_suite(void);
Suite *backlog_suite(void);
Suite *busy_poll_suite(void);
Suite *cache_suite(void);
Suite *cache_model_suite(void);
Suite *turns_suite(void);
Suite *bulk_window_suite(void);
Suite *conf_suite(void);
Suite *credentials_suite(void);
Suite *decode_suite(void);
Suite *error_suite(void);
Suite *consumer_pull_suite(void);
Suite *fair_queue_suite(void);
Suite *filter_suite(void);
Suite *frame_suite(void);
Suite *growth_suite(void);
Suite *hash_suite(void);
Suite *jetstream_suite(void);
Suite *heap_suite(void);
Suite *jobs_suite(void);
Suite *inherited_outcome_suite(void);
Suite *journal_suite(void);
Suite *json_suite(void);
Suite *ledger_suite(void);
Suite *metrics_suite(void);
Suite *min_revision_suite(void);
Suite *remains_suite(void);
Suite *reply_budget_suite(void);
Suite *reply_table_suite(void);
Suite *room_gauge_suite(void);
Suite *rpc_suite(void);
Suite *stream_suite(void);
Suite *wire_suite(void);
Suite *kv_suite(void);
Suite *support_suite(void);
Suite *timers_suite(void);
Suite *key_order_suite(void);
Suite *key_page_suite(void);
Suite *outcome_suite(void);

#endif
