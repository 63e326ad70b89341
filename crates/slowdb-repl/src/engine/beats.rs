//! Heartbeats of groups in which nothing else happens.
//!
//! A node has thousands of them a second, and what the engine does with one is little beside what it takes to ask the
//! engine what to do. So a heartbeat, or the answer to one, that changes nothing but when the other was last heard is
//! noted here, on the engine's own state, as the engine would. Everything else is left to the engine.

use super::wire::Payload;
use super::{ELECTION_TICKS, Engine, Message, MessageType, StateRole};
use crate::ids::ReplicaId;
use crate::roll::Entry;
use raft::{INVALID_INDEX, ProgressState};

/// What became of a message.
pub(crate) enum Beat {
    /// It is noted, and this is the answer to send now, if there is one.
    Noted(Option<Message>),
    /// The engine has to see it.
    ForEngine(Message),
}

impl Engine {
    /// Notes a message if it says no more than that its sender is alive.
    pub(crate) fn hear_beat(&mut self, message: Message) -> Beat {
        if message.term != self.raw.raft.term || !message.context.is_empty() {
            return Beat::ForEngine(message);
        }
        match (message.msg_type, self.raw.raft.state) {
            (MessageType::MsgHeartbeat, StateRole::Follower) => self.hear_leader(message),
            (MessageType::MsgHeartbeatResponse, StateRole::Leader) => self.hear_follower(message),
            _ => Beat::ForEngine(message),
        }
    }

    fn hear_leader(&mut self, message: Message) -> Beat {
        let has_term_saved = self.has_term_saved();
        let raft = &mut self.raw.raft;
        let is_news = raft.leader_id != message.from
            || message.commit > raft.raft_log.committed
            || raft.pending_request_snapshot != INVALID_INDEX;
        if is_news || !has_term_saved {
            return Beat::ForEngine(message);
        }
        raft.election_elapsed = 0;
        let mut answer = Message::default();
        answer.msg_type = MessageType::MsgHeartbeatResponse;
        answer.from = raft.id;
        answer.to = message.from;
        answer.term = raft.term;
        answer.commit = raft.raft_log.committed;
        Beat::Noted(Some(answer))
    }

    fn hear_follower(&mut self, message: Message) -> Beat {
        let raft = &mut self.raw.raft;
        let last = raft.raft_log.last_index();
        // One that lacks something is sent it when it is heard.
        let has_all = |progress: &&mut raft::Progress| {
            progress.state == ProgressState::Replicate
                && progress.matched >= last
                && progress.pending_request_snapshot == INVALID_INDEX
                && !progress.ins.full()
        };
        let Some(progress) = raft.mut_prs().get_mut(message.from).filter(has_all) else {
            return Beat::ForEngine(message);
        };
        progress.update_committed(message.commit);
        progress.recent_active = true;
        progress.resume();
        Beat::Noted(None)
    }

    /// Takes what a leader has to send if that is heartbeats only: they rest on nothing that is not durable.
    pub(crate) fn take_beats(&mut self) -> Vec<Message> {
        let messages = &self.raw.raft.msgs;
        let beats_only = messages.iter().all(|message| message.msg_type == MessageType::MsgHeartbeat);
        if messages.is_empty() || !beats_only || !self.is_leader() {
            return Vec::new();
        }
        std::mem::take(&mut self.raw.raft.msgs)
    }

    /// What every heartbeat of a leader says as long as nothing happens, but for who it is for: `None` if this replica does
    /// not lead, if something is under way, or if a member lacks something or has not been heard lately.
    pub(crate) fn settled(&self) -> Option<Entry> {
        let raft = &self.raw.raft;
        let last = raft.raft_log.last_index();
        let has_all = |progress: &raft::Progress| {
            progress.state == ProgressState::Replicate
                && progress.matched == last
                && progress.committed_index == last
                && progress.pending_request_snapshot == INVALID_INDEX
                && progress.recent_active
        };
        #[cfg(feature = "canary")]
        let has_all = |progress: &raft::Progress| {
            self.canary == Some(crate::Canary::RestsUnsettled) || has_all(progress)
        };
        let is_settled = self.is_leader()
            && raft.lead_transferee.is_none()
            && !raft.has_pending_conf()
            && (raft.raft_log.committed, raft.raft_log.applied) == (last, last)
            && raft.msgs.is_empty()
            && raft.prs().iter().all(|(id, progress)| *id == raft.id || has_all(progress));
        let from = ReplicaId(raft.id);
        is_settled.then_some(Entry { from, to: from, term: raft.term, commit: last })
    }

    /// Whether a message is the answer to a heartbeat of this term that asked nothing.
    pub(crate) fn is_mere_answer(&self, message: &Payload) -> bool {
        let Payload::Consensus(message) = message else { return false };
        message.msg_type == MessageType::MsgHeartbeatResponse
            && message.context.is_empty()
            && message.term == self.raw.raft.term
            && self.is_leader()
    }

    /// Whether a heartbeat of this replica would still say what the entry says.
    pub(crate) fn says(&self, entry: &Entry) -> bool {
        let raft = &self.raw.raft;
        self.is_leader() && (raft.term, raft.raft_log.committed) == (entry.term, entry.commit)
    }

    /// The heartbeat that an entry of a roll stands for.
    pub(crate) fn heartbeat(entry: &Entry) -> Message {
        let mut message = Message::default();
        message.msg_type = MessageType::MsgHeartbeat;
        message.from = entry.from.0;
        message.to = entry.to.0;
        message.term = entry.term;
        message.commit = entry.commit;
        message
    }

    /// Goes on after a rest without ticks: its leader was last heard so many ticks ago. A leader gives its members from now
    /// on as long as ever to be heard: its questions have just been asked.
    pub(crate) fn wake(&mut self, silent_ticks: u64) {
        let raft = &mut self.raw.raft;
        let most = 2 * ELECTION_TICKS;
        let silent = usize::try_from(silent_ticks).unwrap_or(most).min(most);
        raft.election_elapsed = if raft.state == StateRole::Leader { 0 } else { silent };
    }

    /// On a leader: whether a member was heard lately.
    pub(crate) fn set_heard(&mut self, replica: ReplicaId, is_heard: bool) {
        if let Some(progress) = self.raw.raft.mut_prs().get_mut(replica.0) {
            progress.recent_active = is_heard;
        }
    }
}
