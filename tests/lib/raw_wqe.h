/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Operations that soft-RoCE has, but the verbs library of Debian 12 does not. They
 * are written into the send queue as a newer library would do it. Functions return 0
 * or a negative errno; -EREMOTEIO if the request fails.
 */
#ifndef LIB_RAW_WQE_H
#define LIB_RAW_WQE_H

#include <rdma/rdma_user_rxe.h>

#include "rdma.h"

enum raw_flush {
	RAW_FLUSH_GLOBAL = 1,
	RAW_FLUSH_PERSISTENT = 2,
};

/* The send and receive queues of @r, found by posting a request of zero bytes. */
struct rxe_queue_buf *raw_send_queue(struct rdma *r);
struct rxe_queue_buf *raw_recv_queue(struct rdma *r);

int raw_atomic_write(struct rdma *r, uint64_t raddr, uint32_t rkey,
		     uint64_t value);
/* raw_atomic_write() in two steps, for a peer that is not connected yet. */
int raw_atomic_write_begin(struct rdma *r, struct rxe_queue_buf *queue,
			   uint64_t raddr, uint32_t rkey, uint64_t value);
int raw_atomic_write_end(struct rdma *r);
/* Flush a range, or all memory that @rkey covers. */
int raw_flush(struct rdma *r, uint64_t raddr, uint32_t rkey, size_t size,
	      enum raw_flush flush);
int raw_flush_all(struct rdma *r, uint32_t rkey, enum raw_flush flush);

/* Change the opcode that the request under way has in its queue. */
int raw_change_opcode(uint32_t opcode);

/* Find a request in any queue, or its queue, by an ID that no other request has. */
void *raw_find_wqe(uint64_t wr_id);
struct rxe_queue_buf *raw_find_queue(uint64_t wr_id);

/* Post only @wqe, unchanged, with @data after it. raw_wait() waits for it. */
int raw_post(struct rdma *r, struct rxe_queue_buf *queue,
	     const struct rxe_send_wqe *wqe, const void *data, size_t size);
int raw_wait(struct rdma *r);
/* Make the kernel read the send queue. */
int raw_look(struct rdma *r);
/* As raw_look(), and state a size of requests. No request is passed. */
int raw_look_for(struct rdma *r, uint32_t wqe_size);

/* Requests without a library function: inline data at any offset, an MR by its pointer. */
int raw_inline_write(struct rdma *r, uint64_t raddr, uint32_t rkey,
		     uint32_t offset, size_t size);
int raw_fast_reg(struct rdma *r, uint64_t mr);

/* Let the peer of a QP flush. A reset of the QP clears this permission. */
#define RAW_ACCESS_FLUSH_GLOBAL	(1 << 8)
int raw_allow_flush(struct rdma *r);
/* Register an on-demand MR that allows flushes, and let the QP allow them. */
struct ibv_mr *raw_reg_flushable(struct rdma *r, void *addr, size_t size);

#endif
