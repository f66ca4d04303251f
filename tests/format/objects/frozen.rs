//! What zstd made once of the plain bytes in the vectors: another release may choose other bytes, and the
//! vectors must not change with it.

use chronolith::codec::{Compressor, Decompressor, Encoding};

/// Returns the encoded form of plain bytes, which is checked to decode to them.
pub fn encode(encoding: Encoding, base: Option<&[u8]>, plain: &[u8]) -> Vec<u8> {
    if encoding == Encoding::Stored {
        return plain.to_vec();
    }
    let name = blake3::Hasher::new()
        .update(&[u8::from(encoding)])
        .update(base.unwrap_or_default())
        .update(plain)
        .finalize()
        .to_hex();
    let found = FROZEN.iter().find(|(start, _)| name.starts_with(start));
    let Some((_, digits)) = found else {
        panic!("to be frozen:\n{}", freeze(&name[..8], encoding, base, plain))
    };
    let digits: String = digits.split_ascii_whitespace().collect();
    let encoded: Vec<u8> =
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect();
    let mut again = Vec::new();
    Decompressor::new().unwrap().decode(encoding, base, &encoded, plain.len(), &mut again).unwrap();
    assert_eq!(again, plain);
    encoded
}

/// Makes a line for the table.
fn freeze(name: &str, encoding: Encoding, base: Option<&[u8]>, plain: &[u8]) -> String {
    let mut compressor = Compressor::new(3).unwrap();
    let mut out = Vec::new();
    match (encoding, base) {
        (Encoding::Difference, Some(base)) => compressor.difference(base, plain, &mut out).unwrap(),
        (Encoding::Dictionary, Some(base)) => compressor.with_dictionary(base, plain, &mut out).unwrap(),
        _ => assert_eq!(compressor.compress(plain, &mut out).unwrap(), Encoding::Zstd, "does not shrink"),
    }
    let digits: String = out.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("    (\"{name}\", \"{digits}\"),")
}

