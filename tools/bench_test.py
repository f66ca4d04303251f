#!/usr/bin/env python3
"""Checks the benchmark's own judgement: what a table says of rows that are known, and that nothing wrong passes.

usage: tools/bench_test.py
"""

import json
import os
import shutil
import subprocess
import tempfile
import unittest

import bench_measure
import bench_report
import bench_results

MACHINE = {
    "cpu": "Some CPU", "cores": 2, "memory": 2**33, "file_system": "ext4", "disk": "a virtual disk",
    "kernel": "6.1", "hash": "SHA-256", "small_time": True,
}  # fmt: skip

TWO = (("chronolith", 0.3), ("pgbackrest", 0.2))


def about(**versions):
    engines = {name: {"version": version, "settings": "defaults"} for name, version in versions.items()}
    return {"row": "about", "date": "2026-01-02", "rounds": 3, "works": ["dumps"], "engines": engines, "machine": MACHINE}


def measured(engine, work, seconds, added_mb=0, *, kind="dumps", status=0, right=None, peak=50.0, sync=0.0, number=1):
    return {
        "row": "measured", "kind": kind, "work": work, "engine": engine, "round": number, "input": 10**9,
        "seconds": seconds, "sync": sync, "user": seconds, "system": 0.5, "peak_mib": peak, "others": 0.1, "steal": 0.0,
        "status": status, "right": right, "before": 10**6, "after": 10**6 + round(added_mb * 1e6),
    }  # fmt: skip


class Folder(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, content):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "wb") as file:
            file.write(content)
        return self.path(name)

    def results(self, *rows):
        return bench_results.load([self.write("rows", "\n".join(map(json.dumps, rows)).encode())])


class Report(Folder):
    def test_medians_ratios_and_limits(self):
        rows = [about(chronolith="1.0", restic="0.14", borg="1.2")]
        rows += [
            measured("chronolith", "first d0", seconds, 100, number=place) for place, seconds in enumerate((3.0, 9.0, 4.0))
        ]
        rows += [
            measured("restic", "first d0", 8.0, 110),
            measured("borg", "first d0", 16.0, 90),
            measured("machine", "limit zstd d0", 2.0, 95),
        ]
        rows += [{"row": "floor", "kind": "dumps", "name": "d0", "bytes": 80 * 10**6}]
        text = bench_report.text(self.results(*rows))
        self.assertIn("| d0, first backup | 4.00 | 8.00 (restic) | 0.50 | 2.00 (zstd) | 2.00 |", text)
        self.assertIn("| d0, first backup | 100 | 90.0 (borg) | 1.11 | 80.0 | 1.25 |", text)
        self.assertIn("| d0, first backup | 4.00 (3.00 to 9.00) | 8.00 | 16.0 |", text)
        self.assertIn("d0, first backup: borg adds 90.0 MB, Chronolith 100.", text)
        self.assertNotIn("restic takes", text)

    def test_overlapping_rounds_are_said_to_overlap(self):
        rows = [about(chronolith="1.0", restic="0.14")]
        for number, (mine, other) in enumerate(((3.0, 2.0), (2.0, 1.0), (4.0, 3.5))):
            rows += [measured("chronolith", "check", mine, number=number), measured("restic", "check", other, number=number)]
        self.assertIn("restic takes 2.00 s, Chronolith 3.00, and the rounds overlap", bench_report.text(self.results(*rows)))

    def test_wrong_bytes_and_failures_are_never_a_time(self):
        rows = [about(chronolith="1.0", restic="0.14", borg="1.2")]
        rows += [measured("chronolith", "give d0", 2.0, right=True), measured("restic", "give d0", 1.0, right=False)]
        rows += [measured("borg", "give d0", 0.5, status=2), measured("borg", "give d0", 0.7, number=2, right=True)]
        results = self.results(*rows)
        text = bench_report.text(results)
        self.assertIn("| d0 to a pipe | 2.00 |  |  |", text)
        self.assertIn("| d0 to a pipe | 2.00 | WRONG BYTES | failed (2) |", text)
        self.assertEqual(len(bench_report.what_failed(results)), 2)
        self.assertIn("- borg, Versions of a PostgreSQL dump, d0 to a pipe: failed (2) in 1 of 2 rounds.", text)
        self.assertIn("Nowhere, in these works", text)

    def test_a_folder_counts_when_it_is_on_the_disk(self):
        rows = [about(chronolith="1.0", borg="1.2")]
        rows += [
            measured("chronolith", "give p2", 3.0, kind="directories"),
            measured("borg", "give p2", 2.0, kind="directories", sync=4.0),
        ]
        self.assertIn("| p2 to a folder, synced | 3.00 | 6.00 (borg) | 0.50 |", bench_report.text(self.results(*rows)))

    def test_after_forget_what_remains_is_told(self):
        rows = [
            about(chronolith="1.0", borg="1.2"),
            measured("chronolith", "forget", 1.0, 40),
            measured("borg", "forget", 2.0, -0.5),
        ]
        self.assertIn("borg leaves 0.50 MB, Chronolith 41.0", bench_report.text(self.results(*rows)))

    def test_a_kept_key_is_compared_with_what_peers_do(self):
        rows = [about(chronolith="1.0", borg="1.2"), measured("chronolith", "list-kept", 1.0), measured("borg", "list", 4.0)]
        self.assertIn(
            "| list, key kept from the command before | 1.00 | 4.00 (borg) | 0.25 |", bench_report.text(self.results(*rows))
        )

    def test_segments_that_were_fetched_ahead_have_a_row(self):
        rows = [about(chronolith="1.0", pgbackrest="2.4")]
        rows += [measured("chronolith", "before ahead", 1.0, kind="postgres")]
        rows += [measured(name, "ahead 28", seconds, kind="postgres", right=True, sync=9.0) for name, seconds in TWO]
        text = bench_report.text(self.results(*rows))
        self.assertIn("| 28 segments that were fetched ahead, a process each | 0.30 | 0.20 (pgbackrest) | 1.50 |", text)
        self.assertNotIn("before ahead", text)

    def test_rows_that_do_not_go_together_are_refused(self):
        row = measured("restic", "list", 1.0)
        for rows in (
            [about(restic="0.14"), about(restic="0.19"), row],
            [about(restic="0.14")],
            [row],
            [{"row": "measured"}],
        ):
            with self.assertRaises(bench_results.Unreadable):
                self.results(*rows)


