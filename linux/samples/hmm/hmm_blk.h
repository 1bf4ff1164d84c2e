/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
#ifndef _HMM_BLK_H
#define _HMM_BLK_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * struct hmm_blk_io - read or write a block device, as with O_DIRECT
 * @fd: the block device, open for this operation
 * @flags: 0 to read, HMM_BLK_WRITE to write
 * @addr: address in the calling process, of system memory or device memory
 * @size: length in bytes
 * @offset: offset on the block device, in bytes
 * @done: out: how many bytes have been transferred, also if the ioctl fails
 *
 * @addr, @size and @offset are multiples of the logical block size. As with
 * pread() and pwrite(), fewer than @size bytes are transferred at the end of
 * the device, or when an error occurs after some bytes have been transferred.
 *
 * -EBADF: @fd is not open, or not open for this operation.
 * -ENOTBLK: @fd is not a block device.
 * -EINVAL: not aligned, or unknown flags.
 * -EFAULT: the memory is not mapped, or mapped read-only as target of a read.
 * -ENOSPC: a write is beyond the end of the device.
 * -EPERM: a write is to a read-only device.
 * -ETXTBSY: a write is to swap space.
 * -ENODEV, -EIO and others: errors that the device reports.
 * -EINTR: the process is being killed.
 * -ENOMEM: out of memory.
 */
struct hmm_blk_io {
	__s32 fd;
	__u32 flags;
	__u64 addr;
	__u64 size;
	__u64 offset;
	__u64 done;
};

#define HMM_BLK_WRITE	0x1

#define HMM_BLK_IO	_IOWR('|', 0x91, struct hmm_blk_io)

#endif /* _HMM_BLK_H */
