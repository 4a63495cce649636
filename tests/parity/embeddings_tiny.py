#!/usr/bin/env python3
"""Vectors and ranks of tiny random models against transformers, in fp32, over the wire: folders as sentence-transformers and transformers save them.

    embeddings_tiny.py SPECDEC [MODELS]     prints TAP; skips when torch, transformers or numpy is missing

Each base model is saved without its head, as AutoModel does, with modules.json; a classifier by AutoModelForSequenceClassification. Texts are token ids, so that tokenizers play no
part. Tolerance: as for logits (logits_tiny.py), on rows of order 1: 1e-4; a mean has less, a relevance a quarter of the classifier's difference.
"""
import base64, json, os, sys, tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "e2e", "lib"))
try:
    import numpy as np
    import tiny_models
    import torch
    from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification
except ImportError as e:
    print(f"ok 1 - vectors and ranks of tiny models # SKIP {e.name} is not installed")
    print("1..1")
    sys.exit(0)
from served import Served
from tap import check
import tap

LIMIT = 1e-4
LENGTHS = (1, 5, 64, 65, 200)
MODULE = "sentence_transformers.models."


def config_of(arch, **more):
    extra = {"head_dim": 24} if arch == "qwen3" else {}
    return AutoConfig.for_model(arch, **{**tiny_models.BASE, **extra, **more})


def write_modules(folder, mode, unit):
    modules = [{"idx": 0, "name": "0", "path": "", "type": MODULE + "Transformer"}, {"idx": 1, "name": "1", "path": "1_Pooling", "type": MODULE + "Pooling"}]
    if unit:
        modules.append({"idx": 2, "name": "2", "path": "2_Normalize", "type": MODULE + "Normalize"})
    os.makedirs(os.path.join(folder, "1_Pooling"))
    with open(os.path.join(folder, "modules.json"), "w") as f:
        json.dump(modules, f)
    with open(os.path.join(folder, "1_Pooling", "config.json"), "w") as f:
        json.dump({"word_embedding_dimension": 64, "pooling_mode_mean_tokens": mode == "mean", "pooling_mode_lasttoken": mode == "last"}, f)


def ask(server, path, body):
    status, _, data = server.request("POST", path, body)
    if status != 200:
        raise SystemExit(f"not ok - {path} answers {status}: {data[:300]!r}")
    return json.loads(data)


def vectors(binary, arch, mode, unit):
    torch.manual_seed(3)
    model = AutoModel.from_config(config_of(arch), torch_dtype=torch.float32).eval()
    ids = np.random.default_rng(2).integers(3, tiny_models.BASE["vocab_size"], max(LENGTHS))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        write_modules(folder, mode, unit)
        server = Served(binary, folder, "--ctx", "256", "--compute", "fp32")
        try:
            got = ask(server, "/v1/embeddings", {"input": [ids[:n].tolist() for n in LENGTHS], "encoding_format": "base64"})
        finally:
            server.stop()
    worst = 0.0
    for d, n in zip(got["data"], LENGTHS):
        with torch.no_grad():
            rows = model(torch.tensor(ids[:n])[None]).last_hidden_state[0].double()
        want = rows.mean(0) if mode == "mean" else rows[-1]
        want = (want / want.norm() if unit else want).numpy()
        worst = max(worst, abs(np.frombuffer(base64.b64decode(d["embedding"]), "<f4") - want).max())
    check(f"{arch}, {mode}{', unit' if unit else ''}: off by {worst:.2g}", worst <= LIMIT, worst)


def main():
    binary = sys.argv[1]
    for arch in ("llama", "qwen2", "qwen3"):
        for mode in ("mean", "last"):
            vectors(binary, arch, mode, mode == "last")
    ranks(binary)
    return tap.failures > 0


def ranks(binary):
    """Of texts, since documents are texts: each byte is a token of the folder's tokenizer. Left to the unit test's reference where no tokenizer can be saved."""
    torch.manual_seed(4)
    config = config_of("llama", num_labels=1)
    model = AutoModelForSequenceClassification.from_config(config, torch_dtype=torch.float32).eval()
    small = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "tokenizer_small.json")
    documents = ["the cat", "another one", "x"]
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        with open(small) as f, open(os.path.join(folder, "tokenizer.json"), "w") as out:
            out.write(f.read())
        server = Served(binary, folder, "--ctx", "256", "--compute", "fp32")
        try:
            got = ask(server, "/v1/rerank", {"query": "a query", "documents": documents})
            texts = [ask(server, "/tokenize", {"prompt": t})["tokens"] for t in ["a query", *documents]]
        finally:
            server.stop()
    worst = 0.0
    for r in got["results"]:
        with torch.no_grad():
            x = model.model(torch.tensor(texts[0] + texts[1 + r["index"]])[None]).last_hidden_state[0, -1]
            want = torch.sigmoid(model.score(x))[0].item()
        worst = max(worst, abs(r["relevance_score"] - want))
    check(f"relevance: off by {worst:.2g}", worst <= LIMIT, worst)
    check("the most relevant come first", [r["relevance_score"] for r in got["results"]] == sorted((r["relevance_score"] for r in got["results"]), reverse=True), got)


if __name__ == "__main__":
    sys.exit(main())
