// SPDX-License-Identifier: GPL-2.0
/*
 * soft-RoCE by itself, with any kind of memory: the values that a process may write
 * to its QPs and queues, and requests that are repeated because their response got
 * lost. A requester repeats them when its PSN is set back.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/buffer.h"
#include "lib/cgroup.h"
#include "lib/conn.h"
#include "lib/file.h"
#include "lib/harness.h"
#include "lib/held.h"
#include "lib/raw_wqe.h"

#define WR_ID		0x5a5a5a5a87654321

/* From rdma/ib_user_verbs.h, as in raw_wqe.c, and from the driver */
#define WR_FLUSH	14
#define WR_ATOMIC_WRITE	15
#define FLUSH_RANGE	0
#define STATE_DONE	3

/* From rdma/ib_pack.h */
#define UD_SEND_ONLY	0x64

static int modify(struct rdma *r, struct ibv_qp_attr attr, int mask)
{
	return -ibv_modify_qp(r->qp, &attr, mask);
}

/* The next request is sent as if it repeated the one that had this PSN. */
static int set_back(struct rdma *r, uint32_t psn)
{
	return modify(r, (struct ibv_qp_attr) { .sq_psn = psn }, IBV_QP_SQ_PSN);
}

/* The PSN of the next request to send, and of the next one that is expected. */
static uint32_t psn_to_send(struct rdma *r)
{
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr attr;

	return ibv_query_qp(r->qp, &attr, IBV_QP_SQ_PSN, &init) ? ~0U : attr.sq_psn;
}

static uint32_t psn_expected(struct rdma *r)
{
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr attr;

	return ibv_query_qp(r->qp, &attr, IBV_QP_RQ_PSN, &init) ? ~0U : attr.rq_psn;
}

static struct rxe_send_wqe flush_of(void *mem, struct ibv_mr *mr, size_t size)
{
	return (struct rxe_send_wqe) {
		.wr = {
			.opcode = WR_FLUSH,
			.wr.flush = {
				.remote_addr = (uintptr_t)mem,
				.length = size,
				.rkey = mr->rkey,
				.type = RAW_FLUSH_GLOBAL,
				.level = FLUSH_RANGE,
			},
		},
		.iova = (uintptr_t)mem,
		.dma = { .length = size, .resid = size },
	};
}

static struct rxe_send_wqe atomic_write_of(void *mem, struct ibv_mr *mr, size_t size)
{
	return (struct rxe_send_wqe) {
		.wr = {
			.opcode = WR_ATOMIC_WRITE,
			.wr.rdma = {
				.remote_addr = (uintptr_t)mem, .rkey = mr->rkey,
			},
		},
		.iova = (uintptr_t)mem,
		.dma = { .length = size, .resid = size },
	};
}

/* Two sides. The far one has an MR that permits everything. */
FIXTURE(sides) {
	struct conn conn;
	struct rdma *near;
	struct rdma *far;
	struct rxe_queue_buf *queue;
	struct buffer buf;
	struct ibv_mr *mr;
};

FIXTURE_SETUP(sides)
{
	ASSERT_EQ(0, conn_up(&self->conn));
	self->near = &self->conn.near;
	self->far = &self->conn.far;
	ASSERT_EQ(0, buffer_map(&self->buf, MIB(2), MADV_HUGEPAGE));
	buffer_write(&self->buf, 0, MIB(2));
	self->mr = raw_reg_flushable(self->far, self->buf.mem, MIB(2));
	ASSERT_NE(NULL, self->mr);
	/* This uses PSN 0 */
	self->queue = raw_send_queue(self->near);
	ASSERT_NE(NULL, self->queue);
}

FIXTURE_TEARDOWN(sides)
{
	EXPECT_EQ(-1, buffer_differs(&self->buf));
	ibv_dereg_mr(self->mr);
	buffer_unmap(&self->buf);
	conn_down(&self->conn);
}

TEST_F(sides, modify_qp_rejects_invalid_path_mtu)
{
	unsigned int mtu;

	for (mtu = 0; mtu < 256; mtu++) {
		struct ibv_qp_attr attr = { .path_mtu = mtu };
		bool is = mtu >= IBV_MTU_256 && mtu <= IBV_MTU_4096;

		EXPECT_EQ(is ? 0 : -EINVAL, modify(self->near, attr, IBV_QP_PATH_MTU)) {
			TH_LOG("MTU %u", mtu);
		}
	}
}

TEST_F(sides, modify_qp_rejects_too_large_max_dest_rd_atomic)
{
	static const unsigned int too_many[] = { 129, 200, 255 };
	struct ibv_qp_attr attr;
	unsigned int i;

	for (i = 0; i < ARRAY_LEN(too_many); i++) {
		attr = (struct ibv_qp_attr) { .max_dest_rd_atomic = too_many[i] };
		EXPECT_EQ(-EINVAL, modify(self->far, attr, IBV_QP_MAX_DEST_RD_ATOMIC));
	}
	attr = (struct ibv_qp_attr) { .max_dest_rd_atomic = 128 };
	EXPECT_EQ(0, modify(self->far, attr, IBV_QP_MAX_DEST_RD_ATOMIC));
	EXPECT_EQ(0, raw_flush(self->near, (uintptr_t)self->buf.mem, self->mr->rkey,
			       PAGE, RAW_FLUSH_GLOBAL));
}

TEST_F(sides, oversized_message_completes_with_loc_len_err)
{
	struct rxe_send_wqe wqe = {
		.wr = {
			.opcode = IBV_WR_RDMA_WRITE,
			.wr.rdma = {
				.remote_addr = (uintptr_t)self->buf.mem,
				.rkey = self->mr->rkey,
			},
		},
		.iova = (uintptr_t)self->buf.mem,
		.dma = { .length = 0xfffffffc, .resid = 0xfffffffc },
	};

	ASSERT_EQ(0, raw_post(self->near, self->queue, &wqe, NULL, 0));
	EXPECT_EQ(-EREMOTEIO, raw_wait(self->near));
	EXPECT_EQ(IBV_WC_LOC_LEN_ERR, rdma_status(self->near));
}

static void *modify_again_and_again(void *arg)
{
	struct rdma *r = arg;
	long err = 0;
	int i;

	for (i = 0; i < 2000 && !err; i++) {
		struct ibv_qp_attr attr = { .max_dest_rd_atomic = i % 2 ? 128 : 1 };

		err = modify(r, attr, IBV_QP_MAX_DEST_RD_ATOMIC);
	}
	return (void *)err;
}

TEST_F(sides, concurrent_modify_qp_calls_are_serialized)
{
	struct ibv_qp_attr attr = { .max_dest_rd_atomic = 128 };
	pthread_t threads[4];
	unsigned int i;
	void *err;

	for (i = 0; i < ARRAY_LEN(threads); i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, modify_again_and_again,
					    self->far));
	for (i = 0; i < ARRAY_LEN(threads); i++) {
		ASSERT_EQ(0, pthread_join(threads[i], &err));
		EXPECT_EQ(NULL, err);
	}
	ASSERT_EQ(0, modify(self->far, attr, IBV_QP_MAX_DEST_RD_ATOMIC));
	EXPECT_EQ(0, raw_flush(self->near, (uintptr_t)self->buf.mem, self->mr->rkey,
			       PAGE, RAW_FLUSH_GLOBAL));
}

TEST_F(sides, duplicate_flush_is_acknowledged_again)
{
	struct rxe_send_wqe wqe = flush_of(self->buf.mem, self->mr, PAGE);
	int i;

	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, set_back(self->near, 1));
		ASSERT_EQ(0, raw_post(self->near, self->queue, &wqe, NULL, 0));
		EXPECT_EQ(0, raw_wait(self->near));
	}
}

/*
 * The responder keeps one response, by then that of the flush. It no longer has one
 * for the atomic before, and must not make one up.
 */
TEST_F(sides, duplicate_atomic_gets_no_saved_flush_response)
{
	struct rxe_send_wqe wqe = flush_of(self->buf.mem, self->mr, PAGE);
	struct ibv_qp_attr attr = {
		.max_dest_rd_atomic = 1, .timeout = 8, .retry_cnt = 1,
	};
	uint64_t *word = (uint64_t *)self->buf.shadow, old = 0;
	struct ibv_mr *mr = rdma_reg_odp(self->near, &old, sizeof(old));

	ASSERT_NE(NULL, mr);
	ASSERT_EQ(0, modify(self->far, attr, IBV_QP_MAX_DEST_RD_ATOMIC));
	ASSERT_EQ(0, rdma_fetch_add(self->near, &old, mr->lkey,
				    (uintptr_t)self->buf.mem, self->mr->rkey, 1));
	EXPECT_EQ(*word, old);
	*word += 1;
	ASSERT_EQ(0, raw_post(self->near, self->queue, &wqe, NULL, 0));
	ASSERT_EQ(0, raw_wait(self->near));

	ASSERT_EQ(0, modify(self->near, attr, IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT));
	ASSERT_EQ(0, set_back(self->near, 1));
	EXPECT_EQ(-EREMOTEIO, rdma_fetch_add(self->near, &old, mr->lkey,
					     (uintptr_t)self->buf.mem,
					     self->mr->rkey, 1)) {
		TH_LOG("it was %#lx", old);
	}
	EXPECT_EQ(IBV_WC_RETRY_EXC_ERR, rdma_status(self->near));
	ibv_dereg_mr(mr);
}

