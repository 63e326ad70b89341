//! A log that goes on from a snapshot.

use super::log::conf_state;
use super::{Engine, Message};
use crate::ids::{Membership, ReplicaId};
use crate::wal::Record;
use bytes::Bytes;
use raft::StateRole;
use raft::eraftpb::{MessageType, Snapshot};

impl Engine {
    /// Whether the log goes on from a snapshot and does not say so durably yet. The engine must not stand for election then:
    /// it would look in the log for what is not applied, and that is in the snapshot.
    pub(super) fn is_restoring(&self) -> bool {
        self.raw.store().first() > self.applied() + 1
    }

    /// Hands the engine a snapshot that is durable here. True if the log goes on from it, with the next flush; false
    /// if it cannot now, or need not.
    pub(crate) fn restore(&mut self, index: u64, term: u64, members: &Membership) -> bool {
        let raft = &self.raw.raft;
        if raft.state != StateRole::Follower || raft.leader_id == 0 || index <= raft.raft_log.committed {
            return false;
        }
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = index;
        metadata.term = term;
        metadata.set_conf_state(conf_state(members));
        let mut message = Message::default();
        message.msg_type = MessageType::MsgSnapshot;
        message.from = raft.leader_id;
        message.to = raft.id;
        message.term = raft.term;
        message.set_snapshot(snapshot);
        let _ = self.raw.step(message);
        self.fix_timeout();
        let restores = self.raw.raft.raft_log.unstable_snapshot().is_some();
        self.restoring = restores.then(|| Membership { index, ..members.clone() });
        restores
    }

    /// Tells the leader that everything that is committed here is here: the answer to an append of what lies before.
    /// A leader whose log no longer holds what it believes to be missing here sends no append that could be answered.
    pub(crate) fn tell_committed(&mut self, leader: ReplicaId) {
        let raft = &self.raw.raft;
        if raft.state != StateRole::Follower || raft.leader_id != leader.0 || raft.raft_log.committed == 0 {
            return;
        }
        let mut message = Message::default();
        message.msg_type = MessageType::MsgAppend;
        message.from = leader.0;
        message.to = raft.id;
        message.term = raft.term;
        let _ = self.raw.step(message);
        self.fix_timeout();
    }

    pub(super) fn take_restored(
        &mut self,
        ready: &raft::Ready,
        group: u64,
        records: &mut Vec<Record>,
    ) -> Option<u64> {
        let membership = self.restoring.take().filter(|_| !ready.snapshot().is_empty())?;
        let (index, term) = (ready.snapshot().get_metadata().index, ready.snapshot().get_metadata().term);
        let data = Bytes::from(membership.encode());
        records.push(Record::Snapshot { group, index, term, data });
        self.raw.mut_store().restore(index, term, &membership);
        Some(index)
    }
}
