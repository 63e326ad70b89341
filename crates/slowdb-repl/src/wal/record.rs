//! The words of the log: what is appended, where it lies, what comes back after a restart.
//!
//! Nothing here knows how records look on the disk; that is `format`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

/// What a group must remember to keep its promises: the term it is in, whom it voted for in that term
/// (0: nobody) and up to where its log is known to be committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The latest term the group has seen.
    pub term: u64,
    /// The peer voted for in `term`, 0 for none.
    pub vote: u64,
    /// The highest index known to be committed.
    pub commit: u64,
}

/// One thing to append to the log.
///
/// In a batch the entries of a group come before the [`Record::HardState`] whose commit index covers them,
/// so that no crash can leave a commit index beyond the end of the group's log.
#[derive(Clone, Debug)]
pub enum Record {
    /// A log entry. At an index at or below the group's last, it first cuts the group's tail from there.
    Entry {
        /// The group it belongs to.
        group: u64,
        /// The term of the leader that ordered the append. Not stored: it is what lets the log refuse a
        /// deposed leader, since entries of old terms may well be appended by order of a new one.
        leader_term: u64,
        /// The term in which the entry was proposed.
        term: u64,
        /// Its index, one above its predecessor's.
        index: u64,
        /// What the payload is, to the caller.
        kind: u8,
        /// The payload.
        data: Bytes,
    },
    /// The group's hard state as of now. Neither term nor commit index may go back.
    HardState {
        /// The group it belongs to.
        group: u64,
        /// The new state.
        state: HardState,
    },
    /// The group's membership as of an applied index, opaque to the log. The last one wins.
    Config {
        /// The group it belongs to.
        group: u64,
        /// The membership, encoded by the caller.
        data: Bytes,
    },
    /// Entries up to `index` are no longer needed (they are applied and checkpointed, or a snapshot replaced
    /// them). Implies that `index` is committed. If the log does not hold `index` in `term`, all the
    /// group's entries go, and the next one appended is `index + 1`.
    Compacted {
        /// The group it belongs to.
        group: u64,
        /// The last index that is not needed.
        index: u64,
        /// The term of that entry, which is kept.
        term: u64,
    },
    /// The group goes on from a snapshot, or begins: all its entries go, the next one appended is `index + 1`, and
    /// its membership is this. One record, so that no crash leaves one without the other. Implies that `index` is
    /// committed.
    Snapshot {
        /// The group it belongs to.
        group: u64,
        /// The last index that the snapshot holds.
        index: u64,
        /// The term of that entry.
        term: u64,
        /// The membership as of that index, encoded by the caller.
        data: Bytes,
    },
    /// The group is gone for ever: nothing can be appended to it again.
    Removed {
        /// The group that is gone.
        group: u64,
    },
    /// A proposal that is about to be cut from the group's log, and is kept until it is settled; the group may be gone
    /// long before that. In a batch it comes before the record that cuts it, so that no crash loses it in between.
    Overtaken {
        /// The group it was proposed to.
        group: u64,
        /// The term that it was proposed in.
        term: u64,
        /// The index of its entry.
        index: u64,
        /// Its offset in the entry as a `u64`, little endian; then what the caller needs to offer it again.
        data: Bytes,
    },
    /// An overtaken proposal is taken care of, and need not be kept any more.
    Settled {
        /// The group it was proposed to.
        group: u64,
        /// The term that it was proposed in.
        term: u64,
        /// The index of its entry.
        index: u64,
        /// Its offset in the entry.
        offset: u64,
    },
}

impl Record {
    /// The group the record belongs to.
    pub fn group(&self) -> u64 {
        match self {
            Self::Entry { group, .. }
            | Self::HardState { group, .. }
            | Self::Config { group, .. }
            | Self::Compacted { group, .. }
            | Self::Snapshot { group, .. }
            | Self::Overtaken { group, .. }
            | Self::Settled { group, .. }
            | Self::Removed { group } => *group,
        }
    }
}

/// Where the payload of an entry lies. Valid until the segment that holds it is released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    pub(super) segment: u64,
    pub(super) offset: u32,
    pub(super) len: u32,
}

impl Location {
    /// The sequence number of the segment.
    pub fn segment(&self) -> u64 {
        self.segment
    }

    /// The offset of the record in its segment, in bytes.
    pub fn offset(&self) -> u32 {
        self.offset
    }
}

/// An entry without its payload, as found when the log was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryMeta {
    /// Its index.
    pub index: u64,
    /// The term in which it was proposed.
    pub term: u64,
    /// What the payload is, to the caller.
    pub kind: u8,
    /// The length of the payload, in bytes.
    pub len: u32,
    /// Where the payload lies.
    pub location: Location,
}

/// What the log holds of one group when it is opened. All of it is durable.
#[derive(Clone, Debug, Default)]
pub struct RecoveredGroup {
    /// The last hard state. Its term is at least that of the last entry, its commit index at least the
    /// compacted one and at most the last one.
    pub hard_state: HardState,
    /// The last membership written, if any was.
    pub config: Option<Bytes>,
    /// Index and term of the last entry that is not needed any more; (0, 0) for a log with its beginning.
    pub compacted: (u64, u64),
    /// The entries after that, without a gap, in order.
    pub entries: Vec<EntryMeta>,
}

/// What was found when the log was opened. All of it is durable.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// The live groups.
    pub groups: BTreeMap<u64, RecoveredGroup>,
    /// The groups that were removed: their ids can never be used again.
    pub removed: BTreeSet<u64>,
    /// Overtaken proposals that are not settled, by group, term, index and offset: what came with
    /// [`Record::Overtaken`].
    pub overtaken: BTreeMap<(u64, u64, u64, u64), Bytes>,
    /// Whether there was no log before.
    pub created: bool,
    /// The number of this opening, counted from 1. Openings that a crash interrupted count too.
    pub opening: u32,
    /// Where reading stopped in the newest segment, which was the end of the log: (file name, offset).
    /// What was written there, if anything, had never been synced.
    pub end: Option<(String, u32)>,
}
