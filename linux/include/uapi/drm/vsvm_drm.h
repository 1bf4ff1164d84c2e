/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * vsvm, a virtual GPU with shared virtual memory.
 *
 * There are no buffer objects: ioctls take addresses of the calling process. An
 * open file belongs to the process that opened it. Ioctls that take an address
 * return -EPERM to any other process: a child after fork(), or the same process
 * after execve().
 *
 * Common errors:
 * -EINVAL: a reserved field or flag is not zero; a size is zero; an address or
 *	a size is misaligned; or the range wraps around.
 * -EFAULT: part of the range is not mapped, or is outside of the process's
 *	address space, or the thread's protection keys forbid the access.
 * -EPERM: the file belongs to another process.
 * -EBUSY: other threads keep changing the mappings of the range; try again.
 * -ENOMEM: out of system memory.
 * -ENODEV: the device is gone. Data that could not be moved from it in time is
 *	lost: CPU accesses to it get SIGBUS, device accesses -EFAULT.
 * -EINTR: the process is being killed.
 */
#ifndef _UAPI_VSVM_DRM_H_
#define _UAPI_VSVM_DRM_H_

#include "drm.h"

#if defined(__cplusplus)
extern "C" {
#endif

#define DRM_VSVM_INFO		0x00
#define DRM_VSVM_PREFETCH	0x01
#define DRM_VSVM_OP		0x02
#define DRM_VSVM_RESIDENCY	0x03
#define DRM_VSVM_COUNTERS	0x04

#define DRM_IOCTL_VSVM_INFO \
	DRM_IOR(DRM_COMMAND_BASE + DRM_VSVM_INFO, struct drm_vsvm_info)
#define DRM_IOCTL_VSVM_PREFETCH \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_VSVM_PREFETCH, struct drm_vsvm_prefetch)
#define DRM_IOCTL_VSVM_OP \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_VSVM_OP, struct drm_vsvm_op)
#define DRM_IOCTL_VSVM_RESIDENCY \
	DRM_IOWR(DRM_COMMAND_BASE + DRM_VSVM_RESIDENCY, struct drm_vsvm_residency)
#define DRM_IOCTL_VSVM_COUNTERS \
	DRM_IOR(DRM_COMMAND_BASE + DRM_VSVM_COUNTERS, struct drm_vsvm_counters)

/**
 * struct drm_vsvm_info - properties of the device
 * @vram_size: size of the device memory in bytes
 * @window_size: size of the part that other devices can reach, in bytes
 */
struct drm_vsvm_info {
	__u64 vram_size;
	__u64 window_size;
};

#define DRM_VSVM_TO_RAM		0
#define DRM_VSVM_TO_VRAM	1

/**
 * struct drm_vsvm_prefetch - move a range to device or to system memory
 * @addr: start, page aligned
 * @size: length in bytes, page aligned
 * @where: DRM_VSVM_TO_RAM or DRM_VSVM_TO_VRAM
 * @pad: zero
 * @pages: out: number of pages of the range that are in this device's memory
 *	now. Some pages may be missing: device memory is full, and no memory of
 *	other processes can be moved out of it; or the memory cgroup has no room
 *
 * Memory in the device stays charged to the memory cgroup of its process, as in
 * system memory, but cannot be reclaimed. So a part of each limit is reserved
 * for other memory: a quarter of the limit, and at least 8 MiB. If swap can
 * take less than that, the reserve shrinks to what swap can take, but not below
 * an eighth of its full size. Setting a limit below the amount that is in the
 * device already ends with the OOM killer.
 *
 * -EOPNOTSUPP: the memory is file-backed, shared or from hugetlbfs, and cannot
 *	migrate to a device; or the device has no room for it, and reaches
 *	system memory only through bounce buffers (swiotlb=force, encrypted
 *	guests).
 */
struct drm_vsvm_prefetch {
	__u64 addr;
	__u64 size;
	__u32 where;
	__u32 pad;
	__u64 pages;
};

#define DRM_VSVM_OP_FILL	0
#define DRM_VSVM_OP_XOR		1
#define DRM_VSVM_OP_SUM		2
#define DRM_VSVM_OP_COPY	3

/**
 * struct drm_vsvm_op - run a device operation on a range of 64-bit words
 * @addr: start, 8-byte aligned
 * @size: length in bytes, 8-byte aligned
 * @op: DRM_VSVM_OP_*: fill with @operand; xor with @operand; add up the words
 *	(modulo 2^64); copy from the address @operand
 * @pad: zero
 * @operand: see @op
 * @result: out: the sum; zero for other operations
 *
 * The device accesses memory of another device in place if it can reach that
 * memory. Otherwise the range migrates to this device's memory first. Memory
 * that cannot migrate, or for which there is no room, is accessed in place by
 * DMA, until the kernel unmaps it or it is prefetched.
 *
 * -EINVAL: also if @op is unknown, or the ranges of a copy overlap.
 * -EACCES: @op writes to memory that is mapped read-only.
 * -EOPNOTSUPP: the memory is in a device of another driver, and stays there; or
 *	it is in system memory that the device reaches only through bounce
 *	buffers.
 */
struct drm_vsvm_op {
	__u64 addr;
	__u64 size;
	__u32 op;
	__u32 pad;
	__u64 operand;
	__u64 result;
};

/**
 * struct drm_vsvm_residency - where the pages of a range are
 * @addr: start, page aligned
 * @size: length in bytes, page aligned
 * @vram: out: pages in this device's memory
 * @huge: out: pages of @vram and @peer that are mapped by huge page table
 *	entries
 * @linked: out: pages in another device's memory that this device reaches over
 *	a private link
 * @peer: out: pages in another device's memory that this device reaches over
 *	the PCI bus, but not over a link
 * @ram: out: pages in system memory
 * @none: out: all other pages: unmapped, not populated, swapped out, or in the
 *	memory of a device that this device cannot reach
 *
 * This ioctl neither moves nor populates pages.
 */
struct drm_vsvm_residency {
	__u64 addr;
	__u64 size;
	__u64 vram;
	__u64 huge;
	__u64 linked;
	__u64 peer;
	__u64 ram;
	__u64 none;
};

/**
 * struct drm_vsvm_counters - what the device has done since it was probed
 * @pages_to_vram: pages migrated to its memory from system memory
 * @pages_to_ram: pages migrated from its memory to system memory
 * @pages_to_peers: pages migrated from its memory to the memory of other
 *	devices, over links
 * @vram_free: memory that is free now, in bytes
 *
 * -EPERM: also if the process has no CAP_PERFMON.
 */
struct drm_vsvm_counters {
	__u64 pages_to_vram;
	__u64 pages_to_ram;
	__u64 pages_to_peers;
	__u64 vram_free;
};

#if defined(__cplusplus)
}
#endif

#endif /* _UAPI_VSVM_DRM_H_ */
