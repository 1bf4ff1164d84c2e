/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * vsvm, a virtual GPU with shared virtual memory.
 *
 * There are no buffer objects: every ioctl takes addresses of the calling
 * process. An open file belongs to the process that opened it; another one, a
 * child after fork() or the same one after execve(), gets -EPERM.
 *
 * Of all ioctls:
 * -EINVAL: a reserved field or flag is not zero, or a size is zero, misaligned
 *	or wraps around.
 * -EFAULT: part of the range is not mapped, or not the process's to map, or the
 *	thread's protection keys do not let it do itself what the device is to do.
 * -EPERM: the file is another process's.
 * -EBUSY: others keep changing the mappings of the range; try again.
 * -ENOMEM: out of system memory.
 * -ENODEV: the device is gone. Memory that could not be moved from it before that
 *	is lost: the CPU gets SIGBUS for it, devices -EFAULT.
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
 * struct drm_vsvm_info - what the device is
 * @vram_size: size of the device memory in bytes
 * @window_size: how much of it other devices can reach, in bytes
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
 * @pages: out: pages of the range that are in this device's memory now. They
 *	may be fewer than asked for: when it is full, and there is no memory of
 *	other processes to be moved from it; or when the memory cgroup has no
 *	room for it
 *
 * Memory stays charged to the memory cgroup of its process when it is in the
 * device, as it was in system memory, but cannot be reclaimed there. So no more goes
 * there than leaves a quarter of each limit, 8 MiB at least, to the rest; or less,
 * if swap can take no more than that, but an eighth of it at least. To set a limit
 * below what is there already ends with the OOM killer.
 *
 * -EOPNOTSUPP: the memory is file-backed, shared or of hugetlbfs, and cannot
 *	go to a device; or it finds no room there, and the device reaches system
 *	memory only in copies (swiotlb=force, encrypted guests).
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
 * struct drm_vsvm_op - let the device work on a range of 64-bit words
 * @addr: start, 8-byte aligned
 * @size: length in bytes, 8-byte aligned
 * @op: DRM_VSVM_OP_*: fill with @operand; xor with @operand; sum the words up
 *	(modulo 2^64); copy from the address @operand
 * @pad: zero
 * @operand: see @op
 * @result: out: the sum; zero for the others
 *
 * Memory of another device within reach is worked on where it is. Otherwise the
 * range migrates to device memory first. What cannot, or finds no room, is worked
 * on over DMA where it is, until the kernel unmaps it or it is prefetched.
 *
 * -EINVAL: also: unknown @op, or the ranges of a copy overlap.
 * -EACCES: the memory is to be written, but mapped read-only.
 * -EOPNOTSUPP: the memory is in a device of another driver, and stays there; or it
 *	is in system memory, of which the device reaches only copies.
 */
struct drm_vsvm_op {
	__u64 addr;
	__u64 size;
	__u32 op;
	__u32 pad;
	__u64 operand;
	__u64 result;
};

#define DRM_VSVM_PREFER_PCI	(1 << 0)

/**
 * struct drm_vsvm_residency - where the pages of a range are
 * @addr: start, page aligned
 * @size: length in bytes, page aligned
 * @vram: out: pages in this device's memory
 * @huge: out: those of @vram and @peer that are mapped by huge page table entries
 * @flags: zero, or DRM_VSVM_PREFER_PCI to count pages that this device reaches
 *	both ways as @peer
 * @pad: zero
 * @linked: out: pages in another device's memory that this device reaches over
 *	a private link
 * @peer: out: pages in another device's memory that this device reaches over
 *	the PCI bus
 * @ram: out: pages in system memory
 * @none: out: anything else: unmapped, not populated, swapped out, in another
 *	device's memory out of reach
 *
 * Nothing moves or is populated by asking.
 */
struct drm_vsvm_residency {
	__u64 addr;
	__u64 size;
	__u32 flags;
	__u32 pad;
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
 * @pages_to_peers: pages migrated from its memory to that of other devices, over
 *	links
 * @vram_free: memory that is free now, in bytes
 *
 * -EPERM: also: the process has no CAP_PERFMON.
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
