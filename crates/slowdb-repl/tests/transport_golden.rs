//! The examples of docs/wire.md, made by the public API; and frames that every reader takes.

use bytes::Bytes;
use slowdb_disk::SimDisk;
use slowdb_repl::wal::{Record, Wal, WalOptions};
use slowdb_repl::{
    AckLevel, ApplyError, EntryView, GroupId, Lane, Limits, Member, Membership, NodeId, Now, Output, Part,
    Position, Proposal, ProposalView, ReplicaId, Replicator, StateMachine, Token,
};
use std::sync::Arc;

/// Takes everything and keeps nothing.
struct Nothing;

impl StateMachine for Nothing {
    type Outcome = ();

    fn apply(&mut self, _proposal: &ProposalView<'_>) -> Result<(), ApplyError> {
        Ok(())
    }

    fn held(&self) -> u64 {
        0
    }
}

fn replicator() -> Replicator<Nothing> {
    let (wal, _) = Wal::open(Arc::new(SimDisk::new()), "wal", WalOptions::default()).expect("the log opens");
    Replicator::new(NodeId::new("ada"), [1; 16], 0, Limits::default(), wal.reader())
}

const GROUP: GroupId = GroupId(9);

fn membership(nodes: &[&str]) -> Membership {
    let member = |(id, node): (u64, &&str)| Member {
        replica: ReplicaId(id),
        node: NodeId::new(node),
        part: Part::Voter,
    };
    Membership::new(GROUP, ReplicaId(1), (1..).zip(nodes).map(member).collect())
}

/// The block of the document that begins with this line.
fn block(head: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/wire.md");
    let text = std::fs::read_to_string(path).expect("the document is there");
    let (_, rest) = text.split_once(&format!("```{head}\n")).unwrap_or_else(|| panic!("no block {head}"));
    rest.split_once("\n```").unwrap_or_else(|| panic!("block {head} does not end")).0.to_owned()
}

fn hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    bytes.chunks(16).map(line).collect::<Vec<_>>().join("\n")
}

/// Flushes until nothing is left to do, with everything durable at once; gives all records.
fn settle(repl: &mut Replicator<Nothing>, now: Now) -> Vec<Record> {
    let mut records = Vec::new();
    while repl.is_dirty() {
        let Output { batch, .. } = repl.flush(now);
        if let Some(batch) = batch {
            repl.persisted(batch.number, &[]);
            records.extend(batch.records);
        }
    }
    records
}

#[test]
fn entry() {
    let mut repl = replicator();
    repl.create(membership(&["ada"]), Nothing).expect("it is new");
    let now = Now { micros: 0, wall_millis: 1 };
    settle(&mut repl, now);
    let proposal = Proposal {
        token: Token(1),
        level: AckLevel::Quorum,
        retry: false,
        writes: 2,
        client: [7; 16],
        sequence: 3,
        body: Bytes::from_static(b"hello"),
        deadline: u64::MAX,
    };
    repl.propose(GroupId(9), proposal).expect("it leads");
    let records = settle(&mut repl, now);
    let entry = records.iter().find_map(|record| match record {
        Record::Entry { data, term, index, .. } => Some((*term, *index, data.clone())),
        _ => None,
    });
    let (term, index, data) = entry.expect("the proposal went to the log");
    assert_eq!(block("hex entry"), hex(&data));

    let view = EntryView::parse(term, index, &data).expect("it follows its own layout");
    let [proposal] = view.proposals() else { panic!("one proposal went in") };
    assert_eq!((proposal.first, proposal.body), (Position::new(term, index, 0), &b"hello"[..]));
    assert_eq!((proposal.header.hlc, proposal.header.origin, proposal.header.writes), (1 << 16, 1, 2));
}

#[test]
fn comparison() {
    let mut repl = replicator();
    repl.create(membership(&["ada"]), Nothing).expect("it is new");
    settle(&mut repl, Now::default());
    assert!(repl.compare_digests(GROUP, 5));
    let records = settle(&mut repl, Now::default());
    let entry = records.iter().find_map(|record| match record {
        Record::Entry { data, kind, .. } => Some((*kind, data.clone())),
        _ => None,
    });
    let (kind, data) = entry.expect("it went to the log");
    assert_eq!((kind, block("hex comparison")), (0, hex(&data)));
    let view = EntryView::parse(2, 3, &data).expect("it follows its own layout");
    assert_eq!((view.compares(), view.proposals().len()), (Some(5), 0));
    for len in 0..data.len() {
        assert!(EntryView::parse(2, 3, &data[..len]).is_err(), "{len} bytes");
    }
    assert!(EntryView::parse(2, 3, &[&data[..], &[0]].concat()).is_err(), "one byte more");
}

/// Whatever is cut off or put behind, it is no entry any more.
#[test]
fn entries_of_another_length_are_refused() {
    let bytes: Vec<u8> = block("hex entry")
        .split_whitespace()
        .map(|byte| u8::from_str_radix(byte, 16).expect("the document holds hex"))
        .collect();
    assert!(EntryView::parse(1, 1, &bytes).is_ok());
    for len in 0..bytes.len() {
        assert!(EntryView::parse(1, 1, &bytes[..len]).is_err(), "{len} bytes");
    }
    for more in 1..200 {
        let longer = [&bytes[..], &vec![0; more]].concat();
        assert!(EntryView::parse(1, 1, &longer).is_err(), "{more} bytes more");
    }
    let mut unknown = bytes.clone();
    unknown[0] = 3;
    let error = EntryView::parse(4, 7, &unknown).expect_err("a format of the future").to_string();
    assert!(error.contains("4.7") && error.contains("format"), "{error}");
    let mut level = bytes;
    level[16] = 3;
    assert!(EntryView::parse(1, 1, &level).is_err(), "a level that there is not");
}

