// SPDX-License-Identifier: GPL-2.0
/*
 * Block I/O to and from the memory of a process, in system memory or in the
 * private memory of devices.
 *
 * This works like O_DIRECT, but device memory stays in place if the disk can
 * reach it. The importer gives struct pages to the block layer, which does the
 * DMA. See hmm_edu.c for an importer that maps its DMA itself.
 *
 * O_DIRECT transfers system memory, and pins it. Device memory cannot be
 * pinned, and is transferred here. An invalidation waits until the disk
 * has finished with its pages, and must wait for nothing else:
 *
 * - Reclaim does not wait for the disk, because the disk may depend on reclaim.
 *   Reclaim does not want device memory.
 * - If the limits of a cgroup may delay the I/O of a process, O_DIRECT does all
 *   of it. Otherwise other processes would wait as long as the limits delay the
 *   I/O.
 */
#include <linux/bio.h>
#include <linux/blk-cgroup.h>
#include <linux/blkdev.h>
#include <linux/file.h>
#include <linux/freezer.h>
#include <linux/fs.h>
#include <linux/hmm.h>
#include <linux/miscdevice.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/pagemap.h>
#include <linux/pci.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/spinlock.h>
#include <linux/uaccess.h>
#include <linux/uio.h>
#include <linux/wait.h>

#include "hmm_access.h"
#include "hmm_blk.h"

/* How much memory is walked at once */
#define CHUNK_SIZE	SZ_2M
#define CHUNK_PAGES	(CHUNK_SIZE >> PAGE_SHIFT)

/* How often memory may change during a walk before O_DIRECT transfers it */
#define MAX_TRIES	64

/*
 * A disk reports completion, but not that its writes have arrived at a peer, and
 * it cannot be made to read one back. See Documentation/mm/hmm_p2pdma.rst.
 */
static bool writes_arrive;
module_param(writes_arrive, bool, 0444);
MODULE_PARM_DESC(writes_arrive, "on this platform, all that a disk has written to a peer has arrived when its request completes (default: no)");

/**
 * struct blk_job - one request of user space
 * @notifier: is called when the memory changes
 * @lock: held to check that @pfns are valid, see mmu_interval_read_retry().
 *	Also protects @busy_start and @busy_end
 * @idle: woken when the disk no longer accesses device memory
 * @busy_start: start of the device memory that the disk accesses
 * @busy_end: its end; zero if there is none
 * @pfns: HMM entries of a chunk
 * @chunk: size of a chunk in bytes
 * @file: the disk, or a partition
 * @client: the disk, for HMM; without a DMA device if O_DIRECT does all I/O
 * @no_pages: an exporter has no struct pages: its memory has to migrate
 * @opf: operation and flags
 */
struct blk_job {
	struct mmu_interval_notifier notifier;
	spinlock_t lock; /* see above */
	wait_queue_head_t idle;
	unsigned long busy_start;
	unsigned long busy_end;
	unsigned long *pfns;
	size_t chunk;
	struct file *file;
	struct hmm_client client;
	bool no_pages;
	blk_opf_t opf;
};

static bool job_reads(const struct blk_job *job)
{
	return !op_is_write(job->opf);
}

static bool job_is_busy(struct blk_job *job, unsigned long start,
			unsigned long end)
{
	guard(spinlock)(&job->lock);
	return job->busy_start < end && start < job->busy_end;
}

static bool job_invalidate(struct mmu_interval_notifier *notifier,
			   const struct mmu_notifier_range *range,
			   unsigned long seq)
{
	struct blk_job *job = container_of(notifier, struct blk_job, notifier);

	/* No part of the range becomes busy again before this returns */
	spin_lock(&job->lock);
	mmu_interval_set_seq(notifier, seq);
	spin_unlock(&job->lock);

	/*
	 * Reclaim and compaction want folios of system memory. The range of a
	 * large folio can include device memory that is now mapped between its
	 * pages. Neither migrates device memory, nor revokes a window.
	 */
	if (current->flags & PF_MEMALLOC ||
	    !job_is_busy(job, range->start, range->end))
		return true;
	if (!mmu_notifier_range_blockable(range))
		return false;

	wait_event(job->idle, !job_is_busy(job, range->start, range->end));
	return true;
}

static const struct mmu_interval_notifier_ops job_ops = {
	.invalidate = job_invalidate,
};

