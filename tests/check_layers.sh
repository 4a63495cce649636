#!/usr/bin/env bash
# Includes point the way that the table of rooms in docs/architecture.md allows. Prints TAP; exits 1 when one does not, or when the table is wrong.
set -euo pipefail
cd "$(dirname "$0")/.."
declare -A may=() seen=()
bad=0
complain() { echo "# $*"; bad=1; }

rooms=()
while IFS='|' read -r _ room _ list _; do
  room=${room//[[:space:]]/}
  [[ $room =~ ^[a-z]+(/[a-z_.]+)*$ && $room != room ]] || continue
  read -ra names <<<"$list"
  [[ -e $room ]] || complain "docs/architecture.md: $room: no such folder or file"
  for name in "${names[@]}"; do [[ -n ${seen[$name]:-} ]] || complain "docs/architecture.md: $room names $name, which has no row above it"; done
  may[$room]="$room ${names[*]}"
  seen[$room]=1
  rooms+=("$room")
done < <(sed -n '/^| room | holds /,/^$/p' docs/architecture.md)
tops=$(printf '%s\n' "${rooms[@]}" | cut -d/ -f1 | sort -u)

# The row of a file: its own, else its folder's.
while IFS=: read -r file line text; do
  row=$file
  [[ -n ${may[$row]:-} ]] || row=${file%/*}
  [[ -n ${may[$row]:-} ]] || { complain "$file: its folder has no row in docs/architecture.md"; continue; }
  target=${text#*\"}
  target=${target%\"*}
  # A quoted include without a room would escape the check.
  [[ $target == */* ]] || { complain "$file:$line: name the room in the include of $target"; continue; }
  [[ " ${may[$row]} " == *" ${target%/*} "* ]] || complain "$file:$line: $row may not include ${target%/*}"
done < <(grep -rnE '^[[:space:]]*#[[:space:]]*include "' --include="*.[ch]" --include="*.cu" --include="*.cuh" $tops)

# jansson's own loaders and dumpers forget that memory ran out: base/json.h has the ones that do not.
while IFS= read -r hit; do
  complain "$hit: use sd_json_load, sd_json_dump or sd_json_print"
done < <(grep -rnE '\bjson_(load[a-z]*|load_file|dumps|dumpf|dumpfd|dump_file)\(' --include="*.c" $tops | grep -v '^base/json.c:')
if [ $bad = 0 ]; then echo "ok - layers: includes go the way of docs/architecture.md"; else echo "not ok - layers: includes go the way of docs/architecture.md"; fi
exit $bad
