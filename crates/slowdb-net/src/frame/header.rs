//! The fixed header: its layout, its checks, and the checksum over the whole frame.

use xxhash_rust::xxh3::Xxh3;

use super::{FrameError, FrameLimits};

/// Length of a frame's header in bytes.
pub const HEADER_LEN: usize = 32;

const MAGIC: [u8; 4] = *b"SLDB";
const VERSION: u8 = 1;
/// Where the checksum begins; it covers all before it, then meta and body.
const CHECKSUM_AT: usize = 24;
const _: () = assert!(CHECKSUM_AT + 8 == HEADER_LEN);

/// A header whose fields have been checked; the checksum is checked when the content is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: u16,
    pub(super) meta_len: usize,
    pub(super) body_len: usize,
    bytes: [u8; HEADER_LEN],
}

impl Header {
    /// Builds the header of a frame with this content.
    pub(super) fn of<'a>(
        kind: u16,
        meta: &'a [u8],
        body: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Result<Self, FrameError> {
        let meta_len = part_len("meta", meta.len() as u64)?;
        let body_len = part_len("body", body.clone().map(|piece| piece.len() as u64).sum())?;
        let mut bytes = [0; HEADER_LEN];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[6..8].copy_from_slice(&kind.to_le_bytes());
        bytes[8..12].copy_from_slice(&meta_len.to_le_bytes());
        bytes[12..16].copy_from_slice(&body_len.to_le_bytes());
        let mut header = Self { kind, meta_len: meta_len as usize, body_len: body_len as usize, bytes };
        let checksum = header.checksum(meta, body);
        header.bytes[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        Ok(header)
    }

    /// Reads a header and checks all that can be checked without the content.
    pub(super) fn parse(bytes: [u8; HEADER_LEN], limits: &FrameLimits) -> Result<Self, FrameError> {
        let [m0, m1, m2, m3, version, flags, k0, k1, ..] = bytes;
        if [m0, m1, m2, m3] != MAGIC {
            return Err(FrameError::Magic { found: [m0, m1, m2, m3] });
        }
        if version != VERSION {
            return Err(FrameError::Version { found: version });
        }
        let reserved = u64_at(&bytes, 16);
        if flags != 0 || reserved != 0 {
            return Err(FrameError::Reserved { flags, reserved });
        }
        let lens = u64_at(&bytes, 8);
        let (meta_len, body_len) = (lens as u32, (lens >> 32) as u32);
        for (part, len, max) in
            [("meta", meta_len, limits.meta_len_max), ("body", body_len, limits.body_len_max)]
        {
            if len > max {
                return Err(FrameError::TooLong { part, len: len.into(), max: max.into() });
            }
        }
        Ok(Self {
            kind: u16::from_le_bytes([k0, k1]),
            meta_len: meta_len as usize,
            body_len: body_len as usize,
            bytes,
        })
    }

    pub(super) fn bytes(&self) -> &[u8; HEADER_LEN] {
        &self.bytes
    }

    /// Length of the frame with its header.
    pub(super) fn frame_len(&self) -> u64 {
        HEADER_LEN as u64 + self.meta_len as u64 + self.body_len as u64
    }

    /// Checks that this content is what the header was made for.
    pub(super) fn verify(&self, meta: &[u8], body: &[u8]) -> Result<(), FrameError> {
        let expected = u64_at(&self.bytes, CHECKSUM_AT);
        let computed = self.checksum(meta, std::iter::once(body));
        if expected == computed { Ok(()) } else { Err(FrameError::Checksum { expected, computed }) }
    }

    fn checksum<'a>(&self, meta: &[u8], body: impl Iterator<Item = &'a [u8]>) -> u64 {
        let mut hash = Xxh3::new();
        hash.update(&self.bytes[..CHECKSUM_AT]);
        hash.update(meta);
        for piece in body {
            hash.update(piece);
        }
        hash.digest()
    }
}

fn part_len(part: &'static str, len: u64) -> Result<u32, FrameError> {
    u32::try_from(len).map_err(|_| FrameError::TooLong { part, len, max: u32::MAX.into() })
}

fn u64_at(bytes: &[u8; HEADER_LEN], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
