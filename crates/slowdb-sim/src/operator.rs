//! The operator, and nodes that want to join: both ask the catalog's leader, over the network, until they are answered.
//!
//! The operator does what comes to its mind, one thing after the other, and beside that what has to be done: a node
//! that has lost its disk is removed and may then join anew; one that was removed is switched off once the catalog's own
//! group is without it. It sees the cluster as it is, and is no worse for it: whatever it does has to be survived.

use crate::cluster::{Action, Cluster};
use crate::events::Event;
use crate::faults::Wiped;
use crate::keys::DIMENSION;
use crate::node::{SimNode, node_name};
use crate::random::Random;
use slowdb_disk::Disk;
use slowdb_net::FrameOut;
use slowdb_proto::{
    Admin, AdminRequest, CollectionSettings, ConflictPolicy, KIND_REQUEST, Metric, NodeState, Reply, Request,
    RequestKind, SettingsChange, Standing, Wanted,
};
use slowdb_server::{CatalogProbe, NodeProbe, SpecProbe};

/// From this number on, who asks is no client but a node that joins, or after all nodes the operator.
pub(crate) const ASKERS: usize = 1 << 20;
/// The collection that clients do not use.
const EXTRA: &str = "extra";
/// How often the operator looks whether something has to be done.
const CHORES_EVERY: u64 = 300_000;
/// How long a node waits that may not join yet.
const REFUSED_WAITS: (u64, u64) = (300_000, 1_500_000);
/// What a cluster should not shrink below.
const ACTIVE_MIN: usize = 2;

/// Asks one thing until it is answered.
#[derive(Default)]
pub(crate) struct Asker {
    kind: Option<RequestKind>,
    hint: Option<usize>,
    sent_to: usize,
    attempt: Option<u64>,
    timer: u64,
}

impl Asker {
    pub(crate) fn is_idle(&self) -> bool {
        self.kind.is_none()
    }
}

impl Cluster {
    /// Makes an asker ask something.
    fn ask_leader(&mut self, asker: usize, kind: RequestKind) {
        let this = &mut self.askers[asker];
        *this = Asker { kind: Some(kind), timer: this.timer + 1, ..Asker::default() };
        let timer = this.timer;
        self.after(0, Action::Ask { asker, timer });
    }

    /// An asker's time has come: it asks, or asks once more.
    pub(crate) fn asks(&mut self, asker: usize, timer: u64) {
        if self.askers[asker].timer != timer {
            return;
        }
        let Some(kind) = self.askers[asker].kind.clone() else { return };
        let nodes: Vec<usize> =
            (0..self.nodes.len()).filter(|node| self.nodes[*node].running.is_some()).collect();
        let within = self.random.between(self.options.attempt);
        self.attempts += 1;
        let attempt = self.attempts;
        let at_random = if nodes.is_empty() { 0 } else { self.random.pick(&nodes) };
        let this = &mut self.askers[asker];
        let node = this.hint.take().unwrap_or(at_random);
        this.sent_to = node;
        this.attempt = Some(attempt);
        this.timer += 1;
        let timer = this.timer;
        let client = ASKERS + asker;
        if let Some(at) = self.network.send_client(self.now, client, node) {
            let meta = slowdb_proto::encode_request(&Request {
                cluster: None,
                timeout_ms: (within / 1000) as u32,
                kind,
            });
            let frame = FrameOut { kind: KIND_REQUEST, meta, body: Vec::new() };
            let bytes = slowdb_net::encode(&frame).expect("requests are small");
            self.at(at, Action::Request { client, attempt, node, bytes });
        }
        self.after(within, Action::Ask { asker, timer });
    }

