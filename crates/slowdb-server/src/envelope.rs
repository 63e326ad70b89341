//! What a replica keeps with each record beside the user's payload, in front of it:
//!
//! ```text
//! 0      flags  u8     bits 0 and 1: level of the write, 0 one, 1 quorum, 2 all; bit 2: it was overtaken before
//! 1..9   hlc    u64    hybrid logical time at the leader that accepted it
//! 9..29  was    position that it had before it was overtaken; only with bit 2
//! ```
//!
//! Little endian. To the store it is part of the payload.

use crate::unguarded::GUARDED;
use rkyv::{Archive, Deserialize, Serialize};
use slowdb_proto::{Position, WriteLevel};
use slowdb_repl::AckLevel;

const WAS: u8 = 4;
const HEAD_BYTES: usize = 9;

/// How a record, or a tombstone, came to be.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    /// When its write was acknowledged.
    pub(crate) level: WriteLevel,
    /// Hybrid logical time at the leader that accepted the write.
    pub(crate) hlc: u64,
    /// If that leader was overtaken and the write was offered again: its position in that leader's log.
    pub(crate) was: Option<Position>,
}

impl Envelope {
    /// Of a write that was not overtaken.
    pub(crate) fn of(level: AckLevel, hlc: u64) -> Self {
        let level = match level {
            AckLevel::One => WriteLevel::One,
            AckLevel::Quorum => WriteLevel::Quorum,
            AckLevel::All => WriteLevel::All,
        };
        Envelope { level, hlc, was: None }
    }

    /// Appends it, and the payload.
    pub(crate) fn wrap(&self, payload: &[u8], out: &mut Vec<u8>) {
        if !GUARDED {
            return out.extend_from_slice(payload);
        }
        out.push(self.level as u8 | if self.was.is_some() { WAS } else { 0 });
        out.extend_from_slice(&self.hlc.to_le_bytes());
        if let Some(was) = self.was {
            out.extend_from_slice(&was.encode());
        }
        out.extend_from_slice(payload);
    }

    /// Takes it apart from the payload; `None` if that is no envelope.
    pub(crate) fn unwrap(bytes: &[u8]) -> Option<(Envelope, &[u8])> {
        if !GUARDED {
            return Some((Envelope { level: WriteLevel::Quorum, hlc: 0, was: None }, bytes));
        }
        let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>()?;
        let [flags, hlc @ ..] = *head;
        let (was, payload) = if flags & WAS == 0 {
            (None, rest)
        } else {
            let (was, payload) = rest.split_first_chunk()?;
            (Some(Position::decode(was)), payload)
        };
        let level = match flags & !WAS {
            0 => WriteLevel::One,
            1 => WriteLevel::Quorum,
            2 => WriteLevel::All,
            _ => return None,
        };
        Some((Envelope { level, hlc: u64::from_le_bytes(hlc), was }, payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrapped_is_unwrapped() {
        let plain = Envelope { level: WriteLevel::All, hlc: 0x0102, was: None };
        let mut bytes = Vec::new();
        plain.wrap(b"pay", &mut bytes);
        assert_eq!(bytes, [2, 2, 1, 0, 0, 0, 0, 0, 0, b'p', b'a', b'y']);
        assert_eq!(Envelope::unwrap(&bytes), Some((plain, &b"pay"[..])));
        let late = Envelope { level: WriteLevel::One, was: Some(Position::new(3, 4, 5)), ..plain };
        bytes.clear();
        late.wrap(b"", &mut bytes);
        assert_eq!((bytes[0], bytes.len()), (4, 29));
        assert_eq!(Envelope::unwrap(&bytes), Some((late, &b""[..])));
        assert_eq!(Envelope::unwrap(&bytes[..28]), None, "it ends too early");
        assert_eq!(Envelope::unwrap(&[3; 40]), None, "no such level");
        assert_eq!(Envelope::unwrap(&[9; 40]), None, "no such flag");
        assert_eq!(Envelope::unwrap(b""), None);
    }

    #[test]
    fn the_store_has_room_for_it() {
        let payload = vec![0; slowdb_proto::limits::PAYLOAD_BYTES_MAX];
        let mut bytes = Vec::new();
        Envelope { level: WriteLevel::One, hlc: 0, was: Some(Position::START) }.wrap(&payload, &mut bytes);
        assert!(bytes.len() <= slowdb_storage::PAYLOAD_BYTES_MAX);
    }
}
