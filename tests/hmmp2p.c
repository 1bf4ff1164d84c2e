// SPDX-License-Identifier: GPL-2.0
/*
 * The command hmmp2p: it shows what the kernel reports and what has happened, and
 * it behaves like other commands.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gpu.h"
#include "lib/edu.h"
#include "lib/file.h"
#include "lib/harness.h"
#include "lib/rig.h"
#include "lib/route.h"
#include "lib/stats.h"
#include "lib/vsvm.h"

#define SIZE	MIB(4)
#define PAGES	(SIZE / PAGE)

#define NOBODY	65534
#define DRIVER	"/sys/bus/pci/drivers/vsvm/"

/* What topo says of a route that is not direct, see lab/topologies */
static const char *text_of_route(void)
{
	static const char * const texts[][2] = {
		{ "-", "No switch is above both" },
		{ "host_bridge", "not trust the host bridge" },
		{ "acs_redirect", "Ports redirect" },
	};
	const char *reason = getenv("LAB_REASON") ?: "";
	size_t i;

	for (i = 0; !lab_route_is("bus") && i < ARRAY_LEN(texts); i++)
		if (!strcmp(texts[i][0], reason))
			return texts[i][1];
	return NULL;
}

/* Returns the exit status of a script. $HMMP2P is the program, $T a directory. */
static int sh(const char *script)
{
	int status = system(script);

	return WIFEXITED(status) ? WEXITSTATUS(status) : -EPIPE;
}

static int sh_as(uid_t uid, const char *script)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		if (setgid(uid) || setuid(uid))
			_exit(126);
		_exit(sh(script));
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -EPIPE;
}

/* The same, with other contents of two debugfs files, given as formats of printf. */
static int sh_with(const char *routes, const char *windows, const char *script)
{
	setenv("ROUTES_FILE", routes, 1);
	setenv("WINDOWS_FILE", windows, 1);
	setenv("SCRIPT", script, 1);
	return sh("printf \"$ROUTES_FILE\" >$T/routes; printf \"$WINDOWS_FILE\" >$T/windows;"
		  "unshare -m sh -c 'mount --bind $T/routes /sys/kernel/debug/pci_p2pdma_routes &&"
		  " mount --bind $T/windows /sys/kernel/debug/hmm_p2pdma/windows && eval \"$SCRIPT\"'");
}

static int sh_with_stats(const char *stats, const char *script)
{
	setenv("STATS_FILE", stats, 1);
	setenv("SCRIPT", script, 1);
	return sh("printf \"$STATS_FILE\" >$T/stats;"
		  "unshare -m sh -c 'mount --bind $T/stats /sys/kernel/debug/hmm_p2pdma/stats && eval \"$SCRIPT\"'");
}

/* Is there such a line in the text? 0 or 1, as grep returns it; else an error. */
static int text(const char *args, const char *regex)
{
	char script[512];

	snprintf(script, sizeof(script),
		 "$HMMP2P %s >$T/text || exit 9; grep -Eqe \"%s\" $T/text", args,
		 regex);
	return sh(script);
}

/* Is the filter of jq true? Its input is an array of the objects of all lines. */
static bool json_is(const char *filter)
{
	setenv("FILTER", filter, 1);
	return !sh("[ -s $T/json ] && jq -se \"$FILTER\" $T/json >/dev/null ||"
		   "{ echo \"$FILTER\"; cat $T/json; false; }");
}

static bool json(const char *args, const char *filter)
{
	char script[256];

	snprintf(script, sizeof(script), "$HMMP2P %s >$T/json", args);
	return !sh(script) && json_is(filter);
}

static bool set_gpu(const char *name, int index)
{
	int gpu = gpu_open(index), err;
	char address[64];

	err = gpu_pci_address(gpu, address, sizeof(address));
	close(gpu);
	return !err && !setenv(name, address, 1);
}

static bool set_edu(void)
{
	DIR *dir = opendir("/sys/bus/pci/drivers/hmm_edu");
	struct dirent *entry;
	bool found = false;

	if (!dir)
		return false;
	while ((entry = readdir(dir)))
		if (strchr(entry->d_name, ':'))
			found = !setenv("EDU", entry->d_name, 1);
	closedir(dir);
	return found;
}

static bool set_up(void)
{
	static char dir[] = "/tmp/hmmp2p.XXXXXX";
	const char *reason = getenv("LAB_REASON") ?: "-";
	char program[256], json_reason[64];

	snprintf(program, sizeof(program), "%s/bin/hmmp2p", getenv("LAB_BUILD"));
	snprintf(json_reason, sizeof(json_reason),
		 strcmp(reason, "-") ? "\"%s\"" : "null", reason);
	setenv("HMMP2P", program, 1);
	setenv("ROUTE", getenv("LAB_ROUTE") ?: "bus", 1);
	setenv("REASON", json_reason, 1);
	return mkdtemp(dir) && !chmod(dir, 0777) && !setenv("T", dir, 1) &&
	       set_gpu("GPU0", 0) && set_gpu("GPU1", 1) && set_edu();
}

