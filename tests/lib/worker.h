/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A thread that does round after round, until it is told to stop or a round
 * fails.
 */
#ifndef LIB_WORKER_H
#define LIB_WORKER_H

#include <pthread.h>
#include <stdbool.h>

struct rig;

struct worker {
	struct rig *rig;
	int gpu;
	int (*round)(struct worker *worker);
	pthread_t thread;
	volatile bool stop;
	volatile unsigned long rounds;
	volatile int err;
};

int worker_start(struct worker *worker, int (*round)(struct worker *worker));
/* Returns the result of the last round. */
int worker_stop(struct worker *worker);

#endif
