#!/usr/bin/env python3
"""A second reader of Chronolith repositories, written from format-spec/ alone.

It lists and restores what a repository holds, without the program that wrote it. It needs this file,
reader_format.py, Python 3.9 and four packages: pip install -r tools/requirements.txt

    reader.py REPOSITORY [--password-file F | --key-file F | --sheet F] COMMAND

    info                       configuration, registry, what opens
    snapshots                  all snapshots whose signatures hold, oldest first
    ls SNAPSHOT[:PATH]         what lies in a folder
    cat SNAPSHOT:PATH          a file or stream, to standard output
    restore SNAPSHOT[:PATH] TARGET   into a folder that does not exist or is empty
    logs [STREAM NAME]         archived log segments; with a name, its bytes to standard output
    check                      every blob that any snapshot needs

SNAPSHOT is `latest`, an id, or the beginning of one. REPOSITORY is a folder. Without an option the password
is asked for. --no-index reads packs alone; it is what happens anyway where index runs are missing.

The comments name the pages and rules of format-spec/.
"""

import argparse
import datetime
import getpass
import os
import stat
import sys

import blake3 as blake3_package

from reader_format import (
    ANNOTATION, CONTENT, CONTENT_PACK, DEPTH_MAX, ENTRY_BLOCK, ENTRY_CHARACTER, ENTRY_FILE, ENTRY_FOLDER,
    ENTRY_LINK, ENTRY_PIPE, ENTRY_SOCKET, FORGOTTEN, INDEX_RUN, LOG_PACK, LOG_RECORD, MAINTAINER, MAY_SIGN,
    MERGED, METADATA, METADATA_PACK, MIB, OWNER, PIN, SEGMENT, SLOT, SNAPSHOT, TRUST, UNDELETED, UNPIN,
    WRITER, Config, Envelope, IndexRun, LogPack, Missing, Refused, Secrets, Trailer, Truncated, Unsupported,
    blake3, check_blob, check_runs, covers, depth_of, metadata_of, open_slot, public_half, read_annotation,
    read_grant, read_log_record, read_origins, read_recipe, read_registry, read_sheet, read_slot,
    read_snapshot, read_table, read_tree, require, resolve_registry, signature_holds, signed_by_owner, slot_key, unwrap_grant,
)

# --- the repository: README.md -------------------------------------------------------------------


def is_hex(word, length=64):
    return len(word) == length and set(word) <= set("0123456789abcdef")


class Folder:
    """A store: a folder of the file system."""

    def __init__(self, root):
        self.root = root

    def get(self, name):
        try:
            with open(os.path.join(self.root, *name.split("/")), "rb") as file:
                return file.read()
        except FileNotFoundError:
            raise Missing(f"{name} is not there") from None

    def get_range(self, name, offset, length):
        try:
            with open(os.path.join(self.root, *name.split("/")), "rb") as file:
                file.seek(offset)
                data = file.read(length)
        except FileNotFoundError:
            raise Missing(f"{name} is not there") from None
        if len(data) != length:
            raise Truncated(f"{name} is too short")
        return data

    def length(self, name):
        return os.path.getsize(os.path.join(self.root, *name.split("/")))

    def objects(self, area):
        """Names below an area whose last part is an id ([CONVENTIONS-4])."""
        found = []
        for folder, _, files in os.walk(os.path.join(self.root, area)):
            inside = os.path.relpath(folder, self.root).replace(os.sep, "/")
            found += [f"{inside}/{name}" for name in files if is_hex(name)]
        return sorted(found)


def warn(message):
    print(f"reader: {message}", file=sys.stderr)


