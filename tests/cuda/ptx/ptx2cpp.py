#!/usr/bin/env python3
"""nvcc's PTX as C++ for the emulator's fibers: what the compiler made of a kernel, inline assembly included, runs in the kernel's place.

    tests/cuda/ptx/ptx2cpp.py IN.ptx OUT.cpp [--only REGEX]     only kernels whose whole names match

One instruction becomes one statement, by a rule for its whole name with all modifiers ("PTX ISA", part of the CUDA toolkit's documentation). An
instruction, a modifier or a declaration without a rule is an error that names it: nothing is skipped. What needs more than an expression is in
tests/cuda/ptx/ptx.h.
"""
import re
import sys

C_TYPE = {"pred": "bool", "f32": "float", "f64": "double"} | {
    f"{kind}{bits}": f"{'' if kind == 's' else 'u'}int{bits}_t" for kind in "sub" for bits in (8, 16, 32, 64)}
SPECIAL = {f"%{ptx}.{axis}": f"emu::cur->{field}.{axis}"
           for ptx, field in (("tid", "tid"), ("ntid", "bdim"), ("ctaid", "bid"), ("nctaid", "gdim")) for axis in "xyz"}
INTEGER = "[sub](?:16|32|64)"
SCOPES = " \t\n{}"
COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


def size_of(t):
    return 1 if t == "pred" else int(t[1:]) // 8


class Error(Exception):
    pass


# ---- parsing


def split_operands(text):
    """a, {b, c}, [d+4]: at commas that stand in no bracket."""
    out, depth, start = [], 0, 0
    for i, c in enumerate(text):
        depth += (c in "{[(") - (c in "}])")
        if c == "," and depth == 0:
            out.append(text[start:i].strip())
            start = i + 1
    last = text[start:].strip()
    return out + [last] if last else out


def without_comments(text):
    """Lines stay where they are: messages name them."""
    text = re.sub(r"/\*.*?\*/", lambda m: "\n" * m[0].count("\n"), text, flags=re.S)
    return re.sub(r"//[^\n]*", "", text)


def end_of_body(text, begin):
    depth = 1
    for i in range(begin, len(text)):
        depth += (text[i] == "{") - (text[i] == "}")
        if depth == 0:
            return i
    raise Error("a kernel's body has no end")


def parameters_of(text):
    """{name: (index, bytes)}"""
    out = {}
    for i, p in enumerate(split_operands(text)):
        m = re.fullmatch(r"\.param\s+(?:\.align\s+\d+\s+)?\.(\w+)\s+(\w+)(?:\[(\d+)\])?", p)
        if not m:
            raise Error(f"parameter '{p}' is not understood")
        out[m[2]] = i, size_of(m[1]) * int(m[3] or 1)
    return out


