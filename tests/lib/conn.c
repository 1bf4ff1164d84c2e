// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "conn.h"
#include "patience.h"

static int conn_connect(struct conn *conn)
{
	struct rdma_addr near, far;
	int err;

	rdma_address(&conn->near, &near);
	rdma_address(&conn->far, &far);
	err = rdma_connect(&conn->near, &far);
	return err ? err : rdma_connect(&conn->far, &near);
}

int conn_up(struct conn *conn)
{
	int err;

	memset(conn, 0, sizeof(*conn));
	err = rdma_open(&conn->near);
	if (!err)
		err = rdma_open(&conn->far);
	if (!err)
		err = conn_connect(conn);
	if (err)
		conn_down(conn);

	return err;
}

void conn_down(struct conn *conn)
{
	rdma_close(&conn->far);
	rdma_close(&conn->near);
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

int qp_to_error(struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_ERR };

	return -ibv_modify_qp(qp, &attr, IBV_QP_STATE);
}

int cq_wait(struct ibv_cq *cq, struct ibv_wc *wc)
{
	int n, tries = 2000 * slowness();

	while (!(n = ibv_poll_cq(cq, 1, wc)) && tries--)
		usleep(10000);
	return n == 1 ? 0 : -ETIMEDOUT;
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

int qp_wait_for_drain(struct ibv_qp *qp)
{
	struct ibv_qp_init_attr init;
	struct ibv_qp_attr attr;
	int err, ms = 10000;

	while ((err = ibv_query_qp(qp, &attr, IBV_QP_STATE, &init)) == 0 &&
	       attr.sq_draining) {
		if (!ms--)
			return -ETIMEDOUT;
		usleep(1000);
	}
	return -err;
}

int qp_drain(struct ibv_qp *qp)
{
	struct ibv_qp_attr attr = { .qp_state = IBV_QPS_SQD };
	int err = ibv_modify_qp(qp, &attr, IBV_QP_STATE);

	return err ? -err : qp_wait_for_drain(qp);
}

int conn_revive(struct conn *conn)
{
	int err;

	qp_wait_for_error(conn->near.qp, 1000);
	qp_wait_for_error(conn->far.qp, 1000);
	err = qp_restart(conn->near.qp);
	if (!err)
		err = qp_restart(conn->far.qp);
	return err ? err : conn_connect(conn);
}
