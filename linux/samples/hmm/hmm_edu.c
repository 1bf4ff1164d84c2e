// SPDX-License-Identifier: GPL-2.0
/*
 * A device that reaches the memory of a process by DMA, in system memory or in
 * the private memory of other devices.
 *
 * The device is QEMU's edu: a DMA engine and a buffer of 4 KiB. It copies memory
 * of a process, system memory or the private memory of other devices, without
 * pinning. An importer needs these parts, in the order in which to write them:
 *
 * - a mirror of a range: interval notifier, HMM entries, DMA mapping
 * - mirror_invalidate(): unmap pages, and wait for DMA to them that is in
 *   progress
 * - mirror_fault(): make a page present. User space may provide the page, and
 *   may take any time, so hold no lock that other processes need
 * - mirror_begin(): get an address that is valid until mirror_end()
 * - the engine, which must stop before mirror_end()
 *
 * The device does not report whether a transfer has failed. If your device
 * does, check it: after a failed transfer its buffer still has the data of an
 * earlier transfer, perhaps of another process.
 */
#include <linux/completion.h>
#include <linux/dma-mapping.h>
#include <linux/freezer.h>
#include <linux/hmm.h>
#include <linux/hmm-dma.h>
#include <linux/hmm_p2pdma.h>
#include <linux/interrupt.h>
#include <linux/iopoll.h>
#include <linux/miscdevice.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/pci-p2pdma.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>
#include <linux/wait.h>

#include "hmm_access.h"
#include "hmm_edu.h"

/* Registers, in BAR 0 */
#define EDU_ID			0x00
#define   EDU_ID_MASK		0x0000ffff
#define   EDU_ID_VALUE		0x000000ed
#define EDU_IRQ_STATUS		0x24
#define EDU_IRQ_ACK		0x64
#define   EDU_IRQ_DMA		0x100
#define EDU_DMA_SRC		0x80
#define EDU_DMA_DST		0x88
#define EDU_DMA_COUNT		0x90
#define EDU_DMA_CMD		0x98
#define   EDU_DMA_RUN		BIT(0)
#define   EDU_DMA_FROM_DEVICE	BIT(1)
#define   EDU_DMA_IRQ		BIT(2)

/* The device's buffer, in the device's address space */
#define EDU_BUFFER		0x40000
#define EDU_BUFFER_SIZE		0x1000

/* A transfer takes 100 ms. */
#define EDU_TIMEOUT_MS		2000

static uint dma_bits = 28;
module_param(dma_bits, uint, 0444);
MODULE_PARM_DESC(dma_bits, "width of the addresses that the device can use, as in QEMU's dma_mask= (default: 28). The device cuts off the upper bits of wider addresses, without an error");

/* Retries of a fault when the page has gone before the engine is free */
#define EDU_TRIES		10

/**
 * struct edu - a device
 * @pdev: the PCI function
 * @regs: BAR 0
 * @misc: the character device
 * @ref: held by the probed device, and by open files
 * @lock: protects @mirrors, and their mappings against removal of the device
 * @mirrors: all attached mirrors
 * @engine: serializes transfers. Not held across page faults
 * @gone: the device has been removed, or hangs: written under @lock or @engine
 * @in_reset: no transfer may begin: written under @engine
 * @reset_over: woken when @in_reset has been cleared
 * @done: a transfer has ended
 */
struct edu {
	struct pci_dev *pdev;
	void __iomem *regs;
	struct miscdevice misc;
	struct kref ref;
	struct mutex lock; /* see above */
	struct list_head mirrors;
	struct mutex engine; /* see above */
	bool gone;
	bool in_reset;
	wait_queue_head_t reset_over;
	struct completion done;
};

