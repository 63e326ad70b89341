//! A core on its threads, on a disk that fails: what was acknowledged is there, and nothing is acknowledged after
//! a failure.

mod transport_common;

use slowdb_disk::SimDisk;
use slowdb_net::Connector;
use slowdb_repl::driver::{Driver, Stopped};
use slowdb_repl::embed::{AskError, Change, ReplicatorCore};
use slowdb_repl::transport::Transport;
use slowdb_repl::wal::{Wal, WalOptions};
use slowdb_repl::{
    AckLevel, ApplyError, Event, Failure, GroupId, Limits, Member, Membership, NodeId, Now, Part,
    ProposalView, ReplicaId, Replicator, StateMachine,
};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;
use tokio::sync::mpsc as async_mpsc;
use transport_common::{PATIENCE, TestGate, identity};

const GROUP: GroupId = GroupId(1);

/// Remembers every body that was applied.
#[derive(Default)]
struct Journal(Vec<Vec<u8>>);

impl StateMachine for Journal {
    /// How many there are.
    type Outcome = usize;

    fn apply(&mut self, proposal: &ProposalView<'_>) -> Result<usize, ApplyError> {
        if proposal.body == b"poison" {
            return Err(ApplyError("it was poisoned".to_owned()));
        }
        self.0.push(proposal.body.to_vec());
        Ok(self.0.len())
    }

    fn held(&self) -> u64 {
        0
    }
}

/// What the segments take.
fn limits() -> Limits {
    Limits { entry_bytes_max: 512 * 1024, ..Limits::default() }
}

fn options() -> WalOptions {
    WalOptions { segment_bytes: 1 << 20, log_id: 5, ..WalOptions::default() }
}

fn membership(voters: u64) -> Membership {
    let member =
        |id| Member { replica: ReplicaId(id), node: NodeId::new(&format!("node-{id}")), part: Part::Voter };
    Membership::new(GROUP, ReplicaId(1), (1..=voters).map(member).collect())
}

struct Running {
    driver: Driver<ReplicatorCore<Journal>>,
    effects: mpsc::Receiver<Event<usize>>,
    /// A driver whose transport is gone stops.
    _events: async_mpsc::Sender<slowdb_repl::transport::PeerEvent>,
}

fn run(disk: &SimDisk, voters: u64, limits: Limits, connector: &Connector) -> Running {
    let (wal, recovered) = Wal::open(Arc::new(disk.clone()), "wal", options()).expect("the log opens");
    let mut repl = Replicator::new(NodeId::new("node-1"), [1; 16], 3, limits, wal.reader());
    let known = Replicator::<Journal>::memberships(&recovered).expect("sound").remove(&GROUP);
    let opened = match known {
        Some(known) => repl.reopen(known, &recovered, Journal::default()),
        None => repl.create(membership(voters), Journal::default()),
    };
    opened.expect("the group opens");
    let (sender, events) = async_mpsc::channel(16);
    let transport = Transport::start(connector, Arc::new(TestGate::new("node-1")), &[], sender.clone());
    let (effect, effects) = mpsc::channel();
    let perform = move |event| drop(effect.send(event));
    let driver = Driver::start(ReplicatorCore::new(repl), wal, transport, events, perform);
    Running { driver: driver.expect("threads can be started"), effects, _events: sender }
}

impl Running {
    /// Waits until the group is led here.
    fn wait_for_leadership(&self) {
        let own = NodeId::new("node-1");
        loop {
            let event = self.effects.recv_timeout(PATIENCE).expect("a single voter elects itself");
            if matches!(event, Event::Leader { leader: Some(leader), .. } if leader == own) {
                return;
            }
        }
    }

    async fn propose(&self, body: &'static str) -> Result<usize, AskError> {
        let standing = self.driver.commands().propose(GROUP, Change::new(body), PATIENCE).await?;
        Ok(standing.outcome.expect("at quorum it is applied"))
    }

