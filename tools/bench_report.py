"""Makes benches/RESULTS.md of the rows of one or several runs.

Nothing in it is written by hand, the sentences where a peer is better included: whoever runs the benchmark
again gets them as their own figures say. No path and no name of a machine comes into it.
"""

import re
import statistics
import textwrap

from bench_results import SELF, peers_work, verdict

TITLES = {
    "dumps": "Versions of a PostgreSQL dump",
    "mariadb": "Versions of a MariaDB dump",
    "directories": "Versions of a PostgreSQL data directory",
    "streams": "Bytes that cannot be made smaller, and zeros",
    "postgres": "A running PostgreSQL server",
}
VERSIONS = {
    "d1": "1 % of the rows changed",
    "d2": "another 1 % changed",
    "d3": "17 % changed, new or gone",
    "d4": "the same rows in another order",
    "m1": "1 % of the rows changed",
    "m2": "another 1 % changed",
    "p1": "rows changed",
    "p2": "more rows changed",
    "random": "random bytes",
    "zeros": "zeros",
}
# Differences that nobody notices, and that a clock cannot tell apart, are no reason for a sentence.
NOTICEABLE = {"seconds": 0.02, "MB": 0.05, "peak MiB": 2.0, "CPU seconds": 0.05}
QUIET_SHARE = 0.1
NO_TIME = "GNU time was not installed, so peaks below about 20 MiB are those of the benchmark itself."

# --- words -----------------------------------------------------------------------------------


