//! Requests that concern the cluster as a whole: joining, looking, changing, explaining. The catalog's leader answers.

use crate::catalog::{CATALOG, Catalog, CatalogChange, GroupSpec};
use crate::node::{Effect, Node, RequestId};
use crate::placement;
use crate::requests::{Answer, error};
use slowdb_proto::limits::{DIMENSION_MAX, REPLICATION_FACTOR_MAX, SHARDS_MAX};
use slowdb_proto::{
    Admin, AdminReply, AdminRequest, ClusterView, Code, ErrorReply, Explain, JoinReply, JoinRequest, Meant,
    MoveView, NodeState, NodeView, PlannedMove, ReplicaView, Reply, Standing, check_name,
};
use slowdb_repl::{Failure, GroupId, Now};

/// Nodes of a cluster.
const NODES_MAX: usize = 1_000;
/// Replicas of all shards of all collections.
const REPLICAS_MAX: usize = 200_000;

/// After this many milliseconds a new leader of the catalog has mostly applied what it holds.
const NEW_LEADER_RETRY_MS: u32 = 20;

/// A node that holds nothing says so about as often.
const NOT_VACANT_RETRY_MS: u32 = 500;

/// What is answered when the change of the catalog that it needs has been decided.
pub(crate) enum AdminAsk {
    Join { node: String },
    Admin { notes: Vec<String> },
}

impl Node {
    fn leading_catalog(&self) -> Answer<&Catalog> {
        if !self.repl.leads(CATALOG) {
            return Err(self.failure(CATALOG, Failure::NotLeader));
        }
        if !self.knows_catalog() {
            let message = format!("node {} has just begun to lead the catalog", self.name);
            return Err(Box::new(ErrorReply {
                retry_after_ms: NEW_LEADER_RETRY_MS,
                ..ErrorReply::new(Code::Unavailable, message)
            }));
        }
        self.catalog().filter(|catalog| catalog.cluster.is_some()).ok_or_else(|| self.not_founded())
    }

    fn propose_asked(
        &mut self,
        now: Now,
        id: RequestId,
        change: &CatalogChange,
        ask: AdminAsk,
    ) -> Answer<()> {
        self.propose_own(now, change, Some(id)).map_err(|why| self.failure(CATALOG, why))?;
        self.pending.admin.insert(id, ask);
        Ok(())
    }

    /// The change that a request asked for was decided; `refused` says why it had no effect.
    pub(crate) fn answer_admin(&mut self, id: RequestId, refused: Option<String>) {
        let Some(ask) = self.pending.admin.remove(&id) else { return };
        let reply = match (refused, ask) {
            (Some(why), _) => Reply::Error(ErrorReply::new(Code::Refused, why)),
            (None, AdminAsk::Join { node }) => match self.joined(&node) {
                Ok(joined) => Reply::Joined(joined),
                Err(error) => Reply::Error(*error),
            },
            (None, AdminAsk::Admin { notes }) => {
                self.tending.plan_now = true;
                let moves = self.planned();
                Reply::Admin(AdminReply { changed: true, moves, notes })
            }
        };
        self.effects.push(Effect::Reply { id, reply, body: Vec::new() });
    }

    /// The change that a request asked for may or may not be decided.
    pub(crate) fn fail_admin(&mut self, id: RequestId, why: Failure) {
        if self.pending.admin.remove(&id).is_some() {
            let reply = Reply::Error(*self.failure(CATALOG, why));
            self.effects.push(Effect::Reply { id, reply, body: Vec::new() });
        }
    }