class Kernel:
    def __init__(self, name, parameters, body, line, dynamic):
        self.name, self.parameters, self.line = name, parameters_of(parameters), line
        self.register, self.used, self.shared, self.used_shared, self.code = {}, {}, {}, set(), []
        for symbol in dynamic:
            self.shared[symbol] = "emu::dynamic_shared()"
        self.translate(self.declarations(body))

    def declarations(self, body):
        def register(m):
            if self.register.setdefault(m[2], m[1]) != m[1]:
                raise Error(f"{self.name}: registers %{m[2]} have two types")
            return ""

        def array(m):
            self.shared[m[3]] = f"emu::shared_array(&KEY, {size_of(m[2]) * int(m[4])}, {m[1]})"
            return ""

        body = re.sub(r"\.reg\s+\.(\w+)\s+%(\w+?)(?:<\d+>)?;", register, body)
        body = re.sub(r"\.shared\s+\.align\s+(\d+)\s+\.(\w+)\s+([\w$]+)\[(\d+)\];", array, body)
        return re.sub(r'\.pragma\s+"[^"]*";', "", body)  # hints alone

    def translate(self, body):
        # A scope inside has registers of its own, which nothing outside reads: one for all scopes will do.
        at, counted, self.here, body = 0, 0, self.line, body.rstrip(SCOPES)
        statement = re.compile(r"[\s{}]*(?:([\w$]+):|(?:@(!?)%(\w+)\s+)?([\w.:]+)([^;]*);)")
        while at < len(body):
            m = statement.match(body, at)
            if not m:
                raise Error(f"{self.name}: '{body[at:].strip().splitlines()[0]}' is not understood")
            begin, at = m.end() - len(m[0].lstrip(SCOPES)), m.end()
            self.here += body.count("\n", counted, begin)
            counted = begin
            if m[1]:
                self.code.append(f"{self.label(m[1])}:;")
                continue
            guard = f"if ({m[2]}{self.name_of('%' + m[3])}) " if m[3] else ""
            self.code.append(f"    {guard}{{ {self.statement(m[4], split_operands(m[5]))} }}")

    def statement(self, op, operands):
        for pattern, rule in RULES:
            if m := pattern.fullmatch(op):
                try:
                    return rule(self, operands, *m.groups())
                except (Error, ValueError, KeyError) as e:
                    raise Error(f"{self.name}, line {self.here}: {op} {', '.join(operands)}: {e}") from e
        raise Error(f"{self.name}, line {self.here}: instruction '{op}' has no rule in ptx2cpp.py")

    # ---- operands

    def label(self, name):
        return "L" + name.replace("$", "_")

    def name_of(self, register):
        name = register[1:]
        prefix = re.match(r"[a-z]+", name)[0]
        if prefix not in self.register:
            raise Error(f"register {register} is not declared")
        self.used[name] = self.register[prefix]
        return name

    def read(self, operand, t):
        c = C_TYPE[t]
        if operand in SPECIAL:
            return f"({c}){SPECIAL[operand]}"
        if operand.startswith("%"):
            name = self.name_of(operand)
            have = self.used[name]
            if t == "pred" or have == "pred":
                if t != have:
                    raise Error(f"{operand} is a .{have}, not a .{t}")
                return name
            if C_TYPE[have] == c:
                return name
            if size_of(have) < size_of(t) or (size_of(have) > size_of(t) and "f" in (have[0], t[0])):
                raise Error(f"{operand} is a .{have}, too small for a .{t}")
            return f"ptx::bits<{c}>({name})" if "f" in (have[0], t[0]) else f"({c}){name}"
        if m := re.fullmatch(r"0[fF]([0-9a-fA-F]{8})|0[dD]([0-9a-fA-F]{16})", operand):
            return f"ptx::bits<{c}>({'uint32_t' if m[1] else 'uint64_t'}(0x{m[1] or m[2]}u))"
        if re.fullmatch(r"-?(0x[0-9a-fA-F]+|\d+)U?", operand):
            return f"({c}){operand.rstrip('U')}ll" if t != "pred" else str(bool(int(operand, 0))).lower()
        if operand in self.shared:
            self.used_shared.add(operand)
            return f"({c})shared_{list(self.shared).index(operand)}"
        if operand in self.parameters:
            return f"({c})(uintptr_t)args[{self.parameters[operand][0]}]"
        raise Error(f"operand '{operand}' is not understood")

    def write(self, operand, t, expression):
        if operand == "_":
            return f"(void)({expression});"
        name = self.name_of(operand)
        have, c = self.used[name], C_TYPE[t]
        if "pred" in (have, t):
            if have != t:
                raise Error(f"{operand} is a .{have}, not a .{t}")
            return f"{name} = {expression};"
        if size_of(have) == size_of(t) and "f" in (have[0], t[0]) and have != t:
            return f"{name} = ptx::bits<{C_TYPE[have]}>(({c})({expression}));"
        if size_of(have) < size_of(t) or (size_of(have) > size_of(t) and "f" in (have[0], t[0])):
            raise Error(f"{operand} is a .{have}, not a .{t}")
        return f"{name} = ({c})({expression});"  # a narrower one is extended by its own sign

    def address(self, operand, space):
        m = re.fullmatch(r"\[([%\w$]+)(?:\+(-?\d+))?\]", operand)
        if not m:
            raise Error(f"address '{operand}' is not understood")
        base, offset = self.read(m[1], "u32" if space == "shared" else "u64"), int(m[2] or 0)
        return f"{base} + ({C_TYPE['u32' if space == 'shared' else 'u64']}){offset}" if offset else base

    def place(self, operand, space, t, count):
        """An lvalue of `count` values in memory."""
        c = C_TYPE[t]
        if space == "param" and operand.startswith("[%"):
            return f"ptx::of_parameter<ptx::Vector<{c}, {count}>>((const void *)(uintptr_t)({self.address(operand, space)}), 0)"
        if space == "param":
            m = re.fullmatch(r"\[(\w+)(?:\+(\d+))?\]", operand)
            if not m or m[1] not in self.parameters:
                raise Error(f"{operand} is no parameter")
            index, size = self.parameters[m[1]]
            offset = int(m[2] or 0)
            if offset + count * size_of(t) > size:
                raise Error(f"{operand} lies beyond its parameter")
            return f"ptx::of_parameter<ptx::Vector<{c}, {count}>>(args[{index}], {offset})"
        return f"ptx::of_{space}<ptx::Vector<{c}, {count}>>({self.address(operand, space)})"

    def site(self):
        return f'emu::Site{{"{self.name} (PTX)", {self.here}, 0}}'

    # ---- the function

    def text(self):
        lines = [f"static void run_{self.name}(const void *const *args) {{", "    (void)args;"]
        by_type = {}
        for name, t in self.used.items():
            by_type.setdefault(t, []).append(name)
        for t, names in by_type.items():
            lines.append(f"    {C_TYPE[t]} {', '.join(sorted(names, key=lambda n: (len(n), n)))};")
        for i, (symbol, pointer) in enumerate(self.shared.items()):
            if symbol in self.used_shared:
                if "KEY" in pointer:
                    lines.append(f"    static const char key_{i} = 0;")
                lines.append(f"    const uint32_t shared_{i} = ptx::shared_address({pointer.replace('KEY', f'key_{i}')});")
        return "\n".join(lines + self.code + ["}"])


