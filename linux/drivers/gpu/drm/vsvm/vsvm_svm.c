// SPDX-License-Identifier: GPL-2.0
/*
 * Shared virtual memory: the GPU's view of a process.
 *
 * An operation walks its range as a GPU does. It "faults" on each piece that
 * has no valid GPU mapping: it migrates the piece to VRAM if possible, and maps
 * it. The engines run under the notifier lock, one piece at a time, so an
 * invalidation waits for one piece at most.
 */
#include <linux/freezer.h>
#include <linux/hmm.h>
#include <linux/mmu_context.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>

#include <drm/drm_drv.h>
#include <drm/drm_file.h>
#include <uapi/drm/vsvm_drm.h>

#include "vsvm.h"

/* How often a fault is retried when the process changes its mappings. */
#define VSVM_FAULT_TRIES	16

/*
 * How many ranges without a mapping a file keeps. They are kept because the GPU
 * may soon use their memory again. A process can create any number of them.
 */
#define VSVM_MAX_IDLE		64

static const unsigned long vsvm_chunk_sizes[] = { SZ_2M, SZ_64K, SZ_4K };

#define VSVM_MAX_CHUNK		SZ_2M

struct vsvm_range {
	struct drm_gpusvm_range base;
	struct drm_gpusvm_pages pages;
	struct list_head link;	/* in &vsvm_file.ranges */
	struct list_head gone;	/* in &vsvm_file.unmapped, or in .idle */
	bool idle;
};

static struct vsvm_range *to_range(struct drm_gpusvm_range *range)
{
	return container_of(range, struct vsvm_range, base);
}

static struct vsvm_file *to_vfile(struct drm_gpusvm *svm)
{
	return container_of(svm, struct vsvm_file, svm);
}

static unsigned long range_npages(struct vsvm_range *range)
{
	return drm_gpusvm_range_size(&range->base) >> PAGE_SHIFT;
}

static struct drm_gpusvm_range *vsvm_range_alloc(struct drm_gpusvm *svm)
{
	struct vsvm_range *range = kzalloc_obj(*range, GFP_KERNEL_ACCOUNT);
	struct vsvm_file *vfile = to_vfile(svm);

	if (!range)
		return NULL;

	INIT_LIST_HEAD(&range->gone);
	drm_gpusvm_init_pages(&range->pages, &vfile->vdev->drm);

	INIT_LIST_HEAD(&range->link);
	spin_lock(&vfile->ranges_lock);
	range->pages.flags.unmapped = vfile->revoked;
	if (!vfile->revoked)
		list_add(&range->link, &vfile->ranges);
	spin_unlock(&vfile->ranges_lock);

	return &range->base;
}

static void range_unlist(struct vsvm_file *vfile, struct vsvm_range *range)
{
	lockdep_assert_held(&vfile->ranges_lock);

	list_del_init(&range->gone);
	vfile->nr_idle -= range->idle;
	range->idle = false;
}

static void vsvm_range_free(struct drm_gpusvm_range *base)
{
	struct vsvm_range *range = to_range(base);
	struct vsvm_file *vfile = to_vfile(base->gpusvm);

	drm_gpusvm_free_pages(base->gpusvm, &range->pages, range_npages(range));

	spin_lock(&vfile->ranges_lock);
	list_del(&range->link);
	range_unlist(vfile, range);
	spin_unlock(&vfile->ranges_lock);

	kfree(range);
}

static void range_list(struct vsvm_file *vfile, struct vsvm_range *range,
		       bool unmapped)
{
	guard(spinlock)(&vfile->ranges_lock);

	if (unmapped) {
		range_unlist(vfile, range);
		list_add_tail(&range->gone, &vfile->unmapped);
	} else if (list_empty(&range->gone)) {
		list_add_tail(&range->gone, &vfile->idle);
		range->idle = true;
		vfile->nr_idle++;
	}
}

