"""Writes a tiny Gemma 3 or Phi 3 of transformers as a GGUF file with the names, keys and conventions that llama.cpp's converter gives such models, so
that specdec's reading of the files in the wild is tested without them. Returns the weights that the file holds.

    held = write(path, model, "Q8_0", newer=True); model.load_state_dict(held)
"""
import math

import gguf
import numpy as np
import torch
from gguf import quants

TYPES = {name: getattr(gguf.GGMLQuantizationType, name) for name in ("F32", "F16", "BF16", "Q8_0", "Q4_0")}
ARCHS = {"gemma3_text": gguf.MODEL_ARCH.GEMMA3, "phi3": gguf.MODEL_ARCH.PHI3}


def keys_gemma3(w, config, newer):
    """The scale of scores and, in older files, the base of the layers with a window stand nowhere: readers know 1/sqrt(head), or 1/sqrt(C/H) for
    the model of 62 layers (27B), and 10,000."""
    rope, local = config.rope_parameters["full_attention"], config.rope_parameters["sliding_attention"]
    known = config.hidden_size // config.num_attention_heads if config.num_hidden_layers == 62 else config.head_dim
    assert config.query_pre_attn_scalar == known and (newer or local["rope_theta"] == 10000)
    w.add_key_length(config.head_dim)
    w.add_value_length(config.head_dim)
    w.add_sliding_window(config.sliding_window)
    w.add_rope_freq_base(rope["rope_theta"])
    if newer:
        w.add_rope_freq_base_swa(local["rope_theta"])
    if rope["rope_type"] == "linear":
        w.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        w.add_rope_scaling_factor(rope["factor"])


def keys_phi3(w, config, newer):
    """Factors of LongRoPE are tensors without a key that says so; a window of 0 says that there is none."""
    rope, trained = config.rope_parameters, config.original_max_position_embeddings
    w.add_rope_scaling_orig_ctx_len(trained)
    w.add_rope_dimension_count(int(rope["partial_rotary_factor"] * config.hidden_size) // config.num_attention_heads)
    w.add_rope_freq_base(rope["rope_theta"])
    w.add_sliding_window(config.sliding_window or 0)
    if "long_factor" not in rope:
        return
    scale = config.max_position_embeddings / trained
    w.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(scale) / math.log(trained)) if scale > 1 else 1.0)
    for length in ("long", "short"):
        w.add_tensor(f"rope_factors_{length}.weight", np.array(rope[f"{length}_factor"], np.float32))


def write(path, model, dtype, newer=True):
    config = model.config
    arch = ARCHS[config.model_type]
    w = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[arch])
    w.add_name("tiny")
    w.add_block_count(config.num_hidden_layers)
    w.add_context_length(config.max_position_embeddings)
    w.add_embedding_length(config.hidden_size)
    w.add_feed_forward_length(config.intermediate_size)
    w.add_head_count(config.num_attention_heads)
    w.add_head_count_kv(config.num_key_value_heads)
    w.add_layer_norm_rms_eps(config.rms_norm_eps)
    (keys_gemma3 if arch == gguf.MODEL_ARCH.GEMMA3 else keys_phi3)(w, config, newer)
    names, held = gguf.get_tensor_name_map(arch, config.num_hidden_layers), {}
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            held[name] = held["model.embed_tokens.weight"]
            continue
        value = value.float().numpy()
        kind = TYPES[dtype] if value.ndim > 1 else gguf.GGMLQuantizationType.F32
        one = 1 if arch == gguf.MODEL_ARCH.GEMMA3 and name.endswith("norm.weight") else 0  # Gemma's norms multiply by 1 + w: files hold that
        stored = quants.quantize(value + np.float32(one), kind)
        w.add_tensor(names.get_name(name, try_suffixes=(".weight",)), stored, raw_dtype=kind)
        held[name] = torch.tensor(quants.dequantize(stored, kind).reshape(value.shape) - np.float32(one))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return held
