//! The codec against damage, malice and every way of being cut.

use proptest::collection::vec;
use proptest::prelude::*;
use xxhash_rust::xxh3::xxh3_64;

use super::*;

const LIMITS: FrameLimits = FrameLimits {
    meta_len_max: 1 << 16,
    body_len_max: 1 << 20,
    first_byte_within: None,
    rest_within: Duration::from_secs(10),
};

fn frames() -> impl Strategy<Value = FrameOut> {
    (any::<u16>(), vec(any::<u8>(), 0..300), vec(vec(any::<u8>(), 0..700), 0..5)).prop_map(
        |(kind, meta, body)| FrameOut {
            kind,
            meta: meta.into(),
            body: body.into_iter().map(Bytes::from).collect(),
        },
    )
}

fn sample() -> Vec<u8> {
    let body = vec![Bytes::from_static(b"bo"), Bytes::from_static(b"dy")];
    encode(&FrameOut { kind: 0x0102, meta: Bytes::from_static(b"meta!"), body }).unwrap()
}

/// Makes the checksum right again after the header was tampered with, so that the check behind it is reached.
fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let covered = [&bytes[..24], &bytes[32..]].concat();
    bytes[24..32].copy_from_slice(&xxh3_64(&covered).to_le_bytes());
    bytes
}

#[test]
fn golden_bytes() {
    let bytes = sample();
    let head = [b'S', b'L', b'D', b'B', 1, 0, 2, 1, 5, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    assert_eq!(bytes[..24], head);
    assert_eq!(&bytes[32..], b"meta!body");
    assert_eq!(resealed(bytes.clone()), bytes, "the checksum is the one-shot hash of what it covers");
}

proptest! {
    #[test]
    fn round_trips_aligned(frame in frames(), tail: Vec<u8>) {
        let mut bytes = encode(&frame).unwrap();
        let len = bytes.len();
        bytes.extend_from_slice(&tail);
        let (read, taken) = decode(&bytes, &LIMITS).unwrap();
        prop_assert_eq!(taken, len);
        prop_assert_eq!(read.kind, frame.kind);
        prop_assert_eq!(&read.meta, &frame.meta);
        prop_assert_eq!(&read.body[..], &frame.body.concat()[..]);
        prop_assert_eq!(read.meta.as_ptr().addr() % META_ALIGN, 0);
        prop_assert_eq!(read.body.as_ptr().addr() % BODY_ALIGN, 0);
    }

    #[test]
    fn assembles_from_any_chunks(frame in frames(), cuts in vec(1_usize..400, 0..40)) {
        let header = codec::header_of(&frame).unwrap();
        let content = [&frame.meta[..], &frame.body.concat()].concat();
        let mut assembly = codec::Assembly::new(header).unwrap();
        let mut rest = &content[..];
        for cut in cuts {
            prop_assert_eq!(assembly.missing(), rest.len());
            let (chunk, after) = rest.split_at(cut.min(rest.len()));
            assembly.push(chunk);
            rest = after;
        }
        assembly.push(rest);
        prop_assert_eq!(assembly.missing(), 0);
        let read = assembly.finish().unwrap();
        prop_assert_eq!((&read.meta[..], &read.body[..]), (&frame.meta[..], &frame.body.concat()[..]));
    }

    #[test]
    fn any_flipped_bit_is_noticed(frame in frames(), at: prop::sample::Index, bit in 0..8_u32) {
        let mut bytes = encode(&frame).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1_u8 << bit;
        let error = decode(&bytes, &LIMITS).unwrap_err();
        let is_named = match at {
            0..4 => matches!(error, FrameError::Magic { .. }),
            4 => matches!(error, FrameError::Version { .. }),
            5 | 16..24 => matches!(error, FrameError::Reserved { .. }),
            8..16 => matches!(
                error,
                FrameError::TooLong { .. } | FrameError::Truncated { .. } | FrameError::Checksum { .. }
            ),
            _ => matches!(error, FrameError::Checksum { .. }),
        };
        prop_assert!(is_named, "byte {}: {:?}", at, error);
    }

    #[test]
    fn any_cut_is_truncation(frame in frames(), at: prop::sample::Index) {
        let bytes = encode(&frame).unwrap();
        let cut = at.index(bytes.len());
        let error = decode(&bytes[..cut], &LIMITS).unwrap_err();
        let is_truncation =
            matches!(error, FrameError::Truncated { have, want } if have == cut as u64 && want > have);
        prop_assert!(is_truncation, "{:?}", error);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes: Vec<u8>, headed: bool) {
        let bytes = if headed { [&sample()[..8], &bytes].concat() } else { bytes };
        let _ = decode(&bytes, &LIMITS);
    }
}

#[test]
fn limits_hold_before_memory_is_asked_for() {
    let mut bytes = sample();
    bytes[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    let error = decode(&resealed(bytes.clone()), &LIMITS).unwrap_err();
    assert_eq!(error, FrameError::TooLong { part: "body", len: u32::MAX.into(), max: 1 << 20 });
    bytes[8..12].copy_from_slice(&(LIMITS.meta_len_max + 1).to_le_bytes());
    let error = decode(&resealed(bytes), &LIMITS).unwrap_err();
    assert_eq!(error, FrameError::TooLong { part: "meta", len: 65_537, max: 65_536 });
    let exact = FrameLimits { meta_len_max: 5, body_len_max: 4, ..LIMITS };
    decode(&sample(), &exact).unwrap();
}

#[test]
fn other_versions_and_reserved_bits_are_refused_by_name() {
    let tampered = |at: usize, value: u8| {
        let mut bytes = sample();
        bytes[at] = value;
        decode(&resealed(bytes), &LIMITS).unwrap_err()
    };
    assert_eq!(tampered(4, 2), FrameError::Version { found: 2 });
    assert_eq!(tampered(5, 0x80), FrameError::Reserved { flags: 0x80, reserved: 0 });
    assert_eq!(tampered(23, 1), FrameError::Reserved { flags: 0, reserved: 1 << 56 });
    assert_eq!(tampered(0, b'X'), FrameError::Magic { found: *b"XLDB" });
}
