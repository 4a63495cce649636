"""The command line of a script. What stands at its top is its help, the binary is its first argument, and an argument that it does not know ends it."""
import argparse


def parser(doc, full=False):
    """full: it has a short and a long run."""
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    p.add_argument("binary", nargs="?", default="build/release/specdec")
    if full:
        p.add_argument("--full", action="store_true", help="the long run")
    return p
