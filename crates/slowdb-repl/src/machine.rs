//! What is replicated.

use crate::entry::ProposalView;
use std::fmt;

/// A deterministic state machine: the same proposals in the same order give the same state everywhere.
///
/// It keeps its own durable checkpoints. After a restart it says up to which entry it holds everything
/// ([`StateMachine::held`]), and gets every committed entry after that again.
pub trait StateMachine {
    /// What applying a proposal gives back to the proposer.
    type Outcome;

    /// Applies a proposal. An error halts the group on this node: it means that the machine cannot go on (its
    /// disk failed, say), never that the proposal was refused, for a refusal is an outcome.
    fn apply(&mut self, proposal: &ProposalView<'_>) -> Result<Self::Outcome, ApplyError>;

    /// Index of the last entry that is held durably, 0 if none.
    fn held(&self) -> u64;
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
