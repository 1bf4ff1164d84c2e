/* SPDX-License-Identifier: GPL-2.0 */
/* Errors that end a program. */
#ifndef MUST_H
#define MUST_H

#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A message, after all output so far. */
#define die(...) do {					\
	fflush(stdout);					\
	errx(EXIT_FAILURE, __VA_ARGS__);		\
} while (0)

/* @err: zero or a negative errno */
static inline void must(int err, const char *what)
{
	if (err < 0)
		die("%s: %s; the kernel's log (dmesg) may tell more", what,
		    strerror(-err));
}

#endif