/**
 * struct edu_mirror - a range of the current process, as the device sees it
 * @notifier: is called when the range changes
 * @lock: held to check that @map is valid, see mmu_interval_read_retry(). Also
 *	protects @busy and @stale. Not held across transfers
 * @idle: woken when the device no longer accesses @busy
 * @map: HMM entries and DMA addresses of the pages that the device has used.
 *	The list of entries is NULL once the device is gone
 * @node: in the device's list
 * @edu: the device
 * @busy: the page that the device accesses, or ULONG_MAX
 * @stale: @busy has been invalidated
 * @start: start of the range, page aligned
 * @nr_pages: length of the range in pages
 * @write: the device writes to the range
 * @brief: pages are mapped for one transfer only, so that they can be bounced
 * @no_alias: memory of other devices must migrate to system memory
 * @dma_addr: address that is mapped only for the current transfer
 * @dma_len: length of that mapping, or zero
 * @dma_type: how @dma_addr was mapped, if it is an alias
 */
struct edu_mirror {
	struct mmu_interval_notifier notifier;
	struct mutex lock; /* see above */
	wait_queue_head_t idle;
	struct hmm_dma_map map;
	struct list_head node;
	struct edu *edu;
	unsigned long busy;
	bool stale;
	unsigned long start;
	size_t nr_pages;
	bool write;
	bool brief;
	bool no_alias;
	dma_addr_t dma_addr;
	size_t dma_len;
	enum pci_p2pdma_map_type dma_type;
};

static struct device *mirror_dev(const struct edu_mirror *mirror)
{
	return &mirror->edu->pdev->dev;
}

static enum dma_data_direction mirror_dir(const struct edu_mirror *mirror)
{
	return mirror->write ? DMA_FROM_DEVICE : DMA_TO_DEVICE;
}

/* Drop a page. Called with the mirror's lock held. */
static void mirror_drop(struct edu_mirror *mirror, size_t idx)
{
	if (!mirror->brief)
		hmm_dma_unmap_pfn(mirror_dev(mirror), &mirror->map, idx);
	mirror->map.pfn_list[idx] = 0;
}

static bool mirror_is_busy(struct edu_mirror *mirror, unsigned long start,
			   unsigned long end)
{
	unsigned long busy = READ_ONCE(mirror->busy);

	return busy >= start && busy < end;
}

static bool mirror_invalidate(struct mmu_interval_notifier *notifier,
			      const struct mmu_notifier_range *range,
			      unsigned long seq)
{
	struct edu_mirror *mirror =
		container_of(notifier, struct edu_mirror, notifier);
	struct interval_tree_node *node = &notifier->interval_tree;
	unsigned long start = max(range->start, node->start);
	unsigned long end = min(range->end, node->last + 1), addr;
	bool busy;

	if (mmu_notifier_range_blockable(range))
		mutex_lock(&mirror->lock);
	else if (!mutex_trylock(&mirror->lock))
		return false;

	mmu_interval_set_seq(notifier, seq);

	busy = mirror_is_busy(mirror, start, end);
	mirror->stale |= busy;
	for (addr = start; addr < end && mirror->map.pfn_list; addr += PAGE_SIZE)
		if (addr != mirror->busy)
			mirror_drop(mirror, (addr - mirror->start) >> PAGE_SHIFT);

	mutex_unlock(&mirror->lock);
	if (!busy)
		return true;
	if (!mmu_notifier_range_blockable(range))
		return false;

	/* No part of the range becomes busy again before this returns */
	wait_event(mirror->idle, !mirror_is_busy(mirror, start, end));
	return true;
}

static const struct mmu_interval_notifier_ops mirror_ops = {
	.invalidate = mirror_invalidate,
};

