#!/usr/bin/env python3
"""The cache of packed models attacked: every start must answer with the bytes of a start without a cache, or say why not.

    tests/torture/cache.py build/release/specdec [--full]

Prints TAP. --full repeats the races 20 times as often.
"""
import glob
import resource
import shutil
import signal

from files_lib import *

dir = tempfile.mkdtemp(prefix="specdec-cache-")
model, cache = os.path.join(dir, "m.gguf"), os.path.join(dir, "xdg")
packed = os.path.join(cache, "specdec", "packed")
TIMES = 20 if FULL else 1
root = os.geteuid() == 0


def start(*more, env={}, path=model, preexec=None):
    """Logits of a fresh start: (exit code, their bytes, what it said)."""
    out = tempfile.mktemp(dir=dir)
    p = subprocess.run([BINARY, "logits", "-m", path, "--threads", "2", "--tokens", "1,5,9", "-o", out, *more], capture_output=True, text=True,
                       env=dict(os.environ, XDG_CACHE_HOME=cache, **env), timeout=120, preexec_fn=preexec)
    data = open(out, "rb").read() if os.path.exists(out) else b""
    if data:
        os.unlink(out)
    return p.returncode, data, p.stderr


def plain(path=model):
    return start("--no-pack-cache", path=path)[1]


def files():
    return sorted(glob.glob(packed + "/*"))


def fresh():
    if os.path.islink(packed):
        os.unlink(packed)
    shutil.rmtree(cache, ignore_errors=True)


def launch(*verb):
    return subprocess.Popen([BINARY, *verb], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ, XDG_CACHE_HOME=cache))


def state():
    p = subprocess.run([BINARY, "cache", "list"], capture_output=True, text=True, env=dict(os.environ, XDG_CACHE_HOME=cache))
    return p.stdout


def damaged_bytes(want):
    pack = files()[0]
    size = os.path.getsize(pack)
    good, why = True, ""
    for i in range(3 * TIMES):
        at = random.randrange(16384, size - 8)
        with open(pack, "r+b") as f:
            f.seek(at)
            was = f.read(1)[0]
            f.seek(at)
            f.write(bytes([was ^ 1 << random.randrange(8)]))
        padding = was == 0
        code, got, said = start()
        again = start()
        if code != 0 or got != want or again[1] != want or "damaged" in again[2] or said.count("it is made again") > 1 or \
                (not padding and said.count("it is made again") != 1):
            good, why = False, f"byte {at}: exit {code}, {said}"
    check("a flipped bit of the data is found, said once, and made again", good, why)


def overwrite(seed, inplace):
    """Another model's bytes under the old time: cp -p, or rsync --inplace -t."""
    other = os.path.join(dir, "other.gguf")
    write_model(other, seed=seed)
    was = os.stat(model)
    if inplace:
        with open(model, "r+b") as f:
            f.write(open(other, "rb").read())
    else:
        shutil.copyfile(other, model)
    os.utime(model, ns=(was.st_atime_ns, was.st_mtime_ns))
    os.unlink(other)


def touched(want):
    pack = files()[0]
    inode = os.stat(pack).st_ino
    os.utime(model)
    good = start()[1] == want and os.stat(pack).st_ino == inode and "current" in state()
    copy = model + ".copy"
    shutil.copy2(model, copy)
    os.replace(copy, model)
    good = good and start()[1] == want and os.stat(pack).st_ino == inode and "current" in state()
    check("a touched or copied model with the same bytes keeps its packed form", good, state())


def replaced_while_packing():
    good, why, n = True, "", 3 * TIMES
    for i in range(n):
        fresh()
        write_model(model, seed=100 + i)
        other = os.path.join(dir, "next.gguf")
        write_model(other, seed=300 + i)
        p = launch("pack", model)
        time.sleep(0.12 * i / n)
        os.replace(other, model)
        p.communicate()
        want = plain()
        code, got, said = start()
        if p.returncode < 0 or code != 0 or got != want:
            good, why = False, f"round {i}: pack ended with {p.returncode}, then {code}: {said}"
    check("a model that is renamed over while it is packed: the next start has the new one", good, why)


