//! What leaders see to without being asked: the catalog's leader to the cluster, a shard's leader to its group.

use crate::catalog::{self, CATALOG, Catalog, CatalogChange, Report};
use crate::machine::{Machine, Outcome};
use crate::node::{Effect, Node, RequestId};
use crate::placement::{self, Sizes};
use crate::reconcile::{Sight, Step, next_step};
use crate::shard::ShardMachine;
use crate::vacancy::Vacancies;
use bytes::Bytes;
use rkyv::rancor::Error as RkyvError;
use rkyv::util::AlignedVec;
use rkyv::{Archive, Deserialize, Serialize};
use slowdb_proto::{ClusterId, OpsBuilder};
use slowdb_repl::{AckLevel, Failure, GroupId, NodeId, Now, Proposal, Token};
use std::collections::{BTreeMap, BTreeSet};

/// How long a proposal of the node itself may take, in microseconds.
const OWN_PROPOSAL_MICROS: u64 = 5_000_000;
/// Ticks between looks at what the cluster should be.
const PLAN_TICKS: u64 = 10;
/// Ticks between looks at a group that this node leads.
const LOOK_TICKS: u64 = 5;
/// Ticks between looks at a group that is as it should be.
const IDLE_LOOK_TICKS: u64 = 50;
/// Ticks after which something that may have been lost is said or asked again.
const AGAIN_TICKS: u64 = 25;
/// Ticks that a node goes on to lead what another is to lead, once that one could.
const LEAD_BACK_TICKS: u64 = 250;
/// Ticks between words on how far snapshots have arrived.
const PROGRESS_TICKS: u64 = 25;
/// Ticks between words of a node that holds nothing.
const VACANT_TICKS: u64 = 25;
/// Snapshots that are spoken of at a time.
const PROGRESS_MAX: usize = 1_000;
/// Ticks between two hand-overs of one group: who gets leadership may just have lost it for a reason.
const HAND_OVER_TICKS: u64 = 100;
/// How long `status` warns of a slow network, in microseconds: who leads nothing any more does not measure it.
const FAR_FOR_MICROS: u64 = 30_000_000;

/// What this node is about to do, as a leader.
#[derive(Default)]
pub(crate) struct Tending {
    /// Proposals of changes of the catalog, with the request that asked for it, if one did.
    own: BTreeMap<Token, Option<RequestId>>,
    /// Proposals of the conflict policy of a shard.
    policies: BTreeSet<Token>,
    /// Groups to look at with the next tick.
    look_at: BTreeSet<GroupId>,
    groups: BTreeMap<GroupId, Tended>,
    /// When each node was last heard, as the catalog's leader.
    heard: BTreeMap<String, u64>,
    /// Nodes that are heard now.
    active: BTreeSet<String>,
    /// Term of the catalog that `heard` belongs to.
    heard_in: u64,
    ticks: u64,
    /// Replica → when it was told, and how far its snapshot has arrived.
    progress: BTreeMap<u64, (u64, u64, u64)>,
    /// Who holds nothing, as the catalog's leader knows it.
    vacancies: Vacancies,
    /// Until when the network of this node counts as slow.
    far_until: u64,
    /// Epoch of the catalog, and nodes short of space, at which there was nothing to want that is not wanted already.
    nothing_to_do_at: Option<(u64, Vec<String>)>,
    /// An operator asks for a look at the placement now.
    pub(crate) plan_now: bool,
}

#[derive(Default)]
struct Tended {
    looked_at: u64,
    /// It was what is wanted when it was last looked at.
    settled: bool,
    /// Since when this node leads it.
    led_since: u64,
    reported_at: u64,
    compared_at: u64,
    handed_over_at: u64,
    policy_asked_at: u64,
}

impl Tending {
    /// Something about a group has changed.
    pub(crate) fn look_at(&mut self, group: GroupId) {
        self.look_at.insert(group);
    }

    pub(crate) fn is_own(&self, token: Token) -> bool {
        self.own.contains_key(&token) || self.policies.contains(&token)
    }

    /// Nothing will be heard of a proposal of the node itself. Whoever asked for it is told elsewhere.
    pub(crate) fn forget(&mut self, token: Token) -> Option<RequestId> {
        self.policies.remove(&token);
        self.own.remove(&token).flatten()
    }

