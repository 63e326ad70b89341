//! Hostile bytes for frames.

use bytes::Bytes;
use slowdb_fuzz::Target;
use slowdb_net::{FrameLimits, FrameOut, HEADER_LEN, decode, encode};
use std::time::Duration;
use xxhash_rust::xxh3::xxh3_64;

const LIMITS: FrameLimits = FrameLimits {
    meta_len_max: 1 << 12,
    body_len_max: 1 << 14,
    first_byte_within: None,
    rest_within: Duration::from_secs(10),
};

#[test]
fn fuzz_frame() {
    let frame = |meta: usize, body: &[usize]| {
        let body = body.iter().map(|len| Bytes::from(vec![2; *len])).collect();
        encode(&FrameOut { kind: 7, meta: vec![1; meta].into(), body }).expect("it is short")
    };
    let corpus =
        [frame(0, &[]), frame(5, &[]), frame(0, &[3, 0, 9]), frame(100, &[200]), frame(4096, &[16384])];
    // The checksum of as much as the header says, or of all there is.
    let reseal = |bytes: &mut Vec<u8>| {
        let Some(head) = bytes.first_chunk::<HEADER_LEN>() else { return };
        let len =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize;
        let end = (HEADER_LEN + len(8) + len(12)).min(bytes.len());
        let sum = xxh3_64(&[&bytes[..24], &bytes[HEADER_LEN..end]].concat());
        bytes[24..HEADER_LEN].copy_from_slice(&sum.to_le_bytes());
    };
    let memory = 64 * 1024 + LIMITS.meta_len_max as usize + LIMITS.body_len_max as usize;
    Target::new("fuzz_frame", corpus).reseal(reseal).memory(memory, 4).run(|bytes| {
        let Ok((frame, taken)) = decode(bytes, &LIMITS) else { return false };
        let again = FrameOut { kind: frame.kind, meta: frame.meta, body: vec![frame.body] };
        assert_eq!(encode(&again).expect("it was decoded"), bytes[..taken]);
        true
    });
}
