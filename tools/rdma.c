// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>

#include <rdma/ib_user_ioctl_cmds.h>
#include <rdma/ib_user_ioctl_verbs.h>
#include <rdma/ib_user_verbs.h>
#include <rdma/rdma_user_ioctl.h>
#include <rdma/rdma_user_ioctl_cmds.h>

#include "rdma.h"

#define PORT		1
#define MAX_SIZE	(1U << 30)
#define QUEUE_DEPTH	64
#define TIMEOUT_MS	60000

/* RoCEv2 over IPv4: the GID is the IPv4 address, mapped into IPv6. */
static int find_gid(struct ibv_context *ctx, union ibv_gid *gid)
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };
	struct ibv_port_attr port;
	int i;

	if (ibv_query_port(ctx, PORT, &port))
		return -ENODEV;

	for (i = 0; i < port.gid_tbl_len; i++) {
		if (!ibv_query_gid(ctx, PORT, i, gid) &&
		    !memcmp(gid->raw, mapped, sizeof(mapped)))
			return i;
	}

	return -EADDRNOTAVAIL;
}

static int open_device(struct rdma *r)
{
	struct ibv_device **list;
	int err = -ENODEV;

	list = ibv_get_device_list(NULL);
	if (!list)
		return -errno;

	if (list[0]) {
		r->ctx = ibv_open_device(list[0]);
		err = r->ctx ? 0 : -errno;
	}
	ibv_free_device_list(list);
	return err;
}

static struct ibv_cq *create_cq(struct ibv_context *ctx)
{
	struct ibv_comp_channel *channel = ibv_create_comp_channel(ctx);
	struct ibv_cq *cq;

	if (!channel)
		return NULL;

	cq = ibv_create_cq(ctx, QUEUE_DEPTH, NULL, channel, 0);
	if (!cq)
		ibv_destroy_comp_channel(channel);
	return cq;
}

static void destroy_cq(struct ibv_cq *cq)
{
	struct ibv_comp_channel *channel = cq->channel;

	ibv_destroy_cq(cq);
	ibv_destroy_comp_channel(channel);
}

/*
 * Receives have their own CQ, &ibv_qp.recv_cq, so that they may complete while
 * the caller waits for another request.
 */
static int create_qp(struct rdma *r)
{
	struct ibv_qp_init_attr attr = {
		.qp_type = IBV_QPT_RC,
		.cap = {
			.max_send_wr = QUEUE_DEPTH,
			.max_recv_wr = QUEUE_DEPTH,
			.max_send_sge = 1,
			.max_recv_sge = 1,
		},
		.sq_sig_all = 1,
	};

	r->cq = create_cq(r->ctx);
	if (!r->cq)
		return -errno;

	attr.send_cq = r->cq;
	attr.recv_cq = create_cq(r->ctx);
	if (!attr.recv_cq)
		return -errno;

	r->qp = ibv_create_qp(r->pd, &attr);
	if (!r->qp) {
		int err = -errno;

		destroy_cq(attr.recv_cq);
		return err;
	}

	return 0;
}

static int qp_to_init(struct rdma *r)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_INIT,
		.port_num = PORT,
		.qp_access_flags = IBV_ACCESS_LOCAL_WRITE |
				   IBV_ACCESS_REMOTE_READ |
				   IBV_ACCESS_REMOTE_WRITE |
				   IBV_ACCESS_REMOTE_ATOMIC,
	};

	return -ibv_modify_qp(r->qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX |
			      IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
}

int rdma_open(struct rdma *r)
{
	int err;

	memset(r, 0, sizeof(*r));

	err = open_device(r);
	if (err)
		return err;

	r->pd = ibv_alloc_pd(r->ctx);
	err = r->pd ? create_qp(r) : -errno;
	if (!err)
		err = qp_to_init(r);
	if (err)
		rdma_close(r);

	return err;
}

void rdma_close(struct rdma *r)
{
	if (r->qp) {
		struct ibv_cq *recv_cq = r->qp->recv_cq;

		ibv_destroy_qp(r->qp);
		destroy_cq(recv_cq);
	}
	if (r->cq)
		destroy_cq(r->cq);
	if (r->pd)
		ibv_dealloc_pd(r->pd);
	if (r->ctx)
		ibv_close_device(r->ctx);
	memset(r, 0, sizeof(*r));
}