/* No more flushes are under way than the responder keeps responses for. */
TEST_F(sides, flush_waits_for_rd_atomic_credit)
{
	struct rxe_send_wqe flush = flush_of(self->buf.mem, self->mr, PAGE);
	struct rxe_send_wqe write = atomic_write_of(self->buf.mem, self->mr, 8);
	struct ibv_qp_attr attr = { .max_rd_atomic = 1 };
	struct rdma_addr near, far;
	uint64_t value = 42;

	rdma_address(self->near, &near);
	rdma_address(self->far, &far);
	ASSERT_EQ(0, qp_restart(self->near->qp));
	ASSERT_EQ(0, qp_restart(self->far->qp));
	ASSERT_EQ(0, rdma_connect(self->near, &far));
	ASSERT_EQ(0, modify(self->near, attr, IBV_QP_MAX_QP_RD_ATOMIC));

	/* The peer does not answer */
	ASSERT_EQ(0, raw_post(self->near, self->queue, &write, &value, sizeof(value)));
	ASSERT_EQ(0, raw_post(self->near, self->queue, &flush, NULL, 0));
	while (!psn_to_send(self->near))
		usleep(1000);
	usleep(200000);
	EXPECT_EQ(1, psn_to_send(self->near));

	ASSERT_EQ(0, rdma_connect(self->far, &near));
	ASSERT_EQ(0, raw_allow_flush(self->far));
	EXPECT_EQ(0, raw_wait(self->near));
	EXPECT_EQ(0, raw_wait(self->near));
	*(uint64_t *)self->buf.shadow = value;
}

/* ... and does not wait if its turn never comes. */
TEST_F(sides, flush_with_max_rd_atomic_zero_fails)
{
	struct ibv_qp_attr attr = { .max_rd_atomic = 0 };

	ASSERT_EQ(0, modify(self->near, attr, IBV_QP_MAX_QP_RD_ATOMIC));
	EXPECT_NE(0, raw_flush(self->near, (uintptr_t)self->buf.mem, self->mr->rkey,
			       PAGE, RAW_FLUSH_GLOBAL));
	EXPECT_EQ(IBV_WC_LOC_QP_OP_ERR, rdma_status(self->near));
}

/* ... nor for a request that a later response has acknowledged as well. */
TEST_F(sides, later_response_returns_the_rd_atomic_credit)
{
	struct ibv_qp_attr attr = { .sq_psn = 0, .max_rd_atomic = 1 };
	uint64_t raddr = (uintptr_t)self->buf.mem;

	/* The responder knows that PSN 0 and 1 were requests of another kind */
	ASSERT_NE(NULL, raw_send_queue(self->near));
	ASSERT_EQ(0, modify(self->near, attr, IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC));
	ASSERT_EQ(0, raw_atomic_write_begin(self->near, self->queue, raddr,
					    self->mr->rkey, 1));
	ASSERT_EQ(0, raw_atomic_write_end(self->near));

	ASSERT_EQ(0, raw_atomic_write(self->near, raddr, self->mr->rkey, 2));
	*(uint64_t *)self->buf.shadow = 2;
}

TEST_F(sides, atomic_write_rejects_length_other_than_8)
{
	uint64_t value = 42;
	size_t size;

	for (size = 0; size <= 12; size++) {
		struct rxe_send_wqe wqe = atomic_write_of(self->buf.mem, self->mr, size);

		if (size == 8)
			continue;
		ASSERT_EQ(0, raw_post(self->near, self->queue, &wqe, &value, 8));
		EXPECT_EQ(-EREMOTEIO, raw_wait(self->near));
		EXPECT_EQ(IBV_WC_LOC_QP_OP_ERR, rdma_status(self->near)) {
			TH_LOG("%zu bytes", size);
		}
		qp_to_error(self->far->qp);
		ASSERT_EQ(0, conn_revive(&self->conn));
	}
}

TEST_F(sides, short_receive_completes_with_loc_len_err)
{
	struct buffer ram;
	struct ibv_mr *mr;

	ASSERT_EQ(0, buffer_map(&ram, PAGE, MADV_NOHUGEPAGE));
	buffer_write(&ram, 0, PAGE);
	mr = rdma_reg_odp(self->near, ram.mem, PAGE);
	ASSERT_NE(NULL, mr);

	ASSERT_EQ(0, rdma_post_recv(self->far, self->buf.mem, self->mr->lkey, 64));
	EXPECT_EQ(-EREMOTEIO, rdma_send(self->near, ram.mem, mr->lkey, 65));
	EXPECT_EQ(IBV_WC_REM_INV_REQ_ERR, rdma_status(self->near));
	EXPECT_EQ(-EREMOTEIO, rdma_wait(self->far));
	EXPECT_EQ(IBV_WC_LOC_LEN_ERR, rdma_status(self->far));

	ibv_dereg_mr(mr);
	buffer_unmap(&ram);
}

/*
 * The peer has acknowledged the first pages, and is stuck in a fault on a later one.
 * The rest is sent again during that time, and goes where it should.
 */
TEST_F(sides, partly_acked_write_resumes_at_right_address)
{
	const size_t size = 151 * PAGE, before = 140 * PAGE;
	struct ibv_send_wr *bad, wr = { .opcode = IBV_WR_RDMA_WRITE, .num_sge = 1 };
	struct uffdio_zeropage there = { .range.len = before };
	struct ibv_mr *mr, *held_mr;
	struct ibv_sge sge;
	struct held held;
	struct ibv_wc wc;

	ASSERT_EQ(0, held_map(&held, size));
	there.range.start = (uintptr_t)held.mem;
	ASSERT_EQ(0, ioctl(held.uffd, UFFDIO_ZEROPAGE, &there));
	held_mr = rdma_reg_odp(self->far, held.mem, size);
	mr = rdma_reg_odp(self->near, self->buf.mem, MIB(2));
	ASSERT_NE(NULL, held_mr);
	ASSERT_NE(NULL, mr);

	sge = (struct ibv_sge) {
		.addr = (uintptr_t)self->buf.mem + 1, .length = size - 7, .lkey = mr->lkey,
	};
	wr.sg_list = &sge;
	wr.wr.rdma.remote_addr = (uintptr_t)held.mem;
	wr.wr.rdma.rkey = held_mr->rkey;
	ASSERT_EQ(0, ibv_post_send(self->near->qp, &wr, &bad));
	ASSERT_EQ(0, held_wait(&held, NULL));
	sleep(3);
	ASSERT_EQ(0, held_release(&held));
	ASSERT_EQ(0, cq_wait(self->near->cq, &wc));
	EXPECT_EQ(IBV_WC_SUCCESS, wc.status);
	EXPECT_EQ(-1, differs(held.mem, self->buf.shadow + 1, size - 7));

	ibv_dereg_mr(mr);
	ibv_dereg_mr(held_mr);
	held_unmap(&held);
}

/* As long as a message can be. The buffer is too small; its beginning arrives. */
TEST_F(sides, rdma_read_of_2_gib_stops_at_end_of_local_mr)
{
	const size_t size = (size_t)1 << 31;
	struct ibv_send_wr *bad, wr = { .opcode = IBV_WR_RDMA_READ, .num_sge = 1 };
	struct ibv_mr *mr, *vast_mr;
	struct ibv_sge sge;
	struct ibv_wc wc;
	uint8_t *vast;

	vast = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		    -1, 0);
	ASSERT_NE(MAP_FAILED, vast);
	vast_mr = ibv_reg_mr(self->far->pd, vast, size,
			     IBV_ACCESS_ON_DEMAND | IBV_ACCESS_REMOTE_READ);
	mr = rdma_reg_odp(self->near, self->buf.mem, 2 * PAGE);
	ASSERT_NE(NULL, vast_mr);
	ASSERT_NE(NULL, mr);

	sge = (struct ibv_sge) {
		.addr = (uintptr_t)self->buf.mem, .length = size, .lkey = mr->lkey,
	};
	wr.sg_list = &sge;
	wr.wr.rdma.remote_addr = (uintptr_t)vast;
	wr.wr.rdma.rkey = vast_mr->rkey;
	ASSERT_EQ(0, ibv_post_send(self->near->qp, &wr, &bad));
	ASSERT_EQ(0, cq_wait(self->near->cq, &wc));
	EXPECT_EQ(IBV_WC_LOC_PROT_ERR, wc.status);
	memset(self->buf.shadow, 0, 2 * PAGE);

	ASSERT_EQ(0, qp_restart(self->far->qp));
	ibv_dereg_mr(mr);
	ibv_dereg_mr(vast_mr);
	munmap(vast, size);
}

/* A QP whose requests are not signaled by default, and a CQ for @room completions. */
static struct ibv_qp *create_qp(struct rdma *r, unsigned int length, int room)
{
	struct ibv_cq *cq = ibv_create_cq(r->ctx, room, NULL, NULL, 0);
	struct ibv_qp_init_attr attr = {
		.qp_type = IBV_QPT_RC, .send_cq = cq, .recv_cq = cq,
		.cap = {
			.max_send_wr = length, .max_recv_wr = 1000,
			.max_send_sge = 1, .max_recv_sge = 1,
		},
	};

