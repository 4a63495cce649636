#!/usr/bin/env python3
# Writes schedule_golden.json: learning rates of transformers' schedules, step by step, for test_adamw.c.
#
#   pip install torch transformers && tests/data/make_schedule_golden.py
#
# The rates are what an optimiser with the rate 1 is given: get_cosine_schedule_with_warmup, get_linear_schedule_with_warmup,
# get_constant_schedule_with_warmup and, for a minimum, get_cosine_with_min_lr_schedule_with_warmup.
import json
import os

import torch
import transformers
from transformers import optimization

CASES = [(kind, warmup, steps, minimum) for kind in ("cosine", "linear", "constant")
         for warmup, steps in ((0, 7), (1, 7), (2, 62), (20, 62), (20, 100), (7, 7), (9, 7), (6, 7)) for minimum in (0, 0.1)
         if minimum == 0 or kind == "cosine"]


def rates(kind, warmup, steps, minimum):
    optimiser = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    if kind == "constant":
        schedule = optimization.get_constant_schedule_with_warmup(optimiser, warmup)
    elif kind == "linear":
        schedule = optimization.get_linear_schedule_with_warmup(optimiser, warmup, steps)
    elif minimum:
        schedule = optimization.get_cosine_with_min_lr_schedule_with_warmup(optimiser, warmup, steps, min_lr_rate=minimum)
    else:
        schedule = optimization.get_cosine_schedule_with_warmup(optimiser, warmup, steps)
    out = []
    for _ in range(steps):
        out.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return out


rows = [{"kind": k, "warmup": w, "steps": s, "min": m, "lr": rates(k, w, s, m)} for k, w, s, m in CASES]
with open(os.path.join(os.path.dirname(__file__), "schedule_golden.json"), "w") as f:
    json.dump({"transformers": transformers.__version__, "cases": rows}, f)
    f.write("\n")
