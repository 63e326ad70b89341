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

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The replica.
    pub replica: ReplicaId,
    /// The node that it is on.
    pub node: NodeId,
    /// Whether it votes; else it is a learner.
    pub voter: bool,
}

/// Who is in a group, and which of them is here. Fixed for the life of a group in this version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The replica on this node.
    pub own: ReplicaId,
    /// All members, the preferred leader first.
    pub members: Vec<Member>,
}

impl Membership {
    /// The member with this id.
    pub fn member(&self, replica: ReplicaId) -> Option<&Member> {
        self.members.iter().find(|m| m.replica == replica)
    }

    /// The replica on a node.
    pub fn replica_on(&self, node: &NodeId) -> Option<ReplicaId> {
        self.members.iter().find(|m| m.node == *node).map(|m| m.replica)
    }

    /// As bytes for the log: `own u64, count u32, then per member: replica u64, voter u8, name_len u16, name`,
    /// little endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.own.0.to_le_bytes());
        out.extend_from_slice(&(self.members.len() as u32).to_le_bytes());
        for member in &self.members {
            let name = member.node.as_str().as_bytes();
            out.extend_from_slice(&member.replica.0.to_le_bytes());
            out.push(u8::from(member.voter));
            out.extend_from_slice(&(name.len() as u16).to_le_bytes());
            out.extend_from_slice(name);
        }
        out
    }

    /// The reverse of [`Membership::encode`]; `None` for bytes that are no membership.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let own = ReplicaId(u64::from_le_bytes(*take(&mut rest)?));
        let count = u32::from_le_bytes(*take(&mut rest)?);
        let mut members = Vec::new();
        for _ in 0..count {
            let replica = ReplicaId(u64::from_le_bytes(*take(&mut rest)?));
            let [voter] = *take(&mut rest)?;
            let name_len = usize::from(u16::from_le_bytes(*take(&mut rest)?));
            let (name, tail) = rest.split_at_checked(name_len)?;
            rest = tail;
            let node = NodeId::new(std::str::from_utf8(name).ok()?);
            members.push(Member { replica, node, voter: voter != 0 });
        }
        let membership = Membership { own, members };
        (rest.is_empty() && membership.is_sound()).then_some(membership)
    }

    /// Ids are not 0 and unique, this replica is a member, somebody votes.
    pub fn is_sound(&self) -> bool {
        let mut ids: Vec<_> = self.members.iter().map(|m| m.replica).collect();
        ids.sort_unstable();
        let unique = ids.windows(2).all(|pair| pair[0] != pair[1]);
        let nonzero = ids.first().is_some_and(|id| id.0 != 0);
        unique && nonzero && ids.contains(&self.own) && self.members.iter().any(|m| m.voter)
    }
}

fn take<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(head)
}