class Measure(Folder):
    def compare(self, content, expected):
        path = self.write("expected", expected)
        process = subprocess.Popen(["cat", self.write("content", content)], stdout=subprocess.PIPE)
        with process:
            return bench_measure.differs(process.stdout, path)

    def test_every_byte_counts(self):
        right = os.urandom(300_000)
        self.assertFalse(self.compare(right, right))
        self.assertFalse(self.compare(b"", b""))
        for wrong in (right[:-1], right + b"x", right[:200_000] + b"x" + right[200_001:], b""):
            self.assertTrue(self.compare(wrong, right))
        self.assertTrue(self.compare(b"x", b""))

    def test_a_laid_folder_is_equal_and_leaves_alone_what_did_not_change(self):
        for version, words in (("v0", (b"same", b"old", b"gone")), ("v1", (b"same", b"newer", None))):
            for name, content in zip(("a/same", "a/changed", "b/gone"), words):
                if content is not None:
                    os.utime(self.write(f"{version}/{name}", content), (1000 + len(content), 1000))
        os.symlink("same", self.path("v1/a/link"))
        bench_measure.lay(self.path("v0"), self.path("place"))
        before = os.stat(self.path("place/a/same"))
        self.assertNotEqual(bench_measure.tree_digest(self.path("v1")), bench_measure.tree_digest(self.path("place")))
        bench_measure.lay(self.path("v1"), self.path("place"))
        self.assertEqual(bench_measure.tree_digest(self.path("v1")), bench_measure.tree_digest(self.path("place")))
        after = os.stat(self.path("place/a/same"))
        self.assertEqual((before.st_ino, before.st_ctime_ns), (after.st_ino, after.st_ctime_ns))

    def test_a_command_is_measured_with_its_input_and_exit_code(self):
        path = self.write("input", b"words\n" * 1000)
        run = {"environment": dict(os.environ), "notes": self.folder, "source": path, "expected": path}
        row = bench_measure.run(["cat"], **run)
        self.assertEqual((row["status"], row["right"]), (0, True))
        row = bench_measure.run(["sh", "-c", "tr o 0; exit 3"], **run)
        self.assertEqual((row["status"], row["right"]), (3, False))


if __name__ == "__main__":
    unittest.main()
