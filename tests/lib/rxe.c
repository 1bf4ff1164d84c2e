// SPDX-License-Identifier: GPL-2.0
#include "command.h"
#include "patience.h"
#include "rxe.h"

int rxe_delete(void)
{
	pid_t pid;
	int err = command_start(&pid, "rdma link delete rxe0");

	return err ? err : command_wait(pid, PROMPT);
}

int rxe_add(void)
{
	pid_t pid;
	int err = command_start(&pid, "rdma link add rxe0 type rxe netdev d0");

	return err ? err : command_wait(pid, PROMPT);
}
