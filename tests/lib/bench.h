/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A setup for most tests: memory of a process that can migrate to GPU 0, with an MR
 * of the far side over it, and memory in RAM to transfer from and to, with an MR
 * of the near side. Functions return 0 or a negative errno, unless their comment says
 * otherwise.
 */
#ifndef LIB_BENCH_H
#define LIB_BENCH_H

#include "buffer.h"
#include "link.h"

struct bench {
	int gpu;
	uint64_t vram_free;
	struct link link;
	struct buffer buf;
	struct buffer ram;
	struct ibv_mr *mr;
	struct ibv_mr *ram_mr;
};

int bench_init(struct bench *bench, size_t size, int advice);
/* The same, with all of @buf registered and in VRAM, in huge pages if so advised. */
int bench_init_in_vram(struct bench *bench, size_t size, int advice);
/* Returns how much VRAM is still in use that was free before. */
uint64_t bench_fini(struct bench *bench);
/* Register @buf, or register it again. */
int bench_register(struct bench *bench);

/* Transfer a part of @buf to or from the same place of @ram. */
int bench_read(struct bench *bench, size_t offset, size_t size);
int bench_write(struct bench *bench, size_t offset, size_t size);
/* Write a new pattern with RDMA, and update the shadow of @buf. */
int bench_write_new(struct bench *bench, size_t offset, size_t size);
/*
 * Add to a word with RDMA, and update the shadow. -EILSEQ if the old value was
 * wrong.
 */
int bench_add(struct bench *bench, size_t offset, uint64_t add);
/* Prefetch pages for the RDMA device, for reading or for writing. */
int bench_prefetch(struct bench *bench, size_t offset, size_t size, int write);
/* Read all of @buf with RDMA, and compare with the shadow; -2 if the read failed. */
ssize_t bench_differs(struct bench *bench);

#endif
