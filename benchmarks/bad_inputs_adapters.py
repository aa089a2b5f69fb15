"""LoRA files in the spellings of several trainers: broken tensors, scales, settings and folders.

The truth is the update of every kernel, scale B A, computed here from the factors that are written.
"""

from __future__ import annotations

import functools
import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from bad_inputs_case import Case
from bad_inputs_models import intact
from bad_inputs_weights import join_file, packed, split_file

from onereward_jax.convert import FLUX, load_adapter
from onereward_jax.models.lora import FACTOR_A, FACTOR_B

RANK, ALPHA = 4, 8.0
WIDTH, MLP = 128, 512
QKV = tuple(f"transformer_blocks.0.attn.{one}" for one in ("to_q", "to_k", "to_v"))
SINGLE = "single_transformer_blocks.1"
MODULES: dict[str, tuple[int, int, dict[str, int]]] = {
    "double_blocks.0.img_attn.qkv": (WIDTH, 3 * WIDTH, dict.fromkeys(QKV, WIDTH)),
    "double_blocks.0.img_attn.proj": (
        WIDTH, WIDTH, {"transformer_blocks.0.attn.to_out.0": WIDTH},
    ),
    "double_blocks.1.txt_mlp.2": (MLP, WIDTH, {"transformer_blocks.1.ff_context.net.2": WIDTH}),
    "single_blocks.1.linear1": (
        WIDTH, 3 * WIDTH + MLP,
        {f"{SINGLE}.attn.{one}": WIDTH for one in ("to_q", "to_k", "to_v")}
        | {f"{SINGLE}.proj_mlp": MLP},
    ),
    "single_blocks.1.linear2": (WIDTH + MLP, WIDTH, {f"{SINGLE}.proj_out": WIDTH}),
}  # fmt: skip
"""Module of the original release -> inputs, outputs, and diffusers' modules with their outputs."""

CONFIG = {
    "peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "use_rslora": False, "use_dora": False,
    "lora_bias": False, "bias": "none", "alpha_pattern": {}, "rank_pattern": {},
    "target_modules": ["to_q"], "fan_in_fan_out": False, "modules_to_save": None,
    "inference_mode": True, "base_model_name_or_path": "x", "task_type": None,
}  # fmt: skip
NO_MATTER = (
    "r", "bias", "rank_pattern", "target_modules", "modules_to_save", "inference_mode",
    "base_model_name_or_path", "task_type", "alpha_pattern", "lora_bias",
)  # fmt: skip
VALUES = (
    None, -1, 0, 1.5, 2**70, float("nan"), float("inf"), "word", "8", "", True, False, [], [1], {},
    {"x": 1}, {"(": 1}, {"to_q": "8"}, {"to_q": None}, {"to_q": float("nan")}, {"to_q": [1]},
)  # fmt: skip

Tensors = dict[str, np.ndarray]


def prepare(root: Path) -> None:
    """Nothing: the factors are drawn from a fixed seed."""


@functools.cache
def _factors() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Module of the original release -> A [r, in], B [out, r]."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: (rng.normal(size=shape) * 0.1).astype(np.float32)
    return {name: (draw(RANK, i), draw(o, RANK)) for name, (i, o, _) in MODULES.items()}


def _truth(scale: float = ALPHA / RANK) -> dict[str, np.ndarray]:
    """Diffusers' module -> update [out, in] in float64."""
    updates = {}
    for name, (a, b) in _factors().items():
        rows = MODULES[name][2]
        pieces = np.split(b, np.cumsum(list(rows.values()))[:-1])
        for module, piece in zip(rows, pieces, strict=True):
            updates[module] = scale * piece.astype(np.float64) @ a.astype(np.float64)
    return updates


def _diffusers(prefix: str, a: str, b: str, alpha: bool = False) -> Tensors:
    tensors = {}
    for name, (down, up) in _factors().items():
        rows = MODULES[name][2]
        pieces = np.split(up, np.cumsum(list(rows.values()))[:-1])
        for module, piece in zip(rows, pieces, strict=True):
            tensors[f"{prefix}{module}.{a}"], tensors[f"{prefix}{module}.{b}"] = down, piece
            if alpha:
                tensors[f"{prefix}{module}.alpha"] = np.array(ALPHA, np.float32)
    return tensors


