// SPDX-License-Identifier: GPL-2.0
/*
 * User interface of peer-to-peer access to device-private memory: a switch and
 * two counters in sysfs, trace events, and the details in debugfs.
 */
#define pr_fmt(fmt) "hmm_p2pdma: " fmt

#include <linux/debugfs.h>
#include <linux/init.h>
#include <linux/kobject.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/pci-p2pdma.h>
#include <linux/seq_file.h>
#include <linux/sysfs.h>

#include "hmm_p2pdma_stats.h"
#include "internal.h"

#define CREATE_TRACE_POINTS
#include <trace/events/hmm.h>

DEFINE_PER_CPU(struct hmm_p2pdma_stats, hmm_p2pdma_stats);

void hmm_trace_alias(unsigned long addr, unsigned long pfn,
		     unsigned long nr_pages, enum hmm_route route)
{
	trace_hmm_alias(addr, pfn, nr_pages, route);
}

/*
 * Count why @nr_pages have to migrate. Callers that take no aliases are not
 * counted.
 */
void hmm_count_fallback(unsigned long addr, unsigned long nr_pages,
			enum hmm_route reason)
{
	if (reason == HMM_FALLBACK_NO_CLIENT)
		return;

	this_cpu_add(hmm_p2pdma_stats.pages[reason], nr_pages);
	trace_hmm_alias_fallback(addr, nr_pages, reason);
}

/* Aliases of @nr_pages have been mapped for DMA, or such a mapping undone. */
void hmm_count_dma(unsigned long nr_pages, bool mapped)
{
	if (mapped)
		this_cpu_add(hmm_p2pdma_stats.dma_mapped, nr_pages);
	else
		this_cpu_add(hmm_p2pdma_stats.dma_unmapped, nr_pages);
}

/* Handle a value of the sysfs file or of the kernel parameter. */
static int hmm_p2pdma_enable(const char *word)
{
	if (sysfs_streq(word, "always"))
		static_branch_enable(&hmm_p2pdma_key);
	else if (sysfs_streq(word, "never"))
		static_branch_disable(&hmm_p2pdma_key);
	else
		return -EINVAL;

	return 0;
}

static ssize_t enabled_show(struct kobject *kobj, struct kobj_attribute *attr,
			    char *buf)
{
	return sysfs_emit(buf, "%s\n",
			  static_key_enabled(&hmm_p2pdma_key) ?
			  "[always] never" : "always [never]");
}

static ssize_t enabled_store(struct kobject *kobj, struct kobj_attribute *attr,
			     const char *buf, size_t count)
{
	return hmm_p2pdma_enable(buf) ?: count;
}

static struct kobj_attribute enabled_attr = __ATTR_RW(enabled);

/* The sum of a counter, at @offset in struct hmm_p2pdma_stats */
static unsigned long stat_sum(size_t offset)
{
	unsigned long sum = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		sum += READ_ONCE(*(unsigned long *)
				 ((void *)per_cpu_ptr(&hmm_p2pdma_stats, cpu) +
				  offset));

	return sum;
}

static const struct {
	const char *name;
	size_t offset;
} stats[] = {
#define STAT_OF_ROUTE(name, route)	\
	{ name, offsetof(struct hmm_p2pdma_stats, pages[route]) }
	STAT_OF_ROUTE("alias_cpu", HMM_ROUTE_CPU),
	STAT_OF_ROUTE("alias_bus", HMM_ROUTE_BUS),
	STAT_OF_ROUTE("alias_host_bridge", HMM_ROUTE_HOST_BRIDGE),
	STAT_OF_ROUTE("fallback_no_window", HMM_FALLBACK_NO_WINDOW),
	STAT_OF_ROUTE("fallback_outside_window", HMM_FALLBACK_OUTSIDE_WINDOW),
	STAT_OF_ROUTE("fallback_unreachable", HMM_FALLBACK_UNREACHABLE),
	STAT_OF_ROUTE("fallback_revoked", HMM_FALLBACK_REVOKED),
	STAT_OF_ROUTE("fallback_readonly", HMM_FALLBACK_READONLY),
	{ "dma_mapped", offsetof(struct hmm_p2pdma_stats, dma_mapped) },
	{ "dma_unmapped", offsetof(struct hmm_p2pdma_stats, dma_unmapped) },
};

