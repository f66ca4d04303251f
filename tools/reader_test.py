#!/usr/bin/env python3
"""Judges every vector of format-spec/vectors/ with the second reader, and says where it disagrees; then opens,
checks and restores every repository of format-spec/repos/.

Objects that a reader of snapshots does not need (sessions, condemnations, catalogues, ...) are decoded here,
from their pages too. Run by tools/test: reader_test.py [FOLDER]
"""

import pathlib
import shutil
import sys
import tempfile

import blake3 as blake3_package

import reader_format as reader
from reader import Repository, without_line_end
from reader_format import (
    CONTENT, ID, Config, Envelope, Fields, Missing, Refused, Truncated, blake3, decode, known, listed,
    magic_and_kind, mapped, one_of, raw, require, signed, text, true_only, unsigned,
)

# The keys of the vectors: vectors/README.md.
REPOSITORY = b"\x11" * 32
SECRETS = reader.Secrets()
SECRETS.metadata[1], SECRETS.content[1] = b"\x44" * 32, b"\x33" * 32
SECRETS.content_ids, SECRETS.metadata_ids = b"\x55" * 32, b"\x66" * 32
SEEDS = {reader.signing_key_id(bytes([n]) * 32): bytes([n]) * 32 for n in (0x22, 0x24)}
WRITER = reader.signing_key_id(b"\x24" * 32)


def verify(kind, signer, signed_bytes, signature):
    seed = SEEDS.get(signer)
    require(seed, "a signer that nobody knows")
    key = reader.Ed25519PrivateKey.from_private_bytes(seed).public_key()
    public = key.public_bytes(reader.Encoding.Raw, reader.PublicFormat.Raw)
    require(reader.signature_holds(REPOSITORY, kind, signed_bytes, public, signature), "the signature does not hold")


# --- sets, places: session.md, condemned.md ------------------------------------------------------


def id_set(limit):
    """A set of ids: one byte string, ids strictly ascending."""

    def read(value):
        packed = raw(limit=limit, least=32)(value)
        require(len(packed) % 32 == 0, "a set of ids is cut")
        ids = [packed[at : at + 32] for at in range(0, len(packed), 32)]
        require(all(a < b for a, b in zip(ids, ids[1:])), "ids do not ascend")
        return ids

    return read


def hexadecimal(word, length):
    return len(word) == length and set(word) <= set("0123456789abcdef")


def check_folder(kind, folder):
    """[CONDEMNED-1]"""
    if kind in (5, 6, 8):
        good = hexadecimal(folder, 8) and folder != "00000000"
    elif kind == 13:
        good = hexadecimal(folder, 64)
    elif kind in (7, 14):
        stream, _, segment = folder.partition("/")
        apart = "merged" if kind == 7 else "records"
        good = hexadecimal(stream, 64) and (segment == apart or kind == 7 and hexadecimal(segment, 64))
    else:
        good = not folder
    require(good, f"no folder of kind {kind}: {folder!r}")


def ascending(items, key, what):
    keys = [key(item) for item in items or []]
    require(all(a < b for a, b in zip(keys, keys[1:])), f"{what} do not ascend")


KIND = one_of(range(1, 15), "kind of object")
IDS = listed(ID, least=1, key=lambda id_: id_)
NAME = text(4096)


# --- annotation.md, session.md, condemned.md, damaged.md, catalog.md -----------------------------


def session(data):
    schema = {
        0: ("session", raw(32)), 1: ("sequence", unsigned(least=1)), 2: ("predecessor", ID),
        3: ("purpose", unsigned(least=1)), 4: ("started", signed), 5: ("renewed", signed), 6: ("host", NAME),
        7: ("program", NAME), 8: ("promise", unsigned(86400, 1)), 9: ("seen", id_set(1 << 24)),
        10: ("snapshots", id_set(1 << 24)),
        11: ("streams", listed(text(4096, 1), least=1, key=lambda name: name.encode())),
        12: ("ended", true_only),
    }  # fmt: skip
    read = decode(data, schema, (0, 1, 3, 4, 5, 6, 7, 8))
    require((read["predecessor"] is None) == (read["sequence"] == 1), "[SESSION-8]")


