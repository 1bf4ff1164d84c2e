// SPDX-License-Identifier: GPL-2.0
/*
 * Private links between devices, seen from one end: which pagemaps an importer
 * reaches.
 *
 * A page table walk looks a pagemap up with nothing but RCU. It is allowed to see
 * the set as it was: what it resolves is used only after it has been found, under
 * the lock that the importer's notifier takes, that no invalidation has come in
 * between, and hmm_peers_remove() invalidates after it has changed the set.
 */
#include <linux/export.h>
#include <linux/hmm_peers.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>

#include "internal.h"

/* All sets, for those who want to show them. */
static LIST_HEAD(hmm_peers_list);
static DEFINE_MUTEX(hmm_peers_list_lock);

/**
 * hmm_peers_init() - make an empty set
 * @peers: the set
 * @dev: the device whose links they are
 *
 * Context: May sleep.
 */
void hmm_peers_init(struct hmm_peers *peers, struct device *dev)
{
	mutex_init(&peers->removing);
	mutex_init(&peers->lock);
	RCU_INIT_POINTER(peers->array, NULL);
	INIT_LIST_HEAD(&peers->users);
	peers->dev = dev;

	guard(mutex)(&hmm_peers_list_lock);
	list_add(&peers->link, &hmm_peers_list);
}
EXPORT_SYMBOL_GPL(hmm_peers_init);

/**
 * hmm_peers_fini() - undo hmm_peers_init()
 * @peers: the set, without users
 *
 * Context: May sleep.
 */
void hmm_peers_fini(struct hmm_peers *peers)
{
	scoped_guard(mutex, &hmm_peers_list_lock)
		list_del(&peers->link);

	WARN_ON(!list_empty(&peers->users));
	kfree(rcu_dereference_protected(peers->array, true));
	mutex_destroy(&peers->lock);
	mutex_destroy(&peers->removing);
}
EXPORT_SYMBOL_GPL(hmm_peers_fini);

static struct hmm_peers_array *peers_array(struct hmm_peers *peers)
{
	return rcu_dereference_protected(peers->array,
					 lockdep_is_held(&peers->lock));
}

static struct dev_pagemap **peers_find(struct hmm_peers_array *array,
				       struct dev_pagemap *pgmap)
{
	unsigned int i;

	for (i = 0; array && i < array->nr; i++)
		if (array->pgmap[i] == pgmap)
			return &array->pgmap[i];

	return NULL;
}

/**
 * hmm_peers_add() - a link has come up
 * @peers: the set of the device at this end
 * @pgmap: the pagemap of the device at the other end
 *
 * From here on the importer gets pages of @pgmap as they are. What it holds
 * already, aliases for instance, stays valid.
 *
 * Context: May sleep. Holds no mmap lock. @pgmap is in use for as long as it is in
 * the set.
 * Return: 0 on success; -EEXIST if @pgmap is in the set already; -ENOMEM.
 */
int hmm_peers_add(struct hmm_peers *peers, struct dev_pagemap *pgmap)
{
	struct hmm_peers_array *array, *grown;
	struct dev_pagemap **slot;
	unsigned int nr;

	guard(mutex)(&peers->lock);

	array = peers_array(peers);
	if (peers_find(array, pgmap))
		return -EEXIST;

	slot = peers_find(array, NULL);
	if (slot) {
		WRITE_ONCE(*slot, pgmap);
		return 0;
	}

	nr = array ? array->nr : 0;
	grown = kzalloc_flex(*grown, pgmap, nr + 4);
	if (!grown)
		return -ENOMEM;

	grown->nr = nr + 4;
	if (array)
		memcpy(grown->pgmap, array->pgmap, flex_array_size(array, pgmap, nr));
	grown->pgmap[nr] = pgmap;
	rcu_assign_pointer(peers->array, grown);
	if (array)
		kfree_rcu(array, rcu);
	return 0;
}
EXPORT_SYMBOL_GPL(hmm_peers_add);

/**
 * hmm_peers_remove() - a link has gone down
 * @peers: the set of the device at this end
 * @pgmap: the pagemap of the device at the other end; it is fine if it is not in
 *	the set
 *
 * When this returns the importer neither uses any page of @pgmap over the link,
 * nor gets one. To that end all that it holds of its processes' memory is
 * invalidated, as MMU_NOTIFY_UNLINK.
 *
 * Both ends call this when they go away, before the pagemap does.
 *
 * Context: May sleep. All interval notifiers of these processes are called, so that
 * the caller holds no lock which is taken by one. Some wait until a device has done
 * what a process has asked for. Others attach and detach meanwhile.
 */
