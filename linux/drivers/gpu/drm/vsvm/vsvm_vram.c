// SPDX-License-Identifier: GPL-2.0
/*
 * VRAM: its allocator, its device-private pages, the window through which peers
 * reach it, and the copy engine that migrates pages.
 */
#include <linux/dma-direct.h>
#include <linux/error-injection.h>
#include <linux/highmem.h>
#include <linux/hmm_p2pdma.h>
#include <linux/iommu.h>
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/pci-p2pdma.h>
#include <linux/sizes.h>
#include <linux/srcu.h>

#include <drm/drm_drv.h>
#include <drm/drm_managed.h>
#include <drm/drm_print.h>

#include "vsvm.h"

/*
 * These parameters limit or break the exporter, to test importers and the core.
 * Drivers of real devices have no such parameters.
 */
static uint window_mb = UINT_MAX;
module_param(window_mb, uint, 0444);
MODULE_PARM_DESC(window_mb, "size in MiB of the window in which peers see VRAM; 0: no window (default: all of VRAM)");

static bool cpu_map = true;
module_param(cpu_map, bool, 0444);
MODULE_PARM_DESC(cpu_map, "declare the kernel mapping of the window (default: yes)");

static bool p2p_pages;
module_param(p2p_pages, bool, 0444);
MODULE_PARM_DESC(p2p_pages, "have struct pages for the window, for importers that need them (default: no)");

/* An allocation of VRAM: one contiguous block. */
struct vsvm_bo {
	struct drm_pagemap_devmem devmem;
	struct vsvm_device *vdev;
	const struct mm_struct *mm;	/* the owner, only to compare */
	struct kref ref;
	struct list_head blocks;
	struct list_head link;
	struct llist_node free;
};

static struct vsvm_bo *to_bo(struct drm_pagemap_devmem *devmem)
{
	return container_of(devmem, struct vsvm_bo, devmem);
}

static u64 bo_offset(struct vsvm_bo *bo)
{
	return gpu_buddy_block_offset(list_first_entry(&bo->blocks,
						       struct gpu_buddy_block,
						       link));
}

static void bo_free_work(struct work_struct *work)
{
	struct vsvm_device *vdev =
		container_of(work, struct vsvm_device, bo_free_work);
	struct vsvm_bo *bo, *next;

	mutex_lock(&vdev->lock);
	llist_for_each_entry_safe(bo, next, llist_del_all(&vdev->bo_free), free) {
		if (want_init_on_free()) {
			vsvm_gate_enter(&vdev->copies);
			if (!READ_ONCE(vdev->lost))
				memset(vdev->vram + bo_offset(bo), 0,
				       bo->devmem.size);
			vsvm_gate_leave(&vdev->copies);
		}
		gpu_buddy_free_list(&vdev->buddy, &bo->blocks, 0);
		kfree(bo);
	}
	mutex_unlock(&vdev->lock);
}

static void bo_release(struct kref *ref)
{
	struct vsvm_bo *bo = container_of(ref, struct vsvm_bo, ref);
	struct vsvm_device *vdev = bo->vdev;
	unsigned long flags;

	/* Once vsvm_vram_evict() finds @bos empty it flushes the work */
	spin_lock_irqsave(&vdev->bo_lock, flags);
	list_del(&bo->link);
	llist_add(&bo->free, &vdev->bo_free);
	schedule_work(&vdev->bo_free_work);
	spin_unlock_irqrestore(&vdev->bo_lock, flags);
}

static void bo_put(struct vsvm_bo *bo)
{
	kref_put(&bo->ref, bo_release);
}

static unsigned long vram_to_pfn(struct vsvm_device *vdev, u64 offset)
{
	return PHYS_PFN(vdev->pgmap.range.start + offset);
}

static u64 page_to_vram(struct vsvm_device *vdev, struct page *page)
{
	return PFN_PHYS(page_to_pfn(page)) - vdev->pgmap.range.start;
}

/**
 * vsvm_map_page() - let an engine access a page
 * @vdev: the GPU
 * @addr: device address of VRAM, or of memory that is mapped for DMA
 * @offset: offset of the page from @addr, in bytes
 *
 * Like a bus master, the engines know only the DMA address. If there is an
 * IOMMU, it translates the address.
 *
 * Context: Any. The mapping is local to the thread, and mappings nest.
 * Return: the kernel virtual address of the page; NULL if it is in a BAR that
 * is not VRAM of a GPU of this driver.
 */
