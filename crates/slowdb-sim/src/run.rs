//! One run: faults and clients, then peace, then questions.

use crate::checks::{self, Violation};
use crate::client::Client;
use crate::cluster::{Action, Cluster};
use crate::events::{Ask, By, Event};
use crate::faults::{self, Fault};
use crate::node::SimNode;
use crate::options::Options;
use slowdb_proto::{Became, ReadLevel, WriteLevel};
use slowdb_repl::GroupId;
use slowdb_server::CatalogProbe;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

const SECOND: u64 = 1_000_000;
/// After the last fault, within this time every client's last operation is over.
const CLIENTS_END_WITHIN: u64 = 20 * SECOND;
/// After the last fault, within this time every shard takes a write at `quorum`, and all ids can be read.
const PROGRESS_WITHIN: u64 = 20 * SECOND;
/// Without load, within this time all replicas have applied the same, and those lead that are wanted to. A node whose disk
/// was slow, or that was stopped for a while, gives leadership away for half a minute.
const QUIET_WITHIN: u64 = 60 * SECOND;
/// After the last fault, within this time every replica is where it is wanted.
const SETTLED_WITHIN: u64 = 60 * SECOND;
/// Values of the writes after the faults, which no client uses.
const LAST_VALUES: u64 = 1 << 23;

/// What a run did.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Simulated time, in microseconds.
    pub simulated_micros: u64,
    /// Operations of clients.
    pub ops: u64,
    /// Faults that struck.
    pub faults: u64,
    /// What the operator has achieved, nodes that joined included.
    pub actions: u64,
    /// Replicas that were placed where none was before.
    pub moves: u64,
    /// Writes that were overtaken and offered again, as the logs of conflicts showed them.
    pub late: u64,
    /// Those of them that lost against what was there.
    pub late_lost: u64,
    /// Those of them that won.
    pub late_won: u64,
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
        let Options { seed, profile, only_faults, only_clients, .. } = &self.options;
        let (seed, profile) = (*seed, *profile);
        write!(f, "replay: cargo xtask sim --replay {seed}")?;
        let mut is_default = Options::of_seed(seed).profile == profile;
        if !is_default {
            write!(f, " -- --profile {}", profile.name())?;
        }
        let numbers = |list: &[usize]| list.iter().map(usize::to_string).collect::<Vec<_>>().join(",");
        for (flag, only) in [("--only-faults", only_faults), ("--only-clients", only_clients)] {
            if let Some(only) = only {
                let dashes = if is_default { " --" } else { "" };
                is_default = false;
                write!(f, "{dashes} {flag} '{}'", numbers(only))?;
            }
        }
        Ok(())
    }
}

/// Runs a cluster as the options say, and checks everything.
pub fn run(options: Options, verbose: bool) -> Result<Report, Box<RunFailure>> {
    let cluster = checked(options, verbose)?;
    let late = checks::conflicts(cluster.log.events());
    let became = |what| late.values().filter(|became| **became == what).count() as u64;
    Ok(Report {
        simulated_micros: cluster.now,
        ops: cluster.ops(),
        faults: cluster.faults_struck,
        actions: cluster.actions_done,
        moves: checks::moves(cluster.log.events()),
        late: late.len() as u64,
        late_lost: became(Became::Lost),
        late_won: became(Became::Replaced),
        hash: cluster.log.hash(),
    })
}

/// Runs a cluster as the options say, checks everything, and counts how it fared with every pair of levels.
pub fn exercise(options: Options) -> Result<checks::Tallies, Box<RunFailure>> {
    let cluster = checked(options, false)?;
    let events = cluster.log.events();
    let tallies = checks::tally(events, &checks::operations(events));
    tallies.map_err(|what| cluster.failure(Violation { checker: "pairs", what }))
}

