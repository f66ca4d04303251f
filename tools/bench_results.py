"""The rows of one or several runs, and what they say: medians, the best peer, the machine's limit.

Wrong bytes and failures are decided here, once: an engine that failed in a single round has no figure at all
for that work, so that nothing is ever compared with it.
"""

import json
import statistics

SELF = "chronolith"
# What the machine needs at least for a work: packing, knowing every byte, unpacking, writing it to the disk.
LIMITS = {"first": "zstd", "later": "hash", "again": "hash", "give": "unzstd"}


class Unreadable(ValueError):
    """Rows that were not written by tools/bench, or do not go together."""


class Results:
    """Rows by kind of work, work and engine, in the order in which they were measured first."""

    def __init__(self):
        self.about = {"engines": {}, "works": []}
        self.rows = {}
        self.works = {}
        self.floors = {}

    def add(self, row):
        kind, work = row["kind"], row["work"]
        beside = work.split()[0] in ("init", "remember", "before")
        if beside and not verdict(row):
            return
        if row["engine"] != "machine" and not beside:
            works = self.works.setdefault(kind, [])
            if work not in works:
                works.append(work)
        self.rows.setdefault((kind, work, row["engine"]), []).append(row)

    def engines(self, kind):
        present = {engine for (other, _, engine) in self.rows if other == kind} - {"machine"}
        return [name for name in self.about["engines"] if name in present]

    def good(self, kind, work, engine):
        """Rows of an engine, or none of them if a single one failed or gave back other bytes."""
        rows = self.rows.get((kind, work, engine), [])
        return rows if rows and not any(verdict(row) for row in rows) else []

    def values(self, kind, work, engine, measure):
        return [measure_of(row, measure) for row in self.good(kind, work, engine)]

    def median(self, kind, work, engine, measure):
        values = self.values(kind, work, engine, measure)
        return statistics.median(values) if values else None

    def best_peer(self, kind, work, measure):
        """The best of the others and its median, or two times nothing."""
        medians = {name: self.median(kind, peers_work(work), name, measure) for name in self.engines(kind) if name != SELF}
        known = {name: value for name, value in medians.items() if value is not None}
        return min(known.items(), key=lambda entry: entry[1]) if known else (None, None)

    def limit(self, kind, work):
        """The seconds that the machine itself needs for an input of this size, and with what."""
        action, _, name = work.partition(" ")
        tool = "write" if (action, kind) == ("give", "directories") else LIMITS.get(action)
        rows = self.good(kind, work, SELF)
        if not tool or not rows or (action, kind) == ("again", "directories"):
            return None, None
        tried = [
            found
            for (other, what, engine), found in self.rows.items()
            if engine == "machine" and other == kind and what.startswith(f"limit {tool} ")
        ]
        same = [found for found in tried if found[0]["work"].endswith(" " + name)] or tried
        if not same or any(verdict(row) for row in same[0]):
            return None, None
        return tool, statistics.median(row["seconds"] / row["input"] for row in same[0]) * rows[0]["input"]


def peers_work(work):
    """What peers do where Chronolith has its key from the command before."""
    return work.replace("-kept", "")


def verdict(row):
    """What is wrong with a row, in a word, or nothing."""
    if row["right"] is False:
        return "WRONG BYTES"
    return f"failed ({row['status']})" if row["status"] else ""


def measure_of(row, measure):
    if measure == "MB":
        return (row["after"] if row["work"] == "forget" else row["after"] - row["before"]) / 1e6
    if measure == "CPU seconds":
        return row["user"] + row["system"]
    seconds = row["seconds"]
    if row["kind"] in ("directories", "postgres") and row["work"].startswith(("give ", "delta ", "cold ")):
        seconds += row["sync"]  # files that a power cut would take are not restored yet
    return {"seconds": seconds, "peak MiB": row["peak_mib"], "sync": row["sync"]}[measure]


def load(paths):
    """The rows of one or several runs; an engine must have had one version in all of them."""
    results = Results()
    for path in paths:
        with open(path) as file:
            for number, line in enumerate(file, 1):
                try:
                    row = json.loads(line)
                    if row["row"] == "about":
                        merge(results.about, row)
                    elif row["row"] == "measured":
                        results.add(row)
                    elif row["row"] == "floor":
                        results.floors[row["kind"], row["name"]] = row["bytes"] / 1e6
                except (ValueError, KeyError, TypeError) as error:
                    if isinstance(error, Unreadable):
                        raise
                    raise Unreadable(f"line {number} of {path} is not a row of tools/bench") from error
    if not results.rows or "machine" not in results.about:
        raise Unreadable("there is nothing to report: no row was measured")
    return results


def merge(about, row):
    for name, engine in row["engines"].items():
        known = about["engines"].setdefault(name, engine)
        if known["version"] != engine["version"]:
            raise Unreadable(f"{name} had version {known['version']} in one run and {engine['version']} in another")
    if about.get("machine", row["machine"]) != row["machine"]:
        raise Unreadable("these runs were made on different machines")
    about["machine"] = row["machine"]
    about["dates"] = sorted({*about.get("dates", []), row["date"]})