void *vsvm_map_page(struct vsvm_device *vdev,
		    const struct drm_pagemap_addr *addr, unsigned long offset)
{
	struct device *dev = vdev->drm.dev;
	struct iommu_domain *domain = NULL;
	phys_addr_t phys;

	if (addr->proto == VSVM_PROTO_VRAM)
		return vdev->vram + addr->addr + offset;
	if (addr->proto == VSVM_PROTO_LINK)
		return (void *)(uintptr_t)addr->addr + offset;

	if (addr->proto != DRM_INTERCONNECT_PEER_BUS)
		domain = iommu_get_domain_for_dev(dev);
	phys = domain ? iommu_iova_to_phys(domain, addr->addr + offset) :
			dma_to_phys(dev, addr->addr + offset);

	if (addr->proto == DRM_INTERCONNECT_SYSTEM)
		return kmap_local_page(phys_to_page(phys));

	return vsvm_bar_to_vram(phys);
}

/**
 * vsvm_unmap_page() - undo vsvm_map_page()
 * @addr: the device address that was mapped
 * @vaddr: the address that vsvm_map_page() returned
 */
void vsvm_unmap_page(const struct drm_pagemap_addr *addr, void *vaddr)
{
	if (addr->proto == DRM_INTERCONNECT_SYSTEM)
		kunmap_local(vaddr);
}

static void copy_folio(struct vsvm_device *vdev, struct page *page,
		       const struct drm_pagemap_addr *addr, bool to_vram)
{
	void *vram = vdev->vram + page_to_vram(vdev, page);
	unsigned long offset, size = PAGE_SIZE << addr->order;

	for (offset = 0; offset < size; offset += PAGE_SIZE) {
		void *ram = vsvm_map_page(vdev, addr, offset);

		if (to_vram)
			memcpy(vram + offset, ram, PAGE_SIZE);
		else
			memcpy(ram, vram + offset, PAGE_SIZE);
		vsvm_unmap_page(addr, ram);
	}
}

static struct vsvm_device *page_to_vsvm(struct page *page)
{
	return container_of(page_pgmap(page), struct vsvm_device, pgmap);
}

/* Readers move pages, which maps system memory for the device */
DEFINE_STATIC_SRCU(vsvm_lost);

static vm_fault_t migrate_to_ram(struct vm_fault *vmf)
{
	struct vsvm_device *vdev = page_to_vsvm(vmf->page);

	guard(srcu)(&vsvm_lost);
	if (READ_ONCE(vdev->lost))
		return VM_FAULT_SIGBUS;

	return drm_pagemap_pagemap_ops_get()->migrate_to_ram(vmf);
}

static bool bar_answers(struct vsvm_device *vdev)
{
	u16 command;

	return !pci_read_config_word(vdev->pdev, PCI_COMMAND, &command) &&
	       !PCI_POSSIBLE_ERROR(command) && (command & PCI_COMMAND_MEMORY);
}

/**
 * vsvm_vram_is_there() - does VRAM have contents, or does it read as 0xff?
 * @vdev: the GPU
 *
 * The device may be pulled at any time: call this after VRAM has been read, and
 * before the data is handed out.
 *
 * Return: true if VRAM had its contents until now.
 */
bool vsvm_vram_is_there(struct vsvm_device *vdev)
{
	return !READ_ONCE(vdev->lost) && bar_answers(vdev);
}

/*
 * VRAM is mapped write-combined, and writes to it are posted: a peer below the
 * same switch could overtake them. A read waits for them.
 */
static bool vram_has_arrived(struct vsvm_device *vdev)
{
	/* The stores of the copy come before the load */
	mb();
	(void)READ_ONCE(*(u64 *)vdev->vram);
	return vsvm_vram_is_there(vdev);
}

/*
 * An entry without a source was not populated: the process must see zeroes
 * there. All pages belong to one GPU, which is not unplugged during the copy.
 */
static int copy_to_devmem(struct page **pages, struct drm_pagemap_addr *addr,
			  unsigned long npages,
			  struct dma_fence *pre_migrate_fence)
{
	struct vsvm_device *vdev = NULL;
	unsigned long i, nr;
	unsigned long copied = 0;
	int idx, err = 0;

