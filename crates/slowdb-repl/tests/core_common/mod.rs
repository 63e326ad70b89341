//! Three replicators in memory, over simulated disks, with a state machine that is a list.
//!
//! Nothing happens by itself: a test says who ticks, who syncs, and which messages arrive.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(
    clippy::allow_attributes,
    reason = "an expectation would not hold in the programs that use all of it"
)]

use bytes::Bytes;
use slowdb_disk::{Disk, SimDisk};
use slowdb_repl::wal::{Recovered, Wal, WalOptions};
use slowdb_repl::{
    AckLevel, ApplyError, Batch, Event, Failure, GroupId, Job, Lane, Limits, Member, MemberChange,
    Membership, NodeId, Now, Outgoing, Part, Proposal, ProposalView, ReplicaId, Replicator, SnapshotSource,
    Staging, StateMachine, TICK_MICROS, Token,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

pub(crate) const GROUP: GroupId = GroupId(7);
pub(crate) const CLUSTER: [u8; 16] = [9; 16];

/// How long proposals and reads may take.
const DEADLINE_TICKS: u64 = 80;

/// Byte that says what a message is; see the layout in `engine/wire.rs`.
pub(crate) const APPEND: u8 = 3;
pub(crate) const APPEND_RESPONSE: u8 = 4;
pub(crate) const VOTE: u8 = 5;
pub(crate) const VOTE_RESPONSE: u8 = 6;
pub(crate) const HEARTBEAT: u8 = 8;
pub(crate) const HEARTBEAT_RESPONSE: u8 = 9;
pub(crate) const PRE_VOTE: u8 = 17;
pub(crate) const PRE_VOTE_RESPONSE: u8 = 18;
pub(crate) const OFFER: u8 = 32;
pub(crate) const WANT: u8 = 42;
pub(crate) const PART: u8 = 43;
pub(crate) const READ_ASKED: u8 = 40;
pub(crate) const READ_CONFIRMED: u8 = 41;

/// Where the first message begins in a frame's meta, and where its fields are.
pub(crate) const MESSAGE_AT: usize = 24;
pub(crate) const TERM_AT: usize = MESSAGE_AT + 24;
pub(crate) const LOG_TERM_AT: usize = MESSAGE_AT + 32;
pub(crate) const INDEX_AT: usize = MESSAGE_AT + 40;
pub(crate) const COMMIT_AT: usize = MESSAGE_AT + 48;
pub(crate) const REJECT_HINT_AT: usize = MESSAGE_AT + 64;
pub(crate) const TYPE_AT: usize = MESSAGE_AT + 80;

/// With the index that each was applied at.
type Items = Vec<(u64, Vec<u8>)>;

/// The disk that lists are kept on.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    /// What is durable: incarnation → index and content.
    lists: BTreeMap<u64, (u64, Items)>,
    /// What is being taken in.
    staged: Option<u64>,
    /// Nothing can be made durable.
    pub(crate) full: bool,
    /// No snapshot can be read.
    pub(crate) unreadable: bool,
}

pub(crate) type Kept = Arc<Mutex<Shelf>>;

/// A list fails to apply this.
pub(crate) const CANNOT_BE_APPLIED: &[u8] = b"cannot be applied";

/// Everything applied, in order.
#[derive(Debug, Default)]
pub(crate) struct List {
    pub(crate) applied: Vec<(u64, Vec<u8>)>,
    pub(crate) held: u64,
    pub(crate) kept: Kept,
}

impl List {
    /// As it was kept, or a new one.
    pub(crate) fn of(kept: &Kept, incarnation: u64) -> Self {
        let found = kept.lock().unwrap().lists.get(&incarnation).cloned();
        let (held, applied) = found.unwrap_or_default();
        List { applied, held, kept: Arc::clone(kept) }
    }

