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
    let first = match limits.first_byte_within {
        Some(within) => timeout(within, next_chunk(stream, HEADER_LEN))
            .await
            .map_err(|_| FrameError::Deadline { doing: "waiting for a frame", within })??,
        None => next_chunk(stream, HEADER_LEN).await?,
    };
    let Some(first) = first else { return Ok(None) };
    timeout(limits.rest_within, read_rest(stream, first, limits))
        .await
        .map_err(|_| FrameError::Deadline { doing: "reading a frame", within: limits.rest_within })?
        .map(Some)
}

async fn read_rest(stream: &mut RecvStream, first: Bytes, limits: &FrameLimits) -> Result<Frame, FrameError> {
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
    let mut assembly = Assembly::new(header)?;
    while assembly.missing() > 0 {
        let Some(chunk) = next_chunk(stream, assembly.missing()).await? else {
            let want = header.frame_len();
            return Err(FrameError::Truncated { have: want - assembly.missing() as u64, want });
        };
        assembly.push(&chunk);
    }
    assembly.finish()
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