    /// How far a replica's snapshot has arrived, if that was told lately: bytes, of how many.
    pub(crate) fn progress(&self, replica: u64) -> (u64, u64) {
        let told = self.progress.get(&replica).filter(|told| told.0 + 3 * PROGRESS_TICKS > self.ticks);
        told.map_or((0, 0), |(_, bytes, of_bytes)| (*bytes, *of_bytes))
    }

    /// Whether the network of this node is slow compared with that of others, or was lately.
    pub(crate) fn is_far(&self, now: Now) -> bool {
        now.micros < self.far_until
    }

    /// Microseconds since a node was heard, as the catalog's leader knows it.
    pub(crate) fn silence(&self, node: &str, now: Now) -> u64 {
        self.heard.get(node).map_or(0, |heard| now.micros.saturating_sub(*heard))
    }
}

impl Node {
    /// To be called at every tick.
    pub(crate) fn tend(&mut self, now: Now) {
        self.tending.ticks += 1;
        if self.is_stopping() {
            return;
        }
        if self.disk.is_slow(now) {
            self.give_up_leadership("its disk is slow");
        }
        if self.repl.is_far() {
            self.tending.far_until = now.micros + FAR_FOR_MICROS;
            self.give_up_leadership("its network is slow");
        }
        if self.repl.leads(CATALOG) {
            self.listen(now);
            self.look_for_vacancies();
            if self.tending.own.is_empty() {
                self.tend_cluster(now);
            }
        }
        self.tend_groups(now);
        if self.tending.ticks.is_multiple_of(PROGRESS_TICKS) {
            self.tell_progress();
        }
        if self.tending.ticks.is_multiple_of(VACANT_TICKS) {
            self.tell_vacant();
        }
    }

    /// Tells the catalog's leader that nothing is held here, if that is so.
    fn tell_vacant(&mut self) {
        let holds = self.repl.groups().any(|id| id != CATALOG) || self.repl.quarantined_groups().count() > 0;
        let Some(catalog) = self.catalog().filter(|catalog| !holds && catalog.cluster.is_some()) else {
            return;
        };
        if catalog.shards().any(|(_, shard)| shard.spec.replica_on(&self.name).is_some()) {
            return;
        }
        let epoch = catalog.epoch;
        if self.repl.leads(CATALOG) {
            self.tending.vacancies.hear(&self.name, epoch);
        } else {
            self.repl.forward(CATALOG, Bytes::from(Told::Vacant { epoch }.encode()));
        }
    }

    fn look_for_vacancies(&mut self) {
        let Some((_, term)) = self.repl.leader(CATALOG).filter(|_| self.knows_catalog()) else { return };
        let catalog = self.repl.machine(CATALOG).and_then(Machine::catalog);
        if let Some(catalog) = catalog {
            self.tending.vacancies.look(term, catalog.catalog());
        }
    }

    /// Whether a node that is up may be removed: nothing would be lost with it. As the catalog's leader.
    pub(crate) fn is_vacant(&self, node: &str) -> bool {
        self.repl.leader(CATALOG).is_some_and(|(_, term)| self.tending.vacancies.is_vacant(term, node))
    }

    /// Tells the catalog's leader how far snapshots have arrived here.
    fn tell_progress(&mut self) {
        let at = self.tending.ticks;
        self.tending.progress.retain(|_, told| told.0 + 3 * PROGRESS_TICKS > at);
        let arriving = |id| {
            let view = self.repl.view(id)?;
            let arriving = view.arriving?;
            Some((view.replica.0, arriving.bytes, arriving.of_bytes))
        };
        let progress: Vec<_> = self.repl.groups().filter_map(arriving).take(PROGRESS_MAX).collect();
        if self.repl.leads(CATALOG) {
            let told =
                progress.into_iter().map(|(replica, bytes, of_bytes)| (replica, (at, bytes, of_bytes)));
            self.tending.progress.extend(told);
        } else if !progress.is_empty() {
            self.repl.forward(CATALOG, Bytes::from(Told::Progress(progress).encode()));
        }
    }