class Repository:
    """An opened repository."""

    def __init__(self, root, secret=None, key_file=None, sheet=None, use_index=True):
        self.store, self.use_index = Folder(root), use_index
        self.places, self.frames, self.origin_keys = None, {}, {}
        self.config, self.config_data = self.read_config()
        self.id = self.config.repository
        for kind, name, program, message in self.config.features:
            if kind == "refuse":
                raise Unsupported(f"feature {name}: {message} (needs program {program})")
        versions = self.read_versions()
        if sheet is not None:
            id_, self.identity, self.secrets = read_sheet(sheet)
            require(id_ == self.id, "the sheet belongs to another repository")
            self.registry = resolve_registry(versions, self.identity, self.id)
        else:
            self.identity, self.registry = self.open_slots(versions, secret, key_file)
            self.secrets = Secrets()
        self.check_config()
        self.open_grants()

    # Objects that are stored twice ([CONVENTIONS-6])

    def twice(self, area):
        """{id: bytes} of the good copies of all objects of an area."""
        found = {}
        for name in self.store.objects(area) + self.store.objects(f"copies/{area}"):
            id_ = bytes.fromhex(name.rsplit("/", 1)[1])
            data = self.store.get(name)
            if blake3(data) == id_:
                found[id_] = data
            else:
                warn(f"{name} is damaged")
        return found

    def read_config(self):
        best = None
        for name in ("chronolith", "copies/chronolith"):
            try:
                config = Config(self.store.get(name))
                if best is None or config.revision > best[0].revision:
                    best = config, name
            except Missing:
                continue
            except Unsupported:
                raise
            except Refused as error:
                warn(f"{name}: {error}")
        if best is None:
            raise Missing("this folder holds no repository")
        return best

    def read_versions(self):
        versions = {}
        for id_, data in self.twice("trust").items():
            try:
                object_ = Envelope(data)
                require(object_.kind == TRUST, "[ENVELOPE-13]")
                versions[id_] = read_registry(object_.payload), object_
            except Refused as error:
                warn(f"trust/{id_.hex()}: {error}")
        return versions

    def open_slots(self, versions, secret, key_file):
        """The identity and the registry of the first slot that opens and that may be believed."""
        reasons = []
        for id_, data in sorted(self.twice("keys").items()):
            try:
                object_ = Envelope(data)
                require(object_.kind == SLOT, "[ENVELOPE-13]")
                slot = read_slot(object_.payload)
                wanted = key_file if slot["kind"] == 2 else secret
                if wanted is not None:
                    identity = open_slot(slot, slot_key(slot, wanted), self.id)
                    registry = resolve_registry(versions, identity, self.id)
                    self.check_slot(object_, identity, registry)
                    return identity, registry
            except Refused as error:
                reasons.append(f"keys/{id_.hex()}: {error}")
        raise Missing("no key slot opens: " + ("; ".join(reasons) or "there is none of this kind"))

    def check_slot(self, object_, identity, registry):
        """[SLOT-6]"""
        own = object_.signer == identity["key"] and identity["key"] in registry["members"]
        if own:
            public = registry["members"][object_.signer]["signing"]
            own = signature_holds(self.id, SLOT, object_.signed, public, object_.signature)
        require(own or signed_by_owner(registry, object_, self.id), "the slot is signed by somebody else")

    def check_config(self):
        """[CONFIG-10], [CONFIG-11]"""
        config = self.config
        member = self.registry["members"].get(config.signer)
        require(member and member["role"] == OWNER and not member["revoked"], "no owner signed the configuration")
        holds = signature_holds(self.id, 0, config.signed, member["signing"], config.signature)
        require(holds, "the signature of the configuration does not hold")
        require(config.revision >= self.registry["least_revision"], "an old configuration was put back")

    def open_grants(self):
        for epoch in self.registry["epochs"]:
            for grant in epoch["grants"]:
                if grant["key"] != self.identity["key"]:
                    continue
                number, exchange = epoch["number"], self.identity["exchange"]
                plain = unwrap_grant(exchange, grant["wrapped"], self.id, number, grant["key"])
                opened = read_grant(plain)
                require(opened["epoch"] == number, "[KEYS-13]")
                require(not opened["content"] or public_half(opened["content"]) == epoch["content"], "[KEYS-13]")
                self.secrets.add_grant(opened)
        if not self.secrets.metadata:
            raise Missing("the registry grants this key nothing")

    def believed(self, object_, kind, signature=None):
        """[TRUST-12]: returns the member that signed, or refuses."""
        member = self.registry["members"].get(object_.signer)
        require(member, "signed by a key that the registry does not know")
        holds = signature_holds(self.id, kind, object_.signed, member["signing"], signature or object_.signature)
        require(holds, "the signature does not hold")
        require(member["role"] in MAY_SIGN[kind], "signed by a key that may not make such objects")
        return member

    def accepted(self, member, id_):
        revoked = member["revoked"]
        return not revoked or id_ in (revoked["accepted"] or ())

    def open_object(self, name, kind):
        """An object in an envelope: (id, payload, member that signed it)."""
        id_, data = bytes.fromhex(name.rsplit("/", 1)[1]), self.store.get(name)
        require(blake3(data) == id_, "the hash is not the name")
        object_ = Envelope(data)
        require(object_.kind == kind, "[ENVELOPE-13]")
        member = self.believed(object_, kind)
        require(self.accepted(member, id_), "signed by a revoked key, and not accepted")
        return id_, object_.open(self.id, metadata_of(self.secrets, object_.epoch)), member

    def each(self, area, kind, read):
        """All objects of an area that count: (id, what was read, member); says which do not."""
        for name in self.store.objects(area):
            try:
                id_, payload, member = self.open_object(name, kind)
                yield id_, read(payload), member
            except (Refused, Missing) as error:
                warn(f"{name}: {error}")

    # Snapshots and what is said about them

    def snapshots(self):
        """All snapshots that count, oldest first: [(id, snapshot, is forgotten)]."""
        found = {}
        for id_, snapshot, member in self.each("snapshots", SNAPSHOT, read_snapshot):
            limited = member["role"] == WRITER
            if limited and not (covers(member["hosts"], snapshot["host"]) and covers(member["labels"], snapshot["label"])):
                warn(f"snapshot {id_.hex()}: its signer may not write this host and label")
                continue
            found[id_] = snapshot
        gone = self.forgotten()
        order = sorted(found.items(), key=lambda item: (item[1]["ended"], item[0]))
        return [(id_, snapshot, id_ in gone) for id_, snapshot in order]

    def forgotten(self):
        """annotation.md: forgotten, less what was taken back or is pinned."""
        notes = {id_: (read, member) for id_, read, member in self.each("annotations", ANNOTATION, read_annotation)}
        senior = {id_ for id_, (_, member) in notes.items() if member["role"] in (OWNER, MAINTAINER)}
        gone, pinned = set(), set()
        for id_, (note, _) in notes.items():
            kind, subjects = note["kind"], set(note["subjects"] or ())
            cancels = [notes[c][0] for c in senior if notes[c][0]["cancels"] == id_]
            if kind == FORGOTTEN and id_ in senior:
                taken = [c for c in cancels if c["kind"] == UNDELETED]
                back = [set(c["subjects"] or (() if c["log_packs"] else subjects)) for c in taken]
                gone |= subjects.difference(*back)
            if kind == PIN and not any(c["kind"] == UNPIN for c in cancels):
                pinned |= subjects
        return gone - pinned

    def find(self, word):
        snapshots = self.snapshots()
        if word == "latest":
            matches = [entry for entry in snapshots if not entry[2]][-1:]
        else:
            matches = [entry for entry in snapshots if len(word) >= 8 and entry[0].hex().startswith(word)]
        if len(matches) != 1:
            raise Missing(f"{len(matches)} snapshots are called {word!r}")
        return matches[0][1]

    # Blobs

    def load_places(self):
        """Where each blob is: {(class, id): [(frame, offset, length)]}, nearest to standing alone first."""
        self.places, listed_packs = {}, set()
        if self.use_index:
            for name in self.store.objects("index"):
                try:
                    listed_packs |= self.load_run(name)
                except (Refused, Missing) as error:
                    warn(f"{name}: {error}")
        for name in self.store.objects("packs"):
            if bytes.fromhex(name.rsplit("/", 1)[1]) not in listed_packs:
                try:
                    self.load_pack(name)
                except (Refused, Missing) as error:
                    warn(f"{name}: {error}")
        for copies in self.places.values():
            copies.sort(key=depth_of)

    def add_place(self, class_, id_, frame, offset, length):
        self.places.setdefault((class_, id_), []).append((frame, offset, length))

    def load_run(self, name):
        data = self.store.get(name)
        require(blake3(data).hex() == name.rsplit("/", 1)[1], "the hash is not the name")
        run = IndexRun(data)
        run.signer = run.head.signer
        self.believed(run, INDEX_RUN)
        records = list(run.open(self.id, metadata_of(self.secrets, run.head.epoch)))
        for id_, class_, frame, offset, length in records:
            self.add_place(class_, id_, frame, offset, length)
        return {record[2].pack for record in records}

    def load_pack(self, name):
        """A pack that no index run lists: its table of contents is read from its end."""
        length = self.store.length(name)
        trailer = Trailer(self.store.get_range(name, length - 192, 192), length, (CONTENT_PACK, METADATA_PACK))
        tail = self.store.get_range(name, trailer.table_at, trailer.tail_length)
        class_ = trailer.kind - CONTENT_PACK
        origins = read_origins(tail[trailer.table_sealed : -192], trailer.origins, class_)
        plain = trailer.open_table(tail[: trailer.table_sealed], self.id, metadata_of(self.secrets, trailer.epoch))
        for frame, blobs in read_table(plain, trailer, 64 + 104 * trailer.origins):
            frame.pack, frame.origin = bytes.fromhex(name.rsplit("/", 1)[1]), origins[frame.origin]
            for id_, start, blob_length in blobs:
                self.add_place(class_, id_, frame, start, blob_length)

    def blob(self, class_, id_, below=DEPTH_MAX + 1):
        """The plain bytes of a blob, through a copy of a depth below the bound ([PACK-8])."""
        if self.places is None:
            self.load_places()
        id_key = self.secrets.content_ids if class_ == CONTENT else self.secrets.metadata_ids
        reasons = []
        for frame, offset, length in self.places.get((class_, id_), []):
            if frame.depth >= below:
                continue
            try:
                return check_blob(id_key, id_, self.decoded(class_, frame)[offset : offset + length])
            except (Refused, Missing) as error:
                reasons.append(str(error))
        raise Missing(f"blob {id_.hex()}: " + ("; ".join(reasons) or "no pack holds it"))

    def decoded(self, class_, frame):
        place = frame.pack, frame.offset
        if place not in self.frames:
            base = self.blob(class_, frame.base, frame.depth) if frame.base else None
            pack = frame.pack.hex()
            sealed = self.store.get_range(f"packs/{pack[:2]}/{pack}", frame.offset, frame.sealed)
            while len(self.frames) >= 16:
                self.frames.pop(next(iter(self.frames)))
            key = self.origin_key(frame.origin)
            self.frames[place] = frame.open(sealed, frame.origin, key, self.id, base)
        return self.frames[place]

    def origin_key(self, origin):
        if origin.data not in self.origin_keys:
            self.origin_keys[origin.data] = origin.key(self.id, self.secrets)
        return self.origin_keys[origin.data]

    # Trees and content

    def entries(self, id_, expected_level=None, first=None, end=None):
        """The entries of a folder, or of a part of it, in order ([TREE-9])."""
        level, items = read_tree(self.blob(METADATA, id_))
        require(expected_level in (None, level), "[TREE-9]: level")
        names = [item["name"] for item in items]
        require(first is None or names[:1] == [first], "[TREE-9]: first name")
        require(end is None or not names or names[-1] < end, "[TREE-9]: last name")
        if not level:
            yield from items
            return
        for part, after in zip(items, names[1:] + [end]):
            yield from self.entries(part["node"], level - 1, part["name"], after)

    def pieces(self, id_, expected=None):
        """The pieces under a recipe node ([RECIPE-6])."""
        level, entries = read_recipe(self.blob(METADATA, id_))
        total = sum(entry[1] for entry in entries)
        leaves = sum(entry[2] for entry in entries) if level else len(entries)
        require(expected in (None, (level, total, leaves)), "[RECIPE-6]")
        if not level:
            yield from entries
            return
        for child, length, count in entries:
            yield from self.pieces(child, (level - 1, length, count))

    def content(self, entry):
        """The bytes of a file in order: (bytes, None) or, for a hole, (None, length). Checks length and digest."""
        content = entry["content"]
        pieces = content["pieces"] if content["pieces"] is not None else self.pieces(content["recipe"])
        digest, total, zeros = blake3_package.blake3(), 0, bytes(MIB)
        for id_, length in pieces:
            total += length
            require(total <= content["length"], "[TREE-5]")
            if id_ is None:
                if content["algorithm"] == 1:
                    for start in range(0, length, MIB):
                        digest.update(zeros[: min(MIB, length - start)])
                yield None, length
            else:
                plain = self.blob(CONTENT, id_)
                require(len(plain) == length, "a chunk of another length")
                digest.update(plain)
                yield plain, None
        require(total == content["length"], "[TREE-5]")
        require(content["algorithm"] != 1 or digest.digest() == content["digest"], "[TREE-12]: the digest differs")

    def look_up(self, snapshot, path):
        """The entry at a path; None for the topmost folder."""
        entry, node = None, snapshot["root"]
        for name in [name for name in os.fsencode(path).split(b"/") if name]:
            if node is None:
                raise Missing(f"{path}: {os.fsdecode(name)} does not lie in a folder")
            entry = next((entry for entry in self.entries(node) if entry["name"] == name), None)
            if entry is None:
                raise Missing(f"{path}: there is no {os.fsdecode(name)}")
            node = entry["subtree"]
        return entry, node

    def walk(self, node, path=b"", depth=0):
        """All entries below a folder: (path, entry), a folder before what is in it."""
        require(depth <= 1024, "[TREE-10]")
        for entry in self.entries(node):
            inside = path + b"/" + entry["name"] if path else entry["name"]
            yield inside, entry
            if entry["subtree"]:
                yield from self.walk(entry["subtree"], inside, depth + 1)

    # Logs

    def logs(self):
        """All records of log packs that count: [(name of the object, record, function giving its bytes)]."""
        for name in self.store.objects("logs"):
            try:
                data = self.store.get(name)
                require(blake3(data).hex() == name.rsplit("/", 1)[1], "the hash is not the name")
                if "/records/" in name:
                    yield name, read_log_record(self.open_object(name, LOG_RECORD)[1]), None
                    continue
                pack = LogPack(data)
                self.believed(pack, LOG_PACK)
                records, content = pack.open(self.id, self.secrets)
                merged = "/merged/" in name
                members = [self.believed(envelope, LOG_RECORD) for envelope in pack.records]
                require(pack.records[0].signer == pack.signer, "[LOG-PACK-1], [LOG-PACK-2]")
                good = [record["kind"] == MERGED for record in records] == [merged] + [False] * (len(records) - 1)
                require(good and (merged or len(records) == 1), "[LOG-PACK-1], [LOG-PACK-2]")
                if merged:
                    check_runs(records)
                for member, record in zip(members, records):
                    may = (OWNER, MAINTAINER) if record["kind"] == MERGED else (OWNER, WRITER)
                    limited = member["role"] == WRITER and not covers(member["streams"], record["stream"])
                    revoked = not self.accepted(member, bytes.fromhex(name.rsplit("/", 1)[1]))
                    if member["role"] in may and not limited and not revoked:
                        yield name, record, content
                        continue
                    warn(f"{name}: a record by a key that may not make it, or of a stream that it may not write")
                    if record["kind"] == MERGED:
                        break
            except (Refused, Missing) as error:
                warn(f"{name}: {error}")