/* topo */

FIXTURE(topo) {
	bool reloaded;
};

FIXTURE_SETUP(topo)
{
	ASSERT_TRUE(set_up());
}

FIXTURE_TEARDOWN(topo)
{
	if (self->reloaded)
		vsvm_restore();
	sh("rm -r $T");
}

TEST_F(topo, lists_exporters)
{
	EXPECT_TRUE(json("topo --json", "length == 1 and .[0].enabled and "
			 "[.[0].exporters[].address] == [$ENV.GPU0, $ENV.GPU1] and "
			 "all(.[0].exporters[]; .driver == \"vsvm\" and .names[0][:4] == \"card\")"));
	EXPECT_EQ(0, text("topo", "^importer +$GPU0 +$GPU1 *$"));
	EXPECT_EQ(0, text("topo", "^ +vsvm card[0-9]+ +vsvm card[0-9]+ *$"));
}

TEST_F(topo, topo_shows_route_from_device_to_vram)
{
	EXPECT_TRUE(json("topo -j", "[.[].routes[] | select(.importer == $ENV.EDU) |"
			 "[.exporter, .route, .reason]] =="
			 "[[$ENV.GPU0, $ENV.ROUTE, ($ENV.REASON | fromjson)],"
			 " [$ENV.GPU1, $ENV.ROUTE, ($ENV.REASON | fromjson)]]"));
	EXPECT_EQ(0, text("topo", "^$EDU +hmm_edu hmm_edu-$EDU +$ROUTE +$ROUTE *$"));
}

TEST_F(topo, topo_shows_route_from_cpu_to_vram)
{
	EXPECT_TRUE(json("topo -j", "[.[].routes[] | select(.importer == \"cpu\").route] == [\"cpu\", \"cpu\"] and "
			 "[.[].importers[] | select(.address == \"cpu\").names] == [[\"rxe0\"]]"));
	EXPECT_EQ(0, text("topo", "^cpu +rxe0 +cpu +cpu *$"));
}

TEST_F(topo, shows_no_route_from_a_device_to_itself)
{
	EXPECT_TRUE(json("topo -j", "any(.[].importers[]; .address == $ENV.GPU0) and "
			 "all(.[].routes[]; .importer != .exporter)"));
	EXPECT_EQ(0, text("topo", "^$GPU0 +vsvm card[0-9]+ +- +$ROUTE *$"));
}

TEST_F(topo, shows_names_and_paths)
{
	EXPECT_EQ(0, sh("readlink -f /sys/bus/pci/devices/$EDU | cut -d/ -f4- >$T/path"));
	EXPECT_EQ(0, sh("$HMMP2P topo -j | jq -r '.importers[] | select(.address == $ENV.EDU).path | join(\"/\")' |"
			"cmp - $T/path"));
	EXPECT_EQ(0, text("topo", "^  $EDU  $(cat $T/path)$"));
	EXPECT_TRUE(json("topo -j", "[.[].importers[] | select(.address == $ENV.EDU) | .driver, .names] =="
			 "[\"hmm_edu\", [\"hmm_edu-\" + $ENV.EDU]]"));
}

TEST_F(topo, topo_omits_non_importers_without_all)
{
	EXPECT_EQ(1, text("topo", "virtio"));
	EXPECT_EQ(0, text("topo -a", "^0000:[0-9a-f:.]+ +virtio-pci "));
	EXPECT_TRUE(json("topo -j", "all(.[].importers[]; .driver != \"virtio-pci\")"));
}

/* A bridge to a PCI bus has class 0604. */
TEST_F(topo, with_all_lists_each_function_that_has_a_driver)
{
	EXPECT_EQ(0, sh("for f in /sys/bus/pci/devices/*; do "
			"grep -q ^0x0604 $f/class || [ ! -e $f/driver ] || echo ${f##*/};"
			"done | sort >$T/functions"));
	EXPECT_EQ(0, sh("$HMMP2P topo --all -j | jq -r '.importers[].address' | grep -v cpu | sort |"
			"diff - $T/functions"));
	EXPECT_EQ(0, sh("[ $(wc -l <$T/functions) -gt 5 ]"));
}

TEST_F(topo, says_why_a_route_is_not_direct)
{
	if (!text_of_route()) {
		EXPECT_EQ(1, text("topo", "Not direct"));
		return;
	}
	EXPECT_EQ(0, text("topo", "^Not direct"));
	EXPECT_EQ(0, text("topo", text_of_route()));
	EXPECT_EQ(0, text("topo", "^  $GPU0 from .*$EDU.*: $ROUTE$"));
	EXPECT_EQ(0, text("topo", "^  $GPU1 from .*$EDU.*: $ROUTE$"));
}

