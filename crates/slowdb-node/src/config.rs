//! The configuration of a node: flags over the file over the defaults.

use crate::args::{StartArgs, duration, initial_node, rate, scrub_rate, size};
use crate::failure::Failure;
use serde::Deserialize;
use slowdb_proto::{Metric, check_name};
use slowdb_server::NodeConfig;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Silence after which a node's replicas are rebuilt on others.
const NODE_DOWN_AFTER: Duration = Duration::from_secs(30);

/// All that `start` needs to know.
#[derive(Debug, PartialEq)]
pub(crate) struct StartConfig {
    pub(crate) node_id: String,
    pub(crate) storage_path: PathBuf,
    pub(crate) dimension: Option<u32>,
    pub(crate) metric: Metric,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) initial_nodes: Vec<(String, String)>,
    pub(crate) num_shards: u32,
    pub(crate) virtual_nodes: u32,
    pub(crate) replication_factor: u32,
    pub(crate) zone: Option<String>,
    pub(crate) join: Vec<String>,
    pub(crate) advertise: Option<String>,
    pub(crate) weight: u32,
    pub(crate) node_down_after: Duration,
    pub(crate) snapshot_bytes_per_second: u64,
    pub(crate) min_free: Option<u64>,
    pub(crate) scrub_bytes_per_second: u64,
    pub(crate) certs: Option<PathBuf>,
}

/// The file: the names of the flags, all optional, nothing else.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    node_id: Option<String>,
    storage_path: Option<PathBuf>,
    dimension: Option<u32>,
    metric: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    initial_nodes: Option<Nodes>,
    num_shards: Option<u32>,
    virtual_nodes: Option<u32>,
    replication_factor: Option<u32>,
    zone: Option<String>,
    join: Option<Addresses>,
    advertise: Option<String>,
    weight: Option<u32>,
    node_down_after: Option<String>,
    snapshot_rate: Option<Bytes>,
    min_free: Option<Bytes>,
    scrub_rate: Option<Bytes>,
    certs: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Bytes {
    Number(u64),
    Text(String),
}

