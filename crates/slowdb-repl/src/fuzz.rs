//! Hostile bytes for what is read from other nodes and from the log. What the whole core makes of hostile frames is in
//! `tests/core_hostile.rs`, what the log makes of hostile records in `wal/tests/fuzz.rs`.

use crate::engine::wire::{self, FrameBuilder, GroupMessage, Payload};
use crate::entry::tests::on_time;
use crate::entry::{AckLevel, EntryBuilder, EntryView, Late, ProposalHeader};
use crate::ids::{GroupId, Member, Membership, NodeId, Part, ReplicaId};
use crate::links::Stamp;
use crate::note::{Note, Offer, Says, SnapshotPart};
use crate::roll::{Entry as RollEntry, Roll, Word};
use crate::transport::Hello;
use bytes::Bytes;
use raft::eraftpb::{Entry, Message, MessageType};
use slowdb_fuzz::Target;
use slowdb_position::Position;

const CLUSTER: [u8; 16] = [1; 16];

fn membership(members: u64) -> Membership {
    let parts = [Part::Voter, Part::Learner, Part::Entering, Part::Leaving, Part::Demoted];
    let member = |n: u64| Member {
        replica: ReplicaId(n + 1),
        node: NodeId::new(&format!("n{n}")),
        part: parts[n as usize % parts.len()],
    };
    let members = (0..members).map(member).collect();
    Membership { index: 9, incarnation: 4, intent: 2, ..Membership::new(GroupId(7), ReplicaId(1), members) }
}

#[test]
fn fuzz_membership() {
    Target::new("fuzz_membership", [0, 1, 3, 5].map(|members| membership(members).encode())).run(|bytes| {
        let Some(membership) = Membership::decode(bytes) else { return false };
        assert!(membership.is_sound());
        assert_eq!(membership.encode(), bytes, "one encoding for each");
        true
    });
}

fn proposals() -> [(ProposalHeader, &'static [u8]); 2] {
    let on_time = on_time();
    let late = Some(Late { was: Position::new(4, 12, 3), fork: 11 });
    [(on_time, b"on time"), (ProposalHeader { level: AckLevel::One, retry: true, late, ..on_time }, b"")]
}

#[test]
fn fuzz_entry() {
    let mut corpus = vec![EntryBuilder::compare(6, 12)];
    for taken in 1..=4 {
        let mut builder = EntryBuilder::new(6, 0);
        for (header, body) in proposals().iter().cycle().take(taken) {
            builder.push(header, body);
        }
        corpus.push(builder.finish());
    }
    Target::new("fuzz_entry", corpus).run(|bytes| {
        let Ok(entry) = EntryView::parse(8, 20, bytes) else { return false };
        let again = match entry.compares() {
            Some(intent) => EntryBuilder::compare(entry.floor(), intent),
            None => {
                let mut builder = EntryBuilder::new(entry.floor(), bytes.len());
                for proposal in entry.proposals() {
                    assert_eq!(builder.push(&proposal.header, proposal.body), proposal.first.offset);
                }
                builder.finish()
            }
        };
        let again = EntryView::parse(8, 20, &again).expect("it was accepted");
        assert_eq!((again.floor(), again.compares()), (entry.floor(), entry.compares()));
        let parts = |entry: &EntryView<'_>| -> Vec<_> {
            entry.proposals().iter().map(|p| (p.header, p.first, p.body.to_vec())).collect()
        };
        assert_eq!(parts(&again), parts(&entry));
        true
    });
}

#[test]
fn fuzz_overtaken_proposal() {
    let corpus = proposals().map(|(header, body)| {
        let mut bytes = Vec::new();
        EntryBuilder::lay_out(&mut bytes, &header, body);
        bytes
    });
    Target::new("fuzz_overtaken_proposal", corpus).run(|bytes| {
        let Some((header, body)) = EntryBuilder::read_back(bytes) else { return false };
        let mut again = Vec::new();
        EntryBuilder::lay_out(&mut again, &header, body);
        assert_eq!(EntryBuilder::read_back(&again), Some((header, body)));
        true
    });
}

fn consensus() -> Vec<Payload> {
    use MessageType as T;
    let message = |msg_type: MessageType| {
        let mut message = Message::default();
        (message.msg_type, message.from, message.to) = (msg_type, 1, 2);
        (message.term, message.log_term, message.index) = (5, 4, 9);
        (message.commit, message.reject_hint, message.priority) = (8, 7, -1);
        if msg_type == T::MsgHeartbeat || msg_type == T::MsgHeartbeatResponse {
            message.context = Bytes::from_static(&[6; 18]);
        }
        if msg_type == T::MsgAppend {
            let entry = |index: u64, data: &'static [u8]| {
                let mut entry = Entry::default();
                (entry.term, entry.index, entry.data) = (5, index, Bytes::from_static(data));
                entry
            };
            message.entries = vec![entry(10, b"some data"), entry(11, b""), entry(12, &[3; 100])].into();
        }
        Payload::Consensus(message)
    };
    wire::MESSAGE_TYPES.into_iter().map(message).collect()
}

