// SPDX-License-Identifier: GPL-2.0
/*
 * Links: a private interconnect between GPUs. The module parameter "links" says
 * which links exist. Writing it brings links up and takes them down.
 */
#include <linux/bitops.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pci.h>
#include <linux/rwsem.h>
#include <linux/string.h>

#include <drm/drm_managed.h>

#include "vsvm.h"

#define VSVM_MAX_GPUS	8

/* Serializes changes of links. Taken before all locks that notifiers take. */
static DEFINE_MUTEX(vsvm_links_mutex);

/*
 * Held for reading, under mmap locks, while pages are copied over links. Held
 * for writing, with the mutex held as well, to mark a link as down and to
 * change vsvm_gpus[].
 */
static DECLARE_RWSEM(vsvm_links_lock);

static struct vsvm_device __rcu *vsvm_gpus[VSVM_MAX_GPUS];

/* For each GPU, a bitmap of the GPUs that it should reach. */
static u8 vsvm_links[VSVM_MAX_GPUS];

static struct vsvm_device *gpu(int index)
{
	return rcu_dereference_protected(vsvm_gpus[index],
					 lockdep_is_held(&vsvm_links_mutex) ||
					 lockdep_is_held(&vsvm_links_lock));
}

static void gpu_set(int index, struct vsvm_device *vdev)
{
	down_write(&vsvm_links_lock);
	rcu_assign_pointer(vsvm_gpus[index], vdev);
	up_write(&vsvm_links_lock);
}

/* When this returns, the link is no longer in use. */
static void link_down(struct vsvm_device *from, struct vsvm_device *to)
{
	hmm_peers_remove(&from->peers, &to->pgmap);

	down_write(&vsvm_links_lock);
	clear_bit(to->index, &from->linked);
	up_write(&vsvm_links_lock);
}

static int link_apply(struct vsvm_device *from, struct vsvm_device *to)
{
	bool up = from && to && (vsvm_links[from->index] & BIT(to->index));
	int err;

	if (!from || !to || from == to || up == test_bit(to->index, &from->linked))
		return 0;

	if (!up) {
		link_down(from, to);
		return 0;
	}

	/* vsvm_link_reaches() must find the link once a page is handed out */
	set_bit(to->index, &from->linked);
	err = hmm_peers_add(&from->peers, &to->pgmap);
	if (err)
		clear_bit(to->index, &from->linked);

	return err;
}

static int links_apply(void)
{
	int from, to, err = 0;

	for (from = 0; from < VSVM_MAX_GPUS; from++)
		for (to = 0; to < VSVM_MAX_GPUS; to++)
			err = link_apply(gpu(from), gpu(to)) ?: err;

	return err;
}

/* "0-1,1>2": 0 and 1 reach each other; 1 reaches 2, but 2 does not reach 1. */
static int links_parse(const char *val, u8 links[VSVM_MAX_GPUS])
{
	unsigned int from, to;
	char way;
	int n;

	memset(links, 0, VSVM_MAX_GPUS);
	for (val = skip_spaces(val); *val; val += n) {
		if (sscanf(val, "%1u%c%1u%n", &from, &way, &to, &n) != 3 ||
		    from >= VSVM_MAX_GPUS || to >= VSVM_MAX_GPUS || from == to ||
		    (way != '-' && way != '>'))
			return -EINVAL;

		links[from] |= BIT(to);
		if (way == '-')
			links[to] |= BIT(from);

		if (!*skip_spaces(val + n))
			break;
		if (val[n++] != ',')
			return -EINVAL;
	}

	return 0;
}

static int links_set(const char *val, const struct kernel_param *kp)
{
	u8 links[VSVM_MAX_GPUS];
	int err;

	err = links_parse(val, links);
	if (err)
		return err;

	guard(mutex)(&vsvm_links_mutex);

	memcpy(vsvm_links, links, sizeof(links));
	return links_apply();
}

static int links_get(char *buf, const struct kernel_param *kp)
{
	int from, to, len = 0;

	guard(mutex)(&vsvm_links_mutex);

	for (from = 0; from < VSVM_MAX_GPUS; from++) {
		for (to = 0; to < VSVM_MAX_GPUS; to++) {
			bool back = vsvm_links[to] & BIT(from);

			if (!(vsvm_links[from] & BIT(to)) || (back && to < from))
				continue;
			len += sysfs_emit_at(buf, len, "%s%d%c%d",
					     len ? "," : "", from,
					     back ? '-' : '>', to);
		}
	}

	return len + sysfs_emit_at(buf, len, "\n");
}

static const struct kernel_param_ops links_ops = {
	.set = links_set,
	.get = links_get,
};
module_param_cb(links, &links_ops, NULL, 0644);
MODULE_PARM_DESC(links, "private links between GPUs, such as 0-1,1>2: both ways, or only from the first to the memory of the second");

