//! Virtual time: what happens, and what follows from it.

use crate::checks::Violation;
use crate::client::Client;
use crate::conflicts::Conflicts;
use crate::events::{Event, EventLog, Stop};
use crate::keys::Keys;
use crate::network::Network;
use crate::node::{Change, Input, SimNode, Wish};
use crate::operator::Asker;
use crate::options::Options;
pub(crate) use crate::queue::Action;
use crate::queue::Queue;
use crate::random::Random;
use crate::traffic::Fetching;
use slowdb_net::FrameLimits;
use slowdb_repl::transport::Gate;
use slowdb_repl::wal::WalError;
use slowdb_repl::{NodeId, TICK_MICROS};
use slowdb_server::{CatalogProbe, Command, Node};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// After so long without work the log is marked, as the driver has it.
const MARK_AFTER: u64 = 200_000;
/// How long a node waits before it dials again.
const REDIAL: (u64, u64) = (50_000, 500_000);

pub(crate) struct Cluster {
    pub(crate) options: Options,
    pub(crate) keys: Keys,
    pub(crate) now: u64,
    queue: Queue,
    pub(crate) network: Network,
    pub(crate) nodes: Vec<SimNode>,
    pub(crate) names: Vec<NodeId>,
    /// One for each node that may want to join, and one for the operator.
    pub(crate) askers: Vec<Asker>,
    pub(crate) next_action: u64,
    /// The operator does nothing by itself.
    pub(crate) by_hand: bool,
    /// What the operator has achieved.
    pub(crate) actions_done: u64,
    /// The catalog as of the highest epoch that any node has applied.
    pub(crate) catalog: Option<CatalogProbe>,
    /// Why nodes do not connect, by who dials whom.
    pub(crate) refusals: BTreeMap<(usize, usize), String>,
    /// What is planned then, in words; empty if all is where it should be.
    pub(crate) planned: String,
    pub(crate) conflicts: Conflicts,
    /// What the catalog was at each epoch, for whoever applies it later.
    catalogs: BTreeMap<u64, CatalogProbe>,
    pub(crate) clients: Vec<Client>,
    pub(crate) log: EventLog,
    pub(crate) random: Random,
    pub(crate) ops: u32,
    pub(crate) attempts: u64,
    /// By the attempts that they are.
    pub(crate) fetches: BTreeMap<u64, Fetching>,
    pub(crate) faults_struck: u64,
    pub(crate) healed: bool,
    pub(crate) violation: Option<Violation>,
    pub(crate) limits: FrameLimits,
}

impl Cluster {
    pub(crate) fn new(options: Options, verbose: bool) -> Self {
        let random = Random::new(options.seed ^ 0x51_0db5);
        let keys = Keys::new(options.shards, options.keys_per_shard);
        let nodes_max = options.nodes_max();
        let nodes: Vec<SimNode> =
            (0..nodes_max).map(|index| SimNode::new(index, random.fork(100 + index as u64))).collect();
        let names = nodes.iter().map(|node| node.name.clone()).collect();
        let network = Network::new(options.net, nodes_max, options.clients, random.fork(1));
        let mut cluster = Cluster {
            keys,
            now: 0,
            queue: Queue::default(),
            network,
            nodes,
            names,
            askers: (0..=nodes_max).map(|_| Asker::default()).collect(),
            next_action: 0,
            by_hand: false,
            actions_done: 0,
            catalog: None,
            refusals: BTreeMap::new(),
            planned: String::new(),
            conflicts: Conflicts::default(),
            catalogs: BTreeMap::new(),
            clients: Vec::new(),
            log: EventLog::new(verbose),
            random: random.fork(2),
            ops: 0,
            attempts: 0,
            fetches: BTreeMap::new(),
            faults_struck: 0,
            healed: false,
            violation: None,
            limits: FrameLimits::default(),
            options,
        };
        cluster.conflicts.expect(&cluster.options);
        for node in 0..cluster.options.nodes {
            let delay = cluster.random.below(100_000);
            cluster.nodes[node].present = true;
            cluster.after(delay, Action::Start { node });
        }
        cluster.after(0, Action::Operate);
        for index in 0..cluster.options.clients {
            let mut client = Client::new(index, &cluster.options, random.fork(1000 + index as u64));
            if cluster.options.only_clients.as_ref().is_some_and(|only| !only.contains(&index)) {
                client.finish();
            }
            cluster.add_client(client);
        }
        cluster
    }

