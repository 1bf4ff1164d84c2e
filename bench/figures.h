/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The output of benchmarks for bench/report: a figure a line, with tabs between
 * fields. A figure compares with those of the same group and name in other modes.
 */
#ifndef FIGURES_H
#define FIGURES_H

#include <err.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <x86intrin.h>

static inline void figure(const char *group, const char *name, const char *mode,
			  const char *unit, double value)
{
	printf("%s\t%s\t%s\t%s\t%.6g\n", group, name, mode, unit, value);
	fflush(stdout);
}

/* If the machine counts instructions, a tick of __rdtsc() is an instruction. */
static inline void must_count_instructions(void)
{
	const uint64_t loop = 1000000;
	uint64_t n = loop / 2, start = __rdtsc(), ticks;

	/* Each iteration is a decrement and a jump */
	__asm__ volatile("1: dec %0; jnz 1b" : "+r" (n));
	ticks = __rdtsc() - start;
	if (ticks < loop || ticks > loop + loop / 20)
		errx(EXIT_FAILURE, "a loop of %ju instructions took %ju ticks: boot with ICOUNT=1",
		     (uintmax_t)loop, (uintmax_t)ticks);
}

#endif
