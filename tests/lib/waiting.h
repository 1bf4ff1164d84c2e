/* SPDX-License-Identifier: GPL-2.0 */
/* A request for eight bytes of a peer's page that waiting_end() provides. */
#ifndef LIB_WAITING_H
#define LIB_WAITING_H

#include <stdint.h>

#include "conn.h"
#include "held.h"

struct waiting {
	struct conn conn;
	struct held held;
	struct ibv_mr *mr;
	struct ibv_mr *ram_mr;
	uint64_t data;
	uint64_t id;
};

/* @opcode: of a read, or of an atomic. */
int waiting_init(struct waiting *waiting, enum ibv_wr_opcode opcode, uint64_t id);
/* Provide the page. Returns the request's status; -1 if another or none completes. */
int waiting_end(struct waiting *waiting);
void waiting_fini(struct waiting *waiting);

#endif
