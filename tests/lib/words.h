/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Words that identify themselves: the address that they belong to, the number of the
 * write that stored them, and their writer. A wrong word shows all three.
 */
#ifndef LIB_WORDS_H
#define LIB_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WORD_GEN_SHIFT		24
#define WORD_WRITER_SHIFT	48
#define WORD_FIELD		0xffffffU

/*
 * A row of words of one writer and one generation. The first one belongs to @addr.
 * Addresses count words; addresses and generations have 24 bits.
 */
struct words {
	uint32_t addr;
	uint32_t gen;
	uint16_t writer;
	size_t n;
};

static inline uint64_t words_at(const struct words *words, size_t i)
{
	return (words->addr + i) | (uint64_t)words->gen << WORD_GEN_SHIFT |
	       (uint64_t)words->writer << WORD_WRITER_SHIFT;
}

void words_fill(volatile uint64_t *mem, const struct words *words);
uint64_t words_sum(const struct words *words);

/* The value that turns each word of @a into that of @b by xor. */
static inline uint64_t words_xor(const struct words *a, const struct words *b)
{
	return words_at(a, 0) ^ words_at(b, 0);
}

/*
 * Compare the expected words with those that were @found. Generations from @oldest
 * on are fine, too, and so are words that have been zeroed in between, if @zero.
 * Prints wrong words, with @addr for where they were, and @how they were read.
 */
bool words_check(const uint64_t *found, const struct words *words,
		 uint32_t oldest, bool zero, const void *addr, const char *how);

#endif
