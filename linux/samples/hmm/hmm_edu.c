// SPDX-License-Identifier: GPL-2.0
/*
 * A device that reaches the memory of a process by DMA, wherever it is.
 *
 * The device is QEMU's edu: a DMA engine and a buffer of 4 KiB. It copies memory
 * of a process, system memory or the private memory of other devices, without
 * pinning. What an importer needs, in the order in which one would write it:
 *
 * - a mirror of a range: interval notifier, HMM entries, DMA mapping
 * - mirror_invalidate(): revoke, waiting for DMA that is under way
 * - mirror_lock_page(): an address that is good until mirror_unlock()
 * - the engine, which must have stopped before a mirror is unlocked
 */
#include <linux/completion.h>
#include <linux/dma-mapping.h>
#include <linux/hmm.h>
#include <linux/hmm-dma.h>
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
#include <uapi/linux/hmm_edu.h>

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

/* The device's buffer, in addresses of its own */
#define EDU_BUFFER		0x40000
#define EDU_BUFFER_SIZE		0x1000

/* A transfer takes 100 ms. */
#define EDU_TIMEOUT_MS		2000

static uint dma_bits = 28;
module_param(dma_bits, uint, 0444);
MODULE_PARM_DESC(dma_bits, "width of the addresses that the device can use, as in QEMU's dma_mask= (default: 28)");

/**
 * struct edu - a device
 * @pdev: the PCI function
 * @regs: BAR 0
 * @misc: the character device
 * @ref: the probed device, and open files
 * @users: held for reading while the device is in use, for writing to remove it
 * @gone: the device has been removed. Set before @users is taken for that
 * @engine: serializes transfers
 * @done: a transfer has ended
 */
struct edu {
	struct pci_dev *pdev;
	void __iomem *regs;
	struct miscdevice misc;
	struct kref ref;
	struct rw_semaphore users;
	bool gone;
	struct mutex engine; /* see above */
	struct completion done;
};

/**
 * struct edu_mirror - a range of the current process, as the device sees it
 * @notifier: tells when the range changes
 * @lock: makes @map valid, see mmu_interval_read_retry(). Held while the device
 *	accesses the range, so that an invalidation waits for that
 * @map: HMM entries and DMA addresses, of the pages that the device has used
 * @dev: the device
 * @start: of the range, page aligned
 */
struct edu_mirror {
	struct mmu_interval_notifier notifier;
	struct mutex lock; /* see above */
	struct hmm_dma_map map;
	struct device *dev;
	unsigned long start;
};

static bool mirror_invalidate(struct mmu_interval_notifier *notifier,
			      const struct mmu_notifier_range *range,
			      unsigned long seq)
{
	struct edu_mirror *mirror =
		container_of(notifier, struct edu_mirror, notifier);
	struct interval_tree_node *node = &notifier->interval_tree;
	unsigned long addr, end;

	if (mmu_notifier_range_blockable(range))
		mutex_lock(&mirror->lock);
	else if (!mutex_trylock(&mirror->lock))
		return false;

	mmu_interval_set_seq(notifier, seq);

	addr = max(range->start, node->start);
	end = min(range->end - 1, node->last);
	for (; addr <= end; addr += PAGE_SIZE) {
		size_t idx = (addr - mirror->start) >> PAGE_SHIFT;

		hmm_dma_unmap_pfn(mirror->dev, &mirror->map, idx);
		mirror->map.pfn_list[idx] = 0;
	}

	mutex_unlock(&mirror->lock);
	return true;
}

static const struct mmu_interval_notifier_ops mirror_ops = {
	.invalidate = mirror_invalidate,
};

static int mirror_init(struct edu_mirror *mirror, struct edu *edu,
		       unsigned long addr, unsigned long size)
{
	unsigned long end;
	int err;

	if (check_add_overflow(addr, size, &end) || end > TASK_SIZE)
		return -EFAULT;

	mirror->dev = &edu->pdev->dev;
	mirror->start = PAGE_ALIGN_DOWN(addr);
	end = PAGE_ALIGN(end);

	err = hmm_dma_map_alloc(mirror->dev, &mirror->map,
				(end - mirror->start) >> PAGE_SHIFT, PAGE_SIZE);
	if (err)
		return err;

	mutex_init(&mirror->lock);
	err = mmu_interval_notifier_insert(&mirror->notifier, current->mm,
					   mirror->start, end - mirror->start,
					   &mirror_ops);
	if (err)
		hmm_dma_map_free(mirror->dev, &mirror->map);

	/* The first one of a process gives way to any signal */
	return err == -EINTR ? -ERESTARTNOINTR : err;
}

