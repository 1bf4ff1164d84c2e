/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A second process that reaches the first one's memory by RDMA, and does with
 * it what it is asked to. Functions return 0 or a negative errno, which may be
 * the other process's; -EPIPE if it is gone.
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
 * The peer has a buffer of its own, as large as the memory that it reaches.
 *
 * PEER_READ: fetch [offset, offset + size), after the buffer was cleared
 * PEER_WRITE: store words that count up from @value there
 * PEER_COMPARE: compare the same range of the buffer with what is expected
 * PEER_HASH: hash it
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
 * @seconds are those of the RDMA alone. @wrong is the offset of the first byte
 * that is not as expected, or the end.
 */
struct peer_answer {
	int err;
	enum ibv_wc_status status;
	double seconds;
	uint64_t wrong;
	unsigned char sha256[SHA256_SIZE];
};

/*
 * Before the caller opens an RDMA device: verbs do not survive a fork.
 * @expected is shared memory of the same size.
 */
int peer_start(struct peer *peer, size_t size, const void *expected);
int peer_connect(struct peer *peer, struct rdma *r);

/* The peer works while the caller may do other things, between these two. */
int peer_ask(struct peer *peer, const struct peer_request *request);
int peer_answer(struct peer *peer, struct peer_answer *answer);

void peer_stop(struct peer *peer);

#endif
