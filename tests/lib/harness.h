/* SPDX-License-Identifier: GPL-2.0 */
/* The kernel's test harness, with time limits for slow machines. */
#ifndef LIB_HARNESS_H
#define LIB_HARNESS_H

#include "kselftest_harness.h"

#include "patience.h"

/* The limit fits a busy machine without virtualisation: a test that reaches it hangs. */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	120

/* Scale the timeouts of all tests. */
#define test_harness_run(argc, argv)	(scale_timeouts(), test_harness_run(argc, argv))
#define scale_timeouts() ({						\
	struct __fixture_metadata *_f;					\
	struct __test_metadata *_t;					\
									\
	for (_f = __fixture_list; _f; _f = _f->next)			\
		for (_t = _f->tests; _t; _t = _t->next)			\
			_t->timeout *= slowness();			\
})

/* Run the tests of a fixture with small pages, and again with huge ones. */
#define FIXTURE_VARIANTS_BY_ADVICE(fixture)				\
FIXTURE_VARIANT(fixture) {						\
	int advice;							\
};									\
FIXTURE_VARIANT_ADD(fixture, pages) {					\
	.advice = MADV_NOHUGEPAGE,					\
};									\
FIXTURE_VARIANT_ADD(fixture, huge) {					\
	.advice = MADV_HUGEPAGE,					\
}

#endif