# ---- rules: (kernel, operands, groups of the pattern) -> statements

RULES = []


def rule(pattern):
    def add(function):
        RULES.append((re.compile(pattern), function))
        return function
    return add


def binary(symbol, t, k, o):
    """Of integers: as unsigned ones, whose overflow is defined."""
    wide = "uint64_t" if size_of(t) == 8 else "uint32_t"
    return k.write(o[0], t, f"({wide}){k.read(o[1], t)} {symbol} ({wide}){k.read(o[2], t)}")


@rule(r"(add|sub|mul)\.rn\.(f32|f64)")
def _(k, o, op, t):
    return k.write(o[0], t, f"{k.read(o[1], t)} {dict(add='+', sub='-', mul='*')[op]} {k.read(o[2], t)}")


@rule(rf"(add|sub)\.({INTEGER})")
def _(k, o, op, t):
    return binary(dict(add="+", sub="-")[op], t, k, o)


@rule(rf"mul\.lo\.({INTEGER})")
def _(k, o, t):
    return binary("*", t, k, o)


@rule(r"mul\.wide\.([su])(16|32)")
def _(k, o, sign, bits):
    wide = f"{sign}{2 * int(bits)}"
    return k.write(o[0], wide, f"({C_TYPE[wide]}){k.read(o[1], sign + bits)} * ({C_TYPE[wide]}){k.read(o[2], sign + bits)}")


