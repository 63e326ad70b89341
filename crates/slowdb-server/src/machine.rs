//! What a group of this node replicates: the catalog or a shard.

use crate::catalog::CatalogMachine;
use crate::shard::{ShardMachine, WriteOutcome};
use slowdb_repl::{ApplyError, ProposalView, SnapshotSource, Staging, StateMachine};

#[expect(clippy::large_enum_variant, reason = "there are a few dozen, and nearly all are shards")]
pub(crate) enum Machine {
    Catalog(CatalogMachine),
    Shard(ShardMachine),
}

/// What applying a proposal gives back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Of a change of the catalog: why it had no effect, if it had none.
    Catalog(Option<String>),
    Write(WriteOutcome),
}

impl StateMachine for Machine {
    type Outcome = Outcome;

    const TAKES_LATE: bool = true;

    fn begin_term(&mut self, term: u64, index: u64) -> Result<(), ApplyError> {
        match self {
            Machine::Catalog(_) => Ok(()),
            Machine::Shard(shard) => shard.begin_term(term, index),
        }
    }

    fn settles(outcome: &Outcome) -> bool {
        *outcome != Outcome::Write(WriteOutcome::NoRoom)
    }

    fn apply(&mut self, proposal: &ProposalView<'_>) -> Result<Outcome, ApplyError> {
        match self {
            Machine::Catalog(catalog) => {
                catalog.apply(proposal).map(|outcome| Outcome::Catalog(outcome.err()))
            }
            Machine::Shard(shard) => shard.apply(proposal).map(Outcome::Write),
        }
    }

    fn end_of_entry(&mut self, index: u64, floor: u64) -> Result<(), ApplyError> {
        match self {
            Machine::Catalog(catalog) => catalog.end_of_entry(index),
            // Shards are checkpointed between entries.
            Machine::Shard(shard) => {
                shard.end_of_entry(index, floor);
                Ok(())
            }
        }
    }

    fn held(&self) -> u64 {
        match self {
            Machine::Catalog(catalog) => catalog.held(),
            Machine::Shard(shard) => shard.held(),
        }
    }

    fn digest(&self) -> [u8; 16] {
        match self {
            Machine::Catalog(catalog) => catalog.digest(),
            Machine::Shard(shard) => shard.digest(),
        }
    }

    fn snapshot(&mut self) -> Result<Box<dyn SnapshotSource>, ApplyError> {
        match self {
            Machine::Catalog(catalog) => Ok(catalog.snapshot()),
            Machine::Shard(shard) => shard.snapshot(),
        }
    }

    fn stage(&mut self, incarnation: u64) -> Result<Box<dyn Staging>, ApplyError> {
        match self {
            Machine::Catalog(catalog) => Ok(catalog.stage(incarnation)),
            Machine::Shard(shard) => shard.stage(incarnation),
        }
    }

    fn install(&mut self, incarnation: u64) -> Result<(), ApplyError> {
        match self {
            Machine::Catalog(catalog) => catalog.install(incarnation),
            Machine::Shard(shard) => shard.install(incarnation),
        }
    }

    fn forget(&mut self) {
        if let Machine::Shard(shard) = self {
            shard.forget();
        }
    }
}

impl Machine {
    pub(crate) fn catalog(&self) -> Option<&CatalogMachine> {
        match self {
            Machine::Catalog(catalog) => Some(catalog),
            Machine::Shard(_) => None,
        }
    }

    pub(crate) fn catalog_mut(&mut self) -> Option<&mut CatalogMachine> {
        match self {
            Machine::Catalog(catalog) => Some(catalog),
            Machine::Shard(_) => None,
        }
    }

    pub(crate) fn shard(&self) -> Option<&ShardMachine> {
        match self {
            Machine::Shard(shard) => Some(shard),
            Machine::Catalog(_) => None,
        }
    }

    pub(crate) fn shard_mut(&mut self) -> Option<&mut ShardMachine> {
        match self {
            Machine::Shard(shard) => Some(shard),
            Machine::Catalog(_) => None,
        }
    }
}
