/* SPDX-License-Identifier: GPL-2.0 */
/* An RDMA connection of two sides in one process. */
#ifndef LIB_LINK_H
#define LIB_LINK_H

#include "rdma.h"

/* Two connected sides, of which @near makes the requests. */
struct link {
	struct rdma near;
	struct rdma far;
};

int link_up(struct link *link);
void link_down(struct link *link);
/* Connect again after a request that failed. MRs stay valid. */
int link_revive(struct link *link);
/* Its parts: wait for a QP that fails, and make it ready to be connected. */
void qp_wait_for_error(struct ibv_qp *qp, int ms);
int qp_restart(struct ibv_qp *qp);

#endif
