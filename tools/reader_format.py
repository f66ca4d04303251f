"""What the bytes of a Chronolith repository mean: decoders, written from format-spec/ alone.

Each takes one object apart and refuses what its page says must be rejected. reader.py opens repositories with
them. The comments name the pages and rules.
"""

import hmac
import struct

import argon2.low_level
import blake3 as blake3_package
import zstandard
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

KIB, MIB = 1 << 10, 1 << 20


class Refused(Exception):
    """Bytes that are not the object they should be."""

    verdict = "corrupt"


class Truncated(Refused):
    """A beginning of an object; its end is missing."""

    verdict = "truncated"


class Unsupported(Refused):
    """Something that a newer program may know."""

    verdict = "unsupported"


class Missing(Exception):
    """A thing that was asked for and is not there."""


def require(condition, message):
    if not condition:
        raise Refused(message)


def known(condition, message):
    if not condition:
        raise Unsupported(message)


def exactly(data, length):
    if len(data) < length:
        raise Truncated("the bytes end too early")
    require(len(data) == length, "bytes follow the end")


# --- bytes and fixed layouts: conventions.md -----------------------------------------------------


class Fields:
    """Takes little-endian numbers and bytes from the front of a fixed layout."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, length):
        if length > len(self.data) - self.at:
            raise Truncated("the bytes end too early")
        self.at += length
        return self.data[self.at - length : self.at]

    def number(self, length):
        return int.from_bytes(self.take(length), "little")

    def u8(self):
        return self.number(1)

    def u16(self):
        return self.number(2)

    def u32(self):
        return self.number(4)

    def u64(self):
        return self.number(8)

    def zeros(self, length):
        require(not any(self.take(length)), "reserved bytes are not zero")

    def end(self):
        require(self.at == len(self.data), "bytes follow the end")


def magic_and_kind(fields, data):
    if data[:4] != b"CHRN"[: len(data)]:
        raise Refused("not the magic of an object")
    fields.take(4)
    return fields.u8()


# --- CBOR: conventions.md ------------------------------------------------------------------------

CRITICAL = 65536


class Cbor:
    """Decodes the deterministic subset. `value` gives integers, bytes, str, bool, lists and lists of pairs."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, length):
        if length > len(self.data) - self.at:
            raise Truncated("the bytes end too early")
        self.at += length
        return self.data[self.at - length : self.at]

    def head(self):
        first = self.take(1)[0]
        major, info = first >> 5, first & 31
        if info < 24:
            return major, info
        require(info < 28, "an indefinite or reserved length")
        width = 1 << (info - 24)
        argument = int.from_bytes(self.take(width), "big")
        least = {1: 24, 2: 1 << 8, 4: 1 << 16, 8: 1 << 32}[width]
        require(argument >= least, "not the shortest form")
        return major, argument

    def value(self, depth=64):
        require(depth > 0, "nested too deeply")
        if self.at < len(self.data):
            if self.data[self.at] in (0xF4, 0xF5):
                return self.take(1) == b"\xf5"
            require(self.data[self.at] >> 5 < 6, "a type that does not exist here")
        major, argument = self.head()
        if major == 0:
            return argument
        if major == 1:
            return -1 - argument
        if major == 2:
            return bytes(self.take(argument))
        if major == 3:
            try:
                return self.take(argument).decode("utf-8")
            except UnicodeDecodeError:
                raise Refused("a text is not UTF-8") from None
        if major == 4:
            return [self.value(depth - 1) for _ in self.counted(argument)]
        pairs, before = [], None
        for _ in self.counted(argument):
            start = self.at
            key = self.value(depth - 1)
            encoded = self.data[start : self.at]
            require(before is None or before < encoded, "keys of a map do not ascend")
            before = encoded
            pairs.append((key, self.value(depth - 1)))
        return Map(pairs)

    def counted(self, count):
        # A hostile count costs nothing: the bytes end first.
        for _ in range(min(count, len(self.data) - self.at + 1)):
            yield


class Map(list):
    """A map, as a list of pairs."""


def nesting(value):
    if isinstance(value, Map):
        return 1 + max((max(nesting(k), nesting(v)) for k, v in value), default=0)
    if isinstance(value, list):
        return 1 + max(map(nesting, value), default=0)
    return 1


def numbered(pairs, schema, required=()):
    """Reads a map of numbered fields: schema is {number: (name, reader)}; unknown fields are passed over."""
    require(isinstance(pairs, Map), "a map is expected")
    found = {name: None for name, _ in schema.values()}
    for number, value in pairs:
        require(isinstance(number, int) and not isinstance(number, bool) and number >= 0, "a key is no number")
        if number in schema:
            name, read = schema[number]
            found[name] = read(value)
        else:
            known(number < CRITICAL, f"critical field {number}")
            require(nesting(value) <= 16, "an unknown field is nested too deeply")
    for number in required:
        require(found[schema[number][0]] is not None, f"field {number} is missing")
    return found


def decode(data, schema, required=(), limit=16 * MIB):
    """Decodes one structured object and nothing after it."""
    require(len(data) <= limit, "longer than an object may be")
    cbor = Cbor(data)
    value = cbor.value()
    require(cbor.at == len(data), "bytes follow the end")
    return numbered(value, schema, required)


def unsigned(limit=(1 << 64) - 1, least=0):
    def read(value):
        require(isinstance(value, int) and not isinstance(value, bool), "an integer is expected")
        require(least <= value <= limit, "an integer is out of range")
        return value

    return read


def signed(value):
    require(isinstance(value, int) and not isinstance(value, bool), "an integer is expected")
    require(-(1 << 63) <= value < 1 << 63, "an integer is out of range")
    return value


def raw(length=None, limit=None, least=0):
    def read(value):
        require(isinstance(value, bytes), "bytes are expected")
        require(length is None or len(value) == length, "bytes of another length")
        require(limit is None or len(value) <= limit, "too many bytes")
        require(len(value) >= least, "too few bytes")
        return value

    return read


def text(limit=4 * KIB, least=0):
    def read(value):
        require(isinstance(value, str), "a text is expected")
        require(least <= len(value.encode()) <= limit, "a text of a length that is not allowed")
        return value

    return read


def listed(read_item, limit=1 << 20, least=0, key=None):
    """An array; with `key`, strictly ascending by it."""

    def read(value):
        require(isinstance(value, list) and not isinstance(value, Map), "an array is expected")
        require(least <= len(value) <= limit, "an array of a length that is not allowed")
        items = [read_item(item) for item in value]
        if key:
            keys = [key(item) for item in items]
            require(all(a < b for a, b in zip(keys, keys[1:])), "entries do not ascend")
        return items

    return read


def mapped(schema, required=()):
    return lambda value: numbered(value, schema, required)


def texts(entries, bytes_limit, least=1):
    """A map from text to text."""

    def read(value):
        require(isinstance(value, Map) and least <= len(value) <= entries, "a map of texts is expected")
        return {text(bytes_limit)(k): text(bytes_limit)(v) for k, v in value}

    return read


def true_only(value):
    require(value is True, "only true may stand here")
    return True


def one_of(numbers, what):
    """A number of which newer programs may know more."""

    def read(value):
        known(unsigned()(value) in numbers, f"{what} {value}")
        return value

    return read


ID = raw(32)


# --- functions of keys.md ------------------------------------------------------------------------


def blake3(data, length=32):
    return blake3_package.blake3(data).digest(length=length)


def derive_key(context, data, length=32):
    return blake3_package.blake3(data, derive_key_context=context).digest(length=length)


def keyed(key, data):
    return blake3_package.blake3(data, key=key).digest()


def pair(context, secret, salt, commitment):
    """Derives a key and compares the commitment ([KEYS-2])."""
    output = derive_key(context, secret + salt, 64)
    require(hmac.compare_digest(output[32:], commitment), "not the key that was committed to")
    return output[:32]