	for (i = 0; i < npages && !vdev; i++)
		if (pages[i])
			vdev = page_to_vsvm(pages[i]);
	if (!vdev)
		return 0;
	if (!drm_dev_enter(&vdev->drm, &idx))
		return -ENODEV;

	/* Pages of another GPU may be locked: do not wait for a reset */
	if (!vsvm_gate_try_enter(&vdev->copies)) {
		drm_dev_exit(idx);
		return -EBUSY;
	}
	for (i = 0; i < npages; i += nr) {
		nr = 1;
		if (!pages[i])
			continue;

		nr = folio_nr_pages(page_folio(pages[i]));
		if (addr[i].addr)
			copy_folio(vdev, pages[i], &addr[i], true);
		else
			memset(vdev->vram + page_to_vram(vdev, pages[i]), 0,
			       nr << PAGE_SHIFT);
		copied += nr;
	}
	if (vram_has_arrived(vdev))
		atomic64_add(copied, &vdev->pages_to_vram);
	else
		err = -EIO;
	vsvm_gate_leave(&vdev->copies);
	drm_dev_exit(idx);

	return err;
}
ALLOW_ERROR_INJECTION(copy_to_devmem, ERRNO);

/* Copy to system memory, or over a link to @to. */
static int copy_from_vram(struct vsvm_device *from, struct vsvm_device *to,
			  struct page **pages, struct drm_pagemap_addr *addr,
			  unsigned long npages)
{
	unsigned long i, nr, copied = 0;

	if (READ_ONCE(from->lost))
		return -EIO;

	for (i = 0; i < npages; i += nr) {
		nr = 1;
		if (!pages[i] || !addr[i].addr)
			continue;

		nr = NR_PAGES(addr[i].order);
		copy_folio(from, pages[i], &addr[i], false);
		copied += nr;
	}
	if (!vsvm_vram_is_there(from) || (to && !vram_has_arrived(to)))
		return -EIO;

	atomic64_add(copied, to ? &from->pages_to_peers : &from->pages_to_ram);
	return 0;
}

/*
 * The pages of both GPUs are locked: do not wait for the reset of one of them,
 * which could wait for the pages of the other one.
 */
static int copy_over_link(struct vsvm_device *from, struct page **pages,
			  struct drm_pagemap_addr *addr, unsigned long npages,
			  const void *vram)
{
	struct vsvm_device *to;
	int err = -EBUSY;

	vsvm_link_lock();
	to = vsvm_owner(vram);
	if (!to || !vsvm_link_holds(from, vram) ||
	    !vsvm_gate_try_enter(&from->copies))
		goto out_unlock;
	if (vsvm_gate_try_enter(&to->copies)) {
		err = copy_from_vram(from, to, pages, addr, npages);
		vsvm_gate_leave(&to->copies);
	}
	vsvm_gate_leave(&from->copies);
out_unlock:
	vsvm_link_unlock();
	return err;
}

/* All source pages belong to one GPU. So do all destinations, if it is a link. */
static int copy_to_ram(struct page **pages, struct drm_pagemap_addr *addr,
		       unsigned long npages,
		       struct dma_fence *pre_migrate_fence)
{
	struct vsvm_device *vdev;
	unsigned long i;
	int err;

	for (i = 0; i < npages; i++)
		if (pages[i] && addr[i].addr)
			break;
	if (i == npages)
		return 0;

	vdev = page_to_vsvm(pages[i]);
	if (addr[i].proto == VSVM_PROTO_LINK)
		return copy_over_link(vdev, pages, addr, npages,
				      (void *)(uintptr_t)addr[i].addr);

	vsvm_gate_enter(&vdev->copies);
	err = copy_from_vram(vdev, NULL, pages, addr, npages);
	vsvm_gate_leave(&vdev->copies);
	return err;
}
ALLOW_ERROR_INJECTION(copy_to_ram, ERRNO);

static int populate_devmem_pfn(struct drm_pagemap_devmem *devmem,
			       unsigned long npages, unsigned long *pfn)
{
	struct vsvm_bo *bo = to_bo(devmem);
	unsigned long i, first = vram_to_pfn(bo->vdev, bo_offset(bo));

	for (i = 0; i < npages; i++)
		pfn[i] = first + i;

	return 0;
}
ALLOW_ERROR_INJECTION(populate_devmem_pfn, ERRNO);

