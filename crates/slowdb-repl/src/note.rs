//! What replicas of a group tell each other beside consensus messages: snapshots on their way, and digests.
//!
//! A note is laid out like a consensus message (see [`crate::engine::wire`]), with types of its own and these meanings
//! of its fields:
//!
//! ```text
//! type  what               log term   index    commit       commit term       reject hint  context           body
//! 32    snapshot offered   its term   its      its id       bytes, estimated  its offset   digest            members
//!                                     index
//! 35    snapshot is gone   -          -        its id       -                 -            -                 -
//! 36    digest             its term   index    -            -                 -            digest            -
//! 37    for the leader     -          -        -            -                 -            -                 what
//! 38    overtaken          -          -        -            -                 -            -                 an entry
//! 39    settled            its term   its      -            -                 its offset   -                 -
//!                                     index
//! 40    read asked         -          -        -            -                 -            what identifies   -
//! 41    read confirmed     -          index    -            -                 -            it, and again     -
//! 42    part wanted        -          number   its id       -                 -            -                 -
//! 43    part               -          number   its id       xxh3-64 of body   1: the last  -                 the part
//! ```
//!
//! 33 and 34 were parts that were asked for one at a time, and are not used again.

use crate::Position;
use crate::engine::wire::NUMBER_MAX;
use crate::ids::{Membership, ReplicaId};
use bytes::Bytes;

/// Longest part of a snapshot, in bytes: one record more than asked for, of the largest size there is.
pub(crate) const PART_BYTES_MAX: usize = 1024 * 1024;
/// Longest message to a leader, in bytes.
pub(crate) const FORWARD_BYTES_MAX: usize = 64 * 1024;
const DIGEST_BYTES: usize = 16;

/// A note from one replica to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) from: ReplicaId,
    pub(crate) to: ReplicaId,
    pub(crate) says: Says,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    /// I have a snapshot that you need.
    Offer(Offer),
    /// Send me the part of this number.
    Want { id: u64, part: u64 },
    /// The part.
    Part { id: u64, part: SnapshotPart },
    /// I do not have that snapshot, or no more.
    Gone { id: u64 },
    /// My state at this entry has this digest.
    Digest { index: u64, term: u64, digest: [u8; 16] },
    /// You lead: this is for you to decide.
    Forward { body: Bytes },
    /// You lead: these proposals were overtaken. They are laid out as an entry.
    Overtaken { entry: Bytes },
    /// The proposal that had this position is taken care of.
    Settled { was: Position },
    /// You lead: what do I have to apply before I may answer reads that wait?
    ReadAsked { context: ReadContext },
    /// Everything up to this entry: a majority has confirmed since you asked that I lead.
    ReadConfirmed { context: ReadContext, index: u64 },
}

/// Names a question about reads, for the replica that asks it.
pub(crate) type ReadContext = [u8; 16];

/// A snapshot, as it is offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) id: u64,
    pub(crate) index: u64,
    pub(crate) term: u64,
    /// Of the last write in the entry at `index`.
    pub(crate) offset: u32,
    /// About how large it is.
    pub(crate) bytes: u64,
    pub(crate) digest: [u8; 16],
    pub(crate) members: Membership,
}

/// A part of a snapshot. It has no checksum of its own: what carries it has one, and all parts together have the digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SnapshotPart {
    /// From 0 on.
    pub(crate) number: u64,
    pub(crate) last: bool,
    pub(crate) body: Bytes,
}

/// The fields of a note as they are laid out.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields {
    pub(crate) kind: u8,
    pub(crate) log_term: u64,
    pub(crate) index: u64,
    pub(crate) commit: u64,
    pub(crate) commit_term: u64,
    pub(crate) reject_hint: u64,
    pub(crate) context: Bytes,
    pub(crate) body: Bytes,
}

/// Whether a message of this type is a note.
pub(crate) fn is_note(kind: u8) -> bool {
    (32..=43).contains(&kind)
}

