//! What a node is not started with.

use super::*;

fn config() -> NodeConfig {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let identity = slowdb_net::load_or_create(&dir.path().join("certs"), slowdb_net::Role::Node);
    NodeConfig {
        node_id: "a".to_owned(),
        storage_path: dir.path().to_owned(),
        dimension: Some(4),
        metric: Metric::Cosine,
        host: "localhost".to_owned(),
        port: 0,
        initial_nodes: Vec::new(),
        num_shards: 16,
        virtual_nodes: 3,
        replication_factor: 3,
        zone: None,
        weight: 1,
        advertise: None,
        join: Vec::new(),
        joined: None,
        node_down_after: std::time::Duration::from_secs(60),
        snapshot_bytes_per_second: NodeConfig::SNAPSHOT_BYTES_PER_SECOND,
        min_free: None,
        scrub_bytes_per_second: NodeConfig::SCRUB_BYTES_PER_SECOND,
        identity: identity.expect("certificates can be made"),
    }
}

fn nodes(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(id, address)| ((*id).to_owned(), (*address).to_owned())).collect()
}

#[test]
fn good_ones_pass() {
    let good = config();
    assert!(good.check().is_ok());
    let three = nodes(&[("a", "localhost:1"), ("b", "[::1]:2"), ("c", "c.example:65535")]);
    assert!(NodeConfig { initial_nodes: three, dimension: None, ..good.clone() }.check().is_ok());
    let joins = NodeConfig {
        join: vec!["a.example:1".to_owned(), "[::1]:2".to_owned()],
        advertise: Some("b.example:3".to_owned()),
        dimension: None,
        weight: 1000,
        ..good
    };
    assert!(joins.check().is_ok());
}

#[test]
fn bad_ones_are_named() {
    let good = config();
    let with = |change: &dyn Fn(&mut NodeConfig)| {
        let mut config = good.clone();
        change(&mut config);
        config.check().expect_err("it makes no sense").to_string()
    };
    assert!(with(&|c| c.node_id = "../up".to_owned()).contains("node id: '../up'"));
    assert!(with(&|c| c.node_id = String::new()).contains("node id: ''"));
    assert!(with(&|c| c.zone = Some("a b".to_owned())).contains("zone: 'a b'"));
    assert!(with(&|c| c.dimension = Some(0)).contains("dimension 0"));
    assert!(with(&|c| c.dimension = Some(65_537)).contains("65537"));
    assert!(with(&|c| c.num_shards = 0).contains("0 shards"));
    assert!(with(&|c| c.num_shards = 4097).contains("4097 shards"));
    assert!(with(&|c| c.virtual_nodes = 0).contains("0 virtual nodes"));
    assert!(with(&|c| c.replication_factor = 6).contains("replication factor 6"));
    assert!(with(&|c| c.weight = 0).contains("weight 0"));
    assert!(with(&|c| c.weight = 1001).contains("weight 1001"));
    for address in ["h", "h:", ":1", "h:0", "h:65536", "h:x"] {
        assert!(with(&|c| c.advertise = Some(address.to_owned())).contains(&format!("'{address}'")));
        assert!(
            with(&|c| c.join = vec!["h:1".to_owned(), address.to_owned()]).contains(address),
            "{address}"
        );
    }
    let both = with(&|c| {
        c.join = vec!["h:1".to_owned()];
        c.initial_nodes = nodes(&[("a", "h:1")]);
    });
    assert!(both.contains("either founds a cluster with others or joins one"));
    let initial = |list: &[(&str, &str)]| with(&|c| c.initial_nodes = nodes(list));
    assert!(initial(&[("b", "h:1")]).contains("node a is not among the initial nodes b"));
    assert!(initial(&[("a", "h:1"), ("a", "h:2")]).contains("node a is twice"));
    let six = [("a", "h:1"), ("b", "h:1"), ("c", "h:1"), ("d", "h:1"), ("e", "h:1"), ("f", "h:1")];
    assert!(initial(&six).contains("6 initial nodes"));
    for address in ["h", "h:", ":1", "h:0", "h:65536", "h:x"] {
        assert!(initial(&[("a", address)]).contains(&format!("'{address}'")), "{address}");
    }
    assert!(initial(&[("a", "h:1"), (".b", "h:1")]).contains("'.b'"));
}

#[test]
fn where_others_find_it() {
    let config = NodeConfig { port: 7001, ..config() };
    assert_eq!(config.address().as_deref(), Some("localhost:7001"));
    let behind = NodeConfig { advertise: Some("out.example:9".to_owned()), ..config.clone() };
    assert_eq!(behind.address().as_deref(), Some("out.example:9"));
    assert_eq!(NodeConfig { port: 0, ..config }.address(), None, "its port is not known yet");
}
