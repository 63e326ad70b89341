//! A catalog, and groups that do what leaders would do, without logs, disks or networks. Every change of members is made
//! by the words of [`MemberChange`] alone, and after every one of them what must never be is looked for.

use super::super::{Sizes, next_changes, plan};
use crate::catalog::{Catalog, CatalogChange, GroupSpec, Report};
use crate::reconcile::{Sight, Step, next_step};
use slowdb_proto::{NodeState, Standing, Wanted};
use slowdb_repl::{FollowerView, GroupId, Member, MemberChange, Membership, NodeId, Part, ReplicaId};
use std::collections::{BTreeMap, BTreeSet};

/// Rounds in which everything comes to rest.
const ROUNDS_MAX: usize = 2_000;

/// A group as it is. The membership is that of its leader.
struct Group {
    membership: Membership,
    /// Whose digest this leader has seen to be its own.
    equal: BTreeSet<ReplicaId>,
}

impl Group {
    fn decides(&self, dead: &BTreeSet<String>) -> bool {
        let majority = |votes: [Part; 3]| {
            let voters: Vec<_> = self.membership.members.iter().filter(|m| votes.contains(&m.part)).collect();
            voters.iter().filter(|member| !dead.contains(member.node.as_str())).count() * 2 > voters.len()
        };
        majority([Part::Voter, Part::Entering, Part::Entering])
            && majority([Part::Voter, Part::Leaving, Part::Demoted])
    }

    fn lead(&mut self, leader: ReplicaId) {
        self.membership.own = leader;
        self.equal.clear();
    }

    /// The members after a change, which has to fit.
    fn change(&mut self, change: &MemberChange) {
        let own = self.membership.own;
        let members = &mut self.membership.members;
        let set = |members: &mut Vec<Member>, replica: &ReplicaId, from: Part, to: Part| {
            let member = members.iter_mut().find(|m| m.replica == *replica && m.part == from);
            member.unwrap_or_else(|| panic!("{replica} is no {from:?}: {change:?}")).part = to;
        };
        match change {
            MemberChange::AddLearner { replica, node } => {
                assert!(!members.iter().any(|m| m.replica == *replica || m.node == *node), "{change:?}");
                members.push(Member { replica: *replica, node: node.clone(), part: Part::Learner });
            }
            MemberChange::RemoveLearner { replica } => {
                set(members, replica, Part::Learner, Part::Leaving);
                members.retain(|member| member.replica != *replica);
            }
            MemberChange::EnterJoint { promote, demote, remove } => {
                assert!(!demote.contains(&own) && !remove.contains(&own), "the leader goes: {change:?}");
                promote.iter().for_each(|replica| {
                    assert!(self.equal.contains(replica), "{replica} votes unseen");
                    set(members, replica, Part::Learner, Part::Entering);
                });
                demote.iter().for_each(|replica| set(members, replica, Part::Voter, Part::Demoted));
                remove.iter().for_each(|replica| set(members, replica, Part::Voter, Part::Leaving));
            }
            MemberChange::LeaveJoint => members.retain_mut(|member| match member.part.after() {
                Some(part) => {
                    member.part = part;
                    true
                }
                None => false,
            }),
        }
        assert!(self.membership.is_sound(), "{change:?} leaves {:?}", self.membership);
    }

    fn votes(&self) -> usize {
        self.membership.members.iter().filter(|m| m.part.after() == Some(Part::Voter)).count()
    }
}

pub(super) struct World {
    pub(super) catalog: Catalog,
    groups: BTreeMap<u64, Group>,
    dead: BTreeSet<String>,
    /// Group and node of every replica that there ever was.
    known: BTreeMap<u64, (u64, String)>,
    /// Replicas that were forgotten: they may have been deleted.
    forgotten: BTreeSet<u64>,
}

impl World {
    pub(super) fn new(catalog: Catalog) -> Self {
        let (known, forgotten) = (BTreeMap::new(), BTreeSet::new());
        let mut world = World { catalog, groups: BTreeMap::new(), dead: BTreeSet::new(), known, forgotten };
        world.follow();
        world
    }

    /// A change that has to be taken.
    pub(super) fn decide(&mut self, change: CatalogChange) {
        let what = format!("{change:?}");
        assert_eq!(self.catalog.change(change), Ok(()), "{what}");
        self.follow();
    }

