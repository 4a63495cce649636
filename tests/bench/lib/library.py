"""Texts out of Python's standard library, by a rule: one version of Python gives the same ones."""
import ast
import os
import sys
import sysconfig
import textwrap

# Modules that every Python of these years has. Left out are those that other sets of prompts are made of.
MODULES = """argparse ast base64 bdb calendar codecs compileall concurrent/futures/thread contextlib copy csv dataclasses dis doctest email/header email/message enum filecmp
fnmatch fractions ftplib functools getopt gettext graphlib hmac html/parser http/client http/cookiejar http/cookies http/server imaplib inspect json/decoder json/encoder keyword
linecache locale logging/config logging/handlers mailbox multiprocessing/pool multiprocessing/queues nturl2path numbers opcode optparse os pathlib pdb pickle pickletools pkgutil
plistlib poplib posixpath pprint profile pstats py_compile pyclbr queue quopri random reprlib rlcompleter runpy selectors shelve shlex shutil smtplib socketserver string stringprep
subprocess symtable tabnanny tarfile threading trace traceback types typing unittest/case unittest/mock urllib/parse urllib/request urllib/robotparser uuid warnings weakref
webbrowser xml/dom/minidom xml/sax/saxutils xmlrpc/client xmlrpc/server zipapp zipfile""".split()


def sources():
    """(name, source) of each module that is there."""
    folder = sysconfig.get_paths()["stdlib"]
    for name in MODULES:
        path = os.path.join(folder, name)
        path = os.path.join(path, "__init__.py") if os.path.isdir(path) else path + ".py"
        if os.path.exists(path):
            with open(path, encoding="utf-8") as f:
                yield name, f.read()
        else:
            print(f"library.py: this Python has no {name}", file=sys.stderr)


def functions(source):
    """(qualified name, tree, code moved to the left margin) of the module's functions and its classes' methods."""
    lines = source.split("\n")
    tree = ast.parse(source)
    classes = [c for c in tree.body if isinstance(c, ast.ClassDef)]
    for owner, body in [("", tree.body)] + [(c.name + ".", c.body) for c in classes]:
        for f in body:
            if isinstance(f, (ast.FunctionDef, ast.AsyncFunctionDef)):
                first = min([f.lineno] + [d.lineno for d in f.decorator_list])
                yield owner + f.name, f, textwrap.dedent("\n".join(lines[first - 1:f.end_lineno]))