    /// Lets others lead, as far as there are others.
    fn give_up_leadership(&mut self, why: &str) {
        let ticks = self.tending.ticks;
        let led: Vec<GroupId> = self.repl.led().collect();
        for id in led {
            let tended = tended_mut(&mut self.tending, id);
            if tended.handed_over_at == 0 || tended.handed_over_at + HAND_OVER_TICKS <= ticks {
                tended.handed_over_at = ticks;
                if self.hand_over(id) {
                    tracing::warn!(group = %id, why, "another node is to lead, for this one makes all wait");
                }
            }
        }
    }

    /// Takes note of which nodes are heard.
    fn listen(&mut self, now: Now) {
        let Some(view) = self.repl.view(CATALOG) else { return };
        if self.tending.heard_in != view.term {
            // Who leads anew has not listened yet.
            self.tending.heard_in = view.term;
            self.tending.heard.clear();
        }
        let names = self.catalog().map(|catalog| catalog.nodes.iter().map(|node| node.id.clone()).collect());
        let names: Vec<String> = names.unwrap_or_default();
        let active = view.followers.into_iter().filter(|follower| follower.active);
        let mut heard: BTreeSet<String> = active.map(|follower| follower.node.as_str().to_owned()).collect();
        heard.insert(self.name.clone());
        // Who was removed may come back as a new node of the same name.
        self.tending.heard.retain(|node, _| names.contains(node));
        for node in names {
            // Who was never heard counts as silent from now on.
            self.tending.heard.entry(node).or_insert(now.micros);
        }
        for node in &heard {
            self.tending.heard.insert(node.clone(), now.micros);
        }
        self.tending.active = heard;
    }

    /// The catalog's leader founds the cluster, writes down what nodes say of themselves, notices who is silent, and
    /// wants replicas to be where the plan says.
    fn tend_cluster(&mut self, now: Now) {
        let due = self.tending.ticks.is_multiple_of(PLAN_TICKS) || self.tending.plan_now;
        let Some(catalog) = self.catalog() else { return };
        if catalog.cluster.is_none() {
            return self.found(now);
        }
        if !due || !self.knows_catalog() {
            return;
        }
        if let Some(change) = self.news_of_nodes(catalog, now) {
            self.propose_unasked(now, &change);
            return;
        }
        let looked_at = (catalog.epoch, self.low_nodes());
        if self.tending.nothing_to_do_at.as_ref() == Some(&looked_at) {
            self.tending.plan_now = false;
            return;
        }
        let catalog = self.with_low_cordoned(catalog);
        let changes = match placement::plan(&catalog, &self.sizes()) {
            Ok(plan) => placement::next_changes(&catalog, &plan),
            Err(why) => {
                tracing::warn!(why, "no plan");
                Vec::new()
            }
        };
        self.tending.plan_now = false;
        self.tending.nothing_to_do_at = changes.is_empty().then_some(looked_at);
        for change in changes {
            if let CatalogChange::Place { group, nodes, leader, reason, .. } = &change
                && !reason.is_empty()
            {
                let nodes: Vec<&str> = nodes.iter().map(|(node, _)| node.as_str()).collect();
                tracing::info!(group, reason, leader, nodes = nodes.join(","), "wanted");
            }
            self.propose_unasked(now, &change);
        }
    }

    /// Whether this node, which leads the catalog, has applied all that leaders before it decided. Until then nothing
    /// is to be decided: what it knows may be overtaken by what its log holds.
    pub(crate) fn knows_catalog(&self) -> bool {
        self.repl.view(CATALOG).is_some_and(|view| view.applied.term == view.term)
    }

    fn found(&mut self, now: Now) {
        let founding = self.setup.own.get().founding;
        let zones = self.setup.own.zones();
        match catalog::found(&founding, &zones, draw_cluster_id(self.setup.seed, now)) {
            Ok(catalog) => self.propose_unasked(now, &CatalogChange::Found(catalog)),
            Err(why) => self.effects.push(Effect::Fail { why }),
        }
    }