static int mirror_attach(struct edu_mirror *mirror)
{
	struct edu *edu = mirror->edu;
	int err;

	guard(mutex)(&edu->lock);
	if (edu->gone)
		return -ENODEV;

	err = hmm_dma_map_alloc(&edu->pdev->dev, &mirror->map, mirror->nr_pages,
				PAGE_SIZE);
	if (err == -EOPNOTSUPP) {
		/*
		 * DMA may be bounced: map for each transfer, so that each
		 * transfer copies current data.
		 */
		mirror->brief = true;
		mirror->map.pfn_list = kvcalloc(mirror->nr_pages,
						sizeof(*mirror->map.pfn_list),
						GFP_KERNEL_ACCOUNT);
		err = mirror->map.pfn_list ? 0 : -ENOMEM;
	}
	if (!err)
		list_add(&mirror->node, &edu->mirrors);
	return err;
}

/* Drop all pages, at a time when no transfer is in progress. */
static void mirror_drop_all(struct edu_mirror *mirror)
{
	size_t idx;

	for (idx = 0; idx < mirror->nr_pages; idx++)
		mirror_drop(mirror, idx);
}

/* Undo DMA mappings: the driver core must find none when the device is gone. */
static void mirror_detach(struct edu_mirror *mirror)
{
	struct device *dev = mirror_dev(mirror);

	lockdep_assert_held(&mirror->edu->lock);
	if (list_empty(&mirror->node))
		return;
	list_del_init(&mirror->node);

	mutex_lock(&mirror->lock);
	mirror_drop_all(mirror);
	if (mirror->brief)
		kvfree(mirror->map.pfn_list);
	else
		hmm_dma_map_free(dev, &mirror->map);
	mirror->map.pfn_list = NULL;
	mutex_unlock(&mirror->lock);
}

static int mirror_init(struct edu_mirror *mirror, struct edu *edu,
		       unsigned long addr, unsigned long size, bool write)
{
	unsigned long end;
	int err;

	if (check_add_overflow(addr, size, &end) || end > TASK_SIZE)
		return -EFAULT;

	mirror->edu = edu;
	mirror->start = PAGE_ALIGN_DOWN(addr);
	mirror->nr_pages = (PAGE_ALIGN(end) - mirror->start) >> PAGE_SHIFT;
	mirror->write = write;
	mirror->busy = ULONG_MAX;
	mutex_init(&mirror->lock);
	init_waitqueue_head(&mirror->idle);
	INIT_LIST_HEAD(&mirror->node);
	err = mirror_attach(mirror);
	if (err)
		goto err_destroy;

	err = mmu_interval_notifier_insert(&mirror->notifier, current->mm,
					   mirror->start,
					   PFN_PHYS(mirror->nr_pages),
					   &mirror_ops);
	if (!err)
		return 0;

	scoped_guard(mutex, &edu->lock)
		mirror_detach(mirror);
err_destroy:
	mutex_destroy(&mirror->lock);
	/* Adding the first notifier of a process fails on any signal */
	return err == -EINTR ? -ERESTARTNOINTR : err;
}

static void mirror_fini(struct edu_mirror *mirror)
{
	/* Unmap first: without the notifier, no exporter waits for mappings */
	scoped_guard(mutex, &mirror->edu->lock)
		mirror_detach(mirror);
	mmu_interval_notifier_remove(&mirror->notifier);
	mutex_destroy(&mirror->lock);
}

static unsigned long *mirror_entry(struct edu_mirror *mirror, unsigned long addr)
{
	return &mirror->map.pfn_list[(addr - mirror->start) >> PAGE_SHIFT];
}

