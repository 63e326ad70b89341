//! Consensus messages as bytes. Nothing from the network is ever parsed as protobuf.
//!
//! A peer frame has a meta part, laid out here, and a body: the data of all entries, one after the other, so
//! that it is sent from, and received into, the buffers that go to the log. All numbers are little endian.
//!
//! ```text
//! meta     0..16   cluster id
//!          16..20  messages  u32
//!          20..24  zero
//! message  0..8    group             u64
//!          8..16   from (replica)    u64
//!          16..24  to (replica)      u64
//!          24..32  term              u64
//!          32..40  log term          u64
//!          40..48  index             u64
//!          48..56  commit            u64
//!          56..64  commit term       u64
//!          64..72  reject hint       u64
//!          72..80  priority          i64
//!          80      type              u8   3 append, 4 append response, 5 vote, 6 vote response, 8 heartbeat,
//!                                         9 heartbeat response, 14 time out now, 17 pre-vote, 18 pre-vote response;
//!                                         32 to 43 notes, see [`crate::note`]; 44 to 46 of rolls, see [`crate::roll`]
//!          81      reject            u8   0 or 1
//!          82..84  context length    u16  at most 64
//!          84..88  entries           u32  of a note the bytes of its body
//!          88..    context, then per entry: term u64, kind u8 (0 proposals, 2 members), zero [u8; 3], data length u32
//! ```
//!
//! The entries of an append follow its index without gaps, so their own indexes are not sent.
//!
//! The context of a heartbeat is, each part if it has it, the 8 bytes of a read that asks whether its leader still leads,
//! and a stamp: tick u64, quickest link u16 (see [`crate::links`]). Its answer has the same context.

use super::log::{data_of, kind_from_byte, kind_to_byte};
use crate::ids::{GroupId, ReplicaId};
use crate::links::Stamp;
use crate::note::{self, Fields, Note, Says};
use crate::roll::{self, Word};
use bytes::{BufMut, Bytes, BytesMut};
use raft::eraftpb::{Entry, Message, MessageType};

/// What a node says as long as it is not part of a cluster. While one is being founded some of its nodes know
/// its id before others, so this matches every id; who may connect at all is decided before.
pub(crate) const NO_CLUSTER: [u8; 16] = [0; 16];
const CONTEXT_BYTES_MAX: usize = 64;
/// Terms and indexes stay below, so that counting on from them never overflows.
pub(crate) const NUMBER_MAX: u64 = 1 << 62;
const MESSAGES_MAX: u32 = 65_536;
/// Frames of many messages are closed at this size; readers take twice as much.
const META_BYTES_FULL: usize = 512 * 1024;
const MESSAGE_BYTES: usize = 88;
const ENTRY_BYTES: usize = 16;
const READ_BYTES: usize = 8;
const STAMP_BYTES: usize = 10;

/// A message to a replica of a group on another node.
pub(crate) struct GroupMessage {
    pub(crate) group: GroupId,
    pub(crate) message: Payload,
}

/// What replicas of a group send each other.
pub(crate) enum Payload {
    /// For the consensus engine.
    Consensus(Message),
    /// For the rest of the replica.
    Note(Note),
    /// From one node to another, of groups that rest. It is of no group.
    Roll(Word),
}

/// Bytes that are no consensus messages of this cluster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// From or for another cluster.
    #[error("the frame belongs to another cluster")]
    OtherCluster,
    /// Not laid out as documented.
    #[error("malformed peer frame: {0}")]
    Malformed(&'static str),
    /// An entry that no group of this cluster may have.
    #[error("an entry of {bytes} bytes is over the limit of {limit}: do all nodes have the same?")]
    EntryTooLarge {
        /// Its length, in bytes.
        bytes: usize,
        /// [`Limits::entry_bytes_max`](crate::Limits::entry_bytes_max).
        limit: usize,
    },
}

pub(crate) struct FrameBuilder {
    meta: BytesMut,
    body: Vec<Bytes>,
    body_bytes: usize,
    messages: u32,
}

impl FrameBuilder {
    pub(crate) fn new(cluster: [u8; 16]) -> Self {
        let mut meta = BytesMut::with_capacity(128);
        meta.put_slice(&cluster);
        meta.put_u64_le(0);
        FrameBuilder { meta, body: Vec::new(), body_bytes: 0, messages: 0 }
    }

    /// Whether the next message belongs in another frame. Well below what a reader accepts of a frame's meta
    /// part, whatever the next message is.
    pub(crate) fn is_full(&self) -> bool {
        self.meta.len() >= META_BYTES_FULL
    }