/* Get the entries of a chunk. They are valid as long as @seq is. */
static int job_walk(struct blk_job *job, unsigned long addr, size_t size,
		    unsigned long *seq)
{
	unsigned long timeout = msecs_to_jiffies(HMM_RANGE_DEFAULT_TIMEOUT);
	struct hmm_range range = {
		.notifier = &job->notifier,
		.start = PAGE_ALIGN_DOWN(addr),
		.end = PAGE_ALIGN(addr + size),
		.hmm_pfns = job->pfns,
		.default_flags = HMM_PFN_REQ_FAULT |
				 (job_reads(job) ? HMM_PFN_REQ_WRITE : 0),
		.client = job->no_pages ? NULL : &job->client,
	};
	int err;

	err = hmm_range_fault_unlocked_timeout(&range, timeout);
	*seq = range.notifier_seq;
	if (err)
		return err;
	return hmm_access_check(range.start, range.end, job_reads(job));
}

/* Transfer with O_DIRECT, by the operations of the block device. */
static ssize_t job_do_pinned(struct blk_job *job, unsigned long addr,
			     size_t size, loff_t pos)
{
	struct iov_iter iter;
	struct kiocb iocb;
	int err;

	err = import_ubuf(job_reads(job) ? ITER_DEST : ITER_SOURCE,
			  (void __user *)addr, size, &iter);
	if (err)
		return err;

	init_sync_kiocb(&iocb, job->file);
	iocb.ki_flags |= IOCB_DIRECT;
	iocb.ki_pos = pos;
	return job_reads(job) ? job->file->f_op->read_iter(&iocb, &iter) :
				job->file->f_op->write_iter(&iocb, &iter);
}

/* The block layer wants pages. NULL: the exporter has made none. */
static struct page *alias_to_page(unsigned long hmm_pfn)
{
	unsigned long pfn = PHYS_PFN(hmm_pfn_to_phys(hmm_pfn));

	if (!pfn_valid(pfn) || !is_pci_p2pdma_page(pfn_to_page(pfn)))
		return NULL;
	return pfn_to_page(pfn);
}

/*
 * Transfer device memory, or as much of it as one bio takes. All DMA has ended
 * when this returns. -EAGAIN: it has changed, or must not be accessed in place.
 */
static ssize_t job_do_in_place(struct blk_job *job, const unsigned long *pfns,
			       unsigned long seq, unsigned long addr,
			       size_t size, loff_t pos)
{
	struct cgroup_subsys_state *css;
	size_t done = 0, len;
	struct bio *bio;
	int err;

	bio = bio_alloc(file_bdev(job->file), bio_max_segs(PFN_UP(size) + 1),
			job->opf, GFP_KERNEL);
	bio->bi_iter.bi_sector = pos >> SECTOR_SHIFT;

	css = bio_blkcg_css(bio);
	if (css && css != blkcg_root_css) {
		job->client.dma_dev = NULL;
		bio_put(bio);
		return -EAGAIN;
	}

	spin_lock(&job->lock);
	if (mmu_interval_read_retry(&job->notifier, seq)) {
		spin_unlock(&job->lock);
		bio_put(bio);
		return -EAGAIN;
	}

	for (; done < size; done += len) {
		unsigned int offset = offset_in_page(addr + done);
		struct page *page = alias_to_page(*pfns++);

		if (!page) {
			job->no_pages = true;
			break;
		}
		len = min(size - done, PAGE_SIZE - offset);
		/* The bio is full, or has memory of another kind */
		if (bio_add_page(bio, page, len, offset) != len)
			break;
	}
	if (!done) {
		spin_unlock(&job->lock);
		bio_put(bio);
		return -EAGAIN;
	}
	job->busy_start = addr;
	job->busy_end = addr + done;
	spin_unlock(&job->lock);

	err = submit_bio_wait(bio);
	bio_put(bio);

	spin_lock(&job->lock);
	job->busy_start = 0;
	job->busy_end = 0;
	spin_unlock(&job->lock);
	wake_up_all(&job->idle);

	return err ?: done;
}

/*
 * Transfer a chunk, or the beginning of it, in runs of pages that are all in
 * device memory or all in system memory. -EAGAIN: try again.
 */
