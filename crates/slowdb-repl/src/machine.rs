//! What is replicated.

use crate::entry::ProposalView;
use std::fmt;

/// A deterministic state machine: the same proposals in the same order give the same state everywhere.
///
/// It keeps its own durable checkpoints. After a restart it says up to which entry it holds everything
/// ([`StateMachine::held`]), and gets every committed entry after that again.
///
/// A machine that gives and takes snapshots can be brought to replicas that are new, or that are behind the log
/// that is kept. One without them works in groups whose members never change and keep their disks.
pub trait StateMachine {
    /// What applying a proposal gives back to the proposer.
    type Outcome;

    /// Whether the machine knows what to do with late proposals ([`crate::ProposalHeader::late`]): they were acknowledged
    /// at [`crate::AckLevel::One`], and overtaken by what has been applied since. Without that they are kept where they
    /// were cut ([`crate::Replicator::quarantined`]), and never applied.
    const TAKES_LATE: bool = false;

    /// The entry at this index is the first of its term, and about to be applied; it may hold no proposal. After a
    /// restart the machine may be told again, of the entries that it is given again.
    fn begin_term(&mut self, term: u64, index: u64) -> Result<(), ApplyError> {
        let _ = (term, index);
        Ok(())
    }

    /// Applies a proposal. An error halts the group on this node: it means that the machine cannot go on (its
    /// disk failed, say), never that the proposal was refused, for a refusal is an outcome.
    fn apply(&mut self, proposal: &ProposalView<'_>) -> Result<Self::Outcome, ApplyError>;

    /// Whether a late proposal ([`crate::ProposalHeader::late`]) is taken care of, as its outcome says: executed, found to
    /// be executed, or kept somewhere for good. Until it is, whoever holds it keeps it, and offers it again.
    fn settles(outcome: &Self::Outcome) -> bool {
        let _ = outcome;
        true
    }

    /// All proposals of the entry at this index have been applied, and every member of the group had the log up to `floor`
    /// when it was proposed. This is heard of entries without proposals, too, with a floor of 0. A checkpoint may only say that
    /// it holds an entry from here on: one that was made between two proposals would lose the second in a crash.
    fn end_of_entry(&mut self, index: u64, floor: u64) -> Result<(), ApplyError> {
        let _ = (index, floor);
        Ok(())
    }

    /// Index of the last entry that is held durably, 0 if none.
    fn held(&self) -> u64;

    /// Digest of all replicated state: equal on replicas that applied the same entries, and on no others.
    fn digest(&self) -> [u8; 16] {
        [0; 16]
    }

    /// The state as it is now, to be read while the machine goes on.
    fn snapshot(&mut self) -> Result<Box<dyn SnapshotSource>, ApplyError> {
        Err(ApplyError("this state machine gives no snapshots".to_owned()))
    }

    /// Begins to take in a snapshot beside the present state, which stays as it is. `incarnation` names what becomes
    /// of it; remains of an earlier attempt under that name are to be removed.
    fn stage(&mut self, incarnation: u64) -> Result<Box<dyn Staging>, ApplyError> {
        let _ = incarnation;
        Err(ApplyError("this state machine takes no snapshots".to_owned()))
    }

    /// Goes on from what was staged under this name, and is durable. From now on [`StateMachine::held`] is the index
    /// that the snapshot was made at. The state before it is to be kept until [`StateMachine::forget`].
    fn install(&mut self, incarnation: u64) -> Result<(), ApplyError> {
        let _ = incarnation;
        Err(ApplyError("this state machine takes no snapshots".to_owned()))
    }

    /// Whatever is kept under other names than the one in use can be removed. It need not happen at once.
    fn forget(&mut self) {}
}

/// A state at one moment. Its parts are read on threads that may block.
pub trait SnapshotSource: Send + Sync {
    /// Digest of the state, as the machine gave it at that moment.
    fn digest(&self) -> [u8; 16];

    /// About how many bytes all parts have together.
    fn bytes(&self) -> u64;

    /// Appends the part that begins at `cursor` to `out`: some hundred kilobytes. Gives the cursor of the next part,
    /// `None` after the last. The first is 0. The same cursor always gives the same bytes, and cursors are below
    /// `u64::MAX`.
    fn read(&self, cursor: u64, out: &mut Vec<u8>) -> Result<Option<u64>, ApplyError>;
}

/// A snapshot on its way in. It is written on threads that may block, one call after the other.
pub trait Staging: Send {
    /// Takes the next part. It may be anything: the sender is trusted no more than the network.
    fn write(&mut self, part: &[u8]) -> Result<(), ApplyError>;

    /// All parts are there: makes them durable, and gives the digest of the state.
    fn finish(self: Box<Self>) -> Result<[u8; 16], ApplyError>;
}

/// A state machine cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplyError(pub String);

impl fmt::Display for ApplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ApplyError {}
