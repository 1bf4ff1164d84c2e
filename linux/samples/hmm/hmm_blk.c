// SPDX-License-Identifier: GPL-2.0
/*
 * Block I/O to and from the memory of a process, wherever it is.
 *
 * As with O_DIRECT, but nothing is pinned: memory of a device stays there, if
 * the disk can reach it. This is an importer whose DMA is done by somebody else,
 * who is given struct pages. See hmm_edu.c for one that maps its DMA itself.
 */
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/hmm.h>
#include <linux/miscdevice.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pagemap.h>
#include <linux/pci.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/uaccess.h>
#include <uapi/linux/hmm_blk.h>

/* What is in flight at a time, and an invalidation may have to wait for. */
#define CHUNK_SIZE	SZ_2M
#define CHUNK_PAGES	(CHUNK_SIZE >> PAGE_SHIFT)

/**
 * struct blk_job - one request of user space
 * @notifier: tells when the memory changes
 * @lock: makes @pfns valid, see mmu_interval_read_retry(). Held while the disk
 *	accesses the memory, so that an invalidation waits for that
 * @pfns: HMM entries of a chunk
 * @bdev: the disk, or a partition
 * @client: how the disk reaches memory of devices; no DMA device if it cannot
 * @opf: operation and flags
 */
struct blk_job {
	struct mmu_interval_notifier notifier;
	struct mutex lock; /* see above */
	unsigned long *pfns;
	struct block_device *bdev;
	struct hmm_client client;
	blk_opf_t opf;
};

static bool job_reads(const struct blk_job *job)
{
	return !op_is_write(job->opf);
}

static bool job_invalidate(struct mmu_interval_notifier *notifier,
			   const struct mmu_notifier_range *range,
			   unsigned long seq)
{
	struct blk_job *job = container_of(notifier, struct blk_job, notifier);

	if (mmu_notifier_range_blockable(range))
		mutex_lock(&job->lock);
	else if (!mutex_trylock(&job->lock))
		return false;

	mmu_interval_set_seq(notifier, seq);
	mutex_unlock(&job->lock);
	return true;
}

static const struct mmu_interval_notifier_ops job_ops = {
	.invalidate = job_invalidate,
};

/* Returns with the lock held, and the entries valid until it is given up. */
static int job_lock_pages(struct blk_job *job, unsigned long addr, size_t size)
{
	unsigned long timeout = msecs_to_jiffies(HMM_RANGE_DEFAULT_TIMEOUT);
	struct hmm_range range = {
		.notifier = &job->notifier,
		.start = PAGE_ALIGN_DOWN(addr),
		.end = PAGE_ALIGN(addr + size),
		.hmm_pfns = job->pfns,
		.default_flags = HMM_PFN_REQ_FAULT |
				 (job_reads(job) ? HMM_PFN_REQ_WRITE : 0),
		.client = job->client.dma_dev ? &job->client : NULL,
	};
	int err;

	for (;;) {
		if (fatal_signal_pending(current))
			return -EINTR;

		err = hmm_range_fault_unlocked_timeout(&range, timeout);
		if (err)
			return err == -EPERM ? -EFAULT : err;

		mutex_lock(&job->lock);
		if (!mmu_interval_read_retry(&job->notifier,
					     range.notifier_seq))
			return 0;
		mutex_unlock(&job->lock);
	}
}

static struct page *job_page(struct blk_job *job, unsigned long offset)
{
	return hmm_pfn_to_page(job->pfns[offset >> PAGE_SHIFT]);
}

