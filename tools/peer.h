/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A second process, the peer, which accesses the memory of the first one by
 * RDMA on request. Functions return 0 or a negative errno, which may be that of
 * the peer; -EPIPE if the peer is gone.
 */
#ifndef PEER_H
#define PEER_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "content.h"
#include "rdma.h"

struct peer {
	pid_t pid;
	int sock;
};

/*
 * The peer has its own buffer, as large as the memory that it accesses.
 *
 * PEER_READ: clear [offset, offset + size) of the buffer, and fetch it by RDMA
 * PEER_WRITE: store words that count up from @value there
 * PEER_COMPARE: compare the range of the buffer with the expected content
 * PEER_HASH: hash the range of the buffer
 */
enum peer_task { PEER_READ, PEER_WRITE, PEER_COMPARE, PEER_HASH };

struct peer_request {
	enum peer_task task;
	uint32_t rkey;
	uint64_t addr;	/* of the memory, in the first process */
	uint64_t offset;
	uint64_t size;
	uint64_t value;
};

/*
 * @seconds is the time of the RDMA alone. @wrong is the offset of the first
 * wrong byte, or the end of the range.
 */
struct peer_answer {
	int err;
	enum ibv_wc_status status;
	double seconds;
	uint64_t wrong;
	unsigned char sha256[SHA256_SIZE];
};

/*
 * Call this before opening an RDMA device: verbs do not survive a fork.
 * @expected is shared memory of the same size, with the expected content.
 */
int peer_start(struct peer *peer, size_t size, const void *expected);
int peer_connect(struct peer *peer, struct rdma *r);

/* Between these two the peer works, and the caller may do other things. */
int peer_ask(struct peer *peer, const struct peer_request *request);
int peer_answer(struct peer *peer, struct peer_answer *answer);

void peer_stop(struct peer *peer);

#endif
