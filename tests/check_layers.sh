#!/usr/bin/env bash
# Includes point downwards: cli -> decode, trainer -> datasets -> model -> kernels -> base; trainer and decode never include each other.
# Prints TAP; exits 1 when an include points the wrong way.
set -euo pipefail
cd "$(dirname "$0")/.."
declare -A may=(
  [base]="base"
  [kernels]="base kernels"
  [model]="base kernels model"
  [datasets]="base kernels model datasets"
  [trainer]="base kernels model datasets trainer"
  [decode]="base kernels model datasets decode"
  [cli]="base kernels model datasets trainer decode cli"
)
bad=0
while IFS=: read -r file line text; do
  room=${file%%/*}
  target=$(sed -E 's|.*"([a-z]+)/.*|\1|' <<<"$text")
  [[ " ${may[$room]} " == *" $target "* ]] || { echo "# $file:$line: $room/ may not include $target/"; bad=1; }
done < <(grep -rnE '^\s*#\s*include "[a-z]+/' --include="*.[ch]" $(ls -d "${!may[@]}" 2>/dev/null))
# A quoted include without a room would escape the check.
while IFS= read -r hit; do
  echo "# $hit: name the room in the include"
  bad=1
done < <(grep -rnE '^\s*#\s*include "[^/"]+"' --include="*.[ch]" $(ls -d "${!may[@]}" 2>/dev/null))
# jansson's own loaders and dumpers forget that memory ran out: base/json.h has the ones that do not.
while IFS= read -r hit; do
  echo "# $hit: use sd_json_load, sd_json_dump or sd_json_print"
  bad=1
done < <(grep -rnE '\bjson_(load[a-z]*|load_file|dumps|dumpf|dumpfd|dump_file)\(' --include="*.c" $(ls -d "${!may[@]}" 2>/dev/null) | grep -v '^base/json.c:')
[ $bad = 0 ] && echo "ok - layers: includes point downwards" || echo "not ok - layers: includes point downwards"
exit $bad