    pub(super) fn join(&mut self, node: &str) {
        let storage = node.as_bytes()[0];
        self.decide(CatalogChange::Join {
            node: node.to_owned(),
            storage: [storage; 16],
            address: format!("{node}:1"),
            zone: None,
            weight: 1,
        });
    }

    pub(super) fn state(&mut self, node: &str, state: NodeState) {
        self.decide(CatalogChange::State { node: node.to_owned(), state });
    }

    /// A node dies, or is there again with all it had, and the catalog knows.
    pub(super) fn down(&mut self, node: &str, down: bool) {
        self.die(node, down);
        self.decide(CatalogChange::Down { node: node.to_owned(), down });
    }

    /// A node dies or is there again, and nobody says so.
    pub(super) fn die(&mut self, node: &str, dead: bool) {
        if dead {
            self.dead.insert(node.to_owned());
        } else {
            self.dead.remove(node);
        }
    }

    pub(super) fn remove(&mut self, node: &str) {
        self.decide(CatalogChange::Remove { node: node.to_owned() });
    }

    pub(super) fn groups(&self) -> Vec<u64> {
        self.groups.keys().copied().collect()
    }

    fn specs(&self) -> impl Iterator<Item = &GroupSpec> {
        std::iter::once(&self.catalog.own).chain(self.catalog.shards().map(|(_, shard)| &shard.spec))
    }

    /// Does what the catalog's changes mean, and looks for what must never be.
    fn follow(&mut self) {
        let specs: Vec<GroupSpec> = self.specs().cloned().collect();
        for spec in &specs {
            self.groups.entry(spec.group).or_insert_with(|| {
                let membership = spec.first_membership(&spec.leader).expect("the leader is a founder");
                Group { membership, equal: BTreeSet::new() }
            });
            let mut hosts = BTreeSet::new();
            for replica in &spec.replicas {
                assert!(hosts.insert(&replica.node), "two replicas on one node: {spec:?}");
                assert!(!self.forgotten.contains(&replica.replica), "one id twice: {spec:?}");
                let place = (spec.group, replica.node.clone());
                let known = self.known.entry(replica.replica).or_insert(place.clone());
                assert_eq!(*known, place, "one id for two replicas");
            }
            assert!(spec.staying().any(|r| r.wanted == Wanted::Voter), "nobody is to vote: {spec:?}");
        }
        self.groups.retain(|group, _| specs.iter().any(|spec| spec.group == *group));
        for (id, (group, _)) in &self.known {
            let spec = specs.iter().find(|spec| spec.group == *group);
            if spec.is_none_or(|spec| !spec.replicas.iter().any(|replica| replica.replica == *id)) {
                self.forgotten.insert(*id);
            }
        }
        for group in self.groups.values() {
            let lost = group.membership.members.iter().find(|m| self.forgotten.contains(&m.replica.0));
            assert_eq!(lost, None, "a member was forgotten: {:?}", group.membership);
        }
    }

    /// Any replica that may lead does so from now on; `draw` chooses.
    pub(super) fn depose(&mut self, id: u64, draw: usize) {
        let Some(group) = self.groups.get_mut(&id).filter(|group| group.decides(&self.dead)) else { return };
        let alive = |m: &&Member| m.part.votes() && !self.dead.contains(m.node.as_str());
        let able: Vec<ReplicaId> =
            group.membership.members.iter().filter(alive).map(|member| member.replica).collect();
        group.lead(able[draw % able.len()]);
    }

