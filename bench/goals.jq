# SPDX-License-Identifier: GPL-2.0
# Turn figures, objects of group, name, mode, unit and value, into the list of
# bench.json: each figure with its baseline, and with its goal if there is one.

# Figures, by group, name and mode; their baselines, by name and mode; and the limit of
# the ratio if that is a goal
def goals: [
	{ group: "fault", name: "ordinary", mode: "off", to: "ordinary/unpatched", max: 1.01 },
	{ group: "fault", name: "ordinary", mode: "on", to: "ordinary/unpatched", max: 1.01 },
	{ group: "fault", name: "ordinary, huge", mode: "off", to: "ordinary, huge/unpatched", max: 1.01 },
	{ group: "fault", name: "ordinary, huge", mode: "on", to: "ordinary, huge/unpatched", max: 1.01 },
	{ group: "fault", name: "ordinary, client", mode: "on", to: "ordinary/unpatched" },
	{ group: "fault", name: "private, owner", mode: "off", to: "private, owner/unpatched" },
	{ group: "fault", name: "private, owner", mode: "on", to: "private, owner/unpatched" },
	{ group: "fault", name: "private, owner, huge", mode: "on", to: "private, owner/on" },
	{ group: "fault", name: "alias", mode: "on", to: "ordinary/on", max: 1.1 },
	{ group: "fault", name: "alias, huge", mode: "on", to: "alias/on", max: 0.05 },
	{ group: "fault", name: "alias, huge, resolved", mode: "on", to: "alias/on", max: 0.05 },
	{ group: "fault", name: "migrated", mode: "on", to: "alias/on" },
	{ group: "fault", name: "migrated, huge", mode: "on", to: "alias, huge/on" },
	{ group: "fault", name: "migrated, test_hmm", mode: "on", to: "migrated, test_hmm/unpatched" },
	(("map", "invalidate") | . as $group | ("switch", "iommu") |
		{ group: $group, name: "ordinary, \(.)", mode: "on", to: "ordinary, \(.)/unpatched" }),
	(("map", "invalidate") | . as $group | ("switch", "host-bridge", "iommu") |
		{ group: $group, name: "alias, \(.)", mode: "on", to: "ordinary, \(.)/on" }),
	{ group: "prefetch after a move", name: "64 MiB", mode: "p2pdma", to: "64 MiB/off", min: 10 },
	{ group: "round", name: "64 MiB", mode: "p2pdma", to: "64 MiB/ram", max: 1.2 },
	{ group: "disk to VRAM", name: "64 MiB", mode: "p2pdma", to: "64 MiB/off", min: 2 },
	(("prefetch, huge pages", "prefetch, small pages") |
		{ group: ., name: "512", mode: "p2pdma", to: "64/p2pdma", max: 1.01 }),
	{ group: "memory", name: "all, window", mode: "p2pdma", to: "all, no window/p2pdma", max: 1.01 },
	{ group: "memory", name: "all, window with struct pages", mode: "p2pdma", to: "all, no window/p2pdma" },
	{ group: "boot", name: "to a shell", mode: "patched", to: "to a shell/unpatched" }
];

def key: "\(.group)/\(.name)/\(.mode)";

. as $figures |
INDEX($figures[]; key) as $by_key |

# It is an error if a figure or the baseline of a goal was not measured
[ goals[] | select(.max or .min) |
	select($by_key[key] == null or $by_key["\(.group)/\(.to)"] == null) | key ] as $missing |
if $missing != [] then error("no figure for \($missing | join(", "))") else . end |

def compared($to; $goal):
	$by_key["\(.group)/\($to)"] as $base |
	if $base == null then . else
		. + { baseline: $base.value, baseline_is: $to, ratio: (.value / $base.value) } |
		if $goal.max then . + { goal: "at most \($goal.max)", met: (.ratio <= $goal.max) }
		elif $goal.min then . + { goal: "at least \($goal.min)", met: (.ratio >= $goal.min) }
		else . end
	end;

[ $figures[] | . as $figure |
	[ goals[] | select(key == ($figure | key)) ] as $mine |
	# A p2pdma figure also compares with other modes that the list does not name
	(if $figure.mode != "p2pdma" or .group == "memory" then []
	 else [ "off", "ram" | "\($figure.name)/\(.)" |
		select($by_key["\($figure.group)/\(.)"]) |
		. as $to | select(all($mine[]; .to != $to)) | { to: . } ]
	 end + $mine) as $all |
	if $all == [] then $figure
	else $all[] as $goal | $figure | compared($goal.to; $goal)
	end
]
