// SPDX-License-Identifier: GPL-2.0
#include <string.h>
#include <unistd.h>

#include "link.h"

static int link_connect(struct link *link)
{
	struct rdma_addr near, far;
	int err;

	rdma_address(&link->near, &near);
	rdma_address(&link->far, &far);
	err = rdma_connect(&link->near, &far);
	return err ? err : rdma_connect(&link->far, &near);
}

int link_up(struct link *link)
{
	int err;

	memset(link, 0, sizeof(*link));
	err = rdma_open(&link->near);
	if (!err)
		err = rdma_open(&link->far);
	if (!err)
		err = link_connect(link);
	if (err)
		link_down(link);

	return err;
}

void link_down(struct link *link)
{
	rdma_close(&link->far);
	rdma_close(&link->near);
}

/* rdma_connect() expects a QP in INIT: bring it back there. */
int qp_restart(struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = {
		.qp_state = IBV_QPS_RESET,
		.port_num = 1,
		.qp_access_flags = IBV_ACCESS_LOCAL_WRITE |
				   IBV_ACCESS_REMOTE_READ |
				   IBV_ACCESS_REMOTE_WRITE |
				   IBV_ACCESS_REMOTE_ATOMIC,
	};
	int err;

	err = ibv_modify_qp(qp, &attr, IBV_QP_STATE);
	if (err)
		return -err;

	attr.qp_state = IBV_QPS_INIT;
	return -ibv_modify_qp(qp, &attr, IBV_QP_STATE | IBV_QP_PKEY_INDEX |
			      IBV_QP_PORT | IBV_QP_ACCESS_FLAGS);
}

/* A completion with an error may arrive before the QP's state changes. */
void qp_wait_for_error(struct ibv_qp *qp, int ms)
{
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr attr;

	while (!ibv_query_qp(qp, &attr, IBV_QP_STATE, &init) &&
	       attr.qp_state != IBV_QPS_ERR && ms--)
		usleep(1000);
}

int link_revive(struct link *link)
{
	int err;

	qp_wait_for_error(link->near.qp, 1000);
	qp_wait_for_error(link->far.qp, 1000);
	err = qp_restart(link->near.qp);
	if (!err)
		err = qp_restart(link->far.qp);
	return err ? err : link_connect(link);
}
