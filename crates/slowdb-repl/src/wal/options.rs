//! How a log is laid out, and its limits.

use super::format::{ALIGN, HEADER_AREA, PAGE, RECORD_HEADER};

/// Smallest size of a segment, in bytes.
pub const SEGMENT_BYTES_MIN: u64 = 16 * 1024;
/// Largest size of a segment, in bytes. A segment is read in one piece when the log is opened.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// How a log is laid out. May differ from one opening to the next.
#[derive(Clone, Debug)]
pub struct WalOptions {
    /// The size of a segment file, in bytes: a multiple of 4096 from [`SEGMENT_BYTES_MIN`] to
    /// [`SEGMENT_BYTES_MAX`]. No record may be larger than what fits into one, see
    /// [`WalOptions::data_bytes_max`].
    pub segment_bytes: u64,
    /// How many released segments are kept to be written again, at least 1. The last one is kept back for
    /// [`Wal::release`](super::Wal::release), so that space can be freed on a full disk.
    pub spare_segments: usize,
    /// A number of this log's own, used when the log is created and read from the disk afterwards. All
    /// checksums depend on it, so that neither another log's segment nor a payload that imitates records
    /// is taken for a part of this one. Draw it at random.
    pub log_id: u64,
    /// A planted bug: what an earlier use of a segment left behind can pass for a part of the log.
    #[cfg(feature = "canary")]
    pub chain_not_checked: bool,
}

impl Default for WalOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            spare_segments: 4,
            log_id: 0,
            #[cfg(feature = "canary")]
            chain_not_checked: false,
        }
    }
}

impl WalOptions {
    /// The largest payload of one record, in bytes.
    pub fn data_bytes_max(&self) -> u64 {
        data_bytes_max(self.segment_bytes)
    }

    /// Says what is wrong with the options, if anything is.
    pub(super) fn check(&self) -> Result<(), String> {
        let bytes = self.segment_bytes;
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&bytes) || !bytes.is_multiple_of(u64::from(PAGE))
        {
            return Err(format!(
                "segment_bytes is {bytes}; it must be a multiple of {PAGE} from {SEGMENT_BYTES_MIN} to \
                 {SEGMENT_BYTES_MAX}"
            ));
        }
        if self.spare_segments == 0 {
            return Err("spare_segments is 0; it must be at least 1".to_owned());
        }
        Ok(())
    }

    /// Whether records are told apart from what earlier uses of their segment left behind.
    pub(super) fn checks_chain(&self) -> bool {
        #[cfg(feature = "canary")]
        return !self.chain_not_checked;
        #[cfg(not(feature = "canary"))]
        true
    }
}

/// The largest payload of one record in a segment of this size, in bytes.
pub(super) fn data_bytes_max(segment_bytes: u64) -> u64 {
    (segment_bytes - u64::from(HEADER_AREA) - RECORD_HEADER as u64) / u64::from(ALIGN) * u64::from(ALIGN)
}
