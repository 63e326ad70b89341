//! What can go wrong, by operation: opening, appending, reading.

use std::io;

/// Why a log could not be opened. Nothing was changed on the disk that a later opening would miss.
#[derive(Debug, thiserror::Error)]
pub enum WalOpenError {
    /// The options cannot be used.
    #[error("write-ahead log options: {0}")]
    Options(String),
    /// Something that had been synced cannot be read any more.
    #[error(transparent)]
    Corrupt(#[from] Corruption),
    /// The log was written by a version that this one does not understand.
    #[error(
        "{file} has log format {version}, this version reads format 1 only; open it with the version that wrote it"
    )]
    UnsupportedVersion {
        /// The segment file.
        file: String,
        /// The format found.
        version: u32,
    },
    /// There is no room for the segment that every opening writes.
    #[error("no room for a new log segment of {bytes} bytes in {dir}; free some space and start again")]
    NoSpace {
        /// The log's directory.
        dir: String,
        /// The size of the segment.
        bytes: u64,
    },
    /// All 4,294,967,295 opening numbers are used.
    #[error("the log in {dir} has been opened too often to be opened once more")]
    OpeningsExhausted {
        /// The log's directory.
        dir: String,
    },
    /// The disk failed.
    #[error("{operation} {path}: {source}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To which file.
        path: String,
        /// What the disk said.
        source: io::Error,
    },
}

/// Something that had been synced cannot be read any more. The log is not opened: skipping it could undo
/// votes and acknowledged writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{file} is corrupt at byte {offset}: {what}; groups with records there: {groups:?}. What was lost had been \
     promised, so this node must not go on with it: start it with an empty storage path, so that its \
     replicas are made anew from the others"
)]
pub struct Corruption {
    /// The segment file.
    pub file: String,
    /// Where in it, in bytes.
    pub offset: u64,
    /// What is wrong.
    pub what: CorruptionKind,
    /// The groups that have records at that place or behind it in the same segment, as far as can be read.
    /// A record that cannot be read at all may be of any group.
    pub groups: Vec<u64>,
}

/// What is wrong with a corrupt log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CorruptionKind {
    /// Neither copy of the segment's header can be read.
    #[error("neither copy of the segment header can be read")]
    SegmentHeader,
    /// The file is shorter than its header says.
    #[error("the file has {actual} bytes where its header says {expected}")]
    FileLength {
        /// What the header says.
        expected: u64,
        /// What is there.
        actual: u64,
    },
    /// The segment belongs to another log.
    #[error("the segment belongs to log {found:016x}, the others to log {expected:016x}")]
    OtherLog {
        /// The log of the other segments.
        expected: u64,
        /// The log of this one.
        found: u64,
    },
    /// Two files claim to be the same segment.
    #[error("{other} claims to be the same segment, number {sequence}")]
    Duplicate {
        /// The other file.
        other: String,
        /// The sequence number of both.
        sequence: u64,
    },
    /// A segment that is needed is not there.
    #[error("the segment before it, number {sequence}, is missing")]
    MissingSegment {
        /// Its sequence number.
        sequence: u64,
    },
    /// There is no record where one was synced.
    #[error("a synced record cannot be read: its header is damaged")]
    RecordHeader,
    /// There is a record of another opening of the log where one was synced.
    #[error("a record of another opening of the log lies where a synced one should be")]
    RecordOpening,
    /// A record's checksum is right, but it cannot be what it says.
    #[error("a record header makes no sense")]
    RecordMalformed,
    /// A record does not follow on the one before.
    #[error("a synced record does not follow on the record before it")]
    RecordChain,
    /// A record's payload is damaged.
    #[error("the payload of a synced record is damaged")]
    RecordBody,
    /// A segment's last record is not the one that the next segment names.
    #[error("the segment's last record is not the one that the next segment follows on")]
    SegmentChain,
    /// The records can be read, but no log of groups consists of these.
    #[error("the records contradict each other: {0}")]
    Impossible(String),
}

/// Why the log refused or failed to append, sync or release.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WalError {
    /// A record of the batch cannot be appended. Nothing was written, the log goes on.
    #[error(transparent)]
    Invalid(#[from] InvalidRecord),
    /// There is no room for another segment. Nothing was written, the log goes on: compact groups and
    /// release segments, or free some space.
    #[error(
        "no room for a new log segment of {bytes} bytes: {message}; nothing was appended, free some space or let \
         replicas be checkpointed"
    )]
    NoSpace {
        /// The size of the segment.
        bytes: u64,
        /// What the disk said.
        message: String,
    },
    /// The disk failed before anything was written. The log goes on.
    #[error("{operation} {path}: {message}; nothing was appended")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To which file.
        path: String,
        /// What the disk said.
        message: String,
    },
    /// A write or sync failed, now or earlier. What is on the disk is not known any more, so that nothing can be
    /// appended until the log is opened again.
    #[error("the write-ahead log failed and is closed to writes: {operation}: {message}; restart the node")]
    Poisoned {
        /// What failed.
        operation: &'static str,
        /// What the disk said.
        message: String,
    },
}