    pub(crate) fn add_client(&mut self, client: Client) {
        let delay = self.random.below(10_000);
        let (client_index, timer) = (client.index, client.timer);
        self.clients.push(client);
        self.after(delay, Action::Client { client: client_index, timer });
    }

    pub(crate) fn after(&mut self, delay: u64, action: Action) {
        self.at(self.now + delay, action);
    }

    pub(crate) fn at(&mut self, at: u64, action: Action) {
        self.queue.push(at.max(self.now), action);
    }

    /// Lets things happen until `until`, or until `done` says so (asked about every simulated millisecond), or
    /// something is wrong. Says whether `done` was reached.
    pub(crate) fn run(&mut self, until: u64, mut done: impl FnMut(&Cluster) -> bool) -> bool {
        let mut look_at = self.now;
        while self.violation.is_none() {
            if self.now >= look_at {
                if done(self) {
                    return true;
                }
                look_at = self.now + 1000;
            }
            if let Some((at, action)) = self.queue.pop_until(until) {
                self.now = at;
                self.perform(action);
            } else {
                if !self.queue.is_empty() {
                    self.now = until;
                }
                return done(self);
            }
        }
        false
    }

    /// Operations begun so far.
    pub(crate) fn ops(&self) -> u64 {
        u64::from(self.ops)
    }

    pub(crate) fn fail(&mut self, checker: &'static str, what: String) {
        self.violation.get_or_insert(Violation { checker, what });
    }

    pub(crate) fn lives(&self, node: usize, life: u32) -> bool {
        self.nodes[node].life == life && self.nodes[node].running.is_some()
    }

