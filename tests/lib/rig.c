// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gpu.h"
#include "measure.h"
#include "patience.h"
#include "rig.h"
#include "stats.h"
#include "vram.h"

int rig_init(struct rig *rig, size_t size, int advice)
{
	int err;

	memset(rig, 0, sizeof(*rig));

	rig->gpu = gpu_open(0);
	if (rig->gpu < 0)
		return rig->gpu;
	rig->vram_free = vram_free(rig->gpu);

	err = conn_up(&rig->conn);
	if (!err)
		err = buffer_map(&rig->buf, size, advice);
	if (!err)
		err = buffer_map(&rig->ram, size, MADV_HUGEPAGE);
	if (err)
		goto err;

	buffer_write(&rig->buf, 0, size);
	buffer_write(&rig->ram, 0, size);

	rig->ram_mr = rdma_reg_odp(&rig->conn.near, rig->ram.mem, size);
	if (rig->ram_mr)
		return 0;
	err = -errno;
err:
	rig_fini(rig);
	return err;
}

int rig_init_in_vram(struct rig *rig, size_t size, int advice)
{
	uint64_t huge = advice == MADV_HUGEPAGE ? size / PAGE : 0;
	int err;

	err = rig_init(rig, size, advice);
	if (err)
		return err;

	err = buffer_to_vram(&rig->buf, rig->gpu, 0, size);
	if (!err && huge_pages_in_vram(rig->gpu, rig->buf.mem, size) != huge)
		err = -EAGAIN;
	if (!err)
		err = rig_register(rig);
	if (err)
		rig_fini(rig);

	return err;
}

uint64_t rig_fini(struct rig *rig)
{
	uint64_t leaked;

	aliases_enable(true);
	if (rig->mr)
		ibv_dereg_mr(rig->mr);
	if (rig->ram_mr)
		ibv_dereg_mr(rig->ram_mr);
	conn_down(&rig->conn);
	buffer_unmap(&rig->buf);
	buffer_unmap(&rig->ram);
	leaked = vram_leaked(rig->gpu, rig->vram_free);
	close(rig->gpu);
	return leaked;
}

int rig_register(struct rig *rig)
{
	if (rig->mr && ibv_dereg_mr(rig->mr))
		return -EBUSY;

	rig->mr = rdma_reg_odp(&rig->conn.far, rig->buf.mem,
			       rig->buf.size);
	return rig->mr ? 0 : -errno;
}

int rig_read(struct rig *rig, size_t offset, size_t size)
{
	return rdma_read(&rig->conn.near, rig->ram.mem + offset,
			 rig->ram_mr->lkey,
			 (uintptr_t)rig->buf.mem + offset, rig->mr->rkey,
			 size);
}

int rig_write(struct rig *rig, size_t offset, size_t size)
{
	return rdma_write(&rig->conn.near, rig->ram.mem + offset,
			  rig->ram_mr->lkey,
			  (uintptr_t)rig->buf.mem + offset, rig->mr->rkey,
			  size);
}

int rig_write_new(struct rig *rig, size_t offset, size_t size)
{
	int err;

	buffer_write(&rig->ram, offset, size);
	err = rig_write(rig, offset, size);
	if (!err)
		memcpy(rig->buf.shadow + offset, rig->ram.shadow + offset,
		       size);
	return err;
}

int rig_add(struct rig *rig, size_t offset, uint64_t add)
{
	uint64_t *word = (uint64_t *)(rig->buf.shadow + offset);
	uint64_t *old = (uint64_t *)rig->ram.mem;
	uint64_t was = *word;
	int err;

	err = rdma_fetch_add(&rig->conn.near, old, rig->ram_mr->lkey,
			     (uintptr_t)rig->buf.mem + offset,
			     rig->mr->rkey, add);
	if (err)
		return err;

	*word += add;
	return *old == was ? 0 : -EILSEQ;
}

int rig_prefetch(struct rig *rig, size_t offset, size_t size, int write)
{
	double start;
	int err;

	do {
		start = now();
		err = rdma_prefetch(&rig->conn.far, rig->mr,
				    rig->buf.mem + offset, size, write);
	} while (is_out_of_patience(err, start));

	return err;
}

ssize_t rig_differs(struct rig *rig)
{
	size_t size = rig->buf.size;

	/* Old data at the destination must not pass for the data that is read. */
	buffer_write(&rig->ram, 0, size);
	if (rig_read(rig, 0, size))
		return -2;

	return differs(rig->ram.mem, rig->buf.shadow, size);
}