def condemned(data):
    most = 64 << 20
    sighting = {0: ("signer", ID), 1: ("session", raw(32)), 2: ("renewal", ID), 3: ("sequence", unsigned(least=1))}
    entry = {0: ("kind", KIND), 1: ("id", ID), 2: ("folder", NAME)}
    schema = {
        0: ("created", signed), 1: ("store_time", signed), 2: ("grace", unsigned(31_622_400)), 3: ("session", raw(32)),
        4: ("sessions", listed(mapped(sighting, range(4)), least=1)), 5: ("dead", id_set(most)),
        6: ("superfluous", id_set(most)), 7: ("copies", id_set(most)), 8: ("tombstones", id_set(most)),
        9: ("objects", listed(mapped(entry, range(3)), least=1)), 10: ("absorbs", id_set(most)),
        11: ("bytes", unsigned()), 12: ("program", NAME), 13: ("catalogue", ID),
    }  # fmt: skip
    read = decode(data, schema, (0, 1, 2, 3, 11, 12), most)
    packs = [id_ for name in ("dead", "superfluous", "copies", "tombstones") for id_ in read[name] or []]
    require(len(packs) == len(set(packs)), "[CONDEMNED-2]")
    ascending(read["sessions"], lambda s: (s["signer"], s["session"]), "sessions")
    for found in read["objects"] or []:
        require(found["kind"] >= 5, "[CONDEMNED-10]: an object that is never swept")
        check_folder(found["kind"], found["folder"])
    ascending(read["objects"], lambda o: (o["kind"], o["folder"], o["id"]), "objects")


def damaged(data):
    entry = {
        0: ("kind", KIND), 1: ("id", ID), 2: ("finding", unsigned(least=1)), 3: ("folder", text(4096, 1)),
        4: ("blobs", id_set(1 << 24)), 5: ("expected", unsigned()), 6: ("found", unsigned()), 7: ("detail", text(65536)),
    }  # fmt: skip
    schema = {
        0: ("created", signed), 1: ("entries", listed(mapped(entry, range(3)), least=1)), 2: ("method", NAME),
        3: ("program", NAME), 4: ("cancels", id_set(1 << 24)),
    }  # fmt: skip
    read = decode(data, schema, (0, 2, 3))
    require(read["entries"] or read["cancels"], "[DAMAGED-6]")
    for found in read["entries"] or []:
        check_folder(found["kind"], found["folder"] or "")
    ascending(read["entries"], lambda o: (o["kind"], o["id"]), "entries")


def check_scope(read):
    scope, first, last = read["scope"], read["first"], read["last"]
    if scope == "roots":
        require(first and last and first <= last, "[CATALOG-11]")
    else:
        require(scope.startswith("log:") and 4 < len(scope.encode()) <= 4100, "[CATALOG-11]")
        require(first is None and last is None, "[CATALOG-11]")


def catalog(data):
    most, generation = 64 << 20, unsigned((1 << 32) - 1)
    entry = {
        0: ("kind", KIND), 1: ("id", ID), 2: ("number", unsigned()), 3: ("first_seen", signed), 4: ("folder", NAME),
        5: ("length", unsigned(least=1)), 6: ("original", raw(limit=most, least=1)),
    }  # fmt: skip
    end = {
        0: ("kind", KIND), 1: ("id", ID), 2: ("number", unsigned()), 3: ("authority_kind", KIND), 4: ("authority", ID),
        5: ("ended", signed), 6: ("original", raw(limit=most, least=1)),
    }  # fmt: skip
    part = {
        0: ("catalogue", ID), 1: ("scope", text(4100)), 2: ("first", generation), 3: ("last", generation),
        4: ("entries", unsigned()),
    }  # fmt: skip
    schema = {
        0: ("sequence", unsigned(least=1)), 1: ("predecessor", ID), 2: ("created", signed), 3: ("scope", text(4100)),
        4: ("first", generation), 5: ("last", generation), 6: ("entries", listed(mapped(entry, range(7)), least=1)),
        7: ("ends", listed(mapped(end, range(6)), least=1)), 8: ("parts", listed(mapped(part, (0, 1, 4)), least=1)),
        9: ("replaces", id_set(most)), 10: ("program", NAME), 11: ("next_number", unsigned(least=1)),
    }  # fmt: skip
    read = decode(data, schema, (0, 2, 3, 10, 11), most)
    require((read["predecessor"] is None) == (read["sequence"] == 1), "[CATALOG-10]")
    check_scope(read)
    kinds = (6, 8) if read["scope"] == "roots" else (7, 14)
    entries, ends = read["entries"] or [], read["ends"] or []
    for found in entries + ends:
        require(found["kind"] in kinds, "[CATALOG-12]: a kind that is not of the scope")
        require(0 < found["number"] < read["next_number"], "[CATALOG-12]: a number that was not given")
    for found in entries:
        check_folder(found["kind"], found["folder"])
    for found in ends:
        require(found["authority_kind"] in (7, 8, 10), "[CATALOG-13]")
        proved = found["authority_kind"] == 8 and found["kind"] not in (7, 14)
        require(proved == (found["original"] is not None), "[CATALOG-13]")
    for found in read["parts"] or []:
        check_scope(found)
    order = lambda item: (item["kind"], item["id"])
    ascending(entries, order, "entries")
    ascending(ends, order, "ends")
    ascending(read["parts"], lambda p: p["catalogue"], "parts")
    require(not set(map(order, entries)) & set(map(order, ends)), "[CATALOG-13]: there and ended")


