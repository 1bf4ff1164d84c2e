/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a benchmark hands to bench/report: a figure a line, fields separated by
 * tabs. The same group and name in another mode is what it compares with.
 */
#ifndef FIGURES_H
#define FIGURES_H

#include <stdio.h>

static inline void figure(const char *group, const char *name, const char *mode,
			  const char *unit, double value)
{
	printf("%s\t%s\t%s\t%s\t%.6g\n", group, name, mode, unit, value);
	fflush(stdout);
}

#endif
