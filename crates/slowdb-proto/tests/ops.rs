//! The layout of write batches: golden bytes, limits, and bytes from anywhere.

use proptest::prelude::*;
use slowdb_fuzz::Target;
use slowdb_proto::limits::{BATCH_BYTES_MAX, BATCH_WRITES_MAX, ID_BYTES_MAX, PAYLOAD_BYTES_MAX};
use slowdb_proto::{Condition, Op, Ops, OpsBuilder, OpsError, Position};

/// The example of the format, byte by byte: a change here is a change of the log on disk.
const GOLDEN: [u8; 40] = [
    1, 0, 3, 0, 2, 0, 0, 0, 4, 0, 0, 0, // put, no condition, id 3, payload 2, vector 4
    b'c', b'a', b't', 0, // id, padded
    0, 0, 0x80, 0x3f, // 1.0
    b'h', b'i', 0, 0, // payload, padded
    2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, // delete, id 1
    b'x', 0, 0, 0, // id, padded
];

#[test]
fn the_layout_is_what_the_format_says() {
    let mut builder = OpsBuilder::new();
    builder.put("cat", &[1.0], b"hi").expect("good");
    assert_eq!(builder.len(), OpsBuilder::put_bytes("cat", 1, 2));
    builder.delete("x").expect("good");
    assert_eq!(builder.writes(), 2);
    assert_eq!(builder.finish(), GOLDEN);

    let ops = Ops::check(&GOLDEN, 1).expect("good");
    assert_eq!(ops.writes(), 2);
    let all: Vec<Op<'_>> = ops.iter().collect();
    let vector = 1.0f32.to_le_bytes();
    let condition = None;
    assert_eq!(
        all,
        [
            Op::Put { id: "cat", vector: &vector, payload: b"hi", condition },
            Op::Delete { id: "x", condition }
        ]
    );
}