/* Fault in the page at @addr if it is not present. It may go at any time. */
static int mirror_fault(struct edu_mirror *mirror, unsigned long addr)
{
	unsigned long timeout = msecs_to_jiffies(HMM_RANGE_DEFAULT_TIMEOUT);
	struct hmm_client client = { .dma_dev = mirror_dev(mirror) };
	/* A walk may find a stale page: keep it out of the mirror's list */
	unsigned long pfn = 0;
	struct hmm_range range = {
		.notifier = &mirror->notifier,
		.start = PAGE_ALIGN_DOWN(addr),
		.end = PAGE_ALIGN_DOWN(addr) + PAGE_SIZE,
		.hmm_pfns = &pfn,
		.default_flags = HMM_PFN_REQ_FAULT |
				 (mirror->write ? HMM_PFN_REQ_WRITE : 0),
		.client = mirror->no_alias ? NULL : &client,
	};
	int err = 0;

	mutex_lock(&mirror->lock);
	while (mirror->map.pfn_list && !*mirror_entry(mirror, addr)) {
		mutex_unlock(&mirror->lock);

		if (fatal_signal_pending(current))
			return -EINTR;
		err = hmm_range_fault_unlocked_timeout(&range, timeout);
		if (!err)
			err = hmm_access_check(range.start, range.end,
					       mirror->write);
		if (err)
			return err;

		mutex_lock(&mirror->lock);
		if (mirror->map.pfn_list &&
		    !mmu_interval_read_retry(&mirror->notifier,
					     range.notifier_seq))
			*mirror_entry(mirror, addr) = pfn;
	}
	if (!mirror->map.pfn_list)
		err = -ENODEV;
	mutex_unlock(&mirror->lock);

	return err;
}

/*
 * Get the DMA address of @addr, for @len bytes of its page. Called with the
 * mirror's lock held. -EAGAIN: the page is gone, or must be faulted again for
 * the device.
 */
static int mirror_map(struct edu_mirror *mirror, unsigned long addr, size_t len,
		      dma_addr_t *dma_addr)
{
	struct pci_p2pdma_map_state p2pdma_state = {};
	enum dma_data_direction dir = mirror_dir(mirror);
	unsigned long *entry = mirror_entry(mirror, addr);
	struct device *dev = mirror_dev(mirror);

	if (!*entry)
		return -EAGAIN;

	/* Valid until the page changes; mappings below are for one transfer */
	if (!mirror->brief) {
		*dma_addr = hmm_dma_map_pfn(dev, &mirror->map,
					    entry - mirror->map.pfn_list,
					    &p2pdma_state);
		if (!dma_mapping_error(dev, *dma_addr)) {
			*dma_addr += offset_in_page(addr);
			return 0;
		}
	}

	if (hmm_pfn_is_alias(*entry)) {
		mirror->dma_addr = hmm_alias_dma_map(dev, *entry, PAGE_SIZE, dir,
						     &mirror->dma_type);
		if (dma_mapping_error(dev, mirror->dma_addr)) {
			/*
			 * The device reaches the alias, but mapping it failed:
			 * retry without aliases.
			 */
			mirror->no_alias = true;
			*entry = 0;
			return -EAGAIN;
		}
		mirror->dma_len = PAGE_SIZE;
		*dma_addr = mirror->dma_addr + offset_in_page(addr);
		return 0;
	}

	mirror->dma_addr = dma_map_page(dev, hmm_pfn_to_page(*entry),
					offset_in_page(addr), len, dir);
	if (dma_mapping_error(dev, mirror->dma_addr))
		return -EIO;
	mirror->dma_len = len;
	mirror->dma_type = PCI_P2PDMA_MAP_NONE;
	*dma_addr = mirror->dma_addr;
	return 0;
}

/* Map a page, and keep it until mirror_end(). */
static int mirror_begin(struct edu_mirror *mirror, unsigned long addr,
			size_t len, dma_addr_t *dma_addr)
{
	int err;

	guard(mutex)(&mirror->lock);
	err = mirror_map(mirror, addr, len, dma_addr);
	if (!err)
		WRITE_ONCE(mirror->busy, PAGE_ALIGN_DOWN(addr));
	return err;
}