/* The ports that redirect are those right above the devices. */
TEST_F(topo, names_the_ports_that_redirect)
{
	if (strcmp(getenv("LAB_REASON") ?: "", "acs_redirect")) {
		EXPECT_TRUE(json("topo -j", "all(.[].routes[]; .redirect == [])"));
		EXPECT_EQ(1, text("topo", "disable_acs_redir"));
		return;
	}
	EXPECT_EQ(0, sh("for f in $GPU0 $GPU1 $EDU; do "
			"basename $(readlink -f /sys/bus/pci/devices/$f/..);"
			"done | sort >$T/ports"));
	EXPECT_EQ(0, sh("$HMMP2P topo -j | jq -r '.routes[] | select(.importer == $ENV.EDU).redirect[]' | sort -u |"
			"diff - $T/ports"));

	/* One list for all pairs, with each port once */
	EXPECT_EQ(0, text("topo", "^ *pci=disable_acs_redir=[0-9a-f:.;]+$"));
	EXPECT_EQ(0, sh("sed -n 's/^ *pci=disable_acs_redir=//p' $T/text | tr ';' '\\n' | sort >$T/list;"
			"uniq -d $T/list >$T/twice; comm -13 $T/list $T/ports >$T/missing;"
			"! cat $T/twice $T/missing | grep ."));
}

/* $SIZE: of the window of each GPU */
static bool set_size(void)
{
	struct drm_vsvm_info info;
	int gpu = gpu_open(0), err;
	char size[32];

	err = gpu_info(gpu, &info);
	close(gpu);
	snprintf(size, sizeof(size), "%llu", info.window_size);
	return !err && !setenv("SIZE", size, 1);
}

TEST_F(topo, shows_windows)
{
	ASSERT_TRUE(set_size());

	/* The BAR of the window is the third */
	ASSERT_EQ(0, sh("printf '%d\\n' $(sed -n '3s/ .*//p' /sys/bus/pci/devices/$GPU0/resource) >$T/start"));
	EXPECT_EQ(0, sh("$HMMP2P topo -j | jq '.windows[0].start' | cmp - $T/start"));
	EXPECT_TRUE(json("topo -j", "[.[].windows[] | select(.exporter == $ENV.GPU0) |"
			 ".size_bytes, .revoked, .cpu_map] == [($ENV.SIZE | tonumber), false, true]"));
	EXPECT_EQ(0, text("topo", "^  $GPU0  $((SIZE >> 20)) MiB at $(printf '0x%x' $(cat $T/start)), mapped for the CPU, "));
}

TEST_F(topo, topo_shows_cpu_map_and_struct_pages_of_windows)
{
	self->reloaded = true;
	ASSERT_EQ(0, vsvm_reload("cpu_map=0"));
	EXPECT_TRUE(json("topo -j", "[.[].windows[].cpu_map] == [false, false]"));
	EXPECT_TRUE(json("topo -j", "[.[].routes[] | select(.importer == \"cpu\") | .route, .reason] =="
			 "[\"none\", \"no_cpu_map\", \"none\", \"no_cpu_map\"]"));
	EXPECT_EQ(0, text("topo", "^  $GPU0 from cpu: none$"));
	EXPECT_EQ(0, text("topo", "has not mapped the window"));
	EXPECT_EQ(0, text("topo", "^  $GPU1 .* MiB at 0x[0-9a-f]+, not mapped for the CPU, "));

	ASSERT_EQ(0, vsvm_reload("p2p_pages=1"));
	EXPECT_TRUE(json("topo -j", "all(.[].windows[]; .struct_pages)"));
	EXPECT_EQ(0, text("topo", "^  $GPU0 .*, struct pages$"));
	ASSERT_EQ(0, vsvm_reload(""));
	EXPECT_TRUE(json("topo -j", "all(.[].windows[]; .struct_pages | not)"));
	EXPECT_EQ(0, text("topo", "^  $GPU0 .*, no struct pages$"));
}

/*
 * The window of an open GPU outlives its driver. When that comes back, it has a new
 * window at the same place.
 */
TEST_F(topo, shows_windows_that_are_revoked)
{
	int gpu = gpu_open(1);

	ASSERT_TRUE(set_size());
	ASSERT_LE(0, gpu);
	self->reloaded = true;
	ASSERT_EQ(0, file_write(DRIVER "unbind", getenv("GPU1")));
	EXPECT_TRUE(json("topo -j", "[.[].exporters[].address] == [$ENV.GPU0] and "
			 "([.[].windows[] | [.exporter, .revoked]] == [[$ENV.GPU0, false], [null, true]]) and "
			 ".[].windows[1].size_bytes == ($ENV.SIZE | tonumber) and "
			 "all(.[].routes[]; .exporter == $ENV.GPU0)"));
	EXPECT_EQ(0, text("topo", "^  \\(gone\\) +$((SIZE >> 20)) MiB at 0x[0-9a-f]+, revoked$"));

	ASSERT_EQ(0, file_write(DRIVER "bind", getenv("GPU1")));
	EXPECT_TRUE(json("topo -j", "[.[].windows[] | [.exporter, .revoked]] =="
			 "[[$ENV.GPU0, false], [$ENV.GPU1, false], [$ENV.GPU1, true]] and "
			 ".[].windows[1].start == .[].windows[2].start and "
			 "all(.[].routes[]; .reason != \"revoked\") and "
			 "[.[].routes[] | select(.importer == \"cpu\").route] == [\"cpu\", \"cpu\"]"));
	EXPECT_EQ(0, text("topo", "^  $GPU1  .*, revoked$"));

	/* The GPU goes a little later than its last file */
	close(gpu);
	EXPECT_EQ(0, sh("timeout 10 sh -c 'while grep -q revoked /sys/kernel/debug/hmm_p2pdma/windows; do sleep 0.1; done'"));
	EXPECT_TRUE(json("topo -j", "[.[].windows[].revoked] == [false, false]"));
	EXPECT_EQ(1, text("topo", "revoked"));
}

