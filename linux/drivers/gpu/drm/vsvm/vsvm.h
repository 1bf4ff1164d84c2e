/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _VSVM_H_
#define _VSVM_H_

#include <linux/completion.h>
#include <linux/gpu_buddy.h>
#include <linux/hmm_peers.h>
#include <linux/iosys-map.h>
#include <linux/list.h>
#include <linux/llist.h>
#include <linux/memremap.h>
#include <linux/mutex.h>
#include <linux/spinlock.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include <drm/drm_device.h>
#include <drm/drm_gpusvm.h>
#include <drm/drm_pagemap.h>

struct pci_dev;

/* The BAR that holds the VRAM */
#define VSVM_BAR		2

/* The device address is an offset into VRAM. It needs no DMA mapping. */
#define VSVM_PROTO_VRAM		DRM_INTERCONNECT_DRIVER

/* The device address is a kernel virtual address in a linked GPU's VRAM. */
#define VSVM_PROTO_LINK		(DRM_INTERCONNECT_DRIVER + 1)

/**
 * struct vsvm_gate - keeps accesses to VRAM out while a GPU is reset
 * @lock: protects @users and @closed
 * @wait: woken when @users or @closed becomes zero
 * @users: accesses that are going on
 * @closed: resets that are going on
 */
struct vsvm_gate {
	spinlock_t lock; /* see above */
	wait_queue_head_t wait;
	unsigned int users;
	unsigned int closed;
};

/* Gate of all engines: an engine may access the VRAM of another GPU. */
extern struct vsvm_gate vsvm_engines;

/**
 * struct vsvm_device - a GPU
 * @drm: base
 * @pdev: the PCI function
 * @vram: kernel mapping of BAR 2, through which the engines access VRAM
 * @vram_map: the same, for importers that copy with the CPU
 * @vram_size: length of BAR 2 in bytes
 * @copies: gate of the copies from and to @vram
 * @window_size: size of the part of VRAM that peers may reach, in bytes
 * @p2p_pool: all memory of the P2PDMA pages, or NULL if there are none
 * @p2p_pool_size: length of @p2p_pool in bytes
 * @pgmap: the device-private pages, one for each page of VRAM. They can outlive
 *	the PCI device, see vsvm_vram_lose()
 * @pgmap_ops: operations of drm_pagemap, with our own migrate_to_ram()
 * @pgmap_res: physical address range of the device-private pages
 * @index: number of the GPU, as in the module parameter links
 * @peers: the pagemaps of the GPUs to which it has links
 * @linked: the same as a bitmap of GPU indices. Changes under the mutex of
 *	vsvm_link.c; a link goes down with the rwsem held for writing as well
 * @dpagemap: the drm_pagemap of @pgmap. It pins the module, so a reference is
 *	held only while files are open or pages are in use
 * @dpagemap_idle: completed when @dpagemap has no reference
 * @files_lock: protects @files. Taken before &vsvm_file.lock
 * @files: open files
 * @lock: protects @buddy, and serializes taking the first reference on
 *	@dpagemap. Taken after &vsvm_file.lock and the mmap lock
 * @buddy: allocator of VRAM
 * @bo_lock: protects @bos, and @closed. Taken in any context
 * @bos: allocations in use, the latest first
 * @closed: new allocations fail
 * @lost: the contents of VRAM are gone
 * @bo_free: allocations that are no longer in use
 * @bo_free_work: frees @bo_free, because the last reference on an allocation
 *	may be dropped in any context
 * @pages_to_vram: see &struct drm_vsvm_counters
 * @pages_to_ram: see &struct drm_vsvm_counters
 * @pages_to_peers: see &struct drm_vsvm_counters
 */
struct vsvm_device {
	struct drm_device drm;
	struct pci_dev *pdev;

	void *vram;
	struct iosys_map vram_map;
	u64 vram_size;
	struct vsvm_gate copies;
	u64 window_size;
	void *p2p_pool;
	u64 p2p_pool_size;

	unsigned int index;
	struct hmm_peers peers;
	unsigned long linked;

	struct dev_pagemap pgmap;
	struct dev_pagemap_ops pgmap_ops;
	struct resource *pgmap_res;
	struct drm_pagemap dpagemap;
	struct completion dpagemap_idle;