# --- parity.md -----------------------------------------------------------------------------------

BASIS = (0x0001, 0xACCA, 0x3C0E, 0x163E, 0xC582, 0xED2E, 0x914C, 0x4012)
BASIS += (0x6C98, 0x10D8, 0x6A72, 0xB900, 0xFDB8, 0xFB34, 0xFF38, 0x991E)


class Field:
    """GF(2^16); numbers stand for elements by the basis."""

    def __init__(self):
        self.element = [0]
        for basis in BASIS:
            self.element += [known_element ^ basis for known_element in self.element]
        self.number = [0] * 65536
        for number, element in enumerate(self.element):
            self.number[element] = number

    @staticmethod
    def times(a, b):
        product = 0
        while b:
            if b & 1:
                product ^= a
            a, b = a << 1, b >> 1
            if a & 0x10000:
                a ^= 0x1002D
        return product

    def inverse(self, a):
        result, power = 1, 65534
        while power:
            if power & 1:
                result = self.times(result, a)
            a, power = self.times(a, a), power >> 1
        return result


def parity_shards(data, parity_count):
    """Parity shards of data shards, by the definition."""
    field = Field()
    w, times = field.element, field.times
    m = 1 << (parity_count - 1).bit_length()
    c = 1
    for n in range(1, m):
        c = times(c, w[n])
    shards = []
    for i in range(parity_count):
        row = []
        for j in range(len(data)):
            x = w[m + j]
            s = 1
            for n in range(m):
                s = times(s, x ^ w[n])
            row.append(times(s, field.inverse(times(c, w[i] ^ x))))
        shard = bytearray(len(data[0]))
        for block in range(0, len(shard), 64):
            for t in range(block, block + 32):
                total = 0
                for factor, source in zip(row, data):
                    total ^= times(factor, w[source[t] | source[t + 32] << 8])
                number = field.number[total]
                shard[t], shard[t + 32] = number & 255, number >> 8
        shards.append(bytes(shard))
    return shards