TEST_F(topo, says_that_there_is_no_exporter)
{
	self->reloaded = true;
	ASSERT_EQ(0, vsvm_reload("window_mb=0"));
	EXPECT_EQ(0, text("topo", "^No exporter"));
	EXPECT_TRUE(json("topo -j", ".[0].exporters == [] and .[0].routes == [] and .[0].windows == []"));
}

TEST_F(topo, topo_and_stat_report_enabled_never)
{
	ASSERT_EQ(0, aliases_enable(false));
	EXPECT_EQ(0, text("topo", "^Switched off.* >/sys/kernel/mm/hmm_p2pdma/enabled$"));
	EXPECT_EQ(0, text("stat", "^Switched off"));
	EXPECT_TRUE(json("topo -j", ".[0].enabled == false"));
	EXPECT_TRUE(json("stat -j", ".[0].enabled == false"));
	ASSERT_EQ(0, aliases_enable(true));
	EXPECT_EQ(1, text("topo", "Switched off"));
	EXPECT_TRUE(json("stat -j", ".[0].enabled"));
}

/* Cases that no topology of the lab has */

#define MANY_ROUTES							\
	"provider=0000:04:00.0 start=0xa0000 size=0x100000 client=0000:05:00.0 route=iommu redirect=0000:02:01.0;0000:02:02.0;0000:0...\\n" \
	"provider=0000:04:00.0 start=0x10000 size=0x1000 client=0000:06:00.0 route=bus\\n" \
	"provider=0000:04:00.0 start=0xa0000 size=0x100000 client=0000:06:00.0 route=none reason=sunspots\\n" \
	"provider=0000:02:00.0 start=0xa0000 size=0x100000 client=0000:06:00.0 route=bus\\n" \
	"provider=0000:07:00.0 start=0x400000 size=0x200000 client=0000:05:00.0 route=none reason=acs_redirect redirect=0000:02:03.0\\n" \
	"later=x provider=0000:03:00.0 start=0x80000 size=0x20000 client=0000:05:00.0 route=iommu redirect=0000:02:00.0;0000:02:01.0 later=1\\n" \
	"provider=0000:03:00.0 start=0x80000 size=0x20000 client=0000:06:00.0 route=none reason=host_bridge\\n" \
	"provider=0000:03:00.0 start=0x80000 size=0x20000 client=0000:06:00.0 route=bus\\n"

#define MANY_WINDOWS							\
	"start=0x900000 size=1048576 revoked=1\\n"			\
	"start=0x500000 size=1048576 revoked=1\\n"			\
	"exporter=0000:04:00.0 start=0xa0000 size=1048576 cpu_map=0 pages=0 later=1\\n" \
	"exporter=0000:03:00.0 start=0x90000 size=65536 cpu_map=1 pages=0\\n" \
	"exporter=0000:03:00.0 start=0x80000 size=65536 cpu_map=1 pages=1\\n"

static int sh_with_many(const char *script)
{
	return sh_with(MANY_ROUTES, MANY_WINDOWS, script);
}

TEST_F(topo, topo_accepts_unknown_keys_and_reasons)
{
	EXPECT_EQ(0, sh_with_many("$HMMP2P topo -aj >$T/json"));
	EXPECT_TRUE(json_is("[.[].routes[] | [.exporter, .importer, .route, .reason, .redirect, .redirect_cut]][:6] =="
			    "[[\"0000:03:00.0\", \"cpu\", \"cpu\", null, [], false],"
			    " [\"0000:03:00.0\", \"0000:05:00.0\", \"iommu\", null, [\"0000:02:00.0\", \"0000:02:01.0\"], false],"
			    " [\"0000:03:00.0\", \"0000:06:00.0\", \"none\", \"host_bridge\", [], false],"
			    " [\"0000:04:00.0\", \"cpu\", \"none\", \"no_cpu_map\", [], false],"
			    " [\"0000:04:00.0\", \"0000:05:00.0\", \"iommu\", null, [\"0000:02:01.0\", \"0000:02:02.0\"], true],"
			    " [\"0000:04:00.0\", \"0000:06:00.0\", \"none\", \"sunspots\", [], false]]"));
	EXPECT_EQ(0, sh_with_many("$HMMP2P topo -a >$T/text"));
	EXPECT_EQ(0, sh("grep -Eqx '0000:06:00.0 .* none +none +- *' $T/text"));
	EXPECT_EQ(0, sh("grep -qx '  0000:04:00.0 from cpu: none' $T/text"));
	EXPECT_EQ(0, sh("grep -q 'sunspots' $T/text"));
	EXPECT_EQ(0, sh("grep -q 'not trust the host bridge' $T/text"));
}

