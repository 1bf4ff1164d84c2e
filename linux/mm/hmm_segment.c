// SPDX-License-Identifier: GPL-2.0
/*
 * Segments of private interconnects: who owns which pagemap, across drivers.
 */
#include <linux/export.h>
#include <linux/hmm_segment.h>
#include <linux/kref.h>
#include <linux/memremap.h>
#include <linux/slab.h>

/* Nothing but an address that nobody else has. */
struct hmm_segment {
	struct kref ref;
};

/**
 * hmm_segment_create() - make a segment, without members
 *
 * Context: May sleep.
 * Return: the segment with a reference, which the caller gives up with
 * hmm_segment_put(); NULL if out of memory.
 */
struct hmm_segment *hmm_segment_create(void)
{
	struct hmm_segment *segment = kzalloc_obj(*segment);

	if (segment)
		kref_init(&segment->ref);
	return segment;
}
EXPORT_SYMBOL_GPL(hmm_segment_create);

/**
 * hmm_segment_get() - take a reference
 * @segment: the segment, of which the caller has a reference
 *
 * Context: Any.
 * Return: @segment
 */
struct hmm_segment *hmm_segment_get(struct hmm_segment *segment)
{
	kref_get(&segment->ref);
	return segment;
}
EXPORT_SYMBOL_GPL(hmm_segment_get);

static void hmm_segment_release(struct kref *ref)
{
	kfree(container_of(ref, struct hmm_segment, ref));
}

/**
 * hmm_segment_put() - give up a reference
 * @segment: the segment; it is freed with the last one
 *
 * Each member has a reference of its own.
 *
 * Context: Any.
 */
void hmm_segment_put(struct hmm_segment *segment)
{
	kref_put(&segment->ref, hmm_segment_release);
}
EXPORT_SYMBOL_GPL(hmm_segment_put);

/**
 * hmm_segment_join() - make a pagemap a member of a segment
 * @segment: the segment
 * @pgmap: the pagemap, before or after memremap_pages(). It leaves the segment
 *	that it was in
 *
 * Nobody looks at the owner of a pagemap that has no pages in use. Page tables
 * say which pagemaps do, and from then on the owner stays what it is.
 *
 * Context: Any. The driver of @pgmap calls this, and makes sure that it does not
 * hand out a page at the same time, with zone_device_page_init().
 * Return: 0 on success; -EBUSY if @pgmap has handed out a page since
 * memremap_pages(): links that change later are for hmm_peers_add().
 */
int hmm_segment_join(struct hmm_segment *segment, struct dev_pagemap *pgmap)
{
	int err;

	if (pgmap->segment == segment)
		return 0;

	err = hmm_segment_leave(pgmap);
	if (err)
		return err;

	pgmap->segment = hmm_segment_get(segment);
	pgmap->owner = hmm_segment_owner(segment);
	return 0;
}
EXPORT_SYMBOL_GPL(hmm_segment_join);

/**
 * hmm_segment_leave() - take a pagemap out of its segment
 * @pgmap: the pagemap; it is fine if it is in none
 *
 * Its owner is @pgmap itself then, which nobody else has. A driver calls this at
 * the latest when it is done with @pgmap, after memunmap_pages().
 *
 * Context: As hmm_segment_join().
 * Return: 0 on success; -EBUSY if @pgmap has handed out a page, and
 * memunmap_pages() was not called since.
 */
int hmm_segment_leave(struct dev_pagemap *pgmap)
{
	if (READ_ONCE(pgmap->handed_out))
		return -EBUSY;

	if (pgmap->segment) {
		hmm_segment_put(pgmap->segment);
		pgmap->segment = NULL;
		pgmap->owner = pgmap;
	}

	return 0;
}
EXPORT_SYMBOL_GPL(hmm_segment_leave);