@rule(r"mul\.hi\.([su])(32|64)")
def _(k, o, sign, bits):
    wide = ("" if sign == "s" else "unsigned ") + "__int128"
    return k.write(o[0], sign + bits, f"(({wide}){k.read(o[1], sign + bits)} * ({wide}){k.read(o[2], sign + bits)}) >> {bits}")


@rule(r"mad\.lo\.([su](?:32|64))")
def _(k, o, t):
    u = "u" + t[1:]
    return k.write(o[0], u, f"{k.read(o[1], u)} * {k.read(o[2], u)} + {k.read(o[3], u)}")


@rule(r"mad\.wide\.([su])32")
def _(k, o, sign):
    t = C_TYPE[sign + "64"]
    return k.write(o[0], "u64", f"(uint64_t)(({t}){k.read(o[1], sign + '32')} * ({t}){k.read(o[2], sign + '32')}) + {k.read(o[3], 'u64')}")


@rule(r"(div|rem)\.([su](?:16|32|64))")
def _(k, o, op, t):
    return k.write(o[0], t, f"ptx::{op}<{C_TYPE[t]}>({k.read(o[1], t)}, {k.read(o[2], t)})")


@rule(r"fma\.rn\.(f32|f64)")
def _(k, o, t):
    return k.write(o[0], t, f"__builtin_fma{'f' if t == 'f32' else ''}({', '.join(k.read(x, t) for x in o[1:])})")


@rule(r"fma\.rm\.f32")
def _(k, o):
    return k.write(o[0], "f32", f"ptx::fma_down({', '.join(k.read(x, 'f32') for x in o[1:])})")


@rule(r"fma\.rn\.bf16x2")
def _(k, o):
    return k.write(o[0], "b32", f"ptx::fma_bf16x2({', '.join(k.read(x, 'b32') for x in o[1:])})")


@rule(r"(div|sqrt|rcp)\.rn\.(f32|f64)")
def _(k, o, op, t):
    x = k.read(o[1], t)
    root = f"__builtin_sqrt{'f' if t == 'f32' else ''}({x})"
    return k.write(o[0], t, root if op == "sqrt" else f"1 / {x}" if op == "rcp" else f"{x} / {k.read(o[2], t)}")


@rule(r"rcp\.approx\.ftz\.f64")
def _(k, o):
    return k.write(o[0], "f64", f"ptx::about_inverse({k.read(o[1], 'f64')})")


@rule(r"ex2\.approx\.ftz\.f32")
def _(k, o):
    return k.write(o[0], "f32", f"ptx::exp2_flushed({k.read(o[1], 'f32')})")


@rule(r"(min|max)\.(f32|f64)")
def _(k, o, op, t):
    return k.write(o[0], t, f"__builtin_f{op}{'f' if t == 'f32' else ''}({k.read(o[1], t)}, {k.read(o[2], t)})")


@rule(r"(min|max)\.([su](?:16|32|64))")
def _(k, o, op, t):
    a, b = k.read(o[1], t), k.read(o[2], t)
    return k.write(o[0], t, f"{a} {'<' if op == 'min' else '>'} {b} ? {a} : {b}")


@rule(r"(neg|abs)\.(f32|f64)")
def _(k, o, op, t):
    x = k.read(o[1], t)
    return k.write(o[0], t, f"-{x}" if op == "neg" else f"__builtin_fabs{'f' if t == 'f32' else ''}({x})")


@rule(r"(neg|abs)\.(s32|s64)")
def _(k, o, op, t):
    u = "u" + t[1:]
    negative = f"0 - {k.read(o[1], u)}"
    return k.write(o[0], u, negative if op == "neg" else f"{k.read(o[1], t)} < 0 ? {negative} : {k.read(o[1], u)}")


@rule(r"(and|or|xor)\.(b16|b32|b64|pred)")
def _(k, o, op, t):
    return k.write(o[0], t, f"{k.read(o[1], t)} {dict(zip(('and', 'or', 'xor'), '&|^'))[op]} {k.read(o[2], t)}")


