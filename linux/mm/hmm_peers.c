// SPDX-License-Identifier: GPL-2.0
/*
 * The set of pagemaps that an importer reaches over private links.
 *
 * A page table walk looks a pagemap up under RCU only. It may see an old state
 * of the set: the importer uses the result only if no invalidation has happened
 * since, and hmm_peers_remove() invalidates after it has changed the set.
 */
#include <linux/export.h>
#include <linux/hmm_peers.h>

#include "hmm_internal.h"

/**
 * hmm_peers_init() - make an empty set
 * @peers: the set
 *
 * Context: Any.
 */
void hmm_peers_init(struct hmm_peers *peers)
{
	xa_init(&peers->pgmaps);
}
EXPORT_SYMBOL_GPL(hmm_peers_init);

/**
 * hmm_peers_fini() - undo hmm_peers_init()
 * @peers: the set, no longer in use
 *
 * Context: Any.
 */
void hmm_peers_fini(struct hmm_peers *peers)
{
	xa_destroy(&peers->pgmaps);
}
EXPORT_SYMBOL_GPL(hmm_peers_fini);

/**
 * hmm_peers_add() - a link has come up
 * @peers: the set of the device at this end
 * @pgmap: the pagemap of the device at the other end
 *
 * From here on the importer gets pages of @pgmap as they are. Entries that it
 * holds already, such as aliases, stay valid.
 *
 * Context: May sleep. @pgmap is in use for as long as it is in the set.
 * Return: 0 on success; -EBUSY if @pgmap is in the set already; -EINVAL if it
 * has more than one range; -ENOMEM.
 */
int hmm_peers_add(struct hmm_peers *peers, struct dev_pagemap *pgmap)
{
	if (pgmap->nr_range != 1)
		return -EINVAL;

	return xa_insert(&peers->pgmaps, (unsigned long)pgmap, pgmap, GFP_KERNEL);
}
EXPORT_SYMBOL_GPL(hmm_peers_add);

/**
 * hmm_peers_remove() - a link has gone down
 * @peers: the set of the device at this end
 * @pgmap: the pagemap of the device at the other end; it is fine if it is not
 *	in the set
 *
 * When this returns, the importer neither uses any page of @pgmap over the
 * link, nor gets one. To that end the pages of @pgmap that are in use are
 * invalidated in all processes that map them. They stay where they are.
 *
 * Both ends call this when they go away, before the pagemap does.
 *
 * Context: As hmm_window_revoke(). Calls for the same link are serialized.
 */
void hmm_peers_remove(struct hmm_peers *peers, struct dev_pagemap *pgmap)
{
	might_sleep();

	if (!xa_erase(&peers->pgmaps, (unsigned long)pgmap))
		return;

	synchronize_rcu();
	hmm_invalidate_private(pgmap, range_len(&pgmap->range) >> PAGE_SHIFT);
}
EXPORT_SYMBOL_GPL(hmm_peers_remove);

/**
 * hmm_peers_contain() - is a pagemap in the set?
 * @peers: the set
 * @pgmap: the pagemap of a page that is referenced or was found in a page table
 *
 * Context: Any. See hmm_peers_remove() for how long the answer holds.
 * Return: true if it is.
 */
bool hmm_peers_contain(const struct hmm_peers *peers,
		       const struct dev_pagemap *pgmap)
{
	return xa_load((struct xarray *)&peers->pgmaps, (unsigned long)pgmap);
}
EXPORT_SYMBOL_GPL(hmm_peers_contain);
