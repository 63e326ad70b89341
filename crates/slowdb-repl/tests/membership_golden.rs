//! The example of a membership in docs/format.md, and bytes that are none.

use slowdb_repl::{GroupId, Member, Membership, NodeId, Part, ReplicaId};

fn hex(bytes: &[u8]) -> String {
    let line = |line: &[u8]| line.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    bytes.chunks(16).map(line).collect::<Vec<_>>().join("\n")
}

/// The example's block in the document.
fn block() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/format.md");
    let text = std::fs::read_to_string(path).expect("the document is there");
    let (_, rest) = text.split_once("```hex membership\n").expect("the document has the example");
    rest.split_once("\n```").expect("the block ends").0.to_owned()
}

fn membership() -> Membership {
    let member = |replica, name, part| Member { replica: ReplicaId(replica), node: NodeId::new(name), part };
    let members = vec![member(1, "ada", Part::Voter), member(2, "bob", Part::Learner)];
    Membership { index: 7, intent: 3, ..Membership::new(GroupId(9), ReplicaId(2), members) }
}

#[test]
fn example() {
    let bytes = membership().encode();
    assert_eq!(block(), hex(&bytes));
    assert_eq!(Membership::decode(&bytes), Some(membership()));
}

#[test]
fn other_bytes_are_no_membership() {
    let bytes = membership().encode();
    for len in 0..bytes.len() {
        assert_eq!(Membership::decode(&bytes[..len]), None, "{len} bytes");
    }
    assert_eq!(Membership::decode(&[&bytes[..], &[0]].concat()), None, "one byte more");
    for (at, to, what) in [
        (8, 0, "its own replica is 0"),
        (44, 0, "a replica 0"),
        (44, 2, "a replica twice"),
        (52, 5, "an unknown part"),
    ] {
        let mut changed = bytes.clone();
        changed[at] = to;
        assert_eq!(Membership::decode(&changed), None, "{what}");
    }
    let mut nobody = bytes.clone();
    nobody[52] = 0;
    assert_eq!(Membership::decode(&nobody), None, "nobody votes");
    let mut name = bytes;
    name[55] = 0xff;
    assert_eq!(Membership::decode(&name), None, "a name that is no text");
}