/// Why a record cannot be appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidRecord {
    /// An overtaken proposal without its offset.
    #[error("group {group}: an overtaken proposal has {bytes} bytes, less than its offset takes")]
    OvertakenCutOff {
        /// The group.
        group: u64,
        /// The length of the payload, in bytes.
        bytes: usize,
    },
    /// The payload is too large.
    #[error("group {group}: a payload of {bytes} bytes is over the limit of {limit}")]
    TooLarge {
        /// The group.
        group: u64,
        /// The length of the payload, in bytes.
        bytes: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// Index or term is 0, or beyond 2⁶³ - 1.
    #[error("group {group}: index {index} in term {term}: both count from 1 to 2^63 - 1")]
    OutOfRange {
        /// The group.
        group: u64,
        /// The index given.
        index: u64,
        /// The term given.
        term: u64,
    },
    /// The append was ordered by a leader of a term that is over.
    #[error(
        "group {group}: the append was ordered in term {leader_term}, but the group is in term {current}"
    )]
    StaleLeader {
        /// The group.
        group: u64,
        /// The term of the leader.
        leader_term: u64,
        /// The term of the group.
        current: u64,
    },
    /// The entry is of a later term than the leader that ordered it.
    #[error("group {group}: entry {index} is of term {term}, later than its leader's term {leader_term}")]
    BeyondLeader {
        /// The group.
        group: u64,
        /// The entry's index.
        index: u64,
        /// The entry's term.
        term: u64,
        /// The term of the leader.
        leader_term: u64,
    },
    /// The entry is of an older term than the one before it.
    #[error(
        "group {group}: entry {index} is of term {term}, older than term {previous} of the entry before it"
    )]
    TermGoesBack {
        /// The group.
        group: u64,
        /// The entry's index.
        index: u64,
        /// The entry's term.
        term: u64,
        /// The term of the entry before it.
        previous: u64,
    },
    /// The entry would leave a gap.
    #[error("group {group}: entry {index} leaves a gap, the next one is {expected}")]
    Gap {
        /// The group.
        group: u64,
        /// The entry's index.
        index: u64,
        /// The index that would be right.
        expected: u64,
    },
    /// The append would cut away what is committed.
    #[error("group {group}: entry {index} would replace a committed one, the commit index is {commit}")]
    Committed {
        /// The group.
        group: u64,
        /// The entry's index.
        index: u64,
        /// The group's commit index.
        commit: u64,
    },
    /// The hard state goes back.
    #[error("group {group}: hard state {new:?} goes back behind {current:?}")]
    HardStateGoesBack {
        /// The group.
        group: u64,
        /// The state it has.
        current: super::HardState,
        /// The state given.
        new: super::HardState,
    },
    /// The vote of a term was given to somebody else already.
    #[error("group {group}: the vote of term {} was given to {}, it cannot go to {}", current.term, current.vote, new.vote)]
    VoteChanged {
        /// The group.
        group: u64,
        /// The state it has.
        current: super::HardState,
        /// The state given.
        new: super::HardState,
    },
    /// The commit index is beyond the group's last entry.
    #[error(
        "group {group}: commit index {commit} is beyond the last entry, {last}; append the entries first"
    )]
    CommitBeyondEnd {
        /// The group.
        group: u64,
        /// The commit index given.
        commit: u64,
        /// The last index of the group.
        last: u64,
    },
    /// The group is compacted further already.
    #[error("group {group}: compacting to {index} goes back, it is compacted to {current}")]
    CompactedGoesBack {
        /// The group.
        group: u64,
        /// The index given.
        index: u64,
        /// The index it is compacted to.
        current: u64,
    },
    /// More is committed than the snapshot holds.
    #[error("group {group}: a snapshot at {index} goes back, its log is committed to {commit}")]
    SnapshotGoesBack {
        /// The group.
        group: u64,
        /// The index given.
        index: u64,
        /// The index it is committed to.
        commit: u64,
    },
    /// The entry to compact to is committed in another term.
    #[error("group {group}: entry {index} is committed in term {current}, not in term {term}")]
    CompactedTerm {
        /// The group.
        group: u64,
        /// The index given.
        index: u64,
        /// The term given.
        term: u64,
        /// The term the entry has.
        current: u64,
    },
    /// The group was removed.
    #[error("group {group} was removed from this node, its id cannot be used again")]
    Removed {
        /// The group.
        group: u64,
    },
}

/// Why the payload of an entry could not be read.
#[derive(Debug, thiserror::Error)]
pub enum WalReadError {
    /// Its segment was released: the group was compacted past the entry, or its tail was cut.
    #[error("log segment {segment} was released, the entry is not in the log any more")]
    Released {
        /// The sequence number of the segment.
        segment: u64,
    },
    /// The record is damaged.
    #[error("the record at byte {offset} of log segment {segment} is damaged")]
    Damaged {
        /// The sequence number of the segment.
        segment: u64,
        /// Where in it, in bytes.
        offset: u32,
    },
    /// The disk failed.
    #[error("reading log segment {segment}: {source}")]
    Io {
        /// The sequence number of the segment.
        segment: u64,
        /// What the disk said.
        source: io::Error,
    },
}
