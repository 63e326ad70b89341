//! What a node says of itself.

use crate::catalog::CATALOG;
use crate::machine::Machine;
use crate::node::Node;
use slowdb_proto::{FollowerStatus, GroupKind, GroupStatus, LateStatus, LogStatus, NodeStatus, Role, Wanted};
use slowdb_repl::{FollowerView, GroupId, GroupView, Now, Part, ReplicaRole};

impl Node {
    pub(crate) fn status(&self, now: Now) -> NodeStatus {
        let groups: Vec<GroupStatus> = self.repl.groups().filter_map(|id| self.group_status(id)).collect();
        let pinned_bytes = groups.iter().flat_map(|g| g.followers.iter().map(|f| f.pinned_bytes)).sum();
        let started = self.started.unwrap_or(now);
        NodeStatus {
            node: self.name.clone(),
            cluster: self.catalog().and_then(|catalog| catalog.cluster),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: (now.micros - started.micros) / 1000,
            groups,
            log: LogStatus { pinned_bytes, ..self.log },
            space: self.space.status(),
            scrub: self.scrubs.status(self.setup.scrub.bytes_per_second, now),
            peers: self.peers.clone(),
            warnings: self.warnings(now),
        }
    }

    fn group_status(&self, id: GroupId) -> Option<GroupStatus> {
        let GroupView { replica, role, part, term, leader, first_index, last_index, .. } =
            self.repl.view(id)?;
        let view = self.repl.view(id)?;
        let machine = self.repl.machine(id)?;
        let role = match role {
            ReplicaRole::Leader => Role::Leader,
            ReplicaRole::Candidate => Role::Candidate,
            ReplicaRole::Follower if !part.is_some_and(Part::votes) => Role::Learner,
            ReplicaRole::Follower => Role::Follower,
        };
        let (digest, records) = match machine {
            Machine::Catalog(catalog) => (catalog.digest(), catalog.catalog().nodes.len() as u64),
            Machine::Shard(shard) => (shard.digest(), shard.records()),
        };
        let follower = |follower: &FollowerView| FollowerStatus {
            node: follower.node.as_str().to_owned(),
            matched: follower.matched,
            active: follower.active,
            pinned_bytes: follower.pinned_bytes,
        };
        Some(GroupStatus {
            group: id.0,
            kind: self.group_kind(id)?,
            replica: replica.0,
            role,
            term,
            leader: leader.map(|leader| leader.as_str().to_owned()),
            first_index,
            last_index,
            committed: view.committed,
            applied: view.applied,
            digest,
            records,
            late: self.late_status(id, machine),
            checkpointed: view.checkpointed,
            followers: view.followers.iter().map(follower).collect(),
        })
    }

    fn late_status(&self, id: GroupId, machine: &Machine) -> LateStatus {
        let Some(shard) = machine.shard() else { return LateStatus::default() };
        let (losers, loser_bytes) = shard.conflicts().losers();
        LateStatus {
            conflicts: shard.conflicts().len() as u64,
            losers: losers as u64,
            loser_bytes: loser_bytes as u64,
            tombstones: shard.tombstones() as u64,
            quarantined: self.repl.quarantined(id).proposals as u64,
        }
    }

    fn group_kind(&self, id: GroupId) -> Option<GroupKind> {
        if id == CATALOG {
            return Some(GroupKind::Catalog);
        }
        let (collection, shard) = self.catalog()?.shard_of(id)?;
        Some(GroupKind::Shard { collection: collection.name.clone(), shard })
    }

    fn warnings(&self, now: Now) -> Vec<String> {
        let mut warnings: Vec<String> =
            self.halted.iter().map(|(group, why)| format!("{group} is halted here: {why}")).collect();
        for (group, node, index) in self.differing.iter() {
            warnings.push(format!(
                "{group}: the replica on node {node} had another digest than this one at entry {index}: \
                 'compare' finds the records that differ"
            ));
        }
        for group in self.repl.quarantined_groups() {
            let Some(GroupKind::Shard { collection, shard }) = self.group_kind(group) else { continue };
            let kept = self.repl.quarantined(group);
            warnings.push(format!(
                "{} batches that were acknowledged at 'one' and overtaken by a failover wait here for the leader of shard \
                 {shard} of '{collection}' ({} bytes)",
                kept.proposals, kept.bytes
            ));
        }
        warnings.extend(self.space.warning());
        for (group, what) in self.scrubs.warnings() {
            let Some(GroupKind::Shard { collection, shard }) = self.group_kind(group) else { continue };
            warnings.push(format!("shard {shard} of '{collection}': {what}"));
        }
        if self.disk.was_slow(now) {
            warnings
                .push("a sync of the log took more than a second: others lead as far as they can".to_owned());
        }
        if self.tending.is_far(now) {
            warnings.push(
                "the network of this node is slow: every node takes more than 120 ms to answer, while others reach \
                 each other sooner: they lead as far as they can"
                    .to_owned(),
            );
        }
        if let Some(catalog) = self.catalog().filter(|catalog| catalog.cluster.is_some()) {
            for collection in &catalog.collections {
                let staying = |shard: &crate::catalog::Shard| shard.spec.staying().count();
                let replicas = collection.shards.iter().map(staying).min().unwrap_or_default();
                if replicas < collection.replication_factor as usize {
                    warnings.push(format!(
                        "collection '{}' wants {} replicas of each shard, but there are nodes for {replicas} only",
                        collection.name, collection.replication_factor
                    ));
                }
                let votes = |shard: &crate::catalog::Shard| {
                    shard.spec.staying().filter(|replica| replica.wanted == Wanted::Voter).count()
                };
                if collection.shards.iter().map(votes).min() == Some(1) {
                    warnings.push(format!(
                        "collection '{}' has one voter for each shard: 'quorum' is one disk, and no failover",
                        collection.name
                    ));
                }
            }
        }
        warnings
    }
}