    /// What the catalog does not know yet of a node.
    fn news_of_nodes(&self, catalog: &Catalog, now: Now) -> Option<CatalogChange> {
        let zones = self.setup.own.zones();
        let rezoned = catalog.nodes.iter().find_map(|node| {
            let zone = zones.get(&node.id).filter(|zone| node.zone.as_ref() != Some(zone))?;
            Some(CatalogChange::Zone { node: node.id.clone(), zone: zone.clone() })
        });
        let silent = |node: &catalog::CatalogNode| {
            let silence = self.tending.silence(&node.id, now);
            let active = self.tending.active.contains(&node.id);
            let down = !active && (node.down || silence > self.setup.node_down_after);
            (down != node.down).then(|| CatalogChange::Down { node: node.id.clone(), down })
        };
        let addresses = self.setup.own.addresses();
        let moved = |node: &catalog::CatalogNode| {
            let address = addresses.get(&node.id).filter(|address| **address != node.address)?;
            // Should another node be there, it may yet go.
            catalog.check_free(address, &node.id).ok()?;
            Some(CatalogChange::Move { node: node.id.clone(), address: address.clone() })
        };
        rezoned
            .or_else(|| catalog.nodes.iter().find_map(moved))
            .or_else(|| catalog.nodes.iter().find_map(silent))
    }

    /// About how large replicas are, as far as this node holds them.
    pub(crate) fn sizes(&self) -> Sizes {
        let size = |id: GroupId| {
            let shard = self.repl.machine(id).and_then(Machine::shard)?;
            Some((id.0, shard.bytes()))
        };
        self.repl.groups().filter_map(size).collect()
    }

    /// Proposes a change of the catalog that a request asked for, if one did.
    pub(crate) fn propose_own(
        &mut self,
        now: Now,
        change: &CatalogChange,
        asked: Option<RequestId>,
    ) -> Result<(), Failure> {
        let token = self.propose(now, CATALOG, ([0; 16], 0), change.encode())?;
        self.tending.own.insert(token, asked);
        Ok(())
    }

    /// Proposes a change of the catalog that nobody waits for: what cannot be proposed now is looked at again.
    fn propose_unasked(&mut self, now: Now, change: &CatalogChange) {
        match self.propose_own(now, change, None) {
            Ok(()) => {}
            Err(Failure::TooLarge { bytes, limit }) => {
                tracing::error!(bytes, limit, "a change of the catalog is larger than an entry of the log");
            }
            Err(why) => tracing::debug!(?why, "the catalog takes no change now"),
        }
    }

    /// Proposes something of this node's own to a group, with this tag.
    fn propose(
        &mut self,
        now: Now,
        group: GroupId,
        tag: ([u8; 16], u64),
        body: Vec<u8>,
    ) -> Result<Token, Failure> {
        let token = self.pending.own_token();
        let (client, sequence) = tag;
        let proposal = Proposal {
            token,
            level: AckLevel::Quorum,
            retry: false,
            writes: 1,
            client,
            sequence,
            body: Bytes::from(body),
            deadline: now.micros + OWN_PROPOSAL_MICROS,
        };
        self.repl.propose(group, proposal).map(|()| token)
    }

    /// A change of the catalog that this node proposed was applied.
    pub(crate) fn own_decided(&mut self, token: Token, outcome: Option<&Outcome>) {
        let Some(id) = self.tending.forget(token) else { return };
        let refused = match outcome {
            Some(Outcome::Catalog(refused)) => refused.clone(),
            _ => None,
        };
        self.answer_admin(id, refused);
    }

    /// Another node sent something to the leader of a group: reports of committed configurations.
    pub(crate) fn forwarded(&mut self, group: GroupId, from: &NodeId, body: &[u8]) {
        match Told::decode(body) {
            Some(Told::Report(report)) if group == CATALOG => self.note_report(self.now, report),
            Some(Told::Progress(progress)) if group == CATALOG => {
                let at = self.tending.ticks;
                for (replica, bytes, of_bytes) in progress.into_iter().take(PROGRESS_MAX) {
                    self.tending.progress.insert(replica, (at, bytes, of_bytes));
                }
            }
            Some(Told::Vacant { epoch }) if group == CATALOG => {
                self.look_for_vacancies();
                self.tending.vacancies.hear(from.as_str(), epoch);
            }
            Some(Told::LowSpace { free, enough }) => self.space.heard(from.as_str(), free, enough, self.now),
            _ => tracing::warn!(node = %from, %group, "it sent something that only leaders may decide"),
        }
    }

