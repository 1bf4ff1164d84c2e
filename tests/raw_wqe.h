/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Operations that soft-RoCE has, but the verbs library of Debian 12 has not:
 * written into the send queue as a newer library would do it. Functions return
 * 0 or a negative errno; -EREMOTEIO if the request fails.
 */
#ifndef RAW_WQE_H
#define RAW_WQE_H

#include <rdma/rdma_user_rxe.h>

#include "rdma.h"

enum raw_flush {
	RAW_FLUSH_GLOBAL = 1,
	RAW_FLUSH_PERSISTENT = 2,
};

/* What r's sends and receives are in. A send or a receive of nothing finds it. */
struct rxe_queue_buf *raw_send_queue(struct rdma *r);
struct rxe_queue_buf *raw_recv_queue(struct rdma *r);

int raw_atomic_write(struct rdma *r, uint64_t raddr, uint32_t rkey,
		     uint64_t value);
/* In two steps, for a peer that is not there yet. */
int raw_atomic_write_begin(struct rdma *r, struct rxe_queue_buf *queue,
			   uint64_t raddr, uint32_t rkey, uint64_t value);
int raw_atomic_write_end(struct rdma *r);
/* Of a range, or of all that @rkey names. */
int raw_flush(struct rdma *r, uint64_t raddr, uint32_t rkey, size_t size,
	      enum raw_flush flush);
int raw_flush_all(struct rdma *r, uint32_t rkey, enum raw_flush flush);

/* Of the request that is under way: what it says it is. */
int raw_change_opcode(uint32_t opcode);

/* A request of any queue, by an ID that is no other's; and that queue. */
void *raw_find_wqe(uint64_t wr_id);
struct rxe_queue_buf *raw_find_queue(uint64_t wr_id);

/* A request by itself, as it is, with @data after it; raw_wait() waits for it. */
int raw_post(struct rdma *r, struct rxe_queue_buf *queue,
	     const struct rxe_send_wqe *wqe, const void *data, size_t size);
int raw_wait(struct rdma *r);
/* The kernel looks at the queue. */
int raw_look(struct rdma *r);
/* ... and is told that requests are that large, though it is given none. */
int raw_look_for(struct rdma *r, uint32_t wqe_size);

/* What no library writes: inline data that is elsewhere, an MR by its pointer. */
int raw_inline_write(struct rdma *r, uint64_t raddr, uint32_t rkey,
		     uint32_t offset, size_t size);
int raw_fast_reg(struct rdma *r, uint64_t mr);

/* A QP lets its peer flush. It does not any more after a reset. */
#define RAW_ACCESS_FLUSH_GLOBAL	(1 << 8)
int raw_allow_flush(struct rdma *r);
/* An on-demand MR that does, and the QP. */
struct ibv_mr *raw_reg_flushable(struct rdma *r, void *addr, size_t size);

#endif
