/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM hmm

#if !defined(_TRACE_HMM_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_HMM_H

#include <linux/tracepoint.h>

/* Export the values: tools that parse the format file do not know the enum */
TRACE_DEFINE_ENUM(HMM_ROUTE_CPU);
TRACE_DEFINE_ENUM(HMM_ROUTE_BUS);
TRACE_DEFINE_ENUM(HMM_ROUTE_HOST_BRIDGE);
TRACE_DEFINE_ENUM(HMM_FALLBACK_NO_WINDOW);
TRACE_DEFINE_ENUM(HMM_FALLBACK_OUTSIDE_WINDOW);
TRACE_DEFINE_ENUM(HMM_FALLBACK_UNREACHABLE);
TRACE_DEFINE_ENUM(HMM_FALLBACK_REVOKED);
TRACE_DEFINE_ENUM(HMM_FALLBACK_READONLY);

#define show_hmm_route(route)						\
	__print_symbolic(route,						\
		{ HMM_ROUTE_CPU,		"cpu" },		\
		{ HMM_ROUTE_BUS,		"bus" },		\
		{ HMM_ROUTE_HOST_BRIDGE,	"host_bridge" })

#define show_hmm_fallback(reason)					\
	__print_symbolic(reason,					\
		{ HMM_FALLBACK_NO_WINDOW,	"no_window" },		\
		{ HMM_FALLBACK_OUTSIDE_WINDOW,	"outside_window" },	\
		{ HMM_FALLBACK_UNREACHABLE,	"unreachable" },	\
		{ HMM_FALLBACK_REVOKED,		"revoked" },		\
		{ HMM_FALLBACK_READONLY,	"readonly" })

TRACE_EVENT(hmm_alias,

	TP_PROTO(unsigned long addr, unsigned long pfn, unsigned long nr_pages,
		 int route),

	TP_ARGS(addr, pfn, nr_pages, route),

	TP_STRUCT__entry(
		__field(unsigned long, addr)
		__field(unsigned long, pfn)
		__field(unsigned long, nr_pages)
		__field(int, route)
	),

	TP_fast_assign(
		__entry->addr = addr;
		__entry->pfn = pfn;
		__entry->nr_pages = nr_pages;
		__entry->route = route;
	),

	TP_printk("addr=0x%lx pfn=0x%lx nr_pages=%lu route=%s",
		  __entry->addr, __entry->pfn, __entry->nr_pages,
		  show_hmm_route(__entry->route))
);

TRACE_EVENT(hmm_alias_fallback,

	TP_PROTO(unsigned long addr, unsigned long nr_pages, int reason),

	TP_ARGS(addr, nr_pages, reason),

	TP_STRUCT__entry(
		__field(unsigned long, addr)
		__field(unsigned long, nr_pages)
		__field(int, reason)
	),

	TP_fast_assign(
		__entry->addr = addr;
		__entry->nr_pages = nr_pages;
		__entry->reason = reason;
	),

	TP_printk("addr=0x%lx nr_pages=%lu reason=%s",
		  __entry->addr, __entry->nr_pages,
		  show_hmm_fallback(__entry->reason))
);

#endif /* _TRACE_HMM_H */

/* This part must be outside protection */
#include <trace/define_trace.h>
