//! What can be wrong with a frame.

use std::time::Duration;

use crate::connection::LostError;

/// Why a frame could not be written, or was not accepted.
///
/// After any of these the stream is out of step and must be given up; the connection need not be, except after
/// [`FrameError::Lost`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The bytes are not a frame.
    #[error("not a frame: it starts with {found:02x?} instead of `SLDB`")]
    Magic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// The frame is of a version that this build does not speak.
    #[error("frame version {found} is not supported, only 1: both sides must run compatible releases")]
    Version {
        /// The version found.
        found: u8,
    },
    /// Bits are set that version 1 defines as zero.
    #[error("reserved bits of the frame header are set: flags {flags:#04x}, reserved {reserved:#x}")]
    Reserved {
        /// The flags byte.
        flags: u8,
        /// The reserved word.
        reserved: u64,
    },
    /// A part is longer than the reader accepts, or than the format can say.
    #[error("the {part} of the frame is {len} bytes long, the limit is {max}")]
    TooLong {
        /// `meta` or `body`.
        part: &'static str,
        /// Its length.
        len: u64,
        /// The limit.
        max: u64,
    },
    /// The checksum does not match: the frame was damaged on its way.
    #[error("frame checksum mismatch: header says {expected:#018x}, content gives {computed:#018x}")]
    Checksum {
        /// From the header.
        expected: u64,
        /// From the bytes.
        computed: u64,
    },
    /// The bytes ended inside the frame.
    #[error("frame cut short: {have} of {want} bytes")]
    Truncated {
        /// Bytes there.
        have: u64,
        /// Bytes needed.
        want: u64,
    },
    /// It took too long.
    #[error("no progress within {within:?} while {doing}")]
    Deadline {
        /// What was being waited for.
        doing: &'static str,
        /// The time allowed.
        within: Duration,
    },
    /// There is no memory for the frame.
    #[error("no memory for a frame of {len} bytes")]
    Memory {
        /// Bytes asked for.
        len: usize,
    },
    /// The other side gave up this stream.
    #[error("the other side gave up the stream with code {code}")]
    GivenUp {
        /// Its code.
        code: u64,
    },
    /// The stream was finished or reset on this side before.
    #[error("the stream is already closed on this side")]
    Closed,
    /// The connection is gone.
    #[error(transparent)]
    Lost(#[from] LostError),
}
