//! Carrying out the schedule of faults, and ending it.

use crate::cluster::{Action, Cluster};
use crate::events::{Event, Stop};
use crate::faults::{Fault, Target};
use crate::node::Input;
use slowdb_server::Command;

/// How long a node may take to prepare itself for being stopped.
const PREPARE_WITHIN: u64 = 10_000_000;

impl Cluster {
    fn resolve(&mut self, target: Target) -> usize {
        match target {
            Target::Node(node) => node,
            Target::LeaderOf(shard) => {
                let group = 1 + u64::from(shard);
                let leads = |node: &usize| {
                    self.nodes[*node].probes().iter().any(|probe| probe.group.0 == group && probe.leads)
                };
                (0..self.nodes.len()).find(leads).unwrap_or_else(|| self.random.index(self.nodes.len()))
            }
        }
    }

    /// Does to the cluster what the schedule says.
    pub(crate) fn strike(&mut self, fault: Fault) {
        if self.healed {
            return;
        }
        self.faults_struck += 1;
        match fault {
            Fault::PowerLoss { target, down } => {
                let node = self.resolve(target);
                self.stop(node, Stop::PowerLoss, down);
            }
            Fault::PowerLossAll { down } => {
                for (node, down) in down.into_iter().enumerate() {
                    self.stop(node, Stop::PowerLoss, down);
                }
            }
            Fault::Kill { target, down } => {
                let node = self.resolve(target);
                self.stop(node, Stop::Kill, down);
            }
            Fault::PowerAtSync { node, after } => {
                let disk = &self.nodes[node].disk;
                disk.crash_at_sync(disk.syncs() + after);
                self.note(format!("power of node {node} goes away at a sync, after {after} others"));
            }
            Fault::FailSync { node, after } => {
                self.nodes[node].disk.fail_sync_in(after);
                self.nodes[node].disk_failed = true;
                self.note(format!("a sync of node {node} fails, after {after} others"));
            }
            Fault::FailWrite { node, after } => {
                self.nodes[node].disk.fail_write_in(after);
                self.nodes[node].disk_failed = true;
                self.note(format!("a write of node {node} fails, after {after} others"));
            }
            Fault::FullDisk { node, room, lasts } => {
                let used = self.nodes[node].disk.bytes_used();
                self.nodes[node].disk.set_capacity(Some(used + room));
                self.nodes[node].disk_full = true;
                self.note(format!("disk of node {node} has room for {room} bytes, for {lasts} us"));
                self.after(lasts, Action::FreeDisk { node });
            }
            Fault::Shutdown { target, down } => {
                let node = self.resolve(target);
                self.shut_down(node, down);
            }
            Fault::Rot { target, down, flips } => {
                let node = self.resolve(target);
                // One at a time, and of none that has little to tell yet.
                let is_free = self.nodes.iter().all(|node| !node.lost && !node.rotten && node.rots == 0);
                if is_free && self.settled_by_catalog().is_none() && self.nodes[node].running.is_some() {
                    self.nodes[node].rots = flips;
                    self.shut_down(node, down);
                }
            }
            Fault::Partition { cut, clients, lasts } => self.partition(&cut, &clients, lasts),
            Fault::Isolate { target, one_way, clients_with, lasts } => {
                let alone = self.resolve(target);
                let nodes = self.nodes.len();
                let mut cut = vec![vec![false; nodes]; nodes];
                for other in (0..nodes).filter(|other| *other != alone) {
                    cut[other][alone] = true;
                    cut[alone][other] = !one_way;
                }
                let reach = |with: &bool| (0..nodes).map(|node| *with != (node == alone)).collect();
                let clients: Vec<Vec<bool>> = clients_with.iter().map(reach).collect();
                self.partition(&cut, &clients, lasts);
            }
            Fault::Pause { target, lasts } => {
                let node = self.resolve(target);
                self.nodes[node].paused_until = self.now + lasts;
                self.note(format!("node {node} is stopped for {lasts} us"));
            }
            Fault::SlowDisk { node, factor, lasts } => {
                self.nodes[node].slow_until = self.now + lasts;
                self.nodes[node].slow_factor = factor;
                self.note(format!("disk of node {node} is {factor} times slower for {lasts} us"));
            }
            Fault::Death { target, down, power, wiped } => {
                let node = self.resolve(target);
                if self.nodes[node].running.is_some() {
                    self.stop(node, if power { Stop::PowerLoss } else { Stop::Kill }, down);
                    let life = self.nodes[node].life;
                    if let Some(wiped) = wiped {
                        self.after(down - 1, Action::Wipe { node, life, wiped });
                    }
                }
            }
            Fault::Reset { from, to } if from != to => {
                self.disconnect(from, to);
                self.note(format!("connection of node {from} to node {to} is reset"));
            }
            Fault::Reset { .. } => {}
            Fault::ClockJump { node, millis } => {
                self.nodes[node].wall_offset = millis;
                self.note(format!("wall clock of node {node} is off by {millis} ms"));
            }
        }
    }

