//! `global/pg_control`: what a cluster is and in which state it was, guarded by a CRC-32C.
//!
//! The layout is that of `src/include/catalog/pg_control.h`. Versions 13 to 17 of the server share one,
//! 18 has a byte more in front of its end. A version that is not known is read all the same where its
//! checksum stands at one of these places and the fields make sense.

use super::segment::{Lsn, SegmentSize};
use crate::base::Timestamp;

/// Length of the file; only its first part means something.
pub const CONTROL_FILE_BYTES: usize = 8192;
/// Where the checksum stands: 13 to 17, then 18.
const CRC_PLACES: [usize; 2] = [288, 292];
/// A number that reads wrongly where numbers are written in another way.
const FLOAT_FORMAT: f64 = 1_234_567.0;

/// What state the server was in when it wrote the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterState {
    /// Being made by `initdb`.
    Starting,
    /// Shut down in good order.
    ShutDown,
    /// A standby, shut down in good order.
    ShutDownInRecovery,
    /// Shutting down.
    ShuttingDown,
    /// Recovering from a crash.
    CrashRecovery,
    /// Recovering from an archive, or a standby.
    ArchiveRecovery,
    /// Running.
    Production,
    /// One that this program does not know.
    Other(u32),
}

/// Settings that a server in recovery must not have smaller than the one it came from (B15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecoverySettings {
    /// `max_connections`.
    pub max_connections: u32,
    /// `max_worker_processes`.
    pub max_worker_processes: u32,
    /// `max_wal_senders`.
    pub max_wal_senders: u32,
    /// `max_prepared_transactions`.
    pub max_prepared_transactions: u32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_transaction: u32,
}

impl RecoverySettings {
    /// Returns the settings by their names.
    pub fn by_name(&self) -> [(&'static str, u32); 5] {
        [
            ("max_connections", self.max_connections),
            ("max_worker_processes", self.max_worker_processes),
            ("max_wal_senders", self.max_wal_senders),
            ("max_prepared_transactions", self.max_prepared_transactions),
            ("max_locks_per_transaction", self.max_locks_per_transaction),
        ]
    }
}

/// What `pg_control` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ControlFile {
    /// Tells the cluster apart from all others.
    pub system_identifier: u64,
    /// Version of the file's layout.
    pub control_version: u32,
    /// Version of the catalogues.
    pub catalog_version: u32,
    /// The state.
    pub state: ClusterState,
    /// When the file was written, in whole seconds.
    pub written: Timestamp,
    /// The newest checkpoint.
    pub checkpoint: Lsn,
    /// Where replay from it begins.
    pub redo: Lsn,
    /// The timeline of the checkpoint.
    pub timeline: u32,
    /// The number of the transaction that was to be the next at the checkpoint, with how often the numbers had begun
    /// anew in its upper half.
    pub next_transaction: u64,
    /// Whether recovery must first reach a place.
    pub minimum_recovery: Option<(Lsn, u32)>,
    /// 0 minimal, 1 replica, 2 logical.
    pub wal_level: u32,
    /// What recovery needs.
    pub settings: RecoverySettings,
    /// Length of a page.
    pub block_bytes: u32,
    /// Pages in a segment of a relation.
    pub segment_blocks: u32,
    /// Length of a segment of the log.
    pub segment_size: SegmentSize,
    /// Whether pages carry checksums.
    pub data_checksums: bool,
}

/// Why the file is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// It is too short to be one.
    #[error("it has {0} bytes only")]
    Short(usize),
    /// Its checksum does not hold: damaged, or read while it was written.
    #[error("its checksum does not hold: it is damaged, or was read while the server wrote it")]
    Checksum,
    /// The checksum holds, but what it says makes no sense.
    #[error("its {0} makes no sense")]
    Field(&'static str),
}

/// CRC-32C, the polynomial of iSCSI, as PostgreSQL uses it.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut at = 0;
        while at < 256 {
            let mut value = at as u32;
            let mut bit = 0;
            while bit < 8 {
                value = if value & 1 == 1 { (value >> 1) ^ 0x82F6_3B78 } else { value >> 1 };
                bit += 1;
            }
            table[at] = value;
            at += 1;
        }
        table
    };
    let step = |crc: u32, byte: &u8| {
        let index = (crc ^ u32::from(*byte)) & 0xFF;
        TABLE.get(index as usize).copied().unwrap_or_default() ^ (crc >> 8)
    };
    !bytes.iter().fold(!0, step)
}

/// The bytes, read by offset.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], ControlError> {
        let bytes = self.0.get(at..).and_then(|rest| rest.first_chunk());
        bytes.copied().ok_or(ControlError::Short(self.0.len()))
    }

    fn u32(&self, at: usize) -> Result<u32, ControlError> {
        Ok(u32::from_le_bytes(self.array(at)?))
    }

    fn u64(&self, at: usize) -> Result<u64, ControlError> {
        Ok(u64::from_le_bytes(self.array(at)?))
    }
}

