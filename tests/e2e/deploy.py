#!/usr/bin/env python3
"""What recipes/operate hands to others, as far as it can be held to without a cluster: the systemd units, the Dockerfile and the Kubernetes manifests name options that there are, ports,
paths and times that fit together, and libraries that the program needs.

    tests/e2e/deploy.py build/release/specdec

Prints TAP. Needs tests/make_tiny_model beside the binary (target unit_tests) and PyYAML; with systemd-analyze, kubectl and the Python package kubernetes-validate it checks more. What
is not there is a printed skip. tests/e2e/lib/image_in_chroot.sh builds the image's steps in a chroot.
"""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib"))
import tap  # noqa: E402
from program import Program  # noqa: E402
from served import Served  # noqa: E402
from tap import check, skip  # noqa: E402

PROGRAM = Program(__doc__)
ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
OPERATE = os.path.join(ROOT, "recipes", "operate")
HELP = PROGRAM.run("serve", "--help").stdout
OPTIONS = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", HELP))


def read(*path):
    return open(os.path.join(OPERATE, *path)).read()


def default(option):
    """A number, as --help says it."""
    return float(re.search(r"^ *%s\b.*?default:? (\d+)" % option, HELP, re.M | re.S).group(1))


# ---- systemd

def systemd():
    unit = read("specdec.service")
    used = set(re.findall(r"--[a-z][a-z-]+", re.search(r"^ExecStart=(.*)$", unit, re.M).group(1)))
    check("the unit's options are serve's", used <= OPTIONS, used - OPTIONS)
    stop = int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.M).group(1))
    check("systemd waits longer than --drain", stop > default("--drain") + 1, stop)
    verify = shutil.which("systemd-analyze")
    if not verify:
        skip("systemd takes the units", "systemd-analyze is not here")
        return
    with tempfile.TemporaryDirectory() as folder:
        for name in ("specdec.service", "specdec.socket"):
            with open(os.path.join(folder, name), "w") as f:
                f.write(read(name).replace("/usr/local/bin/specdec", PROGRAM.binary))
        files = [os.path.join(folder, n) for n in sorted(os.listdir(folder))]
        done = subprocess.run([verify, "verify", "--man=no", *files], capture_output=True, text=True, timeout=60)
        said = [line for line in done.stderr.splitlines() if folder in line or "specdec" in line]
        check("systemd takes the units", done.returncode == 0 and not said, done.stderr)
        done = subprocess.run([verify, "security", "--offline=yes", "--threshold=30", files[0]], capture_output=True, text=True, timeout=60)
        check("and finds little open", done.returncode == 0, done.stdout[-400:] + done.stderr)


# ---- the image

def instructions(text):
    """(instruction, arguments), lines joined."""
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")]
    return [tuple(line.split(None, 1)) for line in lines]


def package_of(library):
    for path in (library, os.path.realpath(library), os.path.realpath(library).removeprefix("/usr")):
        done = subprocess.run(["dpkg", "-S", path], capture_output=True, text=True)
        if done.returncode == 0:
            return done.stdout.split(":")[0]
    return library


def image():
    steps = instructions(read("Dockerfile"))
    runs = [rest for word, rest in steps if word == "RUN"]
    readme = open(os.path.join(ROOT, "README.md")).read()
    flat = lambda text: text.replace(' -j "$(nproc)"', "").replace(" --target specdec", "")
    check("the image is built as README says", "recipes/deps.sh build" in runs and any("cmake --preset release && cmake --build --preset release" in flat(r) for r in runs) and
          "cmake --preset release && cmake --build --preset release" in readme, runs)
    check("it ends as a user that may nothing", [rest for word, rest in steps if word == "USER"] == ["specdec"])
    if shutil.which("dpkg"):
        needed = subprocess.run(["objdump", "-p", PROGRAM.binary], capture_output=True, text=True).stdout
        needed = set(re.findall(r"NEEDED +(\S+)", needed))
        paths = re.findall(r"^\s*(\S+) => (\S+)", subprocess.run(["ldd", PROGRAM.binary], capture_output=True, text=True).stdout, re.M)
        packages = {package_of(path) for name, path in paths if name in needed} - {"libc6", "libgcc-s1"}
        named = set(re.search(r"install -y --no-install-recommends ([^&]+)&&", " ".join(runs)).group(1).split())
        check("it has the libraries that the program needs, and no others", packages == named, packages ^ named)
    else:
        skip("it has the libraries that the program needs, and no others", "dpkg is not here")
    return json.loads(next(rest for word, rest in steps if word == "HEALTHCHECK").split("CMD", 1)[1])


# ---- the cluster

def manifests():
    import yaml
    names = sorted(n for n in os.listdir(os.path.join(OPERATE, "kubernetes")) if n.endswith(".yaml") and n not in ("kustomization.yaml", "prometheus_adapter.yaml"))
    kustomization = yaml.safe_load(read("kubernetes", "kustomization.yaml"))
    check("kustomization.yaml names every manifest", sorted(kustomization["resources"]) == names, kustomization["resources"])
    return [m for n in names for m in yaml.safe_load_all(read("kubernetes", n))], kustomization


def schemas(all_):
    try:
        import kubernetes_validate
    except ImportError:
        skip("the manifests fit Kubernetes' schemas", "the Python package kubernetes-validate is not installed")
        return
    wrong = []
    for m in all_:
        try:
            kubernetes_validate.validate(m, kubernetes_validate.latest_version(), strict=True)
        except Exception as e:  # of many kinds
            wrong.append("%s/%s: %s" % (m["kind"], m["metadata"]["name"], e))
    check("the manifests fit Kubernetes' schemas", not wrong, "\n".join(wrong))


