#!/usr/bin/env python3
"""The source of a libcuda.so.1 without a device, from the toolkit's own header: fake_driver.py CUDA_H OUT_C

cuDNN compiles its kernels ahead of time, and needs of a driver no more than that it can be opened and takes modules. Every function of the header is there; all but those
of a start and of modules return CUDA_ERROR_STUB_LIBRARY (34).
"""
import re
import sys

WORKS = {"cuInit", "cuFuncSetAttribute", "cuFuncSetCacheConfig"}
# Functions that give a handle in their first argument, and what it is then.
GIVES = {n: f"0x{0x1000 * (i + 1):x}" for i, n in enumerate(("cuLibraryLoadData", "cuLibraryLoadFromFile", "cuLibraryGetKernel", "cuLibraryGetModule", "cuKernelGetFunction",
                                                         "cuModuleLoadData", "cuModuleLoadDataEx", "cuModuleGetFunction"))}
OWN = """#define _GNU_SOURCE
#include <dlfcn.h>
int cuDriverGetVersion(int *v) { return *v = 13000, 0; }
int cuDeviceGetCount(int *n) { return *n = 0, 0; }
int cuGetErrorString(int e, const char **s) { return (void)e, *s = "there is no device", 0; }
int cuGetErrorName(int e, const char **s) { return (void)e, *s = "no device", 0; }
static int find(const char *name, void **out) {
    void *own = dlopen("libcuda.so.1", RTLD_NOLOAD | RTLD_NOW);
    *out = own ? dlsym(own, name) : 0;
    return *out ? 0 : 500;
}
int cuGetProcAddress_v2(const char *name, void **out, int version, unsigned long flags, int *found) {
    (void)version, (void)flags;
    int status = find(name, out);
    if (found) *found = status != 0;
    return status;
}
int cuGetProcAddress(const char *name, void **out, int version, unsigned long flags) {
    return (void)version, (void)flags, find(name, out);
}
"""


def main():
    header = open(sys.argv[1], errors="replace").read()
    names = set(re.findall(r"\bCUDAAPI\s+(cu[A-Z]\w*)\s*\(", header)) | set(re.findall(r"#\s*define\s+cu\w+\s+(?:__CUDA_API_PT\w+\()?(cu[A-Z]\w*)", header))
    names |= set(re.findall(r"#\s*define\s+(cu[A-Z]\w*)\s", header))  # the names behind the versions
    names |= {n + "_ptsz" for n in names}
    if len(names) < 400:
        sys.exit(f"fake_driver.py: {sys.argv[1]} has {len(names)} functions; is it CUDA's cuda.h?")
    own = set(re.findall(r"^int (cu\w+)", OWN, re.M))
    with open(sys.argv[2], "w") as f:
        f.write(OWN)
        for name in sorted(names - own):
            base = re.sub(r"_(v\d|ptsz|ptds)", "", name)
            if base in GIVES:
                f.write(f"int {name}(void **out) {{ return *out = (void *){GIVES[base]}, 0; }}\n")
            else:
                f.write(f"int {name}(void) {{ return {0 if base in WORKS else 34}; }}\n")


main()
