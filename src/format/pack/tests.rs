use super::*;
use crate::base::{BlobId, KeyId};
use crate::codec::Encoding;
use crate::crypto::{SIGNATURE_BYTES, Suite, TAG_BYTES};
use crate::format::testing::{Change, id32, survives_damage};
use proptest::prelude::*;

fn origin(number: u8, class: BlobClass) -> Origin {
    let encapsulation = match class {
        BlobClass::Content => id32(number),
        BlobClass::Metadata => [0; 32],
    };
    Origin {
        suite: if number.is_multiple_of(2) { Suite::ChaCha20Poly1305 } else { Suite::Aes256Gcm },
        epoch: 1 + u32::from(number),
        encapsulation,
        salt: id32(number.wrapping_add(1)),
        commitment: id32(number.wrapping_add(2)),
    }
}

/// A frame to be put into a sample: encoding, depth, lengths of its blobs.
type Shape = (Encoding, u8, Vec<u32>);

fn record(number: u8, shape: &Shape) -> FrameRecord {
    let (encoding, depth, lengths) = shape;
    let plain_length = lengths.iter().sum();
    let body = if *encoding == Encoding::Stored { plain_length } else { 1 + plain_length / 3 };
    FrameRecord {
        offset: 0,
        sealed_length: body + TAG_BYTES as u32,
        plain_length,
        encoding: *encoding,
        depth: *depth,
        origin: 0,
        counter: u64::from(number),
        base: encoding.needs_base().then(|| BlobId::new(id32(number.wrapping_add(100)))),
        blobs: lengths
            .iter()
            .enumerate()
            .map(|(n, length)| (BlobId::new(id32(number.wrapping_add(n as u8))), *length))
            .collect(),
    }
}

/// A pack as it lies in the store, but with zeros where sealed bytes would be, and its plain table.
fn pack(class: BlobClass, origins: u16, shapes: &[Shape]) -> (Vec<u8>, TableOfContents) {
    let signer = KeyId::new(id32(9));
    let origins: Vec<_> = (0..origins).map(|number| origin(number as u8, class)).collect();
    let mut bytes = Vec::new();
    PackHead { class, origin_count: origins.len() as u16, signer }.encode(&mut bytes);
    origins.iter().for_each(|origin| origin.encode(&mut bytes));
    let mut contents = TableOfContents::default();
    for (number, shape) in shapes.iter().enumerate() {
        let mut frame = record(number as u8, shape);
        frame.offset = bytes.len() as u32;
        frame.origin = (number % origins.len()) as u16;
        bytes.resize(bytes.len() + frame.sealed_length as usize, 0);
        contents.frames.push(frame);
    }
    let mut plain = Vec::new();
    contents.encode(&mut plain).unwrap();
    let trailer = PackTrailer {
        contents_offset: bytes.len() as u32,
        contents_plain_length: plain.len() as u32,
        epoch: 3,
        suite: Suite::ChaCha20Poly1305,
        class,
        origin_count: origins.len() as u16,
        frame_count: shapes.len() as u32,
        blob_count: contents.blob_count() as u32,
        salt: id32(40),
        commitment: id32(41),
        signer,
    };
    bytes.extend_from_slice(&plain);
    bytes.extend_from_slice(&[0; TAG_BYTES]);
    origins.iter().for_each(|origin| origin.encode(&mut bytes));
    trailer.encode(&mut bytes);
    bytes.extend_from_slice(&[7; SIGNATURE_BYTES]);
    (bytes, contents)
}

fn sample() -> (Vec<u8>, TableOfContents) {
    pack(
        BlobClass::Content,
        2,
        &[
            (Encoding::Stored, 0, vec![30]),
            (Encoding::Zstd, 0, vec![100, 200, 1]),
            (Encoding::Difference, 3, vec![500]),
            (Encoding::Dictionary, 1, vec![40, 50]),
        ],
    )
}

/// Decodes everything and returns the plain table that stands in place of the sealed one.
fn read(bytes: &[u8]) -> Result<TableOfContents, FormatError> {
    let view = PackView::parse(bytes)?;
    let plain = &view.contents_sealed[..view.contents_sealed.len() - TAG_BYTES];
    let contents = TableOfContents::decode(plain, &view.trailer)?;
    Ok(contents)
}

#[test]
fn a_pack_comes_back() {
    let (bytes, contents) = sample();
    assert_eq!(read(&bytes).unwrap(), contents);
    let view = PackView::parse(&bytes).unwrap();
    assert_eq!(view.signature, [7; SIGNATURE_BYTES]);
    assert_eq!(view.signed.len(), bytes.len() - SIGNATURE_BYTES);
    assert_eq!(view.origins, [origin(0, BlobClass::Content), origin(1, BlobClass::Content)]);
    assert_eq!(view.frame(&contents.frames[2]).unwrap().len(), contents.frames[2].sealed_length as usize);
    assert_eq!(view.trailer.tail_length() as usize, bytes.len() - contents.frames[3].end() as usize);
}

#[test]
fn the_tail_alone_describes_a_pack() {
    let (bytes, _) = sample();
    let length = bytes.len() as u64;
    let needed = PackTail::length(&bytes[bytes.len() - TRAILER_BYTES..], length).unwrap() as usize;
    let tail = PackTail::parse(&bytes[bytes.len() - needed..], length).unwrap();
    assert_eq!(tail.origins.len(), 2);
    let short = PackTail::parse(&bytes[bytes.len() - needed + 1..], length);
    assert_eq!(short.unwrap_err(), FormatError::Truncated);
    assert!(PackTail::parse(&bytes, length + 1).is_err());
}