	return cq ? ibv_create_qp(r->pd, &attr) : NULL;
}

static struct ibv_qp *create_long_qp(struct rdma *r, unsigned int length)
{
	return create_qp(r, length, 4000);
}

static void destroy_qp(struct ibv_qp *qp)
{
	struct ibv_cq *cq = qp->send_cq;

	ibv_destroy_qp(qp);
	ibv_destroy_cq(cq);
}

/* All requests and receives, in order. */
TEST_F(sides, qp_error_flushes_all_wqes_in_order)
{
	const unsigned int length = 1000;
	struct rdma r = *self->near;
	unsigned int i, next[2] = {};
	struct rdma_addr nobody = {};
	struct ibv_wc wc;

	rdma_address(self->far, &nobody);
	nobody.qpn = 0xfffffe;
	r.qp = create_long_qp(&r, length);
	ASSERT_NE(NULL, r.qp);
	ASSERT_EQ(0, qp_restart(r.qp));
	ASSERT_EQ(0, rdma_connect(&r, &nobody));
	for (i = 0; i < length; i++) {
		struct ibv_send_wr *bad, wr = { .wr_id = i, .opcode = IBV_WR_SEND };
		struct ibv_recv_wr *bad_recv, recv = { .wr_id = length + i };

		ASSERT_EQ(0, ibv_post_recv(r.qp, &recv, &bad_recv));
		ASSERT_EQ(0, ibv_post_send(r.qp, &wr, &bad));
	}
	ASSERT_EQ(0, qp_to_error(r.qp));
	for (i = 0; i < 2 * length; i++) {
		ASSERT_EQ(0, cq_wait(r.qp->send_cq, &wc));
		EXPECT_EQ(IBV_WC_WR_FLUSH_ERR, wc.status);
		ASSERT_EQ(next[wc.wr_id / length]++, wc.wr_id % length);
	}
	destroy_qp(r.qp);
}

/* Post the next request while the kernel is still flushing the one before. */
TEST_F(sides, wqe_posted_in_error_state_is_flushed)
{
	const unsigned int number = 5000;
	struct rdma_addr nobody = {};
	struct rdma r = *self->near;
	struct ibv_wc wc;
	unsigned int i;

	rdma_address(self->far, &nobody);
	nobody.qpn = 0xfffffe;
	r.qp = create_long_qp(&r, 16);
	ASSERT_NE(NULL, r.qp);
	ASSERT_EQ(0, qp_restart(r.qp));
	ASSERT_EQ(0, rdma_connect(&r, &nobody));
	ASSERT_EQ(0, qp_to_error(r.qp));
	for (i = 0; i < number; i++) {
		struct ibv_send_wr *bad, wr = { .wr_id = i, .opcode = IBV_WR_SEND };
		unsigned int spins = 100000;

		ASSERT_EQ(0, ibv_post_send(r.qp, &wr, &bad));
		while (!ibv_poll_cq(r.qp->send_cq, 1, &wc)) {
			if (!spins--) {
				ASSERT_EQ(0, cq_wait(r.qp->send_cq, &wc));
				break;
			}
		}
		ASSERT_EQ(IBV_WC_WR_FLUSH_ERR, wc.status);
		ASSERT_EQ(i, wc.wr_id);
	}
	destroy_qp(r.qp);
}

TEST_F(sides, qp_reset_drops_posted_wqes)
{
	struct ibv_send_wr *bad, wr = { .opcode = IBV_WR_RDMA_WRITE };
	struct rdma_addr near, far;
	int i;

	rdma_address(self->near, &near);
	rdma_address(self->far, &far);
	ASSERT_EQ(0, qp_restart(self->near->qp));
	ASSERT_EQ(0, qp_restart(self->far->qp));
	ASSERT_EQ(0, rdma_connect(self->near, &far));
	/* The peer does not answer */
	for (i = 0; i < 5; i++)
		ASSERT_EQ(0, ibv_post_send(self->near->qp, &wr, &bad));

	ASSERT_EQ(0, qp_restart(self->near->qp));
	ASSERT_EQ(0, rdma_connect(self->near, &far));
	ASSERT_EQ(0, raw_look(self->near));
	usleep(200000);
	EXPECT_EQ(0, psn_to_send(self->near));
	ASSERT_EQ(0, rdma_connect(self->far, &near));
	EXPECT_EQ(self->queue, raw_send_queue(self->near));
}

static enum ibv_qp_state state_of(struct ibv_qp *qp)
{
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr attr;

	return ibv_query_qp(qp, &attr, IBV_QP_STATE, &init) ? IBV_QPS_UNKNOWN : attr.qp_state;
}

/* A QP can go from SQD to RTS, as from RTS, without any other attribute. */
TEST_F(sides, modify_qp_rejects_wrong_cur_qp_state)
{
	const int mask = IBV_QP_STATE | IBV_QP_CUR_STATE;
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTS, .cur_qp_state = IBV_QPS_RTS,
	};

	EXPECT_EQ(0, modify(self->far, attr, mask));
	attr.cur_qp_state = IBV_QPS_SQD;
	EXPECT_EQ(-EINVAL, modify(self->far, attr, mask));
	EXPECT_EQ(IBV_QPS_RTS, state_of(self->far->qp));

	attr.qp_state = IBV_QPS_RESET;
	ASSERT_EQ(0, modify(self->far, attr, IBV_QP_STATE));
	attr = (struct ibv_qp_attr) {
		.qp_state = IBV_QPS_RTS, .cur_qp_state = IBV_QPS_RTS,
	};
	EXPECT_EQ(-EINVAL, modify(self->far, attr, mask));
	EXPECT_EQ(IBV_QPS_RESET, state_of(self->far->qp));
}

/*
 * The first packet of a message has taken a receive, which an error flushes. If the
 * QP were ready again without a reset, the next packets would have no receive.
 */
TEST_F(sides, modify_qp_rejects_error_to_rts_during_message)
{
	struct ibv_send_wr *bad, wr = { .opcode = IBV_WR_SEND, .num_sge = 1 };
	struct uffdio_zeropage there = { .range.len = PAGE };
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTS, .cur_qp_state = IBV_QPS_RTS,
	};
	struct ibv_mr *mr;
	struct ibv_sge sge;
	struct held held;

	ASSERT_EQ(0, held_map(&held, 3 * PAGE));
	there.range.start = (uintptr_t)held.mem;
	ASSERT_EQ(0, ioctl(held.uffd, UFFDIO_ZEROPAGE, &there));
	mr = rdma_reg_odp(self->near, held.mem, 3 * PAGE);
	ASSERT_NE(NULL, mr);
	ASSERT_EQ(0, rdma_post_recv(self->far, self->buf.mem, self->mr->lkey, 3 * PAGE));
	memset(self->buf.shadow, 0, PAGE);

	sge = (struct ibv_sge) { (uintptr_t)held.mem, 3 * PAGE, mr->lkey };
	wr.sg_list = &sge;
	/* A request was sent before, to find the queue */
	ASSERT_EQ(1, psn_expected(self->far));
	ASSERT_EQ(0, ibv_post_send(self->near->qp, &wr, &bad));
	ASSERT_EQ(0, held_wait(&held, NULL));
	while (psn_expected(self->far) == 1)
		usleep(1000);
	ASSERT_EQ(0, qp_to_error(self->far->qp));
	EXPECT_EQ(-EREMOTEIO, rdma_wait(self->far));
	EXPECT_EQ(IBV_WC_WR_FLUSH_ERR, rdma_status(self->far));

	EXPECT_EQ(-EINVAL, modify(self->far, attr, IBV_QP_STATE | IBV_QP_CUR_STATE));
	ASSERT_EQ(0, qp_to_error(self->near->qp));
	EXPECT_EQ(0, held_release(&held));
	EXPECT_EQ(-EREMOTEIO, raw_wait(self->near));

	ibv_dereg_mr(mr);
	held_unmap(&held);
}

/* While it answers, the kernel holds memory of the size that a request claims. */
TEST_F(sides, post_send_rejects_wqe_size_above_a_page)
{
	EXPECT_EQ(0, raw_look_for(self->near, PAGE));
	EXPECT_EQ(-EINVAL, raw_look_for(self->near, PAGE + 1));
	EXPECT_EQ(-EINVAL, raw_look_for(self->near, MIB(4)));
}