def open_sealed(suite, key, nonce, associated, sealed):
    cipher = {1: ChaCha20Poly1305, 2: AESGCM}[suite]
    require(len(sealed) >= 16, "sealed bytes are too short")
    try:
        return cipher(key).decrypt(nonce, bytes(sealed), associated)
    except InvalidTag:
        raise Refused("sealed bytes do not open") from None


def counter_nonce(counter):
    return bytes(4) + struct.pack("<Q", counter)


ONCE = bytes(12)


def key_id(public):
    return derive_key("chronolith v1 key id", public)


def signature_holds(repository, kind, signed_bytes, public, signature):
    message = b"chronolith v1 object\0" + repository + bytes([kind]) + blake3(signed_bytes)
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
        return True
    except (InvalidSignature, ValueError):
        return False


def public_half(secret):
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


class Hpke:
    """RFC 9180, base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256: the receiving side."""

    def __init__(self, secret, encapsulation, info, aead):
        kem = b"KEM" + (0x20).to_bytes(2, "big")
        self.suite = b"HPKE" + b"".join(n.to_bytes(2, "big") for n in (0x20, 1, aead))
        try:
            shared = X25519PrivateKey.from_private_bytes(secret).exchange(
                X25519PublicKey.from_public_bytes(encapsulation)
            )
        except ValueError:
            raise Refused("an X25519 result of zero") from None
        require(any(shared), "an X25519 result of zero")
        both = encapsulation + public_half(secret)
        prk = self.extract(kem, b"", b"eae_prk", shared)
        shared = self.expand(kem, prk, b"shared_secret", both, 32)
        context = b"\0" + self.extract(self.suite, b"", b"psk_id_hash", b"")
        self.context = context + self.extract(self.suite, b"", b"info_hash", info)
        self.secret = self.extract(self.suite, shared, b"secret", b"")

    @staticmethod
    def extract(suite, salt, label, material):
        return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + material, "sha256")

    @staticmethod
    def expand(suite, key, label, info, length):
        labelled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
        output, block, number = b"", b"", 1
        while len(output) < length:
            block = hmac.digest(key, block + labelled + bytes([number]), "sha256")
            output, number = output + block, number + 1
        return output[:length]

    def export(self, label, length):
        exporter = self.expand(self.suite, self.secret, b"exp", self.context, 32)
        return self.expand(self.suite, exporter, b"sec", label, length)

    def open(self, sealed):
        key = self.expand(self.suite, self.secret, b"key", self.context, 32)
        nonce = self.expand(self.suite, self.secret, b"base_nonce", self.context, 12)
        return open_sealed(1, key, nonce, b"", sealed)


def shared_secret(content_secret, encapsulation, repository, epoch):
    info = b"chronolith v1 content" + repository + struct.pack("<I", epoch)
    return Hpke(content_secret, encapsulation, info, 0xFFFF).export(b"chronolith v1 shared secret", 32)


def unwrap_grant(exchange, wrapped, repository, epoch, member):
    info = b"chronolith v1 grant" + repository + struct.pack("<I", epoch) + member
    require(len(wrapped) >= 48, "a grant is too short")
    return Hpke(exchange, wrapped[:32], info, 3).open(wrapped[32:])


