#!/usr/bin/env python3
"""Writes the Grafana dashboard: recipes/operate/dashboard.py >recipes/operate/dashboard.json

The table below is the dashboard: rows of panels, each a title, a unit of Grafana's, and expressions with their legends. S stands for the chosen servers, A for these and the chosen
adapters. Standard library only.
"""
import json

S = '{instance=~"$instance"}'
A = '{instance=~"$instance",adapter=~"$adapter"}'


def rate(name, labels=S):
    return f"rate(specdec_{name}{labels}[$__rate_interval])"


def quantiles(name):
    return [(f"histogram_quantile({q}, sum by (le) ({rate(name + '_bucket', A)}))", f"p{round(100 * q)}") for q in (.5, .95, .99)]


def share(part, whole, by=""):
    """Of two counters."""
    by = f" by ({by})" if by else ""
    return f"sum{by} ({part}) / sum{by} ({whole})"


ROWS = [
    ("Load", [
        ("Tokens", "short", [(f"sum({rate('generation_tokens_total')})", "generated /s"), (f"sum({rate('prompt_tokens_total')})", "prompts /s")]),
        ("Requests", "short", [(f"sum(specdec_num_requests_running{S})", "running"), (f"sum(specdec_num_requests_waiting{S})", "waiting"), (f"sum(specdec_num_slots{S})", "slots")]),
        ("Utilisation", "percentunit", [(rate("busy_seconds_total"), "busy {{instance}}"), (f"{rate('slot_seconds_total')} / specdec_num_slots{S}", "of capacity {{instance}}")]),
        ("Answers", "reqps", [(f"sum by (finished_reason) ({rate('request_success_total', A)})", "{{finished_reason}}")]),
        ("Turned away", "reqps", [(f"sum by (reason) ({rate('admission_rejections_total')})", "{{reason}}")]),
        ("HTTP", "reqps", [(f"sum by (code) ({rate('http_responses_total')})", "{{code}}")]),
    ]),
    ("Latency", [
        ("First token", "s", quantiles("time_to_first_token_seconds")),
        ("Between tokens", "s", quantiles("inter_token_latency_seconds")),
        ("Whole answer", "s", quantiles("e2e_request_latency_seconds")),
        ("In the queue", "s", quantiles("request_queue_time_seconds")),
        ("Reading the prompt", "s", quantiles("request_prefill_time_seconds")),
        ("From the first token to the last", "s", quantiles("request_decode_time_seconds")),
    ]),
    ("Speculation", [
        ("Tokens of a round", "short", [(f"1 + {share(rate('spec_decode_num_accepted_tokens_total'), rate('spec_decode_num_drafts_total'))}", "all"),
                                        (f"specdec_adapter_accept_length{A}", "{{adapter}}, {{draft}}, since the start")]),
        ("Drafts accepted, by source", "percentunit", [(share(rate("adapter_accepted_tokens_total", A), rate("adapter_draft_tokens_total", A), "adapter, source"), "{{adapter}}, {{source}}")]),
        ("Drafts accepted, by position", "percentunit", [(f"sum by (position) ({rate('spec_decode_num_accepted_tokens_per_pos_total')}) / ignoring (position) group_left sum({rate('spec_decode_num_drafts_total')})", "{{position}}")]),
    ]),
    ("Caches and memory", [
        ("KV in use", "percentunit", [(f"specdec_kv_cache_usage_perc{S}", "{{instance}}")]),
        ("Prompt tokens found in the prefix cache", "percentunit", [(share(rate("prefix_cache_hits_total"), rate("prefix_cache_queries_total")), "found")]),
        ("Preemptions", "ops", [(f"sum({rate('num_preemptions_total')})", "answers put back")]),
        ("Memory by part", "bytes", [(f"sum by (part) (specdec_memory_bytes{S})", "{{part}}")]),
        ("Memory of the process", "bytes", [(f"process_resident_memory_bytes{S}", "{{instance}}")]),
        ("Processors in use", "short", [(f"rate(process_cpu_seconds_total{S}[$__rate_interval])", "{{instance}}")]),
    ]),
    ("Adapters", [
        ("Answers by adapter", "reqps", [(f"sum by (adapter) ({rate('request_success_total', A)})", "{{adapter}}")]),
        ("Tokens by adapter", "short", [(f"sum by (adapter) ({rate('adapter_generation_tokens_total', A)})", "{{adapter}} /s")]),
        ("First token by adapter, p95", "s", [(f"histogram_quantile(0.95, sum by (le, adapter) ({rate('time_to_first_token_seconds_bucket', A)}))", "{{adapter}}")]),
        ("Requests at work by adapter", "short", [(f"sum by (adapter) (specdec_lora_requests_info{A})", "{{adapter}}")]),
        ("Tokens of a prompt, mean", "short", [(f"sum by (adapter) ({rate('request_prompt_tokens_sum', A)}) / sum by (adapter) ({rate('request_prompt_tokens_count', A)})", "{{adapter}}")]),
        ("Generations served", "short", [(f"count by (adapter, generation, sha256) (specdec_adapter_info{A})", "{{adapter}} {{generation}} {{sha256}}")]),
    ]),
    ("Keys (seen by an administrator's key)", [
        ("Generated tokens by key", "short", [(f"sum by (key) ({rate('key_generation_tokens_total')})", "{{key}} /s")]),
        ("Prompt tokens by key, computed", "short", [(f"sum by (key) ({rate('key_prompt_tokens_total')} - {rate('key_cached_tokens_total')})", "{{key}} /s")]),
        ("Turned away by key", "reqps", [(f"sum by (key) ({rate('key_rejections_total')})", "{{key}}")]),
    ]),
    ("Constraints and health", [
        ("Checks of whole answers", "ops", [(f"sum by (result) ({rate('constraint_checks_total')})", "{{result}}")]),
        ("Time for masks, of the engine's", "percentunit", [(share(rate("constraint_seconds_total"), rate("busy_seconds_total")), "share")]),
        ("Ready, and what runs", "short", [(f"sum by (instance) (specdec_ready{S})", "{{instance}}"), (f"count by (version) (specdec_build_info{S})", "{{version}}"), (f"count by (device) (specdec_engine_info{S})", "on {{device}}")]),
    ]),
]