@rule(r"not\.(b16|b32|b64|pred)")
def _(k, o, t):
    return k.write(o[0], t, ("!" if t == "pred" else "~") + k.read(o[1], t))


@rule(r"(shl|shr)\.([sub](?:16|32|64))")
def _(k, o, op, t):
    return k.write(o[0], t, f"ptx::{op}<{C_TYPE[t]}>({k.read(o[1], t)}, {k.read(o[2], 'u32')})")


@rule(r"shf\.([lr])\.wrap\.b32")
def _(k, o, side):
    return k.write(o[0], "b32", f"ptx::funnel_{side}({', '.join(k.read(x, 'b32') for x in o[1:])})")


@rule(r"(bfi|prmt)\.b32")
def _(k, o, op):
    return k.write(o[0], "b32", f"ptx::{op}({', '.join(k.read(x, 'b32') for x in o[1:])})")


@rule(r"setp\.(eq|ne|lt|le|gt|ge)\.([sub](?:16|32|64))")
def _(k, o, relation, t):
    return k.write(o[0], "pred", f"{k.read(o[1], t)} {COMPARE[relation]} {k.read(o[2], t)}")


# Ordered relations are false for NaN, those with u true.
@rule(r"setp\.(eq|ne|lt|le|gt|ge|num|nan)(u?)\.(f32|f64)")
def _(k, o, relation, unordered, t):
    a, b = k.read(o[1], t), k.read(o[2], t)
    nan = f"__builtin_isunordered({a}, {b})"
    if relation in ("num", "nan"):
        return k.write(o[0], "pred", ("!" if relation == "num" else "") + nan)
    compare = f"({a} {COMPARE[relation]} {b})"
    return k.write(o[0], "pred", f"{nan} || {compare}" if unordered else f"!{nan} && {compare}")


@rule(r"selp\.([subf](?:16|32|64))")
def _(k, o, t):
    return k.write(o[0], t, f"{k.read(o[3], 'pred')} ? {k.read(o[1], t)} : {k.read(o[2], t)}")


# ---- moves and conversions


@rule(r"mov\.([subf](?:16|32|64)|pred)")
def _(k, o, t):
    if o[1].startswith("{"):  # parts to a whole, the first one lowest
        parts = split_operands(o[1][1:-1])
        bits = 8 * size_of(t) // len(parts)
        return k.write(o[0], t, " | ".join(f"(uint64_t){k.read(p, f'b{bits}')} << {bits * i}" for i, p in enumerate(parts)))
    if o[0].startswith("{"):
        parts = split_operands(o[0][1:-1])
        bits = 8 * size_of(t) // len(parts)
        return f"const uint64_t x = {k.read(o[1], t)}; " + " ".join(k.write(p, f"b{bits}", f"x >> {bits * i}") for i, p in enumerate(parts))
    return k.write(o[0], t, k.read(o[1], t))


@rule(r"cvt\.([su](?:8|16|32|64))\.([su](?:8|16|32|64))")
def _(k, o, to, of):
    return k.write(o[0], to, f"({C_TYPE[to]}){k.read(o[1], of)}")


@rule(r"cvt\.rn\.(f32|f64)\.([su](?:8|16|32|64)|f64)")
def _(k, o, to, of):
    return k.write(o[0], to, f"({C_TYPE[to]}){k.read(o[1], of)}")


@rule(r"cvt\.f64\.f32")
def _(k, o):
    return k.write(o[0], "f64", f"(double){k.read(o[1], 'f32')}")


@rule(r"cvt\.r([nzmp])i\.([su](?:32|64))\.(f32|f64)")
def _(k, o, way, to, of):
    return k.write(o[0], to, f"ptx::to_integer<{C_TYPE[to]}>(ptx::round_{way}({k.read(o[1], of)}))")


@rule(r"cvt\.r([nzmp])i\.(f32|f64)\.(f32|f64)")
def _(k, o, way, to, of):
    return k.write(o[0], to, f"ptx::round_{way}({k.read(o[1], of)})")


