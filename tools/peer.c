// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "measure.h"
#include "peer.h"

/* The size of a work request */
#define PIECE	(1 << 20)

struct child {
	int sock;
	size_t size;
	const char *expected;
	char *buf;
	struct ibv_mr *mr;
	struct rdma rdma;
};

static int send_all(int sock, const void *msg, size_t size)
{
	ssize_t n = send(sock, msg, size, MSG_NOSIGNAL);

	if (n < 0)
		return -errno;
	return (size_t)n == size ? 0 : -EIO;
}

static int recv_all(int sock, void *msg, size_t size)
{
	ssize_t n = recv(sock, msg, size, 0);

	if (n < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	if (!n)
		return -EPIPE;
	return (size_t)n == size ? 0 : -EIO;
}

/* The first message of each side: its address, or why it has none */
struct hello {
	int err;
	struct rdma_addr addr;
};

static int say_hello(int sock, struct rdma *r, int err)
{
	struct hello hello = { .err = err };

	if (!err)
		rdma_address(r, &hello.addr);
	return send_all(sock, &hello, sizeof(hello));
}

static int connect_to(int sock, struct rdma *r)
{
	struct hello hello;
	int err;

	err = recv_all(sock, &hello, sizeof(hello));
	if (!err)
		err = hello.err;
	return err ? err : rdma_connect(r, &hello.addr);
}

static int transfer(struct child *c, const struct peer_request *req)
{
	uint64_t pos, end = req->offset + req->size;
	int err = 0;

	for (pos = req->offset; pos < end && !err; pos += PIECE) {
		size_t len = end - pos < PIECE ? end - pos : PIECE;

		if (req->task == PEER_READ)
			err = rdma_read(&c->rdma, c->buf + pos, c->mr->lkey,
					req->addr + pos, req->rkey, len);
		else
			err = rdma_write(&c->rdma, c->buf + pos, c->mr->lkey,
					 req->addr + pos, req->rkey, len);
	}

	return err;
}

static uint64_t find_wrong(struct child *c, uint64_t pos, uint64_t end)
{
	if (!memcmp(c->buf + pos, c->expected + pos, end - pos))
		return end;

	while (c->buf[pos] == c->expected[pos])
		pos++;
	return pos;
}

static void work(struct child *c, const struct peer_request *req,
		 struct peer_answer *answer)
{
	char *buf = c->buf + req->offset;
	double start;

	switch (req->task) {
	case PEER_READ:
		memset(buf, 0, req->size);
		break;
	case PEER_WRITE:
		content_pattern(buf, req->size, req->value);
		break;
	case PEER_COMPARE:
		answer->wrong = find_wrong(c, req->offset,
					   req->offset + req->size);
		return;
	case PEER_HASH:
		content_sha256(buf, req->size, answer->sha256);
		return;
	}

	start = now();
	answer->err = transfer(c, req);
	answer->seconds = now() - start;
	answer->status = rdma_status(&c->rdma);
}

static int child_open(struct child *c)
{
	int err;

	c->buf = mmap(NULL, c->size, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (c->buf == MAP_FAILED)
		return -errno;

	err = rdma_open(&c->rdma);
	if (err)
		return err;

	c->mr = ibv_reg_mr(c->rdma.pd, c->buf, c->size, IBV_ACCESS_LOCAL_WRITE);
	return c->mr ? 0 : -errno;
}

/* Runs until the first process closes its socket or dies. */
static void child_main(struct child *c)
{
	struct peer_request req;
	int err;

	err = child_open(c);
	if (say_hello(c->sock, &c->rdma, err) || err)
		_exit(EXIT_FAILURE);
	if (connect_to(c->sock, &c->rdma))
		_exit(EXIT_FAILURE);

	while (!recv_all(c->sock, &req, sizeof(req))) {
		struct peer_answer answer = { .err = 0 };

		work(c, &req, &answer);
		if (send_all(c->sock, &answer, sizeof(answer)))
			break;
	}
	_exit(EXIT_SUCCESS);
}

int peer_start(struct peer *peer, size_t size, const void *expected)
{
	struct child c = { .size = size, .expected = expected };
	int socks[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks))
		return -errno;

	peer->pid = fork();
	if (!peer->pid) {
		close(socks[0]);
		c.sock = socks[1];
		child_main(&c);
	}

	close(socks[1]);
	peer->sock = socks[0];
	return peer->pid < 0 ? -errno : 0;
}

int peer_connect(struct peer *peer, struct rdma *r)
{
	int err = say_hello(peer->sock, r, 0);

	return err ? err : connect_to(peer->sock, r);
}

int peer_ask(struct peer *peer, const struct peer_request *request)
{
	return send_all(peer->sock, request, sizeof(*request));
}

int peer_answer(struct peer *peer, struct peer_answer *answer)
{
	int err = recv_all(peer->sock, answer, sizeof(*answer));

	return err ? err : answer->err;
}

void peer_stop(struct peer *peer)
{
	close(peer->sock);
	waitpid(peer->pid, NULL, 0);
}
