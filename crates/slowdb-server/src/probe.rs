//! What checkers look at after every turn: the groups of a node, without a request.
//!
//! Nothing here changes anything, and nothing of it goes over the wire.

use crate::machine::Machine;
use crate::node::Node;
use slowdb_proto::Position;
use slowdb_repl::GroupId;

/// A group as it stands on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupProbe {
    /// The group.
    pub group: GroupId,
    /// Whether this node leads it.
    pub leads: bool,
    /// Its term.
    pub term: u64,
    /// Last position applied.
    pub applied: Position,
    /// Digest of all replicated state at that position, for a shard.
    pub digest: Option<[u8; 16]>,
    /// Whether it is halted here.
    pub halted: bool,
}

impl Node {
    /// Shows every group.
    pub fn probe(&self, mut see: impl FnMut(GroupProbe)) {
        for group in self.repl.groups() {
            let digest = self.repl.machine(group).and_then(Machine::shard).map(|shard| shard.digest());
            see(GroupProbe {
                group,
                leads: self.repl.leads(group),
                term: self.repl.leader(group).map_or(0, |(_, term)| term),
                applied: self.repl.applied(group).unwrap_or_default(),
                digest,
                halted: self.halted.contains_key(&group),
            });
        }
    }

    /// Why a group is halted here, if it is.
    pub fn halted(&self, group: GroupId) -> Option<&str> {
        self.halted.get(&group).map(String::as_str)
    }

    /// Checks what must hold after every turn. For tests and simulation: it panics on a violation.
    pub fn check_invariants(&self) {
        self.repl.check_invariants();
    }
}