    /// What an asker is told.
    pub(crate) fn asker_answered(&mut self, asker: usize, attempt: u64, reply: Reply) {
        let this = &mut self.askers[asker];
        if this.attempt.take_if(|waits_for| *waits_for == attempt).is_none() {
            return;
        }
        this.timer += 1;
        if let Reply::Error(error) = &reply
            && error.code.is_retryable()
        {
            let hint =
                error.leader.as_ref().and_then(|name| self.names.iter().position(|n| n.as_str() == *name));
            this.hint = hint.filter(|node| *node != this.sent_to);
            let timer = this.timer;
            let wait = u64::from(error.retry_after_ms) * 1000 + self.random.below(50_000);
            return self.after(wait, Action::Ask { asker, timer });
        }
        this.kind = None;
        let what = match &reply {
            Reply::Admin(done) => format!("changed: {}, {} moves", done.changed, done.moves.len()),
            other => format!("{other:.200?}"),
        };
        let who = if asker < self.nodes.len() { format!("node {asker}") } else { "operator".to_owned() };
        self.log.push(self.now, Event::Answered { what: format!("{who}: {what}") });
        if asker < self.nodes.len() {
            self.join_answered(asker, reply);
        } else if matches!(reply, Reply::Admin(_)) {
            self.actions_done += 1;
        }
    }

    /// A node that cannot run before it has joined asks for that.
    pub(crate) fn ask_to_join(&mut self, node: usize) {
        if let Some(join) = self.nodes[node].join_request(&self.options) {
            self.ask_leader(node, RequestKind::Join(join));
        }
    }

    fn join_answered(&mut self, node: usize, reply: Reply) {
        if self.nodes[node].asking.is_none() {
            return;
        }
        let Reply::Joined(joined) = reply else {
            self.nodes[node].asking = None;
            if matches!(&reply, Reply::Error(error) if error.message.contains("was removed from the cluster"))
            {
                // It was let in, removed, and never knew of either.
                self.nodes[node].present = false;
                return;
            }
            // Whoever runs it tries again later.
            let wait = self.random.between(REFUSED_WAITS);
            return self.after(wait, Action::Start { node });
        };
        // One that has another disk than before may join only when what it was is removed.
        self.nodes[node].lost = false;
        let lost_join = self.options.changes.map_or(0, |changes| changes.lost_join);
        if !self.healed && self.random.chance(lost_join) {
            self.note(format!("node {node} may join, and crashes before it knows"));
            self.nodes[node].asking = None;
            let wait = self.random.between(self.options.faults.down);
            return self.after(wait, Action::Start { node });
        }
        if let Err(why) = self.nodes[node].take_joined(&joined) {
            if !self.notice_power(node) {
                self.disk_trouble(node, &format!("it cannot write down that it has joined: {why}"));
            }
            return;
        }
        self.actions_done += 1;
        if !self.notice_power(node) {
            self.start(node);
        }
    }

    /// The disk of a node that is away is lost, if that is not more than can be lost.
    pub(crate) fn wipe(&mut self, node: usize, wiped: Wiped) {
        if self.nodes[node].running.is_some() || !self.nodes[node].present || !self.may_lose(node) {
            return;
        }
        self.log.push(self.now, Event::Wiped { node });
        let founds = wiped == Wiped::Founds && node < self.options.nodes && self.options.nodes >= 3;
        let this = &mut self.nodes[node];
        this.disk = slowdb_disk::SimDisk::new();
        this.rotten = false;
        this.disk_full = false;
        this.disk_failed = false;
        this.held.clear();
        this.joins = !founds;
        this.lost = true;
    }

    /// Whether every group has a majority of sound disks without this one, and nobody is about to count on it more.
    pub(crate) fn may_lose(&self, node: usize) -> bool {
        let Some(catalog) = &self.catalog else { return false };
        let name = node_name(node);
        let sound = |spec: &SpecProbe| {
            let voters = spec.replicas.iter().filter(|replica| replica.wanted == Wanted::Voter).count();
            let holds = spec.replicas.iter().any(|replica| replica.node == name);
            spec.is_settled() && (!holds || voters >= 3)
        };
        let operator = self.nodes.len();
        !self.nodes.iter().any(|node| node.lost)
            && catalog.nodes.iter().any(|known| known.id == name && known.down)
            && catalog.groups.iter().all(sound)
            && self.planned.is_empty()
            && self.askers[operator].is_idle()
    }