# --- restoring: tree.md --------------------------------------------------------------------------


class Restore:
    """Writes what a snapshot shows into an empty folder; what cannot be had is named, the rest comes."""

    def __init__(self, repository, target):
        self.repository, self.target = repository, os.fsencode(target)
        self.links, self.problems = {}, 0
        os.makedirs(self.target, exist_ok=True)
        if os.listdir(self.target):
            raise Missing(f"{target} is not empty")

    def run(self, node):
        folders = []
        for path, entry in self.repository.walk(node):
            place = os.path.join(self.target, path)
            try:
                if self.make(place, entry):
                    (folders if entry["subtree"] else [None]).append((place, entry))
                    if not entry["subtree"]:
                        self.dress(place, entry)
            except (Refused, Missing, OSError) as error:
                self.problems += 1
                warn(f"{os.fsdecode(path)}: {error}")
        # Folders last, the deepest first: what is made in a folder changes its times.
        for place, entry in reversed(folders):
            self.dress(place, entry)
        return self.problems

    def make(self, place, entry):
        """Makes the entry; false where it is another name of a file that is there already."""
        kind = entry["kind"]
        file = (entry["device"], entry["inode"])
        if entry["links"] and entry["links"] > 1 and None not in file and kind != ENTRY_FOLDER:
            if file in self.links:
                os.link(self.links[file], place, follow_symlinks=False)
                return False
            self.links[file] = place
        if kind == ENTRY_FOLDER:
            os.mkdir(place, 0o700)
        elif kind == ENTRY_LINK:
            os.symlink(entry["target"], place)
        elif kind == ENTRY_FILE:
            self.write(place, entry)
        else:
            types = {ENTRY_PIPE: stat.S_IFIFO, ENTRY_SOCKET: stat.S_IFSOCK}
            types.update({ENTRY_CHARACTER: stat.S_IFCHR, ENTRY_BLOCK: stat.S_IFBLK})
            os.mknod(place, 0o600 | types[kind], os.makedev(*(entry["numbers"] or (0, 0))))
        return True

    def write(self, place, entry):
        handle = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(handle, "wb") as file:
            for plain, hole in self.repository.content(entry):
                if plain is None:
                    file.seek(hole, os.SEEK_CUR)
                else:
                    file.write(plain)
            file.truncate(entry["content"]["length"])

    def dress(self, place, entry):
        """Owner, attributes, permissions, times: in this order, since each may undo the next."""
        try:
            if os.geteuid() == 0 and entry["user_id"] is not None:
                os.chown(place, entry["user_id"], entry["group_id"], follow_symlinks=False)
            for name, value in entry["attributes"] or ():
                os.setxattr(place, name, value, follow_symlinks=False)
            if entry["kind"] != ENTRY_LINK:
                os.chmod(place, entry["mode"])
            times = (entry["accessed"] or entry["modified"], entry["modified"])
            os.utime(place, ns=times, follow_symlinks=False)
        except OSError as error:
            self.problems += 1
            warn(str(error))