impl Bytes {
    fn read(self, parse: impl Fn(&str) -> Result<u64, String>) -> Result<u64, Failure> {
        let text = match self {
            Bytes::Number(bytes) => bytes.to_string(),
            Bytes::Text(text) => text,
        };
        parse(&text).map_err(Failure::usage)
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Addresses {
    Text(String),
    List(Vec<String>),
}

impl Addresses {
    fn read(self) -> Vec<String> {
        match self {
            Addresses::Text(text) => text.split(',').map(|address| address.trim().to_owned()).collect(),
            Addresses::List(list) => list,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Nodes {
    Text(String),
    List(Vec<String>),
}

impl StartConfig {
    /// Merges flags and file.
    pub(crate) fn resolve(args: StartArgs) -> Result<StartConfig, Failure> {
        let file = match &args.config {
            Some(path) => read(path)?,
            None => File::default(),
        };
        let missing = |name: &str| {
            Failure::usage(format!("--{name} is missing; give it, or {name} = … in the file of --config"))
        };
        let wrong = |message: String| Failure::usage(message);
        let checked = |text: Option<String>| match text {
            Some(text) => check_name(&text).map(|()| Some(text)).map_err(|e| Failure::usage(e.to_string())),
            None => Ok(None),
        };
        let metric = match (args.metric, &file.metric) {
            (Some(metric), _) => metric,
            (None, Some(text)) => text.parse().map_err(wrong)?,
            (None, None) => Metric::default(),
        };
        let initial_nodes = match (args.initial_nodes, file.initial_nodes) {
            (Some(nodes), _) => nodes,
            (None, Some(nodes)) => nodes.read()?,
            (None, None) => Vec::new(),
        };
        let node_down_after = match (args.node_down_after, &file.node_down_after) {
            (Some(time), _) => time,
            (None, Some(text)) => duration(text).map_err(wrong)?,
            (None, None) => NODE_DOWN_AFTER,
        };
        let snapshot_bytes_per_second = match (args.snapshot_rate, file.snapshot_rate) {
            (Some(rate), _) => rate,
            (None, Some(bytes)) => bytes.read(rate)?,
            (None, None) => NodeConfig::SNAPSHOT_BYTES_PER_SECOND,
        };
        let min_free = match (args.min_free, file.min_free) {
            (Some(bytes), _) => Some(bytes),
            (None, Some(bytes)) => Some(bytes.read(size)?),
            (None, None) => None,
        };
        let scrub_bytes_per_second = match (args.scrub_rate, file.scrub_rate) {
            (Some(rate), _) => rate,
            (None, Some(bytes)) => bytes.read(scrub_rate)?,
            (None, None) => NodeConfig::SCRUB_BYTES_PER_SECOND,
        };
        let dimension = args.dimension.or(file.dimension);
        let join = args.join.or(file.join.map(Addresses::read)).unwrap_or_default();
        if !join.is_empty() && !initial_nodes.is_empty() {
            return Err(Failure::usage(
                "join and initial-nodes exclude each other: a node either founds a new cluster together with \
                 others, or joins one that is there",
            ));
        }
        if !join.is_empty() && dimension.is_some() {
            return Err(Failure::usage(
                "join and dimension exclude each other: a cluster that is joined has its collections already; \
                 make another one with 'slowdb-node collections create'",
            ));
        }
        Ok(StartConfig {
            join,
            advertise: args.advertise.or(file.advertise),
            weight: args.weight.or(file.weight).unwrap_or(1),
            node_down_after,
            snapshot_bytes_per_second,
            min_free,
            scrub_bytes_per_second,
            node_id: args.node_id.or(checked(file.node_id)?).ok_or_else(|| missing("node-id"))?,
            storage_path: args.storage_path.or(file.storage_path).ok_or_else(|| missing("storage-path"))?,
            dimension,
            metric,
            host: args.host.or(file.host).unwrap_or_else(|| "localhost".to_owned()),
            port: args.port.or(file.port).unwrap_or(8000),
            initial_nodes,
            num_shards: args.num_shards.or(file.num_shards).unwrap_or(16),
            virtual_nodes: args.virtual_nodes.or(file.virtual_nodes).unwrap_or(3),
            replication_factor: args.replication_factor.or(file.replication_factor).unwrap_or(3),
            zone: args.zone.or(checked(file.zone)?),
            certs: args.certs.or(file.certs),
        })
    }
}

impl Nodes {
    fn read(self) -> Result<Vec<(String, String)>, Failure> {
        let texts = match self {
            Nodes::Text(text) => text.split(',').map(|node| node.trim().to_owned()).collect(),
            Nodes::List(list) => list,
        };
        let nodes: Result<_, String> = texts.iter().map(|text| initial_node(text)).collect();
        nodes.map_err(|error| Failure::usage(format!("initial-nodes: {error}")))
    }
}

fn read(path: &Path) -> Result<File, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))?;
    toml::from_str(&text).map_err(|error| Failure::usage(format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser;

    fn resolve(file: Option<&str>, flags: &[&str]) -> Result<StartConfig, Failure> {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("node.toml");
        let mut words = vec!["slowdb-node", "start"];
        words.extend(flags);
        if let Some(text) = file {
            std::fs::write(&path, text).expect("written");
            words.extend(["--config", path.to_str().expect("a name")]);
        }
        let cli = Cli::try_parse_from(words).expect("good flags");
        let Command::Start(args) = cli.command else { panic!("{cli:?}") };
        StartConfig::resolve(args)
    }

    #[test]
    fn flags_override_the_file_and_the_file_the_defaults() {
        let file =
            "node-id = 'a'\nstorage-path = '/x'\nport = 1\nnum-shards = 4\ninitial-nodes = 'a=h:1,b=h:2'";
        let config = resolve(Some(file), &["--port", "2", "--zone", "z"]).expect("good");
        assert_eq!((config.node_id.as_str(), config.port, config.num_shards), ("a", 2, 4));
        assert_eq!((config.host.as_str(), config.replication_factor), ("localhost", 3));
        assert_eq!(config.initial_nodes, [("a".into(), "h:1".into()), ("b".into(), "h:2".into())]);
        let list = "node-id = 'a'\nstorage-path = '/x'\ninitial-nodes = ['a=h:1', 'b=h:2']";
        assert_eq!(resolve(Some(list), &[]).expect("good").initial_nodes, config.initial_nodes);
    }

    #[test]
    fn a_node_joins_from_flags_or_file_and_then_founds_nothing() {
        let good = "node-id = 'a'\nstorage-path = '/x'\n";
        let config = resolve(Some(good), &[]).expect("good");
        assert_eq!((config.join.len(), config.advertise, config.weight), (0, None, 1));
        let flags = ["--join", "h:1,i:2", "--advertise", "there:9", "--weight", "3"];
        let config = resolve(Some(good), &flags).expect("good");
        assert_eq!((&config.join[..], config.weight), (&["h:1".to_owned(), "i:2".to_owned()][..], 3));
        assert_eq!(config.advertise.as_deref(), Some("there:9"));
        for join in ["join = 'h:1, i:2'", "join = ['h:1', 'i:2']"] {
            let file = format!("{good}{join}\nadvertise = 'there:9'\nweight = 3\n");
            assert_eq!(resolve(Some(&file), &[]).expect("good"), config, "{join}");
        }
        let file = format!("{good}join = 'h:1'");
        for (flags, wanted) in [
            (["--initial-nodes", "a=h:1"], "founds a new cluster"),
            (["--dimension", "3"], "has its collections already"),
        ] {
            let failure = resolve(Some(&file), &flags).expect_err(wanted);
            assert!(failure.message.contains(wanted), "{}", failure.message);
            assert_eq!(failure.exit, 2);
        }
    }

    #[test]
    fn the_pace_of_snapshots_is_from_flags_or_file() {
        let good = "node-id = 'a'\nstorage-path = '/x'\n";
        let of = |line: &str, flags: &[&str]| {
            let config = resolve(Some(&format!("{good}{line}")), flags).expect("good");
            config.snapshot_bytes_per_second
        };
        assert_eq!(of("", &[]), 64 << 20);
        assert_eq!(of("snapshot-rate = '8MiB'", &[]), 8 << 20);
        assert_eq!(of("snapshot-rate = 1000", &[]), 1_000);
        assert_eq!(of("snapshot-rate = '8MiB'", &["--snapshot-rate", "unlimited"]), u64::MAX);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let good = "node-id = 'a'\nstorage-path = '/x'\n";
        for (file, wanted) in [
            ("nodeid = 'a'".to_owned(), "nodeid"),
            ("node-id = 'a'".to_owned(), "--storage-path is missing"),
            ("storage-path = '/x'".to_owned(), "--node-id is missing"),
            (format!("{good}port = 70000"), "70000"),
            (format!("{good}metric = 'round'"), "'round'"),
            (format!("{good}snapshot-rate = 'fast'"), "'fast'"),
            (format!("{good}snapshot-rate = 0"), "say unlimited"),
            (format!("{good}zone = 'a b'"), "'a b'"),
            (format!("{good}initial-nodes = 'a'"), "'a' is not ID=HOST:PORT"),
            ("node-id = '../a'\nstorage-path = '/x'".to_owned(), "'../a'"),
            ("=".to_owned(), "node.toml"),
        ] {
            let failure = resolve(Some(&file), &[]).expect_err(wanted);
            assert!(failure.message.contains(wanted), "'{}' should say '{wanted}'", failure.message);
            assert_eq!(failure.exit, 2);
        }
    }
}