static ssize_t job_do_chunk(struct blk_job *job, unsigned long addr,
			    size_t size, loff_t pos)
{
	unsigned long first = PAGE_ALIGN_DOWN(addr), seq;
	size_t done = 0;
	int err;

	if (!job->client.dma_dev)
		return job_do_pinned(job, addr, size, pos);

	err = job_walk(job, addr, size, &seq);
	if (err == -EINTR)
		return err;
	if ((err == -EFAULT || err == -EPERM) && job->chunk > PAGE_SIZE) {
		/* Find the first page that cannot be accessed */
		job->chunk = PAGE_SIZE;
		return -EAGAIN;
	}
	if (err)
		return job_do_pinned(job, addr, size, pos);

	while (done < size) {
		size_t idx = (addr + done - first) >> PAGE_SHIFT, end = idx;
		bool alias = hmm_pfn_is_alias(job->pfns[idx]);
		ssize_t ret;
		size_t len;

		do
			end++;
		while (first + PFN_PHYS(end) < addr + size &&
		       hmm_pfn_is_alias(job->pfns[end]) == alias);
		len = min(first + PFN_PHYS(end), addr + size) - (addr + done);

		ret = alias ? job_do_in_place(job, &job->pfns[idx], seq,
					      addr + done, len, pos + done) :
			      job_do_pinned(job, addr + done, len, pos + done);
		if (ret <= 0)
			return done ?: ret;
		done += ret;
		if (!alias && ret < len)
			break;
	}

	return done;
}

/* The PCI device of a disk, with a reference; NULL if none (a stacked disk). */
static struct device *disk_get_dma_dev(struct gendisk *disk)
{
	struct device *dev = NULL;

	/* The parent exists as long as the disk is live */
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
	u64 size = args->size, pos = args->offset;
	u64 capacity = bdev_nr_bytes(bdev);
	unsigned long addr = args->addr, start = PAGE_ALIGN_DOWN(addr);
	struct blk_job job = {
		.file = file,
		.opf = write ? REQ_OP_WRITE | REQ_SYNC | REQ_IDLE : REQ_OP_READ,
		.chunk = CHUNK_SIZE,
	};
	struct device *dma_dev;
	int err, tries = 0;

	/* A disk that is being removed loses its size first */
	if (!disk_live(bdev->bd_disk) || !capacity)
		return -ENODEV;
	if (write && bdev_read_only(bdev))
		return -EPERM;
	if (write && IS_SWAPFILE(mapping->host))
		return -ETXTBSY;
	if (!size)
		return 0;
	if (pos >= capacity)
		return write ? -ENOSPC : 0;
	size = min(size, capacity - pos);

	if (!IS_ALIGNED(args->addr | size | pos, bdev_logical_block_size(bdev)) ||
	    bdev_logical_block_size(bdev) > PAGE_SIZE)
		return -EINVAL;

	err = filemap_write_and_wait_range(mapping, pos, pos + size - 1);
	if (!err && write)
		err = invalidate_inode_pages2_range(mapping, pos >> PAGE_SHIFT,
						    (pos + size - 1) >> PAGE_SHIFT);
	if (err)
		return err;

	dma_dev = disk_get_dma_dev(bdev->bd_disk);
	if (blk_queue_pci_p2pdma(bdev_get_queue(bdev)) &&
	    (write || writes_arrive))
		job.client.dma_dev = dma_dev;

	err = -ENOMEM;
	job.pfns = kvcalloc(CHUNK_PAGES, sizeof(*job.pfns), GFP_KERNEL_ACCOUNT);
	if (!job.pfns)
		goto out_put;

	spin_lock_init(&job.lock);
	init_waitqueue_head(&job.idle);
	err = mmu_interval_notifier_insert(&job.notifier, current->mm, start,
					   PAGE_ALIGN(addr + size) - start,
					   &job_ops);
	/* Adding the first notifier of a process fails on any signal */
	if (err == -EINTR)
		err = -ERESTARTNOINTR;
	if (err)
		goto out_free;

	while (args->done < size) {
		unsigned long at = addr + args->done;
		size_t len = min(size - args->done,
				 job.chunk - offset_in_page(at));
		ssize_t ret;

		try_to_freeze();
		ret = fatal_signal_pending(current) ? -EINTR :
		      job_do_chunk(&job, at, len, pos + args->done);
		if (ret == -EAGAIN && ++tries < MAX_TRIES)
			continue;
		if (ret == -EAGAIN)
			ret = job_do_pinned(&job, at, len, pos + args->done);
		tries = 0;
		if (ret <= 0) {
			/* A disk that is being removed has lost its size */
			err = bdev_nr_bytes(bdev) ? ret : -ENODEV;
			break;
		}
		args->done += ret;
	}

	mmu_interval_notifier_remove(&job.notifier);
	if (write)
		invalidate_inode_pages2_range(mapping, pos >> PAGE_SHIFT,
					      (pos + size - 1) >> PAGE_SHIFT);
	/* As for pwrite(), bytes that have not been flushed do not count */
	if (args->done && write && file->f_flags & O_DSYNC) {
		int ret = vfs_fsync_range(file, pos, pos + args->done - 1, 1);

		if (ret) {
			err = ret;
			args->done = 0;
		}
	}
out_free:
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