    pub(crate) fn ask_join(&mut self, now: Now, id: RequestId, join: JoinRequest) -> Answer<()> {
        let catalog = self.leading_catalog()?;
        check_name(&join.node).map_err(|e| error(Code::BadRequest, format!("node id: {e}")))?;
        if let Some(zone) = &join.zone {
            check_name(zone).map_err(|e| error(Code::BadRequest, format!("zone: {e}")))?;
        }
        let port =
            join.address.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse());
        if !matches!(port, Some(Ok(1..=u16::MAX))) || join.address.len() > 300 {
            let what = format!("node {} is at '{}': it has to be HOST:PORT", join.node, join.address);
            return Err(error(Code::BadRequest, what));
        }
        if join.weight == 0 || join.weight > 1000 {
            return Err(error(
                Code::BadRequest,
                format!("weight {}: it has to be from 1 to 1000", join.weight),
            ));
        }
        if catalog.nodes.len() >= NODES_MAX && catalog.node(&join.node).is_none() {
            return Err(error(Code::Refused, format!("a cluster has at most {NODES_MAX} nodes")));
        }
        let JoinRequest { node, storage, address, zone, weight } = join;
        let change = CatalogChange::Join { node: node.clone(), storage, address, zone, weight };
        self.propose_asked(now, id, &change, AdminAsk::Join { node })
    }

    fn joined(&self, node: &str) -> Answer<JoinReply> {
        let catalog = self.leading_catalog()?;
        let replica = catalog.own.staying().find(|replica| replica.node == node);
        let replica = replica.ok_or_else(|| {
            error(
                Code::Refused,
                format!("node {node} is being removed from the catalog; try again in a while"),
            )
        })?;
        Ok(JoinReply {
            cluster: catalog.cluster.unwrap_or_default(),
            replica: replica.replica,
            nodes: catalog.nodes.iter().map(|node| node.to_info()).collect(),
        })
    }

    /// What the planner would move, as things stand.
    fn planned(&self) -> Vec<PlannedMove> {
        let Some(catalog) = self.catalog() else { return Vec::new() };
        let catalog = self.with_low_cordoned(catalog);
        let plan = placement::plan(&catalog, &self.sizes());
        plan.map(|plan| placement::planned_moves(&catalog, &plan)).unwrap_or_default()
    }

    pub(crate) fn cluster_view(&self, now: Now) -> Answer<ClusterView> {
        let catalog = self.leading_catalog()?;
        let node = |node: &crate::catalog::CatalogNode| {
            let holds = |(_, shard): &(_, &crate::catalog::Shard)| {
                shard.spec.replica_on(&node.id).is_some_and(|replica| replica.standing != Standing::None)
            };
            let leads = |(_, shard): &(_, &crate::catalog::Shard)| shard.spec.leader == node.id;
            NodeView {
                id: node.id.clone(),
                address: node.address.clone(),
                zone: node.zone.clone(),
                weight: node.weight,
                state: if node.leaving { NodeState::Draining } else { node.state },
                down: node.down,
                silent_ms: self.tending.silence(&node.id, now) / 1000,
                replicas: catalog.shards().filter(holds).count() as u32,
                leads: catalog.shards().filter(leads).count() as u32,
                catalog: catalog.own.replica_on(&node.id).map_or(Standing::None, |replica| replica.standing),
                storage: node.storage,
            }
        };
        let specs = std::iter::once(&catalog.own).chain(catalog.shards().map(|(_, shard)| &shard.spec));
        let mut moves: Vec<MoveView> =
            specs.filter(|spec| !spec.is_settled()).map(|spec| self.move_view(catalog, spec)).collect();
        let live = |it: &MoveView| {
            let lives = |r: &&ReplicaView| {
                r.standing != Standing::None && catalog.node(&r.node).is_some_and(|node| !node.down)
            };
            it.replicas.iter().filter(lives).count()
        };
        moves.sort_by_cached_key(|it| (live(it), it.group));
        let lost = catalog.shards().filter(|(_, shard)| has_lost_majority(catalog, &shard.spec));
        let lost = lost.map(|(collection, shard)| {
            format!(
                "shard {} of '{}' has lost the majority of its voters: it takes no writes and no quorum reads until they \
                 are back; reads at 'one' go on",
                shard.shard, collection.name
            )
        });
        Ok(ClusterView {
            cluster: catalog.cluster.unwrap_or_default(),
            epoch: catalog.epoch,
            leader: self.name.clone(),
            nodes: catalog.nodes.iter().map(node).collect(),
            moves,
            planned: self.planned(),
            lost: lost.collect(),
        })
    }

    fn move_view(&self, catalog: &Catalog, spec: &GroupSpec) -> MoveView {
        let replica = |replica: &crate::catalog::Replica| {
            let (bytes, of_bytes) = self.tending.progress(replica.replica);
            ReplicaView {
                replica: replica.replica,
                node: replica.node.clone(),
                wanted: replica.wanted,
                standing: replica.standing,
                bytes,
                of_bytes,
            }
        };
        MoveView {
            group: spec.group,
            shard: catalog
                .shard_of(GroupId(spec.group))
                .map(|(collection, shard)| (collection.name.clone(), shard)),
            replicas: spec.replicas.iter().map(replica).collect(),
            reason: spec.reason.clone(),
        }
    }

    pub(crate) fn ask_admin(&mut self, now: Now, id: RequestId, request: AdminRequest) -> Answer<()> {
        let catalog = self.leading_catalog()?;
        let AdminRequest { admin, meant, dry_run } = request;
        let lost = matches!(admin, Admin::RemoveNode { lost: true, .. });
        if let Some(done) = meant.map(|meant| done_already(catalog, &admin, meant)).transpose()?.flatten() {
            let reply = Reply::Admin(AdminReply { changed: false, moves: Vec::new(), notes: vec![done] });
            self.reply(id, reply);
            return Ok(());
        }
        let (change, notes) = change_for(catalog, &self.with_low_cordoned(catalog), admin)?;
        let mut after = catalog.clone();
        if let Some(change) = &change {
            after.change(change.clone()).map_err(|why| error(Code::Refused, why))?;
        }
        if let Some(CatalogChange::Remove { node }) = change.as_ref().filter(|_| !dry_run) {
            self.check_removable(catalog, node, lost)?;
        }
        match change.filter(|_| !dry_run) {
            Some(change) => self.propose_asked(now, id, &change, AdminAsk::Admin { notes }),
            None => {
                let plan =
                    placement::plan(&after, &self.sizes()).map_err(|why| error(Code::Unavailable, why))?;
                let moves = placement::planned_moves(&after, &plan);
                self.tending.plan_now |= !dry_run;
                let reply = Reply::Admin(AdminReply { changed: false, moves, notes });
                self.effects.push(Effect::Reply { id, reply, body: Vec::new() });
                Ok(())
            }
        }
    }

    /// Whether nothing is lost with a node that is to be removed, or whoever asks for it says that it is lost already.
    fn check_removable(&self, catalog: &Catalog, node: &str, lost: bool) -> Answer<()> {
        let is_down = catalog.node(node).is_some_and(|node| node.down);
        match (is_down, lost) {
            (true, true) => Ok(()),
            (true, false) => Err(error(
                Code::Refused,
                format!(
                    "node {node} is down, and may keep writes that were acknowledged at 'one' and that no other node has:                      start it again, or say that it is lost (--lost), and they with it"
                ),
            )),
            (false, true) => Err(error(
                Code::Refused,
                format!(
                    "node {node} is not down, so nothing of it is lost: remove it without saying so (--lost)"
                ),
            )),
            (false, false) if self.is_vacant(node) => Ok(()),
            (false, false) => {
                let message = format!(
                    "node {node} has not said yet that it keeps no write that only it has; one that was acknowledged at                      'one' and overtaken by a failover waits there until its shard takes it (status shows how many wait)"
                );
                let error = ErrorReply::new(Code::Unavailable, message);
                Err(Box::new(ErrorReply { retry_after_ms: NOT_VACANT_RETRY_MS, ..error }))
            }
        }
    }

    pub(crate) fn explain(&self, explain: &Explain) -> Answer<Vec<String>> {
        let catalog = self.leading_catalog()?;
        let plan = placement::plan(catalog, &self.sizes()).map_err(|why| error(Code::Unavailable, why))?;
        match explain {
            Explain::Shard { collection, shard } => {
                let found = catalog.collection(collection);
                let found = found.ok_or_else(|| unknown_collection(catalog, collection))?;
                let shard = found.shards.get(*shard as usize).ok_or_else(|| {
                    let count = found.shards.len();
                    error(
                        Code::NotFound,
                        format!("there is no shard {shard}: '{collection}' has shards 0 to {}", count - 1),
                    )
                })?;
                Ok(explain_group(catalog, &shard.spec, &plan))
            }
            Explain::Node { node } => {
                let found = catalog.node(node);
                let found = found.ok_or_else(|| error(Code::NotFound, format!("there is no node {node}")))?;
                let mut lines = vec![format!(
                    "node {node} is {}{}, weight {}, at {}{}",
                    found.state.as_str(),
                    if found.down { " and down" } else { "" },
                    found.weight,
                    found.address,
                    found.zone.as_ref().map_or(String::new(), |zone| format!(", in zone {zone}")),
                )];
                for (collection, shard) in catalog.shards() {
                    let Some(replica) = shard.spec.replica_on(node) else { continue };
                    let why = plan
                        .explain(shard.spec.group, node)
                        .map_or(String::new(), |why| format!("; {}", why.why));
                    lines.push(format!(
                        "shard {} of '{}': replica {} is a {}, wanted: {}{why}",
                        shard.shard,
                        collection.name,
                        replica.replica,
                        replica.standing.as_str(),
                        replica.wanted.as_str(),
                    ));
                }
                let comes = plan.moves().iter().filter(|it| it.add.as_ref() == Some(node)).count();
                let goes = plan.moves().iter().filter(|it| it.remove.as_ref() == Some(node)).count();
                lines.push(match (comes, goes) {
                    (0, 0) => "nothing more is planned to come or go".to_owned(),
                    _ => format!("planned next: {comes} replicas come, {goes} go"),
                });
                Ok(lines)
            }
        }
    }
}

