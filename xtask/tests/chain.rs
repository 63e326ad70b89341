//! The bare chain really moves and syncs what it is given.

use bytes::Bytes;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use xtask::chain::driver::{Chain, Echo};

#[tokio::test(flavor = "multi_thread")]
async fn writes_reach_the_files_of_all_three_processes() {
    let dir = tempfile::tempdir().expect("a directory");
    let program = Path::new(env!("CARGO_BIN_EXE_xtask"));
    let chain = Chain::start(program, dir.path()).await.expect("three processes start");
    let bodies: Vec<Bytes> = (1..=20).map(|n| Bytes::from(vec![n; 10_000])).collect();
    let (took, _) = chain.write_all(&bodies, 4).await.expect("all are acknowledged");
    assert_eq!(took.len(), bodies.len());
    chain.echo(Echo::Leader).await.expect("the leader answers");
    chain.echo(Echo::LeaderAndPeer).await.expect("the leader asks a peer and answers");

    // The leader has synced all; of the peers, for each write at least one.
    let holds = |n: usize, byte: u8| {
        let mut file = File::open(dir.path().join(format!("chain-{n}"))).expect("its file");
        let mut start = vec![0; 1 << 20];
        file.read_exact(&mut start).expect("it is longer");
        start.windows(10_000).step_by(4_096).any(|window| window.iter().all(|b| *b == byte))
    };
    for byte in 1..=20 {
        assert!(holds(0, byte), "the leader has write {byte}");
        assert!(holds(1, byte) || holds(2, byte), "a peer has write {byte}");
    }
}