# --- commands ------------------------------------------------------------------------------------


def moment(nanoseconds):
    seconds = nanoseconds // 1_000_000_000
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")


def shown(name):
    return name.decode("utf-8", "backslashreplace").replace("\n", "\\n")


LETTERS = "-dlpscb"


def list_entry(entry):
    size = entry["content"]["length"] if entry["content"] else 0
    mode = LETTERS[entry["kind"]] + stat.filemode(entry["mode"])[1:]
    arrow = f" -> {shown(entry['target'])}" if entry["target"] is not None else ""
    print(f"{mode} {size:>14} {moment(entry['modified'])} {shown(entry['name'])}{arrow}")


def split_snapshot(word):
    name, _, path = word.partition(":")
    return name, path


def command_info(repository, _):
    config, registry = repository.config, repository.registry
    print(f"repository {repository.id.hex()}, revision {config.revision}, suite {config.suite}")
    print(f"registry version {registry['sequence']}, {len(registry['keys'])} keys, {len(registry['epochs'])} epochs")
    role = ("", "owner", "maintainer", "writer", "reader", "auditor")
    member = registry["members"].get(repository.identity["key"])
    print(f"opened as {member and role[member['role']]} {repository.identity['key'].hex()}")
    for kind, name, program, message in config.features:
        print(f"feature {name} ({kind}, since {program}): {message}")