impl Says {
    pub(crate) fn to_fields(&self) -> Fields {
        match self.clone() {
            Says::Offer(Offer { id, index, term, offset, bytes, digest, members }) => Fields {
                kind: 32,
                log_term: term,
                index,
                commit: id,
                commit_term: bytes,
                reject_hint: u64::from(offset),
                context: Bytes::copy_from_slice(&digest),
                body: Bytes::from(members.encode()),
            },
            Says::Want { id, part } => Fields { kind: 42, index: part, commit: id, ..Fields::default() },
            Says::Part { id, part: SnapshotPart { number, last, body } } => Fields {
                kind: 43,
                index: number,
                commit: id,
                reject_hint: u64::from(last),
                body,
                ..Fields::default()
            },
            Says::Gone { id } => Fields { kind: 35, commit: id, ..Fields::default() },
            Says::Digest { index, term, digest } => Fields {
                kind: 36,
                log_term: term,
                index,
                context: Bytes::copy_from_slice(&digest),
                ..Fields::default()
            },
            Says::Forward { body } => Fields { kind: 37, body, ..Fields::default() },
            Says::Overtaken { entry } => Fields { kind: 38, body: entry, ..Fields::default() },
            Says::Settled { was: Position { term, index, offset } } => Fields {
                kind: 39,
                log_term: term,
                index,
                reject_hint: u64::from(offset),
                ..Fields::default()
            },
            Says::ReadAsked { context } => {
                Fields { kind: 40, context: Bytes::copy_from_slice(&context), ..Fields::default() }
            }
            Says::ReadConfirmed { context, index } => {
                Fields { kind: 41, index, context: Bytes::copy_from_slice(&context), ..Fields::default() }
            }
        }
    }

    /// The reverse; `Err` says what is wrong.
    pub(crate) fn from_fields(fields: Fields) -> Result<Self, &'static str> {
        let Fields { kind, log_term, index, commit, commit_term, reject_hint, context, body } = fields;
        if ![32, 37, 38, 43].contains(&kind) && !body.is_empty() {
            return Err("a note of this kind has no body");
        }
        let digest =
            |context: &[u8]| context.first_chunk::<DIGEST_BYTES>().copied().ok_or("a digest is cut off");
        if kind == 32 && body.len() > PART_BYTES_MAX {
            return Err("a snapshot has too many members");
        }
        Ok(match kind {
            32 => {
                // The log and the engine count on from them.
                if [index, log_term].iter().any(|number| !(1..=NUMBER_MAX).contains(number)) {
                    return Err("a snapshot's term or index is out of range");
                }
                let digest = digest(&context)?;
                let members = Membership::decode(&body);
                let members = members.filter(|members| !members.members.is_empty());
                let members = members.ok_or("the members of a snapshot are malformed")?;
                let offset = u32::try_from(reject_hint).map_err(|_| "a snapshot's offset is out of range")?;
                Says::Offer(Offer {
                    id: commit,
                    index,
                    term: log_term,
                    offset,
                    bytes: commit_term,
                    digest,
                    members,
                })
            }
            35 => Says::Gone { id: commit },
            36 if context.len() == DIGEST_BYTES => {
                Says::Digest { index, term: log_term, digest: digest(&context)? }
            }
            37 if body.len() <= FORWARD_BYTES_MAX => Says::Forward { body },
            38 => Says::Overtaken { entry: body },
            39 => {
                let offset = u32::try_from(reject_hint).map_err(|_| "an offset is out of range")?;
                Says::Settled { was: Position { term: log_term, index, offset } }
            }
            40 => Says::ReadAsked { context: read_context(&context)? },
            41 if index > NUMBER_MAX => return Err("the index of a read is out of range"),
            41 => Says::ReadConfirmed { context: read_context(&context)?, index },
            42 | 43 if index > NUMBER_MAX => return Err("the number of a part is out of range"),
            42 => Says::Want { id: commit, part: index },
            43 if body.len() > PART_BYTES_MAX => return Err("a part of a snapshot is too long"),
            43 if reject_hint > 1 => return Err("a part of a snapshot is the last one, or it is not"),
            43 => {
                let part = SnapshotPart { number: index, last: reject_hint == 1, body };
                Says::Part { id: commit, part }
            }
            _ => return Err("a note of a kind that is not known"),
        })
    }
}

fn read_context(context: &[u8]) -> Result<ReadContext, &'static str> {
    context.try_into().map_err(|_| "the context of a read has not 16 bytes")
}
