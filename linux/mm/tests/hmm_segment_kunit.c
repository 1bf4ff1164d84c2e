// SPDX-License-Identifier: GPL-2.0
/*
 * Who may use whose device-private memory as it is: segments, in which all
 * members may, and links between two devices.
 */
#include <kunit/test.h>
#include <linux/hmm.h>
#include <linux/hmm_peers.h>
#include <linux/hmm_segment.h>
#include <linux/ioport.h>
#include <linux/kthread.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/sizes.h>

static void test_segments_have_owners_of_their_own(struct kunit *test)
{
	struct hmm_segment *segments[16];
	int i, j;

	for (i = 0; i < ARRAY_SIZE(segments); i++) {
		segments[i] = hmm_segment_create();
		KUNIT_ASSERT_NOT_NULL(test, segments[i]);
		for (j = 0; j < i; j++)
			KUNIT_EXPECT_PTR_NE(test, hmm_segment_owner(segments[i]),
					    hmm_segment_owner(segments[j]));
	}

	while (i--)
		hmm_segment_put(segments[i]);
}

static void test_members_have_the_owner(struct kunit *test)
{
	struct dev_pagemap a = {}, b = {}, c = {};
	struct hmm_segment *one = hmm_segment_create();
	struct hmm_segment *two = hmm_segment_create();

	KUNIT_ASSERT_NOT_NULL(test, one);
	KUNIT_ASSERT_NOT_NULL(test, two);

	KUNIT_EXPECT_EQ(test, 0, hmm_segment_join(one, &a));
	KUNIT_EXPECT_EQ(test, 0, hmm_segment_join(one, &b));
	KUNIT_EXPECT_EQ(test, 0, hmm_segment_join(two, &c));
	KUNIT_EXPECT_PTR_EQ(test, a.owner, hmm_segment_owner(one));
	KUNIT_EXPECT_PTR_EQ(test, a.owner, b.owner);
	KUNIT_EXPECT_PTR_NE(test, a.owner, c.owner);

	/* Twice is as good as once, and to join is to leave */
	KUNIT_EXPECT_EQ(test, 0, hmm_segment_join(one, &a));
	KUNIT_EXPECT_EQ(test, 0, hmm_segment_join(two, &b));
	KUNIT_EXPECT_PTR_EQ(test, b.owner, c.owner);

	/* Alone, and so that nobody matches by accident */
	KUNIT_EXPECT_EQ(test, 0, hmm_segment_leave(&b));
	KUNIT_EXPECT_NOT_NULL(test, b.owner);
	KUNIT_EXPECT_PTR_NE(test, b.owner, c.owner);
	KUNIT_EXPECT_EQ(test, 0, hmm_segment_leave(&b));

	KUNIT_EXPECT_EQ(test, 0, hmm_segment_leave(&a));
	KUNIT_EXPECT_EQ(test, 0, hmm_segment_leave(&c));
	hmm_segment_put(one);
	hmm_segment_put(two);
}

/* A member has a reference: its owner is not given to anybody else. */
static void test_owner_is_not_reused_while_in_use(struct kunit *test)
{
	struct hmm_segment *segment = hmm_segment_create();
	struct dev_pagemap pgmap = {};
	int i;

	KUNIT_ASSERT_NOT_NULL(test, segment);
	KUNIT_ASSERT_EQ(test, 0, hmm_segment_join(segment, &pgmap));
	hmm_segment_put(segment);

	for (i = 0; i < 1000; i++) {
		segment = hmm_segment_create();
		KUNIT_ASSERT_NOT_NULL(test, segment);
		KUNIT_EXPECT_PTR_NE(test, pgmap.owner, hmm_segment_owner(segment));
		hmm_segment_put(segment);
	}

	KUNIT_EXPECT_EQ(test, 0, hmm_segment_leave(&pgmap));
}

static void private_folio_free(struct folio *folio)
{
}

static vm_fault_t private_migrate_to_ram(struct vm_fault *vmf)
{
	return VM_FAULT_SIGBUS;
}

static const struct dev_pagemap_ops private_ops = {
	.folio_free	= private_folio_free,
	.migrate_to_ram	= private_migrate_to_ram,
};