/* The exporter is the device at the address of the window, if there is one. */
TEST_F(topo, shows_that_nothing_reaches_a_revoked_window)
{
	EXPECT_EQ(0, sh_with_many("$HMMP2P topo -aj >$T/json"));
	EXPECT_TRUE(json_is("[.[].routes[6:][] | [.exporter, .importer, .route, .reason, .redirect]] =="
			    "[[\"0000:07:00.0\", \"cpu\", \"none\", \"revoked\", []],"
			    " [\"0000:07:00.0\", \"0000:05:00.0\", \"none\", \"revoked\", []]]"));
	EXPECT_TRUE(json_is("[.[].windows[3:][] | [.exporter, .start, .revoked, .cpu_map]] =="
			    "[[\"0000:07:00.0\", 5242880, true, null], [null, 9437184, true, null]]"));
	EXPECT_EQ(0, sh_with_many("$HMMP2P topo -a >$T/text"));
	EXPECT_EQ(0, sh("grep -qx '  0000:07:00.0  1 MiB at 0x500000, revoked' $T/text"));
	EXPECT_EQ(0, sh("grep -Eqx '  [(]gone[)] +1 MiB at 0x900000, revoked' $T/text"));
	EXPECT_EQ(0, sh("grep -qx '  0000:07:00.0 from cpu, 0000:05:00.0: none' $T/text"));
	EXPECT_EQ(0, sh("grep -q 'has revoked the window' $T/text"));
}

/* One parameter for all pairs, as the kernel uses only one; here it is not complete. */
TEST_F(topo, topo_merges_ports_into_one_disable_acs_redir)
{
	EXPECT_EQ(0, sh_with_many("$HMMP2P topo -a >$T/text"));
	EXPECT_EQ(0, sh("grep -x ' *pci=disable_acs_redir=0000:02:00.0;0000:02:01.0;0000:02:02.0' $T/text >$T/parameter"));
	EXPECT_EQ(0, sh("[ $(grep -c disable_acs_redir $T/text) -eq 1 ]"));
	EXPECT_EQ(0, sh("grep -q 'the kernel has cut' $T/text"));
}

TEST_F(topo, sorts_windows_and_escapes_strings)
{
	EXPECT_EQ(0, sh_with_many("$HMMP2P topo -aj >$T/json"));
	EXPECT_TRUE(json_is("[.[].windows[:3][] | [.start, .struct_pages]] =="
			    "[[524288, true], [589824, false], [655360, false]]"));
	EXPECT_EQ(0, sh_with("provider=a start=1 size=1 client=b route=none reason=\\042\\134\\001\\n",
			     "exporter=a start=1 size=1 cpu_map=1 pages=0\\n",
			     "$HMMP2P topo -aj >$T/json"));
	EXPECT_TRUE(json_is("[.[].routes[].reason] == [null, \"\\\"\\\\\\u0001\"]"));
}

TEST_F(topo, hmmp2p_rejects_unknown_debugfs_format)
{
	EXPECT_EQ(1, sh_with("0000:03:00.0 0000:05:00.0 bus\\n", "", "$HMMP2P topo 2>$T/err"));
	EXPECT_EQ(0, sh("grep -q 'pci_p2pdma_routes: unknown format' $T/err && [ $(wc -l <$T/err) -eq 1 ]"));
	EXPECT_EQ(1, sh_with("", "start=1 size=1 cpu_map=1 pages=0\\n", "$HMMP2P topo 2>$T/err"));
	EXPECT_EQ(0, sh("grep -q 'windows: unknown format' $T/err && [ $(wc -l <$T/err) -eq 1 ]"));
	EXPECT_EQ(1, sh_with_stats("alias_cpu=1\\n", "$HMMP2P stat 2>$T/err"));
	EXPECT_EQ(0, sh("grep -q 'stats: unknown format' $T/err && [ $(wc -l <$T/err) -eq 1 ]"));
}

/* stat */

FIXTURE(stat) {
	struct rig rig;
	bool reloaded;
};

FIXTURE_SETUP(stat)
{
	ASSERT_TRUE(set_up());
}

FIXTURE_TEARDOWN(stat)
{
	if (self->reloaded)
		vsvm_restore();
	sh("rm -r $T");
}

/* since(f): how far the counters that f selects grew from $T/old to $T/new. */
#define SINCE								\
	"def since(f): (.[1] | f) as $new | (.[0] | f) as $old |"	\
	" $new | with_entries(select(.key | endswith(\"_pages\")) |"	\
	" .value -= $old[.key] | select(.value != 0)); "

static bool counted(const char *filter)
{
	char program[2048];

	snprintf(program, sizeof(program), SINCE "%s", filter);
	return !sh("$HMMP2P stat -j >$T/new && cat $T/old $T/new >$T/json") &&
	       json_is(program);
}