/// Whether what was meant by a change is gone, and with it the need for the change; an error if the change was to be made to
/// it. It is enough to look at what is applied here: what could take the name meanwhile is not taken into the log before
/// it is applied that the name is free.
fn done_already(catalog: &Catalog, admin: &Admin, meant: Meant) -> Answer<Option<String>> {
    match (admin, meant) {
        (Admin::DropCollection { name } | Admin::AlterCollection { name, .. }, Meant::Collection(group)) => {
            let found = catalog.collection(name).and_then(|it| it.shards.first());
            if found.is_some_and(|shard| shard.spec.group == group) {
                return Ok(None);
            }
            let left = found.map_or("", |_| "; there is another one of that name, which was left alone");
            let what =
                format!("the collection '{name}' that begins with group {group} is gone already{left}");
            match admin {
                Admin::DropCollection { .. } => Ok(Some(what)),
                _ => Err(error(Code::Refused, what)),
            }
        }
        (Admin::RemoveNode { node, .. } | Admin::SetNodeState { node, .. }, Meant::Node(storage)) => {
            let found = catalog.node(node).filter(|found| found.storage.is_none_or(|it| it == storage));
            let removes = matches!(admin, Admin::RemoveNode { .. });
            match found {
                Some(found) if !found.leaving => Ok(None),
                Some(_) if removes => Ok(Some(format!("node {node} is being removed already"))),
                Some(_) => Err(error(Code::Refused, format!("node {node} is being removed"))),
                None if removes && catalog.removed.iter().any(|(_, old)| *old == storage) => {
                    Ok(Some(format!("the node {node} that was meant is removed already")))
                }
                None => {
                    let what = format!("the node {node} that was meant is not part of the cluster any more");
                    Err(error(Code::Refused, what))
                }
            }
        }
        (Admin::CreateCollection { .. } | Admin::Rebalance, _) => Ok(None),
        _ => Err(error(Code::BadRequest, format!("{meant:?} is not what {admin:?} is about"))),
    }
}