#[test]
fn packs_of_metadata_have_no_encapsulation() {
    let (mut bytes, _) = pack(BlobClass::Metadata, 1, &[(Encoding::Zstd, 0, vec![10])]);
    assert!(read(&bytes).is_ok());
    bytes[HEAD_BYTES + 8] = 1;
    assert!(matches!(read(&bytes), Err(FormatError::Invalid { what: "origin encapsulation", .. })));
}

#[test]
fn a_reader_refuses() {
    let (good, _) = sample();
    let end = good.len();
    let cases: [(&str, usize, u8, FormatError); 11] = [
        ("magic", 0, b'X', FormatError::BadMagic),
        ("kind", 4, 5, bytes_error("pack kind", "this object is no pack")),
        ("version", 5, 2, FormatError::Unsupported { what: "pack version" }),
        ("origins", 6, 0, bytes_error("pack origins", "there is none")),
        ("reserved", 9, 1, bytes_error("pack head", "reserved bytes are not zero")),
        ("signer", 16, 0xFF, bytes_error("pack trailer", "does not agree with the head")),
        ("suite", 64, 9, FormatError::Unsupported { what: "cipher suite" }),
        ("epoch", 68, 0, bytes_error("origin epoch", "epochs count from 1")),
        ("first copy", 72, 0xEE, bytes_error("pack origins", "the two copies differ")),
        ("trailer magic", end - 164, 0, FormatError::BadMagic),
        ("trailer version", end - 161, 2, FormatError::Unsupported { what: "pack version" }),
    ];
    for (name, at, value, error) in cases {
        let mut bytes = good.clone();
        bytes[at] = value;
        assert_eq!(read(&bytes).unwrap_err(), error, "{name}");
    }
}

fn bytes_error(what: &'static str, why: &'static str) -> FormatError {
    FormatError::Invalid { what, why }
}

#[test]
fn a_table_of_contents_keeps_its_rules() {
    let (bytes, good) = sample();
    let trailer = PackView::parse(&bytes).unwrap().trailer;
    let changes: [Change<TableOfContents>; 11] = [
        ("a gap", |table| table.frames[1].offset += 1),
        ("an overlap", |table| table.frames[1].offset -= 1),
        ("other order", |table| table.frames.swap(0, 1)),
        ("one frame less", |table| drop(table.frames.pop())),
        ("one blob less", |table| {
            let (_, length) = table.frames[1].blobs.pop().unwrap();
            table.frames[1].blobs[0].1 += length;
        }),
        ("longer frame", |table| table.frames[3].sealed_length += 1),
        ("stored, but shorter", |table| table.frames[0].encoding = Encoding::Stored),
        ("depth beyond the limit", |table| table.frames[2].depth = 33),
        ("an origin that is not there", |table| table.frames[0].origin = 2),
        ("a counter that repeats", |table| table.frames[2].counter = 0),
        ("depth without a base", |table| table.frames[1].depth = 1),
    ];
    for (name, change) in changes {
        let mut table = good.clone();
        change(&mut table);
        let mut plain = Vec::new();
        let refused = match table.encode(&mut plain) {
            Ok(()) => TableOfContents::decode(&plain, &trailer).is_err(),
            Err(_) => true,
        };
        assert!(refused || table == good, "{name}");
    }
    let mut table = good.clone();
    table.frames[2].depth = 0;
    assert!(table.encode(&mut Vec::new()).is_err(), "a difference stands alone");
    table.frames[2].depth = 1;
    table.frames[2].base = None;
    assert!(table.encode(&mut Vec::new()).is_err(), "a difference without a base");
}

#[test]
fn what_a_seal_is_bound_to() {
    let repository = crate::base::RepositoryId::new(id32(1));
    let base = BlobId::new(id32(2));
    let bound = FrameAssociatedData::new(
        &repository,
        BlobClass::Content,
        Encoding::Difference,
        0x0102,
        7,
        Some(&base),
    );
    let expected = [&id32(1)[..], &[3, 2], &[2, 1, 0, 0, 0, 0, 0, 0], &[7, 0, 0, 0], &id32(2)[..]].concat();
    assert_eq!(bound.as_ref(), expected);
    assert_eq!(contents_associated_data(&repository, BlobClass::Metadata, 9).len(), 37);
}

#[test]
fn damage_is_survived() {
    survives_damage(&sample().0, |bytes| drop(read(bytes)));
}

fn shapes() -> impl Strategy<Value = Vec<Shape>> {
    let lengths = || proptest::collection::vec(1..2000_u32, 1..5);
    let shape = prop_oneof![
        lengths().prop_map(|lengths| (Encoding::Stored, 0, lengths)),
        lengths().prop_map(|lengths| (Encoding::Zstd, 0, lengths)),
        (1..=32_u8, lengths()).prop_map(|(depth, lengths)| (Encoding::Difference, depth, lengths)),
        (1..=32_u8, lengths()).prop_map(|(depth, lengths)| (Encoding::Dictionary, depth, lengths)),
    ];
    proptest::collection::vec(shape, 1..20)
}

proptest! {
    #[test]
    fn any_pack_comes_back(shapes in shapes(), origins in 1..5_u16, content: bool) {
        let class = if content { BlobClass::Content } else { BlobClass::Metadata };
        let (bytes, contents) = pack(class, origins, &shapes);
        prop_assert_eq!(read(&bytes).unwrap(), contents);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        drop(PackView::parse(&bytes));
        drop(PackTail::parse(&bytes, bytes.len() as u64));
    }

    #[test]
    fn changed_packs_do_not_panic(at in 0..1500_usize, value: u8, length in 0..1500_usize) {
        let (mut bytes, _) = sample();
        if let Some(byte) = bytes.get_mut(at) {
            *byte = value;
        }
        drop(read(&bytes));
        bytes.truncate(length);
        drop(read(&bytes));
    }
}