    pub(crate) fn shut_down(&mut self, node: usize, down: u64) {
        self.note(format!("node {node} is asked to stop"));
        self.input(node, Input::Command(Command::PrepareToStop));
        if let Some(running) = &mut self.nodes[node].running {
            running.stops = true;
        }
        // Whoever asked waits for so long, and not for ever.
        let life = self.nodes[node].life;
        self.after(PREPARE_WITHIN, Action::Close { node, life, down });
    }

    pub(crate) fn note(&mut self, what: String) {
        self.log.push(self.now, Event::Fault { what });
    }

    fn partition(&mut self, cut: &[Vec<bool>], clients: &[Vec<bool>], lasts: u64) {
        let mut links = Vec::new();
        for (from, row) in cut.iter().enumerate() {
            for (to, _) in row.iter().enumerate().filter(|(to, cut)| **cut && *to != from) {
                self.network.cut(from, to);
                links.push(format!("{from}>{to}"));
                self.after(lasts, Action::Mend { from, to });
                // Sooner or later the transport finds that nobody answers.
                if self.random.chance(300) {
                    self.disconnect(from, to);
                }
            }
        }
        for (client, row) in clients.iter().enumerate() {
            for (node, _) in row.iter().enumerate().filter(|(_, cut)| **cut) {
                self.network.cut_client(client, node);
                links.push(format!("client {client}>{node}"));
                self.after(lasts, Action::MendClient { client, node });
            }
        }
        self.note(format!("cut for {lasts} us: {}", links.join(" ")));
    }

    /// Somebody has just been elected: the power of some nodes goes away before they can do much about it.
    pub(crate) fn power_loss_after_election(&mut self) {
        self.faults_struck += 1;
        for node in 0..self.nodes.len() {
            if self.random.chance(700) {
                let life = self.nodes[node].life;
                let down = self.random.between(self.options.faults.down);
                let delay = self.random.below(3_000);
                self.after(delay, Action::PowerLoss { node, life, down });
            }
        }
    }

    /// There is room again. What its lack has halted stays so until the node is started anew.
    pub(crate) fn free_disk(&mut self, node: usize) {
        self.nodes[node].disk.set_capacity(None);
        self.nodes[node].disk_full = false;
    }

    /// Ends all faults. Nodes that are away come back when they were to.
    pub(crate) fn heal(&mut self) {
        self.healed = true;
        self.network.heal();
        for node in 0..self.nodes.len() {
            self.nodes[node].paused_until = 0;
            self.nodes[node].slow_until = 0;
            self.free_disk(node);
            if self.nodes[node].disk_failed && self.nodes[node].present {
                // What its disk dropped is in doubt until it is read anew.
                self.stop(node, Stop::PowerLoss, 1000);
            }
            self.nodes[node].disk.crash_at_sync(u64::MAX);
            self.nodes[node].rots = 0;
            if self.nodes[node].rotten {
                // Nobody has noticed yet. A scrub would.
                self.replace_disk(node, "bits of it have flipped", 1000);
            }
        }
        self.log.push(self.now, Event::Healed);
    }
}
