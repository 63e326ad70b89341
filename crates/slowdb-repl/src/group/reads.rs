//! Linearizable reads. Every replica answers them, once a majority has confirmed to the leader that it leads.
//!
//! A leader asks the members, any other replica asks the leader, and both do it once for all reads that wait. A leader
//! confirms what others ask in the same rounds as its own reads. Invariants:
//! - a read is confirmed only by a round that began after the read came;
//! - what is asked of a leader never comes again, over restarts too: an answer to an earlier life of this replica
//!   confirms nothing;
//! - at most one question of each replica waits at a leader: a later one confirms what an earlier one would have.

use super::{Event, Failure, Group, Token};
use crate::Now;
use crate::ids::ReplicaId;
use crate::machine::StateMachine;
use crate::note::{Note, ReadContext, Says};
use std::collections::{BTreeMap, VecDeque};

/// Rounds that may be on their way at a time; reads that come meanwhile share the next one.
const ROUNDS_MAX: usize = 4;
/// Ticks after which a round is taken for lost and asked again.
const RETRY_TICKS: u64 = 6;

#[derive(Clone, Copy)]
struct Read {
    token: Token,
    deadline: u64,
}

struct Round {
    number: u64,
    asked_at: u64,
    reads: Vec<Read>,
    asked: BTreeMap<ReplicaId, ReadContext>,
}

/// The reads of a group that wait.
#[derive(Default)]
pub(super) struct Reads {
    /// Drawn for each life of the node.
    life: u64,
    last_round: u64,
    waiting: Vec<Read>,
    /// What other replicas ask of this leader.
    asked: BTreeMap<ReplicaId, ReadContext>,
    rounds: VecDeque<Round>,
    /// By the entry that has to be applied first.
    confirmed: BTreeMap<u64, Vec<Read>>,
}

impl Reads {
    pub(super) fn new(life: u64) -> Self {
        Reads { life, ..Reads::default() }
    }

    /// Whether nobody waits, here or elsewhere.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
            && self.asked.is_empty()
            && self.rounds.is_empty()
            && self.confirmed.is_empty()
    }

    fn waiting(&self) -> usize {
        let in_rounds: usize = self.rounds.iter().map(|round| round.reads.len()).sum();
        self.waiting.len() + in_rounds + self.confirmed.values().map(Vec::len).sum::<usize>()
    }

    fn context(&self, round: u64) -> ReadContext {
        let mut context = [0; 16];
        context[..8].copy_from_slice(&self.life.to_le_bytes());
        context[8..].copy_from_slice(&round.to_le_bytes());
        context
    }

    /// The round of this life that a context names.
    fn round_of(&self, context: &ReadContext) -> Option<u64> {
        let (life, round) = context.split_first_chunk::<8>()?;
        let round = round.first_chunk::<8>()?;
        (u64::from_le_bytes(*life) == self.life).then_some(u64::from_le_bytes(*round))
    }

    /// A round was confirmed: gives what is to be told to other replicas. A later round confirms the earlier ones as
    /// well, for they began before it.
    fn confirm(&mut self, number: u64, index: u64) -> Vec<(ReplicaId, ReadContext)> {
        let mut told = Vec::new();
        while let Some(round) = self.rounds.pop_front_if(|round| round.number <= number) {
            self.confirmed.entry(index).or_default().extend(round.reads);
            told.extend(round.asked);
        }
        told
    }

    /// Whatever was asked is asked anew. What others asked of this replica they ask again themselves.
    fn ask_again(&mut self) {
        self.asked.clear();
        self.waiting.extend(self.rounds.drain(..).flat_map(|round| round.reads));
    }
}

impl<M: StateMachine> Group<M> {
    pub(crate) fn reads_waiting(&self) -> usize {
        self.reads.waiting()
    }

    pub(crate) fn read(&mut self, token: Token, deadline: u64) {
        self.reads.waiting.push(Read { token, deadline });
    }

