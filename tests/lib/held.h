/* SPDX-License-Identifier: GPL-2.0 */
/*
 * An access to this memory sleeps until held_release(), as with the slow daemon of a
 * file system. Then it finds zeroes.
 */
#ifndef LIB_HELD_H
#define LIB_HELD_H

#include <stddef.h>
#include <stdint.h>

struct held {
	int uffd;
	uint8_t *mem;
	size_t size;
};

int held_map(struct held *held, size_t size);
/*
 * Wait until a thread has faulted on a missing page, and store the address of the page.
 * -ETIMEDOUT if no thread does. Reports each page once.
 */
int held_wait(struct held *held, void **addr);
int held_release(struct held *held);
void held_unmap(struct held *held);

#endif
