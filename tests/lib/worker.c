// SPDX-License-Identifier: GPL-2.0
#include "measure.h"
#include "patience.h"
#include "worker.h"

static void *worker_main(void *arg)
{
	struct worker *worker = arg;
	double start;

	while (!worker->stop && !worker->err) {
		start = now();
		worker->err = worker->round(worker);
		if (is_out_of_patience(worker->err, start))
			worker->err = 0;
		else
			worker->rounds++;
	}

	return NULL;
}

int worker_start(struct worker *worker, int (*round)(struct worker *worker))
{
	worker->round = round;
	return -pthread_create(&worker->thread, NULL, worker_main, worker);
}

int worker_stop(struct worker *worker)
{
	worker->stop = true;
	pthread_join(worker->thread, NULL);
	return worker->err;
}
