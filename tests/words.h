/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Words that tell what they are: to which address they belong, the how manieth
 * write there they are from, and whose. So that one that is not as it should be
 * tells what has happened to it.
 */
#ifndef WORDS_H
#define WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WORD_GEN_SHIFT		24
#define WORD_WRITER_SHIFT	48
#define WORD_FIELD		0xffffffU

/*
 * A row of words of one writer and one generation, the first of which belongs to
 * @addr. Addresses count words; they and generations have 24 bits.
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

/* What to xor each of them with to have the others. */
static inline uint64_t words_xor(const struct words *a, const struct words *b)
{
	return words_at(a, 0) ^ words_at(b, 0);
}

/*
 * Compare with what was found. Generations from @oldest on are fine too, and so
 * are, if @zero, words that have been zero meanwhile. What is wrong is printed,
 * with @addr for where it was, and @how it was looked at.
 */
bool words_check(const uint64_t *found, const struct words *words,
		 uint32_t oldest, bool zero, const void *addr, const char *how);

#endif
