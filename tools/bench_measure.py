"""One measured command, and what has to be true around it for its figures to mean something.

Inputs are read once before, so that no engine pays for a cold cache. The page cache is written back before
the clock starts, and the time that sync(1) takes afterwards is kept by itself: an engine that leaves its
writes to the kernel shows a large one. Streams come and go through real pipes. What the rest of the machine
did meanwhile is kept with every figure, because on a shared machine it decides what a figure is worth.
"""

import ctypes
import errno
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import time

# GNU time is small; a child of this interpreter inherits the interpreter's own peak in its resource usage.
TIME = shutil.which("time")
BLOCK = 1 << 20
SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER of linux/prctl.h


def adopt_orphans():
    """Makes this process the parent of what a measured command leaves behind, so that its CPU time counts."""
    try:
        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    except (OSError, AttributeError):
        pass


def machine_seconds():
    """CPU seconds that the machine has spent since it started, and those that a hypervisor took from it."""
    try:
        with open("/proc/stat") as file:
            ticks = [int(word) for word in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return 0.0, 0.0
    user, nice, system, _idle, _waiting, interrupts, soft_interrupts, steal = ticks
    second = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + interrupts + soft_interrupts) / second, steal / second


def files_below(path):
    """Every file of a tree, or the file itself."""
    if not os.path.isdir(path):
        yield path
    for folder, _, names in os.walk(path):
        for name in names:
            yield os.path.join(folder, name)


def bytes_below(path):
    """The sum of the lengths of all files of a tree."""
    total = 0
    for file in files_below(path):
        try:
            total += os.lstat(file).st_size
        except FileNotFoundError:
            pass
    return total


def warm(path):
    """Reads a file or a tree once, so that it stands in the page cache for whoever comes first."""
    for file in files_below(path):
        if os.path.islink(file):
            continue
        with open(file, "rb", buffering=0) as handle:
            while handle.read(BLOCK):
                pass


def forget_cached():
    """Empties the page cache; says whether that was allowed."""
    os.sync()
    try:
        with open("/proc/sys/vm/drop_caches", "w") as file:
            file.write("1")
    except OSError:
        return False
    return True


def differs(pipe, path):
    """Reads a pipe to its end beside a file. Comparing costs less than any digest, and so slows nobody down."""
    different = False
    with open(path, "rb", buffering=0) as expected:
        while block := os.read(pipe.fileno(), BLOCK):
            while block and not different:
                part = expected.read(len(block))
                different = not part or part != block[: len(part)]
                block = block[len(part) :]
        return different or bool(expected.read(1))


def tree_digest(path, without=frozenset()):
    """A digest over names, kinds, permissions, link targets and contents of everything below a folder."""
    digest = hashlib.sha256()
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(set(folders) - without)
        for name in sorted({*folders, *names} - without):
            full = os.path.join(folder, name)
            status = os.lstat(full)
            digest.update(f"{os.path.relpath(full, path)}\0{status.st_mode:o}\0".encode("utf-8", "surrogateescape"))
            if stat.S_ISLNK(status.st_mode):
                digest.update(os.fsencode(os.readlink(full)))
            elif stat.S_ISREG(status.st_mode):
                with open(full, "rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def lay(source, target):
    """Makes the target folder equal to the source, writing only files whose length or time differ.

    So a data directory looks as it does in life: one place, in which unchanged files stay as they are.
    """
    os.makedirs(target, exist_ok=True)
    wanted = {entry.name: entry for entry in os.scandir(source)}
    for entry in list(os.scandir(target)):
        if entry.name not in wanted or kind_of(wanted[entry.name]) != kind_of(entry):
            shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)
    for name, entry in wanted.items():
        place = os.path.join(target, name)
        if entry.is_dir(follow_symlinks=False):
            lay(entry.path, place)
        elif entry.is_symlink():
            if not os.path.lexists(place):
                os.symlink(os.readlink(entry.path), place)
        elif entry.is_file():
            new, old = entry.stat(), os.stat(place) if os.path.exists(place) else None
            if old is None or (old.st_size, old.st_mtime_ns) != (new.st_size, new.st_mtime_ns):
                shutil.copyfile(entry.path, place)
                shutil.copystat(entry.path, place)
                keep_owner(entry.path, place)
    shutil.copystat(source, target)
    keep_owner(source, target)