    /// The operator looks at the cluster, and does something about it.
    pub(crate) fn operate(&mut self) {
        let operator = self.nodes.len();
        if self.conflicts.waits().is_some() && self.askers[operator].is_idle() && !self.by_hand {
            // Until the collection is there, and the leaders of its shards have heard of it.
            self.act(set_conflicts("default".to_owned(), self.options.conflicts));
        }
        let Some(changes) = self.options.changes else {
            if self.conflicts.waits().is_some() {
                self.after(CHORES_EVERY, Action::Operate);
            }
            return;
        };
        self.after(CHORES_EVERY, Action::Operate);
        self.switch_off_removed();
        if !self.askers[operator].is_idle() || self.by_hand {
            return;
        }
        let Some(catalog) = self.catalog.clone() else { return };
        let lost = (0..self.nodes.len()).find(|node| self.nodes[*node].lost);
        if let Some(node) = lost {
            let known = catalog.nodes.iter().find(|known| known.id == node_name(node));
            if changes.every == 0 && known.is_some_and(|known| !known.down) {
                // Whoever takes its replicas away before the others have noticed counts on it.
                return;
            }
            if known.is_some() {
                if self.random.chance(300) || self.healed {
                    let act = self.make_room(&catalog, node);
                    return self.carry_out(act);
                }
            } else {
                self.nodes[node].lost = false;
                if !self.nodes[node].joins {
                    // It is told at last that there is a cluster to join.
                    self.take_away(node);
                    self.nodes[node].disk = slowdb_disk::SimDisk::new();
                    self.bring_back(node);
                }
            }
            if self.healed {
                return;
            }
        }
        if self.healed || changes.every == 0 || self.now < self.next_action {
            return;
        }
        self.next_action = self.now + self.random.between((changes.every / 4, changes.every * 7 / 4));
        if let Some(act) = self.draw_action(&catalog, lost.is_some()) {
            self.carry_out(act);
        }
    }

    fn carry_out(&mut self, act: Act) {
        match act {
            Act::Join(node) => self.bring_back(node),
            Act::Admin(admin) => self.act(admin),
        }
    }

    /// What lets a node be removed that has lost its disk: its replicas have to have other places.
    fn make_room(&mut self, catalog: &CatalogProbe, lost: usize) -> Act {
        let name = node_name(lost);
        let holds = |spec: &SpecProbe, name: &str| spec.replicas.iter().any(|replica| replica.node == name);
        let places = |spec: &SpecProbe| {
            let takes = |node: &&NodeProbe| match node.state {
                _ if node.id == name || node.down => false,
                NodeState::Active => true,
                NodeState::Cordoned => holds(spec, &node.id),
                NodeState::Draining => false,
            };
            catalog.nodes.iter().filter(takes).count() as u32
        };
        let mut of_lost = catalog.groups.iter().skip(1).filter(|spec| holds(spec, &name));
        let crowded = of_lost.find(|spec| spec.replication_factor > places(spec));
        // Where nothing else changes, who was called in is waited for, and every shard keeps three replicas.
        let waits = self.options.changes.is_some_and(|changes| changes.every == 0) && self.unused().is_none();
        let Some(crowded) = crowded.filter(|_| !waits) else {
            return Act::Admin(remove(catalog, name));
        };
        if let Some(node) = self.unused() {
            return Act::Join(node);
        }
        let restored = catalog.nodes.iter().find(|node| node.id != name && node.state != NodeState::Active);
        if let Some(node) = restored {
            return Act::Admin(Admin::SetNodeState { node: node.id.clone(), state: NodeState::Active });
        }
        let replication_factor = places(crowded).max(1);
        let name = crowded.collection.clone().unwrap_or_default();
        Act::Admin(set_replication_factor(name, replication_factor))
    }

