/*
 * suites: one per file of tests.
 */
#ifndef FAULT_SUITES_H
#define FAULT_SUITES_H

#include "tests/support/selection.h"

#include <check.h>

Suite *bank_suite(void);
Suite *bulk_fault_suite(void);
Suite *entries_fault_suite(void);
Suite *cached_read_fault_suite(void);
Suite *compact_fault_suite(void);
Suite *doubt_suite(void);
Suite *exactly_once_suite(void);
Suite *group_suite(void);
Suite *increment_fault_suite(void);
Suite *linear_suite(void);
Suite *lease_suite(void);
Suite *lock_death_suite(void);
Suite *locks_suite(void);
Suite *partition_suite(void);
Suite *reading_fault_suite(void);
Suite *restart_suite(void);
Suite *set_back_suite(void);
Suite *transaction_suite(void);
Suite *ttl_fault_suite(void);
Suite *watch_fault_suite(void);

#endif
