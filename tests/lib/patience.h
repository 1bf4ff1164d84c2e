/* SPDX-License-Identifier: GPL-2.0 */
/* How long a test waits before it says that something hangs. */
#ifndef LIB_PATIENCE_H
#define LIB_PATIENCE_H

#include <stdbool.h>

/* The factor by which a kernel that checks itself is slower. */
int slowness(void);

/* Seconds after which a short operation counts as hung. */
#define PROMPT	(30 * slowness())

/*
 * A fault fails with -EBUSY if it does not succeed within a second. On a slow machine
 * the caller may retry a call that took that long, and no other. Prints a message.
 */
bool is_out_of_patience(int err, double start);

/* Wait until another process sets a shared variable to @value; -ETIMEDOUT. */
int wait_until(const volatile int *var, int value);

#endif
