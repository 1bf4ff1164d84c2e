// SPDX-License-Identifier: GPL-2.0
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "measure.h"
#include "patience.h"

int slowness(void)
{
	const char *debug = getenv("DEBUG");

	return debug && *debug ? 10 : 1;
}

bool is_out_of_patience(int err, double start)
{
	static unsigned int times;

	if (err != -EBUSY || now() < start + 0.9 || ++times > 20)
		return false;
	printf("# a fault took longer than a second; once more\n");
	return true;
}

int wait_until(const volatile int *var, int value)
{
	int tries = 2000 * slowness();

	while (*var != value && tries--)
		usleep(10000);
	return *var == value ? 0 : -ETIMEDOUT;
}
