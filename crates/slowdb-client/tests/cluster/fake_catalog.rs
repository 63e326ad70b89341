//! The catalog of the fake cluster: who leads it, as each node believes, and what was changed.

use slowdb_proto::*;
use std::collections::BTreeMap;

/// What all nodes share, and what each believes.
#[derive(Default)]
pub(crate) struct Catalog {
    beliefs: BTreeMap<String, String>,
    /// Changes, each once.
    pub(crate) changes: Vec<Admin>,
    /// Nodes that were let in.
    pub(crate) joined: Vec<JoinRequest>,
}

impl Catalog {
    /// All nodes learn who leads.
    pub(crate) fn elect(&mut self, leader: &str) {
        for node in ["n1", "n2", "n3"] {
            self.tell(node, leader);
        }
    }

    /// One node learns who leads.
    pub(crate) fn tell(&mut self, node: &str, leader: &str) {
        self.beliefs.insert(node.to_owned(), leader.to_owned());
    }

    pub(crate) fn leader(&self, node: &str) -> Option<String> {
        self.beliefs.get(node).cloned()
    }

    pub(crate) fn answer(
        &mut self,
        node: &str,
        request: RequestKind,
        map: &mut ClusterMap,
    ) -> Result<Reply, ErrorReply> {
        if self.leader(node).as_deref() != Some(node) {
            let error = ErrorReply::new(Code::NotLeader, format!("{node} does not lead the catalog"));
            return Err(ErrorReply { leader: self.leader(node), ..error });
        }
        Ok(match request {
            RequestKind::Join(request) => self.join(request, map),
            RequestKind::Cluster => Reply::Cluster(Box::new(view(node, map))),
            RequestKind::Admin(request) => self.admin(request, map)?,
            RequestKind::Explain(explain) => Reply::Explained(vec![format!("{explain:?}")]),
            other => panic!("{other:?} is not for the catalog"),
        })
    }

    fn join(&mut self, request: JoinRequest, map: &ClusterMap) -> Reply {
        if !self.joined.contains(&request) {
            self.joined.push(request);
        }
        Reply::Joined(JoinReply { cluster: map.cluster, replica: 9, nodes: map.nodes.clone() })
    }

    fn admin(&mut self, request: AdminRequest, map: &mut ClusterMap) -> Result<Reply, ErrorReply> {
        let AdminRequest { admin, dry_run, .. } = request;
        let changed = !dry_run && !self.changes.contains(&admin);
        if let Admin::CreateCollection { name, dimension, metric, replication_factor, settings, .. } = &admin
        {
            if map.collections.iter().any(|it| it.name == *name) {
                return Err(ErrorReply::new(
                    Code::Refused,
                    format!("there is a collection '{name}' already"),
                ));
            }
            // One without shards is enough to be seen.
            let (name, shards) = (name.clone(), vec![]);
            let (dimension, metric, replication_factor) = (*dimension, *metric, *replication_factor);
            map.collections.push(CollectionInfo {
                name,
                dimension,
                metric,
                replication_factor,
                settings: *settings,
                shards,
            });
            map.epoch += 1;
        }
        if changed {
            self.changes.push(admin);
        }
        Ok(Reply::Admin(AdminReply { changed, moves: vec![], notes: vec![] }))
    }
}

fn view(leader: &str, map: &ClusterMap) -> ClusterView {
    let node = |node: &NodeInfo| NodeView {
        id: node.id.clone(),
        address: node.address.clone(),
        zone: None,
        weight: 1,
        state: NodeState::Active,
        down: false,
        silent_ms: 0,
        replicas: 1,
        leads: 0,
        catalog: Standing::Voter,
        storage: Some([9; 16]),
    };
    ClusterView {
        cluster: map.cluster,
        epoch: map.epoch,
        leader: leader.to_owned(),
        nodes: map.nodes.iter().map(node).collect(),
        moves: vec![],
        planned: vec![],
        lost: vec![],
    }
}
