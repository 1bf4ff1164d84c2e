// SPDX-License-Identifier: GPL-2.0
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hmmp2p.h"

static const char *comma = "";

static void json_string(const char *s)
{
	putchar('"');
	for (; *s; s++) {
		if (*s == '"' || *s == '\\')
			printf("\\%c", *s);
		else if ((unsigned char)*s < ' ')
			printf("\\u%04x", *s);
		else
			putchar(*s);
	}
	putchar('"');
}

static void json_key(const char *key)
{
	printf("%s", comma);
	comma = ", ";
	if (key) {
		json_string(key);
		printf(": ");
	}
}

void json_open(const char *key, char bracket)
{
	json_key(key);
	putchar(bracket);
	comma = "";
}

void json_close(char bracket)
{
	putchar(bracket);
	comma = ", ";
}

void json_end(void)
{
	json_close('}');
	putchar('\n');
	comma = "";
}

void json_text(const char *key, const char *s)
{
	json_key(key);
	if (s)
		json_string(s);
	else
		printf("null");
}

void json_bool(const char *key, bool value)
{
	json_key(key);
	printf(value ? "true" : "false");
}

void json_number(const char *key, double value, int digits)
{
	json_key(key);
	printf("%.*f", digits, value);
}

void json_integer(const char *key, uint64_t value)
{
	json_key(key);
	printf("%" PRIu64, value);
}

void json_split(const char *key, const char *s, const char *separator)
{
	char *copy = allocated(strdup(s ? s : "")), *rest = copy, *part;

	json_open(key, '[');
	while ((part = strsep(&rest, separator))) {
		if (*part)
			json_text(NULL, part);
	}
	json_close(']');
	free(copy);
}