@rule(r"cvt\.sat\.f32\.f32")
def _(k, o):
    return k.write(o[0], "f32", f"ptx::saturated({k.read(o[1], 'f32')})")


@rule(r"cvt\.f32\.f16")
def _(k, o):
    return k.write(o[0], "f32", f"ptx::half_value({k.read(o[1], 'b16')})")


@rule(r"cvt\.rn\.bf16x2\.f32")  # the first source is the upper half
def _(k, o):
    return k.write(o[0], "b32", f"ptx::pack_bf16({k.read(o[2], 'f32')}, {k.read(o[1], 'f32')})")


@rule(r"cvta\.to\.(global|shared)\.u64")
def _(k, o, space):
    return k.write(o[0], "u64", f"ptx::to_{space}({k.read(o[1], 'u64')})")


@rule(r"cvta\.(global|shared)\.u64")
def _(k, o, space):
    return k.write(o[0], "u64", k.read(o[1], "u64") if space == "global" else f"ptx::from_shared({k.read(o[1], 'u64')})")


# ---- memory

SPACES = r"(?:\.(param|global|shared))?"


@rule(rf"ld{SPACES}(?:\.nc)?(?:\.L1::no_allocate)?(?:\.v([24]))?\.([subf](?:8|16|32|64))")
def _(k, o, space, vector, t):
    registers = split_operands(o[0][1:-1]) if o[0].startswith("{") else [o[0]]
    if len(registers) != int(vector or 1):
        raise Error("the vector's size is another one")
    return (f"const auto x = {k.place(o[1], space or 'generic', t, len(registers))}; " +
            " ".join(k.write(r, t, f"x.v[{i}]") for i, r in enumerate(registers)))


@rule(r"st(?:\.(global|shared))?(?:\.v([24]))?\.([subf](?:8|16|32|64))")
def _(k, o, space, vector, t):
    registers = split_operands(o[1][1:-1]) if o[1].startswith("{") else [o[1]]
    if len(registers) != int(vector or 1):
        raise Error("the vector's size is another one")
    return f"{k.place(o[0], space or 'generic', t, len(registers))} = {{{{{', '.join(k.read(r, t) for r in registers)}}}}};"


# ---- control


@rule(r"bra(?:\.uni)?")
def _(k, o):
    return f"goto {k.label(o[0])};"


@rule(r"ret|exit")
def _(k, o):
    return "return;"


@rule(r"bar\.sync|barrier\.sync(?:\.aligned)?")
def _(k, o):
    if o != ["0"]:
        raise Error("only barrier 0 of all threads is known")
    return f"emu::barrier({k.site()});"


@rule(r"bar\.warp\.sync")
def _(k, o):
    return f"emu::sync_warp({k.read(o[0], 'b32')}, {k.site()});"


# ---- operations of a warp


@rule(r"shfl\.sync\.(bfly|idx)\.b32")
def _(k, o, kind):
    to, *inside = o[0].split("|")
    call = f"ptx::shuffle(emu::SHFL_{dict(bfly='XOR', idx='IDX')[kind]}, {', '.join(k.read(x, 'b32') for x in o[1:])}, {k.site()})"
    return k.write(to, "b32", call) + "".join(" " + k.write(p, "pred", "true") for p in inside)


@rule(r"vote\.sync\.ballot\.b32")
def _(k, o):
    return k.write(o[0], "b32", f"emu::ballot({k.read(o[2], 'b32')}, {k.read(o[1], 'pred')}, {k.site()})")