static void vsvm_invalidate(struct drm_gpusvm *svm,
			    struct drm_gpusvm_notifier *notifier,
			    const struct mmu_notifier_range *mmu_range)
{
	bool unmapped = mmu_range->event == MMU_NOTIFY_UNMAP;
	struct drm_gpusvm_ctx ctx = { .in_notifier = true };
	struct drm_gpusvm_range *base = NULL;
	unsigned long start, end;

	/* A GPU keeps the mappings of its own VRAM */
	if (mmu_range->event == MMU_NOTIFY_REVOKE &&
	    mmu_range->owner == &to_vfile(svm)->vdev->pgmap)
		return;

	start = max(drm_gpusvm_notifier_start(notifier), mmu_range->start);
	end = min(drm_gpusvm_notifier_end(notifier), mmu_range->end);

	drm_gpusvm_for_each_range(base, notifier, start, end) {
		struct vsvm_range *range = to_range(base);

		drm_gpusvm_unmap_pages(svm, &range->pages, range_npages(range),
				       &ctx);
		if (unmapped)
			drm_gpusvm_range_set_unmapped(base, &range->pages, 1,
						      mmu_range);
		range_list(to_vfile(svm), range, unmapped);
	}
}

static const struct drm_gpusvm_ops vsvm_svm_ops = {
	.range_alloc	= vsvm_range_alloc,
	.range_free	= vsvm_range_free,
	.invalidate	= vsvm_invalidate,
	.invalidate_is_atomic = true,
};

/**
 * vsvm_svm_init() - set up the GPU's view of the current process
 * @vfile: the file
 *
 * Return: 0, or a negative errno.
 */
int vsvm_svm_init(struct vsvm_file *vfile)
{
	int err;

	err = drm_gpusvm_init(&vfile->svm, "vsvm", current->mm, 0, TASK_SIZE,
			      SZ_512M, &vsvm_svm_ops, vsvm_chunk_sizes,
			      ARRAY_SIZE(vsvm_chunk_sizes));
	if (err)
		return err;

	drm_gpusvm_driver_set_lock(&vfile->svm, &vfile->lock);
	return 0;
}

/**
 * vsvm_svm_fini() - undo vsvm_svm_init()
 * @vfile: the file, no longer in use
 */
void vsvm_svm_fini(struct vsvm_file *vfile)
{
	vsvm_svm_revoke(vfile);

	mutex_lock(&vfile->lock);
	drm_gpusvm_fini(&vfile->svm);
	mutex_unlock(&vfile->lock);
}

/**
 * vsvm_svm_revoke() - permanently remove all GPU mappings of a process
 * @vfile: the file
 *
 * Ioctls may be running on @vfile, and may wait for a page fault for hours.
 * They find no mapping when the fault is over. A process can have any number of
 * mappings, so the locks are held for one mapping at a time. If there are
 * several callers, none returns before the last mapping is gone.
 */
void vsvm_svm_revoke(struct vsvm_file *vfile)
{
	struct drm_gpusvm_ctx ctx = { .in_notifier = true };
	struct drm_gpusvm *svm = &vfile->svm;
	struct vsvm_range *range;

	do {
		down_write(&svm->notifier_lock);
		spin_lock(&vfile->ranges_lock);
		vfile->revoked = true;
		range = list_first_entry_or_null(&vfile->ranges,
						 struct vsvm_range, link);
		if (range) {
			range->pages.flags.unmapped = true;
			drm_gpusvm_unmap_pages(svm, &range->pages,
					       range_npages(range), &ctx);
			list_del_init(&range->link);
		}
		spin_unlock(&vfile->ranges_lock);
		up_write(&svm->notifier_lock);
		cond_resched();
	} while (range);
}

/* Can the GPU use a range as it is mapped? A write needs a writable mapping. */
static bool is_mapped(struct vsvm_file *vfile, struct vsvm_range *range,
		      bool write)
{
	return drm_gpusvm_pages_valid(&vfile->svm, &range->pages) &&
	       !(write && range->pages.flags.read_only);
}