static void mirror_fini(struct edu_mirror *mirror)
{
	struct interval_tree_node *node = &mirror->notifier.interval_tree;
	size_t idx, n = (node->last + 1 - mirror->start) >> PAGE_SHIFT;

	mmu_interval_notifier_remove(&mirror->notifier);
	for (idx = 0; idx < n; idx++)
		hmm_dma_unmap_pfn(mirror->dev, &mirror->map, idx);
	hmm_dma_map_free(mirror->dev, &mirror->map);
	mutex_destroy(&mirror->lock);
}

/*
 * Make the page at @addr accessible to the device. Returns its DMA address, that
 * of @addr itself, which stays valid until mirror_unlock().
 */
static int mirror_lock_page(struct edu_mirror *mirror, unsigned long addr,
			    bool write, dma_addr_t *dma_addr)
{
	struct pci_p2pdma_map_state p2pdma_state = {};
	struct hmm_client client = { .dma_dev = mirror->dev };
	size_t idx = (addr - mirror->start) >> PAGE_SHIFT;
	struct hmm_range range = {
		.notifier = &mirror->notifier,
		.start = PAGE_ALIGN_DOWN(addr),
		.end = PAGE_ALIGN_DOWN(addr) + PAGE_SIZE,
		.hmm_pfns = &mirror->map.pfn_list[idx],
		.default_flags = HMM_PFN_REQ_FAULT |
				 (write ? HMM_PFN_REQ_WRITE : 0),
		.client = &client,
	};
	unsigned long need = HMM_PFN_VALID | (write ? HMM_PFN_WRITE : 0);
	unsigned long timeout = msecs_to_jiffies(HMM_RANGE_DEFAULT_TIMEOUT);
	int err;

	mutex_lock(&mirror->lock);
	while ((mirror->map.pfn_list[idx] & need) != need) {
		mutex_unlock(&mirror->lock);

		if (fatal_signal_pending(current))
			return -EINTR;
		err = hmm_range_fault_unlocked_timeout(&range, timeout);
		if (err)
			return err;

		mutex_lock(&mirror->lock);
		if (mmu_interval_read_retry(&mirror->notifier,
					    range.notifier_seq))
			mirror->map.pfn_list[idx] &= ~need;
	}

	*dma_addr = hmm_dma_map_pfn(mirror->dev, &mirror->map, idx,
				    &p2pdma_state);
	if (dma_mapping_error(mirror->dev, *dma_addr)) {
		mutex_unlock(&mirror->lock);
		return -EIO;
	}

	*dma_addr += offset_in_page(addr);
	return 0;
}

static void mirror_unlock(struct edu_mirror *mirror)
{
	mutex_unlock(&mirror->lock);
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
 * does not access the memory any more, whatever has happened.
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
	 * Killed, or no interrupt, or a late one of a transfer before that was
	 * not waited for: the engine may be running nevertheless.
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

static int edu_access(struct edu *edu, struct edu_mirror *mirror,
		      unsigned long addr, size_t len, bool write)
{
	dma_addr_t dma_addr;
	int err;

	err = mirror_lock_page(mirror, addr, write, &dma_addr);
	if (err)
		return err;

	err = edu_transfer(edu, dma_addr, len, write);
	mirror_unlock(mirror);
	return err;
}

static int edu_copy_piece(struct edu *edu, struct edu_mirror *dst,
			  struct edu_mirror *src, unsigned long to,
			  unsigned long from, size_t len)
{
	int err;

	err = mutex_lock_killable(&edu->engine);
	if (err)
		return err;

	err = edu->gone ? -ENODEV : edu_access(edu, src, from, len, false);
	if (!err)
		err = edu_access(edu, dst, to, len, true);
	mutex_unlock(&edu->engine);
	return err;
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

	err = mirror_init(&mirror[0], edu, args->dst, args->size);
	if (err)
		goto out_free;
	err = mirror_init(&mirror[1], edu, args->src, args->size);
	if (err)
		goto out_dst;

	while (args->copied < args->size && !err) {
		unsigned long to = args->dst + args->copied;
		unsigned long from = args->src + args->copied;
		size_t len = min3(args->size - args->copied,
				  PAGE_SIZE - offset_in_page(to),
				  PAGE_SIZE - offset_in_page(from));

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

	down_read(&edu->users);
	err = READ_ONCE(edu->gone) ? -ENODEV : edu_copy(edu, &args);
	up_read(&edu->users);

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
	init_rwsem(&edu->users);
	mutex_init(&edu->engine);
	init_completion(&edu->done);
	edu->pdev = pdev;
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

/* The copy that is under way ends with its current piece. */
static void edu_remove(struct pci_dev *pdev)
{
	struct edu *edu = pci_get_drvdata(pdev);

	misc_deregister(&edu->misc);
	WRITE_ONCE(edu->gone, true);
	down_write(&edu->users);
	up_write(&edu->users);
	pci_clear_master(pdev);
}

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
};
module_pci_driver(edu_driver);

MODULE_DESCRIPTION("HMM importer for QEMU's edu device");
MODULE_LICENSE("GPL");