def built(all_):
    if not shutil.which("kubectl"):
        skip("kustomize builds the whole", "kubectl is not here")
        return
    import yaml
    done = subprocess.run(["kubectl", "kustomize", os.path.join(OPERATE, "kubernetes")], capture_output=True, text=True, timeout=60)
    whole = list(yaml.safe_load_all(done.stdout)) if done.returncode == 0 else []
    check("kustomize builds the whole", len(whole) == len(all_) + 1 and all(m["metadata"]["namespace"] == "specdec" for m in whole), done.stderr)


def cluster(server):
    try:
        all_, kustomization = manifests()
    except ImportError:
        skip("the Kubernetes manifests", "the Python package yaml is not installed (python3-yaml)")
        return
    schemas(all_)
    built(all_)
    of = lambda kind, name: next(m for m in all_ if m["kind"] == kind and m["metadata"]["name"] == name)["spec"]
    pod = of("Deployment", "specdec")["template"]
    box = pod["spec"]["containers"][0]
    args = dict(a.split("=", 1) for a in box["args"][1:])
    check("the container's options are serve's", box["args"][0] == "serve" and set(args) <= OPTIONS, set(args) - OPTIONS)
    port = box["ports"][0]["containerPort"]
    upstream = re.search(r"server specdec-pods\.specdec\.svc\.cluster\.local:(\d+) resolve", read("kubernetes", "nginx_servers.conf")).group(1)
    listen = re.search(r"listen (\d+);", read("kubernetes", "nginx.conf")).group(1)
    gateway = of("Deployment", "gateway")["template"]["spec"]["containers"][0]
    policies = [p["port"] for n in ("specdec", "gateway") for rule in of("NetworkPolicy", n)["ingress"] for p in rule["ports"]]
    ports = [int(args["--port"]), of("Service", "specdec-pods")["ports"][0]["port"], int(upstream), *policies[:1], int(pod["metadata"]["annotations"]["prometheus.io/port"])]
    check("one port, from the program to nginx", set(ports) == {port} and int(listen) == gateway["ports"][0]["containerPort"] == policies[-1], (port, ports, listen))
    labels = pod["metadata"]["labels"]
    selectors = [of("Deployment", "specdec")["selector"]["matchLabels"], of("Service", "specdec-pods")["selector"], of("PodDisruptionBudget", "specdec")["selector"]["matchLabels"],
                 of("NetworkPolicy", "specdec")["podSelector"]["matchLabels"]]
    check("what selects the servers selects their pods", all(s.items() <= labels.items() for s in selectors), selectors)
    sleep = float(box["lifecycle"]["preStop"]["exec"]["command"][-1])
    check("a pod has the time to drain", pod["spec"]["terminationGracePeriodSeconds"] > sleep + float(args["--drain"]) + 1)
    probes = {box[p]["httpGet"]["path"] for p in ("startupProbe", "readinessProbe", "livenessProbe")} | {gateway["readinessProbe"]["httpGet"]["path"]}
    asked = {path: server.request("GET", path)[0] for path in probes}
    check("probes need no key", set(asked.values()) == {200}, asked)
    mounts = {m["mountPath"] for m in box["volumeMounts"]}
    check("the files that it is given are mounted", all(any(v.split("=")[-1].startswith(m + "/") for m in mounts) for o, v in args.items() if o in ("--model", "--adapter", "--api-key-file")))
    check("a server may speak to nobody", of("NetworkPolicy", "specdec")["egress"] == [] and "Egress" in of("NetworkPolicy", "specdec")["policyTypes"])
    safe = lambda d: d["securityContext"]["readOnlyRootFilesystem"] and d["securityContext"]["capabilities"] == {"drop": ["ALL"]} and not d["securityContext"]["allowPrivilegeEscalation"]
    check("nobody is root, and no root file system is written", safe(box) and safe(gateway) and pod["spec"]["securityContext"]["runAsNonRoot"])
    autoscaler(of("HorizontalPodAutoscaler", "specdec"), server)
    check("the image is the Dockerfile's name", kustomization["images"][0]["name"] == box["image"] == "specdec")


def autoscaler(spec, server):
    import yaml
    rule = yaml.safe_load(read("kubernetes", "prometheus_adapter.yaml"))["rules"]["custom"][0]
    check("the autoscaler's metric is the adapter's", spec["metrics"][0]["pods"]["metric"]["name"] == rule["name"]["as"] and spec["scaleTargetRef"]["name"] == "specdec", rule)
    page = server.request("GET", "/metrics", headers={"Authorization": "Bearer key-of-the-test"})[2].decode()
    named = set(re.findall(r"specdec_num_\w+", rule["metricsQuery"] + rule["seriesQuery"]))
    check("and what it reads, the server says", named and all("\n" + n + "{" in page for n in named), named)


def main():
    systemd()
    health = image()
    with tempfile.TemporaryDirectory() as folder:
        model, keys = os.path.join(folder, "tiny.gguf"), os.path.join(folder, "keys")
        subprocess.run([PROGRAM.tiny, model], check=True)
        with open(keys, "w") as f:
            f.write("key-of-the-test\n")
        server = Served(PROGRAM.binary, model, "--no-pack-cache", "--api-key-file", keys)
        try:
            at = lambda port: subprocess.run([h.replace("/8080", "/%d" % port) for h in health], capture_output=True, timeout=30).returncode
            check("the image's health check sees a server that is ready", at(server.port) == 0)
            cluster(server)
        finally:
            server.stop()
        check("and one that is gone", at(server.port) != 0)
    tap.finish()


main()
