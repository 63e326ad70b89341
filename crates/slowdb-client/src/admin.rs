//! What an operator asks of the cluster: how it is, changes, and reasons.

use crate::catalog::AtCatalog;
use crate::client::Client;
use crate::deadline::Deadline;
use crate::error::ClientError;
use slowdb_proto::{
    Admin, AdminReply, AdminRequest, ClusterMap, ClusterView, CollectionInfo, Explain, Meant, Reply,
    RequestKind,
};

impl Client {
    /// The cluster as the catalog's leader sees it: nodes, what is being moved, and what will be.
    ///
    /// # Errors
    /// [`ClientError::TimedOut`] if no leader answered in the client's time-out; [`ClientError::Refused`].
    pub async fn cluster(&self) -> Result<ClusterView, ClientError> {
        let at = self.at_catalog("a view of the cluster", false);
        Ok(at.run(RequestKind::Cluster, cluster_view).await?.1)
    }

    /// Changes the cluster, or with `dry_run` only says what would come of it. The reply comes when the
    /// change is decided, not when all is moved that follows from it. It is made to the collection or node that has the
    /// name when it is called: a later one of that name is left alone, however often the request has to be sent.
    ///
    /// # Errors
    /// [`ClientError::Refused`] with the reason and what to do about it; [`ClientError::TimedOut`] if nothing
    /// was changed; [`ClientError::OutcomeUnknown`] if it may have been: ask again, or look.
    pub async fn admin(&self, admin: Admin, dry_run: bool) -> Result<AdminReply, ClientError> {
        let what = what(&admin);
        let at = self.at_catalog(&what, !dry_run);
        let meant = if dry_run { None } else { self.meant(&admin, at.deadline).await? };
        let request = RequestKind::Admin(AdminRequest { admin: admin.clone(), meant, dry_run });
        let outcome = at
            .run(request, |reply| match reply {
                Reply::Admin(reply) => Ok(reply),
                other => Err(Box::new(other)),
            })
            .await;
        let (leader, reply) = match outcome {
            // An attempt that was not acknowledged may be why another one was refused.
            Err(error @ ClientError::OutcomeUnknown { .. }) => {
                return match tokio::time::timeout(at.deadline.left(), self.newest_map()).await {
                    Ok(Ok(map)) if is_done(&admin, meant, &map) => {
                        let notes = vec!["done by an attempt that was not acknowledged".to_owned()];
                        Ok(AdminReply { changed: true, moves: Vec::new(), notes })
                    }
                    _ => Err(error),
                };
            }
            other => other?,
        };
        if reply.changed {
            // So that this client sees what it did. If that fails, it is seen when the map is needed.
            self.inner.refresh_from(&leader, at.deadline.left()).await;
        }
        Ok(reply)
    }

    /// Which collection or node a change is about, as the catalog's leader has it; `None` if there is none of that name.
    async fn meant(&self, admin: &Admin, deadline: Deadline) -> Result<Option<Meant>, ClientError> {
        let at = AtCatalog { inner: &self.inner, what: &what(admin), deadline, is_change: false };
        Ok(match admin {
            Admin::SetNodeState { node, .. } | Admin::RemoveNode { node, .. } => {
                let (_, view) = at.run(RequestKind::Cluster, cluster_view).await?;
                let found = view.nodes.iter().find(|it| it.id == *node);
                found.and_then(|it| it.storage).map(Meant::Node)
            }
            Admin::DropCollection { name } | Admin::AlterCollection { name, .. } => {
                let map = self.map_at(&at).await?;
                let found = map.collections.iter().find(|it| it.name == *name);
                found.and_then(|it| it.first_group()).map(Meant::Collection)
            }
            Admin::CreateCollection { .. } | Admin::Rebalance => None,
        })
    }

    /// Why things are where they are, and what happens next: sentences for people.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if there is no such thing; [`ClientError::TimedOut`].
    pub async fn explain(&self, explain: Explain) -> Result<Vec<String>, ClientError> {
        let sentences = |reply| match reply {
            Reply::Explained(sentences) => Ok(sentences),
            other => Err(Box::new(other)),
        };
        Ok(self.at_catalog("an explanation", false).run(RequestKind::Explain(explain), sentences).await?.1)
    }

    /// The map as the catalog's leader has it: not behind any change that was made before.
    ///
    /// # Errors
    /// As [`Client::cluster`].
    pub async fn newest_map(&self) -> Result<ClusterMap, ClientError> {
        self.map_at(&self.at_catalog("the map of the catalog's leader", false)).await
    }

    async fn map_at(&self, at: &AtCatalog<'_>) -> Result<ClusterMap, ClientError> {
        let (leader, _) = at.run(RequestKind::Cluster, cluster_view).await?;
        if self.inner.refresh_from(&leader, at.deadline.left()).await.is_none() {
            let last = Some(format!("node {leader} leads the catalog, and gave no map"));
            let (what, waited_ms) = (at.what.to_owned(), at.deadline.waited_ms());
            return Err(ClientError::TimedOut { what, waited_ms, last });
        }
        Ok(self.map())
    }

    fn at_catalog<'a>(&'a self, what: &'a str, is_change: bool) -> AtCatalog<'a> {
        AtCatalog { inner: &self.inner, what, deadline: Deadline::after(self.inner.timeout), is_change }
    }
}

fn cluster_view(reply: Reply) -> Result<ClusterView, Box<Reply>> {
    match reply {
        Reply::Cluster(view) => Ok(*view),
        other => Err(Box::new(other)),
    }
}

/// Whether a map shows that a change was made. Not all do.
fn is_done(admin: &Admin, meant: Option<Meant>, map: &ClusterMap) -> bool {
    let is_meant = |it: &&CollectionInfo| {
        meant.is_none_or(|meant| it.first_group().map(Meant::Collection) == Some(meant))
    };
    let collection = |name: &str| map.collections.iter().find(|it| it.name == name).filter(is_meant);
    match admin {
        Admin::CreateCollection { name, dimension, metric, num_shards, replication_factor, settings } => {
            collection(name).is_some_and(|it| {
                (it.dimension, it.metric, it.shards.len(), it.replication_factor, it.settings)
                    == (*dimension, *metric, *num_shards as usize, *replication_factor, *settings)
            })
        }
        Admin::DropCollection { name } => collection(name).is_none(),
        Admin::AlterCollection { name, replication_factor, settings } => collection(name).is_some_and(|it| {
            let stays = replication_factor.is_none_or(|factor| factor == it.replication_factor);
            stays && settings.of(it.settings) == it.settings
        }),
        Admin::RemoveNode { node, .. } => map.nodes.iter().all(|it| it.id != *node),
        Admin::SetNodeState { .. } | Admin::Rebalance => false,
    }
}

/// A change in words, for error messages.
fn what(admin: &Admin) -> String {
    match admin {
        Admin::SetNodeState { node, state } => format!("making node {node} {}", state.as_str()),
        Admin::RemoveNode { node, .. } => format!("removing node {node}"),
        Admin::Rebalance => "rebalancing".to_owned(),
        Admin::CreateCollection { name, .. } => format!("making collection '{name}'"),
        Admin::DropCollection { name } => format!("dropping collection '{name}'"),
        Admin::AlterCollection { name, .. } => format!("altering collection '{name}'"),
    }
}
