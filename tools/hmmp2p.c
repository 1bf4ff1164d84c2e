// SPDX-License-Identifier: GPL-2.0
/*
 * Shows administrators the peer-to-peer access to device-private memory: which
 * device reaches which, how, and why not (topo); how many pages are reached in
 * place, and how many are not (stat). Prints text or JSON.
 */
#include <errno.h>
#include <getopt.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/vfs.h>

#include "hmmp2p.h"

#define EXIT_USAGE	2

#define MIN_INTERVAL	0.01	/* seconds */
#define MAX_INTERVAL	86400.0
#define MAX_COUNT	1000000000U

void fail(int status, const char *format, ...)
{
	va_list args;

	fputs("hmmp2p: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(status);
}

void *allocated(void *memory)
{
	if (!memory)
		fail(EXIT_FAILURE, "no memory");
	return memory;
}

void flush_output(void)
{
	if (!fflush(stdout) && !ferror(stdout))
		return;
	/* The reader of the pipe is gone: say nothing */
	if (errno == EPIPE)
		exit(EXIT_FAILURE);
	fail(EXIT_FAILURE, "cannot write: %s", strerror(errno));
}

static const char *cure(int err)
{
	struct statfs fs;

	if (err == -EACCES || err == -EPERM)
		return "permission denied: run this as root";
	if (err == -EPROTO)
		return "unknown format: use the hmmp2p that came with this kernel";
	if (err != -ENOENT)
		return strerror(-err);
	if (!statfs(DEBUGFS, &fs) && fs.f_type != DEBUGFS_MAGIC)
		return "debugfs is not mounted: mount -t debugfs debugfs " DEBUGFS;
	return "not there: boot a kernel with CONFIG_DEBUG_FS and a newer HMM_P2PDMA";
}

void must_read(const char *path, int err)
{
	if (err)
		fail(EXIT_FAILURE, "%s: %s", path, cure(err));
}

bool read_enabled(void)
{
	int enabled, err = p2pdma_enabled(&enabled);

	if (err)
		fail(EXIT_FAILURE, SYSFS_DIR ": %s: boot a kernel with CONFIG_HMM_P2PDMA",
		     strerror(-err));
	return enabled;
}

void tell_if_disabled(bool enabled)
{
	if (!enabled)
		printf("Switched off; to switch it on: echo always >" SYSFS_DIR "/enabled\n\n");
}

bool same(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

/* The command line */

static const char usage[] =
	"Usage: hmmp2p topo [-a] [-j]\n"
	"       hmmp2p stat [-i SECONDS [-c COUNT]] [-j]\n"
	"\n"
	"Peer-to-peer access to device-private memory, such as the VRAM of GPUs.\n"
	"\n"
	"topo: which device reaches the memory of which, how, and why not\n"
	"  -a, --all               all PCI functions, not only kinds that can import\n"
	"  -j, --json              a JSON object\n"
	"\n"
	"stat: pages that were reached in place, and that were not, since boot\n"
	"  -i, --interval SECONDS  pages/s instead, every so many seconds\n"
	"  -c, --count COUNT       so many times; else until Ctrl-C\n"
	"  -j, --json              a JSON object in each line\n"
	"\n"
	"  -h, --help              this\n";

static const struct option long_options[] = {
	{ "all",	no_argument,		NULL, 'a' },
	{ "count",	required_argument,	NULL, 'c' },
	{ "help",	no_argument,		NULL, 'h' },
	{ "interval",	required_argument,	NULL, 'i' },
	{ "json",	no_argument,		NULL, 'j' },
	{ }
};

static const struct command {
	const char *name;
	const char *options;
	void (*run)(struct options *o);
} commands[] = {
	{ "topo", "ahj", run_topo },
	{ "stat", "c:hi:j", run_stat },
};

static void help(void)
{
	fputs(usage, stdout);
	flush_output();
	exit(EXIT_SUCCESS);
}

static double parse_interval(const char *arg)
{
	char *end;
	double seconds = strtod(arg, &end);

	/* Comparisons with NaN are false */
	if (*end || !(seconds >= MIN_INTERVAL && seconds <= MAX_INTERVAL))
		fail(EXIT_USAGE, "-i %s: give seconds, from %g to %.0f", arg,
		     MIN_INTERVAL, MAX_INTERVAL);
	return seconds;
}

static unsigned long parse_count(const char *arg)
{
	char *end;
	unsigned long count = strtoul(arg, &end, 10);

	if (*end || *arg == '-' || !count || count > MAX_COUNT)
		fail(EXIT_USAGE, "-c %s: give a number from 1 to %u", arg,
		     MAX_COUNT);
	return count;
}

static void parse_options(struct options *o, const struct command *command,
			  int argc, char **argv)
{
	int option;

	while ((option = getopt_long(argc, argv, command->options, long_options,
				     NULL)) != -1) {
		/* All commands share the long options */
		if (option != '?' && !strchr(command->options, option))
			fail(EXIT_USAGE, "%s has no option -%c; see hmmp2p --help",
			     command->name, option);
		switch (option) {
		case 'a':
			o->all = true;
			break;
		case 'c':
			o->count = parse_count(optarg);
			break;
		case 'h':
			help();
			break;
		case 'i':
			o->interval = parse_interval(optarg);
			break;
		case 'j':
			o->json = true;
			break;
		default:
			exit(EXIT_USAGE);
		}
	}
	if (optind < argc)
		fail(EXIT_USAGE, "%s: unexpected; see hmmp2p --help",
		     argv[optind]);
	if (o->count && !o->interval)
		fail(EXIT_USAGE, "-c is for -i; see hmmp2p --help");
}

int main(int argc, char **argv)
{
	static char name[] = "hmmp2p";
	const struct command *command;
	struct options o = { };

	signal(SIGPIPE, SIG_IGN);
	setvbuf(stdout, NULL, _IOFBF, 1 << 20);

	if (argc < 2) {
		fputs(usage, stderr);
		return EXIT_USAGE;
	}
	if (same(argv[1], "-h") || same(argv[1], "--help"))
		help();
	for_each(command, commands, ARRAY_LEN(commands)) {
		if (!same(argv[1], command->name))
			continue;
		/* getopt prints this as our name */
		argv[1] = name;
		parse_options(&o, command, argc - 1, argv + 1);
		command->run(&o);
		return EXIT_SUCCESS;
	}
	fail(EXIT_USAGE, "%s: no such command; see hmmp2p --help", argv[1]);
}
