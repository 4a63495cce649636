#!/usr/bin/env bash
# The Dockerfile's steps where there is no Docker: each stage is a Debian that debootstrap makes, each RUN a command in it by chroot. Ends with the image's program, run as the
# image's user without a network of its own, saying its version.
#
#   tests/e2e/lib/image_in_chroot.sh DIR        as root; DIR keeps the stages, and a second call goes on where the first was ended
set -euo pipefail
root=$(cd "$(dirname "$0")/../../.." && pwd)
dir=$(realpath -m "${1:?give a folder for the stages}")
stage='' work=/ user=root
in_stage() { chroot "$stage" /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C "${env[@]}" bash -ec "cd $work; $1"; }
n=0 env=()
while read -r word rest; do
  n=$((n + 1))
  done=$dir/step-$n
  case $word in
  FROM)
    read -r image _ name <<<"$rest"
    [ "$image" = debian:12-slim ] || { echo "image_in_chroot.sh: $image is not debian:12-slim" >&2; exit 2; }
    stage=$dir/${name:-image} work=/ env=()
    [ -e "$done" ] || { rm -rf "$stage"; debootstrap --variant=minbase bookworm "$stage" >"$dir.log" 2>&1 || { tail -5 "$dir.log" >&2; exit 1; }; }
    ;;
  WORKDIR) work=$rest; mkdir -p "$stage$work" ;;
  ENV) env+=("$rest") ;;
  USER) user=$rest ;;
  COPY)
    read -r -a words <<<"$rest"
    from=$root
    if [[ ${words[0]} == --from=* ]]; then from=$dir/${words[0]#--from=} words=("${words[@]:1}"); fi
    target=${words[1]}
    [[ $target == /* ]] || target=$work/$target
    if [ -e "$done" ]; then :
    elif [ "${words[0]}" = . ]; then (cd "$root" && git ls-files -z | xargs -0 cp --parents -t "$stage$target"); 
    elif [ -d "$from/${words[0]}" ]; then cp -a "$from/${words[0]}/." "$stage$target"
    else install -D "$from/${words[0]}" "$stage$target"; fi
    ;;
  RUN) [ -e "$done" ] || { echo "+ $rest" >&2; in_stage "$rest"; } ;;
  EXPOSE | STOPSIGNAL | HEALTHCHECK | ENTRYPOINT | CMD) ;;
  *) echo "image_in_chroot.sh: $word is unknown" >&2; exit 2 ;;
  esac
  touch "$done"
done < <(grep -vE '^(#|$)' "$root/recipes/operate/Dockerfile")
said=$(in_stage "setpriv --reuid=$user --regid=$user --clear-groups specdec --version")
[[ $said == specdec\ * ]] && echo "ok - the image's program runs as $user: $said"