    /// A stopped process does nothing until it goes on.
    fn paused(&self, node: usize) -> Option<u64> {
        let until = self.nodes[node].paused_until;
        (until > self.now).then_some(until)
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Start { node } => self.start(node),
            Action::Tick { node, life } if self.lives(node, life) => {
                self.after(TICK_MICROS, Action::Tick { node, life });
                self.nodes[node].tick();
                self.wake(node);
            }
            Action::Wake { node, life } if self.lives(node, life) => match self.paused(node) {
                Some(until) => self.at(until, Action::Wake { node, life }),
                None => self.turn(node),
            },
            Action::Synced { node, life } if self.lives(node, life) => match self.paused(node) {
                Some(until) => self.at(until, Action::Synced { node, life }),
                None => self.synced(node),
            },
            Action::Mark { node, life, batch } if self.lives(node, life) => self.mark(node, batch),
            Action::Close { node, life, down } if self.lives(node, life) => self.close(node, down),
            Action::RunCheckpoint { node, life, group, job } if self.lives(node, life) => {
                let result = Box::new(job.run());
                let delay = self.random.between(self.options.disk.checkpoint);
                self.after(delay, Action::CheckpointRan { node, life, group, result });
                self.notice_power(node);
            }
            Action::CheckpointRan { node, life, group, result } if self.lives(node, life) => {
                self.input(node, Input::Command(Command::Checkpointed { group, result: *result }));
            }
            Action::RunJob { node, life, job } if self.lives(node, life) => {
                let done = Box::new(job.run());
                let delay = self.random.between(self.options.disk.checkpoint);
                self.after(delay, Action::JobRan { node, life, done });
                self.notice_power(node);
            }
            Action::JobRan { node, life, done } if self.lives(node, life) => {
                self.input(node, Input::Command(Command::JobDone(*done)));
            }
            Action::Frame { from, to, life, bytes } if self.lives(to, life) => self.frame(from, to, &bytes),
            Action::Unreachable { node, life, other } if self.lives(node, life) => {
                self.input(node, Input::Unreachable { node: other });
            }
            Action::Dial { from, to, life } if self.lives(from, life) => self.dial(from, to, life),
            Action::Request { client, attempt, node, bytes } => self.request(client, attempt, node, &bytes),
            Action::Answer { client, attempt, bytes } => self.answer(client, attempt, &bytes),
            Action::Client { client, timer } if self.clients[client].timer == timer => self.client(client),
            Action::FetchOver { attempt } => self.fetched(attempt, None),
            Action::Ask { asker, timer } => self.asks(asker, timer),
            Action::Operate => self.operate(),
            Action::Wipe { node, life, wiped } if self.nodes[node].life == life => self.wipe(node, wiped),
            Action::Fault(fault) => self.strike(*fault),
            Action::Mend { from, to } => self.network.mend(from, to),
            Action::MendClient { client, node } => self.network.mend_client(client, node),
            Action::FreeDisk { node } => self.free_disk(node),
            Action::PowerLoss { node, life, down } if self.lives(node, life) && !self.healed => {
                self.stop(node, Stop::PowerLoss, down);
            }
            _ => {}
        }
    }

    // Nodes.

    pub(crate) fn start(&mut self, node: usize) {
        let this = &self.nodes[node];
        if this.running.is_some() || this.asking.is_some() || !this.present {
            return;
        }
        if let Err(why) = self.nodes[node].start(&self.options) {
            if !self.notice_power(node) {
                self.disk_trouble(node, &format!("it does not start: {why}"));
            }
            return;
        }
        if self.notice_power(node) {
            return;
        }
        if self.nodes[node].asking.is_some() {
            return self.ask_to_join(node);
        }
        self.log.push(self.now, Event::Started { node });
        let life = self.nodes[node].life;
        let offset = self.random.below(TICK_MICROS);
        self.after(offset, Action::Tick { node, life });
        self.wake(node);
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.dial_soon(node, other);
            self.dial_soon(other, node);
        }
        self.look(node);
    }

    /// Whether a node runs, and holds a connection to the other or tries to.
    fn dials(&self, from: usize, to: usize) -> bool {
        self.nodes[from]
            .running
            .as_ref()
            .is_some_and(|running| running.peers.contains(self.names[to].as_str()))
    }

    fn dial_soon(&mut self, from: usize, to: usize) {
        if self.dials(from, to) {
            let delay = self.random.below(5_000);
            let life = self.nodes[from].life;
            self.after(delay, Action::Dial { from, to, life });
        }
    }

    /// Says hello both ways, as the transport does when it connects.
    fn dial(&mut self, from: usize, to: usize, life: u32) {
        if self.network.is_connected(from, to, self.nodes[to].life) || !self.dials(from, to) {
            return;
        }
        let reachable = !self.network.is_cut(from, to) && !self.network.is_cut(to, from);
        let here = self.nodes[from].running.as_ref().map(|running| running.own.clone());
        let there = self.nodes[to].running.as_ref().map(|running| running.own.clone());
        let (Some(here), Some(there), true) = (here, there, reachable) else {
            let delay = self.random.between(REDIAL);
            return self.after(delay, Action::Dial { from, to, life });
        };
        let hello = here.hello(&self.names[to]);
        let admitted = there.admit(&hello).and_then(|()| here.admit(&there.hello(&hello.node)));
        if self.notice_power(from) | self.notice_power(to) {
            return;
        }
        match admitted {
            Ok(()) => {
                self.refusals.remove(&(from, to));
                self.network.connect(from, to, self.nodes[to].life);
            }
            // Who has joined or was removed is not known everywhere at once; in the end it has to be.
            Err(why)
                if self.options.changes.is_some()
                    || self.nodes[from].has_bad_disk()
                    || self.nodes[to].has_bad_disk() =>
            {
                self.refusals.insert((from, to), why);
                let delay = self.random.between(REDIAL);
                self.after(delay, Action::Dial { from, to, life });
            }
            Err(why) => self.fail("gate", format!("node {from} and node {to} refuse each other: {why}")),
        }
    }

    pub(crate) fn disconnect(&mut self, from: usize, to: usize) {
        self.network.disconnect(from, to);
        if self.nodes[from].running.is_some() {
            let life = self.nodes[from].life;
            let delay = self.random.between((100, 50_000));
            self.after(delay, Action::Unreachable { node: from, life, other: to });
            self.dial_soon(from, to);
        }
    }

    /// Takes a node away, and lets it come back after `down`.
    pub(crate) fn stop(&mut self, node: usize, how: Stop, down: u64) {
        if self.nodes[node].running.is_none() && !matches!(how, Stop::PowerLoss | Stop::Asked) {
            return;
        }
        self.nodes[node].stop(how);
        // What its threads were doing ends with it.
        self.queue.retain(|action| !action.is_work_of(node));
        if how == Stop::PowerLoss {
            self.nodes[node].disk_failed = false;
        }
        self.log.push(self.now, Event::Stopped { node, how });
        for other in (0..self.nodes.len()).filter(|other| *other != node) {
            self.network.disconnect(node, other);
            self.disconnect(other, node);
        }
        self.after(down, Action::Start { node });
    }

    /// Whether the power of a node just went away at a sync; if so the node is gone.
    pub(crate) fn notice_power(&mut self, node: usize) -> bool {
        let down = self.nodes[node].disk.is_down();
        if down {
            let away = self.random.between(self.options.faults.down);
            self.stop(node, Stop::PowerLoss, away);
        }
        down
    }

    /// A node says that it cannot go on: right if a sync was made to fail, and else a bug.
    pub(crate) fn disk_trouble(&mut self, node: usize, why: &str) {
        if self.notice_rot(node, why) {
            return;
        }
        let says_so = why.contains("simulated disk") || why.contains("no room");
        if !self.nodes[node].has_bad_disk() || !says_so {
            return self.fail("node", format!("node {node}: {why}"));
        }
        let away = self.random.between(self.options.faults.down);
        if self.nodes[node].running.is_some() {
            self.stop(node, Stop::DiskFailed, away);
        } else {
            self.after(away, Action::Start { node });
        }
    }

    pub(crate) fn wake(&mut self, node: usize) {
        let Some(running) = &mut self.nodes[node].running else { return };
        if !std::mem::replace(&mut running.wake_scheduled, true) {
            let life = self.nodes[node].life;
            let delay = self.random.below(60);
            self.after(delay, Action::Wake { node, life });
        }
    }

    pub(crate) fn input(&mut self, node: usize, input: Input) {
        if let Some(running) = &mut self.nodes[node].running {
            running.inbox.push_back(input);
            self.wake(node);
        }
    }

    fn turn(&mut self, node: usize) {
        let mut wishes = Vec::new();
        let (now, names) = (self.now, &self.names);
        let this = &mut self.nodes[node];
        let Some(result) = with_power(this, |this| this.turn(now, names, &mut wishes)) else {
            self.notice_power(node);
            return;
        };
        self.after_turn(node, result, wishes);
        if self.nodes[node].running.as_ref().is_some_and(|running| !running.inbox.is_empty()) {
            self.wake(node);
        }
    }

    fn synced(&mut self, node: usize) {
        let mut wishes = Vec::new();
        let now = self.now;
        let Some(result) = with_power(&mut self.nodes[node], |this| this.synced(now, &mut wishes)) else {
            self.notice_power(node);
            return;
        };
        self.after_turn(node, result, wishes);
    }

    /// The log of a node had nothing to do since this batch.
    fn mark(&mut self, node: usize, batch: u64) {
        if self.nodes[node].idle_since() != Some(batch) {
            return;
        }
        let result = self.nodes[node].mark();
        if !self.notice_power(node)
            && let Err(error) = result
        {
            self.disk_trouble(node, &format!("the log failed: {error}"));
        }
    }

    /// A node that was asked to stop has prepared itself, or was given up waiting for.
    fn close(&mut self, node: usize, down: u64) {
        let result = self.nodes[node].close();
        if self.notice_power(node) {
            return;
        }
        self.stop(node, Stop::Asked, down);
        self.rot(node);
        if let Err(error) = result
            && !self.nodes[node].has_bad_disk()
        {
            self.fail("node", format!("node {node} cannot close its log: {error}"));
        }
    }

    fn after_turn(&mut self, node: usize, result: Result<(), WalError>, wishes: Vec<Wish>) {
        // What was said before the power went was said.
        let mut stop = result.err().map(|error| format!("the log failed: {error}"));
        for wish in wishes {
            match wish {
                Wish::Send(frame) => self.send(node, frame),
                Wish::Answer { client, attempt, reply, body } => {
                    self.reply(node, client, attempt, &reply, body)
                }
                Wish::Checkpoint { group, job } => {
                    let delay = self.random.between(self.options.disk.checkpoint);
                    let (life, job) = (self.nodes[node].life, Box::new(job));
                    self.after(delay, Action::RunCheckpoint { node, life, group, job });
                }
                Wish::Job(job) => {
                    let delay = self.random.between(self.options.disk.checkpoint);
                    let (life, job) = (self.nodes[node].life, Box::new(job));
                    self.after(delay, Action::RunJob { node, life, job });
                }
                Wish::Fetch(fetch) => self.fetch(node, fetch),
                Wish::Sync => {
                    let slow =
                        if self.nodes[node].slow_until > self.now { self.nodes[node].slow_factor } else { 1 };
                    let delay = self.random.between(self.options.disk.sync) * slow;
                    let life = self.nodes[node].life;
                    self.after(delay, Action::Synced { node, life });
                }
                Wish::Idle => {
                    let life = self.nodes[node].life;
                    let batch = self.nodes[node].idle_since().unwrap_or_default();
                    self.after(MARK_AFTER, Action::Mark { node, life, batch });
                }
                Wish::Logged { term, index, data } => {
                    self.conflicts.logged(&self.keys, term, index, &data);
                }
                Wish::Peers(peers) => self.set_peers(node, peers),
                Wish::ReadyToStop => {
                    let life = self.nodes[node].life;
                    let down = self.random.between(self.options.faults.down);
                    self.after(0, Action::Close { node, life, down });
                }
                Wish::Stop(why) => {
                    stop.get_or_insert(why);
                }
            }
        }
        if self.notice_power(node) {
            return;
        }
        if let Some(why) = stop {
            return self.disk_trouble(node, &why);
        }
        self.nodes[node].check_invariants();
        self.look(node);
    }

    /// From now on these are the nodes that a node holds connections to.
    fn set_peers(&mut self, node: usize, peers: BTreeSet<String>) {
        let Some(running) = &mut self.nodes[node].running else { return };
        let before = std::mem::replace(&mut running.peers, peers);
        for other in 0..self.nodes.len() {
            let name = self.names[other].as_str();
            match (before.contains(name), self.dials(node, other)) {
                (true, false) => self.network.disconnect(node, other),
                (false, true) => self.dial_soon(node, other),
                _ => {}
            }
        }
    }

    /// Takes note of changes of the catalog, which have to be the same wherever they are applied.
    fn look_at_catalog(&mut self, node: usize) {
        let Some(running) = &mut self.nodes[node].running else { return };
        let epoch = running.core().catalog_epoch();
        if std::mem::replace(&mut running.catalog_epoch, epoch) == epoch {
            return;
        }
        let Some(catalog) = running.core().catalog_probe() else { return };
        let known = self.catalogs.entry(epoch).or_insert_with(|| catalog.clone());
        if *known != catalog {
            let what = format!("node {node} has {catalog:?} at epoch {epoch}, others {known:?}");
            return self.fail("agreement", what);
        }
        if self.catalog.as_ref().is_none_or(|known| known.epoch < epoch) {
            let plan = match running.core().plan_probe() {
                Ok(plan) => plan,
                Err(why) => return self.fail("placement", format!("no plan at epoch {epoch}: {why}")),
            };
            let planned = if plan.is_empty() { String::new() } else { plan.to_string() };
            self.planned.clone_from(&planned);
            let (copies, known) = (plan.copies(), Box::new(catalog.clone()));
            self.log.push(self.now, Event::Catalog { node, catalog: known, copies, planned });
            self.catalog = Some(catalog);
        }
    }

    /// Takes note of what is different in a node's groups.
    fn look(&mut self, node: usize) {
        let mut halted = None;
        let mut elected = false;
        let (log, now) = (&mut self.log, self.now);
        let (conflicts, policy) = (&mut self.conflicts, self.options.conflicts);
        let mut held = std::mem::take(&mut self.nodes[node].held);
        let mut lost = Vec::new();
        let see = |core: &Node, Change { before, after }| {
            let group = after.group.0;
            let led_before = before.is_some_and(|before| before.leads && before.term == after.term);
            if after.leads && !led_before {
                log.push(now, Event::Leads { node, group, term: after.term });
                elected = true;
            }
            let moved = before.is_none_or(|before| before.applied != after.applied);
            // A halted group may be in the middle of an entry.
            if moved
                && !after.halted
                && let Some(digest) = core.digest(after.group)
            {
                log.push(now, Event::Applied { node, group, position: after.applied, digest });
                if let Some(shard) = conflicts.applied(core, after.group) {
                    let from = after.applied;
                    log.push(now, Event::Policy { shard, policy, from });
                }
            }
            if after.halted {
                halted = Some(after.group);
            }
            let replica = after.replica.0;
            if let Some(old) = held.insert(group, replica).filter(|old| *old != replica) {
                log.push(now, Event::ReplicaGone { node, group, replica: old });
            }
            if before.is_none_or(|before| before.replica != after.replica) {
                log.push(now, Event::Replica { node, group, replica });
            }
            if before.is_none_or(|before| before.configured != after.configured)
                && let Some(membership) = core.members(after.group)
            {
                let (index, intent) = after.configured;
                let members = membership.members.iter();
                let members =
                    members.map(|it| (it.replica.0, it.node.as_str().to_owned(), it.part)).collect();
                log.push(now, Event::Members { node, group, replica, index, intent, members });
            }
        };
        self.nodes[node].changes(see, |gone| lost.push(gone.group.0));
        self.look_at_catalog(node);
        let probes = self.nodes[node].probes();
        // All that are there are held.
        if held.len() > probes.len() {
            let here = |group: &u64| probes.iter().any(|probe| probe.group.0 == *group);
            lost.extend(held.keys().filter(|group| !here(group)));
        }
        for group in lost {
            if let Some(replica) = held.remove(&group) {
                self.log.push(self.now, Event::ReplicaGone { node, group, replica });
            }
        }
        self.nodes[node].held = held;
        if let Some(group) = halted {
            let why = self.nodes[node].why_halted(group);
            self.disk_trouble(node, &format!("{group} is halted: {why}"));
        }
        if elected && !self.healed && self.random.chance(self.options.faults.power_loss_on_election) {
            self.power_loss_after_election();
        }
    }
}

/// Lets a node work. `None` if it panicked after its power had gone: a log that cannot be read is a reason to, and a
/// process without power does not get so far.
fn with_power<R>(node: &mut SimNode, work: impl FnOnce(&mut SimNode) -> R) -> Option<R> {
    match catch_unwind(AssertUnwindSafe(|| work(node))) {
        Ok(result) => Some(result),
        Err(_) if node.disk.is_down() => None,
        Err(panic) => resume_unwind(panic),
    }
}
