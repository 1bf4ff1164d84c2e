/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Counts of the kernel's resources in use. They return to their old values when all
 * users are gone.
 */
#ifndef LIB_LEAKS_H
#define LIB_LEAKS_H

#include <stddef.h>

/* @slack: how much growth is no leak; see leaks.c for the reason. */
struct figure {
	char name[80];
	long long value;
	long long slack;
};

struct figures {
	size_t n;
	struct figure figure[1024];
};

/* Shrinks caches first. */
void figures_read(struct figures *figures);

/*
 * Wait until no figure that begins with @prefix is larger than before, as resources
 * may go away later than their last user, but no longer than @seconds. Prints the
 * figures that are larger, and returns how many; -1 if there is no such figure.
 */
int figures_grown(const struct figures *before, const char *prefix,
		  double seconds);

#endif
