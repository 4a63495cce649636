"""Results that outlive an interrupt: JSON lines, the settings first, then a line for each finished measurement.

    state = State("cells.jsonl", {"tokens": 96, ...})    # Failure when the file is of other settings
    if key not in state: state.put(key, measure())
"""
import json
import os

from script import Failure


class State:
    def __init__(self, path, settings):
        self.path, self.done, settings = path, {}, json.loads(json.dumps(settings))
        lines = []
        if os.path.exists(path):
            with open(path, encoding="utf-8") as f:
                text = f.read()
            try:
                lines = [json.loads(x) for x in text[:text.rfind("\n") + 1].splitlines()]  # a line that was cut is measured again
                lines[1:] = [{"key": x["key"], "result": x["result"]} for x in lines[1:]]
                lines[:1] = [{"settings": dict(x["settings"])} for x in lines[:1]]
            except (ValueError, TypeError, KeyError):
                raise Failure(f"{path}: holds no results of such a bench; name another file, or remove this one")
        if lines and lines[0]["settings"] != settings:
            other = [k for k in settings if lines[0]["settings"].get(k) != settings[k]]
            raise Failure(f"{path}: was measured with other settings ({', '.join(other) or 'older ones'}); name another file, or remove this one")
        self.done = {x["key"]: x["result"] for x in lines[1:]}
        with open(path + ".tmp", "w", encoding="utf-8") as f:
            f.writelines(json.dumps(x) + "\n" for x in lines or [{"settings": settings}])
        os.replace(path + ".tmp", path)

    def __contains__(self, key):
        return key in self.done

    def __getitem__(self, key):
        return self.done[key]

    def put(self, key, result):
        self.done[key] = result
        with open(self.path, "a", encoding="utf-8") as f:
            f.write(json.dumps({"key": key, "result": result}) + "\n")
            f.flush()
            os.fsync(f.fileno())