static void test_no_change_once_a_page_is_out(struct kunit *test)
{
	struct hmm_segment *one = hmm_segment_create();
	struct hmm_segment *two = hmm_segment_create();
	struct dev_pagemap *pgmap;
	struct resource *res;
	struct page *page;

	KUNIT_ASSERT_NOT_NULL(test, one);
	KUNIT_ASSERT_NOT_NULL(test, two);
	pgmap = kunit_kzalloc(test, sizeof(*pgmap), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, pgmap);
	res = request_free_mem_region(&iomem_resource, SZ_128M, "hmm_segment_kunit");
	KUNIT_ASSERT_FALSE(test, IS_ERR(res));

	pgmap->type = MEMORY_DEVICE_PRIVATE;
	pgmap->range.start = res->start;
	pgmap->range.end = res->end;
	pgmap->nr_range = 1;
	pgmap->ops = &private_ops;
	KUNIT_EXPECT_EQ(test, 0, hmm_segment_join(one, pgmap));
	KUNIT_ASSERT_FALSE(test, IS_ERR(memremap_pages(pgmap, NUMA_NO_NODE)));

	/* Pages exist, but nobody has one */
	KUNIT_EXPECT_EQ(test, 0, hmm_segment_join(two, pgmap));

	page = pfn_to_page(PHYS_PFN(res->start));
	zone_device_page_init(page, pgmap, 0);
	folio_unlock(page_folio(page));
	KUNIT_EXPECT_EQ(test, -EBUSY, hmm_segment_join(one, pgmap));
	KUNIT_EXPECT_EQ(test, -EBUSY, hmm_segment_leave(pgmap));
	KUNIT_EXPECT_EQ(test, 0, hmm_segment_join(two, pgmap));
	KUNIT_EXPECT_PTR_EQ(test, pgmap->owner, hmm_segment_owner(two));

	/* It has come back, but who knows where the owner was noted */
	put_page(page);
	KUNIT_EXPECT_EQ(test, -EBUSY, hmm_segment_join(one, pgmap));

	memunmap_pages(pgmap);
	release_mem_region(res->start, SZ_128M);
	KUNIT_EXPECT_EQ(test, 0, hmm_segment_join(one, pgmap));
	KUNIT_EXPECT_EQ(test, 0, hmm_segment_leave(pgmap));
	hmm_segment_put(one);
	hmm_segment_put(two);
}

static void test_peers_are_a_set(struct kunit *test)
{
	const int n = 11;
	struct dev_pagemap *pgmap = kunit_kcalloc(test, n, sizeof(*pgmap),
						  GFP_KERNEL);
	struct hmm_peers peers;
	int i, j;

	KUNIT_ASSERT_NOT_NULL(test, pgmap);
	hmm_peers_init(&peers, NULL);
	for (i = 0; i < n; i++) {
		KUNIT_EXPECT_FALSE(test, hmm_peers_have(&peers, &pgmap[i]));
		KUNIT_EXPECT_EQ(test, 0, hmm_peers_add(&peers, &pgmap[i]));
		KUNIT_EXPECT_EQ(test, -EEXIST, hmm_peers_add(&peers, &pgmap[i]));
		for (j = 0; j < n; j++)
			KUNIT_EXPECT_EQ(test, j <= i,
					hmm_peers_have(&peers, &pgmap[j]));
	}

	for (i = 0; i < n; i += 2)
		hmm_peers_remove(&peers, &pgmap[i]);
	hmm_peers_remove(&peers, &pgmap[0]);
	for (i = 0; i < n; i++)
		KUNIT_EXPECT_EQ(test, i % 2, hmm_peers_have(&peers, &pgmap[i]));

	for (i = 0; i < n; i += 2)
		KUNIT_EXPECT_EQ(test, 0, hmm_peers_add(&peers, &pgmap[i]));
	for (i = 0; i < n; i++)
		KUNIT_EXPECT_TRUE(test, hmm_peers_have(&peers, &pgmap[i]));

	hmm_peers_fini(&peers);
}

/* A reaches B and B reaches C: nothing follows for anybody else. */
static void test_links_are_neither_mutual_nor_transitive(struct kunit *test)
{
	struct dev_pagemap *a = kunit_kcalloc(test, 3, sizeof(*a), GFP_KERNEL);
	struct dev_pagemap *b = a + 1, *c = a + 2;
	struct hmm_peers of_a, of_b, of_c;

	KUNIT_ASSERT_NOT_NULL(test, a);
	a->owner = a;
	b->owner = b;
	c->owner = c;
	hmm_peers_init(&of_a, NULL);
	hmm_peers_init(&of_b, NULL);
	hmm_peers_init(&of_c, NULL);
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
	hmm_peers_fini(&of_a);
	hmm_peers_fini(&of_b);
	hmm_peers_fini(&of_c);
}

struct watch {
	struct mmu_interval_notifier notifier;
	int invalidations;
	enum mmu_notifier_event event;
	struct hmm_peers *peers;
	struct dev_pagemap *pgmap;
	bool still_there;
};