	struct mutex files_lock; /* see above */
	struct list_head files;

	struct mutex lock; /* see above */
	struct gpu_buddy buddy;

	spinlock_t bo_lock; /* see above */
	struct list_head bos;
	bool closed;
	bool lost;
	struct llist_head bo_free;
	struct work_struct bo_free_work;

	atomic64_t pages_to_vram;
	atomic64_t pages_to_ram;
	atomic64_t pages_to_peers;
};

/**
 * struct vsvm_file - an open file: the address space of a process on a GPU
 * @vdev: the GPU
 * @svm: the ranges of the process that the GPU has used
 * @lock: serializes insertion and removal of ranges. Held across page faults,
 *	which user space can delay without limit
 * @ranges_lock: protects the lists of ranges, and @revoked
 * @ranges: all ranges that have not been revoked
 * @unmapped: ranges to remove, because the process has unmapped their memory
 * @idle: other invalidated ranges; some may have been mapped again
 * @nr_idle: length of @idle
 * @revoked: the GPU gets no more mappings
 * @link: in &vsvm_device.files
 */
struct vsvm_file {
	struct vsvm_device *vdev;
	struct drm_gpusvm svm;
	struct mutex lock; /* see above */
	spinlock_t ranges_lock; /* see above */
	struct list_head ranges;
	struct list_head unmapped;
	struct list_head idle;
	unsigned int nr_idle;
	bool revoked;
	struct list_head link;
};

static inline struct vsvm_device *to_vsvm(struct drm_device *drm)
{
	return container_of(drm, struct vsvm_device, drm);
}

/* vsvm_gate.c */
void vsvm_gate_init(struct vsvm_gate *gate);
void vsvm_gate_enter(struct vsvm_gate *gate);
bool vsvm_gate_try_enter(struct vsvm_gate *gate);
void vsvm_gate_leave(struct vsvm_gate *gate);
void vsvm_gate_wait(struct vsvm_gate *gate);
void vsvm_gate_close(struct vsvm_gate *gate);
void vsvm_gate_open(struct vsvm_gate *gate);

/* vsvm_link.c */
int vsvm_link_init(struct vsvm_device *vdev);
int vsvm_link_add(struct vsvm_device *vdev);
void vsvm_link_remove(struct vsvm_device *vdev);
void vsvm_link_lock(void);
void vsvm_link_unlock(void);
struct vsvm_device *vsvm_owner(const void *vaddr);
bool vsvm_link_reaches(struct device *dev, struct vsvm_device *vdev);
bool vsvm_link_holds(struct vsvm_device *from, const void *vram);
void *vsvm_bar_to_vram(phys_addr_t phys);

/* vsvm_svm.c */
int vsvm_svm_init(struct vsvm_file *vfile);
void vsvm_svm_fini(struct vsvm_file *vfile);
void vsvm_svm_revoke(struct vsvm_file *vfile);
int vsvm_prefetch_ioctl(struct drm_device *drm, void *data,
			struct drm_file *file);
int vsvm_op_ioctl(struct drm_device *drm, void *data, struct drm_file *file);
int vsvm_residency_ioctl(struct drm_device *drm, void *data,
			 struct drm_file *file);

/* vsvm_vram.c */
int vsvm_vram_init(struct vsvm_device *vdev);
void vsvm_vram_make_way(struct vsvm_device *vdev, const struct mm_struct *mm);
int vsvm_vram_evict(struct vsvm_device *vdev, bool patient);
void vsvm_vram_close(struct vsvm_device *vdev);
bool vsvm_vram_is_there(struct vsvm_device *vdev);
void vsvm_vram_lose(struct vsvm_device *vdev);
void vsvm_vram_scrub(struct vsvm_device *vdev);
int vsvm_pagemap_get(struct vsvm_device *vdev);
u64 vsvm_vram_free(struct vsvm_device *vdev);
void *vsvm_map_page(struct vsvm_device *vdev,
		    const struct drm_pagemap_addr *addr, unsigned long offset);
void vsvm_unmap_page(const struct drm_pagemap_addr *addr, void *vaddr);

#endif /* _VSVM_H_ */
