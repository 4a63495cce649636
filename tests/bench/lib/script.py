"""How a bench begins and ends: status 0 where its bars are met, 1 where one is missed, 2 where it could not measure, with one sentence."""
import json
import os
import subprocess
import sys


class Failure(Exception):
    """Why nothing can be measured: one sentence that names the thing and the value."""


def read_lines(path, need="messages"):
    """The objects of a file of JSON lines, each with the field `need`."""
    out = []
    with open(path, encoding="utf-8") as f:
        for i, line in enumerate(f, 1):
            if not line.strip():
                continue
            try:
                o = json.loads(line)
            except ValueError as e:
                raise Failure(f"{path}: line {i} is no JSON: {e}")
            if not isinstance(o, dict) or not o.get(need):
                raise Failure(f"{path}: line {i} is no object with {need}")
            out.append(o)
    return out


def run(main):
    """Ends the program with what main returns."""
    try:
        sys.exit(main())
    except (Failure, subprocess.SubprocessError) as e:
        why = str(e)
    except OSError as e:
        why = f"{e.filename}: {e.strerror}" if e.filename else str(e)
    except KeyboardInterrupt:
        sys.exit(130)
    print(f"{os.path.basename(sys.argv[0])}: {why}", file=sys.stderr)
    sys.exit(2)