static bool watch_invalidate(struct mmu_interval_notifier *notifier,
			     const struct mmu_notifier_range *range,
			     unsigned long seq)
{
	struct watch *watch = container_of(notifier, struct watch, notifier);

	mmu_interval_set_seq(notifier, seq);
	watch->invalidations++;
	watch->event = range->event;
	watch->still_there |= hmm_peers_have(watch->peers, watch->pgmap);
	return true;
}

static const struct mmu_interval_notifier_ops watch_ops = {
	.invalidate = watch_invalidate,
};

static void test_removal_invalidates(struct kunit *test)
{
	static struct dev_pagemap pgmap, other; /* large, and only compared */
	struct hmm_peers_user user;
	struct hmm_peers peers;
	struct watch watch = { .peers = &peers, .pgmap = &pgmap };
	unsigned long seq;

	KUNIT_ASSERT_EQ(test, 0, kunit_attach_mm());
	hmm_peers_init(&peers, NULL);
	KUNIT_ASSERT_EQ(test, 0,
			mmu_interval_notifier_insert(&watch.notifier, current->mm,
						     PAGE_SIZE, PAGE_SIZE,
						     &watch_ops));
	hmm_peers_attach(&peers, &user, current->mm);
	KUNIT_EXPECT_EQ(test, 0, hmm_peers_add(&peers, &pgmap));
	KUNIT_EXPECT_EQ(test, 0, hmm_peers_add(&peers, &other));

	/* What a walk has resolved by now is not used any more afterwards */
	seq = mmu_interval_read_begin(&watch.notifier);
	KUNIT_EXPECT_FALSE(test, mmu_interval_read_retry(&watch.notifier, seq));
	KUNIT_EXPECT_EQ(test, 0, watch.invalidations);
	/* A process may keep its mmap lock for as long as it likes */
	mmap_write_lock(current->mm);
	hmm_peers_remove(&peers, &pgmap);
	mmap_write_unlock(current->mm);
	KUNIT_EXPECT_EQ(test, 1, watch.invalidations);
	KUNIT_EXPECT_EQ(test, (int)MMU_NOTIFY_UNLINK, (int)watch.event);
	KUNIT_EXPECT_FALSE(test, watch.still_there);
	KUNIT_EXPECT_TRUE(test, mmu_interval_read_retry(&watch.notifier, seq));

	/* Nothing changes, nobody is bothered */
	hmm_peers_remove(&peers, &pgmap);
	KUNIT_EXPECT_EQ(test, 1, watch.invalidations);

	hmm_peers_detach(&user);
	hmm_peers_remove(&peers, &other);
	KUNIT_EXPECT_EQ(test, 1, watch.invalidations);

	mmu_interval_notifier_remove(&watch.notifier);
	hmm_peers_fini(&peers);
}

/* A process that has a device open twice is invalidated once. */
static void test_removal_invalidates_a_process_once(struct kunit *test)
{
	struct dev_pagemap pgmap = {};
	struct hmm_peers_user users[3];
	struct hmm_peers peers;
	struct watch watch = { .peers = &peers, .pgmap = &pgmap };
	int i;

	KUNIT_ASSERT_EQ(test, 0, kunit_attach_mm());
	hmm_peers_init(&peers, NULL);
	KUNIT_ASSERT_EQ(test, 0,
			mmu_interval_notifier_insert(&watch.notifier, current->mm,
						     PAGE_SIZE, PAGE_SIZE,
						     &watch_ops));
	for (i = 0; i < ARRAY_SIZE(users); i++)
		hmm_peers_attach(&peers, &users[i], current->mm);

	/* In whichever order they go: the first one came first */
	for (i = 0; i < ARRAY_SIZE(users); i++) {
		KUNIT_EXPECT_EQ(test, 0, hmm_peers_add(&peers, &pgmap));
		hmm_peers_remove(&peers, &pgmap);
		KUNIT_EXPECT_EQ(test, i + 1, watch.invalidations);
		hmm_peers_detach(&users[i]);
	}

	KUNIT_EXPECT_EQ(test, 0, hmm_peers_add(&peers, &pgmap));
	hmm_peers_remove(&peers, &pgmap);
	KUNIT_EXPECT_EQ(test, ARRAY_SIZE(users), watch.invalidations);

	mmu_interval_notifier_remove(&watch.notifier);
	hmm_peers_fini(&peers);
}