static void devmem_release(struct drm_pagemap_devmem *devmem)
{
	bo_put(to_bo(devmem));
}

static const struct drm_pagemap_devmem_ops vsvm_devmem_ops = {
	.devmem_release		= devmem_release,
	.populate_devmem_pfn	= populate_devmem_pfn,
	.copy_to_devmem		= copy_to_devmem,
	.copy_to_ram		= copy_to_ram,
};

/* Try the window first: peers cannot reach memory outside of it. */
static int bo_alloc_blocks(struct vsvm_bo *bo, u64 size)
{
	struct vsvm_device *vdev = bo->vdev;
	int err = -ENOSPC;

	mutex_lock(&vdev->lock);
	if (vdev->window_size >= size && vdev->window_size < vdev->vram_size)
		err = gpu_buddy_alloc_blocks(&vdev->buddy, 0, vdev->window_size,
					     size, size, &bo->blocks,
					     GPU_BUDDY_RANGE_ALLOCATION);
	if (err)
		err = gpu_buddy_alloc_blocks(&vdev->buddy, 0, vdev->vram_size,
					     size, size, &bo->blocks, 0);
	mutex_unlock(&vdev->lock);

	return err;
}

/* Evict the oldest allocation of a process, or of all others if not @own. */
static bool evict_oldest(struct vsvm_device *vdev, const struct mm_struct *mm,
			 bool own)
{
	struct vsvm_bo *bo, *found = NULL;
	int err;

	guard(srcu)(&vsvm_lost);
	spin_lock_irq(&vdev->bo_lock);
	list_for_each_entry_reverse(bo, &vdev->bos, link) {
		bool is_own = bo->mm == mm;

		/* vsvm_vram_lose() relies on the order of the list */
		if (vdev->closed)
			break;
		if (is_own == own && kref_get_unless_zero(&bo->ref)) {
			found = bo;
			/* If it cannot migrate, the next call picks another */
			list_move(&bo->link, &vdev->bos);
			break;
		}
	}
	spin_unlock_irq(&vdev->bo_lock);

	if (!found)
		return false;

	err = drm_pagemap_evict_to_ram(&found->devmem);
	bo_put(found);
	return !err;
}

/*
 * Evict memory of other processes to make room: an old allocation may hold
 * hundreds of unused pages besides a single page in use.
 */
static int bo_find_room(struct vsvm_bo *bo, u64 size)
{
	struct vsvm_device *vdev = bo->vdev;
	int tries = 16 + (size >> PAGE_SHIFT), err;

	err = bo_alloc_blocks(bo, size);
	while (err && tries--) {
		/* The work may not have freed released allocations yet. */
		flush_work(&vdev->bo_free_work);
		err = bo_alloc_blocks(bo, size);
		if (err && !evict_oldest(vdev, bo->mm, false))
			break;
	}

	return err;
}

static struct vsvm_bo *bo_create(struct vsvm_device *vdev, u64 size,
				 struct mm_struct *mm)
{
	struct vsvm_bo *bo;
	bool closed;

	bo = kzalloc_obj(*bo, GFP_KERNEL_ACCOUNT);
	if (!bo)
		return ERR_PTR(-ENOMEM);

	bo->vdev = vdev;
	bo->mm = mm;
	kref_init(&bo->ref);
	INIT_LIST_HEAD(&bo->blocks);
	drm_pagemap_devmem_init(&bo->devmem, vdev->drm.dev, mm,
				&vsvm_devmem_ops, &vdev->dpagemap, size, NULL);

	if (bo_find_room(bo, size)) {
		kfree(bo);
		return ERR_PTR(-ENOSPC);
	}

	spin_lock_irq(&vdev->bo_lock);
	closed = vdev->closed;
	list_add(&bo->link, &vdev->bos);
	spin_unlock_irq(&vdev->bo_lock);

	if (closed) {
		bo_put(bo);
		return ERR_PTR(-ENODEV);
	}
	return bo;
}