@rule(r"mma\.sync\.aligned\.m16n8k16\.row\.col\.f32\.bf16\.bf16\.f32")
def _(k, o):
    d, a, b, c = (split_operands(x[1:-1]) for x in o)
    if [len(x) for x in (d, a, b, c)] != [4, 4, 2, 4]:
        raise Error("a fragment's size is another one")
    values = ", ".join
    return (f"float d[4] = {{{values(k.read(x, 'f32') for x in c)}}}; const uint32_t a[4] = {{{values(k.read(x, 'b32') for x in a)}}}, "
            f"b[2] = {{{values(k.read(x, 'b32') for x in b)}}}; emu::mma_m16n8k16_bf16(d, a, b, {k.site()}); " +
            " ".join(k.write(x, "f32", f"d[{i}]") for i, x in enumerate(d)))


@rule(r"ldmatrix\.sync\.aligned\.m8n8\.x4(\.trans)?\.shared\.b16")
def _(k, o, transposed):
    registers = split_operands(o[0][1:-1])
    if len(registers) != 4:
        raise Error("a fragment's size is another one")
    return (f"uint32_t x[4]; emu::ldmatrix_x4(x, ptx::shared_pointer({k.address(o[1], 'shared')}), {str(bool(transposed)).lower()}, {k.site()}); " +
            " ".join(k.write(r, "b32", f"x[{i}]") for i, r in enumerate(registers)))


@rule(r"cp\.async\.cg\.shared\.global")
def _(k, o):
    if o[2] != "16":
        raise Error("16 bytes is what .cg copies")
    size = k.read(o[3], "u32") if len(o) > 3 else "16u"
    return (f"emu::cp_async16(ptx::shared_pointer({k.address(o[0], 'shared')}), ptx::global_pointer({k.address(o[1], 'global')}), "
            f"ptx::whole_or_nothing({size}), {k.site()});")


@rule(r"cp\.async\.commit_group")
def _(k, o):
    return "emu::cp_async_commit();"


@rule(r"cp\.async\.wait_group")
def _(k, o):
    return f"emu::cp_async_wait({int(o[0])});"


# ---- a file


def kernels_of(text, only):
    dynamic, out = [], []

    def outside(part):
        part = re.sub(r"\.extern\s+\.shared\s+\.align\s+\d+\s+\.b8\s+(\w+)\[\];", lambda m: dynamic.append(m[1]) or "", part)
        part = re.sub(r"\.(version|target|address_size|maxntid|minnctapersm)\b[^\n]*", "", part)
        if part.strip():
            raise Error(f"declaration '{part.strip().splitlines()[0]}' has no rule in ptx2cpp.py")

    at = 0
    for m in re.finditer(r"\.visible\s+\.entry\s+(\w+)\s*\(([^)]*)\)([^{]*)\{", text):
        outside(text[at:m.start()] + m[3])
        at = end_of_body(text, m.end()) + 1
        if only is None or re.fullmatch(only, m[1]):
            out.append(Kernel(m[1], m[2], text[m.end():at - 1], 1 + text[:m.end()].count("\n"), list(dynamic)))
    outside(text[at:])
    return out


def main():
    if len(sys.argv) not in (3, 5) or (len(sys.argv) == 5 and sys.argv[3] != "--only"):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        with open(sys.argv[1]) as f:
            kernels = kernels_of(without_comments(f.read()), sys.argv[4] if len(sys.argv) == 5 else None)
    except Error as e:
        print(f"{sys.argv[1]}: {e}", file=sys.stderr)
        return 1
    with open(sys.argv[2], "w") as f:
        f.write(f'// Made by tests/cuda/ptx/ptx2cpp.py of {sys.argv[1]}.\n#include "tests/cuda/ptx/ptx.h"\n\n')
        for kernel in kernels:
            f.write(kernel.text() + "\n\n")
        rows = "".join(f'    {{"{k.name}", run_{k.name}, {{{", ".join(str(n) for _, n in sorted(k.parameters.values()))}}}}},\n' for k in kernels)
        f.write(f"static const ptx::Entry entries[] = {{\n{rows}    {{nullptr, nullptr, {{}}}},\n}};\nstatic const ptx::File file(entries);\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