def _original(prefix: str, separator: str, a: str, b: str) -> Tensors:
    tensors = {}
    for name, (down, up) in _factors().items():
        key = prefix + name.replace(".", separator)
        tensors[f"{key}.{a}"], tensors[f"{key}.{b}"] = down, up
        tensors[f"{key}.alpha"] = np.array(ALPHA, np.float32)
    return tensors


PEFT = ("lora_A.weight", "lora_B.weight")
KOHYA = ("lora_down.weight", "lora_up.weight")
SPELLINGS: dict[str, Callable[[], Tensors]] = {
    "diffusers": lambda: _diffusers("transformer.", *PEFT),
    "diffusers' model": lambda: _diffusers("", *PEFT),
    "peft": lambda: _diffusers("base_model.model.", *PEFT),
    "an adapter's name": lambda: _diffusers("", "lora_A.default.weight", "lora_B.default.weight"),
    "lora_down with alpha": lambda: _diffusers("transformer.", *KOHYA, alpha=True),
    "kohya": lambda: _original("lora_unet_", "_", *KOHYA),
    "ComfyUI": lambda: _original("diffusion_model.", ".", *KOHYA),
}
"""Spelling -> tensors. The scale of those without alpha is in the metadata."""


def _file(spelling: str, tensors: Tensors, **metadata: Any) -> bytes:
    kinds = {"float32": "F32", "float64": "F64", "float16": "F16", "int32": "I32", "uint8": "U8"}
    data = packed(tensors, {key: kinds[one.dtype.name] for key, one in tensors.items()})
    if not any(key.endswith(".alpha") for key in SPELLINGS[spelling]()):
        prefix = "transformer." if spelling == "diffusers" else ""
        settings = {f"{prefix}r": RANK, f"{prefix}lora_alpha": ALPHA}
        metadata = {"lora_adapter_metadata": json.dumps(settings)} | metadata
    header, content = split_file(data)
    return join_file({"__metadata__": {"format": "pt", **metadata}, **header}, content)


def _read(source: Path) -> dict[str, np.ndarray]:
    """Diffusers' module -> update [out, in], of the modules that have one."""
    adapter = jax.device_get(load_adapter(source, intact("transformer")["params"], FLUX))
    updates: dict[str, np.ndarray] = {}

    def walk(factors: Any, scales: Any, path: tuple[str, ...]) -> None:
        if FACTOR_A not in factors:
            for name in factors:
                walk(factors[name], scales[name], (*path, name))
            return
        a, b = (np.asarray(factors[name], np.float64) for name in (FACTOR_A, FACTOR_B))
        layers = zip(a, b, np.asarray(scales)) if a.ndim == 3 else [(a, b, scales)]
        for index, (down, up, scale) in enumerate(layers):
            update = float(scale) * (down @ up).T
            name = ".".join(path)
            for stack in ("single_transformer_blocks", "transformer_blocks"):
                if a.ndim == 3 and name.startswith(stack + "."):
                    name = name.replace(stack, f"{stack}.{index}", 1)
                    break
            if np.any(update):  # also NaN
                updates[_dotted(name)] = update

    walk(adapter.factors, adapter.scales, ())
    return updates


def _dotted(name: str) -> str:
    """`to_out_0` and `net_0` as diffusers has them."""
    for ours, theirs in (("to_out_0", "to_out.0"), ("net_0", "net.0"), ("net_2", "net.2")):
        name = name.replace(ours, theirs)
    return name


def _is(updates: dict[str, np.ndarray]) -> Callable[[dict[str, np.ndarray]], bool]:
    return lambda found: (
        found.keys() == updates.keys()
        and all(np.allclose(found[name], updates[name], rtol=1e-4, atol=1e-6) for name in updates)
    )


def cases(root: Path, rng: random.Random) -> Iterator[Case]:
    """Mutations of every spelling, of the settings, and of folders."""
    right = lambda: _is(_truth())
    for name in SPELLINGS:
        whole = functools.cache(lambda name=name: _file(name, SPELLINGS[name]()))
        yield _case("intact", name, "", whole, truth=right, good=True)
        yield from _of_tensors(name, rng)
        start = 8 + int.from_bytes(whole()[:8], "little")
        for place in (0, 7, 8, start - 1, start, *(rng.randrange(len(whole())) for _ in range(10))):
            yield _case("cut", name, str(place), lambda place=place, whole=whole: whole()[:place])
        for _ in range(40):
            place, value = rng.randrange(start), rng.randrange(32, 127)
            data = lambda place=place, value=value, whole=whole: (
                whole()[:place] + bytes([value]) + whole()[place + 1 :]
            )
            # A flipped digit of lora_alpha is another scale, that of a name another adapter.
            yield _case("header bytes", name, f"{place} = {value}", data, truth=_anything_finite)
    yield from _of_settings()
    yield from _of_folders()