    /// A node that was never part of the cluster.
    fn unused(&self) -> Option<usize> {
        // One may have lost its power before it was ever needed.
        let calls_any = self.options.changes.is_some_and(|changes| changes.every == 0);
        let is_empty = |node: &SimNode| node.disk.list("").is_ok_and(|names| names.is_empty());
        let unused = |node: &usize| {
            let this = &self.nodes[*node];
            !this.present && (this.life == 0 || (calls_any && is_empty(this)))
        };
        (self.options.nodes..self.nodes.len()).find(unused)
    }

    /// The operator asks for something.
    pub(crate) fn act(&mut self, admin: Admin) {
        let operator = self.nodes.len();
        self.log.push(self.now, Event::Operator { what: format!("{admin:?}") });
        if let Admin::RemoveNode { node, lost: true } = &admin
            && let Some(at) = (0..self.nodes.len()).find(|at| node_name(*at) == *node)
        {
            self.log.push(self.now, Event::GivenUp { node: at });
        }
        self.ask_leader(operator, RequestKind::Admin(AdminRequest { admin, meant: None, dry_run: false }));
    }

    fn take_away(&mut self, node: usize) {
        self.stop(node, crate::events::Stop::PowerLoss, 0);
        self.nodes[node].present = false;
        self.nodes[node].held.clear();
    }

    /// A node is started that is to join.
    pub(crate) fn bring_back(&mut self, node: usize) {
        self.log.push(self.now, Event::Operator { what: format!("starts node {node}, which is to join") });
        self.nodes[node].present = true;
        self.nodes[node].joins = true;
        self.after(1, Action::Start { node });
    }

    /// Nodes that were removed go, once no configuration counts on them.
    fn switch_off_removed(&mut self) {
        let Some(catalog) = &self.catalog else { return };
        let is_out = |node: &usize| {
            let this = &self.nodes[*node];
            let name = this.name.as_str();
            // Who let it in may have died before anybody else saw the catalog with it.
            let is_seen = |joined: Option<u64>| joined.is_none_or(|replica| replica < catalog.next_replica);
            let was_in = this.running.as_ref().is_some_and(|running| {
                let own = running.own.get();
                own.cluster.is_some() && is_seen(own.joined)
            });
            let counts =
                catalog.groups.iter().any(|spec| spec.replicas.iter().any(|replica| replica.node == name));
            this.present
                && !this.lost
                && was_in
                && !counts
                && !catalog.nodes.iter().any(|known| known.id == name)
        };
        let out: Vec<usize> = (0..self.nodes.len()).filter(is_out).collect();
        for node in out {
            if self.healed || self.random.chance(200) {
                self.log.push(
                    self.now,
                    Event::Operator { what: format!("switches off node {node}, which was removed") },
                );
                self.take_away(node);
            }
        }
    }

    /// Whether something has to be done yet.
    pub(crate) fn chores_left(&self) -> Option<String> {
        let lost = self.nodes.iter().find(|node| node.lost && node.present);
        let asking = self.nodes.iter().find(|node| node.present && node.running.is_none());
        let stops = self.nodes.iter().find(|node| node.running.as_ref().is_some_and(|running| running.stops));
        let busy =
            (!self.askers.iter().all(Asker::is_idle)).then(|| "the operator waits for an answer".to_owned());
        let waits = self.conflicts.waits().filter(|_| !self.by_hand);
        lost.map(|node| format!("node {} has lost its disk and is not back", node.name))
            .or_else(|| waits.map(|shard| format!("shard {shard} does not go by its conflict policy yet")))
            .or_else(|| asking.map(|node| format!("node {} does not run yet", node.name)))
            .or_else(|| stops.map(|node| format!("node {} is about to stop", node.name)))
            .or(busy)
    }

