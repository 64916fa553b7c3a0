"""What a line of objdump's is to a pipeline: its kind, the registers that it reads and writes, and when it needs them.

KINDS is the one list of mnemonics. A core's own file says what a kind costs there. A mnemonic that is not in the list is of the
kind UNKNOWN, and whoever estimates says how often one was executed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

UNKNOWN = "unknown"
CONDITIONS = ("eq", "ne", "cs", "hs", "cc", "lo", "mi", "pl", "vs", "vc", "hi", "ls", "ge", "lt", "gt", "le")
# kind -> the mnemonics of it, without condition, width (.w, .n), data type (.s8) and the "s" of what sets flags
KINDS: Mapping[str, str] = {
    "nothing": "nop pld",
    "if-then": "it",
    "move": "mov mvn movw movt adr",
    "arithmetic": "add addw sub subw rsb neg adc sbc cmp cmn and orr orn eor bic tst teq",
    "select": "csel csinc csinv csneg cset csetm cinc cinv cneg sel",
    "shift": "lsl lsr asr ror rrx",
    "long shift": "asrl lsll lsrl sqshl uqshl srshr urshr sqrshr uqrshl sqshll uqshll srshrl urshrl sqrshrl uqrshll",
    "extend": "sxtb sxth uxtb uxth sxtb16 uxtb16",
    "extend and add": "sxtab sxtah uxtab uxtah sxtab16 uxtab16",
    "pack": "pkhbt pkhtb",
    "bits": "clz rbit rev rev16 revsh ubfx sbfx",
    "insert": "bfi bfc",
    "lanes": "sadd8 sadd16 ssub8 ssub16 sasx ssax uadd8 uadd16 usub8 usub16 uasx usax shadd8 shadd16 shsub8 shsub16 shasx shsax "
    "uhadd8 uhadd16 uhsub8 uhsub16 uhasx uhsax qadd8 qadd16 qsub8 qsub16 qasx qsax uqadd8 uqadd16 uqsub8 uqsub16 uqasx uqsax usad8",
    "saturate": "ssat usat ssat16 usat16 qadd qsub qdadd qdsub",
    "multiply": "mul smulbb smulbt smultb smultt smulwb smulwt smmul smmulr smuad smuadx smusd smusdx",
    "multiply and add": "mla mls smlabb smlabt smlatb smlatt smlawb smlawt smmla smmlar smmls smmlsr smlad smladx smlsd smlsdx "
    "usada8",
    "long multiply": "smull umull",
    "long multiply and add": "smlal umlal umaal smlalbb smlalbt smlaltb smlaltt smlald smlaldx smlsld smlsldx",
    "divide": "sdiv udiv",
    "load": "ldr",
    "load narrow": "ldrb ldrh ldrsb ldrsh",
    "load pair": "ldrd",
    "load several": "ldm ldmia ldmdb pop",
    "store": "str strb strh",
    "store pair": "strd",
    "store several": "stm stmia stmdb push",
    "clear several": "clrm",
    "branch": "b bl cbz cbnz",
    "branch to register": "bx blx",
    "table branch": "tbb tbh",
    "loop start": "dls wls dlstp wlstp",
    "loop end": "le letp",
    "system": "dsb dmb isb mrs msr cpsid cpsie svc bkpt lctp",
    "float": "vadd vsub vabs vneg vmul vnmul vcmp vcmpe vcvt vcvtr vcvta vrinta vrintm vrintx vrintz vmaxnm vminnm "
    "vseleq vselge vselgt vselvs",
    "float multiply and add": "vmla vmls vnmla vnmls vfma vfms vfnma vfnms",
    "float divide": "vdiv vsqrt",
    "float move": "vmov",
    "float flags": "vmrs vmsr",
    "float load": "vldr",
    "float load several": "vldm vldmia vldmdb vpop",
    "float store": "vstr",
    "float store several": "vstm vstmia vstmdb vpush",
    "vector predicate": "vpst vpnot vctp",
}
# The same for what computes on vectors of 128 bits (MVE, "Helium"): these names with a vector among their operands.
VECTOR_KINDS: Mapping[str, str] = {
    "vector load": "vldrb vldrh vldrw vldrd vld20 vld21 vld40 vld41 vld42 vld43",
    "vector store": "vstrb vstrh vstrw vstrd vst20 vst21 vst40 vst41 vst42 vst43",
    "vector integer": "vadd vsub vand vorr veor vbic vorn vmvn vneg vabs vabd vmax vmin vmaxa vmina vdup vddup vidup vdwdup viwdup "
    "vshl vshr vsli vsri vshlc vshllb vshllt vrev16 vrev32 vrev64 vhadd vhsub vrhadd vhcadd vcadd vqadd vqsub vqabs vqneg vmovlb "
    "vmovlt vpsel vclz vcls vbrsr",
    "vector rounding shift": "vrshl vqshl vqshlu vqrshl vrshr vadc vadci vsbc vsbci",
    "vector narrow": "vmovnb vmovnt vqmovnb vqmovnt vqmovunb vqmovunt vshrnb vshrnt vrshrnb vrshrnt vqshrnb vqshrnt vqshrunb "
    "vqshrunt vqrshrnb vqrshrnt vqrshrunb vqrshrunt",
    "vector across": "vmaxv vminv vmaxav vminav vabav",
    "vector multiply": "vmul vmulh vrmulh vqdmulh vqrdmulh vmullb vmullt vqdmullb vqdmullt vmla vmlas vqdmlah vqdmlash vqrdmlah "
    "vqrdmlash vqdmladh vqdmladhx vqrdmladh vqrdmladhx vqdmlsdh vqdmlsdhx vqrdmlsdh vqrdmlsdhx vfma vfms vfmas vcmul vcmla vcvt",
    "vector sum": "vmlav vmlava vmladav vmladava vmladavx vmladavax vmlsdav vmlsdava vmlsdavx vmlsdavax vaddv vaddva",
    "vector long sum": "vmlalv vmlalva vmlaldav vmlaldava vmlaldavx vmlaldavax vmlsldav vmlsldava vmlsldavx vmlsldavax vrmlalvh "
    "vrmlalvha vrmlaldavh vrmlaldavha vrmlaldavhx vrmlaldavhax vrmlsldavh vrmlsldavha vrmlsldavhx vrmlsldavhax vaddlv vaddlva",
    "vector compare": "vcmp vpt",
    "vector move": "vmov",
}
KIND_OF = {name: kind for kind, names in KINDS.items() for name in names.split()}
VECTOR_KIND_OF = {name: kind for kind, names in VECTOR_KINDS.items() for name in names.split()}

COMPARES = frozenset(("cmp", "cmn", "tst", "teq", "vcmp", "vcmpe", "vpt"))
_ADD_TO_FIRST = (
    "movt bfi bfc vmla vmls vnmla vnmls vfma vfms vfnma vfnms vmlas vfmas vsli vsri vqdmlah vqdmlash vqrdmlah vqrdmlash vqdmladh "
    "vqdmladhx vqrdmladh vqrdmladhx vcmla vabav vmaxv vminv vmaxav vminav"
)
ADDS_TO_FIRST = frozenset(_ADD_TO_FIRST.split())
ACCUMULATE = frozenset(("multiply and add", "long multiply and add"))
STORES = frozenset(("store", "store pair", "store several", "float store", "float store several", "vector store"))
LOADS = frozenset(("load", "load narrow", "load pair", "load several", "float load", "float load several", "vector load"))
BRANCHES = frozenset(("branch", "branch to register", "table branch", "loop start", "loop end"))
SHORT_DATA = frozenset(("arithmetic", "shift", "lanes", "saturate", "multiply", "divide", "select"))  # `add r0, r1` reads r0, too
_ALIASES = {"sb": "r9", "sl": "r10", "fp": "r11", "ip": "r12", "r13": "sp", "r14": "lr", "r15": "pc"}
_REGISTER = re.compile(r"\b(?:r1[0-5]|r[0-9]|sb|sl|fp|ip|sp|lr|pc|([sdq])([0-9]+))\b")
_RANGE = re.compile(r"\b([srd])([0-9]+)-\1([0-9]+)\b")


@dataclass(frozen=True)
class Instruction:
    """One of a program, at its address. name: its mnemonic, bare; size: bytes.

    reads: what it computes with. addresses: registers that memory is found by. first: what it adds to or stores, which a pipeline
    may take late. writes: all that it computes or loads; updated: the base register that a load or store moves on.
    words: of 32 bits that it loads or stores; of a gathering or scattering vector, its lanes. shifted: its last operand is shifted.
    indexed: its address is a sum of two registers; offset: bytes from the one register that it is.
    conditional: it may not be executed, or, a branch, not be taken.
    """

    address: int
    size: int
    text: str
    name: str
    kind: str
    reads: frozenset[str] = frozenset()
    first: frozenset[str] = frozenset()
    addresses: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()
    updated: frozenset[str] = frozenset()
    words: int = 0
    shifted: bool = False
    indexed: bool = False
    offset: int | None = None
    conditional: bool = False

    @property
    def end(self) -> int:
        """The address behind it."""
        return self.address + self.size

    @property
    def moved(self) -> int:
        """How many registers of the integer core a move from or to another register file has."""
        return sum(not name.startswith("s") or name == "sp" for name in self.writes | self.reads)


Block = tuple[Instruction, ...]  # one after the other, of which only the last may jump


def parse(address: int, size: int, text: str) -> Instruction:
    """text: mnemonic, tab or blanks, operands, as objdump prints them; a comment (@, ;) may follow."""
    mnemonic, _, rest = re.split(r"\s*[@;]", text.strip(), maxsplit=1)[0].replace("\t", " ").partition(" ")
    operands = _operands(rest)
    name, kind, conditional = _known(mnemonic, operands)
    plain = Instruction(address, size, f"{mnemonic} {rest}".strip(), name, kind, conditional=conditional or name in ("cbz", "cbnz"))
    if kind == UNKNOWN:
        return plain
    return _with_registers(plain, operands)


def _known(mnemonic: str, operands: list[str]) -> tuple[str, str, bool]:
    """(bare name, kind, whether a condition stands in the name)."""
    base = mnemonic.split(".")[0]
    if re.fullmatch(r"it[te]{0,3}", base):
        return "it", "if-then", False
    if re.fullmatch(r"vpt[te]{0,3}", base):
        return "vpt", "vector compare", False
    if re.fullmatch(r"vpst[te]{0,3}", base):
        return "vpst", "vector predicate", False
    if any(re.match(r"\{?q[0-7]\b|\[q[0-7]\b", operand) for operand in operands):
        for name in (base, base[:-1]):  # the last letter of a predicated one is t or e
            if name in VECTOR_KIND_OF and (name == base or base[-1] in "te"):
                return name, VECTOR_KIND_OF[name], name != base
    if base in ("vmrs", "vmsr") and "p0" in operands:
        return base, "vector predicate", False
    for cut, condition in ((base, False), (base[:-2], True)):
        if condition and base[-2:] not in CONDITIONS:
            break
        for name in (cut, cut.removesuffix("s")) if condition else (cut,):
            if name in KIND_OF:
                return name, KIND_OF[name], condition
    plain = base.removesuffix("s")
    return (plain, KIND_OF[plain], False) if plain in KIND_OF else (base, UNKNOWN, False)


def _operands(text: str) -> list[str]:
    """Separated by the commas that stand in no bracket."""
    return [part.strip() for part in re.findall(r"(?:\[[^\]]*\]!?|\{[^}]*\}|[^,\[{])+", text) if part.strip()]


def registers(text: str) -> frozenset[str]:
    """By one name each: vectors and doubles as the single floats that they are made of."""
    found: set[str] = set()
    spread = _RANGE.sub(lambda m: ",".join(f"{m[1]}{i}" for i in range(int(m[2]), int(m[3]) + 1)), text)
    for match in _REGISTER.finditer(spread):
        if match[1] is None:
            found.add(_ALIASES.get(match[0], match[0]))
        else:
            wide = {"s": 1, "d": 2, "q": 4}[match[1]]
            found.update(f"s{int(match[2]) * wide + i}" for i in range(wide))
    return frozenset(found)


def _with_registers(plain: Instruction, operands: list[str]) -> Instruction:
    if plain.kind in LOADS | STORES:
        return _of_memory(plain, operands)
    if plain.kind in BRANCHES:
        return _of_branch(plain, operands)
    shifted = len(operands) > 1 and re.match(r"(lsl|lsr|asr|ror|rrx)\b", operands[-1]) is not None
    parts = [registers(operand) for operand in operands]
    writes, read = _split(plain, parts)
    first: frozenset[str] = frozenset()
    if plain.kind in ACCUMULATE or plain.name in ADDS_TO_FIRST or _sums_on(plain):
        first = writes if plain.kind != "multiply and add" or plain.name == "usada8" else parts[-1]
        read = [part for part in read if part is not first]
    elif plain.kind in SHORT_DATA and len(operands) == 2 and plain.name not in (*COMPARES, "neg", "rsb", "cset", "csetm"):
        read = [writes, *read]
    return replace(plain, reads=_union(read), first=first, writes=writes, shifted=shifted)


def _sums_on(plain: Instruction) -> bool:
    """vmladava, vaddlva, vrmlaldavhax: the letter a says that what was there is added."""
    return plain.kind in ("vector sum", "vector long sum") and plain.name.removesuffix("x").endswith(("va", "ha"))


def _split(plain: Instruction, parts: list[frozenset[str]]) -> tuple[frozenset[str], list[frozenset[str]]]:
    """(what is written, what is read) of an instruction that computes."""
    if not parts or plain.kind in ("nothing", "if-then", "system") or plain.name in COMPARES:
        return frozenset(), parts
    if plain.kind == "clear several":
        return parts[0], []
    two = plain.kind in ("long multiply", "long multiply and add", "vector long sum", "long shift") and len(parts) > 2
    two = two or (plain.name == "vmov" and _core_pair(parts))
    count = 2 if two else 1
    writes = _union(parts[:count])
    return writes, [*parts[count:], *([writes] if plain.kind == "long shift" else [])]


def _core_pair(parts: list[frozenset[str]]) -> bool:
    """vmov r0, r1, d0  or  vmov q0[2], q0[0], r0, r1: two written."""
    return len(parts) == 4 or (len(parts) == 3 and not any(name.startswith("s") for name in parts[0]))


def _of_memory(plain: Instruction, operands: list[str]) -> Instruction:
    several = any(operand.startswith("{") for operand in operands) and "vector" not in plain.kind
    if several:
        values = registers(operands[-1])
        base = frozenset(("sp",)) if len(operands) == 1 else registers(operands[0])
        moved = base if len(operands) == 1 or operands[0].endswith("!") else frozenset[str]()
        return _transfer(plain, values, base, moved, len(values))
    place = next((i for i, operand in enumerate(operands) if operand.startswith("[")), len(operands))
    values = _union(registers(operand) for operand in operands[:place])
    memory = operands[place] if place < len(operands) else ""
    inside = [registers(part) for part in memory.strip("[]!").split(",")]
    moved = inside[0] if memory.endswith("!") or place + 1 < len(operands) else frozenset()
    addresses = _union([*inside, *(registers(operand) for operand in operands[place + 1 :])]) - {"pc"}
    words = max(1, len(values)) if "vector" not in plain.kind else 4
    if words == 4 and any(name.startswith("s") and name != "sp" for name in addresses):
        words = 128 // int(re.sub(r".*?\.[us]?(\d+)\b.*", r"\1", plain.text))  # gathered: an access a lane
    made = _transfer(plain, values, addresses, moved, words)
    immediate = re.fullmatch(r"\[\w+(?:, #(-?\d+))?\]!?", memory)
    return replace(made, indexed=len(inside) > 1 and bool(inside[1]), offset=int(immediate[1] or 0) if immediate else None)


def _transfer(
    plain: Instruction, values: frozenset[str], addresses: frozenset[str], moved: frozenset[str], words: int
) -> Instruction:
    if plain.kind in STORES:
        return replace(plain, first=values, addresses=addresses, updated=moved, words=words)
    return replace(plain, writes=values, addresses=addresses, updated=moved, words=words)


def _of_branch(plain: Instruction, operands: list[str]) -> Instruction:
    reads = _union(registers(operand.split("<")[0]) for operand in operands)
    writes = {"bl": frozenset(("lr",)), "blx": frozenset(("lr",))}.get(plain.name, frozenset[str]())
    if plain.kind == "loop start":
        writes, reads = frozenset(("lr",)), reads - {"lr"} if len(operands) > 1 and operands[1] != "lr" else reads
    return replace(plain, reads=reads, writes=writes)


def _union(parts: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset().union(*parts)