def kind_of(entry):
    return stat.S_IFMT(entry.stat(follow_symlinks=False).st_mode)


def keep_owner(source, target):
    """Gives the target the source's owner, where this process may."""
    if os.geteuid() == 0:
        status = os.stat(source)
        os.chown(target, status.st_uid, status.st_gid)


def feeder(source):
    """What feeds a measured command: a file through cat, a folder through tar."""
    if os.path.isdir(source):
        return ["tar", "-cf", "-", "-C", source, "."]
    return ["cat", source]


def children():
    """The processes that have this one as their parent: a server that runs beside the measured command, say."""
    try:
        with open("/proc/thread-self/children") as file:
            return set(file.read().split())
    except OSError:
        return set()


def reap_orphans(others=frozenset(), patience_seconds=10.0):
    """CPU seconds of adopted processes, but for `others`. One that goes on for longer than the patience is left alone."""
    spent = [0.0, 0.0]
    until = time.monotonic() + patience_seconds
    while time.monotonic() < until:
        try:
            pid, _, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == 0:
            if others and children() <= others:
                break
            time.sleep(0.005)
        else:
            spent[0] += usage.ru_utime
            spent[1] += usage.ru_stime
    return spent


def run(argv, *, environment, notes, folder=None, source=None, expected=None):
    """Runs one command and measures it.

    source is fed to its standard input through a pipe; its output is compared with the file expected.
    notes is a folder for the command's messages. Ends with a dictionary for one row.
    """
    note = os.path.join(notes, "time")
    wrapped = [TIME, "-f", "%M", "-o", note, *argv] if TIME else argv
    os.sync()
    others = children()
    busy_before, steal_before = machine_seconds()
    own_before = time.process_time()
    right = None
    with open(os.path.join(notes, "messages"), "wb") as messages:
        feed = None
        if source is not None:
            feed = subprocess.Popen(feeder(source), stdout=subprocess.PIPE, start_new_session=True)
        began = time.monotonic()
        process = subprocess.Popen(
            wrapped,
            cwd=folder,
            env=environment,
            stdin=feed.stdout if feed else subprocess.DEVNULL,
            stdout=messages if expected is None else subprocess.PIPE,
            stderr=messages,
            # A terminal's ^C then reaches this process alone, which ends what it started by id.
            start_new_session=True,
        )
        try:
            if feed:
                feed.stdout.close()
            if expected is not None:
                right = not differs(process.stdout, expected)
                process.stdout.close()
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.monotonic() - began
            process.returncode = os.waitstatus_to_exitcode(status)
            feed_seconds = 0.0
            if feed:
                _, _, feed_usage = os.wait4(feed.pid, 0)
                feed.returncode = 0
                feed_seconds = feed_usage.ru_utime + feed_usage.ru_stime
        except BaseException:
            for group in (process, feed):
                if group is not None and group.returncode is None:
                    try:
                        os.killpg(group.pid, signal.SIGKILL)
                    except OSError as error:
                        if error.errno != errno.ESRCH:
                            raise
            raise
    orphans = reap_orphans(others)
    user, system = usage.ru_utime + orphans[0], usage.ru_stime + orphans[1]
    busy, steal = machine_seconds()
    peak_kib = usage.ru_maxrss
    if TIME:
        with open(note) as file:
            peak_kib = int(file.read().split()[-1])
    own = time.process_time() - own_before
    began = time.monotonic()
    os.sync()
    return {
        "seconds": round(seconds, 4),
        "sync": round(time.monotonic() - began, 4),
        "user": round(user, 3),
        "system": round(system, 3),
        "peak_mib": round(peak_kib / 1024, 1),
        "others": round(max(0.0, busy - busy_before - user - system - feed_seconds - own), 2),
        "steal": round(steal - steal_before, 2),
        "status": process.returncode,
        "right": right,
    }