/// The change that an operator's wish comes down to, if it needs one, and what to say about it. The second catalog is the one
/// that replicas are placed by.
fn change_for(
    catalog: &Catalog,
    placed_by: &Catalog,
    admin: Admin,
) -> Answer<(Option<CatalogChange>, Vec<String>)> {
    let mut notes = Vec::new();
    let change = match admin {
        Admin::Rebalance => return Ok((None, notes)),
        Admin::SetNodeState { node, state } => {
            let found = catalog
                .node(&node)
                .ok_or_else(|| error(Code::NotFound, format!("there is no node {node}")))?;
            if found.state == state {
                notes.push(format!("node {node} is {} already", state.as_str()));
                return Ok((None, notes));
            }
            if state == NodeState::Draining && found.state != NodeState::Draining {
                let left = |n: &&crate::catalog::CatalogNode| {
                    n.id != node && n.state == NodeState::Active && !n.down
                };
                let left = catalog.nodes.iter().filter(left).count();
                let most = catalog
                    .collections
                    .iter()
                    .map(|c| c.replication_factor as usize)
                    .max()
                    .unwrap_or_default();
                if left < most {
                    notes.push(format!(
                        "only {left} nodes are left to hold replicas, and there is a collection that wants {most} of each \
                         shard: those that have no other place stay on node {node}"
                    ));
                }
            }
            CatalogChange::State { node, state }
        }
        Admin::RemoveNode { node, lost: _ } => {
            catalog.node(&node).ok_or_else(|| error(Code::NotFound, format!("there is no node {node}")))?;
            CatalogChange::Remove { node }
        }
        Admin::CreateCollection { name, dimension, metric, num_shards, replication_factor, settings } => {
            check_name(&name).map_err(|e| error(Code::BadRequest, format!("collection: {e}")))?;
            let range = |what: &str, value: u32, max: u32| {
                let wrong =
                    || error(Code::BadRequest, format!("{what} {value}: it has to be from 1 to {max}"));
                (1..=max).contains(&value).then_some(()).ok_or_else(wrong)
            };
            range("dimension", dimension, DIMENSION_MAX)?;
            range("number of shards", num_shards, SHARDS_MAX)?;
            range("replication factor", replication_factor, REPLICATION_FACTOR_MAX)?;
            settings.check().map_err(|why| error(Code::BadRequest, why))?;
            let replicas: usize = catalog.shards().map(|(_, shard)| shard.spec.replicas.len()).sum();
            if replicas + (num_shards * replication_factor) as usize > REPLICAS_MAX {
                return Err(error(Code::Refused, format!("a cluster has at most {REPLICAS_MAX} replicas")));
            }
            let placed = placement::first_placement(placed_by, num_shards, replication_factor);
            let shards = placed.map_err(|why| error(Code::Unavailable, why))?;
            if shards[0].len() < replication_factor as usize {
                notes.push(format!(
                    "there are nodes for {} of {replication_factor} replicas only",
                    shards[0].len()
                ));
            }
            CatalogChange::Create { name, dimension, metric, replication_factor, settings, shards }
        }
        Admin::DropCollection { name } => {
            let found = catalog.collection(&name).ok_or_else(|| unknown_collection(catalog, &name))?;
            let replicas: usize = found.shards.iter().map(|shard| shard.spec.replicas.len()).sum();
            notes.push(format!(
                "{} shards go, {replicas} replicas with all their records",
                found.shards.len()
            ));
            CatalogChange::Drop { name }
        }
        Admin::AlterCollection { name, replication_factor, settings } => {
            let found = catalog.collection(&name).ok_or_else(|| unknown_collection(catalog, &name))?;
            if let Some(factor) = replication_factor
                && !(1..=REPLICATION_FACTOR_MAX).contains(&factor)
            {
                let what =
                    format!("replication factor {factor}: it has to be from 1 to {REPLICATION_FACTOR_MAX}");
                return Err(error(Code::BadRequest, what));
            }
            let after = settings.of(found.settings);
            after.check().map_err(|why| error(Code::BadRequest, why))?;
            let stays = replication_factor.is_none_or(|factor| factor == found.replication_factor);
            if stays && after == found.settings {
                notes.push(format!("'{name}' is like that already"));
                return Ok((None, notes));
            }
            CatalogChange::Alter { name, replication_factor, settings }
        }
    };
    Ok((Some(change), notes))
}