/* Undo mirror_begin() after the transfer. */
static void mirror_end(struct edu_mirror *mirror)
{
	struct device *dev = mirror_dev(mirror);

	mutex_lock(&mirror->lock);
	if (mirror->dma_len && mirror->dma_type == PCI_P2PDMA_MAP_NONE)
		dma_unmap_page(dev, mirror->dma_addr, mirror->dma_len,
			       mirror_dir(mirror));
	else if (mirror->dma_len)
		hmm_alias_dma_unmap(dev, mirror->dma_addr, mirror->dma_len,
				    mirror_dir(mirror), mirror->dma_type);
	mirror->dma_len = 0;

	if (mirror->stale)
		mirror_drop(mirror, (mirror->busy - mirror->start) >> PAGE_SHIFT);
	mirror->stale = false;
	WRITE_ONCE(mirror->busy, ULONG_MAX);
	mutex_unlock(&mirror->lock);
	wake_up_all(&mirror->idle);
}

static irqreturn_t edu_irq(int irq, void *data)
{
	struct edu *edu = data;
	u32 status = readl(edu->regs + EDU_IRQ_STATUS);

	if (!status)
		return IRQ_NONE;

	writel(status, edu->regs + EDU_IRQ_ACK);
	if (status & EDU_IRQ_DMA)
		complete(&edu->done);

	return IRQ_HANDLED;
}

/*
 * Transfer between the device's buffer and memory. When this returns, the device
 * no longer accesses the memory, not even after an error.
 */
static int edu_transfer(struct edu *edu, dma_addr_t addr, size_t len,
			bool from_device)
{
	u32 cmd = EDU_DMA_RUN | EDU_DMA_IRQ;
	long left;
	u32 val;

	reinit_completion(&edu->done);
	if (from_device) {
		cmd |= EDU_DMA_FROM_DEVICE;
		writeq(EDU_BUFFER, edu->regs + EDU_DMA_SRC);
		writeq(addr, edu->regs + EDU_DMA_DST);
	} else {
		writeq(addr, edu->regs + EDU_DMA_SRC);
		writeq(EDU_BUFFER, edu->regs + EDU_DMA_DST);
	}
	writeq(len, edu->regs + EDU_DMA_COUNT);
	writeq(cmd, edu->regs + EDU_DMA_CMD);

	left = wait_for_completion_killable_timeout(&edu->done,
						    msecs_to_jiffies(EDU_TIMEOUT_MS));
	/*
	 * The engine may still run: the process was killed, there was no
	 * interrupt, or it was a late one, of an earlier transfer.
	 */
	if (readl_poll_timeout(edu->regs + EDU_DMA_CMD, val,
			       !(val & EDU_DMA_RUN), 1000,
			       EDU_TIMEOUT_MS * 1000)) {
		pci_clear_master(edu->pdev);
		WRITE_ONCE(edu->gone, true);
		dev_err(&edu->pdev->dev, "DMA engine hangs, giving up on it\n");
		return -EIO;
	}

	if (left > 0)
		return 0;
	return left ? -EINTR : -EIO;
}

/* Called with edu->engine held. -EAGAIN: a page is gone. */
static int edu_run(struct edu *edu, struct edu_mirror *dst,
		   struct edu_mirror *src, unsigned long to, unsigned long from,
		   size_t len)
{
	dma_addr_t to_dma, from_dma;
	int err;

	err = mirror_begin(src, from, len, &from_dma);
	if (err)
		return err;

	err = mirror_begin(dst, to, len, &to_dma);
	if (!err) {
		err = edu_transfer(edu, from_dma, len, false);
		if (!err)
			err = edu_transfer(edu, to_dma, len, true);
		/*
		 * A device with posted writes must read one back before the
		 * pages are released, see Documentation/mm/hmm_p2pdma.rst.
		 * Writes of QEMU's device have arrived already.
		 */
		mirror_end(dst);
	}

	mirror_end(src);
	return err;
}

