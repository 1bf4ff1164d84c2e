# SPDX-License-Identifier: GPL-2.0
# Print the rows of a group's table in bench.json, with a heading: a row for each name.

def round_to($places): . * pow(10; $places) | round | . / pow(10; $places);
def number: if . == null then "-" elif . >= 1000 then round elif . >= 100 then round_to(1) else round_to(2) end;
# Print trailing zeroes, too
def ratio: if . == null then "-" else
	(if . >= 10 then 1 else 3 end) as $digits |
	(. * pow(10; $digits) | round | tostring) | ("0000" + .)[-([length, $digits + 1] | max):] |
	"\(.[:-$digits]).\(.[-$digits:])" end;

def value($mode): [ .[] | select(.mode == $mode) | .value ][0] | number;
def goal: if .goal then "\(.goal): \(if .met then "met" else "not met" end)" else "" end;
def goals: map(select(.goal) | goal) | unique | join("; ");
def to($name): [ .[] | select(.baseline_is == $name) | .ratio ][0] | ratio;

# Print the baseline of a ratio, as briefly as the row allows
def versus: (.name + "/") as $own |
	if (.baseline_is | startswith($own)) then "\(.mode)/\(.baseline_is | ltrimstr($own))"
	else "to \(.baseline_is | sub("/[^/]*$"; ""))" end;

[ .figures[] | select(.group == $group) ] as $figures |
($figures | map(.mode) | unique) as $modes |
($figures | map(.unit) | unique | join(", ")) as $unit |
# Group the figures by name, in the order in which the names first appear
(reduce $figures[] as $f ([]; if any(.[]; .[0].name == $f.name) then
	map(if .[0].name == $f.name then . + [$f] else . end) else . + [[$f]] end)) as $rows |

if $modes == ["off", "p2pdma", "ram"] then
	[$unit, "p2pdma", "off", "ram", "p2pdma/off", "p2pdma/ram", "goal"],
	($rows[] | .[0].name as $name |
		[$name, value("p2pdma"), value("off"), value("ram"),
		 to("\($name)/off"), to("\($name)/ram"),
		 (map(select(.goal) |
		      (if .baseline_is | startswith($name + "/") then "" else "\(.ratio | ratio) \(versus), " end) + goal)
		  | join("; "))])
elif $modes - ["off", "on", "unpatched"] == [] then
	[$unit, "unpatched", "off", "on", "ratio", "goal"],
	($rows[] | [.[0].name, value("unpatched"), value("off"), value("on"),
		(map(select(.ratio) | "\(.ratio | ratio) \(versus)") | join(", ")), goals])
else
	["", "", "value", "unit", "ratio", "goal"],
	($rows[][] | [.name, (if .mode == "p2pdma" then "" else .mode end), (.value | number), .unit,
		(if .ratio then "\(.ratio | ratio) \(versus)" else "" end), goal])
end | @tsv