/// The cluster after its run, if nothing is wrong. A panic is.
fn checked(options: Options, verbose: bool) -> Result<Cluster, Box<RunFailure>> {
    let mut cluster = Cluster::new(options, verbose);
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| cluster.live())) {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        cluster.fail("assertion", text.replace('\n', ";"));
    }
    let violation = cluster.violation.take().or_else(|| checks::all(cluster.log.events(), &cluster.keys));
    match violation {
        Some(violation) => Err(cluster.failure(violation)),
        None => Ok(cluster),
    }
}

impl Cluster {
    fn failure(&self, violation: Violation) -> Box<RunFailure> {
        let (tail, hash) = (self.log.tail(40), self.log.hash());
        Box::new(RunFailure { options: self.options.clone(), violation, tail, hash })
    }

    /// The schedule of faults. To be called first of all.
    pub(crate) fn draw_faults(&mut self) -> Vec<(u64, Fault)> {
        faults::draw(&self.options, &mut self.random.fork(3))
    }

    fn live(&mut self) {
        let schedule = self.draw_faults();
        let only = self.options.only_faults.clone();
        let strikes = |number: &usize| only.as_ref().is_none_or(|only| only.contains(number));
        for (_, (at, fault)) in schedule.into_iter().enumerate().filter(|(number, _)| strikes(number)) {
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
        self.settle();
        self.reach_all();
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

    /// With every replica where it is wanted, every shard takes a write at `all`.
    fn reach_all(&mut self) {
        let mut script = Vec::new();
        for shard in 0..self.options.shards {
            let key = self.keys.of_shard(shard)[0];
            let value = LAST_VALUES + u64::from(shard) * 2 + 1;
            script.push(Ask::Write {
                level: WriteLevel::All,
                writes: vec![(key, Some(value))],
                condition: None,
            });
            script.push(Ask::Read { level: ReadLevel::Quorum, keys: vec![key], by: By::Get, at: None });
        }
        self.ask(script, "with all replicas in place");
    }

    /// Every shard takes a write at `quorum`, and every id can be read at `quorum`.
    fn make_progress(&mut self) {
        let mut script = Vec::new();
        for shard in 0..self.options.shards {
            let keys = self.keys.of_shard(shard);
            let value = LAST_VALUES + u64::from(shard) * 2;
            // Ids of both kinds stay as the faults left them, but for the first of each shard.
            script.push(Ask::Write {
                level: WriteLevel::Quorum,
                writes: vec![(keys[0], Some(value))],
                condition: None,
            });
            let level = ReadLevel::Quorum;
            let read = |key: &crate::Key| Ask::Read { level, keys: vec![*key], by: By::Get, at: None };
            script.extend(keys.iter().map(read));
            for by in [By::Scan, By::Search] {
                script.push(Ask::Read { level, keys: keys.to_vec(), by, at: None });
            }
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

    /// Waits until every replica is where it is wanted, and every node is back or gone for good.
    fn settle(&mut self) {
        if self.violation.is_some() {
            return;
        }
        let end = self.now + SETTLED_WITHIN;
        if !self.run(end, |cluster| cluster.unsettled().is_none())
            && let Some(why) = self.unsettled()
        {
            self.fail("placement", format!("not settled {SETTLED_WITHIN} us after the faults: {why}"));
        }
    }

    /// What is not where it is wanted, or who is not back.
    pub(crate) fn unsettled(&self) -> Option<String> {
        let apart = || self.disconnected(self.catalog.as_ref()?);
        self.chores_left().or_else(apart).or_else(|| self.settled_by_catalog())
    }

    /// What is still different or under way.
    fn unrest(&self) -> Option<String> {
        // Whoever is taken for down until it is heard has leaders to get back.
        if let Some(why) = self.unsettled() {
            return Some(why);
        }
        let Some(catalog) = &self.catalog else { return Some("there is no catalog".into()) };
        for spec in &catalog.groups {
            let group = spec.group;
            let replicas = self.replicas(group);
            let mut wanted: Vec<&str> = spec.replicas.iter().map(|replica| replica.node.as_str()).collect();
            wanted.sort_by_key(|name| self.names.iter().position(|n| n.as_str() == *name));
            if !replicas.iter().map(|node| self.names[*node].as_str()).eq(wanted.iter().copied()) {
                return Some(format!(
                    "group {group} has replicas on nodes {replicas:?}, the catalog says {wanted:?}"
                ));
            }
            let probe = |node: &usize| self.nodes[*node].probes().iter().find(|probe| probe.group.0 == group);
            let applied: Vec<_> =
                replicas.iter().map(|node| (*node, probe(node).map(|probe| probe.applied))).collect();
            if applied.iter().any(|(_, position)| *position != applied[0].1) {
                return Some(format!("group {group} is applied up to {applied:?}"));
            }
            let leads = |node: &usize| probe(node).is_some_and(|probe| probe.leads);
            let leaders: Vec<usize> = replicas.iter().copied().filter(leads).collect();
            if !leaders.iter().map(|node| self.names[*node].as_str()).eq([spec.leader.as_str()]) {
                return Some(format!(
                    "group {group} is led by nodes {leaders:?}, the catalog says {}",
                    spec.leader
                ));
            }
        }
        let keeps = |node: usize| Some((node, self.nodes[node].quarantines()?));
        if let Some((node, group)) = (0..self.nodes.len()).find_map(keeps) {
            return Some(format!("node {node} keeps writes to {group} that were overtaken"));
        }
        let open = |node: &usize| self.nodes[*node].requests_open() > 0;
        (0..self.nodes.len())
            .find(open)
            .map(|node| format!("node {node} has requests that it has not answered"))
    }

    /// Two nodes of the cluster that have no connection.
    fn disconnected(&self, catalog: &CatalogProbe) -> Option<String> {
        let member = |node: &usize| catalog.nodes.iter().any(|known| known.id == self.names[*node].as_str());
        let members: Vec<usize> = (0..self.nodes.len()).filter(member).collect();
        let mut pairs = members.iter().flat_map(|from| members.iter().map(move |to| (*from, *to)));
        let (from, to) = pairs
            .find(|(from, to)| from != to && !self.network.is_connected(*from, *to, self.nodes[*to].life))?;
        let why = self.refusals.get(&(from, to)).or_else(|| self.refusals.get(&(to, from)));
        let why = why.map_or("it does not dial", String::as_str);
        Some(format!("node {from} has no connection to node {to}: {why}"))
    }

    /// Nodes that have a replica of a group.
    fn replicas(&self, group: u64) -> Vec<usize> {
        let has = |node: &usize| self.nodes[*node].probes().iter().any(|probe| probe.group.0 == group);
        (0..self.nodes.len()).filter(has).collect()
    }

    /// Reads all there is, from every replica.
    fn compare_content(&mut self) {
        let mut script = Vec::new();
        for shard in 0..self.options.shards {
            let keys = self.keys.of_shard(shard).to_vec();
            for node in self.replicas(1 + u64::from(shard)) {
                let (level, keys) = (ReadLevel::One, keys.clone());
                script.push(Ask::Read { level, keys, by: By::Get, at: Some(node) });
            }
        }
        self.ask(script, "comparing replicas");
        for shard in 0..self.options.shards {
            let group = GroupId(1 + u64::from(shard));
            let of_leader = |node: &SimNode| {
                let probe = *node.probes().iter().find(|probe| probe.group == group && probe.leads)?;
                Some((node.terms(group)?, probe.applied.index))
            };
            if let Some((terms, last)) = self.nodes.iter().find_map(of_leader) {
                self.log.push(self.now, Event::History { shard, terms, last });
            }
        }
        self.ask((0..self.options.shards).map(|shard| Ask::Conflicts { shard }).collect(), "in the end");
        self.conflicts.tell(self.now, &mut self.log);
    }
}
