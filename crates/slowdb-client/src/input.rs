//! Checks of what callers hand in, before anything is sent.

use crate::error::ClientError;
use slowdb_proto::Code;
use slowdb_proto::limits::{ID_BYTES_MAX, PAYLOAD_BYTES_MAX, SEARCH_K_MAX};

fn bad(code: Code, message: String) -> ClientError {
    ClientError::BadInput { code, message }
}

pub(crate) fn check_id(id: &str) -> Result<(), ClientError> {
    match id.len() {
        0 => Err(bad(Code::BadId, format!("the id is empty; an id has 1 to {ID_BYTES_MAX} bytes"))),
        1..=ID_BYTES_MAX => Ok(()),
        bytes => {
            let start: String = id.chars().take(32).collect();
            let message = format!("the id '{start}…' has {bytes} bytes; at most {ID_BYTES_MAX} are allowed");
            Err(bad(Code::BadId, message))
        }
    }
}

pub(crate) fn check_vector(vector: &[f32], dimension: usize) -> Result<(), ClientError> {
    if vector.len() != dimension {
        let message = format!("the vector has {} components, the collection has {dimension}", vector.len());
        return Err(bad(Code::WrongDimension, message));
    }
    match vector.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(at) => {
            let value = vector[at];
            let message = format!("component {at} is {value}; all components must be finite numbers");
            Err(bad(Code::NotFinite, message))
        }
    }
}

pub(crate) fn check_payload(payload: &[u8]) -> Result<(), ClientError> {
    if payload.len() <= PAYLOAD_BYTES_MAX {
        return Ok(());
    }
    let message = format!("the payload has {} bytes; at most {PAYLOAD_BYTES_MAX} are allowed", payload.len());
    Err(bad(Code::TooLarge, message))
}

pub(crate) fn check_k(k: usize) -> Result<(), ClientError> {
    match k {
        1..=SEARCH_K_MAX => Ok(()),
        0 => Err(bad(Code::BadRequest, "k is 0; at least one hit has to be asked for".into())),
        _ => Err(bad(Code::TooLarge, format!("k is {k}; at most {SEARCH_K_MAX} are allowed"))),
    }
}