    /// Keeps everything up to an index durably.
    pub(crate) fn keep(&mut self, incarnation: u64, index: u64) {
        self.held = index;
        let applied = self.applied.iter().filter(|(at, _)| *at <= index).cloned().collect();
        self.kept.lock().unwrap().lists.insert(incarnation, (index, applied));
    }
}

fn digest_of(applied: &[(u64, Vec<u8>)]) -> [u8; 16] {
    let mut digest = [0; 16];
    for (at, byte) in applied
        .iter()
        .flat_map(|(index, body)| index.to_le_bytes().into_iter().chain(body.clone()))
        .enumerate()
    {
        digest[at % 16] = u8::wrapping_mul(digest[at % 16], 31).wrapping_add(byte).wrapping_add(1);
    }
    digest
}

/// A list at one moment: one part an item.
struct ListSnapshot(Vec<(u64, Vec<u8>)>, Kept);

impl SnapshotSource for ListSnapshot {
    fn digest(&self) -> [u8; 16] {
        digest_of(&self.0)
    }

    fn bytes(&self) -> u64 {
        self.0.iter().map(|(_, body)| body.len() as u64 + 8).sum()
    }

    fn read(&self, cursor: u64, out: &mut Vec<u8>) -> Result<Option<u64>, ApplyError> {
        if self.1.lock().unwrap().unreadable {
            return Err(ApplyError("the disk is damaged".to_owned()));
        }
        if let Some((index, body)) = self.0.get(cursor as usize) {
            out.extend_from_slice(&index.to_le_bytes());
            out.extend_from_slice(body);
        }
        Ok((cursor + 1 < self.0.len() as u64).then_some(cursor + 1))
    }
}

struct ListStaging {
    incarnation: u64,
    items: Vec<(u64, Vec<u8>)>,
    kept: Kept,
}

impl Staging for ListStaging {
    fn write(&mut self, part: &[u8]) -> Result<(), ApplyError> {
        if let Some((index, body)) = part.split_first_chunk() {
            self.items.push((u64::from_le_bytes(*index), body.to_vec()));
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<[u8; 16], ApplyError> {
        let mut shelf = self.kept.lock().unwrap();
        if shelf.full {
            return Err(ApplyError("the disk is full".to_owned()));
        }
        shelf.lists.insert(self.incarnation, (self.incarnation, self.items.clone()));
        Ok(digest_of(&self.items))
    }
}

impl Drop for ListStaging {
    fn drop(&mut self) {
        self.kept.lock().unwrap().staged = None;
    }
}

impl StateMachine for List {
    type Outcome = usize;

    const TAKES_LATE: bool = true;

    fn apply(&mut self, proposal: &ProposalView<'_>) -> Result<usize, ApplyError> {
        if proposal.body == CANNOT_BE_APPLIED {
            return Err(ApplyError("the disk is damaged".to_owned()));
        }
        self.applied.push((proposal.first.index, proposal.body.to_vec()));
        Ok(self.applied.len())
    }

    fn held(&self) -> u64 {
        self.held
    }

    fn digest(&self) -> [u8; 16] {
        digest_of(&self.applied)
    }

    fn snapshot(&mut self) -> Result<Box<dyn SnapshotSource>, ApplyError> {
        Ok(Box::new(ListSnapshot(self.applied.clone(), Arc::clone(&self.kept))))
    }

    fn stage(&mut self, incarnation: u64) -> Result<Box<dyn Staging>, ApplyError> {
        let before = self.kept.lock().unwrap().staged.replace(incarnation);
        assert_eq!(before, None, "one staging at a time");
        Ok(Box::new(ListStaging { incarnation, items: Vec::new(), kept: Arc::clone(&self.kept) }))
    }

    fn install(&mut self, incarnation: u64) -> Result<(), ApplyError> {
        *self = List::of(&self.kept, incarnation);
        assert_eq!(self.held, incarnation, "what is installed is durable");
        Ok(())
    }
}

pub(crate) struct Peer {
    pub(crate) name: NodeId,
    pub(crate) repl: Replicator<List>,
    pub(crate) wal: Wal,
    pub(crate) disk: SimDisk,
    pub(crate) unsynced: VecDeque<Batch>,
    pub(crate) events: Vec<Event<usize>>,
    pub(crate) jobs: VecDeque<Job>,
    pub(crate) kept: Kept,
}

/// A message on its way.
#[derive(Clone, Debug)]
pub(crate) struct InFlight {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) lane: Lane,
    pub(crate) meta: Bytes,
    pub(crate) body: Bytes,
}

impl InFlight {
    /// The types of the messages in the frame.
    pub(crate) fn types(&self) -> Vec<u8> {
        messages(&self.meta).into_iter().map(|at| self.meta[at + 80]).collect()
    }