/* Until the range is removed, an invalidation may find it and list it. */
static void remove_range(struct vsvm_file *vfile, struct vsvm_range *range)
{
	struct drm_gpusvm_ctx ctx = {};

	drm_gpusvm_range_get(&range->base);
	drm_gpusvm_unmap_pages(&vfile->svm, &range->pages, range_npages(range),
			       &ctx);
	drm_gpusvm_range_remove(&vfile->svm, &range->base);

	spin_lock(&vfile->ranges_lock);
	range_unlist(vfile, range);
	spin_unlock(&vfile->ranges_lock);
	drm_gpusvm_range_put(&range->base);
}

static struct vsvm_range *next_gone_range(struct vsvm_file *vfile)
{
	struct vsvm_range *range;

	guard(spinlock)(&vfile->ranges_lock);

	range = list_first_entry_or_null(&vfile->unmapped, struct vsvm_range,
					 gone);
	if (!range && vfile->nr_idle > VSVM_MAX_IDLE)
		range = list_first_entry(&vfile->idle, struct vsvm_range, gone);
	if (range)
		range_unlist(vfile, range);

	return range;
}

static void remove_gone_ranges(struct vsvm_file *vfile)
{
	struct vsvm_range *range;
	bool mapped;

	while ((range = next_gone_range(vfile))) {
		drm_gpusvm_notifier_lock(&vfile->svm);
		mapped = is_mapped(vfile, range, false);
		drm_gpusvm_notifier_unlock(&vfile->svm);

		if (!mapped)
			remove_range(vfile, range);
	}
}

/*
 * A walk over the pages of a process, 2 MiB at a time. With flags of zero it
 * finds out where the pages are. With HMM_PFN_REQ_FAULT it also brings all of
 * them to system memory.
 */
struct pages_walk {
	struct mmu_interval_notifier notifier;
	struct mutex lock; /* to check @pfns, see mmu_interval_read_retry() */
	unsigned long pfns[SZ_2M / PAGE_SIZE];
};

static bool pages_walk_invalidate(struct mmu_interval_notifier *notifier,
				  const struct mmu_notifier_range *range,
				  unsigned long seq)
{
	struct pages_walk *walk =
		container_of(notifier, struct pages_walk, notifier);

	if (mmu_notifier_range_blockable(range))
		mutex_lock(&walk->lock);
	else if (!mutex_trylock(&walk->lock))
		return false;

	mmu_interval_set_seq(notifier, seq);
	mutex_unlock(&walk->lock);
	return true;
}

static const struct mmu_interval_notifier_ops pages_walk_ops = {
	.invalidate = pages_walk_invalidate,
};

static void count_pages(struct vsvm_file *vfile, struct drm_vsvm_residency *where,
			const unsigned long *pfns, unsigned long npages)
{
	unsigned long i;

	for (i = 0; i < npages; i++) {
		if (!(pfns[i] & HMM_PFN_VALID)) {
			where->none++;
		} else if (hmm_pfn_is_alias(pfns[i])) {
			where->peer++;
			where->huge += hmm_pfn_to_map_order(pfns[i]) != 0;
		} else if (!is_device_private_page(hmm_pfn_to_page(pfns[i]))) {
			where->ram++;
		} else if (page_pgmap(hmm_pfn_to_page(pfns[i])) !=
			   &vfile->vdev->pgmap) {
			where->linked++;
		} else {
			where->vram++;
			where->huge += hmm_pfn_to_map_order(pfns[i]) != 0;
		}
	}
}

/* Walk @range once. -EAGAIN: it has changed during the walk. */
static int walk_piece(struct vsvm_file *vfile, struct pages_walk *walk,
		      struct hmm_range *range, struct drm_vsvm_residency *where)
{
	unsigned long timeout = msecs_to_jiffies(HMM_RANGE_DEFAULT_TIMEOUT);
	int err;

