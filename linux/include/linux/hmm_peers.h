/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The set of pagemaps that an importer reaches over private links.
 *
 * An importer with links to other devices keeps a set of those pagemaps that it
 * reaches over them. hmm_range_fault() gives it the pages of these as they are,
 * like its own. Links need not be symmetric nor transitive, and come and go.
 */
#ifndef _LINUX_HMM_PEERS_H
#define _LINUX_HMM_PEERS_H

#include <linux/memremap.h>
#include <linux/xarray.h>

/**
 * struct hmm_peers - the pagemaps that an importer reaches over private links
 *
 * One for each importing device. All of it is private to the functions here.
 */
struct hmm_peers {
	/* private: */
	struct xarray pgmaps; /* by their addresses */
};

void hmm_peers_init(struct hmm_peers *peers);
void hmm_peers_fini(struct hmm_peers *peers);
int hmm_peers_add(struct hmm_peers *peers, struct dev_pagemap *pgmap);
void hmm_peers_remove(struct hmm_peers *peers, struct dev_pagemap *pgmap);

/* migrate_device.c calls this too, and is also built without HMM_MIRROR. */
#ifdef CONFIG_HMM_MIRROR
bool hmm_peers_contain(const struct hmm_peers *peers,
		       const struct dev_pagemap *pgmap);
#else
static inline bool hmm_peers_contain(const struct hmm_peers *peers,
				     const struct dev_pagemap *pgmap)
{
	return false;
}
#endif

/**
 * hmm_reaches_privately() - can pages be used as they are, without an alias?
 * @owner: owner of the pagemaps that the importer reaches, as in
 *	&hmm_range.dev_private_owner
 * @peers: more pagemaps that it reaches; may be NULL
 * @pgmap: the pagemap of the pages
 *
 * Context: Any. In a page table walk, the answer holds as long as the entry that
 * it is for. During a migration, a lock of the driver has to keep its links.
 * Return: true if they can.
 */
static inline bool hmm_reaches_privately(const void *owner,
					 const struct hmm_peers *peers,
					 const struct dev_pagemap *pgmap)
{
	return pgmap->owner == owner ||
	       (peers && hmm_peers_contain(peers, pgmap));
}

#endif /* _LINUX_HMM_PEERS_H */
