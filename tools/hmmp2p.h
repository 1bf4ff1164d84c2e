/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Functions that the commands of hmmp2p share. Errors end the program, with a
 * line that says what would help.
 */
#ifndef HMMP2P_H
#define HMMP2P_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "device.h"
#include "p2pdma.h"

#define SYSFS_DIR	SYSFS "/kernel/mm/hmm_p2pdma"

#define ARRAY_LEN(a)	(sizeof(a) / sizeof((a)[0]))
#define for_each(item, items, nr)					\
	for ((item) = (items); (item) < (items) + (nr); (item)++)

static inline int max(int a, int b)
{
	return a > b ? a : b;
}

struct options {
	bool all;
	bool json;
	double interval;	/* seconds; 0: none */
	unsigned long count;	/* 0: no end */
};

void run_topo(struct options *o);
void run_stat(struct options *o);

void fail(int status, const char *format, ...)
	__attribute__((format(printf, 2, 3), noreturn));
void *allocated(void *memory);
/* Writes all output at once, from a large buffer: errno is from that write. */
void flush_output(void);
/* NULL equals NULL, but no string */
bool same(const char *a, const char *b);

bool read_enabled(void);
void tell_if_disabled(bool enabled);
/* @err: what reading a file of debugfs returned. */
void must_read(const char *path, int err);

/* JSON, all on one line. The key is NULL in an array. */
void json_open(const char *key, char bracket);
void json_close(char bracket);
void json_end(void);
void json_text(const char *key, const char *s);
void json_bool(const char *key, bool value);
void json_number(const char *key, double value, int digits);
void json_integer(const char *key, uint64_t value);
/* The parts of a string, as an array. */
void json_split(const char *key, const char *s, const char *separator);

#endif