def _anything_finite() -> Callable[[dict[str, np.ndarray]], bool]:
    names = _truth().keys()
    return lambda found: (
        found.keys() <= names and all(np.isfinite(update).all() for update in found.values())
    )


def _case(kind: str, name: str, what: str, data: Callable[[], bytes], **expected: Any) -> Case:
    def read(folder: Path) -> Any:
        path = folder / "pytorch_lora_weights.safetensors"
        path.write_bytes(data())
        return _read(path)

    return Case(f"adapters: {kind}", f"{name} {what}", read, **expected)


def _of_tensors(name: str, rng: random.Random) -> Iterator[Case]:
    keys = sorted(SPELLINGS[name]())

    def changed(change: Callable[[Tensors], Any]) -> Callable[[], bytes]:
        def data() -> bytes:
            tensors = dict(SPELLINGS[name]())
            change(tensors)
            return _file(name, tensors)

        return data

    for key in rng.sample(keys, 8):
        if not key.endswith("alpha"):
            yield _case("missing", name, key, changed(lambda t, key=key: t.pop(key)))
        for what, resize in (
            ("a row less", lambda x: x[:-1]), ("a column more", lambda x: np.c_[x, x[:, :1]]),
            ("transposed", lambda x: x.T), ("flat", np.ravel), ("empty", lambda x: x[:0]),
            ("as a convolution of 3x3", lambda x: np.repeat(x, 9).reshape(*x.shape, 3, 3)),
        ):  # fmt: skip
            if key.endswith("alpha"):
                continue
            change = lambda t, key=key, resize=resize: t.update({key: resize(t[key])})
            yield _case("resized", name, f"{key}, {what}", changed(change))
        for kind in (np.int32, np.uint8):
            change = lambda t, key=key, kind=kind: t.update({key: t[key].astype(kind)})
            # A scale may be an integer.
            truth = (lambda: _is(_truth())) if key.endswith("alpha") else None
            yield _case("re-typed", name, f"{key}, {kind.__name__}", changed(change), truth=truth)
        for value in (np.nan, np.inf):
            change = lambda t, key=key, value=value: t.update({key: _with(t[key], value)})
            yield _case("not finite", name, f"{key}, {value}", changed(change))
        for new in (key.replace("0", "7").replace("1", "9"), key + "_", "x." + key, "é", ""):
            if new != key and not key.endswith("alpha"):
                change = lambda t, key=key, new=new: t.update({new: t.pop(key)})
                # A name of the adapter may follow.
                same_update = lambda: _is(_truth())
                what = f"{key} to {new}"
                yield _case("renamed", name, what, changed(change), truth=same_update)
        if key.endswith("alpha"):
            for value in (np.zeros(2), np.zeros((0,)), np.array(-1.0), np.array(0.0)):
                change = lambda t, key=key, value=value: t.update({key: value.astype(np.float32)})
                truth = _anything_finite if value.shape == () else None
                yield _case("alpha", name, f"{value}", changed(change), truth=truth)
    for more in (
        "x.weight", "transformer.x.lora_A.weight", "lora_unet_x.lokr_w1", "lora_unet_x.hada_w1_a",
        "transformer.transformer_blocks.0.attn.to_q.lora_magnitude_vector",
        "transformer.transformer_blocks.0.attn.to_q.lora_B.bias",
        "transformer.transformer_blocks.0.attn.norm_q.weight",
        "transformer.transformer_blocks.0.attn.to_q.diff", "x" * 5000,
    ):  # fmt: skip
        change = lambda t, more=more: t.update({more: np.ones((4, 4), np.float32)})
        yield _case("more tensors", name, more[:60], changed(change))
    change = lambda t: [t.update({f"{key}.{n}": t[key] for n in range(40)}) for key in keys]
    yield _case("more tensors", name, "hundreds", changed(change))
    yield _case("empty", name, "", changed(lambda t: t.clear()))