static int edu_copy_piece(struct edu *edu, struct edu_mirror *dst,
			  struct edu_mirror *src, unsigned long to,
			  unsigned long from, size_t len)
{
	int tries, err;

	for (tries = 0; tries < EDU_TRIES; tries++) {
		/* A write fault may replace the page to read: do it first */
		err = mirror_fault(dst, to);
		if (!err)
			err = mirror_fault(src, from);
		if (!err)
			err = mutex_lock_killable(&edu->engine);
		if (err)
			return err;

		if (READ_ONCE(edu->gone))
			err = -ENODEV;
		else if (edu->in_reset)
			err = -EAGAIN;
		else
			err = edu_run(edu, dst, src, to, from, len);
		mutex_unlock(&edu->engine);
		if (err != -EAGAIN)
			return err;

		err = wait_event_killable(edu->reset_over,
					  !READ_ONCE(edu->in_reset));
		if (err)
			return err;
	}

	return -EBUSY;
}

static int edu_copy(struct edu *edu, struct hmm_edu_copy *args)
{
	struct edu_mirror *mirror;
	int err;

	args->copied = 0;
	if (!args->size || args->size > HMM_EDU_MAX_SIZE)
		return -EINVAL;

	mirror = kcalloc(2, sizeof(*mirror), GFP_KERNEL);
	if (!mirror)
		return -ENOMEM;

	err = mirror_init(&mirror[0], edu, args->dst, args->size, true);
	if (err)
		goto out_free;
	err = mirror_init(&mirror[1], edu, args->src, args->size, false);
	if (err)
		goto out_dst;

	while (args->copied < args->size && !err) {
		unsigned long to = args->dst + args->copied;
		unsigned long from = args->src + args->copied;
		size_t len = min3(args->size - args->copied,
				  PAGE_SIZE - offset_in_page(to),
				  PAGE_SIZE - offset_in_page(from));

		try_to_freeze();
		err = edu_copy_piece(edu, &mirror[0], &mirror[1], to, from,
				     min(len, EDU_BUFFER_SIZE));
		if (!err)
			args->copied += min(len, EDU_BUFFER_SIZE);
	}

	mirror_fini(&mirror[1]);
out_dst:
	mirror_fini(&mirror[0]);
out_free:
	kfree(mirror);
	return err;
}

static void edu_release(struct kref *ref)
{
	struct edu *edu = container_of(ref, struct edu, ref);

	mutex_destroy(&edu->engine);
	mutex_destroy(&edu->lock);
	pci_dev_put(edu->pdev);
	kfree(edu->misc.name);
	kfree(edu);
}

static int edu_fop_open(struct inode *inode, struct file *file)
{
	struct edu *edu = container_of(file->private_data, struct edu, misc);

	kref_get(&edu->ref);
	file->private_data = edu;
	return nonseekable_open(inode, file);
}

static int edu_fop_release(struct inode *inode, struct file *file)
{
	struct edu *edu = file->private_data;

	kref_put(&edu->ref, edu_release);
	return 0;
}

static long edu_fop_ioctl(struct file *file, unsigned int cmd,
			  unsigned long arg)
{
	struct edu *edu = file->private_data;
	struct hmm_edu_copy args;
	int err;

	if (cmd != HMM_EDU_COPY)
		return -ENOTTY;

	if (copy_from_user(&args, (void __user *)arg, sizeof(args)))
		return -EFAULT;

	err = edu_copy(edu, &args);

	if (copy_to_user((void __user *)arg, &args, sizeof(args)))
		return -EFAULT;

	return err;
}

static const struct file_operations edu_fops = {
	.owner		= THIS_MODULE,
	.open		= edu_fop_open,
	.release	= edu_fop_release,
	.unlocked_ioctl	= edu_fop_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
};

static void edu_put(void *data)
{
	struct edu *edu = data;

	kref_put(&edu->ref, edu_release);
}

