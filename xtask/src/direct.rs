//! A connection to one node that looks for no other one, unlike a client's.

use crate::cluster::Cluster;
use anyhow::{Context, Result};
use slowdb_net::{Connection, Connector, FrameLimits, FrameOut, Identity, Profile, Role};
use slowdb_proto::{ALPN_CLIENT, KIND_REQUEST, Reply, Request, RequestKind, decode_reply, encode_request};
use std::time::Duration;

/// For connecting, and for an answer: requests have times of their own.
const DEADLINE: Duration = Duration::from_secs(60);

/// Speaks with exactly one node.
#[derive(Debug)]
pub struct Direct {
    connection: Connection,
    _connector: Connector,
}

impl Direct {
    /// Connects as a client.
    ///
    /// # Errors
    /// If the cluster has no such node, or the node does not answer within a minute.
    pub async fn to(cluster: &Cluster, node: &str) -> Result<Direct> {
        let identity = Identity::load(&cluster.certs(), Role::Client)?;
        let connector = Connector::new(&identity)?;
        let alpn = std::str::from_utf8(ALPN_CLIENT)?;
        let connection = connector
            .connect(&cluster.address(node)?, alpn, Profile::Client, DEADLINE)
            .await
            .with_context(|| format!("{node} cannot be reached"))?;
        Ok(Direct { connection, _connector: connector })
    }

    /// Asks exactly this node, once. It may try for so long.
    ///
    /// # Errors
    /// If there is no answer within a minute, or it is none.
    pub async fn ask(&self, kind: RequestKind, body: Vec<u8>, timeout: Duration) -> Result<(Reply, Vec<u8>)> {
        let request = Request { cluster: None, timeout_ms: timeout.as_millis() as u32, kind };
        let body = vec![body.into()];
        let frame = FrameOut { kind: KIND_REQUEST, meta: encode_request(&request), body };
        let reply = self.connection.call(frame, &FrameLimits::default(), DEADLINE).await?;
        Ok((decode_reply(&reply.meta)?, reply.body.to_vec()))
    }
}