    /// The leader of a group does the next step by what it knows of the catalog, and reports. Gives whether it did anything.
    pub(super) fn turn(&mut self, id: u64, known: Option<&GroupSpec>) -> bool {
        let Some(group) = self.groups.get(&id).filter(|group| group.decides(&self.dead)) else {
            return false;
        };
        let own = group.membership.member(group.membership.own).cloned();
        if !own.is_some_and(|own| own.part.votes() && !self.dead.contains(own.node.as_str())) {
            self.depose(id, 0);
        }
        let Some(spec) = known.or(self.catalog.spec(GroupId(id))).cloned() else { return false };
        let group = self.groups.get_mut(&id).expect("it was there before");
        let step = step_of(group, &spec, &self.dead);
        let intent = spec.epoch.max(group.membership.intent);
        let wanted = spec.staying().filter(|replica| replica.wanted == Wanted::Voter).count();
        let least = group.votes().min(wanted);
        let before = (group.membership.clone(), group.equal.clone());
        match &step {
            Step::None => {}
            Step::Change(change) => {
                assert!(spec.epoch >= group.membership.intent, "it knew less than the group: {change:?}");
                group.change(change);
                group.membership.index += 1;
                group.membership.intent = intent;
                assert!(group.votes() >= least, "{change:?} leaves too few votes: {:?}", group.membership);
            }
            Step::Compare => {
                let alive = |m: &&Member| !self.dead.contains(m.node.as_str());
                group.equal.extend(group.membership.members.iter().filter(alive).map(|m| m.replica));
                group.membership.intent = intent;
            }
            Step::HandOver(to) => group.lead(*to),
        }
        let moved = before != (group.membership.clone(), group.equal.clone());
        let report = Report::of(&group.membership);
        let news = self.groups[&0].decides(&self.dead)
            && self.catalog.spec(GroupId(id)).is_some_and(|spec| spec.is_news(&report));
        if news {
            self.decide(CatalogChange::Report(report));
        } else {
            self.follow();
        }
        moved || news
    }

    /// The catalog's leader looks at the placement. Gives whether it wants anything else now.
    pub(super) fn look(&mut self) -> bool {
        if !self.groups[&0].decides(&self.dead) {
            return false;
        }
        let plan = plan(&self.catalog, &Sizes::new()).expect("it can be planned");
        let changes = next_changes(&self.catalog, &plan);
        let any = !changes.is_empty();
        changes.into_iter().for_each(|change| self.decide(change));
        self.check_limits();
        any
    }

    fn check_limits(&self) {
        let mut incoming: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, shard) in self.catalog.shards() {
            for replica in shard.spec.staying().filter(|replica| replica.standing == Standing::None) {
                *incoming.entry(&replica.node).or_default() += 1;
            }
        }
        assert!(incoming.values().all(|count| *count <= super::INCOMING_MAX), "{incoming:?}");
    }

    /// Lets everybody do what there is to do until nobody has anything left.
    pub(super) fn settle(&mut self, what: &str) {
        for _ in 0..ROUNDS_MAX {
            let mut busy = self.look();
            for id in self.groups() {
                busy |= self.turn(id, None);
            }
            if !busy {
                let waits: Vec<_> = self.specs().filter(|spec| !spec.is_settled()).collect();
                assert!(waits.is_empty(), "{what}: at rest, and not as it is wanted: {waits:#?}");
                let plan = plan(&self.catalog, &Sizes::new()).expect("it can be planned");
                assert!(plan.is_empty(), "{what}: at rest, and there is a plan: {plan}");
                self.assert_as_wanted();
                return;
            }
        }
        panic!("{what}: not within {ROUNDS_MAX} rounds");
    }

    /// Groups are what the catalog says that they are.
    fn assert_as_wanted(&self) {
        for spec in self.specs() {
            let membership = &self.groups[&spec.group].membership;
            assert_eq!(membership.members.len(), spec.replicas.len(), "{spec:?}, {membership:?}");
            for replica in &spec.replicas {
                let member = membership.member(ReplicaId(replica.replica)).map(|m| (m.part, m.node.as_str()));
                let part = if replica.wanted == Wanted::Voter { Part::Voter } else { Part::Learner };
                assert_eq!(member, Some((part, replica.node.as_str())), "{spec:?}");
            }
            let leads = membership.member(membership.own).map(|member| member.node.as_str());
            let could = !self.dead.contains(&spec.leader);
            assert!(!could || leads == Some(&spec.leader), "led by {leads:?}: {spec:?}");
        }
    }
}

/// What the leader of a group does next. Whoever answers is up to date.
fn step_of(group: &Group, spec: &GroupSpec, dead: &BTreeSet<String>) -> Step {
    let Group { membership, equal } = group;
    let committed = 100;
    let others = membership.members.iter().filter(|member| member.replica != membership.own);
    let followers: Vec<FollowerView> = others
        .map(|Member { replica, node, part }| {
            let (replica, node, part) = (*replica, NodeId::new(node.as_str()), *part);
            let active = !dead.contains(node.as_str());
            let equal_at = if equal.contains(&replica) { committed } else { 0 };
            FollowerView { replica, node, part, matched: committed, active, pinned_bytes: 0, equal_at }
        })
        .collect();
    next_step(spec, &Sight { membership, followers: &followers, committed })
}