static int edu_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	struct device *dev = &pdev->dev;
	struct edu *edu;
	int err;

	edu = kzalloc_obj(*edu);
	if (!edu)
		return -ENOMEM;

	kref_init(&edu->ref);
	mutex_init(&edu->lock);
	INIT_LIST_HEAD(&edu->mirrors);
	mutex_init(&edu->engine);
	init_waitqueue_head(&edu->reset_over);
	init_completion(&edu->done);
	edu->pdev = pci_dev_get(pdev);
	err = devm_add_action_or_reset(dev, edu_put, edu);
	if (err)
		return err;

	err = pcim_enable_device(pdev);
	if (err)
		return err;

	edu->regs = pcim_iomap_region(pdev, 0, "hmm_edu");
	if (IS_ERR(edu->regs))
		return PTR_ERR(edu->regs);

	if ((readl(edu->regs + EDU_ID) & EDU_ID_MASK) != EDU_ID_VALUE)
		return -ENODEV;

	err = dma_set_mask_and_coherent(dev, DMA_BIT_MASK(dma_bits));
	if (err)
		return err;
	pci_set_master(pdev);

	err = pci_alloc_irq_vectors(pdev, 1, 1, PCI_IRQ_ALL_TYPES);
	if (err < 0)
		return err;

	err = devm_request_irq(dev, pci_irq_vector(pdev, 0), edu_irq,
			       IRQF_SHARED, "hmm_edu", edu);
	if (err)
		return err;

	edu->misc.name = kasprintf(GFP_KERNEL, "hmm_edu-%s", pci_name(pdev));
	if (!edu->misc.name)
		return -ENOMEM;
	edu->misc.minor = MISC_DYNAMIC_MINOR;
	edu->misc.fops = &edu_fops;
	edu->misc.parent = dev;
	pci_set_drvdata(pdev, edu);

	return misc_register(&edu->misc);
}

/*
 * Transfers in progress complete. Copies may still wait for a page fault. They
 * find that the device is gone when the fault is over.
 */
static void edu_remove(struct pci_dev *pdev)
{
	struct edu *edu = pci_get_drvdata(pdev);
	struct edu_mirror *mirror, *next;

	misc_deregister(&edu->misc);

	mutex_lock(&edu->lock);
	mutex_lock(&edu->engine);
	WRITE_ONCE(edu->gone, true);
	mutex_unlock(&edu->engine);
	list_for_each_entry_safe(mirror, next, &edu->mirrors, node)
		mirror_detach(mirror);
	mutex_unlock(&edu->lock);

	pci_clear_master(pdev);
}

static void edu_set_in_reset(struct edu *edu, bool in_reset)
{
	guard(mutex)(&edu->engine);
	WRITE_ONCE(edu->in_reset, in_reset);
}

/*
 * No transfer is in progress until edu_reset_done(), so that no invalidation
 * waits for the device: the memory may belong to a device that is reset as well.
 */
static void edu_reset_prepare(struct pci_dev *pdev)
{
	struct edu *edu = pci_get_drvdata(pdev);
	struct edu_mirror *mirror;

	edu_set_in_reset(edu, true);

	guard(mutex)(&edu->lock);
	list_for_each_entry(mirror, &edu->mirrors, node) {
		guard(mutex)(&mirror->lock);
		mirror_drop_all(mirror);
	}
}

static void edu_reset_done(struct pci_dev *pdev)
{
	struct edu *edu = pci_get_drvdata(pdev);

	edu_set_in_reset(edu, false);
	wake_up_all(&edu->reset_over);
}

static const struct pci_error_handlers edu_error_handlers = {
	.reset_prepare	= edu_reset_prepare,
	.reset_done	= edu_reset_done,
};

static const struct pci_device_id edu_ids[] = {
	{ PCI_DEVICE(0x1234, 0x11e8) },
	{ }
};
MODULE_DEVICE_TABLE(pci, edu_ids);

static struct pci_driver edu_driver = {
	.name		= "hmm_edu",
	.id_table	= edu_ids,
	.probe		= edu_probe,
	.remove		= edu_remove,
	.err_handler	= &edu_error_handlers,
};
module_pci_driver(edu_driver);

MODULE_DESCRIPTION("HMM importer for QEMU's edu device");
MODULE_LICENSE("GPL");