static void vsvm_link_fini(struct drm_device *drm, void *data)
{
	hmm_peers_fini(&to_vsvm(drm)->peers);
}

/**
 * vsvm_link_init() - initialize the set of links of a GPU
 * @vdev: the GPU
 *
 * Return: 0, or a negative errno.
 */
int vsvm_link_init(struct vsvm_device *vdev)
{
	hmm_peers_init(&vdev->peers);
	return drmm_add_action_or_reset(&vdev->drm, vsvm_link_fini, NULL);
}

/**
 * vsvm_link_add() - bring up the links of a GPU, and make its VRAM known
 * @vdev: the GPU, ready for use, but without users yet
 *
 * A link for which memory allocation fails stays down until links are set
 * again.
 *
 * Return: 0, or -ENOSPC if the driver has as many GPUs as it supports.
 */
int vsvm_link_add(struct vsvm_device *vdev)
{
	guard(mutex)(&vsvm_links_mutex);

	for (vdev->index = 0; vdev->index < VSVM_MAX_GPUS; vdev->index++) {
		if (!gpu(vdev->index)) {
			gpu_set(vdev->index, vdev);
			links_apply();
			return 0;
		}
	}

	return -ENOSPC;
}

/**
 * vsvm_link_remove() - undo vsvm_link_add()
 * @vdev: the GPU, after vsvm_vram_evict() if it had users
 */
void vsvm_link_remove(struct vsvm_device *vdev)
{
	int i;

	guard(mutex)(&vsvm_links_mutex);

	for (i = 0; i < VSVM_MAX_GPUS; i++) {
		struct vsvm_device *other = gpu(i);

		if (!other || other == vdev)
			continue;
		link_down(other, vdev);
		link_down(vdev, other);
	}
	gpu_set(vdev->index, NULL);
	synchronize_rcu();
}

/**
 * vsvm_link_lock() - keep links from going down
 *
 * Hold the lock for one copy, not longer: taking a link down waits for all
 * readers.
 *
 * Context: May sleep. Held until vsvm_link_unlock(). Taken after page locks.
 */
void vsvm_link_lock(void)
{
	down_read(&vsvm_links_lock);
}

void vsvm_link_unlock(void)
{
	up_read(&vsvm_links_lock);
}

/**
 * vsvm_link_reaches() - does a device reach the memory of a GPU over a link?
 * @dev: the device
 * @vdev: the GPU
 *
 * Context: Any. The answer holds under vsvm_link_lock(), or as long as the
 * entries that hmm_range_fault() has resolved for @dev are valid.
 */
bool vsvm_link_reaches(struct device *dev, struct vsvm_device *vdev)
{
	struct vsvm_device *from;

	if (dev->driver != vdev->drm.dev->driver)
		return false;

	from = dev_get_drvdata(dev);
	return test_bit(vdev->index, &from->linked);
}

/**
 * vsvm_owner() - find the GPU whose VRAM is at an address
 * @vaddr: the kernel virtual address
 *
 * Context: Any. The GPU exists as long as the mapping that @vaddr comes from is
 * valid.
 * Return: the GPU; NULL if @vaddr is other memory.
 */
struct vsvm_device *vsvm_owner(const void *vaddr)
{
	int i;

	guard(rcu)();
	for (i = 0; i < VSVM_MAX_GPUS; i++) {
		struct vsvm_device *vdev = rcu_dereference(vsvm_gpus[i]);

		if (vdev && vaddr >= vdev->vram &&
		    vaddr < vdev->vram + vdev->vram_size)
			return vdev;
	}

	return NULL;
}

/**
 * vsvm_link_holds() - does a GPU still reach VRAM of another GPU over a link?
 * @from: the GPU
 * @vram: kernel virtual address of the VRAM
 *
 * Context: Under vsvm_link_lock().
 */
bool vsvm_link_holds(struct vsvm_device *from, const void *vram)
{
	struct vsvm_device *to = vsvm_owner(vram);

	return to && test_bit(to->index, &from->linked);
}

/**
 * vsvm_bar_to_vram() - find the VRAM behind an address on the PCI bus
 * @phys: the address, of a valid alias
 *
 * The CPU does the work of the engines, and has VRAM mapped already.
 *
 * Return: the kernel virtual address; NULL if @phys is not VRAM of a GPU of
 * this driver.
 */
void *vsvm_bar_to_vram(phys_addr_t phys)
{
	int i;

	guard(rcu)();
	for (i = 0; i < VSVM_MAX_GPUS; i++) {
		struct vsvm_device *vdev = rcu_dereference(vsvm_gpus[i]);

		if (vdev && phys - pci_resource_start(vdev->pdev, VSVM_BAR) <
			    vdev->vram_size)
			return vdev->vram + (phys - pci_resource_start(vdev->pdev,
								       VSVM_BAR));
	}

	return NULL;
}