void rdma_address(struct rdma *r, struct rdma_addr *addr)
{
	memset(addr, 0, sizeof(*addr));
	find_gid(r->ctx, &addr->gid);
	addr->qpn = r->qp->qp_num;
}

static int qp_to_rtr(struct rdma *r, const struct rdma_addr *peer,
		     const struct ibv_port_attr *port,
		     const struct ibv_device_attr *dev, int gid_index)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTR,
		.path_mtu = port->active_mtu,
		.dest_qp_num = peer->qpn,
		.max_dest_rd_atomic = dev->max_qp_rd_atom,
		.min_rnr_timer = 12,
		.ah_attr = {
			.is_global = 1,
			.port_num = PORT,
			.grh = {
				.dgid = peer->gid,
				.sgid_index = gid_index,
				.hop_limit = 1,
			},
		},
	};

	return -ibv_modify_qp(r->qp, &attr, IBV_QP_STATE | IBV_QP_AV |
			      IBV_QP_PATH_MTU | IBV_QP_DEST_QPN |
			      IBV_QP_RQ_PSN | IBV_QP_MAX_DEST_RD_ATOMIC |
			      IBV_QP_MIN_RNR_TIMER);
}

/* A timeout of 18 is a second: a slow machine takes long over page faults. */
static int qp_to_rts(struct rdma *r, const struct ibv_device_attr *dev)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RTS,
		.timeout = 18,
		.retry_cnt = 7,
		.rnr_retry = 7,
		.max_rd_atomic = dev->max_qp_init_rd_atom,
	};

	return -ibv_modify_qp(r->qp, &attr, IBV_QP_STATE | IBV_QP_TIMEOUT |
			      IBV_QP_RETRY_CNT | IBV_QP_RNR_RETRY |
			      IBV_QP_SQ_PSN | IBV_QP_MAX_QP_RD_ATOMIC);
}

int rdma_connect(struct rdma *r, const struct rdma_addr *peer)
{
	struct ibv_device_attr dev;
	struct ibv_port_attr port;
	union ibv_gid gid;
	int gid_index, err;

	gid_index = find_gid(r->ctx, &gid);
	if (gid_index < 0)
		return gid_index;

	err = ibv_query_port(r->ctx, PORT, &port);
	if (!err)
		err = ibv_query_device(r->ctx, &dev);
	if (err)
		return -err;

	err = qp_to_rtr(r, peer, &port, &dev, gid_index);
	return err ? err : qp_to_rts(r, &dev);
}

enum ibv_wc_status rdma_status(const struct rdma *r)
{
	return r->status;
}

struct ibv_mr *rdma_reg_odp(struct rdma *r, void *addr, size_t size)
{
	return ibv_reg_mr(r->pd, addr, size, IBV_ACCESS_ON_DEMAND |
			  IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ |
			  IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC);
}

/*
 * ibv_advise_mr(), or the kernel's own interface if the library does not have
 * that for rxe (before rdma-core 58).
 */
int rdma_advise_list(struct ibv_pd *pd, enum ibv_advise_mr_advice advice,
		     uint32_t flags, struct ibv_sge *sge, unsigned int num)
{
	struct {
		struct ib_uverbs_ioctl_hdr hdr;
		struct ib_uverbs_attr attrs[4];
	} cmd = {
		.hdr = {
			.length = sizeof(cmd),
			.object_id = UVERBS_OBJECT_MR,
			.method_id = UVERBS_METHOD_ADVISE_MR,
			.num_attrs = 4,
			.driver_id = RDMA_DRIVER_RXE,
		},
		.attrs = {
			{
				.attr_id = UVERBS_ATTR_ADVISE_MR_PD_HANDLE,
				.flags = UVERBS_ATTR_F_MANDATORY,
				.data = pd->handle,
			}, {
				.attr_id = UVERBS_ATTR_ADVISE_MR_ADVICE,
				.flags = UVERBS_ATTR_F_MANDATORY,
				.len = sizeof(uint64_t),
				.data = advice,
			}, {
				.attr_id = UVERBS_ATTR_ADVISE_MR_FLAGS,
				.flags = UVERBS_ATTR_F_MANDATORY,
				.len = sizeof(uint64_t),
				.data = flags,
			}, {
				.attr_id = UVERBS_ATTR_ADVISE_MR_SGE_LIST,
				.flags = UVERBS_ATTR_F_MANDATORY,
				.len = num * sizeof(*sge),
				.data = (uintptr_t)sge,
			},
		},
	};
	int err;

	_Static_assert(sizeof(*sge) == sizeof(struct ib_uverbs_sge), "layout");
	err = ibv_advise_mr(pd, advice, flags, sge, num);
	if (err != EOPNOTSUPP)
		return -err;

	return ioctl(pd->context->cmd_fd, RDMA_VERBS_IOCTL, &cmd) ? -errno : 0;
}

