/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _HMM_ACCESS_H
#define _HMM_ACCESS_H

#include <linux/mm.h>
#include <linux/mmu_context.h>
#include <linux/sched.h>

/*
 * Do the protection keys of the current thread let it access a range?
 * hmm_range_fault() treats every access as a remote one, which ignores the
 * keys. An importer that works for the calling thread must do only what that
 * thread may do.
 *
 * Call this after hmm_range_fault() and before mmu_interval_read_retry(). The
 * answer is then valid as long as the entries are.
 */
static inline int hmm_access_check(unsigned long start, unsigned long end,
				   bool write)
{
	VMA_ITERATOR(vmi, current->mm, start);
	struct vm_area_struct *vma;
	int err;

	err = mmap_read_lock_killable(current->mm);
	if (err)
		return err;

	for_each_vma_range(vmi, vma, end)
		if (!arch_vma_access_permitted(vma, write, false, false))
			err = -EFAULT;
	mmap_read_unlock(current->mm);

	return err;
}

#endif /* _HMM_ACCESS_H */