TEST_F(stat, stat_counts_aliases_of_cpu_route)
{
	ASSERT_EQ(0, rig_init_in_vram(&self->rig, SIZE, MADV_HUGEPAGE));
	ASSERT_EQ(0, sh("$HMMP2P stat -j >$T/old"));
	EXPECT_EQ(0, rig_register(&self->rig));
	EXPECT_TRUE(counted("since(.) == {alias_cpu_pages: 1024}"));
	EXPECT_EQ(0, rig_fini(&self->rig));
}

static int edu_reads(const struct buffer *buf)
{
	int edu = edu_open(), err;
	uint64_t word;

	err = edu < 0 ? edu : edu_copy(edu, &word, buf->mem, sizeof(word));
	close(edu);
	return err;
}

/* Memory of the second GPU; gpu_residency() does not make it migrate. */
TEST_F(stat, counts_pages_by_route)
{
	int gpus[2] = { gpu_open(0), gpu_open(1) };
	struct drm_vsvm_residency where;
	struct buffer buf;

	ASSERT_EQ(0, buffer_map(&buf, SIZE, MADV_NOHUGEPAGE));
	buffer_write(&buf, 0, SIZE);
	ASSERT_EQ(0, buffer_to_vram(&buf, gpus[1], 0, SIZE));
	ASSERT_EQ(0, sh("$HMMP2P stat -j >$T/old"));
	if (reachable()) {
		ASSERT_EQ(0, gpu_residency(gpus[0], buf.mem, SIZE, &where));
		setenv("COUNTER", alias_route(), 1);
		EXPECT_TRUE(counted("since(.) == {($ENV.COUNTER + \"_pages\"): 1024}"));
	} else {
		ASSERT_EQ(0, edu_reads(&buf));
		EXPECT_TRUE(counted("since(.) | keys == [\"fallback_unreachable_pages\"]"));
	}
	EXPECT_EQ(-1, buffer_differs(&buf));
	buffer_unmap(&buf);
	close(gpus[0]);
	close(gpus[1]);
}

TEST_F(stat, stat_values_equal_kernel_counters)
{
	ASSERT_EQ(0, rig_init_in_vram(&self->rig, SIZE, MADV_HUGEPAGE));
	EXPECT_EQ(0, rig_register(&self->rig));
	EXPECT_EQ(0, sh("$HMMP2P stat -j | tee $T/json |"
			"jq -r 'del(.enabled) | to_entries[] | \"\\(.key) \\(.value)\"' | sort >$T/ours"));
	EXPECT_EQ(0, sh("grep -E '^(alias|fallback)_' /sys/kernel/debug/hmm_p2pdma/stats |"
			"sed 's/ /_pages /' | sort | diff - $T/ours"));
	EXPECT_EQ(0, sh("jq 'with_entries(select(.key | startswith(\"alias_\"))) | add' $T/json |"
			"diff - /sys/kernel/mm/hmm_p2pdma/aliases"));
	EXPECT_EQ(0, sh("jq 'with_entries(select(.key | startswith(\"fallback_\"))) | add' $T/json |"
			"diff - /sys/kernel/mm/hmm_p2pdma/fallbacks"));
	EXPECT_EQ(0, rig_fini(&self->rig));
}

TEST_F(stat, text_has_routes_and_reasons)
{
	EXPECT_EQ(0, text("stat", "^pages since boot +cpu +bus +host_bridge +fallback$"));
	EXPECT_EQ(0, sh("grep -Eq \"^ +$(sed -n 's/^alias_cpu //p' /sys/kernel/debug/hmm_p2pdma/stats)( +[0-9]+){3}(  |$)\" $T/text &&"
			"[ $(wc -l <$T/text) -eq 2 ]"));
	EXPECT_EQ(0, sh_with_stats("alias_cpu 11\\nalias_bus 22\\nalias_host_bridge 33\\n"
				   "fallback_outside_window 4\\nfallback_unreachable 5\\nfallback_revoked 6\\n"
				   "fallback_readonly 7\\nfallback_later 8\\ndma_mapped 9\\n",
				   "$HMMP2P stat >$T/text"));
	EXPECT_EQ(0, sh("grep -Eqx ' +11 +22 +33 +22  outside_window 4, unreachable 5, revoked 6, readonly 7' $T/text"));
}

TEST_F(stat, stat_counts_fallback_no_window)
{
	self->reloaded = true;
	ASSERT_EQ(0, vsvm_reload("window_mb=0"));
	ASSERT_EQ(0, rig_init_in_vram(&self->rig, SIZE, MADV_HUGEPAGE));
	ASSERT_EQ(0, sh("$HMMP2P stat -j >$T/old"));
	EXPECT_EQ(-1, rig_differs(&self->rig));
	EXPECT_TRUE(counted("since(.) | keys == [\"fallback_no_window_pages\"]"));
	EXPECT_EQ(0, text("stat", "  no_window [0-9]+(,|$)"));
	EXPECT_EQ(0, rig_fini(&self->rig));
}