impl ControlFile {
    /// Reads the file from its bytes, as a server on a little-endian machine wrote them.
    ///
    /// # Errors
    ///
    /// When they are too few, the checksum does not hold, or the fields make no sense.
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlError> {
        let fields = Fields(bytes);
        let last = CRC_PLACES.iter().max().copied().unwrap_or_default();
        if bytes.len() < last + 4 {
            return Err(ControlError::Short(bytes.len()));
        }
        let holds = |place: &usize| {
            let sum = bytes.get(..*place).map(crc32c);
            sum.is_some() && sum == fields.u32(*place).ok()
        };
        if !CRC_PLACES.iter().any(holds) {
            return Err(ControlError::Checksum);
        }
        if f64::from_le_bytes(fields.array(208)?) != FLOAT_FORMAT {
            return Err(ControlError::Field("format of numbers"));
        }
        let state = match fields.u32(16)? {
            0 => ClusterState::Starting,
            1 => ClusterState::ShutDown,
            2 => ClusterState::ShutDownInRecovery,
            3 => ClusterState::ShuttingDown,
            4 => ClusterState::CrashRecovery,
            5 => ClusterState::ArchiveRecovery,
            6 => ClusterState::Production,
            other => ClusterState::Other(other),
        };
        let minimum = (Lsn(fields.u64(136)?), fields.u32(144)?);
        let written = i64::from_le_bytes(fields.array(24)?);
        let block_bytes = fields.u32(216)?;
        let segment_blocks = fields.u32(220)?;
        if !block_bytes.is_power_of_two() || !(1024..=32768).contains(&block_bytes) {
            return Err(ControlError::Field("length of pages"));
        }
        if segment_blocks == 0 {
            return Err(ControlError::Field("length of segments of relations"));
        }
        let segment_size = SegmentSize::new(u64::from(fields.u32(228)?))
            .map_err(|_| ControlError::Field("length of segments of the log"))?;
        Ok(Self {
            system_identifier: fields.u64(0)?,
            control_version: fields.u32(8)?,
            catalog_version: fields.u32(12)?,
            state,
            written: Timestamp::from_parts(written, 0).unwrap_or_default(),
            checkpoint: Lsn(fields.u64(32)?),
            redo: Lsn(fields.u64(40)?),
            timeline: fields.u32(48)?,
            next_transaction: fields.u64(64)?,
            minimum_recovery: (minimum.0 != Lsn(0)).then_some(minimum),
            wal_level: fields.u32(172)?,
            settings: RecoverySettings {
                max_connections: fields.u32(180)?,
                max_worker_processes: fields.u32(184)?,
                max_wal_senders: fields.u32(188)?,
                max_prepared_transactions: fields.u32(192)?,
                max_locks_per_transaction: fields.u32(196)?,
            },
            block_bytes,
            segment_blocks,
            segment_size,
            data_checksums: fields.u32(252)? != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file as a server of 15 (or 18) would write it.
    fn sample(crc_at: usize) -> Vec<u8> {
        let mut bytes = vec![0; CONTROL_FILE_BYTES];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        put(0, &7_000_000_000_000_000_001_u64.to_le_bytes());
        put(8, &1300_u32.to_le_bytes());
        put(12, &202_209_061_u32.to_le_bytes());
        put(16, &6_u32.to_le_bytes());
        put(24, &1_800_000_000_i64.to_le_bytes());
        put(32, &0x200_0060_u64.to_le_bytes());
        put(40, &0x200_0028_u64.to_le_bytes());
        put(48, &3_u32.to_le_bytes());
        put(64, &0x1_0000_02D0_u64.to_le_bytes());
        put(172, &1_u32.to_le_bytes());
        for (at, value) in [(180, 100_u32), (184, 8), (188, 10), (192, 2), (196, 64)] {
            put(at, &value.to_le_bytes());
        }
        put(208, &FLOAT_FORMAT.to_le_bytes());
        put(216, &8192_u32.to_le_bytes());
        put(220, &131_072_u32.to_le_bytes());
        put(228, &(16_u32 << 20).to_le_bytes());
        put(252, &1_u32.to_le_bytes());
        let crc = crc32c(&bytes[..crc_at]);
        bytes[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    #[test]
    fn the_checksum_is_that_of_iscsi() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
    }

    /// B15: what recovery needs is read from the file itself.
    #[test]
    fn both_layouts_are_read() {
        for place in CRC_PLACES {
            let control = ControlFile::parse(&sample(place)).unwrap();
            assert_eq!(control.system_identifier, 7_000_000_000_000_000_001);
            assert_eq!((control.timeline, control.checkpoint), (3, Lsn(0x200_0060)));
            assert_eq!(control.state, ClusterState::Production);
            assert_eq!((control.minimum_recovery, control.next_transaction), (None, 0x1_0000_02D0));
            assert_eq!(control.segment_size, SegmentSize::DEFAULT);
            assert!(control.data_checksums);
            let settings: Vec<u32> = control.settings.by_name().map(|(_, value)| value).to_vec();
            assert_eq!(settings, [100, 8, 10, 2, 64]);
        }
    }

    /// B4: a file that was read while it was written is noticed, wherever it is torn.
    #[test]
    fn every_flipped_bit_is_noticed() {
        let whole = sample(CRC_PLACES[0]);
        for at in 0..CRC_PLACES[0] + 4 {
            let mut torn = whole.clone();
            torn[at] ^= 1 << (at % 8);
            assert_eq!(ControlFile::parse(&torn), Err(ControlError::Checksum), "byte {at}");
        }
        assert_eq!(ControlFile::parse(&whole[..200]), Err(ControlError::Short(200)));
        assert_eq!(ControlFile::parse(&[]), Err(ControlError::Short(0)));
    }

    #[test]
    fn nonsense_with_a_checksum_is_refused() {
        for (at, value) in [(208, [0_u8; 4]), (216, [1, 0, 0, 0]), (220, [0; 4]), (228, [3, 0, 0, 0])] {
            let mut bytes = sample(CRC_PLACES[0]);
            bytes[at..at + 4].copy_from_slice(&value);
            // The number of 208 has its low half there.
            if at == 208 {
                bytes[212..216].copy_from_slice(&value);
            }
            let crc = crc32c(&bytes[..CRC_PLACES[0]]);
            bytes[CRC_PLACES[0]..CRC_PLACES[0] + 4].copy_from_slice(&crc.to_le_bytes());
            assert!(matches!(ControlFile::parse(&bytes), Err(ControlError::Field(_))), "{at}");
        }
    }
}