def command_snapshots(repository, _):
    for id_, snapshot, forgotten in repository.snapshots():
        label = snapshot["label"] or "-"
        total = snapshot["summary"]["bytes"]
        print(id_.hex()[:16], moment(snapshot["started"]), snapshot["host"], label, snapshot["kind"], total, end=" ")
        print(",".join(snapshot["sources"]), "(forgotten)" if forgotten else "")


def command_ls(repository, arguments):
    name, path = split_snapshot(arguments[0])
    entry, node = repository.look_up(repository.find(name), path)
    for found in [entry] if node is None else repository.entries(node):
        list_entry(found)


def command_cat(repository, arguments):
    name, path = split_snapshot(arguments[0])
    entry, _ = repository.look_up(repository.find(name), path)
    if entry is None or not entry["content"]:
        raise Missing(f"{path or '/'} is no file")
    zeros = bytes(MIB)
    for plain, hole in repository.content(entry):
        if plain is not None:
            sys.stdout.buffer.write(plain)
        for start in range(0, hole or 0, MIB):
            sys.stdout.buffer.write(zeros[: min(MIB, hole - start)])
    sys.stdout.buffer.flush()


def command_restore(repository, arguments):
    name, path = split_snapshot(arguments[0])
    entry, node = repository.look_up(repository.find(name), path)
    restore = Restore(repository, arguments[1])
    if node is not None:
        problems = restore.run(node)
    else:
        place = os.path.join(restore.target, entry["name"])
        restore.make(place, entry)
        restore.dress(place, entry)
        problems = restore.problems
    return 3 if problems else 0