/* All DMA has ended when this returns. */
static int job_submit(struct blk_job *job, unsigned long addr, size_t size,
		      loff_t pos)
{
	unsigned long first = PAGE_ALIGN_DOWN(addr), end = addr + size;
	struct bio *bio = NULL;
	unsigned int len;
	int err;

	for (; addr < end; addr += len, pos += len) {
		struct page *page = job_page(job, addr - first);

		len = min(end - addr, PAGE_SIZE - offset_in_page(addr));
		/* Full, or memory of another kind than what is in it */
		if (!bio ||
		    bio_add_page(bio, page, len, offset_in_page(addr)) != len) {
			bio = blk_next_bio(bio, job->bdev,
					   bio_max_segs(PFN_UP(end - addr) + 1),
					   job->opf, GFP_NOIO);
			bio->bi_iter.bi_sector = pos >> SECTOR_SHIFT;
			__bio_add_page(bio, page, len, offset_in_page(addr));
		}
	}

	err = submit_bio_wait(bio);
	bio_put(bio);
	return err;
}

static int job_do_chunk(struct blk_job *job, unsigned long addr, size_t size,
			loff_t pos)
{
	unsigned long offset;
	unsigned int flags;
	int err;

	err = job_lock_pages(job, addr, size);
	if (err)
		return err;

	/*
	 * Reclaim would wait, in job_invalidate(), for the DMA that is not even
	 * submitted yet.
	 */
	flags = memalloc_noreclaim_save();
	err = job_submit(job, addr, size, pos);
	memalloc_noreclaim_restore(flags);

	/* As the page table may have been cleaned before the DMA. */
	for (offset = 0; job_reads(job) && offset < offset_in_page(addr) + size;
	     offset += PAGE_SIZE)
		if (!hmm_pfn_is_alias(job->pfns[offset >> PAGE_SHIFT]))
			set_page_dirty(job_page(job, offset));

	mutex_unlock(&job->lock);
	return err;
}

/* The PCI device of a disk, with a reference; NULL if it is made of others. */
static struct device *disk_get_dma_dev(struct gendisk *disk)
{
	struct device *dev = NULL;

	/* The disk has a parent for as long as it is live */
	mutex_lock(&disk->open_mutex);
	if (disk_live(disk))
		for (dev = disk_to_dev(disk)->parent; dev; dev = dev->parent)
			if (dev_is_pci(dev))
				break;
	get_device(dev);
	mutex_unlock(&disk->open_mutex);

	return dev;
}