    pub(crate) fn has(&self, kind: u8) -> bool {
        self.types().contains(&kind)
    }
}

/// Where each message of a frame begins in its meta.
pub(crate) fn messages(meta: &[u8]) -> Vec<usize> {
    let count = u32::from_le_bytes(meta[16..20].try_into().unwrap());
    let mut at = MESSAGE_AT;
    let mut found = Vec::new();
    for _ in 0..count {
        found.push(at);
        let context = u16::from_le_bytes(meta[at + 82..at + 84].try_into().unwrap());
        let entries = u32::from_le_bytes(meta[at + 84..at + 88].try_into().unwrap());
        // Of a note these are the bytes of its body.
        let entries = if meta[at + 80] >= OFFER { 0 } else { entries };
        at += 88 + usize::from(context) + entries as usize * 16;
    }
    found
}

pub(crate) fn word(meta: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(meta[at..at + 8].try_into().unwrap())
}

/// A copy of a frame's meta with a number changed.
pub(crate) fn with_word(meta: &[u8], at: usize, word: u64) -> Bytes {
    let mut changed = meta.to_vec();
    changed[at..at + 8].copy_from_slice(&word.to_le_bytes());
    Bytes::from(changed)
}

pub(crate) struct Trio {
    pub(crate) peers: Vec<Peer>,
    pub(crate) wire: Vec<InFlight>,
    pub(crate) now: Now,
    /// Nodes that nothing reaches and nothing leaves.
    pub(crate) cut: Vec<bool>,
    tokens: u64,
    limits: Limits,
}

/// The first `voters` of three nodes vote, the others learn.
fn membership(own: usize, voters: u64) -> Membership {
    let member = |at: u64| Member {
        replica: ReplicaId(at + 1),
        node: NodeId::new(&format!("n{at}")),
        part: if at < voters { Part::Voter } else { Part::Learner },
    };
    Membership::new(GROUP, ReplicaId(own as u64 + 1), (0..3).map(member).collect())
}

pub(crate) fn open_wal(disk: &SimDisk) -> (Wal, Recovered) {
    let options = WalOptions { segment_bytes: 64 * 1024, log_id: 5, ..WalOptions::default() };
    let disk: Arc<dyn Disk> = Arc::new(disk.clone());
    Wal::open(disk, "wal", options).expect("the log opens")
}

impl Trio {
    /// Three nodes with a new group, of which the first is about to stand for election.
    pub(crate) fn new(seed: u64) -> Self {
        Trio::open(seed, Limits::default(), 3)
    }

    pub(crate) fn with_limits(seed: u64, limits: Limits) -> Self {
        Trio::open(seed, limits, 3)
    }

    /// A group in which only the first node votes.
    pub(crate) fn with_one_voter(seed: u64) -> Self {
        Trio::open(seed, Limits::default(), 1)
    }