def command_logs(repository, arguments):
    for name, record, content in repository.logs():
        kind = ("", "segment", "piece", "gap", "conflict", "merged")[record["kind"]]
        if not arguments:
            print(kind, record["stream"], record["name"], record["last_name"] or "", moment(record["created"]), name)
        elif arguments == [record["stream"], record["name"]] and record["kind"] == SEGMENT:
            sys.stdout.buffer.write(content(record))
            return 0
    if arguments:
        raise Missing(f"no whole segment is called {' '.join(arguments)}")
    return 0


def unreadable(repository, entry, what):
    try:
        for _ in repository.content(entry):
            pass
    except (Refused, Missing) as error:
        warn(f"{what}: {error}")
        return True
    return False


def command_check(repository, _):
    """Reads everything that any snapshot needs."""
    problems, files, seen = 0, 0, set()
    for id_, snapshot, _ in repository.snapshots():
        pending = [(b"", snapshot["root"])]
        while pending:
            path, node = pending.pop()
            if node in seen:
                continue
            seen.add(node)
            try:
                for entry in repository.entries(node):
                    inside = path + b"/" + entry["name"]
                    if entry["subtree"]:
                        pending.append((inside, entry["subtree"]))
                    elif entry["content"]:
                        files += 1
                        problems += unreadable(repository, entry, f"snapshot {id_.hex()[:16]}, {shown(inside)}")
            except (Refused, Missing) as error:
                problems += 1
                warn(f"snapshot {id_.hex()[:16]}, {shown(path) or '/'}: {error}")
    print(f"{files} files read, {problems} problems")
    return 3 if problems else 0