	if (fatal_signal_pending(current))
		return -EINTR;
	if (drm_dev_is_unplugged(&vfile->vdev->drm))
		return -ENODEV;

	err = hmm_range_fault_unlocked_timeout(range, timeout);
	mutex_lock(&walk->lock);
	if (!err && mmu_interval_read_retry(&walk->notifier,
					    range->notifier_seq))
		err = -EAGAIN;
	if (!err)
		count_pages(vfile, where, walk->pfns,
			    (range->end - range->start) >> PAGE_SHIFT);
	mutex_unlock(&walk->lock);

	return err;
}

static int walk_pages(struct vsvm_file *vfile, unsigned long addr,
		      unsigned long size, unsigned long flags,
		      struct drm_vsvm_residency *where)
{
	struct hmm_client client = { .dma_dev = vfile->vdev->drm.dev };
	unsigned long end = addr + size, piece = SZ_2M;
	struct pages_walk *walk;
	struct hmm_range range = { .default_flags = flags };
	int err;

	walk = kvzalloc_obj(*walk, GFP_KERNEL_ACCOUNT);
	if (!walk)
		return -ENOMEM;

	if (!(flags & HMM_PFN_REQ_FAULT)) {
		range.dev_private_owner = vfile->vdev->pgmap.owner;
		range.peers = &vfile->vdev->peers;
		range.client = &client;
	}

	mutex_init(&walk->lock);
	err = mmu_interval_notifier_insert(&walk->notifier, current->mm, addr,
					   size, &pages_walk_ops);
	if (err == -EINTR)
		err = -ERESTARTNOINTR;
	if (err)
		goto out_free;

	range.notifier = &walk->notifier;
	range.hmm_pfns = walk->pfns;

	while (addr < end) {
		range.start = addr;
		range.end = min(ALIGN(addr + 1, piece), end);
		err = walk_piece(vfile, walk, &range, where);
		if (!err)
			addr = range.end;
		else if (err == -EBUSY && piece > PAGE_SIZE)
			piece /= 2;	/* changes less often, migrates faster */
		else if (err != -EAGAIN)
			break;
		cond_resched();
		/* is_on_peers() holds vfile->lock, whose waiters cannot freeze */
		if (size > SZ_2M)
			try_to_freeze();
	}

	mmu_interval_notifier_remove(&walk->notifier);
out_free:
	mutex_destroy(&walk->lock);
	kvfree(walk);
	return err;
}

/* Is all of a range mapped in the memory of other GPUs? */
static bool mapped_on_peers(struct vsvm_file *vfile, struct vsvm_range *range)
{
	struct drm_pagemap_addr *map = range->pages.dma_addr;
	unsigned long i;

	for (i = 0; i < range_npages(range); i += 1UL << map->order, map++)
		if (map->proto == DRM_INTERCONNECT_SYSTEM ||
		    map->proto == VSVM_PROTO_VRAM)
			return false;

	return true;
}

/* As mapped_on_peers(), for a range without a mapping. Pages may then move. */
static bool is_on_peers(struct vsvm_file *vfile, struct vsvm_range *range)
{
	struct drm_vsvm_residency where = {};

	return !walk_pages(vfile, drm_gpusvm_range_start(&range->base),
			   drm_gpusvm_range_size(&range->base), 0, &where) &&
	       where.peer + where.linked == range_npages(range);
}

