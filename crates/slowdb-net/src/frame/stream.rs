//! Frames on QUIC streams.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use quinn::{ReadError, RecvStream, SendStream, WriteError};
use tokio::time::timeout;

use super::codec::{Assembly, header_of};
use super::header::{HEADER_LEN, Header};
use super::{Frame, FrameError, FrameLimits, FrameOut};

/// Pieces shorter than this travel in the header's buffer: a copy of this size is cheaper than a queue entry.
const COPY_BELOW: usize = 1024;

/// Writes `frame` to `stream` without copying its large pieces, waiting at most `within` for flow control.
///
/// Returning means that the frame is queued in this process, not that it arrived.
///
/// # Errors
/// A [`FrameError`]; after it, and after dropping this future midway, the stream holds a part of a frame and must
/// be given up.
pub async fn write_frame(
    stream: &mut SendStream,
    frame: FrameOut,
    within: Duration,
) -> Result<(), FrameError> {
    let mut pieces = pieces_of(frame)?;
    match timeout(within, stream.write_all_chunks(&mut pieces)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(WriteError::Stopped(code))) => Err(FrameError::GivenUp { code: code.into_inner() }),
        Ok(Err(WriteError::ConnectionLost(lost))) => Err(FrameError::Lost(lost.into())),
        Ok(Err(WriteError::ClosedStream | WriteError::ZeroRttRejected)) => Err(FrameError::Closed),
        Err(_) => Err(FrameError::Deadline { doing: "writing a frame", within }),
    }
}

/// Reads the next frame of `stream`, or `None` at its clean end.
///
/// Each byte is copied once, from the datagrams into the frame's own buffer.
///
/// # Errors
/// A [`FrameError`]; after it, and after dropping this future midway, the stream is out of step and must be given
/// up.
pub async fn read_frame(stream: &mut RecvStream, limits: &FrameLimits) -> Result<Option<Frame>, FrameError> {
    let Some(first) = first_chunk(stream, limits).await? else { return Ok(None) };
    let rest = async { read_head(stream, first, limits).await?.rest().await };
    within(limits.rest_within, rest).await.map(Some)
}

/// Reads the header of the next frame of `stream`, or `None` at its clean end: nothing is held for the content yet.
///
/// # Errors
/// As with [`read_frame`].
pub async fn begin_frame<'a>(
    stream: &'a mut RecvStream,
    limits: &FrameLimits,
) -> Result<Option<Arriving<'a>>, FrameError> {
    let Some(first) = first_chunk(stream, limits).await? else { return Ok(None) };
    within(limits.rest_within, read_head(stream, first, limits)).await.map(Some)
}

/// A frame of which the header is here: the rest is read when there is room for it. One that is not read to its end
/// leaves the stream out of step, which must be given up then.
///
/// No memory is held for meta and body before the first of them is asked for. Each wait takes
/// [`rest_within`](FrameLimits::rest_within) at most.
pub struct Arriving<'a> {
    stream: &'a mut RecvStream,
    header: Header,
    rest_within: Duration,
    /// What came of the content.
    assembly: Option<Assembly>,
}

