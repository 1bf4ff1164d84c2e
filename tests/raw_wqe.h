/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Operations that soft-RoCE has, but the verbs library of Debian 12 has not:
 * written into the send queue as a newer library would do it. Functions return
 * 0 or a negative errno; -EREMOTEIO if the request fails.
 */
#ifndef RAW_WQE_H
#define RAW_WQE_H

#include "rdma.h"

int raw_atomic_write(struct rdma *r, uint64_t raddr, uint32_t rkey,
		     uint64_t value);
int raw_flush(struct rdma *r, uint64_t raddr, uint32_t rkey, size_t size);

/* An on-demand MR that lets a peer flush it, and a QP that does. */
struct ibv_mr *raw_reg_flushable(struct rdma *r, void *addr, size_t size);

#endif
