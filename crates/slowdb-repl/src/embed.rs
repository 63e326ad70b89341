//! A core that is nothing but a replicator: the short way from a state machine to a running, replicated one.
//!
//! [`ReplicatorCore`] runs in a [`Driver`](crate::driver::Driver) and is asked through its
//! [`Commands`]: [`propose`](Commands::propose), [`read`](Commands::read), [`view`](Commands::view). It answers each
//! question once, by its deadline, and keeps nothing of its own but who waits for what.
//!
//! Snapshots that arrive are made durable on its own thread.
//!
//! It does not route: a replica that does not lead says so, and [`Commands::view`] says who does. It makes no
//! checkpoints either; it asks the state machine at every tick what it holds durably, and lets the log go up to
//! there. An embedder that decides more than that writes its own [`Core`] around a [`Replicator`].

use crate::driver::{Commands, Core, Turn};
use crate::entry::AckLevel;
use crate::group::{Event, Failure, Proposal, Token};
use crate::ids::{GroupId, NodeId};
use crate::machine::StateMachine;
use crate::replicator::{GroupView, Outgoing, Replicator};
use crate::wal::Location;
use crate::{Now, Position};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::oneshot;

/// A change to propose.
#[derive(Clone, Debug)]
pub struct Change {
    /// When it is acknowledged.
    pub level: AckLevel,
    /// Who proposes. Opaque here: a state machine can recognise retries by it.
    pub client: [u8; 16],
    /// The change's number at that client.
    pub sequence: u64,
    /// Whether an earlier attempt may have got into the log.
    pub retry: bool,
    /// How many positions it takes, at least 1.
    pub writes: u32,
    /// What the state machine applies.
    pub body: Bytes,
}

impl Change {
    /// A change at [`AckLevel::Quorum`] of one position and nobody in particular.
    pub fn new(body: impl Into<Bytes>) -> Self {
        let body = body.into();
        Change { level: AckLevel::Quorum, client: [0; 16], sequence: 0, retry: false, writes: 1, body }
    }
}

/// A change that stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acked<O> {
    /// Position of its first write.
    pub first: Position,
    /// What the state machine said; not yet known when acknowledged at [`AckLevel::One`].
    pub outcome: Option<O>,
    /// Members on which it is known to be durable.
    pub durable_on: u32,
    /// All members.
    pub members: u32,
}

/// Why there is no answer, or not the one asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The group could not do it.
    #[error("{0}")]
    Failed(#[from] Failure),
    /// The driver has stopped. A change may or may not take effect.
    #[error("the node has stopped: what was under way may or may not take effect")]
    Stopped,
}

type ProposeAnswer<O> = oneshot::Sender<Result<Acked<O>, Failure>>;
type ReadAnswer<M> = Box<dyn FnOnce(Result<&M, Failure>) + Send>;

/// What a [`ReplicatorCore`] can be asked. Made by the methods of [`Commands`].
pub struct Ask<M: StateMachine>(Kind<M>);

enum Kind<M: StateMachine> {
    Propose { group: GroupId, change: Change, within: Duration, answer: ProposeAnswer<M::Outcome> },
    Read { group: GroupId, within: Duration, answer: ReadAnswer<M> },
    View { group: GroupId, answer: oneshot::Sender<Option<GroupView>> },
}

enum Waiting<M: StateMachine> {
    Propose(ProposeAnswer<M::Outcome>),
    Read(ReadAnswer<M>),
}

/// A core around a replicator, for state machines that need nothing else.
pub struct ReplicatorCore<M: StateMachine> {
    repl: Replicator<M>,
    waiting: BTreeMap<Token, Waiting<M>>,
    next_token: u64,
    effects: Vec<Event<M::Outcome>>,
}

impl<M: StateMachine> ReplicatorCore<M> {
    /// A core around a replicator whose groups are open; there is no opening them later.
    pub fn new(repl: Replicator<M>) -> Self {
        ReplicatorCore { repl, waiting: BTreeMap::new(), next_token: 1, effects: Vec::new() }
    }

    fn wait(&mut self, waiting: Waiting<M>) -> Token {
        let token = Token(self.next_token);
        self.next_token += 1;
        self.waiting.insert(token, waiting);
        token
    }

    fn event(&mut self, event: Event<M::Outcome>) {
        match event {
            Event::Acked { token, first, outcome, durable_on, members } => {
                if let Some(Waiting::Propose(answer)) = self.waiting.remove(&token) {
                    // Whoever asked may have given up.
                    let _ = answer.send(Ok(Acked { first, outcome, durable_on, members }));
                }
            }
            Event::Failed { token, why, .. } => self.fail(token, why),
            Event::Stands { token, missing, .. } => self.fail(token, Failure::LevelNotReached { missing }),
            Event::ReadReady { token, group } => {
                if let Some(Waiting::Read(answer)) = self.waiting.remove(&token) {
                    answer(self.repl.machine(group).ok_or(Failure::NotLeader));
                }
            }
            Event::Leader { .. }
            | Event::Members { .. }
            | Event::Forwarded { .. }
            | Event::DigestDiffers { .. }
            | Event::Halted { .. } => self.effects.push(event),
        }
    }

