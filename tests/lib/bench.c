// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench.h"
#include "gpu.h"
#include "measure.h"
#include "patience.h"
#include "stats.h"
#include "vram.h"

int bench_init(struct bench *bench, size_t size, int advice)
{
	int err;

	memset(bench, 0, sizeof(*bench));

	bench->gpu = gpu_open(0);
	if (bench->gpu < 0)
		return bench->gpu;
	bench->vram_free = vram_free(bench->gpu);

	err = link_up(&bench->link);
	if (!err)
		err = buffer_map(&bench->buf, size, advice);
	if (!err)
		err = buffer_map(&bench->ram, size, MADV_HUGEPAGE);
	if (err)
		goto err;

	buffer_write(&bench->buf, 0, size);
	buffer_write(&bench->ram, 0, size);

	bench->ram_mr = rdma_reg_odp(&bench->link.near, bench->ram.mem, size);
	if (bench->ram_mr)
		return 0;
	err = -errno;
err:
	bench_fini(bench);
	return err;
}

int bench_init_in_vram(struct bench *bench, size_t size, int advice)
{
	uint64_t huge = advice == MADV_HUGEPAGE ? size / PAGE : 0;
	int err;

	err = bench_init(bench, size, advice);
	if (err)
		return err;

	err = buffer_to_vram(&bench->buf, bench->gpu, 0, size);
	if (!err && huge_pages_in_vram(bench->gpu, bench->buf.mem, size) != huge)
		err = -EAGAIN;
	if (!err)
		err = bench_register(bench);
	if (err)
		bench_fini(bench);

	return err;
}

uint64_t bench_fini(struct bench *bench)
{
	uint64_t leaked;

	aliases_enable(true);
	if (bench->mr)
		ibv_dereg_mr(bench->mr);
	if (bench->ram_mr)
		ibv_dereg_mr(bench->ram_mr);
	link_down(&bench->link);
	buffer_unmap(&bench->buf);
	buffer_unmap(&bench->ram);
	leaked = vram_leaked(bench->gpu, bench->vram_free);
	close(bench->gpu);
	return leaked;
}

int bench_register(struct bench *bench)
{
	if (bench->mr && ibv_dereg_mr(bench->mr))
		return -EBUSY;

	bench->mr = rdma_reg_odp(&bench->link.far, bench->buf.mem,
				 bench->buf.size);
	return bench->mr ? 0 : -errno;
}

int bench_read(struct bench *bench, size_t offset, size_t size)
{
	return rdma_read(&bench->link.near, bench->ram.mem + offset,
			 bench->ram_mr->lkey,
			 (uintptr_t)bench->buf.mem + offset, bench->mr->rkey,
			 size);
}

int bench_write(struct bench *bench, size_t offset, size_t size)
{
	return rdma_write(&bench->link.near, bench->ram.mem + offset,
			  bench->ram_mr->lkey,
			  (uintptr_t)bench->buf.mem + offset, bench->mr->rkey,
			  size);
}

int bench_write_new(struct bench *bench, size_t offset, size_t size)
{
	int err;

	buffer_write(&bench->ram, offset, size);
	err = bench_write(bench, offset, size);
	if (!err)
		memcpy(bench->buf.shadow + offset, bench->ram.shadow + offset,
		       size);
	return err;
}

int bench_add(struct bench *bench, size_t offset, uint64_t add)
{
	uint64_t *word = (uint64_t *)(bench->buf.shadow + offset);
	uint64_t *old = (uint64_t *)bench->ram.mem;
	uint64_t was = *word;
	int err;

	err = rdma_fetch_add(&bench->link.near, old, bench->ram_mr->lkey,
			     (uintptr_t)bench->buf.mem + offset,
			     bench->mr->rkey, add);
	if (err)
		return err;

	*word += add;
	return *old == was ? 0 : -EILSEQ;
}

int bench_prefetch(struct bench *bench, size_t offset, size_t size, int write)
{
	double start;
	int err;

	do {
		start = now();
		err = rdma_prefetch(&bench->link.far, bench->mr,
				    bench->buf.mem + offset, size, write);
	} while (is_out_of_patience(err, start));

	return err;
}

ssize_t bench_differs(struct bench *bench)
{
	size_t size = bench->buf.size;

	/* Old data at the destination must not pass for the data that is read. */
	buffer_write(&bench->ram, 0, size);
	if (bench_read(bench, 0, size))
		return -2;

	return differs(bench->ram.mem, bench->buf.shadow, size);
}