def written_while_packing():
    good, why, n = True, "", 3 * TIMES
    for i in range(n):
        fresh()
        write_model(model, seed=100 + i)
        p = launch("logits", "-m", model, "--threads", "2", "--tokens", "1,5,9", "-o", os.path.join(dir, "torn.npy"))
        old = None
        time.sleep(0.12 * i / n)
        overwrite(500 + i, True)
        said = p.communicate()[1]
        want = plain()
        got = start()
        if p.returncode < 0 or got[0] != 0 or got[1] != want:
            good, why = False, f"round {i}: {p.returncode}, {said}"
        if p.returncode == 0:
            torn = open(os.path.join(dir, "torn.npy"), "rb").read()
            write_model(os.path.join(dir, "old.gguf"), seed=100 + i)
            old = plain(os.path.join(dir, "old.gguf"))
            if torn not in (old, want):
                good, why = False, f"round {i}: exit 0 with an answer of neither model"
    check("a model that is written over while it is loaded: an error, or one of the two models' answer", good, why)


def cut_while_loading():
    good, why, n = True, "", 4 * TIMES
    for i in range(n):
        fresh()
        size = write_model(model, seed=1)["bytes"]
        p = launch("pack", model)
        time.sleep(0.1 * i / n)
        os.truncate(model, size // 3)
        said = p.communicate()[1]
        if p.returncode < 0 or (p.returncode == 0 and "current" in state()):
            good, why = False, f"round {i}: {p.returncode}, {said}"
    check("a model that is cut while it is loaded and hashed ends no process by a signal", good, why)


def killed_while_packing():
    good, why, n = True, "", 4 * TIMES
    write_model(model, seed=1)
    want = plain()
    for i in range(n):
        fresh()
        p = launch("pack", model)
        time.sleep(0.15 * (i + 1) / n)
        p.send_signal(signal.SIGKILL if i % 2 else signal.SIGTERM)
        p.communicate()
        left = [f for f in files() if ".tmp." in f]
        if i % 2 == 0 and (p.returncode not in (0, 130) or left):
            good, why = False, f"SIGTERM: {p.returncode}, left {left}"
        got = start()
        if got[0] != 0 or got[1] != want:
            good, why = False, f"after a kill: {got[0]}, {got[2]}"
    check("killed while packing: nothing half-written counts, and SIGTERM leaves nothing", good, why)


def hostile_folders(want):
    def refused(name, arrange, restore):
        fresh()
        start()
        before = {f: open(f, "rb").read(64) for f in files()}
        os.utime(files()[0], (5, 5))
        arrange()
        code, got, said = start()
        target = os.path.realpath(packed)
        same = {os.path.basename(f) for f in glob.glob(target + "/*")} == {os.path.basename(f) for f in before} and \
            all(os.stat(f).st_mtime == 5 for f in glob.glob(target + "/*.pack"))
        restore()
        check(f"{name}: one warning, the right answer, nothing read or written there",
              code == 0 and got == want and said.count("so the cache is not used") == 1 and same, f"{code} {said}")

    refused("a folder that others may write", lambda: os.chmod(packed, 0o777), lambda: os.chmod(packed, 0o755))
    refused("a folder that the group may write", lambda: os.chmod(packed, 0o775), lambda: os.chmod(packed, 0o755))
    away = os.path.join(dir, "away")
    refused("a linked folder", lambda: (os.rename(packed, away), os.symlink(away, packed)), lambda: (os.unlink(packed), os.rename(away, packed)))
    if root:
        refused("a foreign folder", lambda: os.chown(packed, 1, -1), lambda: os.chown(packed, 0, -1))
    else:
        skip("a foreign folder", "only root can give one away")
    fresh()
    start()
    pack = files()[0]
    shutil.copy(pack, os.path.join(dir, "evil"))
    os.unlink(pack)
    os.symlink(os.path.join(dir, "evil"), pack)
    code, got, said = start()
    check("a link in a file's place is not followed", code == 0 and got == want and not os.path.islink(pack), said)


def private():
    fresh()
    os.chmod(model, 0o600)
    start()
    check("the packed form of a 0600 model is 0600", os.stat(files()[0]).st_mode & 0o777 == 0o600, oct(os.stat(files()[0]).st_mode))
    os.chmod(model, 0o644)


def two_at_once(want):
    good, why = True, ""
    for i in range(TIMES):
        fresh()
        both = [launch("pack", model) for _ in range(2)]
        for p in both:
            said = p.communicate()[1]
            if p.returncode != 0:
                good, why = False, said
        got = start()
        if got[1] != want or "damaged" in got[2] or any(".tmp." in f for f in files()) or "current" not in state():
            good, why = False, f"{got[2]} {files()} {state()}"
    check("two processes that pack at once leave one good file", good, why)


def full_disk(want):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 20, 8 << 20))

    def look(how, preexec=None):
        code, got, said = start(preexec=preexec)
        check(f"a full disk costs a warning and nothing else ({how})",
              code == 0 and got == want and "every start packs anew" in said and not files(), f"{code} {said} {files()}")

    fresh()
    look("a limit of the file's size", limit)
    fresh()
    os.makedirs(packed)
    if root and subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=755", "tmpfs", packed], capture_output=True).returncode == 0:
        look("a tmpfs of 8 MB")
        subprocess.run(["umount", packed])
    else:
        skip("a full disk costs a warning and nothing else (a tmpfs of 8 MB)", "only root can mount one")


