//! Requests and replies as bytes: rkyv archives, validated before anything is read from them.

use crate::limits::META_BYTES_MAX;
use crate::request::{Reply, Request};
use bytes::Bytes;
use rkyv::rancor::Error as RkyvError;
use rkyv::util::AlignedVec;

/// Frame kind of a request.
pub const KIND_REQUEST: u16 = 1;
/// Frame kind of a reply.
pub const KIND_REPLY: u16 = 2;

/// Bytes that are no request or reply.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Over the limit.
    #[error("{bytes} bytes are over the limit of {META_BYTES_MAX} for a request or reply")]
    TooLarge {
        /// Bytes that arrived.
        bytes: usize,
    },
    /// Not an archive of the expected type.
    #[error("not a valid request or reply: {0}")]
    Invalid(RkyvError),
}

/// Encodes a request for the meta part of a frame.
pub fn encode_request(request: &Request) -> Bytes {
    let bytes = rkyv::to_bytes::<RkyvError>(request).expect("memory holds a request");
    Bytes::from_owner(bytes)
}

/// Encodes a reply for the meta part of a frame.
pub fn encode_reply(reply: &Reply) -> Bytes {
    let bytes = rkyv::to_bytes::<RkyvError>(reply).expect("memory holds a reply");
    Bytes::from_owner(bytes)
}

/// Decodes and validates a request.
pub fn decode_request(meta: &[u8]) -> Result<Request, DecodeError> {
    rkyv::from_bytes::<Request, RkyvError>(&aligned(meta)?).map_err(DecodeError::Invalid)
}

/// Decodes and validates a reply.
pub fn decode_reply(meta: &[u8]) -> Result<Reply, DecodeError> {
    rkyv::from_bytes::<Reply, RkyvError>(&aligned(meta)?).map_err(DecodeError::Invalid)
}

/// Archives are read in place and need alignment, which bytes off the network do not have.
fn aligned(meta: &[u8]) -> Result<AlignedVec, DecodeError> {
    if meta.len() > META_BYTES_MAX {
        return Err(DecodeError::TooLarge { bytes: meta.len() });
    }
    let mut buffer = AlignedVec::with_capacity(meta.len());
    buffer.extend_from_slice(meta);
    Ok(buffer)
}