#[test]
fn message() {
    let mut repl = replicator();
    repl.create(membership(&["ada", "bob"]), Nothing).expect("it is new");
    let output = repl.flush(Now::default());
    let [frame] = &output.messages[..] else { panic!("one frame asks for a vote: {:?}", output.messages) };
    assert_eq!((frame.to.as_str(), frame.lane), ("bob", Lane::Control));
    assert!(frame.body.is_empty());
    assert_eq!(block("hex message"), hex(&frame.meta));
}

#[test]
fn note() {
    let mut repl = replicator();
    let members = membership(&["cyd", "ada", "bob"]);
    repl.create(Membership { own: ReplicaId(2), ..members }, Nothing).expect("it is new");
    settle(&mut repl, Now::default());
    // A heartbeat of replica 3 in term 2, by hand: it leads.
    let mut heartbeat = vec![1; 16];
    heartbeat.extend_from_slice(&1_u64.to_le_bytes());
    for word in [9, 3, 2, 2, 0, 0, 1, 0, 0, 0_u64] {
        heartbeat.extend_from_slice(&word.to_le_bytes());
    }
    heartbeat.extend_from_slice(&[8, 0, 0, 0, 0, 0, 0, 0]);
    repl.receive(&NodeId::new("bob"), &heartbeat, &Bytes::new()).expect("it is laid out as documented");
    settle(&mut repl, Now::default());
    assert!(repl.forward(GROUP, Bytes::from_static(b"please")));
    let output = repl.flush(Now::default());
    let [frame] = &output.messages[..] else { panic!("one frame for the leader: {:?}", output.messages) };
    assert_eq!((frame.to.as_str(), frame.lane), ("bob", Lane::Control));
    assert_eq!((block("hex note"), &frame.body.concat()[..]), (hex(&frame.meta), &b"please"[..]));
}

/// Any frame that is not just so is refused as a whole, without a panic.
#[test]
fn malformed_messages_are_refused() {
    let mut sender = replicator();
    sender.create(membership(&["ada", "bob"]), Nothing).expect("it is new");
    let good = sender.flush(Now::default()).messages.remove(0).meta;
    let ada = NodeId::new("ada");
    let receiver = || {
        let mut repl = replicator();
        let own = Membership { own: ReplicaId(2), ..membership(&["ada", "bob"]) };
        repl.create(own, Nothing).expect("it is new");
        settle(&mut repl, Now::default());
        repl
    };
    let empty = Bytes::new();
    assert_eq!(receiver().receive(&ada, &good, &empty), Ok(()));
    for len in 0..good.len() {
        assert!(receiver().receive(&ada, &good[..len], &empty).is_err(), "{len} bytes");
    }
    assert!(receiver().receive(&ada, &[&good[..], &[0]].concat(), &empty).is_err(), "one byte more");
    assert!(receiver().receive(&ada, &good, &Bytes::from_static(b"x")).is_err(), "a body without entries");
    let changed = |at: usize, to: u8| {
        let mut bytes = good.to_vec();
        bytes[at] = to;
        bytes
    };
    let cases = [
        (0, 2, "another cluster"),
        (24 + 80, 2, "a forwarded proposal"),
        (24 + 80, 0, "a local message"),
        (24 + 80, 15, "a forwarded read"),
        (24 + 80, 7, "a snapshot"),
        (24 + 80, 200, "no type at all"),
        (24 + 82, 65, "a context too long"),
        (24 + 84, 1, "an entry in a vote"),
    ];
    for (at, to, what) in cases {
        assert!(receiver().receive(&ada, &changed(at, to), &empty).is_err(), "{what}");
    }

    // Well formed, but not from who may say it: without effect.
    let mut repl = receiver();
    assert_eq!(repl.receive(&NodeId::new("mallory"), &good, &empty), Ok(()));
    assert!(repl.flush(Now::default()).messages.is_empty(), "a stranger's vote is not answered");
    assert_eq!(repl.receive(&ada, &good, &empty), Ok(()));
    assert_eq!(repl.flush(Now::default()).messages.len(), 1, "a member's is");
}

/// However many groups have something to say in one turn, no frame is larger than a reader takes.
#[test]
fn control_frames_stay_within_what_readers_take() {
    const META_BYTES_MAX: usize = 1 << 20;
    let groups = 13_000;
    let mut repl = replicator();
    for id in 0..groups {
        let membership = Membership { group: GroupId(id), own: ReplicaId(1), ..membership(&["ada", "bob"]) };
        repl.create(membership, Nothing).expect("it is new");
    }
    let messages = repl.flush(Now::default()).messages;
    let sizes: Vec<usize> = messages.iter().map(|frame| frame.meta.len()).collect();
    assert!(sizes.iter().sum::<usize>() > META_BYTES_MAX, "else this shows nothing: {sizes:?}");
    assert!(sizes.iter().all(|size| *size <= META_BYTES_MAX), "{sizes:?}");
    let count = |frame: &slowdb_repl::Outgoing| {
        u64::from(u32::from_le_bytes([frame.meta[16], frame.meta[17], frame.meta[18], frame.meta[19]]))
    };
    assert_eq!(messages.iter().map(count).sum::<u64>(), groups, "and none is lost");
}
