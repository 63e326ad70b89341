//! The byte layout of a batch of writes.
//!
//! A batch is laid out once, by the client, and travels unchanged through the leader's log, the followers'
//! logs and into every state machine. All numbers are little endian. Each write is
//!
//! ```text
//! 0      kind          u8   1 put, 2 delete, 3 replay a conflict, 4 discard a conflict, 5 set the conflict policy
//! 1      condition     u8   0 none, 1 if the record has this version, 2 if there is no record, 3 whatever there is
//! 2..4   id_len        u16  1 to 512
//! 4..8   payload_len   u32  0 to 65,536; 0 but in a put
//! 8..12  vector_len    u32  4 × dimension; 0 but in a put
//! 12..   id, zeros to a multiple of 4, position, vector, payload, zeros to a multiple of 4
//! ```
//!
//! The position, term u64, index u64 and offset u32, is the version with condition 1, and in kinds 3 and 4 it names the
//! entry of the conflict log. It is there only in these. Kind 3 takes the conditions 0, for which nothing may have written
//! to the record since the conflict was decided, and 3; kind 4 takes 0, and no other kind takes 3.
//!
//! What sets the conflict policy is proposed by a shard's leader alone. It has no id, no vector, no condition, and a
//! payload of one byte: 0 newest, 1 keep_current, 2 keep_both.

use slowdb_position::Position;

use crate::ConflictPolicy;
use crate::limits::{BATCH_BYTES_MAX, BATCH_WRITES_MAX, ID_BYTES_MAX, PAYLOAD_BYTES_MAX};

const HEADER_BYTES: usize = 12;
const KIND_PUT: u8 = 1;
const KIND_DELETE: u8 = 2;
const KIND_REPLAY: u8 = 3;
const KIND_DISCARD: u8 = 4;
const KIND_SET_POLICY: u8 = 5;
const IF_VERSION: u8 = 1;
const IF_ABSENT: u8 = 2;
const ANYWAY: u8 = 3;

/// Why a batch is refused. Nothing of it takes effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpsError {
    /// An id is empty.
    #[error("write {index}: the id is empty; an id has 1 to {ID_BYTES_MAX} bytes")]
    IdEmpty {
        /// Which write of the batch.
        index: usize,
    },
    /// An id is too long.
    #[error("write {index}: the id has {bytes} bytes, more than {ID_BYTES_MAX}")]
    IdTooLong {
        /// Which write of the batch.
        index: usize,
        /// Its length.
        bytes: usize,
    },
    /// An id is not UTF-8.
    #[error("write {index}: the id is not UTF-8")]
    IdNotUtf8 {
        /// Which write of the batch.
        index: usize,
    },
    /// A vector has the wrong dimension.
    #[error("write {index}: the vector has {got} components, the collection has {wanted}")]
    WrongDimension {
        /// Which write of the batch.
        index: usize,
        /// Components of the vector.
        got: usize,
        /// Dimension of the collection.
        wanted: u32,
    },
    /// A component is NaN or infinite.
    #[error("write {index}: component {component} is {value}; all components must be finite numbers")]
    NotFinite {
        /// Which write of the batch.
        index: usize,
        /// Which component.
        component: usize,
        /// `NaN`, `inf` or `-inf`.
        value: String,
    },
    /// A payload is too large.
    #[error("write {index}: the payload has {bytes} bytes, more than {PAYLOAD_BYTES_MAX}")]
    PayloadTooLarge {
        /// Which write of the batch.
        index: usize,
        /// Its length.
        bytes: usize,
    },
    /// Too many writes in one batch.
    #[error("the batch has more than {BATCH_WRITES_MAX} writes")]
    TooManyWrites,
    /// Too many bytes in one batch.
    #[error("the batch has {bytes} bytes, more than {BATCH_BYTES_MAX}")]
    TooManyBytes {
        /// Its length.
        bytes: usize,
    },
    /// No write in it.
    #[error("the batch is empty")]
    Empty,
    /// Bytes that are no batch.
    #[error("write {index}: {what}")]
    Malformed {
        /// Which write of the batch.
        index: usize,
        /// What is wrong.
        what: &'static str,
    },
}

/// What must hold of a record for a write to it to take effect. Decided once, when the write is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It is there, and was made by the write at this position.
    IfVersion(Position),
    /// It is not there.
    IfAbsent,
}

impl Condition {
    /// Whether it holds, given the version of the record; `None` if there is none.
    pub fn holds(self, current: Option<Position>) -> bool {
        match self {
            Condition::IfVersion(version) => current == Some(version),
            Condition::IfAbsent => current.is_none(),
        }
    }
}