    /// As the catalog's leader: a report is written down if it says something new.
    fn note_report(&mut self, now: Now, report: Report) {
        let news = self.catalog().and_then(|catalog| catalog.spec(GroupId(report.group)));
        if news.is_some_and(|spec| spec.is_news(&report)) {
            self.propose_unasked(now, &CatalogChange::Report(report));
        }
    }

    /// Brings the groups that this node leads closer to what is wanted of them.
    fn tend_groups(&mut self, now: Now) {
        let ticks = self.tending.ticks;
        let urgent = std::mem::take(&mut self.tending.look_at);
        if urgent.is_empty() && !ticks.is_multiple_of(LOOK_TICKS) {
            return;
        }
        let led: Vec<GroupId> = self.repl.led().collect();
        self.tending.groups.retain(|id, _| led.binary_search(id).is_ok());
        for id in led {
            let tended = self
                .tending
                .groups
                .entry(id)
                .or_insert_with(|| Tended { led_since: ticks, ..Tended::default() });
            let pause = if tended.settled { IDLE_LOOK_TICKS } else { LOOK_TICKS };
            if urgent.contains(&id) || tended.looked_at + pause <= ticks || tended.looked_at == 0 {
                tended.looked_at = ticks;
                self.tend_group(now, id);
            }
        }
    }

    fn tend_group(&mut self, now: Now, id: GroupId) {
        let (Some(view), Some(membership)) = (self.repl.view(id), self.repl.membership(id)) else { return };
        let Some(spec) = self.catalog().and_then(|catalog| catalog.spec(id)).cloned() else { return };
        let report = Report::of(membership);
        let news = spec.is_news(&report);
        let sight = Sight { membership, followers: &view.followers, committed: view.committed };
        let step = next_step(&spec, &sight);
        let committed = view.committed;
        #[cfg(feature = "canary")]
        let step = distorted(step, &spec, &sight);
        let changing = self.repl.is_changing_members(id);
        let ticks = self.tending.ticks;
        let tended = tended_mut(&mut self.tending, id);
        tended.settled = spec.is_settled() && !news;
        if news && (tended.reported_at == 0 || tended.reported_at + AGAIN_TICKS <= ticks) {
            tended.reported_at = ticks;
            self.report(now, report);
        }
        if !news {
            tended_mut(&mut self.tending, id).reported_at = 0;
        }
        self.want_policy(now, id, committed);
        match step {
            Step::None => {}
            Step::Change(_) if changing => {}
            Step::Change(change) => match self.repl.change_members(id, &change, spec.epoch) {
                Ok(()) => tracing::info!(group = %id, ?change, "members change"),
                Err(error) => tracing::debug!(group = %id, ?change, %error, "members do not change yet"),
            },
            Step::Compare => {
                let tended = tended_mut(&mut self.tending, id);
                if tended.compared_at == 0 || tended.compared_at + AGAIN_TICKS <= ticks {
                    tended.compared_at = ticks;
                    self.repl.compare_digests(id, spec.epoch);
                }
            }
            Step::HandOver(to) => {
                let tended = tended_mut(&mut self.tending, id);
                // Who leads what another is to lead does so for a reason that may not be over yet.
                let recent = tended.led_since + LEAD_BACK_TICKS > ticks;
                let mut followers = view.followers.iter().filter(|follower| follower.replica == to);
                if tended.settled && (recent || followers.any(|to| self.repl.is_far_from(&to.node))) {
                    return;
                }
                if tended.handed_over_at == 0 || tended.handed_over_at + HAND_OVER_TICKS <= ticks {
                    tended.handed_over_at = ticks;
                    if self.repl.hand_over_to(id, to) {
                        self.gaps.begin(id, self.ticks);
                    }
                }
            }
        }
    }