/* The MR is created after the QP and destroyed before it, as when a process dies. */
TEST_F(sides, cq_overflow_at_responder_drops_mr_reference)
{
	struct ibv_recv_wr *bad_recv, recv = {};
	struct rdma near = *self->near, far = *self->far;
	struct ibv_mr *near_mr, *far_mr;
	struct rdma_addr addr;
	struct ibv_sge sge;
	struct ibv_send_wr *bad, wr = {
		.opcode = IBV_WR_RDMA_WRITE_WITH_IMM, .sg_list = &sge, .num_sge = 1,
	};
	int i, tries = 1000 * slowness();

	near.qp = create_qp(&near, 8, 8);
	far.qp = create_qp(&far, 8, 1);
	ASSERT_NE(NULL, near.qp);
	ASSERT_NE(NULL, far.qp);
	ASSERT_EQ(0, qp_restart(near.qp));
	ASSERT_EQ(0, qp_restart(far.qp));
	rdma_address(&far, &addr);
	ASSERT_EQ(0, rdma_connect(&near, &addr));
	rdma_address(&near, &addr);
	ASSERT_EQ(0, rdma_connect(&far, &addr));
	near_mr = rdma_reg_odp(&near, self->buf.mem, PAGE);
	far_mr = rdma_reg_odp(&far, self->buf.mem, PAGE);
	ASSERT_NE(NULL, near_mr);
	ASSERT_NE(NULL, far_mr);

	sge = (struct ibv_sge) { (uintptr_t)self->buf.mem, 8, near_mr->lkey };
	wr.wr.rdma.remote_addr = sge.addr;
	wr.wr.rdma.rkey = far_mr->rkey;
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, ibv_post_recv(far.qp, &recv, &bad_recv));
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, ibv_post_send(near.qp, &wr, &bad));
	while (state_of(far.qp) != IBV_QPS_ERR && --tries)
		usleep(10000);
	EXPECT_EQ(IBV_QPS_ERR, state_of(far.qp));

	EXPECT_EQ(0, ibv_dereg_mr(far_mr));
	destroy_qp(near.qp);
	destroy_qp(far.qp);
	EXPECT_EQ(0, ibv_dereg_mr(near_mr));
}

/* Give up a request after three attempts, 134 ms each. */
static int try_three_times(struct rdma *r)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_SQD, .timeout = 15, .retry_cnt = 2 };
	int err;

	err = qp_drain(r->qp);
	err = err ?: modify(r, attr, IBV_QP_STATE | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT);
	err = err ?: qp_wait_for_drain(r->qp);
	attr.qp_state = IBV_QPS_RTS;
	return err ?: modify(r, attr, IBV_QP_STATE);
}

/* A third QP sends with the PSN, and even the key, that the connected QP would use. */
TEST_F(sides, connected_qp_ignores_packets_of_other_local_qps)
{
	struct rdma other = *self->near;
	struct ibv_sge sge = { .length = 8 };
	struct ibv_send_wr *bad, wr = {
		.opcode = IBV_WR_RDMA_WRITE, .sg_list = &sge, .num_sge = 1,
		.wr.rdma = { .remote_addr = (uintptr_t)self->buf.mem, .rkey = self->mr->rkey },
	};
	uint64_t lie = ~*(uint64_t *)self->buf.mem;
	struct ibv_mr *mr = ibv_reg_mr(other.pd, &lie, sizeof(lie),
				       IBV_ACCESS_LOCAL_WRITE);
	struct rdma_addr addr;
	struct ibv_wc wc;

	ASSERT_NE(NULL, mr);
	other.qp = create_qp(&other, 8, 8);
	ASSERT_NE(NULL, other.qp);
	ASSERT_EQ(0, qp_restart(other.qp));
	rdma_address(self->far, &addr);
	ASSERT_EQ(0, rdma_connect(&other, &addr));
	ASSERT_EQ(0, try_three_times(&other));
	ASSERT_EQ(0, set_back(&other, psn_expected(self->far)));
	sge.addr = (uintptr_t)&lie;
	sge.lkey = mr->lkey;
	ASSERT_EQ(0, ibv_post_send(other.qp, &wr, &bad));
	EXPECT_EQ(0, cq_wait(other.qp->send_cq, &wc));
	EXPECT_EQ(IBV_WC_RETRY_EXC_ERR, wc.status);

	EXPECT_EQ(-1, buffer_differs(&self->buf));
	EXPECT_EQ(0, rdma_read(self->near, &lie, mr->lkey, (uintptr_t)self->buf.mem,
			       self->mr->rkey, sizeof(lie)));
	destroy_qp(other.qp);
	EXPECT_EQ(0, ibv_dereg_mr(mr));
}

/* A socket that sends to itself. */
static int udp_socket(void)
{
	struct sockaddr_in self = { .sin_family = AF_INET };
	int fd = socket(AF_INET, SOCK_DGRAM, 0), room = MIB(16);
	socklen_t len = sizeof(self);

	self.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)) ||
	    bind(fd, (struct sockaddr *)&self, len) ||
	    getsockname(fd, (struct sockaddr *)&self, &len) ||
	    connect(fd, (struct sockaddr *)&self, len))
		return -1;
	return fd;
}

/* Sockets of any user may fill the memory that all share. */
TEST_F(sides, connected_qp_works_when_memory_for_udp_is_used_up)
{
	uint8_t copy[2 * PAGE];
	struct ibv_mr *mr = ibv_reg_mr(self->near->pd, copy, sizeof(copy),
				       IBV_ACCESS_LOCAL_WRITE);
	char limits[64] = "";
	int fd = open("/proc/sys/net/ipv4/udp_mem", O_RDWR | O_CLOEXEC);
	int full = udp_socket(), other = udp_socket(), i;
	static char datagram[KIB(32)];

	ASSERT_NE(NULL, mr);
	ASSERT_LE(0, fd);
	ASSERT_LE(0, full);
	ASSERT_LE(0, other);
	/* The kernel does not count the first MiB of each processor */
	for (i = 0; i < 200; i++)
		ASSERT_EQ(sizeof(datagram), send(full, datagram, sizeof(datagram), 0));
	ASSERT_LT(0, pread(fd, limits, sizeof(limits) - 1, 0));
	ASSERT_EQ(5, pwrite(fd, "0 0 0", 5, 0));
	ASSERT_EQ(1, send(other, "x", 1, 0));
	EXPECT_EQ(-1, recv(other, datagram, 1, MSG_DONTWAIT));
	EXPECT_EQ(0, rdma_read(self->near, copy, mr->lkey, (uintptr_t)self->buf.mem,
			       self->mr->rkey, sizeof(copy)));
	EXPECT_EQ(0, memcmp(copy, self->buf.mem, sizeof(copy)));
	memset(copy, 0x5a, sizeof(copy));
	EXPECT_EQ(0, rdma_write(self->near, copy, mr->lkey, (uintptr_t)self->buf.mem,
				self->mr->rkey, sizeof(copy)));
	EXPECT_EQ(0, memcmp(copy, self->buf.mem, sizeof(copy)));
	memcpy(self->buf.shadow, copy, sizeof(copy));
	EXPECT_LT(0, pwrite(fd, limits, strlen(limits), 0));
	close(fd);
	close(full);
	close(other);
	EXPECT_EQ(0, ibv_dereg_mr(mr));
}

/* As many packets as may be under way, to a page that does not arrive. */
TEST_F(sides, request_stuck_at_peer_fails_after_retries)
{
	struct ibv_sge sge = { .addr = (uintptr_t)self->buf.mem, .length = MIB(1) };
	struct ibv_send_wr *bad, wr = {
		.opcode = IBV_WR_RDMA_WRITE, .sg_list = &sge, .num_sge = 1,
	};
	struct ibv_mr *mr, *near_mr, *other_mr;
	struct rdma other = *self->far;
	struct rdma_addr addr;
	static uint8_t to[64];
	struct held held;
	struct ibv_wc wc;

	ASSERT_EQ(0, held_map(&held, MIB(1)));
	mr = rdma_reg_odp(self->far, held.mem, MIB(1));
	near_mr = ibv_reg_mr(self->near->pd, self->buf.mem, MIB(1), 0);
	ASSERT_NE(NULL, mr);
	ASSERT_NE(NULL, near_mr);
	sge.lkey = near_mr->lkey;
	wr.wr.rdma.remote_addr = (uintptr_t)held.mem;
	wr.wr.rdma.rkey = mr->rkey;
	ASSERT_EQ(0, try_three_times(self->near));

	ASSERT_EQ(0, ibv_post_send(self->near->qp, &wr, &bad));
	EXPECT_EQ(0, cq_wait(self->near->cq, &wc));
	EXPECT_EQ(IBV_WC_RETRY_EXC_ERR, wc.status);
	EXPECT_EQ(0, held_wait(&held, NULL));

	/* The packets are still there, but not in the way of another peer */
	other.qp = create_qp(&other, 8, 8);
	other_mr = ibv_reg_mr(other.pd, to, sizeof(to),
			      IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE);
	ASSERT_NE(NULL, other.qp);
	ASSERT_NE(NULL, other_mr);
	ASSERT_EQ(0, qp_restart(other.qp));
	ASSERT_EQ(0, qp_restart(self->near->qp));
	rdma_address(&other, &addr);
	ASSERT_EQ(0, rdma_connect(self->near, &addr));
	rdma_address(self->near, &addr);
	ASSERT_EQ(0, rdma_connect(&other, &addr));
	sge.length = sizeof(to);
	wr.wr.rdma.remote_addr = (uintptr_t)to;
	wr.wr.rdma.rkey = other_mr->rkey;
	ASSERT_EQ(0, ibv_post_send(self->near->qp, &wr, &bad));
	EXPECT_EQ(0, cq_wait(self->near->cq, &wc));
	EXPECT_EQ(IBV_WC_SUCCESS, wc.status);
	EXPECT_EQ(0, memcmp(self->buf.mem, to, sizeof(to)));

	EXPECT_EQ(0, held_release(&held));
	EXPECT_EQ(0, ibv_dereg_mr(mr));
	EXPECT_EQ(0, ibv_dereg_mr(near_mr));
	destroy_qp(other.qp);
	EXPECT_EQ(0, ibv_dereg_mr(other_mr));
	held_unmap(&held);
}