/// One write.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Op<'a> {
    /// Make or replace a record.
    Put {
        /// Its id.
        id: &'a str,
        /// Its vector, f32 little endian.
        vector: &'a [u8],
        /// Its payload.
        payload: &'a [u8],
        /// What must hold.
        condition: Option<Condition>,
    },
    /// Remove a record.
    Delete {
        /// Its id.
        id: &'a str,
        /// What must hold.
        condition: Option<Condition>,
    },
    /// Write what lost in a conflict, and remove the conflict's entry.
    Replay {
        /// Id of the record.
        id: &'a str,
        /// The entry: position that its late write had first.
        entry: Position,
        /// Also over what was written since that was decided.
        anyway: bool,
    },
    /// Remove a conflict's entry, and what lost in it.
    Discard {
        /// Id of the record.
        id: &'a str,
        /// The entry: position that its late write had first.
        entry: Position,
    },
    /// What becomes of late writes that conflict, from here on. Of the shard itself, not of a record.
    SetPolicy(ConflictPolicy),
}

impl<'a> Op<'a> {
    /// The id written to; empty if it is no record's.
    pub fn id(&self) -> &'a str {
        match self {
            Op::Put { id, .. } | Op::Delete { id, .. } | Op::Replay { id, .. } | Op::Discard { id, .. } => id,
            Op::SetPolicy(_) => "",
        }
    }

    /// What must hold for it to take effect.
    pub fn condition(&self) -> Option<Condition> {
        match self {
            Op::Put { condition, .. } | Op::Delete { condition, .. } => *condition,
            Op::Replay { .. } | Op::Discard { .. } | Op::SetPolicy(_) => None,
        }
    }

    /// Whether what comes of it depends on what is there when it is applied: then it is written at quorum or all, never at
    /// one.
    pub fn depends(&self) -> bool {
        self.condition().is_some() || matches!(self, Op::Replay { .. } | Op::Discard { .. })
    }
}

/// A batch whose layout has been checked: walking it cannot fail.
#[derive(Clone, Copy, Debug)]
pub struct Ops<'a> {
    bytes: &'a [u8],
    writes: u32,
}

impl<'a> Ops<'a> {
    /// Checks everything: layout, limits, ids, dimension, finite components; and that a client may ask for it.
    pub fn check(bytes: &'a [u8], dimension: u32) -> Result<Ops<'a>, OpsError> {
        let ops = Ops::check_layout(bytes)?;
        for (index, op) in ops.iter().enumerate() {
            match op {
                Op::Put { vector, .. } => check_vector(index, vector, dimension)?,
                Op::Delete { .. } | Op::Replay { .. } | Op::Discard { .. } => {}
                Op::SetPolicy(_) => {
                    let what = "only a shard's leader sets its conflict policy, as the collection says";
                    return Err(OpsError::Malformed { index, what });
                }
            }
        }
        Ok(ops)
    }

    /// Checks layout and ids only: for a batch that a leader had checked before it went into a log.
    pub fn check_layout(bytes: &'a [u8]) -> Result<Ops<'a>, OpsError> {
        if bytes.len() > BATCH_BYTES_MAX {
            return Err(OpsError::TooManyBytes { bytes: bytes.len() });
        }
        let mut rest = bytes;
        let mut index = 0;
        while !rest.is_empty() {
            if index == BATCH_WRITES_MAX {
                return Err(OpsError::TooManyWrites);
            }
            (_, rest) = split_op(index, rest)?;
            index += 1;
        }
        if index == 0 {
            return Err(OpsError::Empty);
        }
        Ok(Ops { bytes, writes: index as u32 })
    }

    /// Number of writes, at least 1.
    pub fn writes(&self) -> u32 {
        self.writes
    }

    /// The writes in order.
    pub fn iter(&self) -> impl Iterator<Item = Op<'a>> + use<'a> {
        let mut rest = self.bytes;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let (op, tail) = split_op(0, rest).ok()?;
            rest = tail;
            Some(op)
        })
    }
}

fn check_vector(index: usize, vector: &[u8], dimension: u32) -> Result<(), OpsError> {
    let got = vector.len() / 4;
    if got != dimension as usize {
        return Err(OpsError::WrongDimension { index, got, wanted: dimension });
    }
    // Finite means that the exponent is not all ones. Whole chunks first: this is on the path of every write.
    let (words, _) = vector.as_chunks::<4>();
    let bad = |word: &[u8; 4]| u32::from_le_bytes(*word) & 0x7f80_0000 == 0x7f80_0000;
    let any_bad = words.iter().fold(false, |any, word| any | bad(word));
    if any_bad {
        let component = words.iter().position(bad).unwrap_or_default();
        let value = f32::from_le_bytes(words[component]).to_string();
        return Err(OpsError::NotFinite { index, component, value });
    }
    Ok(())
}

