#!/usr/bin/env python3
"""Registers and shared memory of each CUDA kernel against a table that is checked in, so that none grows unseen.

    tests/cuda/resources.py FOLDER             compares; prints TAP
    tests/cuda/resources.py FOLDER --update    writes kernels/cuda/resources.txt

FOLDER holds what ptxas said when the kernels were built (build/release/kernels/cuda/*.o.log). Numbers are those of one release of nvcc: under
another one only stack and spills are looked at.
"""
import glob
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
TABLE = os.path.join(ROOT, "kernels", "cuda", "resources.txt")


def release():
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    return re.search(r"release (\d+\.\d+)", text)[1]


def used(folder):
    """{(kernel, architecture): {REG, SHARED, STACK, SPILL}}"""
    out = {}
    for log in glob.glob(os.path.join(folder, "*.o.log")):
        key = None
        for line in open(log):
            if m := re.search(r"Compiling entry function '(\w+)' for 'sm_(\d+)'", line):
                key = m[1], m[2]
                out[key] = {"SHARED": 0}
            elif m := re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", line):
                out[key] |= {"STACK": int(m[1]), "SPILL": int(m[2]) + int(m[3])}
            elif m := re.search(r"Used (\d+) registers", line):
                out[key]["REG"] = int(m[1])
                if m := re.search(r"(\d+) bytes smem", line):
                    out[key]["SHARED"] = int(m[1])
    return out


def read_table():
    rows, of = {}, None
    for line in open(TABLE):
        if line.startswith("#"):
            m = re.search(r"nvcc (\d+\.\d+)", line)
            of = m[1] if m else of
            continue
        kernel, *cells = line.split()
        for cell in cells:
            arch, registers, shared = map(int, re.fullmatch(r"sm_(\d+):(\d+)/(\d+)", cell).groups())
            rows[kernel, str(arch)] = {"REG": registers, "SHARED": shared}
    return rows, of


def write_table(now):
    with open(TABLE, "w") as f:
        f.write(f"# Of each kernel and architecture: registers of a thread / bytes of static shared memory of a block, by nvcc {release()}.\n")
        f.write("# tests/cuda/resources.py compares it with what was built, and writes it (--update).\n")
        for kernel in sorted({k for k, _ in now}):
            cells = [f"sm_{a}:{u['REG']}/{u['SHARED']}" for (k, a), u in sorted(now.items(), key=lambda i: int(i[0][1])) if k == kernel]
            f.write(f"{kernel} {' '.join(cells)}\n")


def main():
    now = used(sys.argv[1])
    if "--update" in sys.argv[2:]:
        write_table(now)
        return 0
    bad = [f"{k} on sm_{a}: {u['STACK']} bytes of stack, {u['SPILL']} spilled" for (k, a), u in now.items() if u["STACK"] or u["SPILL"]]
    print(("not ok" if bad or not now else "ok") + f" - cuda: no stack, no local memory and no spill in {len(now)} kernels")
    grown, (table, of) = [], read_table()
    if of != release():
        print(f"ok - cuda: registers and shared memory # SKIP the table is of nvcc {of}, this is {release()}")
    else:
        for key in sorted(set(now) | set(table)):
            kernel, arch = key
            if key not in table:
                grown.append(f"{kernel} on sm_{arch} is not in the table")
            elif key not in now:
                grown.append(f"{kernel} on sm_{arch} is in the table, but was not built")
            else:
                grown += [f"{kernel} on sm_{arch}: {what} {now[key][what]}, the table has {table[key][what]}"
                          for what in ("REG", "SHARED") if now[key][what] > table[key][what]]
        print(("not ok" if grown else "ok") + " - cuda: registers and shared memory are within kernels/cuda/resources.txt")
    for line in bad + grown:
        print("# " + line)
    if grown:
        print("# where that is meant: tests/cuda/resources.py FOLDER --update")
    return 1 if bad or grown or not now else 0


if __name__ == "__main__":
    sys.exit(main())
