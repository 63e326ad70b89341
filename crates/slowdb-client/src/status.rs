//! What every node says of itself.

use crate::client::Client;
use crate::error::{ClientError, Unreached};
use crate::pool::Failure;
use crate::race::Race;
use crate::search::unexpected;
use bytes::Bytes;
use slowdb_proto::{ClusterMap, NodeInfo, NodeStatus, Reply, RequestKind};
use std::time::Duration;

/// The cluster as its nodes see it.
#[derive(Clone, Debug)]
pub struct ClusterStatus {
    /// The newest map, with the newest leaders that were heard of.
    pub map: ClusterMap,
    /// Every node of the map, in its order.
    pub nodes: Vec<NodeReport>,
}

/// What came of asking one node.
#[derive(Clone, Debug)]
pub struct NodeReport {
    /// The node.
    pub node: String,
    /// Where it is.
    pub address: String,
    /// Its own view, or why there is none.
    pub status: Result<Box<NodeStatus>, ClientError>,
}

impl Client {
    /// Asks every node how it is. One that does not answer is reported as such, and fails nothing.
    pub async fn status(&self, within: Duration) -> ClusterStatus {
        let nodes = self.inner.read_routes().map().nodes.clone();
        let mut race = Race::new();
        for (nth, node) in nodes.iter().enumerate() {
            race.push(async move { (nth, self.ask_status(&node.id, &node.address, within).await) });
        }
        let mut answers: Vec<Option<_>> = nodes.iter().map(|_| None).collect();
        while !race.is_empty() {
            let (nth, answer) = race.next().await;
            answers[nth] = Some(answer);
        }
        drop(race);
        let report = |(node, status): (NodeInfo, Option<_>)| {
            Some(NodeReport { node: node.id, address: node.address, status: status? })
        };
        let nodes = nodes.into_iter().zip(answers).filter_map(report).collect();
        ClusterStatus { map: self.map(), nodes }
    }

    /// Asks one node of the map how it is.
    ///
    /// # Errors
    /// [`ClientError::NoNodeReachable`] if it is in no map that this client knows, or did not answer;
    /// [`ClientError::Refused`]; [`ClientError::BadReply`].
    pub async fn node_status(&self, node: &str, within: Duration) -> Result<Box<NodeStatus>, ClientError> {
        let address = self.inner.read_routes().address(node).unwrap_or(node).to_owned();
        self.ask_status(node, &address, within).await
    }

    /// A node's status, after its map: a node that is gone is waited for once.
    async fn ask_status(
        &self,
        node: &str,
        address: &str,
        within: Duration,
    ) -> Result<Box<NodeStatus>, ClientError> {
        let unreached = |failure| match failure {
            Failure::Hopeless(error) => error,
            Failure::NotSent(reason) | Failure::Unanswered(reason) => {
                let tried = vec![Unreached { address: address.to_owned(), reason }];
                ClientError::NoNodeReachable { tried }
            }
        };
        let inner = &self.inner;
        let map = inner.ask(node, RequestKind::Map, Bytes::new(), within).await.map_err(unreached)?;
        if let Reply::Map(map) = map.reply
            && map.cluster == inner.cluster
        {
            inner.learn(|routes| routes.learn_map(map));
        }
        let status = inner.ask(node, RequestKind::Status, Bytes::new(), within).await.map_err(unreached)?;
        match status.reply {
            Reply::Status(status) => Ok(status),
            Reply::Error(error) => Err(ClientError::Refused(error)),
            other => Err(inner.bad_reply(node, unexpected("a question for its status", &other))),
        }
    }
}
