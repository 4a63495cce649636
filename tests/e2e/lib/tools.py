"""Programs of other projects that tests need: on the path, or below $SPECDEC_TOOLS, where `recipes/deps.sh tests` unpacks Debian's packages without installing them (no service starts)."""
import os
import shutil

FOLDER = os.environ.get("SPECDEC_TOOLS", os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "specdec", "tools"))


def find(name):
    """Its path; None: it is not there."""
    places = [os.path.join(FOLDER, "usr", d) for d in ("bin", "sbin")] + ["/usr/sbin", "/sbin"]
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(places))