    pub(super) fn ask_reads(&mut self) {
        let reads = &self.reads;
        if (reads.waiting.is_empty() && reads.asked.is_empty()) || reads.rounds.len() >= ROUNDS_MAX {
            return;
        }
        let number = self.reads.last_round + 1;
        let own = self.membership.own;
        let is_unasked = self.reads_unasked();
        let is_asked = match self.engine.leader() {
            _ if is_unasked => true,
            _ if self.engine.is_leader() => self.engine.read(number),
            Some(to) if to != own => {
                let says = Says::ReadAsked { context: self.reads.context(number) };
                self.outbox.push(Note { from: own, to, says });
                true
            }
            _ => false,
        };
        if is_asked {
            let reads = &mut self.reads;
            reads.last_round = number;
            let (waiting, asked) = (std::mem::take(&mut reads.waiting), std::mem::take(&mut reads.asked));
            reads.rounds.push_back(Round { number, asked_at: self.ticks, reads: waiting, asked });
        }
        if is_unasked {
            self.confirm_reads(number, self.engine.applied());
        }
    }

    /// Another replica asks this one, as the leader, for what it has to apply before it may answer reads.
    pub(super) fn hear_read_asked(&mut self, from: ReplicaId, context: ReadContext) {
        if self.engine.is_leader() {
            self.reads.asked.insert(from, context);
        }
    }

    /// A leader of this group answers a question of this replica.
    pub(super) fn hear_read_confirmed(&mut self, context: &ReadContext, index: u64) {
        // A leader's own rounds are not for others to confirm.
        if let Some(number) = self.reads.round_of(context).filter(|_| !self.engine.is_leader()) {
            self.reads.confirm(number, index);
        }
    }

    /// A majority has confirmed that this replica leads.
    pub(super) fn confirm_reads(&mut self, number: u64, index: u64) {
        let own = self.membership.own;
        for (to, context) in self.reads.confirm(number, index) {
            self.outbox.push(Note { from: own, to, says: Says::ReadConfirmed { context, index } });
        }
    }

    pub(super) fn answer_reads(&mut self, events: &mut Vec<Event<M::Outcome>>) {
        let applied = self.engine.applied();
        while let Some(entry) = self.reads.confirmed.first_entry().filter(|entry| *entry.key() <= applied) {
            for read in entry.remove() {
                events.push(Event::ReadReady { token: read.token, group: self.id });
            }
        }
    }

    /// Rounds that were lost are asked again; reads whose deadline has passed are answered.
    pub(super) fn tick_reads(&mut self, now: Now, events: &mut Vec<Event<M::Outcome>>) {
        let (group, ticks) = (self.id, self.ticks);
        let reads = &mut self.reads;
        let rounds = reads.rounds.iter_mut().map(|round| &mut round.reads);
        for list in std::iter::once(&mut reads.waiting).chain(rounds).chain(reads.confirmed.values_mut()) {
            list.retain(|read| {
                let is_late = read.deadline <= now.micros;
                if is_late {
                    events.push(Event::Failed { token: read.token, group, why: Failure::Timeout });
                }
                !is_late
            });
        }
        reads.confirmed.retain(|_, list| !list.is_empty());
        while let Some(round) = reads.rounds.pop_front_if(|round| round.asked_at + RETRY_TICKS <= ticks) {
            reads.waiting.extend(round.reads);
        }
    }

    /// Another replica leads now, or none: whoever waits for a confirmation asks it, or is told.
    pub(super) fn redirect_reads(&mut self, events: &mut Vec<Event<M::Outcome>>) {
        self.reads.ask_again();
        if self.engine.leader().is_none() {
            self.fail_reads(&Failure::NotLeader, events);
        }
    }

    /// Reads that no leader has confirmed are answered with why.
    pub(super) fn fail_reads(&mut self, why: &Failure, events: &mut Vec<Event<M::Outcome>>) {
        let group = self.id;
        self.reads.ask_again();
        let mut failed = std::mem::take(&mut self.reads.waiting);
        if self.halted.is_some() {
            failed.extend(std::mem::take(&mut self.reads.confirmed).into_values().flatten());
        }
        let fail = |read: Read| Event::Failed { token: read.token, group, why: why.clone() };
        events.extend(failed.into_iter().map(fail));
    }
}
