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
    assert!(NodeConfig { initial_nodes: three, dimension: None, ..good }.check().is_ok());
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