fn notes() -> Vec<Payload> {
    let members = membership(3);
    let offer = Offer { id: 3, index: 8, term: 2, offset: 1, bytes: 1 << 30, digest: [4; 16], members };
    let part = SnapshotPart { number: 2, last: true, body: Bytes::from_static(&[9; 50]) };
    let says = [
        Says::Offer(offer),
        Says::Want { id: 3, part: 2 },
        Says::Part { id: 3, part },
        Says::Gone { id: 3 },
        Says::Digest { index: 8, term: 2, digest: [4; 16] },
        Says::Forward { body: Bytes::from_static(b"told") },
        Says::Overtaken { entry: Bytes::from_static(b"entry") },
        Says::Settled { was: Position::new(1, 2, 3) },
        Says::ReadAsked { context: [8; 16] },
        Says::ReadConfirmed { context: [8; 16], index: 8 },
    ];
    says.map(|says| Payload::Note(Note { from: ReplicaId(1), to: ReplicaId(2), says })).into()
}

fn words() -> Vec<Payload> {
    let stamp = Stamp { tick: 500, quickest: 32 };
    let entry = |commit| RollEntry { from: ReplicaId(1), to: ReplicaId(2), term: 3, commit };
    let roll = Roll::of([(GroupId(9), entry(4)), (GroupId(10), entry(5))].into());
    let sum = roll.sum;
    let answer = Word::Answer { sum, is_known: true, stamp };
    [Word::Roll { roll, stamp }, Word::Call { sum, stamp }, answer].map(Payload::Roll).into()
}

/// Length of the meta part, the meta part, the body.
fn framed(messages: Vec<(GroupId, Payload)>) -> Vec<u8> {
    let mut frame = FrameBuilder::new(CLUSTER);
    messages.into_iter().for_each(|(group, message)| frame.push(group, message));
    let (meta, body, _) = frame.finish();
    [&(meta.len() as u32).to_le_bytes()[..], &meta, &body.concat()].concat()
}

fn unframed(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*len) as usize)
}

#[test]
fn fuzz_peer_frame() {
    let each = consensus().into_iter().chain(notes()).chain(words());
    let mut corpus: Vec<_> = each.map(|message| framed(vec![(GroupId(7), message)])).collect();
    for kind in [consensus(), notes(), words()] {
        corpus.push(framed(kind.into_iter().map(|message| (GroupId(7), message)).collect()));
    }
    corpus.push(framed(Vec::new()));
    Target::new("fuzz_peer_frame", corpus).memory(64 * 1024, 32).run(|bytes| {
        let Some((meta, body)) = unframed(bytes) else { return false };
        let Ok(messages) = wire::decode(CLUSTER, meta, &Bytes::copy_from_slice(body)) else { return false };
        for GroupMessage { message, .. } in &messages {
            let _ = (wire::stamp_of(message), wire::check_entries(message, 50));
        }
        let again = framed(messages.into_iter().map(|one| (one.group, one.message)).collect());
        let (meta, body) = unframed(&again).expect("just laid out");
        let messages = wire::decode(CLUSTER, meta, &Bytes::copy_from_slice(body)).expect("it was accepted");
        assert_eq!(framed(messages.into_iter().map(|one| (one.group, one.message)).collect()), again);
        true
    });
}

/// Behind the checksum of its word.
#[test]
fn fuzz_roll() {
    let entry = |group: u64| [group, 1, 2, 3, group + 4].map(u64::to_le_bytes).concat();
    let corpus = [0_u64, 1, 2, 20].map(|groups| (0..groups).flat_map(entry).collect::<Vec<u8>>());
    let stamp = Stamp { tick: 5, quickest: 6 };
    Target::new("fuzz_roll", corpus).run(|bytes| {
        let mut fields = Word::Call { sum: xxhash_rust::xxh3::xxh3_64(bytes), stamp }.to_fields();
        (fields.kind, fields.body) = (45, Bytes::copy_from_slice(bytes));
        let Ok(word) = Word::from_fields(&fields) else { return false };
        assert_eq!(word.to_fields().body, bytes, "one encoding for each");
        true
    });
}

#[test]
fn fuzz_hello() {
    let hello = |note: &str| {
        let (cluster, storage, instance) = (CLUSTER, [2; 16], 3);
        let (node, to) = (NodeId::new("ada"), NodeId::new("bob"));
        Hello { cluster, storage, instance, node, to, note: note.to_owned() }.encode().to_vec()
    };
    Target::new("fuzz_hello", [hello(""), hello("zone\n3\nlocalhost:8000"), hello(&"ä".repeat(128))]).run(
        |bytes| {
            let Some(hello) = Hello::decode(bytes) else { return false };
            assert_eq!(hello.encode(), bytes, "one encoding for each");
            true
        },
    );
}