def number(value):
    """Three digits are all that such figures bear."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def cell(values):
    """A median, with the least and the greatest where there are several that differ."""
    if not values:
        return ""
    middle, least, greatest = (number(pick(values)) for pick in (statistics.median, min, max))
    return middle if least == greatest else f"{middle} ({least} to {greatest})"


def in_words(kind, work):
    action, _, name = work.partition(" ")
    if kind == "postgres":
        return {
            "first": "base backup, the first",
            "later": f"base backup after changes ({name})",
            "push": f"{name} segments of the log archived, a process each",
            "get": f"{name} segments brought back, a process each",
            "ahead": f"{name} segments that were fetched ahead, a process each",
            "give": "the newest to an empty folder, synced",
            "delta": "the newest over the one before it, synced",
            "cold": "the same, and nothing in memory",
        }.get(action, work)
    thing = VERSIONS.get(name, name) if kind == "streams" else name
    version = f": {VERSIONS[name]}" if name in VERSIONS and kind != "streams" else ""
    if action == "give":
        return f"{thing} to a folder, synced" if kind == "directories" else f"{thing} to a pipe"
    return {
        "first": f"{thing}, first backup",
        "later": f"{thing}{version}",
        "again": f"{thing} again, nothing changed",
        "again-kept": f"{thing} again, key kept from the command before",
        "list": "list",
        "list-kept": "list, key kept from the command before",
        "check": "check, all data read",
        "forget": "forget all but two, prune",
        "after": f"{thing} to a pipe, after that",
    }.get(action, work)


def ratio(value, other, measure="seconds"):
    """How many times the other; nothing where both are too small for it to mean anything."""
    if value is None or not other or max(value, other) < NOTICEABLE[measure]:
        return ""
    return f"{value / other:.2f}" if value / other >= 0.1 else f"{value / other:.2g}"


def table(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows] + [""]


def title(name):
    return "Chronolith" if name == SELF else name


# --- parts of the text -----------------------------------------------------------------------


def glance(results, kind):
    """Chronolith beside the best peer, and beside what the machine or the input permits."""
    seconds, stored = [], []
    for work in results.works[kind]:
        row = [in_words(kind, work), *beside_the_best(results, kind, work, "seconds")]
        tool, least = results.limit(kind, work)
        mine = results.median(kind, work, SELF, "seconds")
        seconds.append(row + [f"{number(least)} ({tool})" if tool else "", ratio(mine, least)])
        if stores(work):
            row = [in_words(kind, work), *beside_the_best(results, kind, work, "MB")]
            action, _, name = work.partition(" ")
            least = results.floors.get((kind, name)) if action in ("first", "later") else None
            mine = results.median(kind, work, SELF, "MB")
            # Of next to nothing, as where only the order changed, everything is many times as much.
            times = ratio(mine, least, "MB") if least and least >= NOTICEABLE["MB"] else ""
            stored.append(row + [number(least) if least is not None else "", times])
    return [
        *table(["", "seconds", "best peer", "ratio", "machine's limit", "ratio"], seconds),
        *table(["", "MB added", "best peer", "ratio", "new at all, zstd -3", "ratio"], stored),
    ]


def beside_the_best(results, kind, work, measure):
    """Three cells: Chronolith's median, the best peer's, the ratio."""
    mine = results.median(kind, work, SELF, measure)
    peer, best = results.best_peer(kind, work, measure)
    return [number(mine) if mine is not None else "", f"{number(best)} ({peer})" if peer else "", ratio(mine, best, measure)]


def stores(work):
    return work.split()[0] in ("first", "later", "again", "forget", "push")


def details(results, kind):
    """Every engine and every measure: medians, and between which figures they lie."""
    lines = []
    engines = results.engines(kind)
    for measure, heading in (
        ("seconds", "Seconds"),
        ("MB", "MB added; after forget and prune: MB that remain"),
        ("peak MiB", "Memory of the largest process at its peak, MiB"),
        ("CPU seconds", "CPU seconds"),
        ("sync", "Seconds that sync(1) took afterwards"),
    ):
        rows = []
        for work in results.works[kind]:
            if measure == "MB" and not stores(work) or measure == "sync" and not (stores(work) or kind in ("directories", "postgres")):
                continue
            cells = []
            for engine in engines:
                wrong = {verdict(row) for row in results.rows.get((kind, work, engine), [])} - {""}
                cells.append(", ".join(sorted(wrong)) or cell(results.values(kind, work, engine, measure)))
            rows.append([in_words(kind, work), *cells])
        lines += [heading + ":", "", *table(["", *map(title, engines)], rows)]
    return lines


def machine_itself(results, kind):
    rows = []
    for (other, work, engine), found in results.rows.items():
        if other == kind and engine == "machine":
            _, tool, name = work.split()
            size = found[0]["input"] / 1e6
            megabytes = cell(results.values(kind, work, "machine", "MB")) if tool == "zstd" else ""
            rows.append(
                [
                    f"{name}: {machine_tool(results, tool)}",
                    cell([row["seconds"] for row in found]),
                    number(size / statistics.median(row["seconds"] for row in found)),
                    megabytes,
                ]
            )
    return (
        [
            "The machine itself, with the same input through a pipe:",
            "",
            *table(["", "seconds", "MB a second", "MB left"], rows),
        ]
        if rows
        else []
    )


def machine_tool(results, tool):
    cores = results.about["machine"]["cores"]
    return {
        "pipe": "cat",
        "zstd": f"zstd -3 -T{cores}",
        "unzstd": "zstd -d to a pipe",
        "hash": results.about["machine"]["hash"],
        "write": "written and synced (dd conv=fsync)",
    }[tool]


def where_a_peer_is_better(results):
    """Sentences from the figures. Where the rounds of both overlap, that is said."""
    if not set(results.about["engines"]) - {SELF}:
        return ["No peer was run."]
    lines = []
    for kind, works in results.works.items():
        for work in works:
            parts = []
            for measure in ("seconds", "MB", "peak MiB", "CPU seconds"):
                if measure == "MB" and not stores(work):
                    continue
                mine = results.values(kind, work, SELF, measure)
                peer, best = results.best_peer(kind, work, measure)
                if not mine or peer is None:
                    continue
                median = statistics.median(mine)
                if median - best < NOTICEABLE[measure] or median <= best * 1.01:
                    continue
                overlap = (
                    ", and the rounds overlap"
                    if min(mine) <= max(results.values(kind, peers_work(work), peer, measure))
                    else ""
                )
                parts.append(f"{phrase(work, measure).format(peer, number(best), number(median))}{overlap}")
            if parts:
                lines.append(f"- {TITLES[kind]}, {in_words(kind, work)}: {'; '.join(parts)}.")
    return lines or ["Nowhere, in these works and on this machine."]


def phrase(work, measure):
    if measure == "MB":
        return "{0} leaves {1} MB, Chronolith {2}" if work == "forget" else "{0} adds {1} MB, Chronolith {2}"
    return {
        "seconds": "{0} takes {1} s, Chronolith {2}",
        "peak MiB": "{0} holds {1} MiB of memory, Chronolith {2}",
        "CPU seconds": "{0} needs {1} s of CPU time, Chronolith {2}",
    }[measure]


def what_failed(results):
    lines = []
    for (kind, work, engine), rows in results.rows.items():
        words = [verdict(row) for row in rows if verdict(row)]
        if words:
            what = work if engine == "machine" else in_words(kind, work)
            lines.append(
                f"- {title(engine)}, {TITLES[kind]}, {what}: {', '.join(sorted(set(words)))} "
                f"in {len(words)} of {len(rows)} rounds."
            )
    return lines


def quietness(results):
    """Whether the machine had anything else to do; a figure is worth no more than that."""
    rows = [row for found in results.rows.values() for row in found if row["seconds"] >= 0.5]
    if not rows:
        return "No command took half a second; what else the machine did cannot be said."
    shares = [(row["others"] + row["steal"]) / (row["seconds"] * results.about["machine"]["cores"]) for row in rows]
    loud = sum(share > QUIET_SHARE for share in shares)
    return (
        "While commands of half a second or more ran, everything else on the machine took "
        f"{100 * statistics.median(shares):.1f} % of its CPU time in the median and {100 * max(shares):.1f} % at most; "
        f"{loud} of {len(rows)} such commands lost more than {100 * QUIET_SHARE:.0f} %."
    )


def inputs(results):
    """The sizes of all inputs, by their names."""
    sizes = {}
    for (_, work, engine), rows in results.rows.items():
        action, _, name = work.partition(" ")
        if engine != "machine" and action in ("first", "later"):
            sizes.setdefault(name, rows[0]["input"])
    ordered = sorted(sizes.items(), key=lambda entry: re.sub(r"\d", "", entry[0]) + entry[0])
    return ", ".join(f"{name} {number(size / 1e6)}" for name, size in ordered)


def wrapped(paragraph):
    return textwrap.wrap(paragraph, 125, break_long_words=False, break_on_hyphens=False)


def text(results):
    """The whole file."""
    about, machine, failures = results.about, results.about["machine"], what_failed(results)
    rounds = sorted({len(rows) for (_, work, _), rows in results.rows.items() if not work.startswith("list")} or {1})
    spoken = f"{rounds[0]}" if len(rounds) == 1 else f"{rounds[0]} to {rounds[-1]}"
    spoken = "One round" if spoken == "1" else f"Medians of {spoken} rounds in turn, in brackets the least and the greatest"
    lines = [
        "# Side by side",
        "",
        *wrapped(
            f"Written by `tools/bench` on {' and '.join(about['dates'])}; run it to get your own. {spoken}; seconds of wall "
            "time, MB of 10^6 bytes, MiB of 2^20. A ratio below 1 means that Chronolith needs less. What came back was "
            "compared with what went in, byte by byte."
        ),
        "",
        *(["## What failed", "", *failures, ""] if failures else []),
        "## Chronolith, the best peer, and the machine's limit",
        "",
        *wrapped(
            "The limit is what one program with one task needs for the same bytes: `zstd -3` for a first backup, a hash of "
            "every byte for a later one, unpacking for a stream that comes back, a synced write for a folder. New at all are "
            "the rows, or pages of 8 KiB, that stood in no version before, wherever they stand. After forget and prune, MB are "
            "what remains."
        ),
        "",
    ]
    for kind in results.works:
        lines += [f"{TITLES[kind]}:", "", *glance(results, kind)]
    lines += ["## Where a peer is better", "", *where_a_peer_is_better(results), ""]
    for kind in results.works:
        lines += [f"## {TITLES[kind]}", "", *details(results, kind), *machine_itself(results, kind)]
    lines += ["## Engines", ""]
    lines += table(
        ["engine", "version", "settings"],
        [[title(name), engine["version"], engine["settings"]] for name, engine in about["engines"].items()],
    )
    lines += [
        "## Machine and inputs",
        "",
        f"{machine['cpu']}, {machine['cores']} cores, {machine['memory'] / 2**30:.0f} GiB of memory, Linux {machine['kernel']}; "
        f"repositories on {', '.join(filter(None, (machine['file_system'], machine['disk'])))}.",
        *wrapped(quietness(results)),
        *([] if machine["small_time"] else [NO_TIME]),
        "",
        *wrapped(
            f"Inputs, MB: {inputs(results)}. They were read once before, so that none met a cold cache, and all that was written "
            "before was synced first. Every engine began each kind of work with a new repository, encrypted, in a home of its own."
        ),
        "",
    ]
    return "\n".join(lines)
