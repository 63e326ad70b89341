//! One process of the chain: a peer, or with `--peer` given twice the leader.

use super::{ALPN, CALL_WITHIN, KIND_DONE, KIND_ECHO, KIND_PEER_ECHO, KIND_WRITE, frame, limits};
use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::Args;
use slowdb_net::{
    AcceptLimits, Connection, Endpoint, Frame, Identity, Profile, RecvStream, Role, SendStream, Service,
    read_frame, write_frame,
};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// The file is written in full once and then again and again, as the segments of a log are.
const FILE_BYTES: u64 = 64 << 20;

/// One process of the bare chain; ends when its standard input does.
#[derive(Debug, Args)]
pub struct ChainNodeArgs {
    /// Port to listen on.
    #[arg(long)]
    port: u16,
    /// The file that writes go to.
    #[arg(long)]
    file: PathBuf,
    /// Directory of certificates.
    #[arg(long)]
    certs: PathBuf,
    /// A peer's address; the leader has two.
    #[arg(long)]
    peer: Vec<String>,
}

/// Runs until standard input ends.
pub fn run(args: &ChainNodeArgs) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(async {
        let (ended, end) = oneshot::channel();
        thread::spawn(move || {
            // Any outcome means that the parent is gone or wants an end.
            drop(io::stdin().read_to_end(&mut Vec::new()));
            let _ = ended.send(());
        });
        tokio::select! {
            outcome = serve(args) => outcome,
            _ = end => Ok(()),
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    served
}

struct Node {
    disk: SyncedFile,
    peers: Vec<Connection>,
}

async fn serve(args: &ChainNodeArgs) -> Result<()> {
    let disk = SyncedFile::open(&args.file)?;
    let identity = Identity::load(&args.certs, Role::Node)?;
    let service = Service { alpn: ALPN, profile: Profile::Data, admits_clients: true };
    let target = format!("127.0.0.1:{}", args.port);
    let endpoint = Endpoint::bind(&target, &identity, &[service], AcceptLimits::default()).await?;
    let mut peers = Vec::new();
    for peer in &args.peer {
        peers.push(endpoint.connector().connect(peer, ALPN, Profile::Data, CALL_WITHIN).await?);
    }
    let node = Arc::new(Node { disk, peers });
    while let Some(connection) = endpoint.accept().await {
        let node = Arc::clone(&node);
        tokio::spawn(async move {
            while let Ok((send, recv)) = connection.accept_bi().await {
                let node = Arc::clone(&node);
                tokio::spawn(async move {
                    if let Err(error) = answer(&node, send, recv).await {
                        eprintln!("a request failed: {error:#}");
                    }
                });
            }
        });
    }
    Ok(())
}

async fn answer(node: &Node, mut send: SendStream, mut recv: RecvStream) -> Result<()> {
    let Some(Frame { kind, body, .. }) = read_frame(&mut recv, &limits()).await? else {
        return Ok(());
    };
    match kind {
        KIND_WRITE => write(node, body).await?,
        KIND_ECHO => {}
        KIND_PEER_ECHO => first_of_peers(node, KIND_ECHO, None).await?,
        other => bail!("no request has kind {other}"),
    }
    write_frame(&mut send, frame(KIND_DONE, None), CALL_WITHIN).await?;
    send.finish().context("the stream was given up")
}

async fn write(node: &Node, body: Bytes) -> Result<()> {
    if node.peers.is_empty() {
        return node.disk.append(body).await;
    }
    let (here, there) =
        tokio::join!(node.disk.append(body.clone()), first_of_peers(node, KIND_WRITE, Some(body.clone())),);
    here.and(there)
}

/// Sends to all peers and waits for the first to answer; the others go on.
async fn first_of_peers(node: &Node, kind: u16, body: Option<Bytes>) -> Result<()> {
    let mut calls = JoinSet::new();
    for peer in &node.peers {
        let (peer, request) = (peer.clone(), frame(kind, body.clone()));
        calls.spawn(async move { peer.call(request, &limits(), CALL_WITHIN).await });
    }
    let mut outcome = None;
    while let Some(finished) = calls.join_next().await {
        match finished? {
            Ok(_) => {
                calls.detach_all();
                return Ok(());
            }
            Err(error) => outcome = Some(error),
        }
    }
    Err(outcome.map_or_else(|| anyhow::anyhow!("there are no peers"), anyhow::Error::from))
}

type Append = (Bytes, oneshot::Sender<io::Result<()>>);

/// A file on a thread of its own that syncs after every append.
struct SyncedFile {
    queue: mpsc::Sender<Append>,
}

impl SyncedFile {
    fn open(path: &Path) -> Result<SyncedFile> {
        let file = preallocated(path, FILE_BYTES).with_context(|| format!("{}", path.display()))?;
        let (queue, work) = mpsc::channel::<Append>();
        thread::spawn(move || {
            let mut offset = 0;
            for (bytes, done) in work {
                if offset + bytes.len() as u64 > FILE_BYTES {
                    offset = 0;
                }
                let outcome = file.write_all_at(&bytes, offset).and_then(|()| file.sync_data());
                offset = (offset + bytes.len() as u64).next_multiple_of(4_096);
                // The request may have been given up.
                drop(done.send(outcome));
            }
        });
        Ok(SyncedFile { queue })
    }

    async fn append(&self, bytes: Bytes) -> Result<()> {
        let (done, outcome) = oneshot::channel();
        self.queue.send((bytes, done)).ok().context("the disk thread ended")?;
        Ok(outcome.await.context("the disk thread ended")??)
    }
}

/// A file of that many bytes, each written once and synced.
pub fn preallocated(path: &Path, bytes: u64) -> io::Result<File> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    let zeros = vec![0; 1 << 20];
    let mut offset = 0;
    while offset < bytes {
        file.write_all_at(&zeros, offset)?;
        offset += zeros.len() as u64;
    }
    file.sync_all()?;
    Ok(file)
}
