# Sourced by scripts that run the binary of $1 on a tiny model: where both are, and how a check is printed.
#
#   name="what the script proves"; . "$(dirname "$0")/lib/tiny.sh"
binary=$(realpath "${1:-build/release/specdec}")
tiny=$(dirname "$binary")/tests/make_tiny_model
failed=0
check() { # NAME STATUS [DETAIL]
  if [ "$2" = 0 ]; then echo "ok - $1"; else echo "not ok - $1"; failed=1; [ -n "${3:-}" ] && sed 's/^/# /' <<<"$3" | tail -20; fi
}
if [ ! -x "$tiny" ]; then
  echo "ok - $name # SKIP $tiny is not built (target unit_tests)"
  exit 0
fi
