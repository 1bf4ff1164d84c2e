/* SPDX-License-Identifier: GPL-2.0 */
#ifndef _HMM_ACCESS_H
#define _HMM_ACCESS_H

#include <linux/mm.h>
#include <linux/mmu_context.h>
#include <linux/sched.h>

/*
 * Do the protection keys of the current thread let it access a range? To
 * hmm_range_fault() all access is that of somebody else, whom they do not bind; but
 * an importer that works for the thread that called it does what that thread may do.
 *
 * The answer is good for as long as the entries of hmm_range_fault() are: it is asked
 * for after that, and before mmu_interval_read_retry().
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
