//! One run: faults and clients, then peace, then questions.

use crate::checks::{self, Violation};
use crate::client::Client;
use crate::cluster::{Action, Cluster};
use crate::events::{Ask, Event};
use crate::faults;
use crate::options::Options;
use slowdb_proto::{ReadLevel, WriteLevel};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

const SECOND: u64 = 1_000_000;
/// After the last fault, within this time every client's last operation is over.
const CLIENTS_END_WITHIN: u64 = 20 * SECOND;
/// After the last fault, within this time every shard takes a write at `quorum`, and all ids can be read.
const PROGRESS_WITHIN: u64 = 20 * SECOND;
/// Without load, within this time all replicas have applied the same.
const QUIET_WITHIN: u64 = 20 * SECOND;
/// Values of the writes after the faults, which no client uses.
const LAST_VALUES: u64 = 1 << 40;

/// What a run did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Simulated time, in microseconds.
    pub simulated_micros: u64,
    /// Operations of clients.
    pub ops: u64,
    /// Faults that struck.
    pub faults: u64,
    /// Over everything that happened.
    pub hash: u64,
}

/// What went wrong in a run, with all that is needed to look into it.
#[derive(Debug)]
pub struct RunFailure {
    /// What the run was made of.
    pub options: Options,
    /// What is wrong.
    pub violation: Violation,
    /// The last events.
    pub tail: String,
    /// Over everything that happened.
    pub hash: u64,
}

impl fmt::Display for RunFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.options)?;
        writeln!(f, "last events:\n{}", self.tail)?;
        writeln!(f, "FAILED: {}", self.violation)?;
        let Options { seed, profile, .. } = self.options;
        write!(f, "replay: cargo xtask sim --replay {seed}")?;
        if Options::of_seed(seed).profile != profile {
            write!(f, " -- --profile {}", profile.name())?;
        }
        Ok(())
    }
}

/// Runs a cluster as the options say, and checks everything.
pub fn run(options: Options, verbose: bool) -> Result<Report, Box<RunFailure>> {
    let mut cluster = Cluster::new(options.clone(), verbose);
    let ended = catch_unwind(AssertUnwindSafe(|| cluster.live()));
    if let Err(panic) = ended {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        cluster.fail("assertion", text.replace('\n', ";"));
    }
    let violation = cluster.violation.take().or_else(|| checks::all(cluster.log.events(), &cluster.keys));
    let hash = cluster.log.hash();
    match violation {
        Some(violation) => Err(Box::new(RunFailure { options, violation, tail: cluster.log.tail(40), hash })),
        None => Ok(Report {
            simulated_micros: cluster.now,
            ops: cluster.ops(),
            faults: cluster.faults_struck,
            hash,
        }),
    }
}

impl Cluster {
    fn live(&mut self) {
        let schedule = faults::draw(&self.options, &mut self.random.fork(3));
        for (at, fault) in schedule {
            self.at(at, Action::Fault(Box::new(fault)));
        }
        self.run(self.options.faults_until, |_| false);
        self.heal();
        let clients = self.options.clients;
        self.clients.iter_mut().for_each(Client::finish);
        let end = self.now + CLIENTS_END_WITHIN;
        if !self.run(end, |cluster| cluster.clients[..clients].iter().all(Client::is_idle)) {
            return self.fail("progress", "a client's last operation has not ended".into());
        }
        self.make_progress();
        self.get_quiet();
        self.compare_content();
    }

    /// Asks all that is on the list, one after the other.
    fn ask(&mut self, script: Vec<Ask>, what: &str) {
        if self.violation.is_some() {
            return;
        }
        let index = self.clients.len();
        let client = Client::scripted(index, &self.options, self.random.fork(2000 + index as u64), script);
        self.add_client(client);
        let end = self.now + PROGRESS_WITHIN;
        if !self.run(end, |cluster| cluster.clients[index].is_idle()) && self.violation.is_none() {
            let current = self.clients[index].current.as_ref().map(|current| current.ask.clone());
            self.fail(
                "progress",
                format!("{what}: no answer to {current:?} {PROGRESS_WITHIN} us after the faults"),
            );
        }
    }

    /// Every shard takes a write at `quorum` and `all`, and every id can be read at `quorum`.
    fn make_progress(&mut self) {
        let mut script = Vec::new();
        for shard in 0..self.options.shards {
            let keys = self.keys.of_shard(shard);
            let value = LAST_VALUES + u64::from(shard) * 2;
            // Ids of both kinds stay as the faults left them, but for the first of each shard.
            for (level, value) in [(WriteLevel::Quorum, value), (WriteLevel::All, value + 1)] {
                script.push(Ask::Write { level, writes: vec![(keys[0], Some(value))] });
            }
            let read = |key: &crate::Key| Ask::Read { level: ReadLevel::Quorum, keys: vec![*key], at: None };
            script.extend(keys.iter().map(read));
        }
        self.ask(script, "after the faults");
    }

    /// Waits until all replicas have applied the same and nothing is under way.
    fn get_quiet(&mut self) {
        if self.violation.is_some() {
            return;
        }
        let end = self.now + QUIET_WITHIN;
        let quiet = self.run(end, |cluster| cluster.unrest().is_none());
        match self.unrest() {
            Some(why) if !quiet => {
                self.log.push(self.now, Event::NotQuiet { why });
            }
            _ => self.log.push(self.now, Event::Quiet),
        }
    }

    /// What is still different or under way.
    fn unrest(&self) -> Option<String> {
        for shard in 0..self.options.shards {
            let replicas = self.replicas(shard);
            let wanted = (self.options.replication_factor as usize).min(self.options.nodes);
            if replicas.len() != wanted {
                return Some(format!("shard {shard} has replicas on nodes {replicas:?}, not on {wanted}"));
            }
            let group = 1 + u64::from(shard);
            let applied = |node: &usize| {
                let probe = self.nodes[*node].probes().iter().find(|probe| probe.group.0 == group);
                (*node, probe.map(|probe| probe.applied))
            };
            let applied: Vec<_> = replicas.iter().map(applied).collect();
            if applied.iter().any(|(_, position)| *position != applied[0].1) {
                return Some(format!("shard {shard} is applied up to {applied:?}"));
            }
        }
        let open = |node: &usize| self.nodes[*node].requests_open() > 0;
        (0..self.options.nodes)
            .find(open)
            .map(|node| format!("node {node} has requests that it has not answered"))
    }

    fn replicas(&self, shard: u32) -> Vec<usize> {
        let group = 1 + u64::from(shard);
        let has = |node: &usize| self.nodes[*node].probes().iter().any(|probe| probe.group.0 == group);
        (0..self.options.nodes).filter(has).collect()
    }

    /// Reads all there is, from every replica.
    fn compare_content(&mut self) {
        let mut script = Vec::new();
        for shard in 0..self.options.shards {
            let keys = self.keys.of_shard(shard).to_vec();
            for node in self.replicas(shard) {
                script.push(Ask::Read { level: ReadLevel::One, keys: keys.clone(), at: Some(node) });
            }
        }
        self.ask(script, "comparing replicas");
    }
}
