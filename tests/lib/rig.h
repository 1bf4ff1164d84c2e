/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A setup for most tests: memory of a process that can migrate to GPU 0, with an MR
 * of the far side over it, and memory in RAM to transfer from and to, with an MR
 * of the near side. Functions return 0 or a negative errno, unless their comment says
 * otherwise.
 */
#ifndef LIB_RIG_H
#define LIB_RIG_H

#include "buffer.h"
#include "conn.h"

struct rig {
	int gpu;
	uint64_t vram_free;
	struct conn conn;
	struct buffer buf;
	struct buffer ram;
	struct ibv_mr *mr;
	struct ibv_mr *ram_mr;
};

int rig_init(struct rig *rig, size_t size, int advice);
/* As rig_init(), with @buf registered and in VRAM, in huge pages if @advice says so. */
int rig_init_in_vram(struct rig *rig, size_t size, int advice);
/* Returns how much VRAM is still in use that was free before. */
uint64_t rig_fini(struct rig *rig);
/* Register @buf, or register it again. */
int rig_register(struct rig *rig);

/* Transfer a part of @buf to or from the same place of @ram. */
int rig_read(struct rig *rig, size_t offset, size_t size);
int rig_write(struct rig *rig, size_t offset, size_t size);
/* Write a new pattern with RDMA, and update the shadow of @buf. */
int rig_write_new(struct rig *rig, size_t offset, size_t size);
/*
 * Add to a word with RDMA, and update the shadow. -EILSEQ if the old value was
 * wrong.
 */
int rig_add(struct rig *rig, size_t offset, uint64_t add);
/* Prefetch pages for the RDMA device, for reading or for writing. */
int rig_prefetch(struct rig *rig, size_t offset, size_t size, int write);
/* Read all of @buf with RDMA, and compare with the shadow; -2 if the read failed. */
ssize_t rig_differs(struct rig *rig);

#endif