def parity(data):
    fields = Fields(data[:160])
    kind = magic_and_kind(fields, data)
    version, algorithm, subject_kind = fields.u8(), fields.u8(), fields.u8()
    require(kind == 13, "no parity")
    known(version == 1 and algorithm == 1, "version or algorithm")
    shard, k = fields.u32(), fields.u32()
    signer, subject, length, r = fields.take(32), fields.take(32), fields.u64(), fields.u32()
    fields.zeros(4)
    table_hash, head_hash = fields.take(32), fields.take(32)
    require(blake3(data[:128]) == head_hash, "[PARITY-8]")
    known(1 <= subject_kind <= 14, "kind of the subject")
    require(subject_kind != 13, "[PARITY-7]")
    require(0 < shard <= 1 << 24 and shard % 64 == 0 and length > 0, "[PARITY-7]")
    require(k == -(-length // shard) and 1 <= k <= 32768 and 1 <= r <= 32768, "[PARITY-7]")
    m = 1 << (r - 1).bit_length()
    require(r <= 1 << (k - 1).bit_length() and m + -(-k // m) * m <= 65536, "[PARITY-7]")
    table = 16 * (k + r)
    whole = 2 * (160 + table) + r * shard + 64
    if len(data) < whole:
        raise Truncated("parity is cut short")
    require(len(data) == whole, "[PARITY-9]")
    require(blake3(data[160 : 160 + table]) == table_hash, "[PARITY-8]")
    require(data[: 160 + table] == data[-224:-64] + data[-224 - table : -224], "[PARITY-8]")
    verify(13, signer, data[:-64], data[-64:])
    if subject == blake3(bytes(range(150))):
        plain = bytes(range(150)).ljust(k * shard, b"\0")
        shards = [plain[at : at + shard] for at in range(0, len(plain), shard)]
        computed = parity_shards(shards, r)
        assert b"".join(computed) == data[160 + table : -224 - table], "parity is another than by the definition"
        hashes = b"".join(blake3(piece)[:16] for piece in shards + computed)
        assert hashes == data[160 : 160 + table]


# --- what the reader itself decodes --------------------------------------------------------------


def envelope(data):
    object_ = Envelope(data)
    try:
        verify(object_.kind, object_.signer, object_.signed, object_.signature)
        object_.open(REPOSITORY, SECRETS.metadata[1])
    except Refused as error:
        # Judged by its layout alone; but then what is accepted must also open.
        return error


def pack(data):
    opened = reader.Pack(data)
    verify(opened.kind, opened.signer, opened.signed, opened.trailer.signature)
    require(opened.signer == WRITER, "a signer that nobody knows")
    table = opened.open(REPOSITORY, SECRETS.metadata[1])
    keys = [origin.key(REPOSITORY, SECRETS) for origin in opened.origins]
    id_key = SECRETS.content_ids if opened.class_ == CONTENT else SECRETS.metadata_ids
    plain = {}
    for frame, blobs in sorted(table, key=lambda pair: pair[0].depth):
        sealed = data[frame.offset : frame.offset + frame.sealed]
        origin, key = opened.origins[frame.origin], keys[frame.origin]
        decoded = frame.open(sealed, origin, key, REPOSITORY, plain.get(frame.base))
        for id_, start, length in blobs:
            blob = decoded[start : start + length]
            require(reader.keyed(id_key, blob) == id_, "a blob that is not what its id says")
            plain[id_] = blob


def index(data):
    run = reader.IndexRun(data)
    verify(5, run.head.signer, run.signed, run.signature)
    list(run.open(REPOSITORY, SECRETS.metadata[1]))


def slot(data):
    opened = reader.read_slot(data)
    if opened["kind"] == 2:
        reader.open_slot(opened, b"\x88" * 32, REPOSITORY)


def cbor(data):
    decode(data, {})


def log_pack(data):
    opened = reader.LogPack(data)
    verify(7, opened.signer, opened.signed, opened.signature)
    for record in opened.records:
        verify(14, record.signer, record.signed, record.signature)
    records, content = opened.open(REPOSITORY, SECRETS)
    if records[0]["kind"] == reader.MERGED:
        reader.check_runs(records)
    for record in records:
        if record["content"]:
            content(record)


# Parts of certain objects, plain: each is judged in the place of the accepted one.


def vector(name):
    text_of = (FOLDER / name).read_text().partition("\n\n")[2]
    return bytes.fromhex("".join(text_of.split()))


def pack_contents(data):
    pack_ = reader.Pack(vector("pack/accept-every-encoding"))
    # A reader has the length from the trailer, and what is longer or shorter is not opened at all.
    trailer = pack_.trailer
    reader.read_table(data, trailer, pack_.first_frame)


class TwoBlocks:
    """What the head of index/accept-two-blocks says of its directory."""

    def __init__(self, data):
        run = reader.IndexRun(vector("index/accept-two-blocks"))
        self.blocks, self.records, self.directory_at = run.head.blocks, run.head.records, run.head.directory_at
        self.directory_plain = len(data)


def index_directory(data):
    return reader.Directory(data, TwoBlocks(data))


def index_block(data):
    directory = index_directory(vector("index-directory/accept-two-blocks"))
    first = vector("index-block/accept-everything")[:32]
    reader.read_block(data, (first, 160, 0, 10, 3), directory.packs)


JUDGES = {
    "annotation": reader.read_annotation,
    "catalog": catalog,
    "cbor": cbor,
    "condemned": condemned,
    "config": Config,
    "damaged": damaged,
    "envelope": envelope,
    "grant": reader.read_grant,
    "identity": reader.read_identity,
    "index": index,
    "index-block": index_block,
    "index-directory": index_directory,
    "log-pack": log_pack,
    "log-record": reader.read_log_record,
    "pack": pack,
    "pack-contents": pack_contents,
    "parity": parity,
    "recipe": reader.read_recipe,
    "session": session,
    "slot": slot,
    "snapshot": reader.read_snapshot,
    "tree": reader.read_tree,
    "trust": reader.read_registry,
}


def verdict(judge, data):
    try:
        found = judge(data)
    except Refused as error:
        return error.verdict, error
    return "accept", found


SPEC = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "format-spec")
FOLDER = SPEC / "vectors"


def judge_vectors():
    """Yields for each vector what is wrong with it, or None."""
    for path in sorted(FOLDER.glob("*/*")):
        name = f"{path.parent.name}/{path.name}"
        head, _, body = path.read_text().partition("\n\n")
        expected = head.split("expect: ")[1].split("\n")[0]
        if path.parent.name not in JUDGES:
            yield f"{name}: nobody here can judge it"
            continue
        said, why = verdict(JUDGES[path.parent.name], bytes.fromhex("".join(body.split())))
        if said != expected:
            yield f"{name}: {expected} expected, {said} found: {why}"
        elif said == "accept" and isinstance(why, Refused):
            yield f"{name}: accepted, yet it does not open: {why}"
        else:
            yield None


def open_with(root, credential, use_index):
    """Opens a repository with what the file says, by its name."""
    secret = credential.read_bytes()
    if credential.name == "password":
        return Repository(root, secret=without_line_end(secret), use_index=use_index)
    if credential.name == "key-file":
        return Repository(root, key_file=secret, use_index=use_index)
    return Repository(root, sheet=secret.decode(), use_index=use_index)


def judge_repository(case):
    """repos/README.md: a folder with a repository, files that unlock it, and what it must hold."""
    root = str(case / "repository")
    for credential in (case / "password", case / "key-file", case / "sheet"):
        for use_index in (True, False):
            if not credential.exists():
                continue
            repository = open_with(root, credential, use_index)
            for line in (case / "expected").read_text().splitlines():
                digest, _, place = line.partition(" ")
                name, _, path = place.partition(":")
                entry, _ = repository.look_up(repository.find(name), path)
                found = blake3_package.blake3()
                for plain, hole in repository.content(entry):
                    found.update(plain if plain is not None else bytes(hole))
                require(found.hexdigest() == digest, f"{place} is another")


def sign_slots_anew(keys):
    """Puts copies of all slots there that are found before them, and whose signatures do not hold."""
    for path in list(keys.iterdir()):
        data = bytearray(path.read_bytes())
        for change in range(1, 256):
            copy = bytes(data[:-1] + bytes([data[-1] ^ change]))
            name = blake3_package.blake3(copy).hexdigest()
            if name < path.name:
                (keys / name).write_bytes(copy)
                break
        else:
            raise Missing(f"no copy of {path.name} comes before it")


def judge_slots(case):
    """[SLOT-6]: a slot that somebody else signed locks nobody out."""
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder) / "repository"
        shutil.copytree(case / "repository", root)
        sign_slots_anew(root / "keys")
        for credential in (case / "password", case / "key-file"):
            if credential.exists():
                open_with(str(root), credential, True)


def judge_repositories():
    for case in sorted(path.parent for path in SPEC.glob("repos/*/*/expected")):
        try:
            judge_repository(case)
            judge_slots(case)
            yield None
        except (Refused, Missing) as error:
            yield f"{case}: {error}"


def main():
    results = [*judge_vectors(), *judge_repositories()]
    wrong = [result for result in results if result]
    print("\n".join(wrong))
    print(f"{len(results) - len(wrong)} passed, {len(wrong)} failed")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
