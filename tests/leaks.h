/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the machine has in use, in figures that should be the same once all who
 * used it are gone.
 */
#ifndef LEAKS_H
#define LEAKS_H

#include <stddef.h>

/* @slack: how much more is nobody's loss; see leaks.c for why. */
struct figure {
	char name[80];
	long long value;
	long long slack;
};

struct figures {
	size_t n;
	struct figure figure[1024];
};

/* Caches are shrunk first. */
void figures_read(struct figures *figures);

/*
 * Wait for what goes away later than its last user, until no figure that begins
 * with @prefix is larger than before, or for so many seconds. Prints those that
 * are, and returns how many; -1 if there is no such figure.
 */
int figures_grown(const struct figures *before, const char *prefix,
		  double seconds);

#endif