static struct vsvm_device *dpagemap_to_vsvm(struct drm_pagemap *dpagemap)
{
	return container_of(dpagemap, struct vsvm_device, dpagemap);
}

static int vsvm_populate_mm(struct drm_pagemap *dpagemap, unsigned long start,
			    unsigned long end, struct mm_struct *mm,
			    unsigned long timeslice_ms)
{
	struct vsvm_device *vdev = dpagemap_to_vsvm(dpagemap);
	struct drm_pagemap_migrate_details details = {
		.peers = &vdev->peers,
		.timeslice_ms = timeslice_ms,
	};
	struct vsvm_bo *bo;

	guard(srcu)(&vsvm_lost);
	if (READ_ONCE(vdev->lost))
		return -ENODEV;

	bo = bo_create(vdev, end - start, mm);
	if (IS_ERR(bo))
		return PTR_ERR(bo);

	return drm_pagemap_migrate_to_devmem(&bo->devmem, mm, start, end,
					     &details);
}
ALLOW_ERROR_INJECTION(vsvm_populate_mm, ERRNO);

/* drm_pagemap maps pages for the GPU itself, and for other GPUs over links. */
static struct drm_pagemap_addr
vsvm_device_map(struct drm_pagemap *dpagemap, struct device *dev,
		struct page *page, unsigned int order,
		enum dma_data_direction dir)
{
	struct vsvm_device *vdev = dpagemap_to_vsvm(dpagemap);
	dma_addr_t addr = DMA_MAPPING_ERROR;

	if (dev == vdev->drm.dev)
		return drm_pagemap_addr_encode(page_to_vram(vdev, page),
					       VSVM_PROTO_VRAM, order, dir);

	if (vsvm_link_reaches(dev, vdev))
		addr = (uintptr_t)(vdev->vram + page_to_vram(vdev, page));

	return drm_pagemap_addr_encode(addr, VSVM_PROTO_LINK, order, dir);
}

static void vsvm_device_unmap(struct drm_pagemap *dpagemap, struct device *dev,
			      const struct drm_pagemap_addr *addr)
{
}

/* The drm_pagemap is part of struct vsvm_device, and not freed here. */
static void vsvm_pagemap_destroy(struct drm_pagemap *dpagemap,
				 bool is_atomic_or_reclaim)
{
	complete(&dpagemap_to_vsvm(dpagemap)->dpagemap_idle);
}

static const struct drm_pagemap_ops vsvm_pagemap_ops = {
	.device_map	= vsvm_device_map,
	.device_unmap	= vsvm_device_unmap,
	.populate_mm	= vsvm_populate_mm,
	.destroy	= vsvm_pagemap_destroy,
};

/**
 * vsvm_pagemap_get() - take a reference on the drm_pagemap
 * @vdev: the GPU
 *
 * Return: 0, and the caller must call drm_pagemap_put(); or -ENOMEM.
 */
int vsvm_pagemap_get(struct vsvm_device *vdev)
{
	int err = 0;

	mutex_lock(&vdev->lock);
	if (!drm_pagemap_get_unless_zero(&vdev->dpagemap)) {
		wait_for_completion(&vdev->dpagemap_idle);
		err = drm_pagemap_reinit(&vdev->dpagemap);
		if (err)
			complete(&vdev->dpagemap_idle);
	}
	mutex_unlock(&vdev->lock);

	return err;
}

u64 vsvm_vram_free(struct vsvm_device *vdev)
{
	u64 avail;

	flush_work(&vdev->bo_free_work);
	mutex_lock(&vdev->lock);
	avail = vdev->buddy.avail;
	mutex_unlock(&vdev->lock);

	return avail;
}

/**
 * vsvm_vram_make_way() - move some of a process's memory back to system memory
 * @vdev: the GPU
 * @mm: the process
 *
 * Memory in VRAM stays charged to the memory cgroup of the process, which can
 * reclaim only system memory.
 */
void vsvm_vram_make_way(struct vsvm_device *vdev, const struct mm_struct *mm)
{
	int tries = 2;

	while (tries-- && evict_oldest(vdev, mm, true))
		;
}

/* The oldest allocation that has references. @none: there is no allocation. */
static struct vsvm_bo *bo_get_next(struct vsvm_device *vdev, bool *none)
{
	struct vsvm_bo *bo;