    pub(crate) fn push(&mut self, group: GroupId, message: Payload) {
        match message {
            Payload::Consensus(message) => self.push_consensus(group, message),
            Payload::Note(note) => self.push_fields(group, note.from, note.to, note.says.to_fields()),
            Payload::Roll(word) => self.push_fields(GroupId(0), ReplicaId(0), ReplicaId(0), word.to_fields()),
        }
        self.messages += 1;
    }

    fn push_fields(&mut self, group: GroupId, from: ReplicaId, to: ReplicaId, fields: Fields) {
        let Fields { kind, log_term, index, commit, commit_term, reject_hint, context, body } = fields;
        let meta = &mut self.meta;
        for word in [group.0, from.0, to.0, 0, log_term, index, commit, commit_term, reject_hint, 0] {
            meta.put_u64_le(word);
        }
        meta.put_u8(kind);
        meta.put_u8(0);
        meta.put_u16_le(context.len() as u16);
        meta.put_u32_le(body.len() as u32);
        meta.put_slice(&context);
        if !body.is_empty() {
            self.body_bytes += body.len();
            self.body.push(body);
        }
    }

    fn push_consensus(&mut self, group: GroupId, message: Message) {
        let meta = &mut self.meta;
        meta.put_u64_le(group.0);
        for word in [
            message.from,
            message.to,
            message.term,
            message.log_term,
            message.index,
            message.commit,
            message.commit_term,
            message.reject_hint,
        ] {
            meta.put_u64_le(word);
        }
        meta.put_i64_le(message.priority);
        meta.put_u8(message.msg_type as u8);
        meta.put_u8(u8::from(message.reject));
        meta.put_u16_le(message.context.len() as u16);
        meta.put_u32_le(message.entries.len() as u32);
        meta.put_slice(&message.context);
        let mut indexes = message.entries.iter().zip(message.index + 1..);
        assert!(
            indexes.all(|(entry, index)| entry.index == index),
            "the entries of an append to {} do not follow {}",
            message.to,
            message.index
        );
        for entry in message.entries {
            meta.put_u64_le(entry.term);
            meta.put_u8(kind_to_byte(entry.entry_type));
            meta.put_bytes(0, 3);
            let data = data_of(&entry);
            meta.put_u32_le(data.len() as u32);
            if !data.is_empty() {
                self.body_bytes += data.len();
                self.body.push(data.clone());
            }
        }
    }

    pub(crate) fn finish(mut self) -> (Bytes, Vec<Bytes>, usize) {
        self.meta[16..20].copy_from_slice(&self.messages.to_le_bytes());
        let bytes = self.meta.len() + self.body_bytes;
        (self.meta.freeze(), self.body, bytes)
    }
}

/// Reads a peer frame. Entry data shares the memory of `body`.
pub(crate) fn decode(cluster: [u8; 16], meta: &[u8], body: &Bytes) -> Result<Vec<GroupMessage>, WireError> {
    let mut reader = Reader { rest: meta };
    let theirs: [u8; 16] = reader.array()?;
    if theirs != cluster && theirs != NO_CLUSTER && cluster != NO_CLUSTER {
        return Err(WireError::OtherCluster);
    }
    let count = reader.u32()?;
    if count > MESSAGES_MAX {
        return Err(WireError::Malformed("too many messages"));
    }
    reader.u32()?;
    let mut body_at = 0;
    let mut messages = Vec::with_capacity((count as usize).min(meta.len() / MESSAGE_BYTES));
    for _ in 0..count {
        messages.push(decode_message(&mut reader, body, &mut body_at)?);
    }
    if !reader.rest.is_empty() || body_at != body.len() {
        return Err(WireError::Malformed("more bytes than the messages account for"));
    }
    Ok(messages)
}

