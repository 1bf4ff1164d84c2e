/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
#ifndef _HMM_EDU_H
#define _HMM_EDU_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * struct hmm_edu_copy - let the device copy memory of the calling process
 * @dst: destination address
 * @src: source address
 * @size: length in bytes, up to HMM_EDU_MAX_SIZE
 * @copied: out: how many bytes have been copied, also if the ioctl fails
 *
 * Both can be in system memory or in device memory, at any offset.
 *
 * -EINVAL: @size is zero or too large.
 * -EFAULT: a range wraps around, is unmapped, or not accessible to the caller.
 * -EPERM: @dst is mapped read-only.
 * -EIO: the device does not complete a transfer, or cannot address the memory.
 * -ENODEV: the device is gone.
 * -EBUSY: the memory moves or changes too often; try again.
 * -ENOMEM: out of memory.
 * -EINTR: the process is being killed.
 */
struct hmm_edu_copy {
	__u64 dst;
	__u64 src;
	__u64 size;
	__u64 copied;
};

#define HMM_EDU_MAX_SIZE	0x100000

#define HMM_EDU_COPY	_IOWR('|', 0x90, struct hmm_edu_copy)

#endif /* _HMM_EDU_H */