/* Best effort: pages that cannot migrate are used where they are. */
static void migrate_to_vram(struct vsvm_file *vfile, struct vsvm_range *range)
{
	struct vsvm_device *vdev = vfile->vdev;
	int tries = 2, err;

	if (drm_gpusvm_scan_mm(&range->base, vdev->pgmap.owner,
			       &vdev->pgmap) == DRM_GPUSVM_SCAN_EQUAL)
		return;

	do {
		vsvm_gate_wait(&vdev->copies);
		err = drm_pagemap_populate_mm(&vdev->dpagemap,
					      drm_gpusvm_range_start(&range->base),
					      drm_gpusvm_range_end(&range->base),
					      vfile->svm.mm, 0, false);
		/*
		 * The pages are in swap, in several allocations, or on another
		 * GPU that has no link to this one.
		 */
		if ((err == -EBUSY || err == -EFAULT) &&
		    drm_gpusvm_range_evict(&vfile->svm, &range->base) == -ETIME) {
			/* The range does not fit into RAM in one piece */
			vsvm_vram_make_way(vdev, vfile->svm.mm);
			return;
		}
	} while ((err == -EBUSY || err == -EFAULT) && --tries);
}

/*
 * Find the range at @addr and map it: in VRAM, or in place, if it is on another
 * GPU within reach and the caller does not want it @here. For reads it is
 * mapped read-only: mapping it for writes counts as a write for all observers,
 * such as userfaultfd, and breaks COW of pages that two processes share.
 *
 * A range may not fit into RAM at once, because of a memory cgroup limit for
 * example. It is then mapped in smaller chunks, which do not migrate: memory in
 * VRAM is charged just the same.
 */
static struct vsvm_range *fault_range(struct vsvm_file *vfile,
				      unsigned long addr, bool write, bool here,
				      unsigned long chunk)
{
	unsigned long start = ALIGN_DOWN(addr, chunk), end = start + chunk;
	struct vsvm_device *vdev = vfile->vdev;
	struct drm_gpusvm_ctx ctx = {
		.device_private_page_owner = vdev->pgmap.owner,
		.peers = &vdev->peers,
		.read_only = !write,
		.devmem_possible = chunk == VSVM_MAX_CHUNK,
		.allow_mixed = true,
		.allow_alias = true,
	};
	struct drm_gpusvm *svm = &vfile->svm;
	struct drm_gpusvm_range *base;
	struct vsvm_range *range;
	bool may_migrate, in_vram, stays, valid, anew = false;
	int tries, err;

	lockdep_assert_held(&vfile->lock);

	remove_gone_ranges(vfile);
again:
	base = drm_gpusvm_range_find_or_insert(svm, addr, start, end, &ctx);
	if (IS_ERR(base))
		return ERR_CAST(base);

	range = to_range(base);
	may_migrate = base->flags.migrate_devmem;

	/* This range was made when 2 MiB did not fit. Try again in VRAM. */
	if (here && !may_migrate && chunk == VSVM_MAX_CHUNK && !anew) {
		remove_range(vfile, range);
		anew = true;
		goto again;
	}

	/*
	 * Pages that the process maps read-only, as after fork(), stay
	 * read-only in VRAM. A write moves them back to system memory, where
	 * they become writable. After the second migration they stay in VRAM.
	 * A page that could not migrate, for example because it is pinned, is
	 * left alone as long as it is mapped: another attempt would unmap it
	 * from all other users.
	 */
	for (tries = 0; ; tries++) {
		drm_gpusvm_notifier_lock(svm);
		valid = is_mapped(vfile, range, write);
		in_vram = range->pages.dpagemap == &vdev->dpagemap;
		stays = !here && valid &&
			(!tries || mapped_on_peers(vfile, range));
		drm_gpusvm_notifier_unlock(svm);

		if (valid && (in_vram || stays || !may_migrate || tries == 2))
			return range;
		if (tries == 2)
			return ERR_PTR(-EAGAIN);

		if (may_migrate && !in_vram &&
		    (here || !is_on_peers(vfile, range)))
			migrate_to_vram(vfile, range);

		err = drm_gpusvm_get_pages(svm, &range->pages, svm->mm,
					   &base->notifier->notifier,
					   drm_gpusvm_range_start(base),
					   drm_gpusvm_range_end(base), &ctx);
		if (err == -EOPNOTSUPP) {
			drm_gpusvm_range_evict(svm, base);
			err = -EAGAIN;
		}
		if ((err == -EFAULT || err == -EPERM) && !anew) {
			/* The range may span several VMAs by now */
			remove_range(vfile, range);
			anew = true;
			goto again;
		}
		if (err == -EBUSY)
			/* A new range may have another size */
			remove_range(vfile, range);
		if (err)
			return ERR_PTR(err);
	}
}