/* Exact counts would tell any user what other processes do. */
TEST_F(stat, stat_and_topo_require_root)
{
	EXPECT_EQ(1, sh_as(NOBODY, "$HMMP2P stat >$T/text 2>$T/err"));
	EXPECT_EQ(0, sh("grep -q root $T/err && [ $(wc -l <$T/err) -eq 1 ] && [ ! -s $T/text ]"));
	EXPECT_EQ(1, sh_as(NOBODY, "$HMMP2P stat -i 0.1 -c 2 -j >$T/json 2>$T/err"));
	EXPECT_EQ(0, sh("grep -q root $T/err && [ $(wc -l <$T/err) -eq 1 ] && [ ! -s $T/json ]"));
	EXPECT_EQ(0, sh_as(NOBODY, "cd /sys/kernel/mm/hmm_p2pdma && cat enabled >$T/text &&"
			   "for f in aliases fallbacks; do [ -e $f ] && ! cat $f 2>/dev/null || exit; done"));

	EXPECT_EQ(1, sh_as(NOBODY, "$HMMP2P topo >$T/text 2>$T/err"));
	EXPECT_EQ(0, sh("grep -q root $T/err && [ $(wc -l <$T/err) -eq 1 ] && [ ! -s $T/text ]"));
}

/* With -i */

/* Returns when there is a sample. */
static int start(const char *args)
{
	char script[256];

	snprintf(script, sizeof(script),
		 ">$T/json;"
		 "{ $HMMP2P stat -j %s >$T/json; echo $? >$T/status; } 2>$T/err &"
		 "until [ -s $T/json ]; do sleep 0.05; done", args);
	return sh(script);
}

/* Returns the program's exit status. */
static int finish(void)
{
	return sh("until [ -s $T/status ]; do sleep 0.1; done; exit $(cat $T/status)");
}

#define SUM								\
	"def sum(f): [.[] | .seconds as $s | f * $s] | add;"		\
	"def is(n): . - n | fabs < 1; "

TEST_F(stat, rates_are_of_each_interval)
{
	ASSERT_EQ(0, rig_init_in_vram(&self->rig, SIZE, MADV_HUGEPAGE));
	ASSERT_EQ(0, start("-i 0.4 -c 10"));
	EXPECT_EQ(0, rig_register(&self->rig));
	ASSERT_EQ(0, finish());

	EXPECT_TRUE(json_is("length == 10 and all(.[]; .seconds > 0) and "
			    "([.[].elapsed_seconds] | . == sort) and "
			    ".[9].elapsed_seconds >= 4 and .[9].elapsed_seconds < 60 and "
			    "(([.[].seconds] | add) - .[9].elapsed_seconds | fabs < 0.001)"));
	EXPECT_TRUE(json_is(SUM
			    "(sum(.alias_cpu_pages_per_s) | is(1024)) and "
			    "(sum(.alias_bus_pages_per_s) | is(0)) and "
			    "any(.[]; .alias_cpu_pages_per_s == 0)"));
	EXPECT_EQ(0, rig_fini(&self->rig));
}

TEST_F(stat, stat_text_prints_one_line_per_interval)
{
	EXPECT_EQ(0, text("stat -i 0.1 -c 3", "^ +[0-9]+[.][0-9]{3} +0 +0 +0 +0$"));
	EXPECT_EQ(0, sh("[ $(wc -l <$T/text) -eq 4 ] && [ $(grep -c 'pages/s' $T/text) -eq 1 ]"));
	EXPECT_EQ(0, sh("head -1 $T/text | grep -q '^  seconds  pages/s  '"));
}

TEST_F(stat, stat_text_rates_match_counter_changes)
{
	EXPECT_EQ(0, sh_with_stats("alias_cpu 1000000\\nfallback_revoked 0\\n",
				   "$HMMP2P stat -i 1 -c 4 >$T/text & until [ -s $T/text ]; do sleep 0.05; done;"
				   "sed 's/1000/1005/; s/d 0/d 3/' $T/stats >$T/new; cat $T/new 1<>$T/stats; wait"));
	/* Intervals are not exact: 5000 and 3 pages in about a second */
	EXPECT_EQ(0, sh("grep -Eqx ' +[0-9.]+ +[0-9]{4} +0 +0 +[0-9][.][0-9]  revoked [0-9][.][0-9]' $T/text"));
	EXPECT_EQ(0, sh("grep -Eqx ' +[0-9.]+ +0 +0 +0 +0' $T/text"));
}

/* The command goes on until no process reads its output. */
TEST_F(stat, stat_flushes_each_sample_and_ends_on_epipe)
{
	EXPECT_EQ(0, sh("timeout 20 sh -c '{ $HMMP2P stat -ji 0.1; echo $? >$T/status; } |"
			"{ head -n 2 >$T/json; }'"));
	EXPECT_TRUE(json_is("length == 2"));
	EXPECT_EQ(0, sh("[ $(cat $T/status) -eq 1 ]"));
}

/* Behaviour as a command */