fn decode_message(
    reader: &mut Reader<'_>,
    body: &Bytes,
    body_at: &mut usize,
) -> Result<GroupMessage, WireError> {
    let mut fixed = Reader { rest: reader.take(MESSAGE_BYTES)? };
    let group = GroupId(fixed.u64()?);
    let mut message = Message::default();
    message.from = fixed.u64()?;
    message.to = fixed.u64()?;
    message.term = fixed.u64()?;
    message.log_term = fixed.u64()?;
    message.index = fixed.u64()?;
    message.commit = fixed.u64()?;
    message.commit_term = fixed.u64()?;
    message.reject_hint = fixed.u64()?;
    message.priority = fixed.u64()? as i64;
    let kind = fixed.u8()?;
    if note::is_note(kind) || roll::is_word(kind) {
        return decode_fields(group, kind, &message, reader, &mut fixed, body, body_at);
    }
    let Message { term, log_term, index, commit, commit_term, reject_hint, .. } = message;
    let numbers = [term, log_term, index, commit, commit_term, reject_hint];
    // The engine takes a message of term 0 for one of its own, and checks nothing.
    if numbers.into_iter().any(|number| number > NUMBER_MAX) || term == 0 {
        return Err(WireError::Malformed("a term or index is out of range"));
    }
    message.msg_type = message_type(kind)?;
    message.reject = fixed.u8()? != 0;
    // The engine takes an entry that it does not have for one of term 0.
    let is_append = message.msg_type == MessageType::MsgAppend;
    if is_append && (message.index == 0) != (message.log_term == 0) {
        return Err(WireError::Malformed("an append follows an entry that cannot be"));
    }
    let context_len = usize::from(fixed.u16()?);
    let entries = fixed.u32()?;
    if context_len > CONTEXT_BYTES_MAX {
        return Err(WireError::Malformed("a context is too long"));
    }
    message.context = Bytes::copy_from_slice(reader.take(context_len)?);
    if entries > 0 && !is_append {
        return Err(WireError::Malformed("only an append carries entries"));
    }
    if entries as usize > reader.rest.len() / ENTRY_BYTES {
        return Err(WireError::Malformed("it ends inside the entries"));
    }
    let mut decoded = Vec::with_capacity(entries as usize);
    let mut term_before = message.log_term;
    for at in 0..u64::from(entries) {
        let mut entry = decode_entry(reader, body, body_at)?;
        if entry.term < term_before || entry.term > message.term {
            return Err(WireError::Malformed("the terms of the entries are out of order"));
        }
        term_before = entry.term;
        entry.index = message.index.checked_add(at + 1).ok_or(WireError::Malformed("an index overflows"))?;
        decoded.push(entry);
    }
    message.entries = decoded.into();
    Ok(GroupMessage { group, message: Payload::Consensus(message) })
}

/// A note, or a word about rolls, whose numbers have been read into a message.
fn decode_fields(
    group: GroupId,
    kind: u8,
    words: &Message,
    reader: &mut Reader<'_>,
    fixed: &mut Reader<'_>,
    body: &Bytes,
    body_at: &mut usize,
) -> Result<GroupMessage, WireError> {
    fixed.u8()?;
    let context_len = usize::from(fixed.u16()?);
    let body_len = fixed.u32()? as usize;
    if context_len > CONTEXT_BYTES_MAX {
        return Err(WireError::Malformed("a context is too long"));
    }
    let context = Bytes::copy_from_slice(reader.take(context_len)?);
    let fields = Fields {
        kind,
        log_term: words.log_term,
        index: words.index,
        commit: words.commit,
        commit_term: words.commit_term,
        reject_hint: words.reject_hint,
        context,
        body: slice_of(body, body_at, body_len)?,
    };
    if roll::is_word(kind) {
        let word = Word::from_fields(&fields).map_err(WireError::Malformed)?;
        return Ok(GroupMessage { group, message: Payload::Roll(word) });
    }
    let says = Says::from_fields(fields).map_err(WireError::Malformed)?;
    let note = Note { from: ReplicaId(words.from), to: ReplicaId(words.to), says };
    Ok(GroupMessage { group, message: Payload::Note(note) })
}

/// Whether the log can hold all entries of a message.
///
/// # Errors
/// [`WireError::EntryTooLarge`].
pub(crate) fn check_entries(message: &Payload, limit: usize) -> Result<(), WireError> {
    let Payload::Consensus(message) = message else { return Ok(()) };
    let mut lengths = message.entries.iter().map(|entry| data_of(entry).len());
    match lengths.find(|bytes| *bytes > limit) {
        Some(bytes) => Err(WireError::EntryTooLarge { bytes, limit }),
        None => Ok(()),
    }
}

fn slice_of(body: &Bytes, body_at: &mut usize, len: usize) -> Result<Bytes, WireError> {
    let end = body_at.checked_add(len).filter(|end| *end <= body.len());
    let end = end.ok_or(WireError::Malformed("it reaches beyond the body"))?;
    let slice = body.slice(*body_at..end);
    *body_at = end;
    Ok(slice)
}

fn decode_entry(reader: &mut Reader<'_>, body: &Bytes, body_at: &mut usize) -> Result<Entry, WireError> {
    let mut entry = Entry::default();
    entry.term = reader.u64()?;
    let kind = reader.u8()?;
    reader.take(3)?;
    let len = reader.u32()? as usize;
    if kind != 0 && kind != 2 {
        return Err(WireError::Malformed("an entry's kind is unknown"));
    }
    entry.entry_type = kind_from_byte(kind);
    entry.data = slice_of(body, body_at, len)?;
    Ok(entry)
}

