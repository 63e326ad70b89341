//! Names of things: nodes, groups, replicas.

use std::fmt;
use std::sync::Arc;

/// A node: one process with a log of its own.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// The node of this name.
    pub fn new(name: &str) -> Self {
        NodeId(Arc::from(name))
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A consensus group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupId(pub u64);

/// A replica of a group. Not 0, and never used again once the replica is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(pub u64);

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {}", self.0)
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "replica {}", self.0)
    }
}

/// A member's part in the decisions of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Part {
    /// Gets the log, and has no vote.
    Learner = 0,
    /// Votes.
    Voter = 1,
    /// In a joint configuration: votes in the new one only.
    Entering = 2,
    /// In a joint configuration: votes in the old one only, and is gone with it.
    Leaving = 3,
    /// In a joint configuration: votes in the old one only, and is a learner in the new one.
    Demoted = 4,
}

impl Part {
    fn from_byte(byte: u8) -> Option<Self> {
        [Part::Learner, Part::Voter, Part::Entering, Part::Leaving, Part::Demoted]
            .into_iter()
            .find(|part| *part as u8 == byte)
    }

    /// Whether it has a vote in any configuration that counts.
    pub fn votes(self) -> bool {
        self != Part::Learner
    }

    /// What it is once a joint configuration is left; `None`: no member any more.
    pub fn after(self) -> Option<Part> {
        match self {
            Part::Learner | Part::Demoted => Some(Part::Learner),
            Part::Voter | Part::Entering => Some(Part::Voter),
            Part::Leaving => None,
        }
    }
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The replica.
    pub replica: ReplicaId,
    /// The node that it is on.
    pub node: NodeId,
    /// Its part.
    pub part: Part,
}

/// Who is in a group, and which of them is here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The group.
    pub group: GroupId,
    /// The replica on this node.
    pub own: ReplicaId,
    /// Index of the entry that made it so.
    pub index: u64,
    /// Which of the state machines that this replica has had is in use: 0 for the one it began with, and the index
    /// of the last snapshot installed after that.
    pub incarnation: u64,
    /// The latest intent that a change of the group was made with. What it is, is the embedder's business; it grows,
    /// and changes with an older one are refused: whoever decides may not know yet what has been decided.
    pub intent: u64,
    /// All members. Empty for a new replica that has heard nothing from its group yet. When the group is created,
    /// the preferred leader is the first.
    pub members: Vec<Member>,
}

impl Membership {
    /// Who is in a group when it is created.
    pub fn new(group: GroupId, own: ReplicaId, members: Vec<Member>) -> Self {
        Membership { group, own, index: 0, incarnation: 0, intent: 0, members }
    }

    /// A new replica of a group that exists: it knows nobody until it is spoken to.
    pub fn joining(group: GroupId, own: ReplicaId) -> Self {
        Membership::new(group, own, Vec::new())
    }

    /// The member with this id.
    pub fn member(&self, replica: ReplicaId) -> Option<&Member> {
        self.members.iter().find(|m| m.replica == replica)
    }

    /// The replica on a node.
    pub fn replica_on(&self, node: &NodeId) -> Option<ReplicaId> {
        self.members.iter().find(|m| m.node == *node).map(|m| m.replica)
    }

    /// Whether two configurations are in force, and decide only together.
    pub fn is_joint(&self) -> bool {
        self.members.iter().any(|m| !matches!(m.part, Part::Learner | Part::Voter))
    }

    /// As bytes for the log, little endian: `group u64, own u64, index u64, incarnation u64, intent u64, count u32`, then for
    /// each member `replica u64, part u8, name_len u16, name`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for word in [self.group.0, self.own.0, self.index, self.incarnation, self.intent] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&(self.members.len() as u32).to_le_bytes());
        for member in &self.members {
            let name = member.node.as_str().as_bytes();
            out.extend_from_slice(&member.replica.0.to_le_bytes());
            out.push(member.part as u8);
            out.extend_from_slice(&(name.len() as u16).to_le_bytes());
            out.extend_from_slice(name);
        }
        out
    }

    /// The reverse of [`Membership::encode`]; `None` for bytes that are no membership.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let mut word = || Some(u64::from_le_bytes(*take(&mut rest)?));
        let (group, own) = (GroupId(word()?), ReplicaId(word()?));
        let (index, incarnation, intent) = (word()?, word()?, word()?);
        let count = u32::from_le_bytes(*take(&mut rest)?);
        let mut members = Vec::new();
        for _ in 0..count {
            let replica = ReplicaId(u64::from_le_bytes(*take(&mut rest)?));
            let [part] = *take(&mut rest)?;
            let name_len = usize::from(u16::from_le_bytes(*take(&mut rest)?));
            let (name, tail) = rest.split_at_checked(name_len)?;
            rest = tail;
            let node = NodeId::new(std::str::from_utf8(name).ok()?);
            members.push(Member { replica, node, part: Part::from_byte(part)? });
        }
        let membership = Membership { group, own, index, incarnation, intent, members };
        (rest.is_empty() && membership.is_sound()).then_some(membership)
    }

    /// Ids are not 0 and unique, somebody votes before and after, unless nothing is known yet. This replica need not
    /// be among the members: it may have been removed.
    pub fn is_sound(&self) -> bool {
        let mut ids: Vec<_> = self.members.iter().map(|m| m.replica).collect();
        ids.sort_unstable();
        let unique = ids.windows(2).all(|pair| pair[0] != pair[1]);
        let nonzero = ids.first().is_none_or(|id| id.0 != 0) && self.own.0 != 0;
        let votes = |parts: &[Part]| self.members.iter().any(|m| parts.contains(&m.part));
        let new = votes(&[Part::Voter, Part::Entering]);
        let old = votes(&[Part::Voter, Part::Leaving, Part::Demoted]);
        unique && nonzero && (self.members.is_empty() || (new && old))
    }
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(head)
}