    /// Proposes the conflict policy that the collection has, if the shard has another. Which one counts is decided by the
    /// shard's own log, so that all replicas decide the same way.
    fn want_policy(&mut self, now: Now, id: GroupId, committed: u64) {
        let wanted = self.catalog().and_then(|catalog| catalog.shard_of(id));
        let Some(wanted) = wanted.map(|(collection, _)| collection.settings.conflicts) else { return };
        let policy = self.repl.machine(id).and_then(Machine::shard).map(ShardMachine::policy);
        let ticks = self.tending.ticks;
        let tended = tended_mut(&mut self.tending, id);
        let is_asked = tended.policy_asked_at > 0 && tended.policy_asked_at + AGAIN_TICKS > ticks;
        if policy == Some(wanted) || is_asked {
            return;
        }
        tended.policy_asked_at = ticks;
        // Whatever was proposed before has this index or a lower one, or was lost.
        let tag = (*b"conflict policy\0", committed);
        if let Ok(token) = self.propose(now, id, tag, OpsBuilder::set_policy(wanted)) {
            tracing::info!(group = %id, policy = wanted.as_str(), "what becomes of late writes that conflict");
            self.tending.policies.insert(token);
        }
    }

    /// Tells the catalog's leader, which may be this node.
    fn report(&mut self, now: Now, report: Report) {
        if self.repl.leads(CATALOG) {
            self.note_report(now, report);
        } else {
            self.repl.forward(CATALOG, Bytes::from(Told::Report(report).encode()));
        }
    }
}

/// What nodes tell the catalog's leader.
#[derive(Archive, Serialize, Deserialize)]
pub(crate) enum Told {
    /// A configuration that was committed.
    Report(Report),
    /// Snapshots that arrive: replica, bytes that are here, bytes that there will be.
    Progress(Vec<(u64, u64, u64)>),
    /// To whoever leads a group that the sender has a replica of: its disk is nearly full.
    LowSpace {
        /// Bytes that are free.
        free: u64,
        /// From how many on it takes writes again.
        enough: u64,
    },
    /// The sender has no replica of any shard, and keeps nothing of any that it had, at this epoch of the catalog.
    Vacant { epoch: u64 },
}

impl Told {
    pub(crate) fn encode(&self) -> Vec<u8> {
        rkyv::to_bytes::<RkyvError>(self).expect("memory holds a report").into_vec()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut aligned = AlignedVec::<16>::with_capacity(bytes.len());
        aligned.extend_from_slice(bytes);
        rkyv::from_bytes::<Told, RkyvError>(&aligned).ok()
    }
}

/// Planted bugs: the next step of somebody who is in a hurry, or knows less than has been decided.
#[cfg(feature = "canary")]
fn distorted(step: Step, spec: &catalog::GroupSpec, sight: &Sight<'_>) -> Step {
    use crate::canary::{Canary, is_planted};
    use slowdb_proto::Wanted;
    use slowdb_repl::{MemberChange, Membership, Part, ReplicaId};
    let membership = sight.membership;
    if is_planted(Canary::StaleExecutor) && spec.epoch < membership.intent {
        let membership = &Membership { intent: 0, ..membership.clone() };
        return next_step(spec, &Sight { membership, ..*sight });
    }
    if is_planted(Canary::RemovalFirst) && !membership.is_joint() {
        let is_voter = |id: ReplicaId| membership.member(id).is_some_and(|member| member.part == Part::Voter);
        let gone = spec.replicas.iter().filter(|replica| replica.wanted == Wanted::Gone);
        let remove: Vec<ReplicaId> = gone
            .map(|replica| ReplicaId(replica.replica))
            .filter(|id| *id != membership.own && is_voter(*id))
            .collect();
        if !remove.is_empty() {
            return Step::Change(MemberChange::EnterJoint {
                promote: Vec::new(),
                demote: Vec::new(),
                remove,
            });
        }
    }
    step
}

fn tended_mut(tending: &mut Tending, id: GroupId) -> &mut Tended {
    tending.groups.entry(id).or_default()
}

/// A cluster's id has to be new: seed and wall clock together are.
fn draw_cluster_id(seed: u64, now: Now) -> ClusterId {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..].copy_from_slice(&now.wall_millis.to_le_bytes());
    ClusterId(xxhash_rust::xxh3::xxh3_128(&key).max(1).to_le_bytes())
}