def decompress(data, length, prefix=None):
    """Exactly one zstd frame of exactly this length, after a prefix where there is one."""
    try:
        announced = zstandard.get_frame_parameters(data).content_size
        require(announced in (length, zstandard.CONTENTSIZE_UNKNOWN), "decompresses to another length")
        dictionary = None
        if prefix is not None:
            dictionary = zstandard.ZstdCompressionDict(prefix, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        opener = zstandard.ZstdDecompressor(dict_data=dictionary, max_window_size=1 << 27).decompressobj()
        plain = opener.decompress(data)
    except zstandard.ZstdError as error:
        raise Refused(f"not zstd: {error}") from None
    require(opener.eof and not opener.unused_data and len(plain) == length, "decompresses to another length")
    return plain


# --- configuration: config.md --------------------------------------------------------------------


def decimal(word, least=0, most=(1 << 64) - 1):
    require(word.isascii() and word.isdigit() and (word == "0" or word[0] != "0"), f"not a number: {word!r}")
    require(least <= int(word) <= most, f"out of range: {word}")
    return int(word)


def digits(word, length):
    require(len(word) == 2 * length and set(word) <= set("0123456789abcdef"), f"not hexadecimal: {word!r}")
    return bytes.fromhex(word)


def power_of_two(number):
    return number & (number - 1) == 0


def check_costs(memory, passes, lanes):
    """[SLOT-3]: before anything is stretched."""
    require(1 <= lanes <= 64 and 1 <= passes <= 64, "passes or lanes out of bounds")
    require(8 * lanes <= memory <= MIB, "memory out of bounds")


def is_word(word):
    return bool(word) and set(word) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


class Config:
    """The configuration. `signed` is what its signature covers."""

    def __init__(self, data):
        first = b"chronolith repository\n"
        if len(data) < len(first) and first.startswith(data):
            raise Truncated("the configuration is cut short")
        require(data.startswith(first), "not the configuration of a repository")
        require(len(data) <= 64 * KIB, "the configuration is too long")
        second = data[len(first) :].split(b"\n")[0]
        if b"\n" in data[len(first) :] and second.startswith(b"format "):
            number = decimal(second[7:].decode("utf-8", "replace"))
            known(number == 1, f"format {number}")
        try:
            content = data.decode("utf-8")
        except UnicodeDecodeError:
            raise Refused("the configuration is not UTF-8") from None
        controls = (c for c in content if ord(c) < 32 or 0x7F <= ord(c) < 0xA0)
        require(all(c == "\n" for c in controls), "a control character")
        if not content.endswith("\n"):
            raise Truncated("the configuration is cut short")
        self.lines = content[:-1].split("\n")[1:]
        decimal(self.one("format", 1)[0])
        self.repository = digits(self.one("repository", 1)[0], 32)
        self.revision = decimal(self.one("revision", 1)[0], 1)
        self.suite = self.one("suite", 1)[0]
        known(self.suite in ("chacha20-poly1305", "aes-256-gcm"), f"suite {self.suite}")
        name, *sizes = self.one("chunker", 4)
        known(name == "fastcdc-v2020-keyed", f"chunker {name}")
        low, average, high = self.chunker = [decimal(size) for size in sizes]
        require(64 <= low < average < high <= 8 * MIB, "chunker out of bounds")
        require(low % 2 == high % 2 == 0 and power_of_two(average) and average <= 4 * MIB, "chunker out of bounds")
        self.pages = decimal(self.one("pages", 1)[0], 64 * KIB, 8 * MIB)
        require(power_of_two(self.pages), "pages are no power of two")
        name, *costs = self.one("password", 4)
        known(name == "argon2id", f"password function {name}")
        check_costs(*[decimal(cost) for cost in costs])
        self.unknown_lines()
        self.features = self.feature_lines()
        self.signer = digits(self.one("signer", 1)[0], 32)
        self.signature = digits(self.one("signature", 1)[0], 64)
        require(not self.lines, "lines follow the signature")
        self.signed = data[: data.rindex(b"signature ")]

    def one(self, name, count):
        if not self.lines:
            raise Truncated("the configuration is cut short")
        words = self.lines.pop(0).split(" ")
        require(words[0] == name and len(words) == count + 1 and all(words), f"a line {name!r} is expected")
        return words[1:]

    def unknown_lines(self):
        order = ("chronolith format repository revision suite chunker pages password signature").split()
        while self.lines and self.lines[0].split(" ")[0] not in ("feature", "signer"):
            word = self.lines.pop(0).split(" ")[0]
            require(is_word(word) and word not in order, "a line at the wrong place")

    def feature_lines(self):
        features = []
        while self.lines and self.lines[0].split(" ")[0] == "feature":
            parts = self.lines.pop(0).split(" ", 4)
            require(len(parts) == 5 and all(parts), "a feature is not complete")
            _, kind, name, program, message = parts
            known(kind in ("ignore", "read-only", "refuse"), f"class of features {kind}")
            require(is_word(name), "a feature's name")
            require(not features or features[-1][1].encode() < name.encode(), "features do not ascend")
            features.append((kind, name, program, message))
        return features


# --- envelope: envelope.md -----------------------------------------------------------------------

TRUST, SLOT, CONTENT_PACK, METADATA_PACK, INDEX_RUN, SNAPSHOT, LOG_PACK, ANNOTATION = range(1, 9)
SESSION, CONDEMNED, DAMAGED, CATALOG, PARITY, LOG_RECORD = range(9, 15)
IN_ENVELOPE = {TRUST, SLOT, SNAPSHOT, ANNOTATION, SESSION, CONDEMNED, DAMAGED, CATALOG, LOG_RECORD}


class Envelope:
    """An object in its envelope, taken apart; nothing is believed yet."""

    def __init__(self, data):
        fields = Fields(data)
        self.kind = magic_and_kind(fields, data)
        if len(data) < 128:
            raise Truncated("the header is cut short")
        known(fields.u8() == 1, "version of an envelope")
        self.suite, self.compression = fields.u8(), fields.u8()
        self.epoch = fields.u32()
        known(1 <= self.kind <= 14, f"kind {self.kind}")
        require(self.kind in IN_ENVELOPE, "objects of this kind have no envelope")
        known(self.compression <= 1, f"compression {self.compression}")
        known(self.suite <= 2, f"suite {self.suite}")
        fields.zeros(4)
        self.signer, self.salt, self.commitment = fields.take(32), fields.take(32), fields.take(32)
        stored, self.plain_length = fields.u64(), fields.u64()
        sealed = self.suite != 0
        if sealed:
            require(self.epoch > 0, "sealed in no epoch")
        else:
            require(not self.epoch and not any(self.salt + self.commitment), "not sealed, yet with a key")
        require(sealed == (self.kind not in (TRUST, SLOT)), "sealed or not, against its kind")
        limit = {SLOT: 64 * KIB, CONDEMNED: 64 * MIB, CATALOG: 64 * MIB, LOG_RECORD: MIB}.get(self.kind, 16 * MIB)
        require(0 < self.plain_length <= limit, "a length that is not allowed")
        compressed = stored - 16 if sealed else stored
        if self.compression:
            require(sealed and 0 < compressed < self.plain_length, "lengths contradict each other")
        else:
            require(compressed == self.plain_length, "lengths contradict each other")
        self.header = data[:128]
        self.payload = fields.take(stored)
        self.signed = data[: fields.at]
        self.signature = fields.take(64)
        fields.end()

    def open(self, repository, metadata_key):
        """Returns the plain payload."""
        if not self.suite:
            return self.payload
        key = pair("chronolith v1 metadata object", metadata_key, self.salt, self.commitment)
        plain = open_sealed(self.suite, key, ONCE, repository + self.header, self.payload)
        return decompress(plain, self.plain_length) if self.compression else plain


# --- key slots, identities, grants: slot.md, keys.md ---------------------------------------------

OWNER, MAINTAINER, WRITER, READER, AUDITOR = range(1, 6)
ROLE = one_of(range(1, 6), "role")
COSTS = listed(unsigned(), 3, 3)

SLOT_FIELDS = {
    0: ("kind", one_of((1, 2, 3), "kind of slot")),
    1: ("costs", COSTS),
    2: ("salt", raw(32)),
    3: ("wrapped", raw(limit=64 * KIB)),
    4: ("key", ID),
    5: ("name", text()),
    6: ("created", signed),
}


def read_slot(payload):
    slot = decode(payload, SLOT_FIELDS, (0, 2, 3, 4, 5, 6), 64 * KIB)
    require((slot["costs"] is None) == (slot["kind"] == 2), "costs where none belong, or none")
    if slot["costs"]:
        check_costs(*slot["costs"])
    return slot


IDENTITY_FIELDS = {
    0: ("seed", raw(32)),
    1: ("exchange", raw(32)),
    2: ("genesis", ID),
    3: ("role", ROLE),
    4: ("known", ID),
    5: ("known_sequence", unsigned(least=1)),
}


def read_identity(payload):
    return decode(payload, IDENTITY_FIELDS, range(6), 64 * KIB)


def slot_key(slot, secret):
    if slot["kind"] == 2:
        require(32 <= len(secret) <= 4096, "a key file has 32 to 4096 bytes")
        return derive_key("chronolith v1 key file", slot["salt"] + secret)
    memory, passes, lanes = slot["costs"]
    kind = argon2.low_level.Type.ID
    return argon2.low_level.hash_secret_raw(secret, slot["salt"], passes, memory, lanes, 32, kind, 0x13)


def open_slot(slot, key, repository):
    require(len(slot["wrapped"]) >= 48, "a wrapped identity is too short")
    key = pair("chronolith v1 slot", key, slot["salt"], slot["wrapped"][:32])
    identity = read_identity(open_sealed(1, key, ONCE, repository + slot["key"], slot["wrapped"][32:]))
    identity["key"] = signing_key_id(identity["seed"])
    require(identity["key"] == slot["key"], "a slot with another identity inside")
    return identity


def signing_key_id(seed):
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key()
    return key_id(public.public_bytes(Encoding.Raw, PublicFormat.Raw))


GRANT_FIELDS = {
    0: ("epoch", unsigned((1 << 32) - 1, 1)),
    1: ("metadata", raw(32)),
    2: ("content", raw(32)),
    3: ("content_ids", raw(32)),
    4: ("metadata_ids", raw(32)),
    5: ("chunker", raw(32)),
}


def read_grant(payload):
    return decode(payload, GRANT_FIELDS, (0, 1, 4), 64 * KIB)


class Secrets:
    """What grants, or a recovery sheet, give: keys by epoch, and the keys of blob ids."""

    def __init__(self):
        self.metadata, self.content = {}, {}
        self.metadata_ids = self.content_ids = None

    def add_grant(self, grant):
        self.metadata[grant["epoch"]] = grant["metadata"]
        if grant["content"]:
            self.content[grant["epoch"]] = grant["content"]
        for name in ("metadata_ids", "content_ids"):
            before, now = getattr(self, name), grant[name]
            require(not before or not now or before == now, "[KEYS-14]: grants with different id keys")
            setattr(self, name, now or before)


def read_sheet(content):
    """A recovery sheet: (repository id, identity, secrets)."""
    lines = [line.strip() for line in content.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    require(lines and " ".join(lines[0].split()) == "chronolith recovery sheet 1", "not a recovery sheet")
    found = {}
    for line in lines[1:]:
        body, slash, check = line.lower().rpartition("/")
        body = " ".join(body.split())
        require(slash and blake3(body.encode()).hex()[:4] == check.strip(), f"mistyped: {line}")
        name, *groups = body.split(" ")
        found.setdefault(name, []).append(bytes.fromhex("".join(groups)))
    secrets = Secrets()
    for value in found.get("epoch-metadata", []):
        secrets.metadata[int.from_bytes(value[:4], "big")] = value[4:]
    for value in found.get("epoch-content", []):
        secrets.content[int.from_bytes(value[:4], "big")] = value[4:]
    secrets.metadata_ids = found["metadata-ids"][0]
    secrets.content_ids = found.get("content-ids", [None])[0]
    registry = found["registry"][0]
    identity = {
        "seed": found["signing"][0],
        "exchange": found["exchange"][0],
        "genesis": found["genesis"][0],
        "known": registry[8:],
        "known_sequence": int.from_bytes(registry[:8], "big"),
        "key": signing_key_id(found["signing"][0]),
    }
    return found["repository"][0], identity, secrets


# --- the registry: trust.md ----------------------------------------------------------------------

PATTERNS = listed(text(), 256, 1)
REVOKED = {
    0: ("at", signed),
    1: ("sequence", unsigned()),
    2: ("catalogue", ID),
    3: ("accepted", listed(ID, 65536, 1, key=lambda item: item)),
}
MEMBER = {
    0: ("id", ID),
    1: ("signing", raw(32)),
    2: ("exchange", raw(32)),
    3: ("role", ROLE),
    4: ("name", text()),
    5: ("domain", text()),
    6: ("hosts", PATTERNS),
    7: ("labels", PATTERNS),
    8: ("streams", PATTERNS),
    9: ("created", signed),
    10: ("revoked", mapped(REVOKED, (0, 1))),
    11: ("removed", true_only),
}
GRANT_ENTRY = {0: ("key", ID), 1: ("wrapped", raw(limit=4096))}
EPOCH = {
    0: ("number", unsigned((1 << 32) - 1)),
    1: ("content", raw(32)),
    2: ("created", signed),
    3: ("suite", one_of((1, 2), "suite")),
    4: ("grants", listed(mapped(GRANT_ENTRY, (0, 1)), 4096, key=lambda grant: grant["key"])),
    5: ("closed", true_only),
}
REGISTRY = {
    0: ("sequence", unsigned(least=1)),
    1: ("predecessor", ID),
    2: ("created", signed),
    3: ("least_revision", unsigned()),
    4: ("keys", listed(mapped(MEMBER, (0, 1, 2, 3, 4, 5, 9)), 4096, 1, key=lambda member: member["id"])),
    5: ("epochs", listed(mapped(EPOCH, (0, 1, 2, 3, 4)), 4096, 1)),
}


def in_service(member):
    return not member["revoked"] and not member["removed"]


def read_registry(payload):
    registry = decode(payload, REGISTRY, (0, 2, 3, 4, 5))
    require((registry["predecessor"] is None) == (registry["sequence"] == 1), "[TRUST-1]")
    members = registry["members"] = {member["id"]: member for member in registry["keys"]}
    require(all(key_id(member["signing"]) == member["id"] for member in registry["keys"]), "[TRUST-3]")
    require(any(m["role"] == OWNER and in_service(m) for m in registry["keys"]), "[TRUST-4]")
    epochs = registry["epochs"]
    require([epoch["number"] for epoch in epochs] == list(range(1, len(epochs) + 1)), "[TRUST-6]")
    require(not epochs[-1]["closed"], "[TRUST-6]: the current epoch is closed")
    require(all(grant["key"] in members for epoch in epochs for grant in epoch["grants"]), "[TRUST-7]")
    return registry


def signed_by_owner(registry, object_, repository):
    member = registry["members"].get(object_.signer)
    if not member or member["role"] != OWNER or not in_service(member):
        return False
    return signature_holds(repository, object_.kind, object_.signed, member["signing"], object_.signature)


def follows(now, before, before_id, object_, repository):
    """[TRUST-9]"""
    if now["predecessor"] != before_id or now["sequence"] != before["sequence"] + 1:
        return False
    if not signed_by_owner(before, object_, repository) or object_.signer not in now["members"]:
        return False
    for old in before["keys"]:
        new = now["members"].get(old["id"])
        if not new or any(new[name] != old[name] for name in ("exchange", "role", "created")):
            return False
        if old["removed"] and not new["removed"]:
            return False
        if old["revoked"]:
            if not new["revoked"] or new["revoked"]["sequence"] != old["revoked"]["sequence"]:
                return False
    for new in now["keys"]:
        old = before["members"].get(new["id"])
        if new["revoked"] and not (old and old["revoked"]) and new["revoked"]["sequence"] != now["sequence"]:
            return False
    for old, new in zip(before["epochs"], now["epochs"]):
        if any(new[name] != old[name] for name in ("content", "created", "suite")) or old["closed"] and not new["closed"]:
            return False
    return len(now["epochs"]) >= len(before["epochs"]) and now["least_revision"] >= before["least_revision"]


def resolve_registry(versions, identity, repository):
    """The newest version that counts. `versions` is {id: (registry, envelope)}."""
    start = identity["genesis"] if identity["genesis"] in versions else identity["known"]
    if start not in versions:
        raise Missing("the registry does not begin with the version that the key pins")
    registry, object_ = versions[start]
    if start == identity["genesis"]:
        require(registry["sequence"] == 1 and signed_by_owner(registry, object_, repository), "[TRUST-8]")
    chain = {start}
    while True:
        next_ids = sorted(
            id_ for id_, (now, env) in versions.items() if follows(now, registry, start, env, repository)
        )
        if not next_ids:
            break
        start = next_ids[0]
        registry = versions[start][0]
        chain.add(start)
    require(identity["known"] in chain, "[TRUST-18]: a version of the registry that was known is missing")
    return registry


# Who may sign what ([TRUST-12]); kinds of annotations and log records are looked at where they are read.
MAY_SIGN = {
    CONTENT_PACK: (OWNER, MAINTAINER, WRITER),
    METADATA_PACK: (OWNER, MAINTAINER, WRITER),
    INDEX_RUN: (OWNER, MAINTAINER, WRITER),
    SNAPSHOT: (OWNER, WRITER),
    LOG_PACK: (OWNER, MAINTAINER, WRITER),
    LOG_RECORD: (OWNER, MAINTAINER, WRITER),
    ANNOTATION: (OWNER, MAINTAINER, WRITER, READER, AUDITOR),
}


def pattern_covers(pattern, value):
    """`*` any characters, `?` one; everything else itself."""
    row = [True] + [False] * len(value)
    for p in pattern:
        if p == "*":
            for at in range(len(value)):
                row[at + 1] = row[at + 1] or row[at]
        else:
            row = [False] + [row[at] and (p in ("?", value[at])) for at in range(len(value))]
    return row[-1]


def covers(patterns, value):
    return patterns is None or any(pattern_covers(pattern, value) for pattern in patterns)


# --- packs: pack.md ------------------------------------------------------------------------------

FRAME_PLAIN_MAX, FRAME_SEALED_MAX, PACK_MAX, DEPTH_MAX = 8 * MIB, 8 * MIB + 64 * KIB, 256 * MIB, 32
CONTENT, METADATA = 0, 1


class Origin:
    """Where the key of frames comes from."""

    def __init__(self, data, class_):
        fields = Fields(data)
        self.suite = fields.u8()
        fields.zeros(3)
        self.epoch, self.encapsulation = fields.u32(), fields.take(32)
        self.salt, self.commitment = fields.take(32), fields.take(32)
        known(self.suite in (1, 2), f"suite {self.suite}")
        require(self.epoch > 0, "an origin of no epoch")
        require(class_ == CONTENT or not any(self.encapsulation), "[PACK-12]")
        self.class_, self.data = class_, data

    def key(self, repository, secrets):
        if self.class_ == METADATA:
            context, secret = "chronolith v1 metadata frames", secrets.metadata.get(self.epoch)
        else:
            context, secret = "chronolith v1 content frames", secrets.content.get(self.epoch)
        if secret is None:
            raise Missing(f"this key does not open {('content', 'metadata')[self.class_]} of epoch {self.epoch}")
        if self.class_ == CONTENT:
            secret = shared_secret(secret, self.encapsulation, repository, self.epoch)
        return pair(context, secret, self.salt, self.commitment)


def read_origins(data, count, class_):
    require(1 <= count <= 4096, "a number of origins that is not allowed")
    return [Origin(data[at : at + 104], class_) for at in range(0, 104 * count, 104)]


class Frame:
    """A frame as a table of contents or an index record describes it."""

    def __init__(self, pack, offset, sealed, plain, encoding, depth, origin, counter, base):
        self.pack, self.offset, self.sealed, self.plain = pack, offset, sealed, plain
        self.encoding, self.depth, self.origin, self.counter, self.base = encoding, depth, origin, counter, base

    def check(self):
        known(self.encoding <= 3, f"encoding {self.encoding}")
        require(0 < self.plain <= FRAME_PLAIN_MAX and 16 < self.sealed <= FRAME_SEALED_MAX, "[PACK-6]")
        require(self.encoding or self.sealed == self.plain + 16, "[PACK-6]: a stored frame")
        require((self.base is not None) == (self.encoding in (2, 3)), "[PACK-7]")
        require((self.depth > 0) == (self.base is not None) and self.depth <= DEPTH_MAX, "[PACK-7]")

    def open(self, sealed, origin, key, repository, base):
        kind = bytes([3 + origin.class_, self.encoding])
        bound = repository + kind + struct.pack("<QI", self.counter, self.plain) + (self.base or b"")
        encoded = open_sealed(origin.suite, key, counter_nonce(self.counter), bound, sealed)
        if self.encoding == 0:
            return encoded
        if self.encoding == 3 and base[:4] == b"\x37\xa4\x30\xec":
            return decompress(encoded, self.plain, zstandard.ZstdCompressionDict(base))
        return decompress(encoded, self.plain, base)


class Trailer:
    """The last 192 bytes of a pack."""

    def __init__(self, data, pack_length, kinds):
        require(pack_length <= PACK_MAX, "a pack that is too long")
        fields = Fields(data)
        self.table_at, self.table_sealed, self.table_plain = fields.u32(), fields.u32(), fields.u32()
        self.epoch, self.suite, self.kind = fields.u32(), fields.u8(), fields.u8()
        self.origins, self.frames, self.blobs = fields.u16(), fields.u32(), fields.u32()
        require(fields.take(3) == b"TRL", "no trailer")
        known(fields.u8() == 1, "version of a pack")
        self.salt, self.commitment, self.signer = fields.take(32), fields.take(32), fields.take(32)
        self.signature = fields.take(64)
        known(self.suite in (1, 2), f"suite {self.suite}")
        require(self.kind in kinds, "a trailer of another kind")
        require(self.epoch > 0, "a table of no epoch")
        require(1 <= self.origins <= 4096 and 1 <= self.frames <= 1 << 20, "a number that is not allowed")
        require(self.frames <= self.blobs <= 1 << 21, "a number of blobs that is not allowed")
        require(self.table_sealed == self.table_plain + 16, "[PACK-3]")
        self.tail_length = self.table_sealed + 104 * self.origins + 192
        require(self.table_at + self.tail_length == pack_length, "[PACK-3]")

    def open_table(self, sealed, repository, metadata_key):
        key = pair("chronolith v1 pack contents", metadata_key, self.salt, self.commitment)
        bound = repository + bytes([self.kind]) + struct.pack("<I", self.table_plain)
        return open_sealed(self.suite, key, ONCE, bound, sealed)


def read_table(plain, trailer, first_frame):
    """The table of contents: [(frame, [(blob id, offset in the frame, length)])]."""
    exactly(plain, trailer.table_plain)
    fields = Fields(plain)
    require(fields.u32() == trailer.frames, "[PACK-5]")
    table, seen, at, blobs = [], set(), first_frame, 0
    for _ in range(trailer.frames):
        offset, sealed, plain_length = fields.u32(), fields.u32(), fields.u32()
        encoding, depth, count, origin = fields.u8(), fields.u8(), fields.u16(), fields.u16()
        fields.zeros(2)
        counter = fields.u64()
        known(encoding <= 3, f"encoding {encoding}")
        base = fields.take(32) if encoding in (2, 3) else None
        frame = Frame(None, offset, sealed, plain_length, encoding, depth, origin, counter, base)
        require(1 <= count <= 4096, "a number of blobs that is not allowed")
        inside, start = [], 0
        for _ in range(count):
            id_, length = fields.take(32), fields.u32()
            require(length > 0, "an empty blob")
            inside.append((id_, start, length))
            start += length
        require(start == plain_length, "[PACK-6]: the blobs do not fill the frame")
        frame.check()
        require(origin < trailer.origins, "an origin that the pack does not have")
        require((origin, counter) not in seen, "[PACK-11]")
        require(offset == at, "[PACK-4]")
        seen.add((origin, counter))
        at, blobs = offset + sealed, blobs + count
        table.append((frame, inside))
    fields.end()
    require(at == trailer.table_at, "[PACK-4]")
    require(blobs == trailer.blobs, "[PACK-5]")
    return table


class Pack:
    """A whole pack in memory, taken apart; nothing is believed yet."""

    def __init__(self, data):
        fields = Fields(data)
        self.kind = magic_and_kind(fields, data)
        known(fields.u8() == 1, "version of a pack")
        require(self.kind in (CONTENT_PACK, METADATA_PACK), "no pack")
        count = fields.u16()
        require(1 <= count <= 4096, "a number of origins that is not allowed")
        fields.zeros(8)
        self.signer = fields.take(32)
        fields.zeros(16)
        if len(data) < 64 + 192:
            raise Truncated("the pack is cut short")
        self.class_ = self.kind - CONTENT_PACK
        self.trailer = trailer = Trailer(data[-192:], len(data), (CONTENT_PACK, METADATA_PACK))
        require((trailer.kind, trailer.origins, trailer.signer) == (self.kind, count, self.signer), "[PACK-2]")
        self.origins = read_origins(fields.take(104 * count), count, self.class_)
        self.first_frame = fields.at
        end = trailer.table_at + trailer.table_sealed
        require(data[end : len(data) - 192] == data[64 : self.first_frame], "[PACK-2]: the copies of the origins")
        self.data, self.signed = data, data[:-64]
        self.table_sealed = data[trailer.table_at : end]

    def open(self, repository, metadata_key):
        return read_table(
            self.trailer.open_table(self.table_sealed, repository, metadata_key), self.trailer, self.first_frame
        )


# --- index runs: index.md ------------------------------------------------------------------------

INDEX_RECORD = struct.Struct("<32sIIIIIIQIHBB")
NO_BASE = 0xFFFFFFFF


class IndexHead:
    """The first 160 bytes of an index run."""

    def __init__(self, data, run_length):
        fields = Fields(data)
        kind = magic_and_kind(fields, data)
        known(fields.u8() == 1, "version of an index run")
        require(kind == INDEX_RUN, "no index run")
        self.suite = fields.u8()
        fields.zeros(1)
        self.epoch = fields.u32()
        fields.zeros(4)
        self.signer, self.salt, self.commitment = fields.take(32), fields.take(32), fields.take(32)
        self.records, self.directory_at = fields.u64(), fields.u64()
        self.directory_stored, self.directory_plain, self.blocks = fields.u32(), fields.u32(), fields.u32()
        fields.zeros(20)
        known(self.suite in (1, 2), f"suite {self.suite}")
        require(self.epoch > 0, "an index run of no epoch")
        require(self.records <= 1 << 20 and self.blocks <= 1 << 20, "a number that is not allowed")
        require(self.directory_at >= 160 and self.directory_stored > 16, "[INDEX-2]")
        require(self.directory_stored <= PACK_MAX and self.directory_plain <= PACK_MAX, "a directory too long")
        length = self.directory_at + self.directory_stored + 64
        if run_length < length:
            raise Truncated("the index run is cut short")
        require(run_length == length, "[INDEX-2]")


class Directory:
    """Packs, origins and blocks of an index run."""

    def __init__(self, plain, head):
        exactly(plain, head.directory_plain)
        fields = Fields(plain)
        packs, origins, blocks = fields.u32(), fields.u32(), fields.u32()
        fields.zeros(4)
        require(max(packs, origins) <= 1 << 20 and blocks == head.blocks, "[INDEX-4]")
        entries = [fields.take(48) for _ in range(min(packs, len(plain)))]
        origin_bytes = [fields.take(104) for _ in range(min(origins, len(plain)))]
        self.packs, first = [], 0
        for entry in entries:
            id_, length, kind, zero, count, first_origin, zeros = struct.unpack("<32sIBBHII", entry)
            require(not zero and not zeros, "reserved bytes are not zero")
            require(kind in (CONTENT_PACK, METADATA_PACK) and length <= PACK_MAX, "[INDEX-8]")
            require(first_origin == first and 1 <= count <= 4096, "origins that are not in order")
            first += count
            found = [Origin(data, kind - CONTENT_PACK) for data in origin_bytes[first - count : first]]
            require(len(found) == count, "origins that are not there")
            self.packs.append((id_, length, kind - CONTENT_PACK, found))
        require(first == origins, "origins that no pack has")
        require(len({entry[0] for entry in self.packs}) == packs, "[INDEX-8]: a pack twice")
        self.blocks, at, records, before = [], 160, 0, b""
        for _ in range(blocks):
            first_id, offset, stored, count, bases = struct.unpack("<32sQIHH", fields.take(48))
            require(offset == at, "[INDEX-3]")
            require(1 <= count <= 4096 and bases <= count and 16 < stored <= 512 * KIB, "[INDEX-4]")
            require(before < first_id, "[INDEX-5]: blocks do not ascend")
            before, at, records = first_id, at + stored, records + count
            self.blocks.append((first_id, offset, stored, count, bases))
        fields.end()
        require(at == head.directory_at, "[INDEX-3]")
        require(records == head.records, "[INDEX-4]")


def read_block(plain, block, packs):
    """Records of a block: [(blob id, class, frame, offset in the frame, length)]."""
    first_id, _, _, count, base_count = block
    exactly(plain, 72 * count + 32 * base_count)
    bases = [plain[at : at + 32] for at in range(72 * count, len(plain), 32)]
    require(all(a < b for a, b in zip(bases, bases[1:])), "[INDEX-7]: bases do not ascend")
    records, order, used = [], [], set()
    for at in range(0, 72 * count, 72):
        record = INDEX_RECORD.unpack(plain[at : at + 72])
        id_, pack, frame_at, sealed, plain_length, offset, length, counter, base, origin, both, depth = record
        class_, encoding = both >> 4, both & 15
        require(pack < len(packs), "[INDEX-6]: no such pack")
        pack_id, pack_length, pack_class, origins = packs[pack]
        require(class_ <= 1 and class_ == pack_class, "[INDEX-6]: class")
        require(origin < len(origins), "[INDEX-6]: no such origin")
        require(base == NO_BASE or base < len(bases), "[INDEX-7]: no such base")
        used.add(base)
        base_id = None if base == NO_BASE else bases[base]
        frame = Frame(pack_id, frame_at, sealed, plain_length, encoding, depth, origins[origin], counter, base_id)
        frame.check()
        require(168 <= frame_at and frame_at + sealed <= pack_length, "[INDEX-6]: the frame is not in the pack")
        require(length > 0 and offset + length <= plain_length, "[INDEX-6]: the blob is not in the frame")
        records.append((id_, class_, frame, offset, length))
        order.append((id_, class_, depth, pack, frame_at, offset))
    require(all(a < b for a, b in zip(order, order[1:])), "[INDEX-5]: records do not ascend")
    require(order[0][0] == first_id, "[INDEX-5]: the first id")
    require(used - {NO_BASE} == set(range(base_count)), "[INDEX-7]: a base that nobody names")
    return records


class IndexRun:
    """A whole index run in memory, taken apart; nothing is believed yet."""

    def __init__(self, data):
        self.head = IndexHead(data[:160], len(data))
        self.data, self.signed, self.signature = data, data[:-64], data[-64:]

    def part(self, number, at, stored, plain_length, key, repository):
        bound = repository + self.data[:112]
        opened = open_sealed(self.head.suite, key, counter_nonce(number), bound, self.data[at : at + stored])
        if not opened:
            raise Truncated("a part without its encoding")
        encoding, encoded = opened[0], opened[1:]
        require(encoding <= 1, "an encoding that parts do not have")
        require(encoding or len(encoded) == plain_length, "a part of another length")
        return decompress(encoded, plain_length) if encoding else encoded

    def open(self, repository, metadata_key):
        """Yields all records."""
        head = self.head
        key = pair("chronolith v1 index run", metadata_key, head.salt, head.commitment)
        place = (head.directory_at, head.directory_stored, head.directory_plain)
        directory = Directory(self.part((1 << 64) - 1, *place, key, repository), head)
        before = None
        for number, block in enumerate(directory.blocks):
            _, offset, stored, count, bases = block
            plain = self.part(number, offset, stored, 72 * count + 32 * bases, key, repository)
            records = read_block(plain, block, directory.packs)
            require(before is None or before < records[0][0], "[INDEX-5]: blocks overlap")
            before = records[-1][0]
            yield from records


# --- recipes: recipe.md --------------------------------------------------------------------------

LENGTH_MAX = (1 << 63) - 1
ENTRY_FILE, ENTRY_FOLDER, ENTRY_LINK, ENTRY_PIPE, ENTRY_SOCKET, ENTRY_CHARACTER, ENTRY_BLOCK = range(7)


def read_recipe(data):
    """A node: (level, entries); entries are (id, length) with id None for holes, or (id, bytes, leaf entries)."""
    if len(data) < 16:
        require(data[:4] == b"RCPE"[: len(data)], "no recipe node")
        raise Truncated("the head of a recipe node is cut short")
    fields = Fields(data)
    require(fields.take(4) == b"RCPE", "no recipe node")
    known(fields.u8() == 1, "version of a recipe node")
    level, sketches = fields.u8(), fields.u8()
    fields.zeros(1)
    count = fields.u32()
    fields.zeros(4)
    require(level <= 7 and count <= 4096, "[RECIPE-2]")
    require(not level or (not sketches and count), "[RECIPE-2]: a node above level 0")
    entries, total = [], 0
    for _ in range(count):
        id_ = fields.take(32)
        if level:
            length, leaves = fields.u64(), fields.u64()
            require(0 < leaves <= length, "[RECIPE-4]")
            entries.append((id_, length, leaves))
        else:
            length = fields.u32()
            if not any(id_):
                require(sketches, "[RECIPE-3]: a hole in a node without sketches")
                length |= fields.u32() << 32
                fields.zeros(8)
                require(length, "[RECIPE-3]: a hole of nothing")
                id_ = None
            else:
                require(0 < length <= FRAME_PLAIN_MAX, "[RECIPE-3]")
                fields.take(12 if sketches else 0)
            entries.append((id_, length))
        total += length
        require(total <= LENGTH_MAX, "[RECIPE-5]")
    fields.end()
    return level, entries


# --- trees: tree.md ------------------------------------------------------------------------------


def inline_pieces(value):
    level, entries = read_recipe(raw()(value))
    require(level == 0 and len(entries) <= 64, "inline pieces that are none")
    return entries


CONTENT_FIELDS = {
    0: ("length", unsigned(LENGTH_MAX)),
    1: ("algorithm", unsigned()),
    2: ("digest", raw(limit=64)),
    3: ("pieces", inline_pieces),
    4: ("recipe", ID),
    5: ("cut", unsigned()),
    6: ("page", unsigned((1 << 32) - 1, 1)),
    7: ("read", signed),
}


def read_content(value):
    read = numbered(value, CONTENT_FIELDS, (0, 5))
    require((read["pieces"] is None) != (read["recipe"] is None), "[TREE-4]")
    require((read["algorithm"] is None) == (read["digest"] is None), "[TREE-4]")
    require(read["algorithm"] != 1 or len(read["digest"]) == 32, "[TREE-4]: a digest of another length")
    require(read["cut"] > 1 or (read["page"] is None) == (read["cut"] == 0), "[TREE-4]")
    if read["pieces"] is not None:
        require(sum(length for _, length in read["pieces"]) == read["length"], "[TREE-5]")
    return read


def attribute(value):
    name, content = listed(lambda part: part, 2, 2)(value)
    return raw(limit=4096)(name), raw(limit=64 * KIB)(content)


def entry_name(value):
    name = raw(limit=4096, least=1)(value)
    require(name not in (b".", b"..") and b"/" not in name and b"\0" not in name, "[TREE-1]")
    return name


UNSIGNED_32 = unsigned((1 << 32) - 1)
ENTRY_FIELDS = {
    0: ("name", entry_name),
    1: ("kind", one_of(range(7), "kind of entry")),
    2: ("mode", unsigned(0o7777)),
    3: ("user_id", UNSIGNED_32),
    4: ("group_id", UNSIGNED_32),
    5: ("user", raw(limit=4096)),
    6: ("group", raw(limit=4096)),
    7: ("modified", signed),
    8: ("changed", signed),
    9: ("accessed", signed),
    10: ("device", unsigned()),
    11: ("inode", unsigned()),
    12: ("links", unsigned()),
    13: ("size", unsigned()),
    14: ("target", raw(limit=64 * KIB)),
    15: ("numbers", listed(UNSIGNED_32, 2, 2)),
    16: ("attributes", listed(attribute, 1024, 1, key=lambda pair: pair[0])),
    17: ("subtree", ID),
    18: ("content", read_content),
}


def read_entry(value):
    entry = numbered(value, ENTRY_FIELDS, (0, 1, 2, 7))
    kind = entry["kind"]
    needs = (("content", (0,)), ("subtree", (1,)), ("target", (2,)), ("numbers", (5, 6)))
    for name, kinds in needs:
        require((entry[name] is not None) == (kind in kinds), f"[TREE-3]: {name}")
    content = entry["content"]
    require(not content or entry["size"] in (None, content["length"]), "[TREE-5]")
    return entry


def closed(value, schema, required):
    """[TREE-7]: a map that does not grow."""
    require(isinstance(value, Map), "a map is expected")
    for number, _ in value:
        known(not isinstance(number, int) or number in schema, f"field {number} of a tree node")
    return numbered(value, schema, required)


PART_FIELDS = {0: ("name", entry_name), 1: ("node", ID)}


def read_tree(data):
    """A node: (level, entries or parts)."""
    require(len(data) <= FRAME_PLAIN_MAX, "a tree node that is too long")
    cbor = Cbor(data)
    value = cbor.value()
    require(cbor.at == len(data), "bytes follow the end")
    node = closed(value, {0: ("level", unsigned(7)), 1: ("list", lambda items: items)}, (0, 1))
    read = read_entry
    if node["level"]:
        read = lambda part: closed(part, PART_FIELDS, (0, 1))
    least = 1 if node["level"] else 0
    return node["level"], listed(read, 4096, least, key=lambda item: item["name"])(node["list"])


# --- snapshots: snapshot.md ----------------------------------------------------------------------


def tag(value):
    parts = listed(text(), 2, 1)(value)
    require(parts[0], "a tag without a key")
    return parts


SUMMARY = ("files folders others bytes new_blobs new_bytes stored_bytes unreadable unchanged").split()
SNAPSHOT_FIELDS = {
    0: ("host", text(least=1)),
    1: ("label", text()),
    2: ("user", text()),
    3: ("started", signed),
    4: ("ended", signed),
    5: ("parent", ID),
    6: ("mode", one_of(range(3), "mode")),
    7: ("sources", listed(text(64 * KIB), 65536)),
    8: ("root", ID),
    9: ("summary", mapped({n: (name, unsigned()) for n, name in enumerate(SUMMARY)}, range(9))),
    10: ("program", text()),
    11: ("tags", listed(tag, 1024, 1, key=lambda parts: parts[0].encode())),
    12: ("registry", unsigned(least=1)),
    13: ("registry_id", ID),
    14: ("kind", text(least=1)),
    15: ("facts", texts(4096, 64 * KIB)),
}


def read_snapshot(payload):
    return decode(payload, SNAPSHOT_FIELDS, (0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 12, 13, 14))


# --- annotations: annotation.md ------------------------------------------------------------------

IDS = listed(ID, least=1, key=lambda id_: id_)
TAG, UNTAG, PIN, UNPIN, NOTE, VERIFIED, FORGOTTEN, UNDELETED, ATTESTED = range(1, 10)
ANNOTATION_FIELDS = {
    0: ("kind", unsigned(least=1)),
    1: ("created", signed),
    2: ("subjects", IDS),
    3: ("key", text(least=1)),
    4: ("value", text(64 * KIB)),
    5: ("packs", IDS),
    6: ("method", text(least=1)),
    7: ("cancels", ID),
    8: ("outcome", unsigned(2)),
    9: ("log_packs", IDS),
    10: ("facts", texts(1024, 64 * KIB)),
}


def read_annotation(payload):
    read = decode(payload, ANNOTATION_FIELDS, (0, 1))
    kind = read["kind"]
    known(kind <= ATTESTED, f"kind of annotation {kind}")
    subjects = read["subjects"] or read["log_packs"]
    told = read["method"] and read["outcome"] is not None
    complete = {
        TAG: read["subjects"] and read["key"],
        UNTAG: read["cancels"] or read["subjects"] and read["key"],
        PIN: subjects,
        UNPIN: read["cancels"],
        NOTE: subjects and read["value"] is not None,
        VERIFIED: (subjects or read["packs"]) and told,
        FORGOTTEN: subjects,
        UNDELETED: read["cancels"],
        ATTESTED: read["packs"] and told,
    }[kind]
    require(complete, "[ANNOTATION-12]")
    return read


# --- logs: log-pack.md ---------------------------------------------------------------------------

SEGMENT, PIECE, GAP, CONFLICT, MERGED = range(1, 6)


def chunk_list(value):
    packed = raw(limit=MIB, least=36)(value)
    require(len(packed) % 36 == 0, "[LOG-PACK-20]")
    chunks = [struct.unpack("<32sI", packed[at : at + 36]) for at in range(0, len(packed), 36)]
    require(all(0 < length <= FRAME_PLAIN_MAX for _, length in chunks), "[LOG-PACK-20]")
    return chunks


DIGEST = {0: ("length", unsigned()), 1: ("digest", raw(32))}
RUN = {
    0: ("first", text(least=1)),
    1: ("last", text(least=1)),
    2: ("records", unsigned(least=1)),
    3: ("bytes", unsigned()),
    4: ("timeline", unsigned()),
    5: ("start", unsigned()),
    6: ("end", unsigned()),
    7: ("earliest", signed),
    8: ("latest", signed),
    9: ("facts", listed(text(), least=1)),
}
LOG_RECORD_FIELDS = {
    0: ("kind", unsigned(least=1)),
    1: ("stream", text(least=1)),
    2: ("name", text(least=1)),
    3: ("created", signed),
    4: ("host", text()),
    5: ("program", text()),
    6: ("last_name", text(least=1)),
    7: ("content", mapped({**DIGEST, 2: ("chunks", chunk_list)}, (0, 1))),
    8: ("piece_offset", unsigned()),
    9: ("whole", mapped(DIGEST, (0, 1))),
    10: ("engine", text(least=1)),
    11: ("lineage", text()),
    12: ("timeline", unsigned()),
    13: ("start", unsigned()),
    14: ("end", unsigned()),
    15: ("earliest", signed),
    16: ("latest", signed),
    17: ("reason", text()),
    18: ("against", ID),
    19: ("runs", listed(mapped(RUN, (0, 1, 2, 3)), least=1)),
    20: ("replaces", raw(least=32)),
    21: ("facts", texts(1024, 64 * KIB)),
}


def check_range(read):
    for first, last in (("start", "end"), ("earliest", "latest")):
        a, b = read[first], read[last]
        require((a is None) == (b is None) and (a is None or a <= b), "[LOG-PACK-21]")


def read_log_record(payload):
    read = decode(payload, LOG_RECORD_FIELDS, (0, 1, 2, 3, 4, 5, 10), MIB)
    kind, content, last = read["kind"], read["content"], read["last_name"]
    known(kind <= MERGED, f"kind of log record {kind}")
    chunks = content and content["chunks"]
    if chunks:
        require(sum(length for _, length in chunks) == content["length"] <= 128 * MIB, "[LOG-PACK-20]")
    whole, offset = read["whole"], read["piece_offset"]
    complete = {
        SEGMENT: chunks and offset is None and not whole,
        PIECE: chunks and offset is not None,
        GAP: last and read["reason"] is not None and not content,
        CONFLICT: content and not chunks and read["reason"] is not None,
        MERGED: last and read["runs"] and not content,
    }[kind]
    require(complete, "[LOG-PACK-19]")
    if kind == PIECE:
        end = offset + content["length"]
        require(end < 1 << 63 and (not whole or whole["length"] == end), "[LOG-PACK-21]")
    for ranged in [read] + (read["runs"] or []):
        check_range(ranged)
    for run in read["runs"] or []:
        facts = run["facts"] or []
        require(len(facts) <= 1024 and all(a < b for a, b in zip(facts, facts[1:])), "[LOG-PACK-22]")
    return read


class LogPack:
    """A whole log pack in memory, taken apart; nothing is believed yet."""

    def __init__(self, data):
        fields = Fields(data)
        kind = magic_and_kind(fields, data)
        version = fields.u8()
        require(kind == LOG_PACK, "no log pack")
        known(version == 1, "version of a log pack")
        count, records, length = fields.u16(), fields.u32(), fields.u32()
        self.signer = fields.take(32)
        fields.zeros(16)
        require(1 <= count <= 4096 and 1 <= records <= 1 << 17 and length <= PACK_MAX, "[LOG-PACK-11]")
        origins = fields.take(104 * count)
        self.origins = read_origins(origins, count, CONTENT)
        self.records = self.read_records(Fields(fields.take(length)), records)
        self.first_frame = fields.at
        if len(data) < self.first_frame + 192:
            raise Truncated("the log pack is cut short")
        self.trailer = trailer = Trailer(data[-192:], len(data), (LOG_PACK,))
        require((trailer.origins, trailer.signer) == (count, self.signer), "[LOG-PACK-14]")
        require(trailer.table_at > self.first_frame, "[LOG-PACK-13]")
        end = trailer.table_at + trailer.table_sealed
        require(data[end : len(data) - 192] == origins, "[LOG-PACK-14]")
        self.data, self.signed, self.signature = data, data[:-64], data[-64:]
        self.table_sealed = data[trailer.table_at : end]

    @staticmethod
    def read_records(fields, count):
        records = []
        try:
            for _ in range(count):
                records.append(Envelope(fields.take(fields.u32())))
                require(records[-1].kind == LOG_RECORD, "[LOG-PACK-12]")
            fields.end()
        except Truncated:
            raise Refused("[LOG-PACK-12]") from None
        return records

    def open(self, repository, secrets):
        """Returns the records, opened, and a function that gives the plain bytes of one."""
        records = [
            read_log_record(record.open(repository, metadata_of(secrets, record.epoch))) for record in self.records
        ]
        plain = self.trailer.open_table(self.table_sealed, repository, metadata_of(secrets, self.trailer.epoch))
        table = read_table(plain, self.trailer, self.first_frame)
        frames, depths = {}, {}
        for frame, blobs in table:
            for id_, start, length in blobs:
                frames.setdefault(id_, []).append((frame, start, length))
                depths[id_] = min(depths.get(id_, frame.depth), frame.depth)
        for frame, _ in table:
            require(not frame.base or depths.get(frame.base, 99) < frame.depth, "[LOG-PACK-15]")
        for record in records:
            for id_, length in record["content"] and record["content"]["chunks"] or ():
                require(any(place[2] == length for place in frames.get(id_, ())), "[LOG-PACK-4]")

        def blob(id_, origin, below=99):
            places = [p for p in frames.get(id_, ()) if p[0].depth < below and origin in (None, p[0].origin)]
            require(places, "[LOG-PACK-4]")
            frame, start, length = min(places, key=depth_of)
            sealed = self.data[frame.offset : frame.offset + frame.sealed]
            base = frame.base and blob(frame.base, origin, frame.depth)
            key = self.origins[frame.origin].key(repository, secrets)
            decoded = frame.open(sealed, self.origins[frame.origin], key, repository, base)
            return check_blob(secrets.content_ids, id_, decoded[start : start + length])

        def content(record):
            """[LOG-PACK-5]: of frames that say the same, those of each origin are tried."""
            chunks = [id_ for id_, _ in record["content"]["chunks"]]
            origins = sorted({frame.origin for frame, _, _ in frames[chunks[0]]})
            problem = None
            for origin in (*origins, None):
                try:
                    whole = b"".join(blob(id_, origin) for id_ in chunks)
                    require(blake3(whole) == record["content"]["digest"], "[LOG-PACK-5]")
                    return whole
                except Refused as error:
                    problem = problem or error
            raise problem

        return records, content


def last_name(record):
    return record["last_name"] or record["name"]


def check_runs(records):
    """[LOG-PACK-10]: the first record sums up the others."""
    rest = records[1:]
    for run in records[0]["runs"]:
        own, rest = rest[: run["records"]], rest[run["records"] :]
        require(len(own) == run["records"], "[LOG-PACK-10]")
        for a, b in zip(own, own[1:]):
            joined = a["end"] is not None and a["end"] == b["start"] and last_name(a) < b["name"]
            same = (a["timeline"], a["lineage"]) == (b["timeline"], b["lineage"])
            require(joined and same, "[LOG-PACK-10]")
        contents = [r["content"]["length"] for r in own if r["content"] and r["content"]["chunks"]]
        times = [(r["earliest"], r["latest"]) for r in own if r["earliest"] is not None]
        said = {
            "first": own[0]["name"],
            "last": last_name(own[-1]),
            "bytes": sum(contents),
            "timeline": own[0]["timeline"],
            "start": own[0]["start"],
            "end": own[-1]["end"],
            "earliest": min((first for first, _ in times), default=None),
            "latest": max((last for _, last in times), default=None),
            "facts": sorted({name for r in own for name in r["facts"] or {}}, key=str.encode) or None,
        }
        require(all(run[field] == value for field, value in said.items()), "[LOG-PACK-10]")
    require(not rest, "[LOG-PACK-10]")


def depth_of(place):
    return place[0].depth


def metadata_of(secrets, epoch):
    if epoch not in secrets.metadata:
        raise Missing(f"this key does not open metadata of epoch {epoch}")
    return secrets.metadata[epoch]


def check_blob(id_key, id_, plain):
    require(id_key and keyed(id_key, plain) == id_, f"blob {id_.hex()} is not what its id says")
    return plain
