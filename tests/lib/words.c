// SPDX-License-Identifier: GPL-2.0
#include <stdio.h>

#include "words.h"

static uint32_t addr_of(uint64_t word)
{
	return word & WORD_FIELD;
}

static uint32_t gen_of(uint64_t word)
{
	return word >> WORD_GEN_SHIFT & WORD_FIELD;
}

static uint16_t writer_of(uint64_t word)
{
	return word >> WORD_WRITER_SHIFT;
}

void words_fill(volatile uint64_t *mem, const struct words *words)
{
	size_t i;

	for (i = 0; i < words->n; i++)
		mem[i] = words_at(words, i);
}

uint64_t words_sum(const struct words *words)
{
	uint64_t sum = 0;
	size_t i;

	for (i = 0; i < words->n; i++)
		sum += words_at(words, i);
	return sum;
}

static bool is_fine(uint64_t word, const struct words *words, size_t i,
		    uint32_t oldest, bool zero)
{
	/* A xor or an add to a zeroed word leaves a word without address and writer */
	if (!addr_of(word) && !writer_of(word) && zero)
		return true;
	return addr_of(word) == words->addr + i &&
	       writer_of(word) == words->writer &&
	       gen_of(word) >= oldest && gen_of(word) <= words->gen;
}

/* Describe a wrong word. @right: how many words beside it are as expected. */
static const char *damage(uint64_t word, const struct words *words, size_t i,
			  size_t right)
{
	if (!word)
		return "lost: zeroes";
	if (addr_of(word) != words->addr + i)
		return "foreign: it belongs to another address";
	if (writer_of(word) != words->writer)
		return "leaked: it is another writer's";
	if (gen_of(word) > words->gen)
		return "leaked: from the future";
	if (right)
		return "torn: others have been written";
	if (gen_of(word) + 1 == words->gen)
		return "lost: as before the last write";
	return "stale: as long before";
}

static void print_word(const char *what, uint64_t word)
{
	printf("#   %s %016llx: address %#x, generation %u, writer %#x\n", what,
	       (unsigned long long)word, addr_of(word), gen_of(word),
	       writer_of(word));
}

bool words_check(const uint64_t *found, const struct words *words,
		 uint32_t oldest, bool zero, const void *addr, const char *how)
{
	size_t i, first = words->n, last = 0, wrong = 0, right = 0;

	for (i = 0; i < words->n; i++) {
		right += found[i] == words_at(words, i);
		if (is_fine(found[i], words, i, oldest, zero))
			continue;
		if (!wrong++)
			first = i;
		last = i;
	}
	if (!wrong)
		return true;

	printf("# CORRUPTION: %p, %s: %zu of %zu words, from %zu to %zu; %s\n",
	       (const char *)addr + first * sizeof(*found), how, wrong,
	       words->n, first, last,
	       damage(found[first], words, first, right));
	print_word("expected", words_at(words, first));
	print_word("found   ", found[first]);
	return false;
}