    fn open(seed: u64, limits: Limits, voters: u64) -> Self {
        // As much as the segments take.
        let limits = Limits { entry_bytes_max: limits.entry_bytes_max.min(48 * 1024), ..limits };
        let peers = (0..3)
            .map(|at| {
                let name = NodeId::new(&format!("n{at}"));
                let disk = SimDisk::new();
                let (wal, _) = open_wal(&disk);
                let mut repl = Replicator::new(name.clone(), CLUSTER, seed + at as u64, limits, wal.reader());
                let kept = Kept::default();
                let machine = List::of(&kept, 0);
                repl.create(membership(at, voters), machine).expect("a new group");
                Peer {
                    name,
                    repl,
                    wal,
                    disk,
                    unsynced: VecDeque::new(),
                    events: Vec::new(),
                    jobs: VecDeque::new(),
                    kept,
                }
            })
            .collect();
        Trio { peers, wire: Vec::new(), now: Now::default(), cut: vec![false; 3], tokens: 0, limits }
    }

    /// The same, with node 0 leading and everybody knowing it.
    pub(crate) fn led(seed: u64) -> Self {
        Trio::led_with_limits(seed, Limits::default())
    }

    fn led_with_limits(seed: u64, limits: Limits) -> Self {
        let mut trio = Trio::with_limits(seed, limits);
        trio.settle();
        trio.tick_all(3);
        assert!(trio.peers[0].repl.leads(GROUP), "the first node leads");
        trio
    }

    /// The same, with something in the log, and node 3 about to be brought to it as a learner.
    pub(crate) fn growing(seed: u64) -> Self {
        Trio::growing_with_limits(seed, Limits::default())
    }

    pub(crate) fn growing_with_limits(seed: u64, limits: Limits) -> Self {
        Trio::growing_with(seed, limits, 4)
    }

    /// The same, with so many items in the list that each is a part of the snapshot.
    pub(crate) fn growing_with(seed: u64, limits: Limits, items: u8) -> Self {
        let mut trio = Trio::led_with_limits(seed, limits);
        for n in 0..items {
            trio.propose(0, AckLevel::Quorum, &[n]).expect("it leads");
            trio.settle();
        }
        let node = trio.add_node();
        trio.join(node, 4);
        let add = MemberChange::AddLearner { replica: ReplicaId(4), node: NodeId::new("n3") };
        trio.peers[0].repl.change_members(GROUP, &add, 1).expect("it fits");
        trio
    }

    fn put_on_wire(&mut self, from: usize, frames: Vec<Outgoing>) {
        for frame in frames {
            let to = self.peers.iter().position(|peer| peer.name == frame.to).expect("a known node");
            let body: Vec<u8> = frame.body.iter().flat_map(|piece| piece.to_vec()).collect();
            self.wire.push(InFlight {
                from,
                to,
                lane: frame.lane,
                meta: frame.meta,
                body: Bytes::from(body),
            });
        }
    }

    /// Lets a node think once. What it wants to be durable waits for [`Trio::sync`].
    pub(crate) fn flush(&mut self, node: usize) {
        let output = self.peers[node].repl.flush(self.now);
        self.peers[node].repl.check_invariants();
        self.peers[node].unsynced.extend(output.batch);
        self.peers[node].events.extend(output.events);
        self.peers[node].jobs.extend(output.jobs);
        self.put_on_wire(node, output.messages);
    }

    /// Makes durable all that a node waits for.
    pub(crate) fn sync(&mut self, node: usize) {
        while let Some(batch) = self.peers[node].unsynced.pop_front() {
            let mut locations = Vec::new();
            let peer = &mut self.peers[node];
            peer.wal.append(&batch.records, &mut locations).expect("the log takes it");
            peer.wal.sync().expect("the log syncs");
            let frames = peer.repl.persisted(batch.number, &locations);
            self.put_on_wire(node, frames);
            self.flush(node);
        }
    }

    /// Does the jobs that a node wants done.
    pub(crate) fn finish_jobs(&mut self, node: usize) {
        while let Some(job) = self.peers[node].jobs.pop_front() {
            self.peers[node].repl.job_done(job.run());
            self.flush(node);
            self.sync(node);
        }
    }