int rdma_advise(struct ibv_pd *pd, enum ibv_advise_mr_advice advice,
		uint32_t flags, struct ibv_sge *sge)
{
	return rdma_advise_list(pd, advice, flags, sge, 1);
}

int rdma_prefetch(struct rdma *r, struct ibv_mr *mr, void *addr, size_t size,
		  int write)
{
	enum ibv_advise_mr_advice advice = write ?
		IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE :
		IBV_ADVISE_MR_ADVICE_PREFETCH;
	struct ibv_sge sge = {
		.addr = (uintptr_t)addr,
		.lkey = mr->lkey,
	};
	int err;

	/* The length of an element has 32 bits */
	for (; size; size -= sge.length, sge.addr += sge.length) {
		sge.length = size < MAX_SIZE ? size : MAX_SIZE;
		err = rdma_advise(r->pd, advice, IBV_ADVISE_MR_FLAG_FLUSH, &sge);
		if (err)
			return err;
	}

	return 0;
}

int rdma_prefetch_begin(struct rdma *r, struct ibv_mr *mr, void *addr, size_t size)
{
	struct ibv_sge sge = {
		.addr = (uintptr_t)addr,
		.length = size,
		.lkey = mr->lkey,
	};

	if (size > MAX_SIZE)
		return -EMSGSIZE;
	return rdma_advise(r->pd, IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE, 0, &sge);
}

/* Sleep until there may be a completion. */
static int wait_event(struct ibv_cq *cq)
{
	struct pollfd pfd = { .fd = cq->channel->fd, .events = POLLIN };
	struct ibv_cq *event_cq;
	void *context;
	int n;

	do {
		n = poll(&pfd, 1, TIMEOUT_MS);
	} while (n < 0 && errno == EINTR);
	if (n <= 0)
		return n ? -errno : -ETIMEDOUT;

	if (ibv_get_cq_event(cq->channel, &event_cq, &context))
		return -errno;
	ibv_ack_cq_events(cq, 1);
	return 0;
}

static int wait_completion(struct rdma *r, struct ibv_cq *cq)
{
	struct ibv_wc wc;
	int n, err;

	for (;;) {
		n = ibv_poll_cq(cq, 1, &wc);
		if (!n) {
			/* A completion may come between poll and request */
			err = ibv_req_notify_cq(cq, 0);
			if (err)
				return -err;
			n = ibv_poll_cq(cq, 1, &wc);
		}
		if (n)
			break;
		err = wait_event(cq);
		if (err)
			return err;
	}
	if (n < 0)
		return -EIO;

	r->status = wc.status;
	return wc.status == IBV_WC_SUCCESS ? 0 : -EREMOTEIO;
}

static int post_and_wait(struct rdma *r, struct ibv_send_wr *wr,
			 const void *buf, uint32_t lkey, size_t size)
{
	struct ibv_sge sge = {
		.addr = (uintptr_t)buf,
		.length = size,
		.lkey = lkey,
	};
	struct ibv_send_wr *bad;
	int err;

	if (size > MAX_SIZE)
		return -EMSGSIZE;

	wr->sg_list = &sge;
	wr->num_sge = 1;
	err = ibv_post_send(r->qp, wr, &bad);
	return err ? -err : wait_completion(r, r->cq);
}