def earlier_format(want):
    fresh()
    start()
    with open(files()[0], "r+b") as f:
        f.write(b"SDPACK2\n")
    listed = state()
    code, got, said = start()
    check("a file of version 0.4 is told by its first bytes and made again without a word",
          " old " in listed and code == 0 and got == want and "damaged" not in said and "current" in state(), f"{listed} {said}")


def bound(want):
    fresh()
    code, got, said = start(env={"SPECDEC_CACHE_MIB": "1"})
    check("what is more than SPECDEC_CACHE_MIB is not kept, and that is said", code == 0 and got == want and not files() and "SPECDEC_CACHE_MIB" in said, said)


def stopped_while_loading():
    """SIGTERM at any moment of a cold start of the server: exit 0 and nothing left."""
    big = os.path.join(dir, "big.gguf")
    write_model(big, L=4, C=1024, F=4096, V=65536, sparse=True)
    bar = 0.1 if FULL else 2.0
    good, why, worst, n = True, "", 0, 4 * (5 if FULL else 1)
    for i in range(n):
        fresh()
        p = launch("serve", "-m", big, "--port", "0", "--threads", "2")
        said = p.stderr.readline()  # "loading ...; listening at"
        time.sleep(0.9 * i / n)
        begin = time.perf_counter()
        p.send_signal((signal.SIGTERM, signal.SIGINT)[i % 2])
        said += p.communicate(timeout=60)[1]
        took = time.perf_counter() - begin
        worst = max(worst, took)
        if p.returncode != 0 or took > bar or [f for f in files() if ".tmp." in f] or "drained, bye" not in said:
            good, why = False, f"round {i}: exit {p.returncode} after {took * 1e3:.0f} ms, {files()}, {said}"
    check(f"a signal while loading ends the server with 0 (worst {worst * 1e3:.0f} ms)", good, why)
    os.unlink(big)


try:
    write_model(model)
    want = plain()
    check("cold, warm and without a cache: the same bytes", want and start()[1] == want and start()[1] == want and len(files()) == 1, files())
    damaged_bytes(want)
    touched(want)
    for seed, inplace in ((2, False), (3, True)):
        overwrite(seed, inplace)
        new = plain()
        got = start()
        check(f"other bytes under the old time ({'rsync --inplace -t' if inplace else 'cp -p'}) are seen", got[1] == new != want, got[2])
        want = new
    private()
    hostile_folders(want)
    two_at_once(want)
    full_disk(want)
    earlier_format(want)
    bound(want)
    replaced_while_packing()
    written_while_packing()
    cut_while_loading()
    killed_while_packing()
    stopped_while_loading()
finally:
    subprocess.run(["umount", packed], capture_output=True)
    shutil.rmtree(dir, ignore_errors=True)
end()