struct endless {
	struct rxe_queue_buf *queue;
	volatile bool stop;
};

static void *post_on(void *arg)
{
	struct endless *endless = arg;
	volatile struct rxe_queue_buf *queue = endless->queue;

	while (!endless->stop)
		queue->producer_index = queue->consumer_index - 1;
	return NULL;
}

/*
 * Each request claims that it is done, and they never end: there are so many that
 * the thread gets its turn before the kernel has seen them all.
 */
TEST_F(sides, modify_qp_ends_despite_endless_done_wqes)
{
	static const enum ibv_qp_state states[] = { IBV_QPS_SQD, IBV_QPS_ERR, IBV_QPS_RESET };
	struct rdma r = *self->near;
	struct ibv_send_wr *bad, wr = { .wr_id = WR_ID, .opcode = IBV_WR_RDMA_WRITE };
	struct endless endless = {};
	struct rdma_addr far;
	pthread_t thread;
	unsigned int i;

	rdma_address(self->far, &far);
	r.qp = create_long_qp(&r, 200000);
	ASSERT_NE(NULL, r.qp);
	ASSERT_EQ(0, qp_restart(r.qp));
	ASSERT_EQ(0, rdma_connect(&r, &far));
	ASSERT_EQ(0, ibv_post_send(r.qp, &wr, &bad));
	endless.queue = raw_find_queue(WR_ID);
	ASSERT_NE(NULL, endless.queue);

	/* The QP sends nothing new in this state */
	ASSERT_EQ(0, modify(&r, (struct ibv_qp_attr) { .qp_state = states[0] },
			    IBV_QP_STATE));
	for (i = 0; i <= endless.queue->index_mask; i++) {
		struct rxe_send_wqe *wqe = (void *)(endless.queue->data +
			((size_t)i << endless.queue->log2_elem_size));

		wqe->wr.opcode = IBV_WR_RDMA_WRITE;
		wqe->wr.send_flags = 0;
		wqe->status = IBV_WC_SUCCESS;
		wqe->state = STATE_DONE;
	}
	ASSERT_EQ(0, pthread_create(&thread, NULL, post_on, &endless));
	usleep(10000);
	ASSERT_EQ(0, raw_look(&r));
	usleep(100000);

	for (i = 1; i < ARRAY_LEN(states); i++) {
		EXPECT_EQ(0, modify(&r, (struct ibv_qp_attr) { .qp_state = states[i] },
				    IBV_QP_STATE));
	}
	endless.stop = true;
	EXPECT_EQ(0, pthread_join(thread, NULL));
	destroy_qp(r.qp);
}

/* Two QPs for datagrams, with the CQs of a connection. */
FIXTURE(datagrams) {
	struct conn conn;
	struct rdma near;
	struct rdma far;
	struct ibv_ah *ah;
	struct ibv_mr *near_mr;
	struct ibv_mr *far_mr;
	/* The datagram to send, then the received one behind its network header */
	union {
		uint8_t mem[PAGE];
		struct {
			uint64_t sent;
			uint8_t pad[20];
			struct iphdr ip;
			uint64_t received;
		} __attribute__((packed));
	};
};

#define NEAR_KEY	0x22222222
#define CONTROLLED_KEY	0x80011111

static int create_many_datagrams(struct rdma *r, uint32_t key, int recvs)
{
	struct ibv_qp_init_attr init = {
		.qp_type = IBV_QPT_UD, .send_cq = r->cq, .recv_cq = r->qp->recv_cq,
		.cap = {
			.max_send_wr = 8, .max_recv_wr = recvs,
			.max_send_sge = 1, .max_recv_sge = 1,
		},
		.sq_sig_all = 1,
	};
	struct ibv_qp_attr attr = { .port_num = 1, .qkey = key };
	int err;

	r->qp = ibv_create_qp(r->pd, &init);
	if (!r->qp)
		return -errno;
	attr.qp_state = IBV_QPS_INIT;
	err = modify(r, attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT | IBV_QP_QKEY);
	attr.qp_state = IBV_QPS_RTR;
	err = err ?: modify(r, attr, IBV_QP_STATE);
	attr.qp_state = IBV_QPS_RTS;
	return err ?: modify(r, attr, IBV_QP_STATE | IBV_QP_SQ_PSN);
}

static int create_datagrams(struct rdma *r, uint32_t key)
{
	return create_many_datagrams(r, key, 8);
}

FIXTURE_SETUP(datagrams)
{
	struct ibv_ah_attr attr = { .is_global = 1, .port_num = 1, .grh.hop_limit = 1 };
	union ibv_gid gid;
	struct rdma_addr addr;

	ASSERT_EQ(0, conn_up(&self->conn));
	self->near = self->conn.near;
	self->far = self->conn.far;
	ASSERT_EQ(0, create_datagrams(&self->near, NEAR_KEY));
	ASSERT_EQ(0, create_datagrams(&self->far, CONTROLLED_KEY));

	rdma_address(&self->far, &addr);
	attr.grh.dgid = addr.gid;
	while (ibv_query_gid(self->near.ctx, 1, attr.grh.sgid_index, &gid) ||
	       memcmp(&gid, &addr.gid, sizeof(gid)))
		ASSERT_NE(0, ++attr.grh.sgid_index);
	self->ah = ibv_create_ah(self->near.pd, &attr);
	ASSERT_NE(NULL, self->ah);
	self->near_mr = ibv_reg_mr(self->near.pd, self->mem, PAGE, IBV_ACCESS_LOCAL_WRITE);
	self->far_mr = ibv_reg_mr(self->far.pd, self->mem, PAGE, IBV_ACCESS_LOCAL_WRITE);
	ASSERT_NE(NULL, self->near_mr);
	ASSERT_NE(NULL, self->far_mr);
}

FIXTURE_TEARDOWN(datagrams)
{
	ibv_destroy_qp(self->near.qp);
	ibv_destroy_qp(self->far.qp);
	ibv_dereg_mr(self->near_mr);
	ibv_dereg_mr(self->far_mr);
	ibv_destroy_ah(self->ah);
	conn_down(&self->conn);
}

static int post_datagram(FIXTURE_DATA(datagrams) *self, struct ibv_qp *qp,
			 uint64_t data, uint32_t key)
{
	struct ibv_sge sge = {
		.addr = (uintptr_t)&self->sent, .length = 8, .lkey = self->near_mr->lkey,
	};
	struct ibv_send_wr *bad, wr = {
		.wr_id = WR_ID, .opcode = IBV_WR_SEND, .sg_list = &sge, .num_sge = 1,
		.wr.ud = {
			.ah = self->ah, .remote_qpn = self->far.qp->qp_num,
			.remote_qkey = key,
		},
	};

	self->sent = data;
	return -ibv_post_send(qp, &wr, &bad);
}

/* Over loopback, datagrams arrive in order. */
static int send_datagram(FIXTURE_DATA(datagrams) *self, uint64_t data, uint32_t key)
{
	return post_datagram(self, self->near.qp, data, key) ?: raw_wait(&self->near);
}

static int post_receive(FIXTURE_DATA(datagrams) *self)
{
	return rdma_post_recv(&self->far, self->pad, self->far_mr->lkey, 48);
}

TEST_F(datagrams, controlled_qkey_of_wr_selects_qkey_of_qp)
{
	struct ibv_qp_attr attr = { .qkey = CONTROLLED_KEY };
	struct ibv_wc wc;

	ASSERT_EQ(0, post_receive(self));
	ASSERT_EQ(0, send_datagram(self, 1, CONTROLLED_KEY));
	ASSERT_EQ(0, send_datagram(self, 2, NEAR_KEY));
	ASSERT_EQ(0, modify(&self->near, attr, IBV_QP_QKEY));
	ASSERT_EQ(0, send_datagram(self, 3, 0x80000000));
	ASSERT_EQ(0, cq_wait(self->far.qp->recv_cq, &wc));
	EXPECT_EQ(IBV_WC_SUCCESS, wc.status);
	EXPECT_EQ(3, self->received);
}

/* Read all events, and count those of this type. */
static int async_events(struct ibv_context *ctx, enum ibv_event_type type)
{
	struct ibv_async_event event;
	int n = 0;

	if (fcntl(ctx->async_fd, F_SETFL, O_NONBLOCK))
		return -errno;
	while (!ibv_get_async_event(ctx, &event)) {
		n += event.event_type == type;
		ibv_ack_async_event(&event);
	}
	return n;
}

static int comp_events(struct ibv_cq *cq)
{
	struct ibv_cq *found;
	void *context;
	int n = 0;

	if (fcntl(cq->channel->fd, F_SETFL, O_NONBLOCK))
		return -errno;
	while (!ibv_get_cq_event(cq->channel, &found, &context))
		n++;
	ibv_ack_cq_events(cq, n);
	return n;
}