fn split_op(index: usize, bytes: &[u8]) -> Result<(Op<'_>, &[u8]), OpsError> {
    let malformed = |what| OpsError::Malformed { index, what };
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
        return Err(malformed("it ends inside a header"));
    };
    let id_len = usize::from(u16::from_le_bytes([header[2], header[3]]));
    let payload_len = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
    let vector_len = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
    let is_of_entry = matches!(header[0], KIND_REPLAY | KIND_DISCARD);
    let has_position = is_of_entry || header[1] == IF_VERSION;
    let position_len = if has_position { Position::ENCODED_LEN } else { 0 };
    if id_len == 0 && header[0] != KIND_SET_POLICY {
        return Err(OpsError::IdEmpty { index });
    }
    if id_len > ID_BYTES_MAX {
        return Err(OpsError::IdTooLong { index, bytes: id_len });
    }
    if payload_len > PAYLOAD_BYTES_MAX {
        return Err(OpsError::PayloadTooLarge { index, bytes: payload_len });
    }
    if !vector_len.is_multiple_of(4) {
        return Err(malformed("its vector is not a whole number of components"));
    }
    let id_padded = id_len.next_multiple_of(4);
    let data_len = vector_len + payload_len;
    let data_at = id_padded + position_len;
    let total = data_at + data_len.next_multiple_of(4);
    if rest.len() < total {
        return Err(malformed("it is longer than what is left of the batch"));
    }
    let (this, tail) = rest.split_at(total);
    let id = std::str::from_utf8(&this[..id_len]).map_err(|_| OpsError::IdNotUtf8 { index })?;
    let (vector, payload) = this[data_at..data_at + data_len].split_at(vector_len);
    let position = this[id_padded..data_at].first_chunk().map(Position::decode);
    let condition = match header[1] {
        0 => None,
        IF_VERSION => position.map(Condition::IfVersion),
        IF_ABSENT => Some(Condition::IfAbsent),
        ANYWAY if header[0] == KIND_REPLAY => None,
        _ => return Err(malformed("its condition is unknown")),
    };
    match header[0] {
        KIND_PUT if vector_len > 0 => Ok((Op::Put { id, vector, payload, condition }, tail)),
        KIND_PUT => Err(malformed("it puts a vector without components")),
        KIND_DELETE if data_len == 0 => Ok((Op::Delete { id, condition }, tail)),
        KIND_DELETE => Err(malformed("it deletes, but carries a vector or payload")),
        KIND_REPLAY | KIND_DISCARD if data_len > 0 => {
            Err(malformed("it resolves a conflict, but carries a vector or payload"))
        }
        KIND_REPLAY | KIND_DISCARD if condition.is_some() => {
            Err(malformed("it resolves a conflict, which takes no condition"))
        }
        KIND_REPLAY => {
            let (entry, anyway) = (position.unwrap_or_default(), header[1] == ANYWAY);
            Ok((Op::Replay { id, entry, anyway }, tail))
        }
        KIND_DISCARD => Ok((Op::Discard { id, entry: position.unwrap_or_default() }, tail)),
        KIND_SET_POLICY => {
            let policy = match payload {
                [0] => ConflictPolicy::Newest,
                [1] => ConflictPolicy::KeepCurrent,
                [2] => ConflictPolicy::KeepBoth,
                _ => return Err(malformed("its conflict policy is unknown")),
            };
            if id_len > 0 || vector_len > 0 || condition.is_some() {
                return Err(malformed("it sets the conflict policy, but of a record"));
            }
            Ok((Op::SetPolicy(policy), tail))
        }
        _ => Err(malformed("its kind is unknown")),
    }
}

/// Lays out a batch.
#[derive(Clone, Debug, Default)]
pub struct OpsBuilder {
    bytes: Vec<u8>,
    writes: usize,
}

impl OpsBuilder {
    /// An empty batch.
    pub fn new() -> Self {
        OpsBuilder::default()
    }

    /// Adds a put. On an error the batch is as it was.
    pub fn put(&mut self, id: &str, vector: &[f32], payload: &[u8]) -> Result<(), OpsError> {
        self.put_if(id, vector, payload, None)
    }