impl Arriving<'_> {
    /// What the frame is, in the words of the layer above.
    #[must_use]
    pub fn kind(&self) -> u16 {
        self.header.kind
    }

    /// Length of meta in bytes.
    #[must_use]
    pub fn meta_len(&self) -> usize {
        self.header.meta_len
    }

    /// Length of the body in bytes.
    #[must_use]
    pub fn body_len(&self) -> usize {
        self.header.body_len
    }

    /// Reads meta. The checksum is over the whole frame, so what is in it is not to be relied on yet.
    ///
    /// # Errors
    /// As with [`read_frame`].
    pub async fn meta(&mut self) -> Result<&[u8], FrameError> {
        let rest_within = self.rest_within;
        within(rest_within, self.read(Assembly::meta_missing)).await.map(|assembly| assembly.meta())
    }

    /// Reads what is missing, and checks the whole.
    ///
    /// # Errors
    /// As with [`read_frame`].
    pub async fn finish(self) -> Result<Frame, FrameError> {
        within(self.rest_within, self.rest()).await
    }

    async fn rest(mut self) -> Result<Frame, FrameError> {
        self.read(Assembly::missing).await?;
        self.assembly.map_or_else(|| Assembly::new(self.header), Ok)?.finish()
    }

    async fn read(&mut self, missing: impl Fn(&Assembly) -> usize) -> Result<&mut Assembly, FrameError> {
        let assembly = match &mut self.assembly {
            Some(assembly) => assembly,
            none => none.insert(Assembly::new(self.header)?),
        };
        while missing(assembly) > 0 {
            let Some(chunk) = next_chunk(self.stream, missing(assembly)).await? else {
                let want = self.header.frame_len();
                return Err(FrameError::Truncated { have: want - assembly.missing() as u64, want });
            };
            assembly.push(&chunk);
        }
        Ok(assembly)
    }
}

async fn within<T>(
    within: Duration,
    rest: impl Future<Output = Result<T, FrameError>>,
) -> Result<T, FrameError> {
    timeout(within, rest).await.unwrap_or(Err(FrameError::Deadline { doing: "reading a frame", within }))
}

async fn first_chunk(stream: &mut RecvStream, limits: &FrameLimits) -> Result<Option<Bytes>, FrameError> {
    match limits.first_byte_within {
        Some(within) => timeout(within, next_chunk(stream, HEADER_LEN))
            .await
            .map_err(|_| FrameError::Deadline { doing: "waiting for a frame", within })?,
        None => next_chunk(stream, HEADER_LEN).await,
    }
}

async fn read_head<'a>(
    stream: &'a mut RecvStream,
    first: Bytes,
    limits: &FrameLimits,
) -> Result<Arriving<'a>, FrameError> {
    let mut head = [0; HEADER_LEN];
    let mut have = first.len();
    head[..have].copy_from_slice(&first);
    while have < HEADER_LEN {
        let chunk = next_chunk(stream, HEADER_LEN - have)
            .await?
            .ok_or(FrameError::Truncated { have: have as u64, want: HEADER_LEN as u64 })?;
        head[have..have + chunk.len()].copy_from_slice(&chunk);
        have += chunk.len();
    }
    let header = Header::parse(head, limits)?;
    Ok(Arriving { stream, header, rest_within: limits.rest_within, assembly: None })
}

async fn next_chunk(stream: &mut RecvStream, len_max: usize) -> Result<Option<Bytes>, FrameError> {
    match stream.read_chunk(len_max, true).await {
        Ok(chunk) => Ok(chunk.map(|chunk| chunk.bytes)),
        Err(ReadError::Reset(code)) => Err(FrameError::GivenUp { code: code.into_inner() }),
        Err(ReadError::ConnectionLost(lost)) => Err(FrameError::Lost(lost.into())),
        Err(ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected) => {
            Err(FrameError::Closed)
        }
    }
}

/// The frame as a list of buffers: the header with what is small after it, then the large pieces as they are.
fn pieces_of(frame: FrameOut) -> Result<Vec<Bytes>, FrameError> {
    let header = header_of(&frame)?;
    let mut pieces = Vec::with_capacity(frame.body.len() + 2);
    let mut small = BytesMut::with_capacity(HEADER_LEN + COPY_BELOW);
    small.extend_from_slice(header.bytes());
    for piece in std::iter::once(frame.meta).chain(frame.body) {
        if piece.len() < COPY_BELOW {
            small.extend_from_slice(&piece);
        } else {
            if !small.is_empty() {
                pieces.push(small.split().freeze());
            }
            pieces.push(piece);
        }
    }
    if !small.is_empty() {
        pieces.push(small.freeze());
    }
    Ok(pieces)
}
