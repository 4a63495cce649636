#!/usr/bin/env bash
# The man page from the tables of options: man.sh SPECDEC >specdec.1
set -euo pipefail
program=$1
"$program" --help=man
while IFS=$'\t' read -r verb args _; do
  if ! "$program" "$verb" --help=man 2>/dev/null; then # its parts have the options
    parts=${args#* }
    parts=${parts%% *}
    for part in ${parts//|/ }; do "$program" "$verb" "$part" --help=man; done
  fi
done < <("$program" --help=words)