COMMANDS = {
    "info": (command_info, 0, 0),
    "snapshots": (command_snapshots, 0, 0),
    "ls": (command_ls, 1, 1),
    "cat": (command_cat, 1, 1),
    "restore": (command_restore, 2, 2),
    "logs": (command_logs, 0, 2),
    "check": (command_check, 0, 0),
}


def without_line_end(secret):
    """[KEYS-9]"""
    if secret.endswith(b"\n"):
        secret = secret[:-2] if secret.endswith(b"\r\n") else secret[:-1]
    return secret


def read_bytes(path):
    with open(path, "rb") as file:
        return file.read()


def open_repository(options):
    secret = key_file = sheet = None
    if options.key_file:
        key_file = read_bytes(options.key_file)
    elif options.sheet:
        sheet = read_bytes(options.sheet).decode("utf-8")
    elif options.password_file:
        secret = without_line_end(read_bytes(options.password_file))
    else:
        secret = os.fsencode(getpass.getpass("password: "))
    return Repository(options.repository, secret, key_file, sheet, not options.no_index)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repository")
    unlock = parser.add_mutually_exclusive_group()
    unlock.add_argument("--password-file", metavar="F", help="its first line, or what a command printed")
    unlock.add_argument("--key-file", metavar="F")
    unlock.add_argument("--sheet", metavar="F", help="a recovery sheet, typed in")
    parser.add_argument("--no-index", action="store_true", help="read packs alone")
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("arguments", nargs="*")
    options = parser.parse_intermixed_args()
    run, least, most = COMMANDS[options.command]
    if not least <= len(options.arguments) <= most:
        parser.error(f"{options.command}: {least} to {most} arguments")
    try:
        sys.exit(run(open_repository(options), options.arguments) or 0)
    except (Refused, Missing, OSError) as error:
        print(f"reader: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