/*
 * Do the protection keys of the current thread let it access a range? The GPU
 * must not let a thread bypass them. The answer holds as long as the range is
 * mapped.
 */
static int check_access(unsigned long addr, unsigned long end, bool write)
{
	VMA_ITERATOR(vmi, current->mm, addr);
	struct vm_area_struct *vma;
	int err = 0;

	if (mmap_read_lock_killable(current->mm))
		return -EINTR;

	for_each_vma_range(vmi, vma, end)
		if (!arch_vma_access_permitted(vma, write, false, false))
			err = -EFAULT;
	mmap_read_unlock(current->mm);

	return err;
}

typedef void (*vsvm_engine_t)(u64 *words, size_t n, void *arg);

/* -ENODEV: this GPU has been pulled. -EIO: a GPU whose memory it used has. */
static int check_owner(struct vsvm_file *vfile, struct vsvm_device *owner)
{
	if (!owner || vsvm_vram_is_there(owner))
		return 0;

	return owner == vfile->vdev ? -ENODEV : -EIO;
}

/* -EOPNOTSUPP: memory of another driver's device, which is not mapped here. */
static int run_engine(struct vsvm_file *vfile, struct vsvm_range *range,
		      unsigned long addr, unsigned long end,
		      vsvm_engine_t engine, void *arg)
{
	unsigned long pos = drm_gpusvm_range_start(&range->base);
	struct drm_pagemap_addr *map = range->pages.dma_addr;
	struct vsvm_device *owner, *last = NULL;
	int err;

	for (; pos < end; pos += PAGE_SIZE << map->order, map++) {
		unsigned long map_end = min(pos + (PAGE_SIZE << map->order), end);

		while (addr < map_end) {
			unsigned long in_page = offset_in_page(addr);
			size_t len = min(PAGE_SIZE - in_page, map_end - addr);
			void *page = vsvm_map_page(vfile->vdev, map,
						   addr - in_page - pos);

			if (!page)
				return -EOPNOTSUPP;
			owner = vsvm_owner(page);
			if (!owner && map->proto != DRM_INTERCONNECT_SYSTEM)
				return -EIO;	/* the peer is going away */
			engine(page + in_page, len / sizeof(u64), arg);
			vsvm_unmap_page(map, page);
			addr += len;
			if (owner == last)
				continue;
			err = check_owner(vfile, last);
			if (err)
				return err;
			last = owner;
		}
	}

	return check_owner(vfile, last);
}

/* Run an engine over a part of [addr, end). Returns the length of the part. */
static long run_piece(struct vsvm_file *vfile, unsigned long addr,
		      unsigned long end, bool write, bool here,
		      unsigned long chunk, vsvm_engine_t engine, void *arg)
{
	struct vsvm_device *vdev = vfile->vdev;
	struct drm_gpusvm *svm = &vfile->svm;
	struct vsvm_range *range;
	long ret;

	vsvm_gate_wait(&vsvm_engines);
	if (drm_dev_is_unplugged(&vdev->drm))
		return -ENODEV;
	if (mutex_lock_killable(&vfile->lock))
		return -EINTR;

	range = fault_range(vfile, addr, write, here, chunk);
	if (IS_ERR(range)) {
		ret = PTR_ERR(range);
		goto out;
	}

	end = min(end, drm_gpusvm_range_end(&range->base));
	/* A prefetch does not access the contents */
	ret = here ? 0 : check_access(addr, end, write);
	if (ret)
		goto out;

	ret = -EAGAIN;
	drm_gpusvm_notifier_lock(svm);
	if (is_mapped(vfile, range, write) &&
	    vsvm_gate_try_enter(&vsvm_engines)) {
		ret = run_engine(vfile, range, addr, end, engine, arg) ?:
		      (long)(end - addr);
		vsvm_gate_leave(&vsvm_engines);
	}
	drm_gpusvm_notifier_unlock(svm);
out:
	mutex_unlock(&vfile->lock);
	return ret;
}

