/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Memory whose pages are not provided yet, like those of a file system with a slow
 * daemon: an access sleeps until held_release(), and then finds zeroes.
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
 * Wait until a thread has faulted on a page that is not there yet, and say which page.
 * -ETIMEDOUT if none does. Reports each page once.
 */
int held_wait(struct held *held, void **addr);
int held_release(struct held *held);
void held_unmap(struct held *held);

#endif
