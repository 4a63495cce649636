"""Lines of TAP, and how many of them failed."""
import sys

failures = 0


def check(name, ok, detail=""):
    """detail: shown, when it failed."""
    global failures
    print(("ok - " if ok else "not ok - ") + name, flush=True)
    if not ok:
        failures += 1
        for line in str(detail).splitlines()[:12]:
            print("# " + line[:400], flush=True)


def skip(name, why):
    print(f"ok - {name} # SKIP {why}", flush=True)


def finish():
    sys.exit(failures > 0)
