// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <rdma/rdma_user_rxe.h>

#include "raw_wqe.h"

/* From rdma/ib_user_verbs.h, which does not go together with verbs.h. */
#define WR_FLUSH		14
#define WR_ATOMIC_WRITE		15
#define FLUSH_PERSISTENT	2
#define FLUSH_RANGE		0
#define ACCESS_FLUSH_PERSISTENT	(1 << 9)

#define ACCESS	(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ |	\
		 IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC |	\
		 ACCESS_FLUSH_PERSISTENT)

#define MAX_QUEUES	32
#define TIMEOUT_SEC	20

static int wait_completion(struct rdma *r)
{
	time_t end = time(NULL) + TIMEOUT_SEC;
	struct ibv_wc wc;
	int n;

	while (!(n = ibv_poll_cq(r->cq, 1, &wc))) {
		if (time(NULL) > end)
			return -ETIMEDOUT;
		usleep(1000);
	}
	if (n < 0)
		return -EIO;

	r->status = wc.status;
	return wc.status == IBV_WC_SUCCESS ? 0 : -EREMOTEIO;
}

/* A write of nothing: it makes the kernel look at the queue. */
static int post_nothing(struct rdma *r)
{
	struct ibv_send_wr wr = { .opcode = IBV_WR_RDMA_WRITE };
	struct ibv_send_wr *bad;

	return -ibv_post_send(r->qp, &wr, &bad);
}

/* All queues that the process shares with the kernel. */
static int find_queues(struct rxe_queue_buf **queues)
{
	unsigned long long start;
	char line[512];
	FILE *maps;
	int n = 0;

	maps = fopen("/proc/self/maps", "r");
	if (!maps)
		return 0;
	while (n < MAX_QUEUES && fgets(line, sizeof(line), maps)) {
		if (strstr(line, "uverbs") &&
		    sscanf(line, "%llx", &start) == 1)
			queues[n++] = (struct rxe_queue_buf *)start;
	}
	fclose(maps);

	return n;
}

/* The send queue is the one whose producer moves when something is posted. */
static struct rxe_queue_buf *find_send_queue(struct rdma *r)
{
	struct rxe_queue_buf *queues[MAX_QUEUES];
	uint32_t before[MAX_QUEUES];
	int i, n = find_queues(queues);

	for (i = 0; i < n; i++)
		before[i] = queues[i]->producer_index;
	if (post_nothing(r))
		return NULL;
	for (i = 0; i < n; i++)
		if (queues[i]->producer_index != before[i])
			break;

	return wait_completion(r) || i == n ? NULL : queues[i];
}

static int post_raw(struct rdma *r, const struct rxe_send_wqe *wqe,
		    const void *data, size_t size)
{
	struct rxe_queue_buf *queue = find_send_queue(r);
	uint32_t index;
	uint8_t *slot;
	int err;

	if (!queue)
		return -ENODEV;

	index = queue->producer_index & queue->index_mask;
	slot = queue->data + ((size_t)index << queue->log2_elem_size);
	memcpy(slot, wqe, sizeof(*wqe));
	memcpy(slot + sizeof(*wqe), data, size);
	__atomic_store_n(&queue->producer_index,
			 (queue->producer_index + 1) & queue->index_mask,
			 __ATOMIC_RELEASE);

	err = post_nothing(r);
	if (!err)
		err = wait_completion(r);
	return err ? err : wait_completion(r);
}

int raw_atomic_write(struct rdma *r, uint64_t raddr, uint32_t rkey,
		     uint64_t value)
{
	struct rxe_send_wqe wqe = {
		.wr = {
			.opcode = WR_ATOMIC_WRITE,
			.send_flags = IBV_SEND_SIGNALED,
			.wr.rdma = { .remote_addr = raddr, .rkey = rkey },
		},
		.iova = raddr,
		.dma = { .length = sizeof(value), .resid = sizeof(value) },
	};

	return post_raw(r, &wqe, &value, sizeof(value));
}

int raw_flush(struct rdma *r, uint64_t raddr, uint32_t rkey, size_t size)
{
	struct rxe_send_wqe wqe = {
		.wr = {
			.opcode = WR_FLUSH,
			.send_flags = IBV_SEND_SIGNALED,
			.wr.flush = {
				.remote_addr = raddr,
				.length = size,
				.rkey = rkey,
				.type = FLUSH_PERSISTENT,
				.level = FLUSH_RANGE,
			},
		},
		.iova = raddr,
		.dma = { .length = size, .resid = size },
	};

	return post_raw(r, &wqe, NULL, 0);
}

struct ibv_mr *raw_reg_flushable(struct rdma *r, void *addr, size_t size)
{
	struct ibv_qp_attr attr = { .qp_access_flags = ACCESS };

	errno = ibv_modify_qp(r->qp, &attr, IBV_QP_ACCESS_FLAGS);
	if (errno)
		return NULL;

	return ibv_reg_mr(r->pd, addr, size, ACCESS | IBV_ACCESS_ON_DEMAND);
}