	guard(spinlock_irq)(&vdev->bo_lock);
	*none = list_empty(&vdev->bos);
	list_for_each_entry_reverse(bo, &vdev->bos, link) {
		if (kref_get_unless_zero(&bo->ref)) {
			list_move(&bo->link, &vdev->bos);
			return bo;
		}
	}

	return NULL;
}

/* How often in a row an eviction may fail. Each retry first waits 20 ms. */
#define VSVM_EVICT_TRIES	1000

/**
 * vsvm_vram_evict() - migrate all of VRAM to system memory
 * @vdev: the GPU; nothing can migrate to it any more
 * @patient: retry ten times as often if a page is locked
 *
 * Return: 0; -EIO if the device does not answer; or the error, such as -ENOMEM,
 * that has kept memory from migrating for a long time.
 */
int vsvm_vram_evict(struct vsvm_device *vdev, bool patient)
{
	const int all = 10 * VSVM_EVICT_TRIES;
	int tries = all, err = 0;

	while (tries > 0) {
		struct vsvm_bo *bo;
		bool none;

		bo = bo_get_next(vdev, &none);
		if (none)
			break;
		if (!bo) {
			/* All allocations are being released */
			cond_resched();
			continue;
		}

		/* If it fails, another thread may be moving these pages. */
		err = drm_pagemap_evict_to_ram(&bo->devmem);
		if (!err)
			tries = all;
		else if (!vsvm_vram_is_there(vdev))
			tries = 0;
		else if (!wait_for_completion_timeout(&bo->devmem.detached,
						      msecs_to_jiffies(20)))
			tries -= err == -EBUSY && patient ? 1 : 10;
		bo_put(bo);
	}
	flush_work(&vdev->bo_free_work);

	return tries > 0 ? 0 : err;
}

/**
 * vsvm_vram_close() - stop all migration to VRAM
 * @vdev: the GPU
 */
void vsvm_vram_close(struct vsvm_device *vdev)
{
	spin_lock_irq(&vdev->bo_lock);
	vdev->closed = true;
	spin_unlock_irq(&vdev->bo_lock);
}

/**
 * vsvm_vram_lose() - give up what is left in VRAM
 * @vdev: the GPU
 *
 * Processes can keep these pages for any time. Touching one gives SIGBUS, or
 * -EFAULT. When this returns, no copy uses VRAM, to or from system memory.
 */
void vsvm_vram_lose(struct vsvm_device *vdev)
{
	WRITE_ONCE(vdev->lost, true);
	synchronize_srcu(&vsvm_lost);
}

/**
 * vsvm_vram_scrub() - clear VRAM for the next user of the device
 * @vdev: the GPU; its memory is no longer in use
 */
void vsvm_vram_scrub(struct vsvm_device *vdev)
{
	WRITE_ONCE(vdev->lost, true);
	flush_work(&vdev->bo_free_work);
	if (bar_answers(vdev)) {
		memset(vdev->vram, 0, vdev->vram_size);
		wmb(); /* VRAM is mapped write-combined */
	}
}

static void vsvm_vram_fini(struct drm_device *drm, void *data)
{
	struct vsvm_device *vdev = to_vsvm(drm);

	flush_work(&vdev->bo_free_work);
	gpu_buddy_fini(&vdev->buddy);
}

static void vsvm_remove_pages(void *data)
{
	struct vsvm_device *vdev = data;

	pci_free_p2pmem(vdev->pdev, vdev->p2p_pool, vdev->p2p_pool_size);
}

/*
 * The pages come with an allocator, which user space can use as well. All of
 * this memory belongs to the driver: allocate it before user space can.
 */
static int vsvm_add_pages(struct vsvm_device *vdev, u64 size)
{
	int err;

	err = pci_p2pdma_add_resource(vdev->pdev, VSVM_BAR, size, 0);
	if (err) {
		drm_info(&vdev->drm, "no struct pages for the window (%pe)\n",
			 ERR_PTR(err));
		return 0;
	}

	vdev->p2p_pool = pci_alloc_p2pmem(vdev->pdev, size);
	if (!vdev->p2p_pool)
		return -EBUSY;

	vdev->p2p_pool_size = size;
	return devm_add_action_or_reset(vdev->drm.dev, vsvm_remove_pages, vdev);
}