static int blk_io_bdev(struct file *file, struct hmm_blk_io *args)
{
	bool write = args->flags & HMM_BLK_WRITE;
	struct address_space *mapping = file->f_mapping;
	struct block_device *bdev = file_bdev(file);
	u64 left, size = args->size, pos = args->offset;
	unsigned long addr = args->addr, start = PAGE_ALIGN_DOWN(addr);
	size_t chunk = CHUNK_SIZE;
	struct blk_job job = {
		.bdev = bdev,
		.opf = write ? REQ_OP_WRITE | REQ_SYNC | REQ_IDLE : REQ_OP_READ,
		.client.need_pages = true,
	};
	struct device *dma_dev;
	int err;

	/* One that goes away loses its size first */
	if (!disk_live(bdev->bd_disk) || !bdev_nr_bytes(bdev))
		return -ENODEV;
	if (write && bdev_read_only(bdev))
		return -EPERM;
	if (write && IS_SWAPFILE(mapping->host))
		return -ETXTBSY;
	if (!size)
		return 0;
	if (pos >= bdev_nr_bytes(bdev))
		return write ? -ENOSPC : 0;
	size = min(size, bdev_nr_bytes(bdev) - pos);

	if (!IS_ALIGNED(args->addr | size | pos, bdev_logical_block_size(bdev)) ||
	    bdev_logical_block_size(bdev) > PAGE_SIZE)
		return -EINVAL;

	err = filemap_write_and_wait_range(mapping, pos, pos + size - 1);
	if (!err && write)
		err = invalidate_inode_pages2_range(mapping, pos >> PAGE_SHIFT,
						    (pos + size - 1) >> PAGE_SHIFT);
	if (err)
		return err;

	/*
	 * The driver of a disk that is made of others may allocate memory when
	 * the lock is already held, and wait for reclaim, which waits for it.
	 */
	dma_dev = disk_get_dma_dev(bdev->bd_disk);
	if (!dma_dev)
		return disk_live(bdev->bd_disk) ? -EOPNOTSUPP : -ENODEV;
	if (blk_queue_pci_p2pdma(bdev_get_queue(bdev)))
		job.client.dma_dev = dma_dev;

	err = -ENOMEM;
	job.pfns = kvcalloc(CHUNK_PAGES, sizeof(*job.pfns), GFP_KERNEL);
	if (!job.pfns)
		goto out_put;

	mutex_init(&job.lock);
	err = mmu_interval_notifier_insert(&job.notifier, current->mm, start,
					   PAGE_ALIGN(addr + size) - start,
					   &job_ops);
	/* The first one of a process gives way to any signal */
	if (err == -EINTR)
		err = -ERESTARTNOINTR;
	if (err)
		goto out_free;

	for (left = size; left; ) {
		size_t len = min(left, chunk - offset_in_page(addr));

		err = job_do_chunk(&job, addr, len, pos);
		if (err == -EFAULT && chunk > PAGE_SIZE) {
			/* Find out how far the memory is good */
			chunk = PAGE_SIZE;
			continue;
		}
		if (err == -EBUSY && chunk > PAGE_SIZE) {
			/* Less of it changes less often, and migrates faster */
			chunk /= 2;
			continue;
		}
		if (err)
			break;

		addr += len;
		pos += len;
		left -= len;
	}
	args->done = size - left;

	mmu_interval_notifier_remove(&job.notifier);
	if (write)
		invalidate_inode_pages2_range(mapping,
					      args->offset >> PAGE_SHIFT,
					      (args->offset + size - 1) >> PAGE_SHIFT);
	if (!err && write && file->f_flags & O_DSYNC)
		err = vfs_fsync_range(file, args->offset,
				      args->offset + size - 1, 1);
out_free:
	mutex_destroy(&job.lock);
	kvfree(job.pfns);
out_put:
	put_device(dma_dev);
	return err;
}

static int blk_io(struct hmm_blk_io *args)
{
	bool write = args->flags & HMM_BLK_WRITE;
	loff_t pos = args->offset;
	int err;

	args->done = 0;
	if (args->flags & ~HMM_BLK_WRITE)
		return -EINVAL;

	CLASS(fd, f)(args->fd);
	if (fd_empty(f) ||
	    !(fd_file(f)->f_mode & (write ? FMODE_WRITE : FMODE_READ)))
		return -EBADF;
	if (!S_ISBLK(file_inode(fd_file(f))->i_mode))
		return -ENOTBLK;

	if (args->addr != (unsigned long)args->addr ||
	    args->size != (size_t)args->size ||
	    !access_ok((void __user *)(unsigned long)args->addr, args->size))
		return -EFAULT;

	args->size = min(args->size, MAX_RW_COUNT);
	err = rw_verify_area(write ? WRITE : READ, fd_file(f), &pos, args->size);
	if (err)
		return err;

	err = blk_io_bdev(fd_file(f), args);
	return args->done ? 0 : err;
}

static long blk_fop_ioctl(struct file *file, unsigned int cmd,
			  unsigned long arg)
{
	struct hmm_blk_io __user *user = (void __user *)arg;
	struct hmm_blk_io args;
	int err;

	if (cmd != HMM_BLK_IO)
		return -ENOTTY;

	if (copy_from_user(&args, user, sizeof(args)))
		return -EFAULT;

	err = blk_io(&args);

	if (put_user(args.done, &user->done))
		return -EFAULT;

	return err;
}

static const struct file_operations blk_fops = {
	.owner		= THIS_MODULE,
	.unlocked_ioctl	= blk_fop_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
};

static struct miscdevice blk_misc = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= "hmm_blk",
	.fops	= &blk_fops,
};
module_misc_device(blk_misc);

MODULE_DESCRIPTION("HMM importer for block devices");
MODULE_LICENSE("GPL");
