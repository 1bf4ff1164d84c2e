// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <rdma/ib_user_verbs.h>
#include <rdma/rdma_user_rxe.h>

#include "raw_wqe.h"

/* From rdma/ib_user_verbs.h, which cannot be included together with verbs.h. */
#define WR_FLUSH		14
#define WR_ATOMIC_WRITE		15
#define WR_REG_MR		0x20
#define FLUSH_RANGE		0
#define FLUSH_MR		1
#define ACCESS_FLUSH_PERSISTENT	(1 << 9)

#define ACCESS	(IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ |	\
		 IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC |	\
		 RAW_ACCESS_FLUSH_GLOBAL | ACCESS_FLUSH_PERSISTENT)

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

/* A write of zero bytes: it makes the kernel look at the queue. */
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

/* The queue is the one whose producer index moves when a request is posted. */
static struct rxe_queue_buf *find_queue(struct rdma *r, int (*post)(struct rdma *r))
{
	struct rxe_queue_buf *queues[MAX_QUEUES];
	uint32_t before[MAX_QUEUES];
	int i, n = find_queues(queues);

	for (i = 0; i < n; i++)
		before[i] = queues[i]->producer_index;
	if (post(r))
		return NULL;
	for (i = 0; i < n; i++)
		if (queues[i]->producer_index != before[i])
			return queues[i];

	return NULL;
}

struct rxe_queue_buf *raw_send_queue(struct rdma *r)
{
	struct rxe_queue_buf *queue = find_queue(r, post_nothing);

	return wait_completion(r) ? NULL : queue;
}

static int post_no_room(struct rdma *r)
{
	struct ibv_recv_wr *bad, wr = {};

	return -ibv_post_recv(r->qp, &wr, &bad);
}

struct rxe_queue_buf *raw_recv_queue(struct rdma *r)
{
	return find_queue(r, post_no_room);
}

static void *find_wqe(uint64_t wr_id, struct rxe_queue_buf **queue)
{
	struct rxe_queue_buf *queues[MAX_QUEUES];
	int i, n = find_queues(queues);
	uint32_t index;

	for (i = 0; i < n; i++) {
		for (index = 0; index <= queues[i]->index_mask; index++) {
			uint64_t *slot = (void *)(queues[i]->data +
				((size_t)index << queues[i]->log2_elem_size));

			*queue = queues[i];
			if (*slot == wr_id)
				return slot;
		}
	}

	*queue = NULL;
	return NULL;
}

void *raw_find_wqe(uint64_t wr_id)
{
	struct rxe_queue_buf *queue;

	return find_wqe(wr_id, &queue);
}

struct rxe_queue_buf *raw_find_queue(uint64_t wr_id)
{
	struct rxe_queue_buf *queue;

	find_wqe(wr_id, &queue);
	return queue;
}

static int put_wqe(struct rxe_queue_buf *queue, const struct rxe_send_wqe *wqe,
		   const void *data, size_t size)
{
	uint32_t index;
	uint8_t *slot;

	if (!queue)
		return -ENODEV;

	index = queue->producer_index & queue->index_mask;
	slot = queue->data + ((size_t)index << queue->log2_elem_size);
	memcpy(slot, wqe, sizeof(*wqe));
	if (size)
		memcpy(slot + sizeof(*wqe), data, size);
	__atomic_store_n(&queue->producer_index,
			 (queue->producer_index + 1) & queue->index_mask,
			 __ATOMIC_RELEASE);
	return 0;
}

/* Post a write of zero bytes after it. */
static int begin_raw(struct rdma *r, struct rxe_queue_buf *queue,
		     const struct rxe_send_wqe *wqe, const void *data, size_t size)
{
	int err = put_wqe(queue, wqe, data, size);

	return err ? err : post_nothing(r);
}

int raw_look_for(struct rdma *r, uint32_t wqe_size)
{
	struct ib_uverbs_post_send_resp resp;
	struct {
		struct ib_uverbs_cmd_hdr hdr;
		struct ib_uverbs_post_send cmd;
	} cmd = {
		.hdr = {
			.command = IB_USER_VERBS_CMD_POST_SEND,
			.in_words = sizeof(cmd) / 4,
			.out_words = sizeof(resp) / 4,
		},
		.cmd = {
			.response = (uintptr_t)&resp,
			.qp_handle = r->qp->handle,
			.wqe_size = wqe_size,
		},
	};

	return write(r->ctx->cmd_fd, &cmd, sizeof(cmd)) == sizeof(cmd) ? 0 : -errno;
}

int raw_look(struct rdma *r)
{
	return raw_look_for(r, sizeof(struct ib_uverbs_send_wr));
}

