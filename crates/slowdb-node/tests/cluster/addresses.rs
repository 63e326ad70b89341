//! Nodes that come back at other addresses.

use crate::nodes::{DEADLINE, Nodes, small};
use slowdb_client::WriteOptions;
use xtask::cluster::view;

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_come_back_elsewhere_are_found_there() {
    let (mut nodes, client) = Nodes::start(small(2)).await;
    let put = ["put", "a", "--vector", "1,2"];
    assert_eq!(nodes.cli(&put).exit, 0);
    drop(client);
    // One, which the catalog's leader hears of; then two at once, without whom there is no majority to write it down.
    for moved in [&["n1"][..], &["n2", "n3"]] {
        for node in moved {
            nodes.cluster.kill(node).expect("killed");
        }
        let mut addresses = Vec::new();
        for node in moved {
            addresses.push(nodes.cluster.move_node(node).expect("another port"));
            nodes.cluster.start(node).expect("started");
        }
        let client = view::wait_ready(&nodes.cluster, DEADLINE).await.expect("all are found");
        view::wait_equal(&client, &nodes.cluster, DEADLINE).await.expect("they replicate");
        let catalog = client.newest_map().await.expect("a map");
        for (node, address) in moved.iter().zip(&addresses) {
            let known = catalog.nodes.iter().find(|known| known.id == **node).expect("it is part of it");
            assert_eq!(known.address, *address);
        }
        let written = client.collection("default").put("b", &[3.0, 4.0], &WriteOptions::default()).await;
        assert_eq!(written.expect("written").replicas, 3);
    }
    let read = nodes.cli(&["get", "a", "--consistency", "quorum"]);
    assert_eq!(read.exit, 0, "{read:?}");
}
