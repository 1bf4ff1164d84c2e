// SPDX-License-Identifier: GPL-2.0
/*
 * Links between devices: sets of pagemaps, which change while they are in use.
 */
#include <kunit/test.h>
#include <linux/hmm.h>
#include <linux/hmm_peers.h>
#include <linux/kthread.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>

#include "hmm_kunit.h"

/* Pagemaps without pages */
static struct dev_pagemap *pagemaps(struct kunit *test, int n)
{
	struct dev_pagemap *pgmap = kunit_kcalloc(test, n, sizeof(*pgmap),
						  GFP_KERNEL);
	int i;

	KUNIT_ASSERT_NOT_NULL(test, pgmap);
	for (i = 0; i < n; i++) {
		pgmap[i].owner = &pgmap[i];
		pgmap[i].nr_range = 1;
	}
	return pgmap;
}

static void test_peers_add_remove_contain(struct kunit *test)
{
	const int n = 11;
	struct dev_pagemap *pgmap = pagemaps(test, n);
	struct hmm_peers peers;
	int i, j;

	hmm_peers_init(&peers);
	for (i = 0; i < n; i++) {
		KUNIT_EXPECT_FALSE(test, hmm_peers_contain(&peers, &pgmap[i]));
		KUNIT_EXPECT_EQ(test, 0, hmm_peers_add(&peers, &pgmap[i]));
		KUNIT_EXPECT_EQ(test, -EBUSY, hmm_peers_add(&peers, &pgmap[i]));
		for (j = 0; j < n; j++)
			KUNIT_EXPECT_EQ(test, j <= i,
					hmm_peers_contain(&peers, &pgmap[j]));
	}

	for (i = 0; i < n; i += 2)
		hmm_peers_remove(&peers, &pgmap[i]);
	hmm_peers_remove(&peers, &pgmap[0]);
	for (i = 0; i < n; i++)
		KUNIT_EXPECT_EQ(test, i % 2, hmm_peers_contain(&peers, &pgmap[i]));

	for (i = 0; i < n; i += 2)
		KUNIT_EXPECT_EQ(test, 0, hmm_peers_add(&peers, &pgmap[i]));
	for (i = 0; i < n; i++)
		KUNIT_EXPECT_TRUE(test, hmm_peers_contain(&peers, &pgmap[i]));

	/* Nobody would invalidate the second range */
	hmm_peers_remove(&peers, pgmap);
	pgmap->nr_range = 2;
	KUNIT_EXPECT_EQ(test, -EINVAL, hmm_peers_add(&peers, pgmap));
	KUNIT_EXPECT_FALSE(test, hmm_peers_contain(&peers, pgmap));

	hmm_peers_fini(&peers);
}

/* From two links, A to B and B to C, no other one follows. */
static void test_links_are_neither_mutual_nor_transitive(struct kunit *test)
{
	struct dev_pagemap *a = pagemaps(test, 3), *b = a + 1, *c = a + 2;
	struct hmm_peers of_a, of_b, of_c;

	hmm_peers_init(&of_a);
	hmm_peers_init(&of_b);
	hmm_peers_init(&of_c);
	KUNIT_EXPECT_EQ(test, 0, hmm_peers_add(&of_a, b));
	KUNIT_EXPECT_EQ(test, 0, hmm_peers_add(&of_b, c));

	KUNIT_EXPECT_TRUE(test, hmm_reaches_privately(a, &of_a, a));
	KUNIT_EXPECT_TRUE(test, hmm_reaches_privately(a, &of_a, b));
	KUNIT_EXPECT_FALSE(test, hmm_reaches_privately(a, &of_a, c));
	KUNIT_EXPECT_FALSE(test, hmm_reaches_privately(b, &of_b, a));
	KUNIT_EXPECT_TRUE(test, hmm_reaches_privately(b, &of_b, c));
	KUNIT_EXPECT_FALSE(test, hmm_reaches_privately(c, &of_c, b));
	KUNIT_EXPECT_FALSE(test, hmm_reaches_privately(a, NULL, b));

	hmm_peers_remove(&of_a, b);
	hmm_peers_remove(&of_b, c);
	KUNIT_EXPECT_FALSE(test, hmm_reaches_privately(a, &of_a, b));
	KUNIT_EXPECT_FALSE(test, hmm_reaches_privately(b, &of_b, c));
	hmm_peers_fini(&of_a);
	hmm_peers_fini(&of_b);
	hmm_peers_fini(&of_c);
}

static bool is_in_the_set(struct hmm_kunit *hk)
{
	return hmm_peers_contain(hk->data, &hk->pgmap);
}

