/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A child that calls a function when child_start() tells it to, and stays until
 * child_end(). The function returns 0 on success; NULL does nothing. The child never
 * returns to the test.
 */
#ifndef LIB_CHILD_H
#define LIB_CHILD_H

#include <stdbool.h>
#include <sys/types.h>

struct child {
	pid_t pid;
	int sock;
};

int child_fork(struct child *child, int (*fn)(void *arg), void *arg);
/* Returns the result of the function; -EPIPE if the child died. */
int child_do(struct child *child);
/* child_do() in two steps. */
int child_start(struct child *child);
int child_result(struct child *child);
/* The function has returned, or the child died. */
bool child_has_result(struct child *child);
int child_end(struct child *child);

#endif