/// The first digits of a hash of encoding, base and plain bytes; what zstd 1.5.7 made at level 3.
const FROZEN: &[(&str, &str)] = &[
    (
        "0d012e71",
        "28b52ffd601300cd030012c61114b0271ddd680c4448e2609272a72da5548e82031d1c7f5abef34ee9abd1494cae6351 \
         1531fe480bcfbe4da36285b06eb62295ab23b6de9733108542300660280604c421111813160060e09d46c3183cb33518 \
         036c02c6009b8031c0266060600818036c02c6009b8031c026600c9d9be41ce36d9309",
    ),
    (
        "eacfc20d",
        "28b52ffd60e701950700420d1f15a027c506e6a57db151d575b9697365e75a3d862f042ca99e723fc3ceda5977a7eba4 \
         0991f36ace79a945b2ba30c76432120fd38c2a15e66d134b4d987244614689c3ecb4c2acbb0ad315ffd5a4119bcddc6b \
         5e51544d1b9f6bd6836ace6f999a42362335232e286afe0342414160680d6050182040384808185a073e2060e388d201 \
         0d12111346134cdc315808f259b0c555c00971cf294102909382e4d8326dad045b80a7118c799eb1d1327646f9335b69 \
         ef187739c62ec674ef6499dccc939b79726b5e6ecc2bb9e59b79348623373c9c57c6b7808dc1bbecc0b58b8f81cd9bcc \
         631763ec620cbbc818f0369c",
    ),
    ("7dbf2722", "28b52ffd601600a50000386368616e67656403009fb1937d2c1605692820"),
    ("cc972252", "28b52ffd602d00bd0000383132323838310a04001b3bb0e46e8890b154c8580101"),
    (
        "a9ca49c1",
        "28b52ffd608d00a50400724816169025690e1655148dad76772044a88908a5607f0040cda5c3f19d1a77e1f76ee63b2a \
         bf76ca77fc4eb962638313d1c935ac6bc82db32c9b71567213cf06c94543ba917b93e37229874280280c223918200002 \
         0a8202c220722120b0e36203191b9d912dc8e166bc46f5998d816a8830cacf6cc3c36d389c157bc7b8cb18bb8ce1bdb3 \
         65c36d78b80d87db908783379b07",
    ),
    (
        "c0370568",
        "28b52ffd207c25020094023132323833340a313231393936350a31323231313839360a313233333733300a3132343935 \
         3636310a0a003cc700bbec1c18ec02c6805d9c3006187db18c2d86c102",
    ),
    (
        "07ffa7c3",
        "28b52ffd606000650800140e0234914a19a8ec6db48ee39fe07a20a3a231d3f61843c1cd5b30a0029d70152d00000000 \
         080400005d0000007c0001000000010003012b3508be84af8cd8e660ef8870ec371519003829558be0fdb0a4c521b1da \
         6678a80000001e0000000effffffff000010003253b01a9637320198dda3e4d73f7211d61f1f2811ddfcf083eae45684 \
         4a46855c010000930000001301004596829dc6d25d5f89da7c53c77fa1a8abe15007e2e2a9125e54f6bc2057c727fb02 \
         00002e00000016020000000201dede0689d65e2b91b3b44205bb96d4f12d6f83f111d8eaf103537dce48a4a153110013 \
         c3ea35c02bcc023f82f54b70e0e260e5000b7bf0d4166ed94a04aef860a92db06ce50563a00c",
    ),
    (
        "61cea726",
        "28b52ffd60d000d50a0064125568ca7df796365a6e629376df87c5d193ba833531bbb3121bb8824eac032ba500000000 \
         29030000310000002d01000300010002027476d5fd54aa26dc13ff5c044a502610cc26a75d8302284cb189f093dafac5 \
         8eef0100000c010000e70219000000ff01000100a02f1186ddc218c4f65f4196a5052fe06d8dd9672743ed3663f24a17 \
         7442746808020000dfd4706c14d9ac8a3ef1b43475defb2d7348f97cbc6e8f5963a26dfcb1ff5756edef01d7cf2fce2d \
         730b910ab6b3e4b5bac65684454ced9da215716421fbad34e01871100100004c0000003c00dede0689d65e2b91b3b442 \
         05bb96d4f12d6f83f111d8eaf103537dce48a4a1535a030000ae0000008d010401004596829dc6d25d5f89da7c53c77f \
         a1a8abe15007e2e2a9125e54f6bc2057c72715004b38b2322066201c15bf0a9842002ec00a01601020784b7004560040 \
         1e249a4b400f67f4cb2042151e6e71c5c25b5006",
    ),
    (
        "faa59ab7",
        "28b52ffd600801a50b00941402000000030000000200883bcaaca7e08cb262412b93c195ba51a493f043fd91e9beb31c \
         10dc3478747671080000ab036051bb4296228bab9c1779af45f05b5f60a73d1720494a002be744adb1cf420200000400 \
         0101edb0a6fa3c73669bd2151b52d9adeaf5e541a0b5b12d8b39546ec556bc51cf4fb01447a02c170fbffd09d0472de5 \
         0a72043928489a40e5a0bab32bdaf4927f11b82de3dfd5619c685a94342b64c7eda230d9705ffbd23414007f2b3a124d \
         411166b1f39acc708b69228c834ad50bd0ea4221d571a5859ff6143a16929fa10323336b3dc137955504bc16fa895f4b \
         7033091611e2ac04759626e58db1de9ab74698440234914a19a8ec6db48ee39fe07a20a3a231d3f61843c1cd5b30a002 \
         9d70152da0270102005568ca7df796365a6e629376df87c5d193ba833531bbb3121bb8824eac032ba5c7000000750100 \
         00060001000f00e359bcb90d18104c760037c00153f3bee0fd6f0440c9042fb8f67bbe1943a9a8c86aaaf0068004",
    ),
    ("1a28280d", "28b52ffd601600a50000386368616e6765640300bb8ca56c2c1602192b20"),
];