static void test_peers_remove_invalidates_pages(struct kunit *test)
{
	struct hmm_kunit *hk = hmm_kunit_alloc(test);
	struct dev_pagemap *other = pagemaps(test, 1);
	struct hmm_peers peers;
	struct hmm_range range = { .peers = &peers };

	hmm_peers_init(&peers);
	hk->reachable = is_in_the_set;
	hk->data = &peers;
	hmm_kunit_start(test, hk);
	KUNIT_EXPECT_EQ(test, 0, hmm_peers_add(&peers, other));
	hmm_kunit_expect_private(test, hk, &range, false);

	KUNIT_EXPECT_EQ(test, 0, hmm_peers_add(&peers, &hk->pgmap));
	hmm_kunit_expect_private(test, hk, &range, true);
	KUNIT_EXPECT_EQ(test, 0, hk->invalidations);

	/* A process may keep its mmap lock for any time */
	mmap_write_lock(current->mm);
	hmm_peers_remove(&peers, &hk->pgmap);
	mmap_write_unlock(current->mm);
	KUNIT_EXPECT_EQ(test, HMM_KUNIT_PAGES, hk->invalidations);
	KUNIT_EXPECT_EQ(test, BIT(HMM_KUNIT_PAGES) - 1, hk->invalidated);
	KUNIT_EXPECT_EQ(test, (int)MMU_NOTIFY_REVOKE, (int)hk->event);
	KUNIT_EXPECT_FALSE(test, hk->was_reachable);
	KUNIT_EXPECT_TRUE(test, mmu_interval_read_retry(&hk->notifier,
							range.notifier_seq));
	hmm_kunit_expect_private(test, hk, &range, false);

	/* No page changes */
	hmm_peers_remove(&peers, &hk->pgmap);
	hmm_peers_remove(&peers, other);
	KUNIT_EXPECT_EQ(test, HMM_KUNIT_PAGES, hk->invalidations);

	/* The pages are still there */
	KUNIT_EXPECT_EQ(test, 0, hmm_peers_add(&peers, &hk->pgmap));
	hmm_kunit_expect_private(test, hk, &range, true);
	KUNIT_EXPECT_EQ(test, HMM_KUNIT_PAGES, hk->invalidations);
	hmm_peers_remove(&peers, &hk->pgmap);
	KUNIT_EXPECT_EQ(test, 2 * HMM_KUNIT_PAGES, hk->invalidations);
	KUNIT_EXPECT_EQ(test, 0, hk->migrations);

	hmm_kunit_exit();
	hmm_peers_fini(&peers);
}

/* About half of the rounds wait for an RCU grace period */
#define ROUNDS		100
#define FLAPPING	6

struct flap {
	struct hmm_peers peers;
	struct dev_pagemap *always, *never, *flapping;
	atomic_t running;
	int error;
};

static int flap_links(void *data)
{
	struct flap *flap = data;
	int i, err;

	for (i = 0; i < ROUNDS; i++) {
		struct dev_pagemap *pgmap = &flap->flapping[i % FLAPPING];

		if (hmm_peers_contain(&flap->peers, pgmap)) {
			hmm_peers_remove(&flap->peers, pgmap);
		} else {
			err = hmm_peers_add(&flap->peers, pgmap);
			if (err && err != -EBUSY)
				WRITE_ONCE(flap->error, err);
		}
		cond_resched();
	}

	/* kthread_stop() is for threads that still run */
	atomic_dec(&flap->running);
	while (!kthread_should_stop())
		schedule_timeout_interruptible(1);
	return 0;
}

static void test_lookups_while_links_flap(struct kunit *test)
{
	struct flap *flap = kunit_kzalloc(test, sizeof(*flap), GFP_KERNEL);
	struct task_struct *task[3];
	int i;

	KUNIT_ASSERT_NOT_NULL(test, flap);
	flap->always = pagemaps(test, 1);
	flap->never = pagemaps(test, 1);
	flap->flapping = pagemaps(test, FLAPPING);
	hmm_peers_init(&flap->peers);
	KUNIT_ASSERT_EQ(test, 0, hmm_peers_add(&flap->peers, flap->always));

	atomic_set(&flap->running, ARRAY_SIZE(task));
	for (i = 0; i < ARRAY_SIZE(task); i++) {
		task[i] = kthread_run(flap_links, flap, "hmm_peers_kunit");
		KUNIT_EXPECT_FALSE(test, IS_ERR(task[i]));
		if (IS_ERR(task[i]))
			atomic_dec(&flap->running);
	}

	while (atomic_read(&flap->running)) {
		KUNIT_EXPECT_TRUE(test, hmm_peers_contain(&flap->peers,
							  flap->always));
		KUNIT_EXPECT_FALSE(test, hmm_peers_contain(&flap->peers,
							   flap->never));
		cond_resched();
	}
	for (i = 0; i < ARRAY_SIZE(task); i++)
		if (!IS_ERR(task[i]))
			kthread_stop(task[i]);
	KUNIT_EXPECT_EQ(test, 0, flap->error);

	hmm_peers_fini(&flap->peers);
}

static struct kunit_case hmm_peers_cases[] = {
	KUNIT_CASE(test_peers_add_remove_contain),
	KUNIT_CASE(test_links_are_neither_mutual_nor_transitive),
	KUNIT_CASE(test_peers_remove_invalidates_pages),
	KUNIT_CASE_SLOW(test_lookups_while_links_flap),
	{ }
};

static struct kunit_suite hmm_peers_suite = {
	.name = "hmm_peers",
	.test_cases = hmm_peers_cases,
};

kunit_test_suite(hmm_peers_suite);

MODULE_DESCRIPTION("KUnit tests for private links between devices");
MODULE_LICENSE("GPL");
