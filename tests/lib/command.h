/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A shell command in a process of its own, without the copy of our memory that fork()
 * makes.
 */
#ifndef LIB_COMMAND_H
#define LIB_COMMAND_H

#include <sys/types.h>

int command_start(pid_t *pid, const char *format, ...)
	__attribute__((format(printf, 2, 3)));
/* -ETIMEDOUT if the command does not end in time, and goes on; -EIO if it failed. */
int command_wait(pid_t pid, double seconds);

#endif