#[test]
fn a_condition_stands_between_id_and_vector() {
    let version = Condition::IfVersion(Position { term: 2, index: 7, offset: 1 });
    let mut builder = OpsBuilder::new();
    builder.put_if("a", &[1.0], b"p", Some(version)).expect("good");
    builder.delete_if("b", Some(version)).expect("good");
    builder.put_if("c", &[1.0], b"", Some(Condition::IfAbsent)).expect("good");
    assert_eq!((builder.len(), builder.writes()), (100, 3));
    let bytes = builder.finish();
    let position = [2, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
    assert_eq!(bytes[..16], [1, 1, 1, 0, 1, 0, 0, 0, 4, 0, 0, 0, b'a', 0, 0, 0]);
    assert_eq!(bytes[16..36], position);
    assert_eq!(bytes[36..44], [0, 0, 0x80, 0x3f, b'p', 0, 0, 0]);
    assert_eq!(bytes[44..60], [2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, b'b', 0, 0, 0]);
    assert_eq!(bytes[60..80], position);
    assert_eq!(bytes[80..84], [1, 2, 1, 0]);
    let ops = Ops::check(&bytes, 1).expect("good");
    let conditions: Vec<_> = ops.iter().map(|op| (op.id(), op.condition())).collect();
    assert_eq!(conditions, [("a", Some(version)), ("b", Some(version)), ("c", Some(Condition::IfAbsent))]);
    assert!(Ops::check_layout(&bytes[..70]).is_err(), "it ends inside the version");
}

#[test]
fn resolutions_of_conflicts_name_their_entry() {
    let entry = Position { term: 2, index: 7, offset: 1 };
    let mut builder = OpsBuilder::new();
    builder.replay("a", entry, false).expect("good");
    builder.discard("bcdef", entry).expect("good");
    builder.replay("a", entry, true).expect("good");
    assert_eq!((builder.len(), builder.writes()), (112, 3));
    let bytes = builder.finish();
    let position = [2, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0];
    assert_eq!(bytes[..16], [3, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, b'a', 0, 0, 0]);
    assert_eq!(bytes[16..36], position);
    assert_eq!(bytes[36..44], [4, 0, 5, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[56..76], position);
    assert_eq!(bytes[76..78], [3, 3]);
    let ops = Ops::check(&bytes, 1).expect("good");
    let all: Vec<Op<'_>> = ops.iter().collect();
    let replay = |anyway| Op::Replay { id: "a", entry, anyway };
    assert_eq!(all, [replay(false), Op::Discard { id: "bcdef", entry }, replay(true)]);
    assert!(all.iter().all(Op::depends));
    for (at, byte) in [(1, 1), (1, 2), (4, 4), (8, 4)] {
        let mut bytes = bytes[..36].to_vec();
        bytes[at] = byte;
        bytes.extend([0; 4]);
        assert!(Ops::check_layout(&bytes).is_err(), "neither condition nor value: {at} is {byte}");
    }
    assert!(Ops::check_layout(&bytes[..32]).is_err(), "it ends inside the position");
    let mut discard = bytes[36..76].to_vec();
    discard[1] = 3;
    assert!(Ops::check_layout(&discard).is_err(), "there is nothing to discard anyway");
}

fn golden_with(changes: &[(usize, u8)]) -> Vec<u8> {
    let mut bytes = GOLDEN.to_vec();
    changes.iter().for_each(|(at, byte)| bytes[*at] = *byte);
    bytes
}

#[test]
fn what_is_wrong_is_named() {
    let cases: [(Vec<u8>, &str); 12] = [
        (vec![], "the batch is empty"),
        (GOLDEN[..11].to_vec(), "write 0: it ends inside a header"),
        (GOLDEN[..20].to_vec(), "write 0: it is longer than what is left"),
        (GOLDEN[..30].to_vec(), "write 1: it ends inside a header"),
        (golden_with(&[(0, 6)]), "write 0: its kind is unknown"),
        (golden_with(&[(1, 3)]), "write 0: its condition is unknown"),
        (golden_with(&[(2, 0)]), "write 0: the id is empty"),
        (golden_with(&[(2, 1), (3, 2)]), "write 0: the id has 513 bytes"),
        (golden_with(&[(6, 1), (4, 1)]), "write 0: the payload has 65537 bytes"),
        (golden_with(&[(8, 3)]), "write 0: its vector is not a whole number"),
        (golden_with(&[(12, 0xff)]), "write 0: the id is not UTF-8"),
        (golden_with(&[(0, 2)]), "write 0: it deletes, but carries"),
    ];
    for (bytes, wanted) in cases {
        let error = Ops::check(&bytes, 1).expect_err(wanted).to_string();
        assert!(error.starts_with(wanted), "'{error}' should say '{wanted}'");
    }
}

#[test]
fn dimension_and_components_are_checked() {
    let error = Ops::check(&GOLDEN, 2).expect_err("one component");
    assert_eq!(error, OpsError::WrongDimension { index: 0, got: 1, wanted: 2 });
    for (bits, value) in [(0x7fc0_0000u32, "NaN"), (0x7f80_0000, "inf"), (0xff80_0000, "-inf")] {
        let mut bytes = GOLDEN.to_vec();
        bytes[16..20].copy_from_slice(&bits.to_le_bytes());
        let error = Ops::check(&bytes, 1).expect_err(value);
        assert_eq!(error, OpsError::NotFinite { index: 0, component: 0, value: value.into() });
        Ops::check_layout(&bytes).expect("the layout is good");
    }
}

#[test]
fn a_builder_refuses_what_a_reader_would() {
    let mut builder = OpsBuilder::new();
    builder.put("kept", &[1.0], b"").expect("good");
    let before = builder.len();
    let long = "x".repeat(ID_BYTES_MAX + 1);
    let payload = vec![0; PAYLOAD_BYTES_MAX + 1];
    assert_eq!(builder.put("", &[1.0], b""), Err(OpsError::IdEmpty { index: 1 }));
    assert_eq!(builder.delete(&long), Err(OpsError::IdTooLong { index: 1, bytes: 513 }));
    assert!(matches!(builder.put("a", &[1.0], &payload), Err(OpsError::PayloadTooLarge { .. })));
    assert!(matches!(builder.put("a", &[1.0, f32::NAN], b""), Err(OpsError::NotFinite { component: 1, .. })));
    assert!(matches!(builder.put("a", &[], b""), Err(OpsError::Malformed { .. })));
    assert_eq!((builder.len(), builder.writes()), (before, 1));
}

#[test]
fn the_limits_of_a_batch_hold_on_both_sides() {
    let mut builder = OpsBuilder::new();
    for i in 0..BATCH_WRITES_MAX {
        builder.delete(&i.to_string()).expect("below the limit");
    }
    assert_eq!(builder.delete("more"), Err(OpsError::TooManyWrites));
    let mut bytes = builder.finish();
    assert_eq!(Ops::check_layout(&bytes).expect("full").writes() as usize, BATCH_WRITES_MAX);
    bytes.extend_from_slice(&GOLDEN[24..]);
    assert_eq!(Ops::check_layout(&bytes).expect_err("one more"), OpsError::TooManyWrites);

    let mut builder = OpsBuilder::new();
    let payload = vec![0; PAYLOAD_BYTES_MAX];
    let error = loop {
        if let Err(error) = builder.put("a", &[1.0], &payload) {
            break error;
        }
    };
    assert!(matches!(error, OpsError::TooManyBytes { bytes } if bytes > BATCH_BYTES_MAX));
    Ops::check(&builder.finish(), 1).expect("what fits is good");
    let zeros = vec![0; BATCH_BYTES_MAX + 1];
    assert!(matches!(Ops::check_layout(&zeros), Err(OpsError::TooManyBytes { .. })));
}

#[derive(Clone, Debug)]
enum Write {
    Put { id: String, vector: Vec<f32>, payload: Vec<u8>, condition: Option<Condition> },
    Delete { id: String, condition: Option<Condition> },
}

fn condition() -> impl Strategy<Value = Option<Condition>> {
    let version = (any::<u64>(), any::<u64>(), any::<u32>())
        .prop_map(|(term, index, offset)| Some(Condition::IfVersion(Position { term, index, offset })));
    prop_oneof![Just(None), Just(Some(Condition::IfAbsent)), version]
}

fn write() -> impl Strategy<Value = Write> {
    let finite = prop::num::f32::NORMAL | prop::num::f32::ZERO | prop::num::f32::SUBNORMAL;
    let payload = prop::collection::vec(any::<u8>(), 0..20);
    let put = ("\\PC{1,40}", prop::collection::vec(finite, 3), payload, condition())
        .prop_map(|(id, vector, payload, condition)| Write::Put { id, vector, payload, condition });
    let delete = ("\\PC{1,40}", condition()).prop_map(|(id, condition)| Write::Delete { id, condition });
    prop_oneof![put, delete]
}

proptest! {
    #[test]
    fn what_is_laid_out_is_read(writes in prop::collection::vec(write(), 1..30)) {
        let mut builder = OpsBuilder::new();
        for write in &writes {
            match write {
                Write::Put { id, vector, payload, condition } => {
                    builder.put_if(id, vector, payload, *condition)
                }
                Write::Delete { id, condition } => builder.delete_if(id, *condition),
            }.expect("good");
        }
        let bytes = builder.finish();
        let ops = Ops::check(&bytes, 3).expect("good");
        prop_assert_eq!(ops.writes() as usize, writes.len());
        for (op, write) in ops.iter().zip(&writes) {
            match (op, write) {
                (
                    Op::Put { id, vector, payload, condition },
                    Write::Put { id: i, vector: v, payload: p, condition: c },
                ) => {
                    let wanted: Vec<u8> = v.iter().flat_map(|x| x.to_le_bytes()).collect();
                    prop_assert_eq!((id, vector, payload, &condition), (i.as_str(), &wanted[..], &p[..], c));
                }
                (Op::Delete { id, condition }, Write::Delete { id: i, condition: c }) => {
                    prop_assert_eq!((id, &condition), (i.as_str(), c));
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}

/// Bytes from anywhere are refused, or can be walked to their end and are laid out again as they were, padding aside.
#[test]
fn fuzz_ops() {
    let entry = Position { term: 2, index: 7, offset: 1 };
    let mut all = OpsBuilder::new();
    all.put_if("a", &[1.0], b"payload", Some(Condition::IfVersion(entry))).expect("good");
    all.put_if("b", &[-1.0], b"", Some(Condition::IfAbsent)).expect("good");
    all.delete_if("c", Some(Condition::IfVersion(entry))).expect("good");
    all.replay("d", entry, true).expect("good");
    all.discard("e", entry).expect("good");
    Target::new("fuzz_ops", [GOLDEN.to_vec(), all.finish()]).run(|bytes| {
        if let Ok(ops) = Ops::check_layout(bytes) {
            assert_eq!(ops.iter().count(), ops.writes() as usize);
        }
        let Ok(ops) = Ops::check(bytes, 1) else { return false };
        let mut again = OpsBuilder::new();
        for op in ops.iter() {
            let done = match op {
                Op::Put { id, vector, payload, condition } => {
                    let component = f32::from_le_bytes(vector.try_into().expect("one component"));
                    again.put_if(id, &[component], payload, condition)
                }
                Op::Delete { id, condition } => again.delete_if(id, condition),
                Op::Replay { id, entry, anyway } => again.replay(id, entry, anyway),
                Op::Discard { id, entry } => again.discard(id, entry),
                Op::SetPolicy(_) => panic!("no client may ask for it"),
            };
            done.expect("it was accepted");
        }
        let again = again.finish();
        assert!(Ops::check(&again, 1).expect("it was accepted").iter().eq(ops.iter()));
        true
    });
}
