// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <string.h>

#include "size.h"
#include "waiting.h"

int waiting_init(struct waiting *waiting, enum ibv_wr_opcode opcode, uint64_t id)
{
	struct ibv_sge sge = { .addr = (uintptr_t)&waiting->data, .length = 8 };
	struct ibv_send_wr *bad, wr = {
		.wr_id = id, .opcode = opcode, .sg_list = &sge, .num_sge = 1,
	};
	int err;

	memset(waiting, 0, sizeof(*waiting));
	waiting->id = id;
	err = conn_up(&waiting->conn);
	if (!err)
		err = held_map(&waiting->held, PAGE);
	if (err)
		return err;

	waiting->mr = rdma_reg_odp(&waiting->conn.far, waiting->held.mem, PAGE);
	waiting->ram_mr = rdma_reg_odp(&waiting->conn.near, &waiting->data, 8);
	if (!waiting->mr || !waiting->ram_mr)
		return -EINVAL;

	sge.lkey = waiting->ram_mr->lkey;
	if (opcode == IBV_WR_RDMA_READ) {
		wr.wr.rdma.remote_addr = (uintptr_t)waiting->held.mem;
		wr.wr.rdma.rkey = waiting->mr->rkey;
	} else {
		wr.wr.atomic.remote_addr = (uintptr_t)waiting->held.mem;
		wr.wr.atomic.rkey = waiting->mr->rkey;
	}
	err = -ibv_post_send(waiting->conn.near.qp, &wr, &bad);
	return err ? err : held_wait(&waiting->held, NULL);
}

int waiting_end(struct waiting *waiting)
{
	struct ibv_wc wc;

	if (held_release(&waiting->held) || cq_wait(waiting->conn.near.cq, &wc))
		return -1;
	return wc.wr_id == waiting->id ? (int)wc.status : -1;
}

void waiting_fini(struct waiting *waiting)
{
	ibv_dereg_mr(waiting->mr);
	ibv_dereg_mr(waiting->ram_mr);
	held_unmap(&waiting->held);
	conn_down(&waiting->conn);
}