int raw_post(struct rdma *r, struct rxe_queue_buf *queue,
	     const struct rxe_send_wqe *wqe, const void *data, size_t size)
{
	int err = put_wqe(queue, wqe, data, size);

	return err ? err : raw_look(r);
}

int raw_wait(struct rdma *r)
{
	return wait_completion(r);
}

static int end_raw(struct rdma *r)
{
	enum ibv_wc_status status;
	int err = wait_completion(r);

	status = r->status;
	if (wait_completion(r) == -ETIMEDOUT)
		return -ETIMEDOUT;
	r->status = status;
	return err;
}

static int post_raw(struct rdma *r, const struct rxe_send_wqe *wqe,
		    const void *data, size_t size)
{
	int err = begin_raw(r, raw_send_queue(r), wqe, data, size);

	return err ? err : end_raw(r);
}

int raw_atomic_write_begin(struct rdma *r, struct rxe_queue_buf *queue,
			   uint64_t raddr, uint32_t rkey, uint64_t value)
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

	return begin_raw(r, queue, &wqe, &value, sizeof(value));
}

int raw_atomic_write_end(struct rdma *r)
{
	return end_raw(r);
}

int raw_atomic_write(struct rdma *r, uint64_t raddr, uint32_t rkey,
		     uint64_t value)
{
	int err = raw_atomic_write_begin(r, raw_send_queue(r), raddr, rkey, value);

	return err ? err : end_raw(r);
}

static int post_flush(struct rdma *r, uint64_t raddr, uint32_t rkey, size_t size,
		      enum raw_flush flush, uint8_t level)
{
	struct rxe_send_wqe wqe = {
		.wr = {
			.opcode = WR_FLUSH,
			.send_flags = IBV_SEND_SIGNALED,
			.wr.flush = {
				.remote_addr = raddr,
				.length = size,
				.rkey = rkey,
				.type = flush,
				.level = level,
			},
		},
		.iova = raddr,
		.dma = { .length = size, .resid = size },
	};

	return post_raw(r, &wqe, NULL, 0);
}

int raw_flush(struct rdma *r, uint64_t raddr, uint32_t rkey, size_t size,
	      enum raw_flush flush)
{
	return post_flush(r, raddr, rkey, size, flush, FLUSH_RANGE);
}

int raw_flush_all(struct rdma *r, uint32_t rkey, enum raw_flush flush)
{
	return post_flush(r, 0, rkey, 0, flush, FLUSH_MR);
}

int raw_change_opcode(uint32_t opcode)
{
	struct rxe_queue_buf *queues[MAX_QUEUES];
	int i, n = find_queues(queues);

	for (i = 0; i < n; i++) {
		struct rxe_queue_buf *queue = queues[i];
		uint32_t index = queue->consumer_index;
		struct rxe_send_wqe *wqe;

		if (index == queue->producer_index)
			continue;
		wqe = (void *)(queue->data + ((size_t)index << queue->log2_elem_size));
		wqe->wr.opcode = opcode;
		return 0;
	}

	return -ENOENT;
}

int raw_inline_write(struct rdma *r, uint64_t raddr, uint32_t rkey,
		     uint32_t offset, size_t size)
{
	struct rxe_send_wqe wqe = {
		.wr = {
			.opcode = IBV_WR_RDMA_WRITE,
			.send_flags = IBV_SEND_SIGNALED | IBV_SEND_INLINE,
			.wr.rdma = { .remote_addr = raddr, .rkey = rkey },
		},
		.iova = raddr,
		.dma = { .length = size, .resid = size, .sge_offset = offset },
	};

	return post_raw(r, &wqe, NULL, 0);
}

/* In the kernel's union, a pointer to an MR takes the place of a read's address. */
int raw_fast_reg(struct rdma *r, uint64_t mr)
{
	struct rxe_send_wqe wqe = {
		.wr = {
			.opcode = WR_REG_MR,
			.send_flags = IBV_SEND_SIGNALED,
			.wr.rdma.remote_addr = mr,
		},
	};

	return post_raw(r, &wqe, NULL, 0);
}

int raw_allow_flush(struct rdma *r)
{
	struct ibv_qp_attr attr = { .qp_access_flags = ACCESS };

	return -ibv_modify_qp(r->qp, &attr, IBV_QP_ACCESS_FLAGS);
}

struct ibv_mr *raw_reg_flushable(struct rdma *r, void *addr, size_t size)
{
	errno = -raw_allow_flush(r);
	if (errno)
		return NULL;

	return ibv_reg_mr(r->pd, addr, size, ACCESS | IBV_ACCESS_ON_DEMAND);
}
