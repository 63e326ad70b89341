//! Measures frames over loopback between two processes: megabytes a second on one stream, and round trips.
//!
//! `cargo run --release -p slowdb-net --example throughput [-- MEGABYTES]`

use std::error::Error;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use slowdb_net::{
    AcceptLimits, Connector, Endpoint, FrameLimits, FrameOut, Identity, Profile, Role, Service,
    load_or_create, read_frame, write_frame,
};

const ALPN: &str = "throughput/1";
const WAIT: Duration = Duration::from_secs(20);
const FRAME_LEN: usize = 512 * 1024;
const ECHOES: usize = 10_000;

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [serve, dir] = &args[..]
        && serve == "serve"
    {
        return serve_until_stdin_ends(dir).await;
    }
    let megabytes: usize = args.first().map_or(Ok(2048), |text| text.parse())?;

    let dir = std::env::temp_dir().join(format!("slowdb-throughput-{}", std::process::id()));
    let identity = load_or_create(&dir, Role::Node)?;
    let mut server = Command::new(std::env::current_exe()?)
        .arg("serve")
        .arg(&dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut addr = String::new();
    BufReader::new(server.stdout.take().ok_or("no stdout")?).read_line(&mut addr)?;
    let measured = measure(&identity, addr.trim(), megabytes).await;
    drop(server.stdin.take());
    server.wait()?;
    std::fs::remove_dir_all(&dir)?;
    measured
}

async fn measure(identity: &Identity, addr: &str, megabytes: usize) -> Outcome {
    let connection = Connector::new(identity)?.connect(addr, ALPN, Profile::Data, WAIT).await?;
    let limits = FrameLimits::default();

    let payload = Bytes::from(vec![7_u8; FRAME_LEN]);
    let frames = megabytes * 1_000_000 / FRAME_LEN;
    let (mut send, mut recv) = connection.open_bi(WAIT).await?;
    let start = Instant::now();
    for _ in 0..frames {
        let body = vec![payload.clone()];
        write_frame(&mut send, FrameOut { kind: 1, meta: Bytes::new(), body }, WAIT).await?;
    }
    send.finish()?;
    // The one reply says that everything was read and checked.
    read_frame(&mut recv, &limits).await?.ok_or("no reply")?;
    let rate = (frames * FRAME_LEN) as f64 / 1e6 / start.elapsed().as_secs_f64();
    println!("one stream, frames of {FRAME_LEN} bytes: {rate:.0} MB/s");

    let mut laps = Vec::with_capacity(ECHOES);
    for _ in 0..ECHOES {
        let start = Instant::now();
        let request = FrameOut { kind: 2, meta: Bytes::from_static(b"ping"), body: Vec::new() };
        connection.call(request, &limits, WAIT).await?;
        laps.push(start.elapsed());
    }
    laps.sort_unstable();
    let (half, most) = (laps[ECHOES / 2], laps[ECHOES * 99 / 100]);
    println!("request and reply, one stream each: median {half:.1?}, 99 % within {most:.1?}");
    Ok(())
}

async fn serve_until_stdin_ends(dir: &str) -> Outcome {
    let identity = Identity::load(dir.as_ref(), Role::Node)?;
    let services = [Service { alpn: ALPN, profile: Profile::Data, admits_clients: false }];
    let endpoint = Endpoint::bind("127.0.0.1:0", &identity, &services, AcceptLimits::default()).await?;
    println!("{}", endpoint.local_addrs()[0]);
    std::thread::spawn(|| {
        // The end of the pipe means that the parent is done or dead.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    while let Some(connection) = endpoint.accept().await {
        while let Ok((mut send, mut recv)) = connection.accept_bi().await {
            tokio::spawn(async move {
                while let Some(frame) = read_frame(&mut recv, &FrameLimits::default()).await? {
                    if frame.kind == 2 {
                        let echo = FrameOut { kind: 2, meta: frame.meta, body: vec![frame.body] };
                        write_frame(&mut send, echo, WAIT).await?;
                        return Ok(());
                    }
                }
                write_frame(&mut send, FrameOut::default(), WAIT).await
            });
        }
    }
    Ok(())
}
