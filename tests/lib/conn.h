/* SPDX-License-Identifier: GPL-2.0 */
/* An RDMA connection of two sides in one process. */
#ifndef LIB_CONN_H
#define LIB_CONN_H

#include "rdma.h"

/* Two connected sides, of which @near makes the requests. */
struct conn {
	struct rdma near;
	struct rdma far;
};

int conn_up(struct conn *conn);
void conn_down(struct conn *conn);
/* Connect again after a request that failed. MRs stay valid. */
int conn_revive(struct conn *conn);
/* The parts of conn_revive(): wait until a QP is in the error state; bring it to INIT. */
void qp_wait_for_error(struct ibv_qp *qp, int ms);
int qp_restart(struct ibv_qp *qp);
int qp_to_error(struct ibv_qp *qp);
/* Wait some seconds for the next completion; -ETIMEDOUT. */
int cq_wait(struct ibv_cq *cq, struct ibv_wc *wc);
/* Send nothing more, and wait until the requests under way are done. */
int qp_drain(struct ibv_qp *qp);
/* Wait for that after another change in SQD. */
int qp_wait_for_drain(struct ibv_qp *qp);

#endif