static int vsvm_add_window(struct vsvm_device *vdev)
{
	u64 size = min(vdev->vram_size, mul_u32_u32(window_mb, SZ_1M));
	int err;

	/* ZONE_DEVICE adds struct pages in units of this size */
	if (p2p_pages)
		size = ALIGN_DOWN(size, SZ_2M);
	if (!size)
		return 0;

	if (p2p_pages) {
		err = vsvm_add_pages(vdev, size);
		if (err)
			return err;
	}

	err = hmm_window_set(&vdev->pgmap, vdev->pdev, VSVM_BAR, 0, size);
	if (err) {
		drm_info(&vdev->drm, "no peer-to-peer access to VRAM (%pe)\n",
			 ERR_PTR(err));
		return 0;
	}

	vdev->window_size = size;
	if (!cpu_map)
		return 0;

	iosys_map_set_vaddr(&vdev->vram_map, vdev->vram);
	return hmm_window_set_map(&vdev->pgmap, &vdev->vram_map, size);
}

static void vsvm_release_region(struct drm_device *drm, void *data)
{
	struct resource *res = to_vsvm(drm)->pgmap_res;

	release_mem_region(res->start, resource_size(res));
}

static void vsvm_revoke_window(void *data)
{
	struct vsvm_device *vdev = data;

	hmm_window_revoke(&vdev->pgmap);
}

static void vsvm_unmap_pages(struct drm_device *drm, void *data)
{
	memunmap_pages(&to_vsvm(drm)->pgmap);
}

/**
 * vsvm_vram_init() - set up VRAM
 * @vdev: the GPU, with BAR 2 mapped
 *
 * The release of the DRM device, which pages in use keep alive, undoes all of
 * this except for devres.
 *
 * Return: 0, or a negative errno.
 */
int vsvm_vram_init(struct vsvm_device *vdev)
{
	struct dev_pagemap *pgmap = &vdev->pgmap;
	void *addr;
	int err;

	spin_lock_init(&vdev->bo_lock);
	INIT_LIST_HEAD(&vdev->bos);
	init_llist_head(&vdev->bo_free);
	INIT_WORK(&vdev->bo_free_work, bo_free_work);
	init_completion(&vdev->dpagemap_idle);
	vsvm_gate_init(&vdev->copies);

	err = drmm_mutex_init(&vdev->drm, &vdev->lock);
	if (err)
		return err;

	err = gpu_buddy_init(&vdev->buddy, vdev->vram_size, PAGE_SIZE);
	if (err)
		return err;

	err = drmm_add_action_or_reset(&vdev->drm, vsvm_vram_fini, NULL);
	if (err)
		return err;

	vdev->pgmap_res = request_free_mem_region(&iomem_resource,
						  vdev->vram_size, "vsvm");
	if (IS_ERR(vdev->pgmap_res))
		return PTR_ERR(vdev->pgmap_res);

	err = drmm_add_action_or_reset(&vdev->drm, vsvm_release_region, NULL);
	if (err)
		return err;

	pgmap->type = MEMORY_DEVICE_PRIVATE;
	pgmap->owner = vdev;
	pgmap->range.start = vdev->pgmap_res->start;
	pgmap->range.end = vdev->pgmap_res->end;
	pgmap->nr_range = 1;
	vdev->pgmap_ops = *drm_pagemap_pagemap_ops_get();
	vdev->pgmap_ops.migrate_to_ram = migrate_to_ram;
	pgmap->ops = &vdev->pgmap_ops;
	err = vsvm_add_window(vdev);
	if (err)
		return err;

	addr = memremap_pages(pgmap, NUMA_NO_NODE);
	if (IS_ERR(addr))
		return PTR_ERR(addr);

	err = drmm_add_action_or_reset(&vdev->drm, vsvm_unmap_pages, NULL);
	if (err)
		return err;

	/* The BAR goes earlier than the pages */
	err = devm_add_action_or_reset(vdev->drm.dev, vsvm_revoke_window, vdev);
	if (err)
		return err;

	err = drm_pagemap_init(&vdev->dpagemap, pgmap, &vdev->drm,
			       &vsvm_pagemap_ops);
	if (err)
		return err;

	drm_pagemap_put(&vdev->dpagemap);
	return 0;
}
