//! Frames: how bytes are cut into messages on a stream, and how damage is noticed before it is believed.
//!
//! The codec on slices ([`encode`], [`decode`]) and the one on QUIC streams ([`write_frame`], [`read_frame`]) share
//! one header and one set of checks. What a frame carries is the caller's business: `kind` and `meta` are opaque.

mod codec;
mod error;
mod header;
mod stream;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;

pub use codec::{decode, encode};
pub use error::FrameError;
pub use header::HEADER_LEN;
pub use stream::{Arriving, begin_frame, read_frame, write_frame};

/// `meta` of a [`Frame`] starts at an address that is a multiple of this.
pub const META_ALIGN: usize = 64;
/// `body` of a [`Frame`] starts at an address that is a multiple of this.
pub const BODY_ALIGN: usize = 64;

/// A frame to send.
///
/// On the wire, all integers little endian:
///
/// | offset | length | field |
/// |---|---|---|
/// | 0 | 4 | magic, the bytes `SLDB` |
/// | 4 | 1 | version, 1 |
/// | 5 | 1 | flags, 0 |
/// | 6 | 2 | kind |
/// | 8 | 4 | length of meta |
/// | 12 | 4 | length of body |
/// | 16 | 8 | reserved, 0 |
/// | 24 | 8 | xxh3-64 of bytes 0 to 23, meta and body |
/// | 32 | | meta, then body, without padding |
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrameOut {
    /// What the frame is, in the words of the layer above.
    pub kind: u16,
    /// The small part.
    pub meta: Bytes,
    /// The large part, in pieces that are sent one after the other and never copied together.
    pub body: Vec<Bytes>,
}

/// A frame that arrived whole: lengths, checksum and all.
///
/// `meta` is aligned to [`META_ALIGN`] and `body` to [`BODY_ALIGN`], each contiguous, so that archived values can
/// be read in place. A slice of either need not be aligned. `body` keeps its whole receive buffer alive, which it
/// shares with `meta`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// What the frame is, in the words of the layer above.
    pub kind: u16,
    /// The small part.
    pub meta: Bytes,
    /// The large part.
    pub body: Bytes,
}

/// What a reader accepts, and how long it waits.
///
/// Lengths are checked before memory is asked for, so the two maxima bound what one stream can make a reader hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameLimits {
    /// Longest `meta` accepted, in bytes.
    pub meta_len_max: u32,
    /// Longest `body` accepted, in bytes.
    pub body_len_max: u32,
    /// How long to wait for the first byte of a frame. `None` waits as long as the connection lives, which its
    /// idle time-out bounds: right for a long-lived stream that has nothing to say at times.
    pub first_byte_within: Option<Duration>,
    /// How long the rest of a frame may take once it has begun.
    pub rest_within: Duration,
}

impl Default for FrameLimits {
    /// 1 MiB of meta, 64 MiB of body, 30 seconds for each wait.
    fn default() -> Self {
        Self {
            meta_len_max: 1 << 20,
            body_len_max: 64 << 20,
            first_byte_within: Some(Duration::from_secs(30)),
            rest_within: Duration::from_secs(30),
        }
    }
}