/* Events for completions that do not fit, and events that are asked for. */
TEST_F(datagrams, unread_events_are_limited)
{
	struct rdma r = self->near;
	struct ibv_wc wc;
	int i;

	r.cq = ibv_create_cq(r.ctx, 1, NULL, r.cq->channel, 0);
	ASSERT_NE(NULL, r.cq);
	ASSERT_EQ(0, create_datagrams(&r, NEAR_KEY));
	for (i = 0; i < 8; i++) {
		ASSERT_EQ(0, ibv_req_notify_cq(r.cq, 0));
		ASSERT_EQ(0, post_datagram(self, r.qp, 0, CONTROLLED_KEY));
		ASSERT_EQ(0, cq_wait(r.cq, &wc));
	}
	i = comp_events(r.cq);
	EXPECT_LE(1, i);
	EXPECT_GE(2, i);

	/* A queue that has become smaller keeps few, too */
	ASSERT_EQ(0, ibv_resize_cq(r.cq, 63));
	for (i = 0; i < 8; i++) {
		ASSERT_EQ(0, ibv_req_notify_cq(r.cq, 0));
		ASSERT_EQ(0, post_datagram(self, r.qp, 0, CONTROLLED_KEY));
		ASSERT_EQ(0, cq_wait(r.cq, &wc));
	}
	ASSERT_EQ(0, ibv_resize_cq(r.cq, 1));
	i = comp_events(r.cq);
	EXPECT_LE(1, i);
	EXPECT_GE(2, i);

	for (i = 0; i < 8; i++)
		ASSERT_EQ(0, post_datagram(self, r.qp, 0, CONTROLLED_KEY));
	for (i = 0; i < PROMPT * 10 && !async_events(r.ctx, IBV_EVENT_CQ_ERR); i++)
		usleep(100000);
	EXPECT_GT(PROMPT * 10, i);
	usleep(500000 * slowness());
	EXPECT_GE(1, async_events(r.ctx, IBV_EVENT_CQ_ERR));

	EXPECT_EQ(0, ibv_destroy_qp(r.qp));
	EXPECT_EQ(0, ibv_destroy_cq(r.cq));
}

/* It gets more than may be under way. The sender goes on to another receiver. */
TEST_F(datagrams, stalled_ud_receiver_does_not_block_sender)
{
	struct ibv_qp_attr attr = { .qkey = NEAR_KEY };
	struct rdma waits = self->far;
	struct held held;
	struct ibv_mr *mr;
	struct ibv_wc wc;
	int i;

	ASSERT_EQ(0, held_map(&held, PAGE));
	mr = rdma_reg_odp(&waits, held.mem, PAGE);
	ASSERT_NE(NULL, mr);
	ASSERT_EQ(0, modify(&waits, attr, IBV_QP_QKEY));
	ASSERT_EQ(0, rdma_post_recv(&waits, held.mem, mr->lkey, 48));
	ASSERT_EQ(0, send_datagram(self, 1, NEAR_KEY));
	ASSERT_EQ(0, held_wait(&held, NULL));
	for (i = 0; i < 100; i++)
		ASSERT_EQ(0, send_datagram(self, 2, NEAR_KEY));

	ASSERT_EQ(0, create_datagrams(&self->far, NEAR_KEY));
	ASSERT_EQ(0, post_receive(self));
	ASSERT_EQ(0, send_datagram(self, 3, NEAR_KEY));
	EXPECT_EQ(0, cq_wait(self->far.qp->recv_cq, &wc));
	EXPECT_EQ(IBV_WC_SUCCESS, wc.status);
	EXPECT_EQ(self->far.qp->qp_num, wc.qp_num);
	EXPECT_EQ(3, self->received);

	EXPECT_EQ(0, ibv_destroy_qp(waits.qp));
	EXPECT_EQ(0, ibv_dereg_mr(mr));
	held_unmap(&held);
}

/* No datagram is lost that one process sends before it makes way for the receiver. */
TEST_F(datagrams, stalled_ud_receiver_gets_all_datagrams_later)
{
	const int many = 1500;
	struct ibv_cq *cq = ibv_create_cq(self->far.ctx, many, NULL, NULL, 0);
	struct ibv_mr *mr;
	struct ibv_cq *far_cq = self->far.qp->recv_cq;
	struct rdma idle = self->far;
	struct held held;
	struct ibv_wc wc;
	int i;

	ASSERT_NE(NULL, cq);
	self->far.qp->recv_cq = cq;
	i = create_many_datagrams(&self->far, NEAR_KEY, many);
	idle.qp->recv_cq = far_cq;
	ASSERT_EQ(0, i);
	ASSERT_EQ(0, held_map(&held, PAGE));
	mr = rdma_reg_odp(&self->far, held.mem, PAGE);
	ASSERT_NE(NULL, mr);
	ASSERT_EQ(0, rdma_post_recv(&self->far, held.mem, mr->lkey, 48));
	for (i = 1; i < many; i++)
		ASSERT_EQ(0, post_receive(self));

	ASSERT_EQ(0, send_datagram(self, 1, NEAR_KEY));
	ASSERT_EQ(0, held_wait(&held, NULL));
	for (i = 1; i < many; i++)
		ASSERT_EQ(0, send_datagram(self, i, NEAR_KEY));
	ASSERT_EQ(0, held_release(&held));
	for (i = 0; i < many; i++) {
		ASSERT_EQ(0, cq_wait(cq, &wc));
		ASSERT_EQ(IBV_WC_SUCCESS, wc.status);
	}
	EXPECT_EQ(many - 1, self->received);

	EXPECT_EQ(0, ibv_destroy_qp(self->far.qp));
	self->far = idle;
	EXPECT_EQ(0, ibv_dereg_mr(mr));
	EXPECT_EQ(0, ibv_destroy_cq(cq));
	held_unmap(&held);
}

/* A socket that sends to all hosts on the interface of the device, which hears it, too. */
static int multicast_socket(int type, int protocol)
{
	struct ip_mreqn mreq = { .imr_ifindex = if_nametoindex("d0") };
	int fd = socket(AF_INET, type, protocol);

	if (fd >= 0 && setsockopt(fd, IPPROTO_IP, IP_MULTICAST_IF, &mreq, sizeof(mreq))) {
		close(fd);
		return -1;
	}
	return fd;
}

#define ALL_HOSTS	{					\
	.sin_family = AF_INET, .sin_port = htons(4791),		\
	.sin_addr.s_addr = htonl(INADDR_ALLHOSTS_GROUP),	\
}

/* The options are where the driver keeps its pointer to the QP. */
TEST_F(datagrams, udp_datagram_shorter_than_header_is_dropped)
{
	static const uint8_t record_route[] = { IPOPT_RR, 39, 4, [39] = IPOPT_EOL };
	struct sockaddr_in to = ALL_HOSTS;
	int fd = multicast_socket(SOCK_DGRAM, 0);
	struct ibv_wc wc;

	ASSERT_LE(0, fd);
	EXPECT_EQ(1, sendto(fd, "x", 1, 0, (struct sockaddr *)&to, sizeof(to)));
	ASSERT_EQ(0, setsockopt(fd, IPPROTO_IP, IP_OPTIONS, record_route,
				sizeof(record_route)));
	EXPECT_EQ(1, sendto(fd, "x", 1, 0, (struct sockaddr *)&to, sizeof(to)));
	close(fd);

	ASSERT_EQ(0, post_receive(self));
	ASSERT_EQ(0, modify(&self->near, (struct ibv_qp_attr) { .qkey = CONTROLLED_KEY },
			    IBV_QP_QKEY));
	ASSERT_EQ(0, send_datagram(self, 2, 0x80000000));
	EXPECT_EQ(0, cq_wait(self->far.qp->recv_cq, &wc));
	EXPECT_EQ(2, self->received);
}

/* A datagram as RoCE version 2 sends it over IPv4. */
struct roce {
	struct iphdr ip;
	struct udphdr udp;
	uint8_t opcode;
	uint8_t flags;
	uint16_t pkey;
	uint32_t qpn;
	uint32_t psn;
	uint32_t qkey;
	uint32_t source_qpn;
	uint64_t data;
	uint32_t icrc;
} __attribute__((packed));

/* A checksum of all that stays the same on the way. */
static uint32_t icrc_of(struct roce roce)
{
	const uint8_t *byte = (const uint8_t *)&roce;
	uint32_t crc = 0xdebb20e3;	/* of 8 bytes, as if there was a header of InfiniBand */

	roce.ip.tos = 0xff;
	roce.ip.ttl = 0xff;
	roce.ip.check = 0xffff;
	roce.udp.check = 0xffff;
	roce.qpn |= htonl(0xff000000);
	for (; byte < (const uint8_t *)&roce.icrc; byte++) {
		crc ^= *byte;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
	}
	return ~crc;
}

