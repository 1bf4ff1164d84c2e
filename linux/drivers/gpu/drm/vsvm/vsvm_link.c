// SPDX-License-Identifier: GPL-2.0
/*
 * Links: a private interconnect between GPUs. They are what the parameter "links"
 * of the module says, and come and go with it.
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

/* To change links. What notifiers of all processes take comes after it. */
static DEFINE_MUTEX(vsvm_links_mutex);

/*
 * Held for reading while pages are copied over links, which is under mmap locks,
 * and with the mutex for writing when a link has gone.
 */
static DECLARE_RWSEM(vsvm_links_lock);

static struct vsvm_device __rcu *vsvm_gpus[VSVM_MAX_GPUS];

/* Which GPUs each of them should reach. */
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

/* When this returns, nobody uses the link any more. */
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

	/* Who gets a page from now on may ask at once whether there is a link */
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

/* "0-1,1>2": a link both ways; a link by which only 1 reaches 2. */
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
 * vsvm_link_init() - set up what links need
 * @vdev: the GPU
 *
 * Return: 0, or a negative errno.
 */
int vsvm_link_init(struct vsvm_device *vdev)
{
	hmm_peers_init(&vdev->peers, vdev->drm.dev);
	return drmm_add_action_or_reset(&vdev->drm, vsvm_link_fini, NULL);
}

/**
 * vsvm_link_add() - let a GPU have its links, and others find its VRAM
 * @vdev: the GPU, ready but for its users
 *
 * A link for which there is no memory stays down, until links are set anew.
 *
 * Return: 0, or -ENOSPC if there are as many GPUs as the driver can have.
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
 * @vdev: the GPU; nobody uses its memory any more
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
 * vsvm_link_lock() - keep the links as they are
 *
 * For a copy, and no longer: to take one away is to wait for all readers.
 *
 * Context: May sleep. Until vsvm_link_unlock(); taken after the lock of a page.
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
 * Context: Any. The answer holds under vsvm_link_lock(), or as long as what
 * hmm_range_fault() has resolved for @dev is valid.
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
 * @vaddr: the kernel's address
 *
 * Context: Any. The GPU is there as long as what has led to @vaddr is valid.
 * Return: the GPU; NULL if it is other memory.
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
 * vsvm_link_holds() - does a GPU still reach VRAM of another over a link?
 * @from: the GPU
 * @vram: the kernel's address of the VRAM
 *
 * Context: Under vsvm_link_lock().
 */
bool vsvm_link_holds(struct vsvm_device *from, const void *vram)
{
	struct vsvm_device *to = vsvm_owner(vram);

	return to && test_bit(to->index, &from->linked);
}

/**
 * vsvm_bar_to_vram() - find the VRAM behind an address of the PCI bus
 * @phys: the address, of a valid alias
 *
 * Engines are played by the CPU, which has VRAM mapped already.
 *
 * Return: the kernel's address; NULL if it is not VRAM of a GPU of this driver.
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