    /// Adds a put that takes effect only if a condition holds. On an error the batch is as it was.
    pub fn put_if(
        &mut self,
        id: &str,
        vector: &[f32],
        payload: &[u8],
        condition: Option<Condition>,
    ) -> Result<(), OpsError> {
        if let Some(component) = vector.iter().position(|x| !x.is_finite()) {
            let value = vector[component].to_string();
            return Err(OpsError::NotFinite { index: self.writes, component, value });
        }
        if vector.is_empty() {
            return Err(OpsError::Malformed {
                index: self.writes,
                what: "it puts a vector without components",
            });
        }
        let (condition, position) = laid_out(condition);
        self.start(KIND_PUT, condition, id, position, vector.len() * 4, payload.len())?;
        for component in vector {
            self.bytes.extend_from_slice(&component.to_le_bytes());
        }
        self.bytes.extend_from_slice(payload);
        self.pad();
        Ok(())
    }

    /// Adds a delete. On an error the batch is as it was.
    pub fn delete(&mut self, id: &str) -> Result<(), OpsError> {
        self.delete_if(id, None)
    }

    /// Adds a delete that takes effect only if a condition holds. On an error the batch is as it was.
    pub fn delete_if(&mut self, id: &str, condition: Option<Condition>) -> Result<(), OpsError> {
        let (condition, position) = laid_out(condition);
        self.start(KIND_DELETE, condition, id, position, 0, 0)
    }

    /// Adds a replay of what lost in a conflict: if the record was not written to since that was decided, or `anyway`. On
    /// an error the batch is as it was.
    pub fn replay(&mut self, id: &str, entry: Position, anyway: bool) -> Result<(), OpsError> {
        self.start(KIND_REPLAY, if anyway { ANYWAY } else { 0 }, id, Some(entry), 0, 0)
    }

    /// Adds the removal of a conflict's entry. On an error the batch is as it was.
    pub fn discard(&mut self, id: &str, entry: Position) -> Result<(), OpsError> {
        self.start(KIND_DISCARD, 0, id, Some(entry), 0, 0)
    }

    /// The batch that sets a shard's conflict policy.
    pub fn set_policy(policy: ConflictPolicy) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES + 4];
        (bytes[0], bytes[4], bytes[HEADER_BYTES]) = (KIND_SET_POLICY, 1, policy as u8);
        bytes
    }

    /// Number of writes so far.
    pub fn writes(&self) -> usize {
        self.writes
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was added yet.
    pub fn is_empty(&self) -> bool {
        self.writes == 0
    }

    /// The batch.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }

    /// The size of one put without a condition, in bytes.
    pub fn put_bytes(id: &str, dimension: usize, payload_len: usize) -> usize {
        HEADER_BYTES + id.len().next_multiple_of(4) + (dimension * 4 + payload_len).next_multiple_of(4)
    }

    fn start(
        &mut self,
        kind: u8,
        condition: u8,
        id: &str,
        position: Option<Position>,
        vector_len: usize,
        payload_len: usize,
    ) -> Result<(), OpsError> {
        let index = self.writes;
        if id.is_empty() {
            return Err(OpsError::IdEmpty { index });
        }
        if id.len() > ID_BYTES_MAX {
            return Err(OpsError::IdTooLong { index, bytes: id.len() });
        }
        if payload_len > PAYLOAD_BYTES_MAX {
            return Err(OpsError::PayloadTooLarge { index, bytes: payload_len });
        }
        if self.writes == BATCH_WRITES_MAX {
            return Err(OpsError::TooManyWrites);
        }
        let position = position.map(Position::encode);
        let position = position.as_ref().map_or(&[][..], |bytes| bytes);
        let bytes = self.bytes.len()
            + HEADER_BYTES
            + id.len().next_multiple_of(4)
            + position.len()
            + (vector_len + payload_len).next_multiple_of(4);
        if bytes > BATCH_BYTES_MAX {
            return Err(OpsError::TooManyBytes { bytes });
        }
        self.bytes.extend_from_slice(&[kind, condition]);
        self.bytes.extend_from_slice(&(id.len() as u16).to_le_bytes());
        self.bytes.extend_from_slice(&(payload_len as u32).to_le_bytes());
        self.bytes.extend_from_slice(&(vector_len as u32).to_le_bytes());
        self.bytes.extend_from_slice(id.as_bytes());
        self.pad();
        self.bytes.extend_from_slice(position);
        self.writes += 1;
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// A condition's kind, and the position that goes with it.
fn laid_out(condition: Option<Condition>) -> (u8, Option<Position>) {
    match condition {
        None => (0, None),
        Some(Condition::IfVersion(version)) => (IF_VERSION, Some(version)),
        Some(Condition::IfAbsent) => (IF_ABSENT, None),
    }
}