/* Any process can send to the group, and knows the keys of some QPs. */
TEST_F(datagrams, multicast_packet_for_unicast_qp_is_dropped)
{
	struct sockaddr_in to = ALL_HOSTS;
	struct roce roce = {
		.ip = {
			.version = 4, .ihl = 5, .tot_len = htons(sizeof(roce)), .id = htons(1),
			.ttl = 1, .protocol = IPPROTO_UDP,
			.saddr = inet_addr("10.77.0.1"), .daddr = to.sin_addr.s_addr,
		},
		.udp = {
			.source = to.sin_port, .dest = to.sin_port,
			.len = htons(sizeof(roce) - sizeof(roce.ip)),
		},
		.opcode = UD_SEND_ONLY, .flags = 0x40, .pkey = 0xffff,
		.qpn = htonl(self->far.qp->qp_num), .qkey = htonl(CONTROLLED_KEY),
		.source_qpn = htonl(self->near.qp->qp_num), .data = 1,
	};
	int fd = multicast_socket(SOCK_RAW, IPPROTO_RAW);
	struct ibv_wc wc;

	roce.icrc = htole32(icrc_of(roce));
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, post_receive(self));
	EXPECT_EQ(sizeof(roce), sendto(fd, &roce, sizeof(roce), 0, (struct sockaddr *)&to,
				       sizeof(to)));
	close(fd);

	ASSERT_EQ(0, modify(&self->near, (struct ibv_qp_attr) { .qkey = CONTROLLED_KEY },
			    IBV_QP_QKEY));
	ASSERT_EQ(0, send_datagram(self, 2, 0x80000000));
	ASSERT_EQ(0, cq_wait(self->far.qp->recv_cq, &wc));
	EXPECT_EQ(2, self->received);
}

/*
 * The socket memory of a cgroup. The kernel updates it every two seconds: wait until it is
 * in a range.
 */
static uint64_t sock_memory(uint64_t least, uint64_t most)
{
	uint64_t size;
	int tries = 1000 * slowness();

	do {
		usleep(10000);
		size = field_read(CGROUPS "rxe/memory.stat", "sock");
	} while ((size < least || size > most) && --tries);
	return size;
}

/* Each datagram takes 512 bytes or more. */
TEST_F(datagrams, memcg_is_charged_for_received_packets)
{
	struct rdma waits = self->far, idle = self->far;
	struct held held;
	uint64_t full;
	struct ibv_mr *mr;
	int i;

	ASSERT_EQ(0, cgroup_make(CGROUPS "rxe"));
	ASSERT_EQ(0, file_write(CGROUPS "rxe/cgroup.procs", "0"));
	EXPECT_EQ(0, create_datagrams(&waits, NEAR_KEY));
	ASSERT_EQ(0, file_write(CGROUPS "cgroup.procs", "0"));
	EXPECT_EQ(0, sock_memory(0, 0));

	ASSERT_EQ(0, held_map(&held, PAGE));
	mr = rdma_reg_odp(&waits, held.mem, PAGE);
	ASSERT_NE(NULL, mr);
	ASSERT_EQ(0, rdma_post_recv(&waits, held.mem, mr->lkey, 48));
	self->far.qp = waits.qp;
	for (i = 0; i < 500; i++)
		ASSERT_EQ(0, send_datagram(self, 1, NEAR_KEY));
	ASSERT_EQ(0, held_wait(&held, NULL));
	full = sock_memory(500 * 512, MIB(1));
	EXPECT_LE(500 * 512, full);
	EXPECT_GE(MIB(1), full);

	self->far = idle;
	EXPECT_EQ(0, ibv_destroy_qp(waits.qp));
	EXPECT_EQ(0, sock_memory(0, 0));
	EXPECT_EQ(0, ibv_dereg_mr(mr));
	held_unmap(&held);
	EXPECT_EQ(0, rmdir(CGROUPS "rxe"));
	EXPECT_EQ(0, file_write(CGROUPS "cgroup.subtree_control", "-memory"));
}

static int mac_of_the_device(uint8_t *mac)
{
	FILE *file = fopen("/sys/class/net/d0/address", "r");
	int n;

	if (!file)
		return -errno;
	n = fscanf(file, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", &mac[0], &mac[1], &mac[2],
		   &mac[3], &mac[4], &mac[5]);
	fclose(file);
	return n == 6 ? 0 : -EIO;
}

/* Old libraries write the address into the request. */
TEST_F(datagrams, source_address_in_user_ud_wqe_is_ignored)
{
	struct ibv_qp_attr attr = { .qkey = NEAR_KEY };
	struct rxe_queue_buf *queue;
	struct rxe_send_wqe wqe, *old;
	struct rdma_addr addr;
	uint32_t own, lie;
	struct ibv_wc wc;
	struct rxe_av *av;

	rdma_address(&self->near, &addr);
	memcpy(&own, &addr.gid.raw[12], sizeof(own));
	lie = htonl(INADDR_LOOPBACK);

	ASSERT_EQ(0, modify(&self->far, attr, IBV_QP_QKEY));
	ASSERT_EQ(0, post_receive(self));
	ASSERT_EQ(0, send_datagram(self, 1, NEAR_KEY));
	ASSERT_EQ(0, cq_wait(self->far.qp->recv_cq, &wc));
	ASSERT_EQ(1, self->received);
	ASSERT_EQ(own, self->ip.saddr);

	old = raw_find_wqe(WR_ID);
	queue = raw_find_queue(WR_ID);
	ASSERT_NE(NULL, old);
	wqe = *old;
	wqe.state = 0;
	wqe.dma.resid = wqe.dma.length;
	wqe.dma.cur_sge = 0;
	wqe.dma.sge_offset = 0;
	wqe.wr.wr.ud.ah_num = 0;
	av = &wqe.wr.wr.ud.av;
	*av = (struct rxe_av) {
		.port_num = 1,
		.network_type = RXE_NETWORK_TYPE_IPV4,
		.grh = { .hop_limit = 1 },
	};
	ASSERT_EQ(0, mac_of_the_device(av->dmac));
	memcpy(&av->grh.dgid, &addr.gid, sizeof(addr.gid));
	av->sgid_addr._sockaddr_in.sin_family = AF_INET;
	av->sgid_addr._sockaddr_in.sin_addr.s_addr = lie;
	av->dgid_addr._sockaddr_in.sin_family = AF_INET;
	av->dgid_addr._sockaddr_in.sin_addr.s_addr = own;
	/* Find the GID of this address, as for the AH */
	for (av->grh.sgid_index = 0; av->grh.sgid_index < 255; av->grh.sgid_index++) {
		union ibv_gid gid;

		if (!ibv_query_gid(self->near.ctx, 1, av->grh.sgid_index, &gid) &&
		    !memcmp(&gid, &addr.gid, sizeof(gid)))
			break;
	}

	ASSERT_EQ(0, post_receive(self));
	self->sent = 2;
	ASSERT_EQ(0, raw_post(&self->near, queue, &wqe, old->dma.sge,
			      sizeof(struct rxe_sge)));
	ASSERT_EQ(0, raw_wait(&self->near));
	ASSERT_EQ(0, cq_wait(self->far.qp->recv_cq, &wc));
	EXPECT_EQ(2, self->received);
	EXPECT_EQ(own, self->ip.saddr);
}

TEST_F(datagrams, modify_qp_rejects_timeout_of_ud_and_uc_qp)
{
	struct ibv_qp_attr attr = { .timeout = 1 };
	struct ibv_qp_init_attr init = {
		.qp_type = IBV_QPT_UC,
		.send_cq = self->near.cq, .recv_cq = self->near.cq,
		.cap = {
			.max_send_wr = 8, .max_recv_wr = 8,
			.max_send_sge = 1, .max_recv_sge = 1,
		},
	};
	struct rdma r = self->near;

	EXPECT_EQ(-EINVAL, modify(&self->near, attr, IBV_QP_TIMEOUT));
	r.qp = ibv_create_qp(r.pd, &init);
	ASSERT_NE(NULL, r.qp);
	EXPECT_EQ(-EINVAL, modify(&r, attr, IBV_QP_TIMEOUT));
	EXPECT_EQ(0, ibv_destroy_qp(r.qp));
	EXPECT_EQ(0, modify(&self->conn.near, attr, IBV_QP_TIMEOUT));
}

/* A multicast group, and its address on the network device. */
#define GROUP		{ .raw = { 0xff, 0x0e, [12] = 0x5a, 0x5a, 0x4d, 0x43 } }
#define GROUP_ADDRESS	"33335a5a4d43"

static bool group_is_listened_to(void)
{
	FILE *file = fopen("/proc/net/dev_mcast", "r");
	char line[256];
	bool is = false;

	while (file && fgets(line, sizeof(line), file))
		is |= !!strstr(line, GROUP_ADDRESS);
	if (file)
		fclose(file);
	return is;
}

TEST_F(datagrams, last_mcast_detach_removes_netdev_address)
{
	union ibv_gid group = GROUP;

	EXPECT_FALSE(group_is_listened_to());
	ASSERT_EQ(0, ibv_attach_mcast(self->near.qp, &group, 0));
	EXPECT_TRUE(group_is_listened_to());
	ASSERT_EQ(0, ibv_attach_mcast(self->far.qp, &group, 0));
	EXPECT_EQ(0, ibv_detach_mcast(self->near.qp, &group, 0));
	EXPECT_TRUE(group_is_listened_to());
	EXPECT_EQ(0, ibv_detach_mcast(self->far.qp, &group, 0));
	EXPECT_FALSE(group_is_listened_to());
}

/* A LID means nothing in RoCE. */
TEST_F(datagrams, repeated_mcast_attach_counts_once)
{
	struct rdma r = self->near;
	union ibv_gid group = GROUP;

	ASSERT_EQ(0, create_datagrams(&r, NEAR_KEY));
	ASSERT_EQ(0, ibv_attach_mcast(r.qp, &group, 0));
	EXPECT_EQ(0, ibv_attach_mcast(r.qp, &group, 0));
	EXPECT_EQ(EINVAL, ibv_attach_mcast(r.qp, &group, 1));
	EXPECT_EQ(EINVAL, ibv_detach_mcast(r.qp, &group, 1));
	EXPECT_EQ(0, ibv_detach_mcast(r.qp, &group, 0));
	EXPECT_EQ(0, ibv_destroy_qp(r.qp));
}

