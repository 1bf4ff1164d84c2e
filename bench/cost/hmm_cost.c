// SPDX-License-Identifier: GPL-2.0
/*
 * Measures the cost of hmm_range_fault() and hmm_dma_map_pfn(), in ticks of the
 * time stamp counter. With ICOUNT=1 of lab/run, a tick is an instruction.
 *
 * Builds with our series and without it, so that the two can be compared.
 */
#include <linux/dma-mapping.h>
#include <linux/hmm.h>
#include <linux/hmm-dma.h>
#include <linux/memremap.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/pci-p2pdma.h>
#include <linux/uaccess.h>
#include <asm/tsc.h>

#include "hmm_cost.h"

static struct pci_dev *cost_edu;

struct cost_mirror {
	struct mmu_interval_notifier notifier;
	struct mutex lock; /* protects @map */
	struct hmm_dma_map map;
	unsigned long start;
	u64 unmap_ticks;
};

/* Like that of hmm_edu, but with a clock. */
static bool cost_invalidate(struct mmu_interval_notifier *notifier,
			    const struct mmu_notifier_range *range,
			    unsigned long seq)
{
	struct cost_mirror *mirror =
		container_of(notifier, struct cost_mirror, notifier);
	struct interval_tree_node *node = &notifier->interval_tree;
	unsigned long addr, end;
	u64 start = rdtsc();

	mutex_lock(&mirror->lock);
	mmu_interval_set_seq(notifier, seq);

	addr = max(range->start, node->start);
	end = min(range->end - 1, node->last);
	for (; addr <= end; addr += PAGE_SIZE) {
		size_t idx = (addr - mirror->start) >> PAGE_SHIFT;

		hmm_dma_unmap_pfn(&cost_edu->dev, &mirror->map, idx);
		mirror->map.pfn_list[idx] = 0;
	}

	mutex_unlock(&mirror->lock);
	mirror->unmap_ticks += rdtsc() - start;
	return true;
}

static const struct mmu_interval_notifier_ops cost_ops = {
	.invalidate = cost_invalidate,
};

static void *cost_owner(unsigned long pfn)
{
	if (!pfn_valid(pfn) || !is_device_private_page(pfn_to_page(pfn)))
		return NULL;
	return page_pgmap(pfn_to_page(pfn))->owner;
}

static int cost_fault(struct cost_mirror *mirror, struct hmm_cost_run *run)
{
	struct hmm_range range = {
		.notifier = &mirror->notifier,
		.start = run->addr,
		.end = run->addr + run->size,
		.hmm_pfns = mirror->map.pfn_list,
		.default_flags = HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE,
		.dev_private_owner = cost_owner(run->owner_pfn),
	};
	u64 start;
	int err;

#ifdef CONFIG_HMM_P2PDMA
	struct hmm_client client = {
		.dma_dev = run->flags & HMM_COST_DMA ? &cost_edu->dev : NULL,
		.cpu = !(run->flags & HMM_COST_DMA),
	};

	if (run->flags & HMM_COST_CLIENT)
		range.client = &client;
#else
	if (run->flags & HMM_COST_CLIENT)
		return -EOPNOTSUPP;
#endif

	start = rdtsc();
	err = hmm_range_fault_unlocked_timeout(&range, 0);
	run->fault = rdtsc() - start;
	return err;
}

static void cost_count(struct cost_mirror *mirror, struct hmm_cost_run *run)
{
	unsigned long i;

	for (i = 0; i < run->size >> PAGE_SHIFT; i++) {
		unsigned long pfn = mirror->map.pfn_list[i];

		run->huge += !!hmm_pfn_to_map_order(pfn);
#ifdef CONFIG_HMM_P2PDMA
		if (hmm_pfn_is_alias(pfn)) {
			run->aliases++;
			continue;
		}
#endif
		run->private += is_device_private_page(hmm_pfn_to_page(pfn));
	}
}

static int cost_map(struct cost_mirror *mirror, struct hmm_cost_run *run)
{
	struct pci_p2pdma_map_state state = {};
	struct device *dev = &cost_edu->dev;
	unsigned long i, n = run->size >> PAGE_SHIFT;
	u64 start;
	int err = 0;

	mutex_lock(&mirror->lock);
	start = rdtsc();
	for (i = 0; i < n; i++)
		if (dma_mapping_error(dev, hmm_dma_map_pfn(dev, &mirror->map,
							   i, &state)))
			err = -EIO;
	run->map = rdtsc() - start;

	for (i = 0; i < n; i++)
		run->bus += !!(mirror->map.pfn_list[i] & HMM_PFN_P2PDMA_BUS);
	mutex_unlock(&mirror->lock);
	if (err)
		return err;

	err = vm_munmap(run->addr, run->size);
	run->unmap = mirror->unmap_ticks;
	return err;
}

static int cost_run(struct hmm_cost_run *run)
{
	struct device *dev = &cost_edu->dev;
	struct cost_mirror *mirror;
	size_t i, n = run->size >> PAGE_SHIFT;
	int err;

	if (!n || !PAGE_ALIGNED(run->addr | run->size))
		return -EINVAL;

	mirror = kzalloc_obj(*mirror);
	if (!mirror)
		return -ENOMEM;

	mutex_init(&mirror->lock);
	mirror->start = run->addr;
	err = hmm_dma_map_alloc(dev, &mirror->map, n, PAGE_SIZE);
	if (err)
		goto out_free;
	err = mmu_interval_notifier_insert(&mirror->notifier, current->mm,
					   run->addr, run->size, &cost_ops);
	if (err)
		goto out_map;

	err = cost_fault(mirror, run);
	if (!err) {
		cost_count(mirror, run);
		if (run->flags & HMM_COST_DMA)
			err = cost_map(mirror, run);
	}

	mmu_interval_notifier_remove(&mirror->notifier);
	for (i = 0; i < n; i++)
		hmm_dma_unmap_pfn(dev, &mirror->map, i);
out_map:
	hmm_dma_map_free(dev, &mirror->map);
out_free:
	mutex_destroy(&mirror->lock);
	kfree(mirror);
	return err;
}

static long cost_ioctl(struct file *file, unsigned int cmd, unsigned long arg)
{
	struct hmm_cost_run run;
	int err;

	if (cmd != HMM_COST_RUN)
		return -ENOTTY;
	if (copy_from_user(&run, (void __user *)arg, sizeof(run)))
		return -EFAULT;
	err = cost_run(&run);
	if (!err && copy_to_user((void __user *)arg, &run, sizeof(run)))
		return -EFAULT;
	return err;
}

static const struct file_operations cost_fops = {
	.owner		= THIS_MODULE,
	.unlocked_ioctl	= cost_ioctl,
};

static struct miscdevice cost_misc = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "hmm_cost",
	.fops	= &cost_fops,
};

static int __init cost_init(void)
{
	int err;

	cost_edu = pci_get_device(0x1234, 0x11e8, NULL);
	if (!cost_edu)
		return -ENODEV;

	/* There may be no driver that has set the mask. */
	err = dma_set_mask_and_coherent(&cost_edu->dev, DMA_BIT_MASK(64));
	if (!err)
		err = misc_register(&cost_misc);
	if (err)
		pci_dev_put(cost_edu);
	return err;
}
module_init(cost_init);

static void __exit cost_exit(void)
{
	misc_deregister(&cost_misc);
	pci_dev_put(cost_edu);
}
module_exit(cost_exit);

MODULE_DESCRIPTION("What HMM costs an importer");
MODULE_LICENSE("GPL");
