//! What every node says of itself.

use crate::client::Client;
use crate::error::ClientError;
use crate::pool::{Answer, Failure};
use crate::race::Race;
use crate::search::unexpected;
use bytes::Bytes;
use slowdb_proto::{ClusterMap, NodeStatus, Reply, RequestKind};
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
        let map = self.refresh(within).await;
        let mut race = Race::new();
        for (nth, node) in map.nodes.iter().enumerate() {
            let inner = &self.inner;
            race.push(
                async move { (nth, inner.ask(&node.id, RequestKind::Status, Bytes::new(), within).await) },
            );
        }
        let mut reports: Vec<Option<NodeReport>> = vec![None; map.nodes.len()];
        while !race.is_empty() {
            let (nth, outcome) = race.next().await;
            let node = &map.nodes[nth];
            let status = match outcome {
                Ok(Answer { reply: Reply::Status(status), .. }) => Ok(status),
                Ok(Answer { reply: Reply::Error(error), .. }) => Err(ClientError::Refused(error)),
                Ok(Answer { reply, .. }) => Err(unexpected("a question for its status", &reply)),
                Err(Failure::Hopeless(error)) => Err(error),
                Err(Failure::NotSent(reason) | Failure::Unanswered(reason)) => {
                    let address = node.address.clone();
                    let tried = vec![crate::error::Unreached { address, reason }];
                    Err(ClientError::NoNodeReachable { tried })
                }
            };
            let (node, address) = (node.id.clone(), node.address.clone());
            reports[nth] = Some(NodeReport { node, address, status });
        }
        drop(race);
        let nodes = reports.into_iter().flatten().collect();
        ClusterStatus { map, nodes }
    }
}