FIXTURE(command) {
};

FIXTURE_SETUP(command)
{
	ASSERT_TRUE(set_up());
}

FIXTURE_TEARDOWN(command)
{
	sh("rm -r $T");
}

TEST_F(command, wrong_usage_is_refused)
{
	static const char * const wrong[] = {
		"", "bogus", "-x", "--bogus", "topo x", "topo -x", "topo -i 1",
		"topo --interval 1", "stat x", "stat -a", "stat --all", "stat -i",
		"stat -i 0", "stat -i -1", "stat -i 0.001", "stat -i 1e9",
		"stat -i nan", "stat -i inf", "stat -i 1x", "stat -i ''",
		"stat -c 1", "stat -i 1 -c 0", "stat -i 1 -c -1",
		"stat -i 1 -c 1x", "stat -i 1 -c 1.5", "stat -i 1 -c ''",
		"stat -i 1 -c 99999999999999999999",
	};
	char script[256];
	size_t i;

	for (i = 0; i < ARRAY_LEN(wrong); i++) {
		snprintf(script, sizeof(script),
			 "timeout 10 $HMMP2P %s >$T/text 2>$T/err", wrong[i]);
		EXPECT_EQ(2, sh(script)) {
			TH_LOG("hmmp2p %s", wrong[i]);
		}
		EXPECT_EQ(0, sh("[ ! -s $T/text ] && [ -s $T/err ]"));
	}
}

TEST_F(command, help_is_no_error)
{
	EXPECT_EQ(0, text("--help", "^Usage: hmmp2p topo"));
	EXPECT_EQ(0, text("topo -h", "^Usage: hmmp2p topo"));
	EXPECT_EQ(0, text("stat --help", "--interval SECONDS"));
}

TEST_F(command, write_error_on_stdout_is_reported)
{
	static const char * const args[] = {
		"topo", "topo -j", "stat", "stat -j", "stat -i 0.1", "--help",
	};
	char script[256];
	size_t i;

	for (i = 0; i < ARRAY_LEN(args); i++) {
		snprintf(script, sizeof(script),
			 "timeout 10 $HMMP2P %s >/dev/full 2>$T/err", args[i]);
		EXPECT_EQ(1, sh(script));
		EXPECT_EQ(0, sh("grep -q 'No space' $T/err"));
		snprintf(script, sizeof(script),
			 "timeout 10 $HMMP2P %s >&- 2>$T/err", args[i]);
		EXPECT_EQ(1, sh(script));
		EXPECT_EQ(0, sh("grep -q 'Bad file' $T/err"));
	}
}

/* These routes include one that is red: none. */
TEST_F(command, colours_are_for_terminals)
{
	EXPECT_EQ(0, sh_with_many("$HMMP2P topo -a >$T/text"));
	EXPECT_EQ(1, sh("grep -q '\033' $T/text"));
	EXPECT_EQ(0, sh_with_many("script -qc \"$HMMP2P topo\" $T/text >/dev/null </dev/null"));
	EXPECT_EQ(0, sh("grep -q '\033\\[31mnone\033\\[0m' $T/text"));
	EXPECT_EQ(0, sh_with_many("NO_COLOR=1 script -qc \"$HMMP2P topo\" $T/text >/dev/null </dev/null"));
	EXPECT_EQ(0, sh("sed 1d $T/text | grep -q none && ! grep -q '\033' $T/text"));
}

TEST_F(command, error_for_missing_debugfs_or_option_names_the_fix)
{
	EXPECT_EQ(1, sh("unshare -m sh -c 'umount -l /sys/kernel/debug; $HMMP2P topo 2>$T/err'"));
	EXPECT_EQ(0, sh("grep -q 'mount -t debugfs' $T/err && [ $(wc -l <$T/err) -eq 1 ]"));
	EXPECT_EQ(1, sh("unshare -m sh -c 'umount -l /sys/kernel/debug; $HMMP2P stat >$T/text 2>$T/err'"));
	EXPECT_EQ(0, sh("grep -q 'mount -t debugfs' $T/err && [ $(wc -l <$T/err) -eq 1 ] && [ ! -s $T/text ]"));
	EXPECT_EQ(1, sh("unshare -m sh -c 'mount -t tmpfs none /sys/kernel/mm; $HMMP2P topo 2>$T/err'"));
	EXPECT_EQ(0, sh("grep -q CONFIG_HMM_P2PDMA $T/err && [ $(wc -l <$T/err) -eq 1 ]"));
	EXPECT_EQ(1, sh("unshare -m sh -c 'mount -t tmpfs none /sys/kernel/mm; $HMMP2P stat 2>$T/err'"));
	EXPECT_EQ(1, sh("unshare -m sh -c 'mount -t tmpfs none /sys/kernel/debug; $HMMP2P topo 2>$T/err'"));
	EXPECT_EQ(1, sh("unshare -m sh -c 'mount -t tmpfs none /sys/kernel/debug; $HMMP2P stat 2>$T/err'"));
}

TEST_HARNESS_MAIN
