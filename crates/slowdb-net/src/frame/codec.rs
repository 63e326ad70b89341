//! Frames on byte slices: for tests, fuzzers, files, and networks that are not QUIC.

use bytes::Bytes;

use super::header::{HEADER_LEN, Header};
use super::{BODY_ALIGN, Frame, FrameError, FrameLimits, FrameOut, META_ALIGN};

/// Writes `frame` into one buffer.
///
/// # Errors
/// [`FrameError::TooLong`] when a part is longer than `u32::MAX`.
pub fn encode(frame: &FrameOut) -> Result<Vec<u8>, FrameError> {
    let header = header_of(frame)?;
    let mut bytes = Vec::with_capacity(HEADER_LEN + header.meta_len + header.body_len);
    bytes.extend_from_slice(header.bytes());
    bytes.extend_from_slice(&frame.meta);
    for piece in &frame.body {
        bytes.extend_from_slice(piece);
    }
    Ok(bytes)
}

/// Reads the frame at the start of `bytes`, and says how many bytes it took.
///
/// # Errors
/// A [`FrameError`] for anything but a whole, undamaged frame within `limits`; [`FrameError::Truncated`] when more
/// bytes could make it one.
pub fn decode(bytes: &[u8], limits: &FrameLimits) -> Result<(Frame, usize), FrameError> {
    let cut = |want| FrameError::Truncated { have: bytes.len() as u64, want };
    let (head, content) = bytes.split_first_chunk::<HEADER_LEN>().ok_or_else(|| cut(HEADER_LEN as u64))?;
    let header = Header::parse(*head, limits)?;
    if (bytes.len() as u64) < header.frame_len() {
        return Err(cut(header.frame_len()));
    }
    let mut assembly = Assembly::new(header)?;
    assembly.push(&content[..header.meta_len + header.body_len]);
    Ok((assembly.finish()?, HEADER_LEN + header.meta_len + header.body_len))
}

pub(super) fn header_of(frame: &FrameOut) -> Result<Header, FrameError> {
    Header::of(frame.kind, &frame.meta, frame.body.iter().map(|piece| &piece[..]))
}

/// Puts the content of one frame together in an aligned buffer, copying each byte once.
///
/// The buffer is allocated once with room to spare and filled from the first aligned place on:
/// `[slack][meta][gap][body]`. It never grows, so what was aligned stays so.
pub(super) struct Assembly {
    header: Header,
    buffer: Vec<u8>,
    meta_at: usize,
    body_at: usize,
}

impl Assembly {
    pub(super) fn new(header: Header) -> Result<Self, FrameError> {
        const { assert!(META_ALIGN.is_power_of_two() && BODY_ALIGN.is_power_of_two()) };
        let spare = META_ALIGN + BODY_ALIGN;
        let want = header.meta_len.saturating_add(header.body_len).saturating_add(spare);
        let mut buffer: Vec<u8> = Vec::new();
        buffer.try_reserve_exact(want).map_err(|_| FrameError::Memory { len: want })?;
        let start = buffer.as_ptr().addr();
        let meta_at = start.next_multiple_of(META_ALIGN) - start;
        let body_at = (start + meta_at + header.meta_len).next_multiple_of(BODY_ALIGN) - start;
        buffer.resize(meta_at, 0);
        let mut assembly = Self { header, buffer, meta_at, body_at };
        assembly.step_over_gap();
        Ok(assembly)
    }

    /// Bytes of content still to come.
    pub(super) fn missing(&self) -> usize {
        self.body_at + self.header.body_len - self.buffer.len() - self.gap_ahead()
    }

    /// Bytes of meta still to come.
    pub(super) fn meta_missing(&self) -> usize {
        (self.meta_at + self.header.meta_len).saturating_sub(self.buffer.len())
    }

    /// What came of meta.
    pub(super) fn meta(&self) -> &[u8] {
        let end = (self.meta_at + self.header.meta_len).min(self.buffer.len());
        &self.buffer[self.meta_at..end]
    }

    /// Appends content; never more than is [`missing`](Self::missing).
    pub(super) fn push(&mut self, mut content: &[u8]) {
        assert!(content.len() <= self.missing(), "more content than the header announced");
        let meta_end = self.meta_at + self.header.meta_len;
        if self.buffer.len() < meta_end {
            let (meta, rest) = content.split_at(content.len().min(meta_end - self.buffer.len()));
            self.buffer.extend_from_slice(meta);
            self.step_over_gap();
            content = rest;
        }
        self.buffer.extend_from_slice(content);
    }

    /// The frame, once nothing is missing and if the checksum matches.
    pub(super) fn finish(self) -> Result<Frame, FrameError> {
        assert_eq!(self.missing(), 0, "finished before all content came");
        let buffer = Bytes::from(self.buffer);
        let meta = buffer.slice(self.meta_at..self.meta_at + self.header.meta_len);
        let body = buffer.slice(self.body_at..);
        self.header.verify(&meta, &body)?;
        debug_assert_eq!(meta.as_ptr().addr() % META_ALIGN, 0);
        debug_assert_eq!(body.as_ptr().addr() % BODY_ALIGN, 0);
        Ok(Frame { kind: self.header.kind, meta, body })
    }

    /// Bytes between the end of meta and the body that are still to be stepped over.
    fn gap_ahead(&self) -> usize {
        let meta_end = self.meta_at + self.header.meta_len;
        if self.buffer.len() < meta_end { self.body_at - meta_end } else { 0 }
    }

    fn step_over_gap(&mut self) {
        if self.buffer.len() == self.meta_at + self.header.meta_len {
            self.buffer.resize(self.body_at, 0);
        }
    }
}
