"""An official client and a real model, for the scripts that need both; a script ends as skipped where one is not there."""
import importlib
import os
import sys

import tap
from options import parser

MODELS = os.environ.get("SPECDEC_MODELS", os.path.expanduser("~/.cache/specdec/models"))


def sdk(doc, what, file, package="openai"):
    """The package, the binary, the model's path. $PYTHON names the interpreter that has the package; what: the name of the script's checks."""
    if os.environ.get("PYTHON"):
        python = os.environ.pop("PYTHON")
        os.execv(python, [python, *sys.argv])
    binary, model = parser(doc).parse_args().binary, os.path.join(MODELS, file)
    try:
        client = importlib.import_module(package)
    except ImportError:
        tap.skip(what, f"the Python package {package} is not installed")
        sys.exit(0)
    if not os.path.exists(model):
        tap.skip(what, f"{model} is not there")
        sys.exit(0)
    return client, binary, model