static unsigned long stats_sum(const char *prefix)
{
	unsigned long sum = 0;
	int i;

	for (i = 0; i < ARRAY_SIZE(stats); i++)
		if (strstarts(stats[i].name, prefix))
			sum += stat_sum(stats[i].offset);

	return sum;
}

static ssize_t aliases_show(struct kobject *kobj, struct kobj_attribute *attr,
			    char *buf)
{
	return sysfs_emit(buf, "%lu\n", stats_sum("alias_"));
}

static ssize_t fallbacks_show(struct kobject *kobj, struct kobj_attribute *attr,
			      char *buf)
{
	return sysfs_emit(buf, "%lu\n", stats_sum("fallback_"));
}

static struct kobj_attribute aliases_attr = __ATTR(aliases, 0400, aliases_show, NULL);
static struct kobj_attribute fallbacks_attr = __ATTR(fallbacks, 0400, fallbacks_show, NULL);

static struct attribute *hmm_p2pdma_attrs[] = {
	&enabled_attr.attr,
	&aliases_attr.attr,
	&fallbacks_attr.attr,
	NULL,
};

static const struct attribute_group hmm_p2pdma_group = {
	.name = "hmm_p2pdma",
	.attrs = hmm_p2pdma_attrs,
};

static int stats_show(struct seq_file *m, void *v)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(stats); i++)
		seq_printf(m, "%s %lu\n", stats[i].name,
			   stat_sum(stats[i].offset));

	return 0;
}
DEFINE_SHOW_ATTRIBUTE(stats);

static bool has_pages(const struct hmm_window *window)
{
	unsigned long first = PHYS_PFN(window->phys);

	return pfn_valid(first) && is_pci_p2pdma_page(pfn_to_page(first)) &&
	       pfn_valid(first + window->nr_pages - 1);
}

static int windows_show(struct seq_file *m, void *v)
{
	struct dev_pagemap *pgmap;
	unsigned long pfn = 0;

	guard(rcu)();

	while ((pgmap = find_next_dev_pagemap(&pfn))) {
		const struct hmm_window *window = &pgmap->window;

		if (!window->provider || pfn != PHYS_PFN(pgmap->range.start))
			continue;
		/* The provider and the mapping are there until the revocation */
		if (READ_ONCE(window->revoked)) {
			seq_printf(m, "start=%pa size=%llu revoked=1\n",
				   &window->phys,
				   (u64)window->nr_pages << PAGE_SHIFT);
			continue;
		}
		seq_printf(m, "exporter=%s start=%pa size=%llu cpu_map=%d pages=%d\n",
			   dev_name(window->provider->owner), &window->phys,
			   (u64)window->nr_pages << PAGE_SHIFT,
			   !!window->map,
			   has_pages(window));
	}

	return 0;
}
DEFINE_SHOW_ATTRIBUTE(windows);

static int __init hmm_p2pdma_init(void)
{
	struct dentry *dir = debugfs_create_dir("hmm_p2pdma", NULL);

	debugfs_create_file("stats", 0400, dir, NULL, &stats_fops);
	debugfs_create_file("windows", 0400, dir, NULL, &windows_fops);

	if (sysfs_create_group(mm_kobj, &hmm_p2pdma_group))
		pr_err("failed to create the sysfs files\n");

	return 0;
}
subsys_initcall(hmm_p2pdma_init);

static int __init setup_hmm_p2pdma(char *str)
{
	if (hmm_p2pdma_enable(str))
		pr_warn("hmm_p2pdma= takes 'always' or 'never', ignored\n");

	return 1;
}
__setup("hmm_p2pdma=", setup_hmm_p2pdma);