    async fn journal(&self) -> Vec<String> {
        let text = |bytes: &Vec<u8>| String::from_utf8_lossy(bytes).into_owned();
        let look = move |journal: &Journal| journal.0.iter().map(text).collect();
        self.driver.commands().read(GROUP, PATIENCE, look).await.expect("it leads")
    }
}

fn connector() -> (tempfile::TempDir, Connector) {
    let dir = tempfile::tempdir().expect("a directory can be made");
    let connector = Connector::new(&identity(dir.path())).expect("a socket can be opened");
    (dir, connector)
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_sync_nothing_is_acknowledged_and_the_driver_stops() {
    let (_dir, connector) = connector();
    let disk = SimDisk::new();
    let running = run(&disk, 1, limits(), &connector);
    running.wait_for_leadership();
    assert_eq!(running.propose("before").await, Ok(1));

    disk.fail_sync_in(0);
    assert_eq!(running.propose("lost").await, Err(AskError::Stopped));
    let stopped = running.driver.stopped().await;
    let Stopped::LogFailed(why) = &stopped else { panic!("{stopped:?}") };
    assert!(why.contains("sync"), "{why}");
    assert_eq!(running.propose("after").await, Err(AskError::Stopped));
    let commands = running.driver.commands();
    assert!(matches!(commands.view(GROUP).await, Err(AskError::Stopped)));
    let Running { driver, .. } = running;
    assert_eq!(tokio::task::spawn_blocking(|| driver.stop()).await.expect("no panic"), stopped);

    let again = run(&disk, 1, limits(), &connector);
    again.wait_for_leadership();
    let journal = again.journal().await;
    assert_eq!(journal.first().map(String::as_str), Some("before"));
    assert!(!journal.contains(&"after".to_owned()), "{journal:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_a_crash() {
    for seed in 1..=8_u64 {
        let (_dir, connector) = connector();
        let disk = SimDisk::new();
        let running = run(&disk, 1, limits(), &connector);
        running.wait_for_leadership();
        let all = ["one", "two", "three", "four"];
        for (number, body) in (1..).zip(all) {
            assert_eq!(running.propose(body).await, Ok(number), "seed {seed}");
        }
        // The power goes while the driver still runs: what it writes from now on goes nowhere.
        let mut state = seed;
        let mut rng = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        let disk = disk.crash(&mut rng);
        drop(running);
        let again = run(&disk, 1, limits(), &connector);
        again.wait_for_leadership();
        assert_eq!(again.journal().await, all, "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_was_asked_for_keeps_everything() {
    let (_dir, connector) = connector();
    let disk = SimDisk::new();
    let running = run(&disk, 1, limits(), &connector);
    running.wait_for_leadership();
    assert_eq!(running.propose("kept").await, Ok(1));
    let Running { driver, .. } = running;
    assert_eq!(tokio::task::spawn_blocking(|| driver.stop()).await.expect("no panic"), Stopped::Asked);
    let again = run(&disk, 1, limits(), &connector);
    again.wait_for_leadership();
    assert_eq!(again.journal().await, ["kept"]);
}

/// One of two voters is no majority: nothing is led, and whoever asks is told so.
#[tokio::test(flavor = "multi_thread")]
async fn a_minority_answers_nothing() {
    let (_dir, connector) = connector();
    let running = run(&SimDisk::new(), 2, limits(), &connector);
    let not_leader = Err(AskError::Failed(Failure::NotLeader));
    assert_eq!(running.propose("alone").await, not_leader);
    let commands = running.driver.commands();
    assert_eq!(commands.read(GROUP, PATIENCE, |journal| journal.0.len()).await, not_leader);
    let view = commands.view(GROUP).await.expect("it runs").expect("it has a replica");
    assert_eq!((view.leader, view.applied.index), (None, 1), "nothing but what the group began with");
    assert!(commands.view(GroupId(2)).await.expect("it runs").is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_bounded() {
    let (_dir, connector) = connector();
    let limits = Limits { waiting_bytes_max: 8, waiting_per_group_max: 1, ..limits() };
    let running = run(&SimDisk::new(), 1, limits, &connector);
    running.wait_for_leadership();
    assert_eq!(running.propose("123456789").await, Err(AskError::Failed(Failure::Overloaded)));
    assert_eq!(running.propose("12345678").await, Ok(1));
}

/// As above for reads, by hand: on threads they may be answered before the next one comes.
#[test]
fn reads_that_wait_are_bounded() {
    let (wal, _) = Wal::open(Arc::new(SimDisk::new()), "wal", options()).expect("the log opens");
    let limits = Limits { waiting_bytes_max: 8, waiting_per_group_max: 3, ..limits() };
    let mut repl = Replicator::new(NodeId::new("node-1"), [1; 16], 3, limits, wal.reader());
    repl.create(membership(1), Journal::default()).expect("the group opens");
    while !repl.leads(GROUP) {
        let output = repl.flush(Now::default());
        if let Some(batch) = output.batch {
            repl.persisted(batch.number, &[]);
        }
    }
    let ask = |repl: &mut Replicator<Journal>, n| repl.read(GROUP, slowdb_repl::Token(n), u64::MAX);
    for n in 0..3 {
        assert_eq!(ask(&mut repl, n), Ok(()), "read {n}");
    }
    assert_eq!(ask(&mut repl, 3), Err(Failure::Overloaded));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_cannot_go_on_halts_its_group_only() {
    let (_dir, connector) = connector();
    let running = run(&SimDisk::new(), 1, limits(), &connector);
    running.wait_for_leadership();
    assert_eq!(running.propose("fine").await, Ok(1));
    let commands = running.driver.commands();
    let poisoned = commands.propose(GROUP, Change::new("poison"), Duration::from_secs(1)).await;
    assert!(
        matches!(poisoned, Err(AskError::Failed(Failure::LeaderChanged | Failure::Halted))),
        "{poisoned:?}"
    );
    let halted = running.effects.iter().find(|event| matches!(event, Event::Halted { .. }));
    let Some(Event::Halted { why, .. }) = halted else { panic!("it did not say so") };
    assert!(why.contains("poisoned"), "{why}");
    assert_eq!(running.propose("more").await, Err(AskError::Failed(Failure::Halted)));
    let view = commands.view(GROUP).await.expect("the driver goes on").expect("it has a replica");
    assert!(view.halted.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn at_level_one_the_outcome_is_not_known_yet() {
    let (_dir, connector) = connector();
    let running = run(&SimDisk::new(), 1, limits(), &connector);
    running.wait_for_leadership();
    let change = Change { level: AckLevel::One, writes: 3, ..Change::new("x") };
    let standing = running.driver.commands().propose(GROUP, change, PATIENCE).await.expect("it leads");
    assert_eq!((standing.durable_on, standing.members), (1, 1));
    let next = running.driver.commands().propose(GROUP, Change::new("y"), PATIENCE).await.expect("it leads");
    assert!(next.first > standing.first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_core_that_panics_is_reported() {
    let (_dir, connector) = connector();
    let running = run(&SimDisk::new(), 1, limits(), &connector);
    running.wait_for_leadership();
    let stopped = running.driver.stopped();
    let look = |_: &Journal| -> usize { panic!("the core dies, for the test") };
    let read = running.driver.commands().read(GROUP, PATIENCE, look).await;
    assert_eq!(read, Err(AskError::Stopped));
    let why = tokio::time::timeout(PATIENCE, stopped).await.expect("it is told");
    assert!(matches!(why, Stopped::CoreFailed(_)), "{why:?}");
    let Running { driver, .. } = running;
    let why = tokio::task::spawn_blocking(|| driver.stop()).await.expect("stopping goes well");
    assert!(matches!(why, Stopped::CoreFailed(_)), "{why:?}");
}
