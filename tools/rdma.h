/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One side of a reliable connection over the lab's soft-RoCE device, with
 * ordinary verbs. The two sides may be in one process or in two: they exchange
 * struct rdma_addr by any means they like. Functions return 0 or a negative
 * errno; a work request that fails returns -EREMOTEIO, and rdma_status() tells
 * the ibv_wc_status.
 */
#ifndef RDMA_H
#define RDMA_H

#include <stddef.h>
#include <stdint.h>

#include <infiniband/verbs.h>

struct rdma {
	struct ibv_context *ctx;
	struct ibv_pd *pd;
	struct ibv_cq *cq;
	struct ibv_qp *qp;
	enum ibv_wc_status status;
};

/* The address of one side, for the other side. Plain data. */
struct rdma_addr {
	union ibv_gid gid;
	uint32_t qpn;
};

int rdma_open(struct rdma *r);
void rdma_close(struct rdma *r);
void rdma_address(struct rdma *r, struct rdma_addr *addr);
int rdma_connect(struct rdma *r, const struct rdma_addr *peer);
enum ibv_wc_status rdma_status(const struct rdma *r);

/* An on-demand-paging MR with all access rights that soft-RoCE has for it. */
struct ibv_mr *rdma_reg_odp(struct rdma *r, void *addr, size_t size);

/* Prefetch synchronously, for writing or for reading only. */
int rdma_prefetch(struct rdma *r, struct ibv_mr *mr, void *addr, size_t size,
		  int write);
/* The same for writing, but the kernel does it later. */
int rdma_prefetch_begin(struct rdma *r, struct ibv_mr *mr, void *addr, size_t size);

/* ibv_advise_mr() of one element, which goes to the kernel unchanged. */
int rdma_advise(struct ibv_pd *pd, enum ibv_advise_mr_advice advice,
		uint32_t flags, struct ibv_sge *sge);
/* The same, of @num elements. */
int rdma_advise_list(struct ibv_pd *pd, enum ibv_advise_mr_advice advice,
		     uint32_t flags, struct ibv_sge *sge, unsigned int num);

/*
 * Each posts one work request of the given size (up to 1 GiB) and waits for it,
 * except rdma_post_recv(): rdma_wait() waits for that.
 */
int rdma_read(struct rdma *r, void *buf, uint32_t lkey, uint64_t raddr,
	      uint32_t rkey, size_t size);
int rdma_write(struct rdma *r, const void *buf, uint32_t lkey, uint64_t raddr,
	       uint32_t rkey, size_t size);
int rdma_post_recv(struct rdma *r, void *buf, uint32_t lkey, size_t size);
int rdma_wait(struct rdma *r);
int rdma_send(struct rdma *r, const void *buf, uint32_t lkey, size_t size);
int rdma_fetch_add(struct rdma *r, uint64_t *old, uint32_t lkey,
		   uint64_t raddr, uint32_t rkey, uint64_t add);
int rdma_cmp_swap(struct rdma *r, uint64_t *old, uint32_t lkey,
		  uint64_t raddr, uint32_t rkey, uint64_t cmp, uint64_t swap);

/* Bind a memory window that is not bound; peers access it with *@rkey. */
int rdma_bind_mw(struct rdma *r, struct ibv_mw *mw,
		 const struct ibv_mw_bind_info *info, uint32_t *rkey);
int rdma_invalidate(struct rdma *r, uint32_t rkey);

#endif