def _with(array: np.ndarray, value: float) -> np.ndarray:
    other = array.copy()
    other[(0,) * other.ndim] = value
    return other


def _of_settings() -> Iterator[Case]:
    """Settings in the metadata, and peft's adapter_config.json."""
    tensors = SPELLINGS["diffusers"]()
    for what in ("", "[]", "null", "3", '"x"', "{", "\ud83d", '{"a":' * 50_000, '{"a": NaN}'):
        data = lambda what=what: _file("diffusers", tensors, lora_adapter_metadata=what)
        truth = (lambda: _is(_truth(1.0))) if what == '{"a": NaN}' else None
        yield _case("metadata", "diffusers", what[:20], data, truth=truth)
    for field in CONFIG:
        for value in VALUES:
            if value == CONFIG[field] and type(value) is type(CONFIG[field]):
                continue
            settings = {
                f"transformer.{name}": one for name, one in {**CONFIG, field: value}.items()
            }
            metadata = {"lora_adapter_metadata": json.dumps(settings)}
            yield _case(
                "metadata", "diffusers", f"{field} = {value!r}",
                lambda metadata=metadata: _file("diffusers", tensors, **metadata),
                truth=functools.partial(_with_setting, field, value),
            )  # fmt: skip
            yield Case(
                "adapters: adapter_config.json", f"{field} = {value!r}",
                functools.partial(_read_peft, {**CONFIG, field: value}),
                functools.partial(_with_setting, field, value),
            )  # fmt: skip
    for text in ("", "[]", "null", "{", '{"r":' * 100_000):
        yield Case("adapters: adapter_config.json", text[:20], functools.partial(_read_peft, text))


def _with_setting(field: str, value: Any) -> Callable[[Any], bool]:
    """What a setting of this value means; nothing if it has to be refused."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if field == "lora_alpha" and number and np.isfinite(value) and abs(value) < 1e30:
        return _is(_truth(value / RANK) if value else {})
    if field == "use_rslora" and isinstance(value, bool):
        return _is(_truth(ALPHA / (RANK**0.5 if value else RANK)))
    same_meaning = not value  # off
    if field in NO_MATTER or (field != "lora_alpha" and same_meaning):
        return _is(_truth())
    return lambda found: False


def _read_peft(config: Any, folder: Path) -> Any:
    tensors = SPELLINGS["peft"]()
    data = packed(tensors, dict.fromkeys(tensors, "F32"))
    (folder / "adapter_model.safetensors").write_bytes(data)
    text = config if isinstance(config, str) else json.dumps(config)
    (folder / "adapter_config.json").write_text(text)
    return _read(folder)


def _of_folders() -> Iterator[Case]:
    whole = lambda: _file("diffusers", SPELLINGS["diffusers"]())
    right = lambda: _is(_truth())

    def case(what: str, make: Callable[[Path], Path], **expected: Any) -> Case:
        return Case("adapters: folders", what, lambda folder: _read(make(folder)), **expected)

    def write(*names: str, inside: str = "") -> Callable[[Path], Path]:
        def make(folder: Path) -> Path:
            for name in names:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(whole())
            return folder / inside

        return make

    def other(name: str, data: bytes) -> Callable[[Path], Path]:
        return lambda folder: (folder / name).write_bytes(data) and folder / name

    yield case("the only file of any name", write("my style 2.safetensors"), truth=right, good=True)
    yield case("a file of any name", write("ä.safetensors", inside="ä.safetensors"), truth=right,
               good=True)  # fmt: skip
    yield case("two files", write("a.safetensors", "b.safetensors"))
    yield case("an empty folder", lambda folder: folder)
    yield case("no folder", lambda folder: folder / "x")
    yield case("files below", write("x/a.safetensors"))
    yield case("a pickle", other("a.pt", b"\x80\x02}q\x00."))
    yield case("text", other("a.safetensors", b"hello"))
    yield case("empty", other("a.safetensors", b"\0"))
    yield case("a full model", lambda folder: Path(shutil.copytree(_transformer(), folder / "x")))


def _transformer() -> Path:
    from bad_inputs_models import COMPONENTS

    return COMPONENTS["transformer"].folder