    fn fail(&mut self, token: Token, why: Failure) {
        match self.waiting.remove(&token) {
            Some(Waiting::Propose(answer)) => drop(answer.send(Err(why))),
            Some(Waiting::Read(answer)) => answer(Err(why)),
            None => {}
        }
    }
}

impl<M> Core for ReplicatorCore<M>
where
    M: StateMachine + Send + 'static,
    M::Outcome: Send + 'static,
{
    type Command = Ask<M>;
    /// What happened to groups; all other events are answers.
    type Effect = Event<M::Outcome>;

    fn command(&mut self, now: Now, Ask(kind): Ask<M>) {
        let deadline = |within: Duration| now.micros.saturating_add(micros(within));
        match kind {
            Kind::Propose { group, change, within, answer } => {
                let token = self.wait(Waiting::Propose(answer));
                let Change { level, client, sequence, retry, writes, body } = change;
                let (writes, deadline) = (writes.max(1), deadline(within));
                let proposal = Proposal { token, level, retry, writes, client, sequence, body, deadline };
                if let Err(why) = self.repl.propose(group, proposal) {
                    self.fail(token, why);
                }
            }
            Kind::Read { group, within, answer } => {
                let token = self.wait(Waiting::Read(answer));
                if let Err(why) = self.repl.read(group, token, deadline(within)) {
                    self.fail(token, why);
                }
            }
            // Whoever asked may have given up.
            Kind::View { group, answer } => drop(answer.send(self.repl.view(group))),
        }
    }

    fn receive(&mut self, _now: Now, from: &NodeId, meta: &[u8], body: &Bytes) {
        if let Err(error) = self.repl.receive(from, meta, body) {
            tracing::warn!(node = %from, %error, "dropped a frame");
        }
    }

    fn unreachable(&mut self, _now: Now, node: &NodeId) {
        self.repl.unreachable(node);
    }

    fn tick(&mut self, now: Now) {
        let mut events = Vec::new();
        self.repl.tick(now, &mut events);
        events.into_iter().for_each(|event| self.event(event));
        let groups: Vec<GroupId> = self.repl.groups().collect();
        for group in groups {
            if let Some(held) = self.repl.machine(group).map(StateMachine::held) {
                self.repl.checkpointed(group, held);
            }
        }
    }

    fn persisted(&mut self, _now: Now, batch: u64, locations: &[Location]) -> Vec<Outgoing> {
        self.repl.persisted(batch, locations)
    }

    fn flush(&mut self, now: Now) -> Turn<Self::Effect> {
        let mut messages = Vec::new();
        let batch = loop {
            let output = self.repl.flush(now);
            output.events.into_iter().for_each(|event| self.event(event));
            messages.extend(output.messages);
            let rests = output.jobs.is_empty() || output.batch.is_some();
            output.jobs.into_iter().for_each(|job| self.repl.job_done(job.run()));
            // A turn has one batch.
            if rests {
                break output.batch;
            }
        };
        Turn { messages, batch, effects: std::mem::take(&mut self.effects) }
    }
}

impl<M> Commands<ReplicatorCore<M>>
where
    M: StateMachine + Send + 'static,
    M::Outcome: Send + 'static,
{
    /// Proposes a change to a group that this node leads, and waits until it stands as asked.
    ///
    /// # Errors
    /// [`AskError`]: it says whether the change may take effect all the same.
    pub async fn propose(
        &self,
        group: GroupId,
        change: Change,
        within: Duration,
    ) -> Result<Acked<M::Outcome>, AskError> {
        let (answer, answered) = oneshot::channel();
        self.send(Ask(Kind::Propose { group, change, within, answer })).await;
        Ok(answered.await.map_err(|_| AskError::Stopped)??)
    }

    /// Reads a group that this node has a replica of, linearizably: `look` sees the state machine when it holds everything that was
    /// acknowledged before this was called. It runs on the core's thread, so it has to be short.
    ///
    /// # Errors
    /// [`AskError`]; nothing was read.
    pub async fn read<R: Send + 'static>(
        &self,
        group: GroupId,
        within: Duration,
        look: impl FnOnce(&M) -> R + Send + 'static,
    ) -> Result<R, AskError> {
        let (answer, answered) = oneshot::channel();
        // Whoever asked may have given up.
        let answer: ReadAnswer<M> = Box::new(move |machine| drop(answer.send(machine.map(look))));
        self.send(Ask(Kind::Read { group, within, answer })).await;
        Ok(answered.await.map_err(|_| AskError::Stopped)??)
    }

    /// A group as it looks from this node, `None` if it has no replica of it.
    ///
    /// # Errors
    /// [`AskError::Stopped`].
    pub async fn view(&self, group: GroupId) -> Result<Option<GroupView>, AskError> {
        let (answer, answered) = oneshot::channel();
        self.send(Ask(Kind::View { group, answer })).await;
        answered.await.map_err(|_| AskError::Stopped)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