/// Only what replicas really send each other: local messages, forwarded proposals and forwarded reads are
/// never taken from the network.
pub(crate) const MESSAGE_TYPES: [MessageType; 9] = [
    MessageType::MsgAppend,
    MessageType::MsgAppendResponse,
    MessageType::MsgRequestVote,
    MessageType::MsgRequestVoteResponse,
    MessageType::MsgHeartbeat,
    MessageType::MsgHeartbeatResponse,
    MessageType::MsgTimeoutNow,
    MessageType::MsgRequestPreVote,
    MessageType::MsgRequestPreVoteResponse,
];

fn message_type(byte: u8) -> Result<MessageType, WireError> {
    MESSAGE_TYPES
        .into_iter()
        .find(|allowed| *allowed as u8 == byte)
        .ok_or(WireError::Malformed("a message of a type that does not cross the network"))
}

/// Whether a message may leave this node at all.
pub(crate) fn is_sendable(message: &Payload) -> bool {
    match message {
        Payload::Consensus(message) => message_type(message.msg_type as u8).is_ok(),
        Payload::Note(_) | Payload::Roll(_) => true,
    }
}

/// Whether a message goes on its group's own stream. All appends do, empty ones too: one that overtook
/// the entries before it would be rejected, and the leader would take them for lost.
pub(crate) fn is_bulk(message: &Payload) -> bool {
    match message {
        Payload::Consensus(message) => message.msg_type == MessageType::MsgAppend,
        Payload::Note(note) => matches!(note.says, Says::Overtaken { .. }),
        Payload::Roll(_) => false,
    }
}

/// Whether a message is part of a snapshot, which go on a connection of their own.
pub(crate) fn is_snapshot_part(message: &Payload) -> bool {
    matches!(message, Payload::Note(Note { says: Says::Part { .. }, .. }))
}

/// Who a message is from and for.
pub(crate) fn parties(message: &Payload) -> (ReplicaId, ReplicaId) {
    match message {
        Payload::Consensus(message) => (ReplicaId(message.from), ReplicaId(message.to)),
        Payload::Note(note) => (note.from, note.to),
        Payload::Roll(_) => (ReplicaId(0), ReplicaId(0)),
    }
}

/// Adds a stamp to a heartbeat. False if it is none.
pub(crate) fn stamp(message: &mut Payload, stamp: impl FnOnce() -> Stamp) -> bool {
    let Payload::Consensus(message) = message else { return false };
    if message.msg_type != MessageType::MsgHeartbeat {
        return false;
    }
    let Stamp { tick, quickest } = stamp();
    let mut context = BytesMut::with_capacity(message.context.len() + STAMP_BYTES);
    context.put_slice(&message.context);
    context.put_u64_le(tick);
    context.put_u16_le(quickest);
    message.context = context.freeze();
    true
}

/// The stamp of a heartbeat that arrived: the engine sends it back with its answer.
pub(crate) fn stamp_of(message: &Payload) -> Option<Stamp> {
    let Payload::Consensus(message) = message else { return None };
    if message.msg_type != MessageType::MsgHeartbeat {
        return None;
    }
    split_stamp(&message.context).map(|(stamp, _)| stamp)
}

/// Takes the stamp off the answer to a heartbeat, so that the engine sees what it has sent.
pub(crate) fn take_stamp(message: &mut Payload) -> Option<Stamp> {
    let Payload::Consensus(message) = message else { return None };
    if message.msg_type != MessageType::MsgHeartbeatResponse {
        return None;
    }
    let (stamp, read_bytes) = split_stamp(&message.context)?;
    message.context.truncate(read_bytes);
    Some(stamp)
}

/// The stamp at the end of a context, and how long it is without.
fn split_stamp(context: &[u8]) -> Option<(Stamp, usize)> {
    let (read, stamp) = context.split_last_chunk::<STAMP_BYTES>()?;
    if !read.is_empty() && read.len() != READ_BYTES {
        return None;
    }
    let (tick, quickest) = stamp.split_first_chunk::<8>()?;
    let quickest = u16::from_le_bytes(quickest.try_into().ok()?);
    Some((Stamp { tick: u64::from_le_bytes(*tick), quickest }, read.len()))
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (head, tail) =
            self.rest.split_at_checked(len).ok_or(WireError::Malformed("it ends too early"))?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, WireError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn u64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_le_bytes(self.array()?))
    }
}