    /// A node that has no replica yet.
    pub(crate) fn add_node(&mut self) -> usize {
        let at = self.peers.len();
        let name = NodeId::new(&format!("n{at}"));
        let disk = SimDisk::new();
        let (wal, _) = open_wal(&disk);
        let repl = Replicator::new(name.clone(), CLUSTER, 50 + at as u64, self.limits, wal.reader());
        let (unsynced, events, jobs, kept) = Default::default();
        self.peers.push(Peer { name, repl, wal, disk, unsynced, events, jobs, kept });
        self.cut.push(false);
        at
    }

    /// Gives a node a replica that knows nothing.
    pub(crate) fn join(&mut self, node: usize, replica: u64) {
        let machine = List::of(&self.peers[node].kept, 0);
        let joining = Membership::joining(GROUP, ReplicaId(replica));
        self.peers[node].repl.create(joining, machine).expect("a new replica");
    }

    /// Takes the messages off the wire that a test wants to look at or lose.
    pub(crate) fn take(&mut self, wanted: impl Fn(&InFlight) -> bool) -> Vec<InFlight> {
        let (taken, left) = std::mem::take(&mut self.wire).into_iter().partition(|frame| wanted(frame));
        self.wire = left;
        taken
    }

    /// Delivers a message, whatever is cut.
    pub(crate) fn deliver(&mut self, frame: &InFlight) {
        let from = self.peers[frame.from].name.clone();
        let to = &mut self.peers[frame.to];
        to.repl.receive(&from, &frame.meta, &frame.body).expect("a sound frame");
    }

    /// Thinks, syncs and delivers until nothing is left to do.
    pub(crate) fn settle(&mut self) {
        for _ in 0..1000 {
            for node in 0..self.peers.len() {
                self.act(node);
            }
            if self.wire.is_empty() {
                return;
            }
            for frame in std::mem::take(&mut self.wire) {
                if !self.cut[frame.from] && !self.cut[frame.to] {
                    self.deliver(&frame);
                }
            }
        }
        panic!("it does not come to rest");
    }

    pub(crate) fn tick(&mut self, node: usize) {
        let now = self.now;
        let peer = &mut self.peers[node];
        peer.repl.tick(now, &mut peer.events);
    }

    /// Lets time pass for all.
    pub(crate) fn tick_all(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.now.micros += TICK_MICROS;
            (0..self.peers.len()).for_each(|node| self.tick(node));
            self.settle();
        }
    }

    /// Lets time pass for all, and hands what is sent to the test, which delivers it or does not.
    pub(crate) fn run(&mut self, ticks: usize, hand: impl FnMut(&mut Trio, InFlight)) {
        self.run_with(ticks, Trio::act, hand);
    }

    /// A node thinks, its disk is done, and so are its jobs.
    pub(crate) fn act(&mut self, node: usize) {
        self.flush(node);
        self.sync(node);
        self.finish_jobs(node);
    }

    /// As [`Trio::run`], with what a node does when it is its turn.
    pub(crate) fn run_with(
        &mut self,
        ticks: usize,
        mut act: impl FnMut(&mut Trio, usize),
        mut hand: impl FnMut(&mut Trio, InFlight),
    ) {
        for _ in 0..ticks {
            self.now.micros += TICK_MICROS;
            (0..self.peers.len()).for_each(|node| self.tick(node));
            for round in 0.. {
                assert!(round < 1000, "it does not come to rest");
                for node in 0..self.peers.len() {
                    act(self, node);
                }
                if self.wire.is_empty() {
                    break;
                }
                for frame in std::mem::take(&mut self.wire) {
                    hand(self, frame);
                }
            }
        }
    }

    /// Time passes until a node that is not cut off leads.
    pub(crate) fn elect(&mut self) -> usize {
        for _ in 0..400 {
            self.tick_all(1);
            if let Some(leader) =
                (0..self.peers.len()).find(|node| !self.cut[*node] && self.peers[*node].repl.leads(GROUP))
            {
                return leader;
            }
        }
        panic!("nobody was elected");
    }