void hmm_peers_remove(struct hmm_peers *peers, struct dev_pagemap *pgmap)
{
	struct hmm_peers_user cursor = {};
	struct dev_pagemap **slot;
	struct mm_struct *mm;

	/* Who finds nothing to remove returns after who has found it */
	guard(mutex)(&peers->removing);

	scoped_guard(mutex, &peers->lock) {
		slot = peers_find(peers_array(peers), pgmap);
		if (!slot)
			return;

		WRITE_ONCE(*slot, NULL);
		if (list_empty(&peers->users))
			return;

		/* Users attached from here on come before it: they get no such page */
		list_add(&cursor.link, &peers->users);
	}

	/* Who has seen it in the set has a notifier that is found below */
	synchronize_rcu();

	mutex_lock(&peers->lock);
	while (!list_is_last(&cursor.link, &peers->users)) {
		mm = list_next_entry(&cursor, link)->mm;
		list_move(&cursor.link, cursor.link.next);
		mmgrab(mm);
		mutex_unlock(&peers->lock);

		mmu_interval_notifier_invalidate_all(mm);
		mmdrop(mm);

		mutex_lock(&peers->lock);
	}
	list_del(&cursor.link);
	mutex_unlock(&peers->lock);
}
EXPORT_SYMBOL_GPL(hmm_peers_remove);

/**
 * hmm_peers_attach() - begin to reach the memory of a process
 * @peers: the set
 * @user: what &hmm_range.peers is going to point to
 * @mm: the process
 *
 * Context: May sleep. Holds no mmap lock, nor a lock that an interval notifier takes.
 */
void hmm_peers_attach(struct hmm_peers *peers, struct hmm_peers_user *user,
		      struct mm_struct *mm)
{
	struct hmm_peers_user *first;

	guard(mutex)(&peers->lock);

	user->peers = peers;
	user->mm = mm;
	mmgrab(mm);
	INIT_LIST_HEAD(&user->link);

	/* Each process is invalidated once, however often it is attached */
	list_for_each_entry(first, &peers->users, link) {
		if (first->mm == mm) {
			list_add(&user->same_mm, &first->same_mm);
			return;
		}
	}

	INIT_LIST_HEAD(&user->same_mm);
	list_add(&user->link, &peers->users);
}
EXPORT_SYMBOL_GPL(hmm_peers_attach);

/**
 * hmm_peers_detach() - undo hmm_peers_attach()
 * @user: the user; nothing that was resolved with it is in use
 *
 * Context: As hmm_peers_attach().
 */
void hmm_peers_detach(struct hmm_peers_user *user)
{
	guard(mutex)(&user->peers->lock);

	if (!list_empty(&user->link) && !list_empty(&user->same_mm))
		list_replace_init(&user->link,
				  &list_next_entry(user, same_mm)->link);
	list_del(&user->link);
	list_del(&user->same_mm);
	mmdrop(user->mm);
}
EXPORT_SYMBOL_GPL(hmm_peers_detach);

/**
 * hmm_peers_have() - is a pagemap in the set?
 * @peers: the set
 * @pgmap: the pagemap, of a page that somebody holds or has found in a page table
 *
 * Context: Any. See hmm_peers_remove() for how long the answer holds.
 * Return: true if it is.
 */
bool hmm_peers_have(const struct hmm_peers *peers,
		    const struct dev_pagemap *pgmap)
{
	const struct hmm_peers_array *array;
	unsigned int i;

	guard(rcu)();

	array = rcu_dereference(peers->array);
	for (i = 0; array && i < array->nr; i++)
		if (READ_ONCE(array->pgmap[i]) == pgmap)
			return true;

	return false;
}
EXPORT_SYMBOL_GPL(hmm_peers_have);

/**
 * hmm_peers_linked() - has a device a private link to a pagemap?
 * @dev: the device, as given to hmm_peers_init()
 * @pgmap: the pagemap
 *
 * For people, not for decisions.
 *
 * Context: May sleep.
 * Return: true if it has one now.
 */
bool hmm_peers_linked(const struct device *dev, const struct dev_pagemap *pgmap)
{
	struct hmm_peers *peers;

	guard(mutex)(&hmm_peers_list_lock);

	list_for_each_entry(peers, &hmm_peers_list, link)
		if (peers->dev == dev && hmm_peers_have(peers, pgmap))
			return true;

	return false;
}
