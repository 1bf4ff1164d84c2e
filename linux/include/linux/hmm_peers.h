/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Private links between devices, seen from one end.
 *
 * An importer with links to other devices keeps a set of those pagemaps that it
 * reaches over them. hmm_range_fault() gives it the pages of these as they are,
 * like its own. Links need not be symmetric nor transitive, and come and go.
 */
#ifndef _LINUX_HMM_PEERS_H
#define _LINUX_HMM_PEERS_H

#include <linux/list.h>
#include <linux/memremap.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>

struct device;
struct hmm_peers_array;
struct mm_struct;

/**
 * struct hmm_peers - the pagemaps that an importer reaches over private links
 *
 * One for each importing device. All of it is private to the functions here.
 */
struct hmm_peers {
	/* private: */
	struct mutex removing; /* for all of hmm_peers_remove(); taken first */
	struct mutex lock; /* serializes changes */
	struct hmm_peers_array __rcu *array;
	struct list_head users;
	struct device *dev;
	struct list_head link;
};

/**
 * struct hmm_peers_user - a process whose memory an importer reaches
 *
 * What &hmm_range.peers points to. All of it is private to the functions here.
 */
struct hmm_peers_user {
	/* private: */
	struct hmm_peers *peers;
	struct mm_struct *mm;
	struct list_head link; /* of one user of each process */
	struct list_head same_mm; /* and of the others */
};

/* private: */
struct hmm_peers_array {
	struct rcu_head rcu;
	unsigned int nr;
	struct dev_pagemap *pgmap[] __counted_by(nr);
};

void hmm_peers_init(struct hmm_peers *peers, struct device *dev);
void hmm_peers_fini(struct hmm_peers *peers);
int hmm_peers_add(struct hmm_peers *peers, struct dev_pagemap *pgmap);
void hmm_peers_remove(struct hmm_peers *peers, struct dev_pagemap *pgmap);

void hmm_peers_attach(struct hmm_peers *peers, struct hmm_peers_user *user,
		      struct mm_struct *mm);
void hmm_peers_detach(struct hmm_peers_user *user);

bool hmm_peers_linked(const struct device *dev, const struct dev_pagemap *pgmap);

/* Migration of memory of devices asks, too, without anybody who has peers */
#ifdef CONFIG_HMM_MIRROR
bool hmm_peers_have(const struct hmm_peers *peers,
		    const struct dev_pagemap *pgmap);
#else
static inline bool hmm_peers_have(const struct hmm_peers *peers,
				  const struct dev_pagemap *pgmap)
{
	return false;
}
#endif

/**
 * hmm_reaches_privately() - can pages be used as they are, without an alias?
 * @owner: whose pages can be; as &hmm_range.dev_private_owner
 * @peers: and which others can be; may be NULL
 * @pgmap: the pagemap of the pages
 *
 * Context: Any. The answer holds as long as an HMM entry that was resolved at
 * the same time.
 * Return: true if they can.
 */
static inline bool hmm_reaches_privately(const void *owner,
					 const struct hmm_peers *peers,
					 const struct dev_pagemap *pgmap)
{
	return pgmap->owner == owner || (peers && hmm_peers_have(peers, pgmap));
}

#endif /* _LINUX_HMM_PEERS_H */