/* Who is attached with one process is not told of links for another. */
static void test_walk_is_of_the_process_that_is_attached(struct kunit *test)
{
	struct hmm_peers_user user, stranger;
	struct hmm_peers peers;
	struct watch watch = { .peers = &peers };
	struct mm_struct *other;
	unsigned long pfn = 0;
	struct hmm_range range = {
		.notifier = &watch.notifier,
		.start = PAGE_SIZE,
		.end = 2 * PAGE_SIZE,
		.hmm_pfns = &pfn,
	};

	KUNIT_ASSERT_EQ(test, 0, kunit_attach_mm());
	other = kunit_kzalloc(test, sizeof(*other), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, other);
	atomic_set(&other->mm_count, 1);
	hmm_peers_init(&peers, NULL);
	KUNIT_ASSERT_EQ(test, 0,
			mmu_interval_notifier_insert(&watch.notifier, current->mm,
						     PAGE_SIZE, PAGE_SIZE,
						     &watch_ops));
	hmm_peers_attach(&peers, &user, current->mm);
	hmm_peers_attach(&peers, &stranger, other);
	range.notifier_seq = mmu_interval_read_begin(&watch.notifier);

	mmap_read_lock(current->mm);
	range.peers = &user;
	KUNIT_EXPECT_EQ(test, 0, hmm_range_fault(&range));
	range.peers = &stranger;
	KUNIT_EXPECT_EQ(test, -EINVAL, hmm_range_fault(&range));
	mmap_read_unlock(current->mm);

	hmm_peers_detach(&stranger);
	hmm_peers_detach(&user);
	mmu_interval_notifier_remove(&watch.notifier);
	hmm_peers_fini(&peers);
}

#define ROUNDS		2000
#define FLAPPING	6

struct flap {
	struct hmm_peers peers;
	struct dev_pagemap always, never, flapping[FLAPPING];
	atomic_t running;
	int errors;
};

static int flap_links(void *data)
{
	struct flap *flap = data;
	int i, err = 0;

	for (i = 0; i < ROUNDS; i++) {
		struct dev_pagemap *pgmap = &flap->flapping[i % FLAPPING];

		if (hmm_peers_have(&flap->peers, pgmap)) {
			hmm_peers_remove(&flap->peers, pgmap);
		} else {
			err = hmm_peers_add(&flap->peers, pgmap);
			if (err && err != -EEXIST)
				WRITE_ONCE(flap->errors, err);
		}
		cond_resched();
	}

	/* Whoever looks at this may go before the thread is gone */
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
	hmm_peers_init(&flap->peers, NULL);
	KUNIT_ASSERT_EQ(test, 0, hmm_peers_add(&flap->peers, &flap->always));

	atomic_set(&flap->running, ARRAY_SIZE(task));
	for (i = 0; i < ARRAY_SIZE(task); i++) {
		task[i] = kthread_run(flap_links, flap, "hmm_segment_kunit");
		KUNIT_EXPECT_FALSE(test, IS_ERR(task[i]));
		if (IS_ERR(task[i]))
			atomic_dec(&flap->running);
	}

	while (atomic_read(&flap->running)) {
		KUNIT_EXPECT_TRUE(test, hmm_peers_have(&flap->peers, &flap->always));
		KUNIT_EXPECT_FALSE(test, hmm_peers_have(&flap->peers, &flap->never));
		cond_resched();
	}
	for (i = 0; i < ARRAY_SIZE(task); i++)
		if (!IS_ERR(task[i]))
			kthread_stop(task[i]);
	KUNIT_EXPECT_EQ(test, 0, flap->errors);

	hmm_peers_fini(&flap->peers);
}

static struct kunit_case hmm_segment_cases[] = {
	KUNIT_CASE(test_segments_have_owners_of_their_own),
	KUNIT_CASE(test_members_have_the_owner),
	KUNIT_CASE(test_owner_is_not_reused_while_in_use),
	KUNIT_CASE(test_no_change_once_a_page_is_out),
	KUNIT_CASE(test_peers_are_a_set),
	KUNIT_CASE(test_links_are_neither_mutual_nor_transitive),
	KUNIT_CASE(test_removal_invalidates),
	KUNIT_CASE(test_removal_invalidates_a_process_once),
	KUNIT_CASE(test_walk_is_of_the_process_that_is_attached),
	KUNIT_CASE_SLOW(test_lookups_while_links_flap),
	{ }
};

static struct kunit_suite hmm_segment_suite = {
	.name = "hmm_segment",
	.test_cases = hmm_segment_cases,
};

kunit_test_suite(hmm_segment_suite);

MODULE_DESCRIPTION("KUnit tests for private links between devices");
MODULE_LICENSE("GPL");
