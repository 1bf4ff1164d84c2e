// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "child.h"

static void __attribute__((noreturn))
child_main(int sock, int (*fn)(void *arg), void *arg)
{
	char told;
	int ret;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (read(sock, &told, 1) == 1) {
		ret = fn ? fn(arg) : 0;
		if (write(sock, &ret, sizeof(ret)) == sizeof(ret))
			ret = read(sock, &told, 1);
	}
	_exit(0);
}

int child_fork(struct child *child, int (*fn)(void *arg), void *arg)
{
	int sock[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sock))
		return -errno;

	child->pid = fork();
	if (child->pid < 0)
		return -errno;
	if (!child->pid) {
		close(sock[0]);
		child_main(sock[1], fn, arg);
	}

	close(sock[1]);
	child->sock = sock[0];
	return 0;
}

int child_start(struct child *child)
{
	return send(child->sock, "", 1, MSG_NOSIGNAL) == 1 ? 0 : -EPIPE;
}

int child_result(struct child *child)
{
	int ret;

	if (recv(child->sock, &ret, sizeof(ret), MSG_WAITALL) != sizeof(ret))
		return -EPIPE;
	return ret;
}

bool child_has_result(struct child *child)
{
	char byte;

	return recv(child->sock, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 || errno != EAGAIN;
}

int child_do(struct child *child)
{
	int err = child_start(child);

	return err ? err : child_result(child);
}

int child_end(struct child *child)
{
	int status;

	/* Other children may have inherited the socket, so close() is not enough. */
	shutdown(child->sock, SHUT_RDWR);
	close(child->sock);
	if (waitpid(child->pid, &status, 0) != child->pid)
		return -errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -EPIPE;
}