static int __run(struct vsvm_file *vfile, unsigned long addr, unsigned long size,
		 bool write, bool here, vsvm_engine_t engine, void *arg)
{
	unsigned long end = addr + size, chunk = VSVM_MAX_CHUNK;
	int tries = VSVM_FAULT_TRIES;

	while (addr < end) {
		long ret = -EINTR;

		if (!fatal_signal_pending(current))
			ret = run_piece(vfile, addr, end, write, here, chunk,
					engine, arg);
		cond_resched();
		try_to_freeze();

		if (ret > 0) {
			addr += ret;
			tries = VSVM_FAULT_TRIES;
			continue;
		}
		if (ret == -EBUSY && chunk > SZ_4K) {
			chunk = chunk > SZ_64K ? SZ_64K : SZ_4K;
			continue;
		}

		switch (ret) {
		case -EINVAL:	/* the device reaches only bounce buffers */
			return -EOPNOTSUPP;
		case -ENOENT:	/* no mapping */
		case -EIO:	/* memory of a device, or a peer is gone */
			return -EFAULT;
		case -EPERM:
			return -EACCES;
		case -EINTR:	/* adding a first notifier is interruptible */
			return -ERESTARTNOINTR;
		case -EAGAIN:	/* invalidated again */
		case -EBUSY:
		case -EFAULT:	/* the mapping may have changed */
			if (tries--)
				continue;
			return ret == -EFAULT ? -EFAULT : -EBUSY;
		default:
			return ret;
		}
	}

	return 0;
}

static int run(struct vsvm_file *vfile, unsigned long addr, unsigned long size,
	       bool write, vsvm_engine_t engine, void *arg)
{
	return __run(vfile, addr, size, write, false, engine, arg);
}

static void engine_fill(u64 *words, size_t n, void *arg)
{
	memset64(words, *(u64 *)arg, n);
}

static void engine_xor(u64 *words, size_t n, void *arg)
{
	while (n--)
		*words++ ^= *(u64 *)arg;
}

static void engine_sum(u64 *words, size_t n, void *arg)
{
	while (n--)
		*(u64 *)arg += *words++;
}

static void engine_touch(u64 *words, size_t n, void *arg)
{
}

struct copy {
	void *buf;
	size_t pos;
};

static void engine_load(u64 *words, size_t n, void *arg)
{
	struct copy *copy = arg;

	memcpy(copy->buf + copy->pos, words, n * sizeof(u64));
	copy->pos += n * sizeof(u64);
}

static void engine_store(u64 *words, size_t n, void *arg)
{
	struct copy *copy = arg;

	memcpy(words, copy->buf + copy->pos, n * sizeof(u64));
	copy->pos += n * sizeof(u64);
}

/* Copy through a buffer, so that the engine faults on one side at a time. */
static int run_copy(struct vsvm_file *vfile, unsigned long dst,
		    unsigned long src, unsigned long size)
{
	struct copy copy;
	int err = 0;

	copy.buf = kvmalloc(SZ_64K, GFP_KERNEL_ACCOUNT);
	if (!copy.buf)
		return -ENOMEM;

	while (size && !err) {
		unsigned long len = min(size, SZ_64K);

		copy.pos = 0;
		err = run(vfile, src, len, false, engine_load, &copy);
		copy.pos = 0;
		if (!err)
			err = run(vfile, dst, len, true, engine_store, &copy);
		src += len;
		dst += len;
		size -= len;
	}

	kvfree(copy.buf);
	return err;
}