static void *attach_again_and_again(void *arg)
{
	union ibv_gid group = GROUP;
	struct ibv_qp *qp = arg;
	long err = 0;
	int i;

	for (i = 0; i < 1000 && !err; i++) {
		err = ibv_attach_mcast(qp, &group, 0);
		err = err ?: ibv_detach_mcast(qp, &group, 0);
	}
	return (void *)err;
}

TEST_F(datagrams, concurrent_mcast_attach_and_detach_leave_no_group)
{
	struct rdma r = self->near;
	struct ibv_qp *qps[4];
	pthread_t threads[4];
	unsigned int i;
	void *err;

	for (i = 0; i < ARRAY_LEN(qps); i++) {
		ASSERT_EQ(0, create_datagrams(&r, NEAR_KEY));
		qps[i] = r.qp;
	}
	for (i = 0; i < ARRAY_LEN(threads); i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, attach_again_and_again,
					    qps[i]));
	for (i = 0; i < ARRAY_LEN(threads); i++) {
		ASSERT_EQ(0, pthread_join(threads[i], &err));
		EXPECT_EQ(NULL, err);
		EXPECT_EQ(0, ibv_destroy_qp(qps[i]));
	}
	EXPECT_FALSE(group_is_listened_to());
}

FIXTURE(shared) {
	struct conn conn;
	struct rdma near;
	struct rdma far;
	struct ibv_srq *srq;
	struct buffer buf;
	struct ibv_mr *mr;
};

/* The far side receives from an SRQ, which has one receive, and room for more. */
FIXTURE_SETUP(shared)
{
	struct ibv_srq_init_attr srq = { .attr = { .max_wr = 8, .max_sge = 1 } };
	struct ibv_recv_wr *bad, wr = { .wr_id = WR_ID, .num_sge = 1 };
	struct ibv_qp_init_attr init = {
		.qp_type = IBV_QPT_RC,
		.cap = { .max_send_wr = 8, .max_send_sge = 1 },
	};
	struct rdma_addr near, far;
	struct ibv_sge sge;

	ASSERT_EQ(0, conn_up(&self->conn));
	self->near = self->conn.near;
	self->far = self->conn.far;
	self->srq = ibv_create_srq(self->far.pd, &srq);
	ASSERT_NE(NULL, self->srq);
	init.send_cq = self->far.cq;
	init.recv_cq = self->far.qp->recv_cq;
	init.srq = self->srq;
	self->far.qp = ibv_create_qp(self->far.pd, &init);
	ASSERT_NE(NULL, self->far.qp);

	rdma_address(&self->near, &near);
	rdma_address(&self->far, &far);
	ASSERT_EQ(0, qp_restart(self->near.qp));
	ASSERT_EQ(0, qp_restart(self->far.qp));
	ASSERT_EQ(0, rdma_connect(&self->near, &far));
	ASSERT_EQ(0, rdma_connect(&self->far, &near));

	ASSERT_EQ(0, buffer_map(&self->buf, KIB(64), MADV_NOHUGEPAGE));
	self->mr = rdma_reg_odp(&self->far, self->buf.mem, KIB(64));
	ASSERT_NE(NULL, self->mr);
	sge = (struct ibv_sge) {
		.addr = (uintptr_t)self->buf.mem, .length = KIB(64), .lkey = self->mr->lkey,
	};
	wr.sg_list = &sge;
	ASSERT_EQ(0, ibv_post_srq_recv(self->srq, &wr, &bad));
}

FIXTURE_TEARDOWN(shared)
{
	EXPECT_EQ(0, ibv_destroy_qp(self->far.qp));
	EXPECT_EQ(0, ibv_destroy_srq(self->srq));
	ibv_dereg_mr(self->mr);
	buffer_unmap(&self->buf);
	conn_down(&self->conn);
}

/* A message whose end never arrives has taken the receive. */
TEST_F(shared, srq_receive_is_flushed_on_error)
{
	struct ibv_wc wc = {};
	struct ibv_mr *mr;
	uint8_t *mem;

	mem = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, mem);
	mr = rdma_reg_odp(&self->near, mem, 2 * PAGE);
	ASSERT_NE(NULL, mr);
	ASSERT_EQ(0, munmap(mem + PAGE, PAGE));

	EXPECT_EQ(-EREMOTEIO, rdma_send(&self->near, mem, mr->lkey, 2 * PAGE));
	while (psn_expected(&self->far) != 1)
		usleep(1000);
	ASSERT_EQ(0, qp_to_error(self->far.qp));
	EXPECT_EQ(0, cq_wait(self->far.qp->recv_cq, &wc));
	EXPECT_EQ(WR_ID, wc.wr_id);
	EXPECT_EQ(IBV_WC_WR_FLUSH_ERR, wc.status);

	ibv_dereg_mr(mr);
	munmap(mem, PAGE);
}

TEST_F(shared, srq_query_ignores_index_mask_of_user_queue)
{
	struct rxe_queue_buf *queue = raw_find_queue(WR_ID);
	struct ibv_srq_attr before, attr;
	uint32_t mask;

	ASSERT_NE(NULL, queue);
	ASSERT_EQ(0, ibv_query_srq(self->srq, &before));
	mask = queue->index_mask;
	queue->index_mask = 0xffff;
	EXPECT_EQ(0, ibv_query_srq(self->srq, &attr));
	EXPECT_EQ(before.max_wr, attr.max_wr);
	attr.srq_limit = mask + 1;
	EXPECT_EQ(EINVAL, ibv_modify_srq(self->srq, &attr, IBV_SRQ_LIMIT));
	queue->index_mask = mask;
}

/* Post receives of zero bytes, with ascending IDs. */
static int post_shared(struct ibv_srq *srq, uint64_t first, unsigned int n)
{
	struct ibv_recv_wr *bad, wr = { .wr_id = first };
	int err = 0;

	for (; n-- && !err; wr.wr_id++)
		err = -ibv_post_srq_recv(srq, &wr, &bad);
	return err;
}

static int resize_shared(struct ibv_srq *srq, uint32_t max_wr)
{
	struct ibv_srq_attr attr = { .max_wr = max_wr };

	return -ibv_modify_srq(srq, &attr, IBV_SRQ_MAX_WR);
}

/* There are more receives than are copied at a time. */
TEST_F(shared, srq_resize_keeps_posted_receives)
{
	const unsigned int n = 3001;
	struct rxe_queue_buf *queue;
	unsigned int i;

	ASSERT_EQ(0, resize_shared(self->srq, 4000));
	ASSERT_EQ(0, post_shared(self->srq, WR_ID + 1, n - 1));
	EXPECT_EQ(-EINVAL, resize_shared(self->srq, 1000));
	ASSERT_EQ(0, resize_shared(self->srq, 20000));

	queue = raw_find_queue(WR_ID);
	ASSERT_NE(NULL, queue);
	EXPECT_LE(20000, queue->index_mask);
	EXPECT_EQ(n, (queue->producer_index - queue->consumer_index) & queue->index_mask);
	for (i = 0; i < n; i++) {
		uint32_t index = (queue->consumer_index + i) & queue->index_mask;
		uint64_t *slot = (void *)(queue->data +
			((size_t)index << queue->log2_elem_size));

		ASSERT_EQ(WR_ID + i, *slot);
	}
}

struct resizes {
	struct ibv_srq *srq;
	volatile bool stop;
	unsigned int rounds;
};

static void *resize_again_and_again(void *arg)
{
	struct resizes *resizes = arg;
	long err = 0;
	int i;

	for (i = 0; !resizes->stop && !err; i++)
		err = resize_shared(resizes->srq, i % 2 ? 4000 : 20000);
	resizes->rounds = i;
	return (void *)err;
}

/* ... and while messages take them. */
TEST_F(shared, srq_resize_under_traffic_keeps_receive_order)
{
	struct ibv_send_wr *bad, wr = { .opcode = IBV_WR_SEND };
	struct resizes resizes = { .srq = self->srq };
	struct ibv_wc wc = {};
	pthread_t thread;
	unsigned int i;
	void *err;

	ASSERT_EQ(0, resize_shared(self->srq, 4000));
	ASSERT_EQ(0, post_shared(self->srq, WR_ID + 1, 3000));
	ASSERT_EQ(0, pthread_create(&thread, NULL, resize_again_and_again, &resizes));
	for (i = 0; i < 500; i++) {
		ASSERT_EQ(0, ibv_post_send(self->near.qp, &wr, &bad));
		ASSERT_EQ(0, raw_wait(&self->near));
		ASSERT_EQ(0, cq_wait(self->far.qp->recv_cq, &wc));
		ASSERT_EQ(WR_ID + i, wc.wr_id);
	}
	resizes.stop = true;
	EXPECT_EQ(0, pthread_join(thread, &err));
	EXPECT_LT(0, resizes.rounds);
	EXPECT_EQ(NULL, err);
}

TEST_HARNESS_MAIN