    fn draw_action(&mut self, catalog: &CatalogProbe, lost: bool) -> Option<Act> {
        let mut menu: Vec<Act> = Vec::new();
        let unused = self.unused();
        for _ in 0..3 {
            menu.extend(unused.map(Act::Join));
        }
        let set = |node: &str, state| Act::Admin(Admin::SetNodeState { node: node.to_owned(), state });
        let active =
            catalog.nodes.iter().filter(|node| node.state == NodeState::Active && !node.down).count();
        for node in &catalog.nodes {
            let holds = |spec: &SpecProbe| {
                spec.replicas
                    .iter()
                    .any(|replica| replica.node == node.id && replica.standing != Standing::None)
            };
            let holds_any = catalog.groups.iter().skip(1).any(holds);
            if node.state == NodeState::Active && active > ACTIVE_MIN && !lost {
                menu.push(set(&node.id, NodeState::Draining));
                menu.push(set(&node.id, NodeState::Cordoned));
            }
            if node.state != NodeState::Active {
                menu.push(set(&node.id, NodeState::Active));
            }
            if (node.state == NodeState::Draining || node.down)
                && (!holds_any || self.random.chance(100))
                && active > 0
            {
                menu.push(Act::Admin(remove(catalog, node.id.clone())));
                menu.push(Act::Admin(remove(catalog, node.id.clone())));
            }
        }
        if !lost {
            let replication_factor = self.random.pick(&[1, 2, 3, 3, 3, 5]);
            let name = "default".to_owned();
            menu.push(Act::Admin(set_replication_factor(name, replication_factor)));
        }
        let extra = catalog.groups.iter().any(|spec| spec.collection.as_deref() == Some(EXTRA));
        if extra {
            menu.push(Act::Admin(Admin::DropCollection { name: EXTRA.to_owned() }));
        } else if !lost {
            // Where a node is dead and not known to be, a shard of one replica could be placed on it.
            menu.push(Act::Admin(Admin::CreateCollection {
                name: EXTRA.to_owned(),
                dimension: DIMENSION as u32,
                metric: Metric::L2,
                num_shards: self.random.between((1, 3)) as u32,
                replication_factor: self.random.between((1, 3)) as u32,
                settings: CollectionSettings::default(),
            }));
        }
        menu.push(Act::Admin(Admin::Rebalance));
        pick(&mut self.random, menu)
    }

    /// What the catalog's leader would plan, as the catalog was last seen.
    pub(crate) fn settled_by_catalog(&self) -> Option<String> {
        let Some(catalog) = &self.catalog else { return Some("there is no catalog".to_owned()) };
        if let Some(spec) = catalog.groups.iter().find(|spec| !spec.is_settled()) {
            return Some(format!("group {} is on its way: {:?}", spec.group, spec.replicas));
        }
        if let Some(node) = catalog.nodes.iter().find(|node| node.down) {
            return Some(format!("node {} is taken for down", node.id));
        }
        (!self.planned.is_empty()).then(|| format!("it is planned: {}", self.planned))
    }
}

enum Act {
    Join(usize),
    Admin(Admin),
}

fn pick(random: &mut Random, mut menu: Vec<Act>) -> Option<Act> {
    let at = random.index(menu.len());
    (!menu.is_empty()).then(|| menu.swap_remove(at))
}

/// Who is down cannot say that nothing is lost with it.
fn remove(catalog: &CatalogProbe, node: String) -> Admin {
    let lost = catalog.nodes.iter().any(|known| known.id == node && known.down);
    Admin::RemoveNode { node, lost }
}

fn set_conflicts(name: String, policy: ConflictPolicy) -> Admin {
    let settings = SettingsChange { conflicts: Some(policy), ..SettingsChange::default() };
    Admin::AlterCollection { name, replication_factor: None, settings }
}

fn set_replication_factor(name: String, factor: u32) -> Admin {
    Admin::AlterCollection { name, replication_factor: Some(factor), settings: SettingsChange::default() }
}