fn explain_group(catalog: &Catalog, spec: &GroupSpec, plan: &slowdb_ring::Plan) -> Vec<String> {
    let mut lines = vec![format!("placed because of: {}; preferred leader: {}", spec.reason, spec.leader)];
    for replica in &spec.replicas {
        let why =
            plan.explain(spec.group, &replica.node).map_or(String::new(), |why| format!("; {}", why.why));
        lines.push(format!(
            "node {}: replica {} is a {}, wanted: {}{why}",
            replica.node,
            replica.replica,
            replica.standing.as_str(),
            replica.wanted.as_str(),
        ));
    }
    if has_lost_majority(catalog, spec) {
        lines.push(
            "most of its voters are down: no writes and no quorum reads until they are back".to_owned(),
        );
    }
    let next: Vec<String> = plan.moves().iter().filter(|it| it.shard == spec.group).map(in_words).collect();
    lines.push(if !spec.is_settled() {
        "it is on its way to what is wanted; nothing else is planned until it is there".to_owned()
    } else if next.is_empty() {
        "it is where it should be: nothing is planned".to_owned()
    } else {
        format!("next: {}", next.join("; "))
    });
    lines
}

fn in_words(it: &slowdb_ring::Move) -> String {
    let what = match (&it.add, &it.remove) {
        (Some(to), Some(from)) => format!("a copy goes to node {to}, then the one on node {from} goes"),
        (Some(to), None) => format!("a copy goes to node {to}"),
        (None, Some(from)) => format!("the replica on node {from} goes"),
        (None, None) => "nothing".to_owned(),
    };
    format!("{what} ({})", it.reason)
}

fn has_lost_majority(catalog: &Catalog, spec: &GroupSpec) -> bool {
    let voters = spec.replicas.iter().filter(|r| matches!(r.standing, Standing::Voter | Standing::Changing));
    let (mut all, mut live) = (0, 0);
    for voter in voters {
        all += 1;
        live += usize::from(catalog.node(&voter.node).is_some_and(|node| !node.down));
    }
    all > 0 && live * 2 <= all
}

fn unknown_collection(catalog: &Catalog, name: &str) -> Box<ErrorReply> {
    let names: Vec<&str> = catalog.collections.iter().map(|c| c.name.as_str()).collect();
    error(
        Code::UnknownCollection,
        format!("no collection is called '{name}'; there is: {}", names.join(", ")),
    )
}
