//! `start`: run a node until it is told to stop.

use crate::args::StartArgs;
use crate::certs;
use crate::config::StartConfig;
use crate::failure::Failure;
use crate::output::Output;
use serde::Serialize;
use slowdb_client::{Identity, Role};
use slowdb_net::BindError;
use slowdb_server::{NodeConfig, RunningNode, StartError};
use std::io::IsTerminal;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// How long a node tries to become part of a cluster.
const JOIN_WITHIN: Duration = Duration::from_secs(60);

/// What is printed when the node listens.
#[derive(Serialize)]
struct Listening {
    node: String,
    address: String,
    storage_path: String,
}

/// `start`
pub(crate) async fn run(args: StartArgs, output: Output) -> Result<(), Failure> {
    log_to_stderr()?;
    let config = StartConfig::resolve(args)?;
    // The user's own directory is made when it is not there; one that was asked for by name has to exist.
    let identity = match &config.certs {
        Some(dir) => Identity::load(dir, Role::Node)?,
        None => slowdb_net::load_or_create(&certs::default_dir()?, Role::Node)?,
    };
    // Before the node runs, so that no signal is missed.
    let (mut terminate, mut interrupt) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    let (node_id, storage_path) = (config.node_id.clone(), config.storage_path.display().to_string());
    let mut node_config = NodeConfig {
        node_id: config.node_id,
        storage_path: config.storage_path,
        dimension: config.dimension,
        metric: config.metric,
        host: config.host,
        port: config.port,
        initial_nodes: config.initial_nodes,
        num_shards: config.num_shards,
        virtual_nodes: config.virtual_nodes,
        replication_factor: config.replication_factor,
        zone: config.zone,
        join: config.join,
        joined: None,
        advertise: config.advertise,
        weight: config.weight,
        node_down_after: config.node_down_after,
        snapshot_bytes_per_second: config.snapshot_bytes_per_second,
        min_free: config.min_free,
        scrub_bytes_per_second: config.scrub_bytes_per_second,
        identity,
    };
    if let Some(request) = RunningNode::joining(&node_config).map_err(|error| start_failure(&error))? {
        let at = node_config.join.join(", ");
        tracing::info!("asking to join the cluster at {at}, for at most {} s", JOIN_WITHIN.as_secs());
        let asked = slowdb_client::join(&node_config.join, &node_config.identity, request, JOIN_WITHIN);
        let joined = tokio::select! {
            joined = asked => joined?,
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        };
        tracing::info!(cluster = %joined.cluster, nodes = joined.nodes.len(), "joined");
        node_config.joined = Some(joined);
    }
    let node = RunningNode::start(node_config).await.map_err(|error| start_failure(&error))?;
    let listening = Listening { node: node_id.clone(), address: node.address().to_string(), storage_path };
    let human =
        |l: &Listening| format!("node {} listening on {} (storage {})", l.node, l.address, l.storage_path);
    // A node is not stopped because nobody reads what it prints.
    if let Err(failure) = output.print(&listening, human) {
        tracing::warn!("{}: {}", human(&listening), failure.message);
    }

    let signal = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        why = node.failed() => return Err(Failure::node(why)),
    };
    tracing::info!("{signal}: handing over and stopping");
    node.shutdown_to_exit().await.map_err(|error| Failure::node(error.to_string()))?;
    tracing::info!("node {node_id} stopped");
    Ok(())
}

fn start_failure(error: &StartError) -> Failure {
    match error {
        StartError::Config(_) => Failure::usage(error.to_string()),
        StartError::Storage { .. } => Failure::refused("storage_path", error.to_string()),
        StartError::Bind(BindError::InUse { .. }) => Failure::refused("port_in_use", error.to_string()),
        _ => Failure::node(error.to_string()),
    }
}

/// A signal to this process; it does not end it any more.
pub(crate) fn on(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| Failure::internal(format!("cannot listen for signals: {error}")))
}

fn log_to_stderr() -> Result<(), Failure> {
    let filter = match std::env::var("SLOWDB_LOG") {
        Ok(text) => EnvFilter::try_new(&text).map_err(|error| {
            Failure::usage(format!("SLOWDB_LOG is '{text}', which is no filter: {error}"))
        })?,
        Err(_) => EnvFilter::new("info"),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .try_init()
        .map_err(|error| Failure::internal(format!("cannot set up the log: {error}")))
}
