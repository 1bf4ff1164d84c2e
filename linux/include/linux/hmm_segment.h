/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Segments of private interconnects.
 *
 * A segment is a set of devices each of which reaches the private memory of all
 * others, over an interconnect of their own. It is what &dev_pagemap.owner
 * stands for: pagemaps in one segment have the same owner, and no other pagemap
 * has it. Where links are not all-to-all, see linux/hmm_peers.h.
 */
#ifndef _LINUX_HMM_SEGMENT_H
#define _LINUX_HMM_SEGMENT_H

struct dev_pagemap;
struct hmm_segment;

struct hmm_segment *hmm_segment_create(void);
struct hmm_segment *hmm_segment_get(struct hmm_segment *segment);
void hmm_segment_put(struct hmm_segment *segment);
int hmm_segment_join(struct hmm_segment *segment, struct dev_pagemap *pgmap);
int hmm_segment_leave(struct dev_pagemap *pgmap);

/**
 * hmm_segment_owner() - the owner that the pagemaps of a segment have
 * @segment: the segment
 *
 * For &hmm_range.dev_private_owner and &migrate_vma.pgmap_owner. Whoever keeps it
 * keeps a reference on @segment: it is not given to another segment before the
 * last reference has gone.
 *
 * Return: the owner.
 */
static inline void *hmm_segment_owner(struct hmm_segment *segment)
{
	return segment;
}

#endif /* _LINUX_HMM_SEGMENT_H */
