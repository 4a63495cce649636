"""Tiny random models of every architecture as Hugging Face folders, for scripts that hold specdec against transformers.

    for case in CASES: build(folder, case); model = reference(folder)
"""
import dataclasses, json, os, pathlib

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"], os.environ["TQDM_DISABLE"] = "error", "1"
import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.utils import logging

logging.disable_progress_bar()

BASE = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=96, vocab_size=293,
            max_position_embeddings=512, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2, pad_token_id=None)
LONG = 64  # original_max_position_embeddings of the scalings below; of LongRoPE, the length where the long factors begin
SCALINGS = {
    "default": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
               "original_max_position_embeddings": LONG},
    "yarn": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": LONG},
    "yarn-attention": {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": LONG, "beta_fast": 16,
                       "beta_slow": 2, "attention_factor": 0.9},
}
# 8 layers, so that both kinds stand in a row and apart; heads of 24 where C / H is 16; scores scaled by another number than the head size.
GEMMA = dict(num_hidden_layers=8, head_dim=24, query_pre_attn_scalar=20, sliding_window=16)
LOCAL_BASE, GLOBAL_BASE = 7000.0, 300000.0


@dataclasses.dataclass
class Case:
    name: str
    arch: str  # transformers' model_type
    rope: dict
    extra: dict = dataclasses.field(default_factory=dict)
    spelling: str = "new"  # of config.json; see spell
    dtype: torch.dtype = torch.float32
    local_base: float = LOCAL_BASE  # of gemma3's layers with a window


def longrope(rotary, **more):
    """Factors that differ in every pair and between short and long."""
    half = rotary // 2
    return {"rope_type": "longrope", "short_factor": [1 + 0.03 * i for i in range(half)],
            "long_factor": [1.5 + 5.0 * i / half for i in range(half)], **more}


def plain_cases():
    for arch in ("llama", "qwen2", "qwen3"):
        for name, scaling in SCALINGS.items():
            for old in (False, True):
                extra = {"head_dim": 24} if arch == "qwen3" else {}
                yield Case(f"{arch}, rope {name}{', old config' if old else ''}", arch, scaling, extra, "old" if old else "new")
        yield Case(f"{arch}, tied head", arch, SCALINGS["default"], {"tie_word_embeddings": True})
        yield Case(f"{arch}, bf16 weights", arch, SCALINGS["default"], dtype=torch.bfloat16)
        yield Case(f"{arch}, one head", arch, SCALINGS["default"], {"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 64})
    yield Case("llama, head size apart", "llama", SCALINGS["default"], {"head_dim": 32})
    yield Case("mistral without a window", "mistral", SCALINGS["default"], {"sliding_window": None, "head_dim": 16})


def gemma_cases():
    arch = "gemma3_text"
    for spelling in ("new", "between", "old"):
        for scaling in ("default", "linear"):
            yield Case(f"gemma3, rope {scaling}, {spelling} config", arch, SCALINGS[scaling], GEMMA, spelling)
    yield Case("gemma3, window 64", arch, SCALINGS["linear"], {**GEMMA, "sliding_window": 64})
    for pattern in (2, 3):
        yield Case(f"gemma3, every {pattern}th layer global, old config", arch, SCALINGS["default"],
                   {**GEMMA, "sliding_window_pattern": pattern}, "old")
    yield Case("gemma3, layers in no pattern", arch, SCALINGS["default"],
               {**GEMMA, "num_hidden_layers": 5, "layer_types": [f"{k}_attention" for k in ("full", "sliding", "sliding", "full", "sliding")]})
    yield Case("gemma3, no window reached", arch, SCALINGS["default"], {**GEMMA, "sliding_window": 4096})
    yield Case("gemma3, heads of 256 over one of keys", arch, SCALINGS["default"],
               {**GEMMA, "head_dim": 256, "query_pre_attn_scalar": 256, "num_key_value_heads": 1})
    yield Case("gemma3, separate head", arch, SCALINGS["default"], {**GEMMA, "tie_word_embeddings": False})
    yield Case("gemma3, bf16 weights", arch, SCALINGS["default"], GEMMA, dtype=torch.bfloat16)


def phi_cases():
    for part in (1.0, 0.75):
        for spelling in ("new", "old"):
            yield Case(f"phi3, rotary {part}, {spelling} config", "phi3", {"rope_type": "default", "partial_rotary_factor": part}, {}, spelling)
            yield Case(f"phi3, LongRoPE, rotary {part}, {spelling} config", "phi3",
                       longrope(int(16 * part), partial_rotary_factor=part), {"original_max_position_embeddings": LONG}, spelling)
    yield Case("phi3, LongRoPE without longer contexts", "phi3", longrope(16),
               {"original_max_position_embeddings": 512}, "old")
    for window in (16, 64, 4096):
        yield Case(f"phi3, window {window}", "phi3", SCALINGS["default"], {"sliding_window": window})
    yield Case("phi3, LongRoPE and window 16", "phi3", longrope(12, partial_rotary_factor=0.75),
               {"original_max_position_embeddings": LONG, "sliding_window": 16})
    yield Case("phi3, all heads of keys", "phi3", SCALINGS["default"], {"num_key_value_heads": 4})
    yield Case("phi3, tied head", "phi3", SCALINGS["default"], {"tie_word_embeddings": True})
    yield Case("phi3, bf16 weights", "phi3", SCALINGS["default"], dtype=torch.bfloat16)


def cases():
    yield from plain_cases()
    yield from gemma_cases()
    yield from phi_cases()


def make(case, seed=7):
    """The model in fp32, whose norms, biases and heads matter: the defaults are all ones and zeros."""
    torch.manual_seed(seed)
    theta = {} if "rope_theta" in case.rope else {"rope_theta": 10000.0}
    rope = {**case.rope, **theta}
    if case.arch == "gemma3_text":
        rope = {"full_attention": {**case.rope, "rope_theta": GLOBAL_BASE}, "sliding_attention": {"rope_type": "default", "rope_theta": case.local_base}}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(case.arch, **{**BASE, **case.extra}, rope_parameters=rope))
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 1:
                p.add_(torch.randn_like(p) * 0.2)
            else:
                p.copy_(torch.randn_like(p) * p.shape[1] ** -0.5)
    return model.eval()


def spell(folder, spelling):
    """config.json as older versions wrote it. old: rope_theta and rope_scaling; gemma3's layers by a pattern. between: rope_theta and
    rope_local_base_freq beside layer_types, as Gemma 3 270M was published."""
    path = pathlib.Path(folder, "config.json")
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    if config["model_type"] == "gemma3_text":
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
        if spelling == "old":
            config["sliding_window_pattern"] = config.pop("_sliding_window_pattern")
            del config["layer_types"]
    config["rope_theta"] = rope.pop("rope_theta")
    rope["type" if config["model_type"] != "gemma3_text" else "rope_type"] = kind = rope.pop("rope_type")
    if config["model_type"] == "phi3":
        config["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
        rope.pop("original_max_position_embeddings", None)
    config["rope_scaling"] = None if kind == "default" else rope
    path.write_text(json.dumps(config))


def build(folder, case):
    make(case).to(case.dtype).save_pretrained(folder)
    if case.spelling != "new":
        spell(folder, case.spelling)


def reference(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.tensor(ids)[None]).logits[0].float().numpy()