def variable(name, query, label):
    return {"name": name, "label": label, "type": "query", "datasource": {"type": "prometheus", "uid": "${datasource}"}, "query": {"query": query, "refId": name}, "includeAll": True,
            "allValue": ".*", "multi": True, "refresh": 2, "sort": 1, "current": {"text": "All", "value": "$__all"}}


def panel(id, title, unit, lines, x, y):
    return {"id": id, "type": "timeseries", "title": title, "datasource": {"type": "prometheus", "uid": "${datasource}"}, "gridPos": {"x": x, "y": y, "w": 8, "h": 7},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []}, "options": {"tooltip": {"mode": "multi"}},
            "targets": [{"refId": chr(65 + i), "expr": expr, "legendFormat": legend} for i, (expr, legend) in enumerate(lines)]}


def dashboard():
    panels, y = [], 0
    for title, row in ROWS:
        panels.append({"id": len(panels) + 1, "type": "row", "title": title, "collapsed": False, "gridPos": {"x": 0, "y": y, "w": 24, "h": 1}, "panels": []})
        y += 1
        for i, (name, unit, lines) in enumerate(row):
            panels.append(panel(len(panels) + 1, name, unit, lines, 8 * (i % 3), y + 7 * (i // 3)))
        y += 7 * ((len(row) + 2) // 3)
    return {"uid": "specdec", "title": "specdec", "tags": ["specdec"], "schemaVersion": 39, "timezone": "browser", "refresh": "10s", "time": {"from": "now-1h", "to": "now"},
            "templating": {"list": [{"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
                                    variable("instance", "label_values(specdec_ready, instance)", "server"),
                                    variable("adapter", "label_values(specdec_request_success_total, adapter)", "model")]},
            "panels": panels}


if __name__ == "__main__":
    print(json.dumps(dashboard(), indent=1))