static int post_remote(struct rdma *r, enum ibv_wr_opcode opcode,
		       const void *buf, uint32_t lkey, uint64_t raddr,
		       uint32_t rkey, size_t size)
{
	struct ibv_send_wr wr = {
		.opcode = opcode,
		.wr.rdma = { .remote_addr = raddr, .rkey = rkey },
	};

	return post_and_wait(r, &wr, buf, lkey, size);
}

int rdma_read(struct rdma *r, void *buf, uint32_t lkey, uint64_t raddr,
	      uint32_t rkey, size_t size)
{
	return post_remote(r, IBV_WR_RDMA_READ, buf, lkey, raddr, rkey, size);
}

int rdma_write(struct rdma *r, const void *buf, uint32_t lkey, uint64_t raddr,
	       uint32_t rkey, size_t size)
{
	return post_remote(r, IBV_WR_RDMA_WRITE, buf, lkey, raddr, rkey, size);
}

int rdma_post_recv(struct rdma *r, void *buf, uint32_t lkey, size_t size)
{
	struct ibv_sge sge = {
		.addr = (uintptr_t)buf,
		.length = size,
		.lkey = lkey,
	};
	struct ibv_recv_wr wr = { .sg_list = &sge, .num_sge = 1 };
	struct ibv_recv_wr *bad;

	if (size > MAX_SIZE)
		return -EMSGSIZE;

	return -ibv_post_recv(r->qp, &wr, &bad);
}

int rdma_wait(struct rdma *r)
{
	return wait_completion(r, r->qp->recv_cq);
}

int rdma_send(struct rdma *r, const void *buf, uint32_t lkey, size_t size)
{
	struct ibv_send_wr wr = { .opcode = IBV_WR_SEND };

	return post_and_wait(r, &wr, buf, lkey, size);
}

static int post_atomic(struct rdma *r, struct ibv_send_wr *wr, uint64_t *old,
		       uint32_t lkey, uint64_t raddr, uint32_t rkey)
{
	wr->wr.atomic.remote_addr = raddr;
	wr->wr.atomic.rkey = rkey;
	return post_and_wait(r, wr, old, lkey, sizeof(*old));
}

int rdma_fetch_add(struct rdma *r, uint64_t *old, uint32_t lkey,
		   uint64_t raddr, uint32_t rkey, uint64_t add)
{
	struct ibv_send_wr wr = {
		.opcode = IBV_WR_ATOMIC_FETCH_AND_ADD,
		.wr.atomic.compare_add = add,
	};

	return post_atomic(r, &wr, old, lkey, raddr, rkey);
}

int rdma_cmp_swap(struct rdma *r, uint64_t *old, uint32_t lkey,
		  uint64_t raddr, uint32_t rkey, uint64_t cmp, uint64_t swap)
{
	struct ibv_send_wr wr = {
		.opcode = IBV_WR_ATOMIC_CMP_AND_SWP,
		.wr.atomic.compare_add = cmp,
		.wr.atomic.swap = swap,
	};

	return post_atomic(r, &wr, old, lkey, raddr, rkey);
}

int rdma_bind_mw(struct rdma *r, struct ibv_mw *mw,
		 const struct ibv_mw_bind_info *info, uint32_t *rkey)
{
	struct ibv_send_wr wr = {
		.opcode = IBV_WR_BIND_MW,
		.bind_mw = {
			.mw = mw,
			.rkey = ibv_inc_rkey(mw->rkey),
			.bind_info = *info,
		},
	};
	struct ibv_send_wr *bad;
	int err;

	*rkey = wr.bind_mw.rkey;
	err = ibv_post_send(r->qp, &wr, &bad);
	return err ? -err : wait_completion(r, r->cq);
}

int rdma_invalidate(struct rdma *r, uint32_t rkey)
{
	struct ibv_send_wr wr = {
		.opcode = IBV_WR_LOCAL_INV,
		.invalidate_rkey = rkey,
	};
	struct ibv_send_wr *bad;
	int err;

	err = ibv_post_send(r->qp, &wr, &bad);
	return err ? -err : wait_completion(r, r->cq);
}