static int check_range(struct vsvm_file *vfile, u64 addr, u64 size, u64 align)
{
	u64 end;

	if (!size || !IS_ALIGNED(addr | size, align) ||
	    check_add_overflow(addr, size, &end))
		return -EINVAL;

	if (end > TASK_SIZE)
		return -EFAULT;

	return current->mm == vfile->svm.mm ? 0 : -EPERM;
}

int vsvm_op_ioctl(struct drm_device *drm, void *data, struct drm_file *file)
{
	struct vsvm_file *vfile = file->driver_priv;
	struct drm_vsvm_op *args = data;
	u64 operand = args->operand, sum = 0;
	int err;

	if (args->pad)
		return -EINVAL;

	err = check_range(vfile, args->addr, args->size, sizeof(u64));
	if (err)
		return err;

	switch (args->op) {
	case DRM_VSVM_OP_FILL:
		err = run(vfile, args->addr, args->size, true, engine_fill,
			  &operand);
		break;
	case DRM_VSVM_OP_XOR:
		err = run(vfile, args->addr, args->size, true, engine_xor,
			  &operand);
		break;
	case DRM_VSVM_OP_SUM:
		err = run(vfile, args->addr, args->size, false, engine_sum,
			  &sum);
		break;
	case DRM_VSVM_OP_COPY:
		err = check_range(vfile, operand, args->size, sizeof(u64));
		if (err)
			return err;
		if (operand < args->addr + args->size &&
		    args->addr < operand + args->size)
			return -EINVAL;
		err = run_copy(vfile, args->addr, operand, args->size);
		break;
	default:
		return -EINVAL;
	}
	wmb(); /* VRAM is mapped write-combined */

	args->result = sum;
	return err;
}

int vsvm_residency_ioctl(struct drm_device *drm, void *data,
			 struct drm_file *file)
{
	struct vsvm_file *vfile = file->driver_priv;
	struct drm_vsvm_residency *args = data, where = {};
	int err;

	err = check_range(vfile, args->addr, args->size, PAGE_SIZE);
	if (err)
		return err;

	err = walk_pages(vfile, args->addr, args->size, 0, &where);
	if (err)
		return err;

	where.addr = args->addr;
	where.size = args->size;
	*args = where;
	return 0;
}

/* Is all of [addr, end) mapped, and can it migrate to a device? */
static int check_migratable(unsigned long addr, unsigned long end)
{
	struct mm_struct *mm = current->mm;
	struct vm_area_struct *vma;
	int err = 0;

	if (mmap_read_lock_killable(mm))
		return -EINTR;

	while (addr < end && !err) {
		vma = vma_lookup(mm, addr);
		if (!vma)
			err = -EFAULT;
		else if (!vma_is_anonymous(vma))
			err = -EOPNOTSUPP;
		else
			addr = vma->vm_end;
	}
	mmap_read_unlock(mm);

	return err;
}

int vsvm_prefetch_ioctl(struct drm_device *drm, void *data,
			struct drm_file *file)
{
	struct vsvm_file *vfile = file->driver_priv;
	struct drm_vsvm_prefetch *args = data;
	struct drm_vsvm_residency where = {};
	int err;

	if (args->pad || args->where > DRM_VSVM_TO_VRAM)
		return -EINVAL;

	err = check_range(vfile, args->addr, args->size, PAGE_SIZE);
	if (err)
		return err;

	if (args->where == DRM_VSVM_TO_RAM) {
		err = walk_pages(vfile, args->addr, args->size,
				 HMM_PFN_REQ_FAULT, &where);
	} else {
		err = check_migratable(args->addr, args->addr + args->size);
		if (!err)
			err = __run(vfile, args->addr, args->size, false, true,
				    engine_touch, NULL);
		if (!err)
			err = walk_pages(vfile, args->addr, args->size, 0,
					 &where);
	}

	args->pages = where.vram;
	return err;
}
