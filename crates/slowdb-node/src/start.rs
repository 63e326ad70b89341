//! `start`: run a node until it is told to stop.

use crate::args::StartArgs;
use crate::certs;
use crate::config::StartConfig;
use crate::failure::Failure;
use slowdb_client::{Identity, Role};
use slowdb_net::BindError;
use slowdb_server::{NodeConfig, RunningNode, StartError};
use std::io::IsTerminal;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// `start`
pub(crate) async fn run(args: StartArgs) -> Result<(), Failure> {
    log_to_stderr()?;
    let config = StartConfig::resolve(args)?;
    // The user's own directory is made when it is not there; one that was asked for by name has to exist.
    let identity = match &config.certs {
        Some(dir) => Identity::load(dir, Role::Node)?,
        None => slowdb_net::load_or_create(&certs::default_dir()?, Role::Node)?,
    };
    // Before the node runs, so that no signal is missed.
    let (mut terminate, mut interrupt) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    let (node_id, storage) = (config.node_id.clone(), config.storage_path.clone());
    let node = RunningNode::start(NodeConfig {
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
        identity,
    })
    .await
    .map_err(|error| match &error {
        StartError::Config(_) => Failure::usage(error.to_string()),
        StartError::Storage { .. } => Failure::refused("storage_path", error.to_string()),
        StartError::Bind(BindError::InUse { .. }) => Failure::refused("port_in_use", error.to_string()),
        _ => Failure::node(error.to_string()),
    })?;
    tracing::info!("node {node_id} listening on {} (storage {})", node.address(), storage.display());

    let signal = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        why = node.failed() => return Err(Failure::node(why)),
    };
    tracing::info!("{signal}: handing over and stopping");
    node.shutdown().await.map_err(|error| Failure::node(error.to_string()))?;
    tracing::info!("node {node_id} stopped");
    Ok(())
}

fn on(kind: SignalKind) -> Result<Signal, Failure> {
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