    pub(crate) fn propose(&mut self, node: usize, level: AckLevel, body: &[u8]) -> Result<Token, Failure> {
        self.propose_all_of(node, level, 1, body)
    }

    /// A proposal that takes so many positions.
    pub(crate) fn propose_writes(&mut self, node: usize, writes: u32) -> Result<Token, Failure> {
        self.propose_all_of(node, AckLevel::Quorum, writes, b"many")
    }

    fn propose_all_of(
        &mut self,
        node: usize,
        level: AckLevel,
        writes: u32,
        body: &[u8],
    ) -> Result<Token, Failure> {
        self.tokens += 1;
        let token = Token(self.tokens);
        let proposal = Proposal {
            token,
            level,
            retry: false,
            writes,
            client: [1; 16],
            sequence: self.tokens,
            body: Bytes::copy_from_slice(body),
            deadline: self.now.micros + DEADLINE_TICKS * TICK_MICROS,
        };
        self.peers[node].repl.propose(GROUP, proposal).map(|()| token)
    }

    pub(crate) fn read(&mut self, node: usize) -> Result<Token, Failure> {
        self.tokens += 1;
        let token = Token(self.tokens);
        self.peers[node]
            .repl
            .read(GROUP, token, self.now.micros + DEADLINE_TICKS * TICK_MICROS)
            .map(|()| token)
    }

    pub(crate) fn acked(&self, node: usize, token: Token) -> bool {
        self.peers[node]
            .events
            .iter()
            .any(|event| matches!(event, Event::Acked { token: t, .. } if *t == token))
    }

    pub(crate) fn read_ready(&self, node: usize, token: Token) -> bool {
        self.peers[node]
            .events
            .iter()
            .any(|event| matches!(event, Event::ReadReady { token: t, .. } if *t == token))
    }

    pub(crate) fn failure(&self, node: usize, token: Token) -> Option<Failure> {
        self.peers[node].events.iter().find_map(|event| match event {
            Event::Failed { token: t, why, .. } if *t == token => Some(why.clone()),
            Event::Stands { token: t, missing, .. } if *t == token => {
                Some(Failure::LevelNotReached { missing: missing.clone() })
            }
            _ => None,
        })
    }

    pub(crate) fn halted(&self, node: usize) -> Option<String> {
        self.peers[node].repl.view(GROUP).expect("the group is there").halted
    }

    pub(crate) fn applied(&self, node: usize) -> &[(u64, Vec<u8>)] {
        &self.peers[node].repl.machine(GROUP).expect("the group is there").applied
    }

    /// Cuts a node's power and turns it on again. Its log is open, and says what it holds; no group is.
    pub(crate) fn restart(&mut self, node: usize) -> Recovered {
        let disk = self.peers[node].disk.crash(&mut || 0);
        let (wal, recovered) = open_wal(&disk);
        let (name, kept) = (self.peers[node].name.clone(), Arc::clone(&self.peers[node].kept));
        let repl = Replicator::new(name.clone(), CLUSTER, 99, self.limits, wal.reader());
        let (unsynced, events, jobs) = Default::default();
        self.peers[node] = Peer { name, repl, wal, disk, unsynced, events, jobs, kept };
        recovered
    }

    /// Starts a node anew on what its disk has synced, with a machine that holds everything up to `held`.
    pub(crate) fn reopen(
        &mut self,
        node: usize,
        held: u64,
        change: impl Fn(&mut Recovered),
    ) -> Result<(), String> {
        let mut recovered = self.restart(node);
        change(&mut recovered);
        let known = Replicator::<List>::memberships(&recovered).map_err(|error| error.to_string())?;
        let known = known.get(&GROUP).cloned().expect("its membership was logged");
        let peer = &mut self.peers[node];
        let mut machine = List::of(&peer.kept, known.incarnation);
        machine.held = machine.held.max(held);
        peer.repl.reopen(known, &recovered, machine).map_err(|error| error.to_string())
    }
}
