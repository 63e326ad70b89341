//! Each rule for late writes, on a shard; and that replicas that apply the same entries are equal.

use super::*;
use crate::conflicts::SIBLINGS_MAX;
use crate::shard::ShardPlace;
use proptest::prelude::*;
use slowdb_disk::SimDisk;
use slowdb_proto::{Code, ConflictPolicy, OpsBuilder, Unmet, WriteLevel};
use slowdb_repl::{AckLevel, ProposalHeader};
use slowdb_storage::Options;
use std::sync::Arc;

/// A shard, and the entries that it is given: every one is the next.
struct Shard {
    machine: ShardMachine,
    term: u64,
    index: u64,
    sequence: u64,
}

fn open(incarnation: u64) -> ShardMachine {
    let mut options = Options::new(1);
    options.extent_bytes = 1 << 16;
    let place = ShardPlace { disk: Arc::new(SimDisk::new()), replica: 4, options };
    ShardMachine::open(place, incarnation).expect("it opens")
}

impl Shard {
    /// Of term 4, at index 20: what term 3 had from 11 on is overtaken.
    fn new() -> Shard {
        let mut machine = open(0);
        machine.begin_term(3, 2).expect("it is the first");
        machine.begin_term(4, 11).expect("it is a later one");
        Shard { machine, term: 4, index: 20, sequence: 0 }
    }

    fn entry(&mut self, header: ProposalHeader, body: &[u8], floor: u64) -> (Position, WriteOutcome) {
        self.index += 1;
        let first = Position::new(self.term, self.index, 0);
        let outcome = self.machine.apply(&ProposalView { header, first, body }).expect("the disk works");
        self.machine.end_of_entry(self.index, floor);
        (first, outcome)
    }

    fn write(&mut self, level: AckLevel, hlc: u64, body: &[u8]) -> Position {
        self.sequence += 1;
        let header = header(level, hlc, self.sequence, body, None);
        let (first, outcome) = self.entry(header, body, 0);
        assert!(matches!(outcome, WriteOutcome::Done(_)));
        first
    }

    fn set_policy(&mut self, policy: ConflictPolicy) {
        self.write(AckLevel::Quorum, 40, &OpsBuilder::set_policy(policy));
    }

    /// Offers what was written at 3.`index` and time `hlc`.
    fn offer(&mut self, index: u64, hlc: u64, body: &[u8]) -> WriteOutcome {
        let late = Late { was: Position::new(3, index, 0), fork: 10 };
        self.entry(header(AckLevel::One, hlc, 1_000 + index, body, Some(late)), body, 0).1
    }

    /// Resolves the conflict that is named 3.`index`.
    fn resolve(&mut self, index: u64, id: &str, is_replay: bool) -> (Position, WriteResult) {
        let (mut batch, entry) = (OpsBuilder::new(), Position::new(3, index, 0));
        if is_replay { batch.replay(id, entry, false) } else { batch.discard(id, entry) }
            .expect("a good one");
        self.carry_out(batch)
    }

    /// As with `resolve`, whatever was written since.
    fn replay_anyway(&mut self, index: u64, id: &str) -> (Position, WriteResult) {
        let mut batch = OpsBuilder::new();
        batch.replay(id, Position::new(3, index, 0), true).expect("a good one");
        self.carry_out(batch)
    }

    fn carry_out(&mut self, batch: OpsBuilder) -> (Position, WriteResult) {
        let body = batch.finish();
        self.sequence += 1;
        let header = header(AckLevel::Quorum, 99, self.sequence, &body, None);
        match self.entry(header, &body, 0) {
            (first, WriteOutcome::Done(result)) => (first, result),
            other => panic!("{other:?}"),
        }
    }

    fn became(&self, index: u64) -> Option<Became> {
        self.machine.beside.conflicts.get(Position::new(3, index, 0)).map(|conflict| conflict.became)
    }

    fn loser(&self, index: u64) -> Option<Value> {
        self.machine.beside.conflicts.get(Position::new(3, index, 0))?.loser.clone()
    }

    fn payload(&self, id: &str) -> Option<Vec<u8>> {
        let found = self.machine.reader().records.get(id.as_bytes()).expect("it is whole")?;
        Some(Envelope::unwrap(&found.payload).expect("it is wrapped").1.to_vec())
    }
}

const POLICIES: [ConflictPolicy; 3] =
    [ConflictPolicy::Newest, ConflictPolicy::KeepCurrent, ConflictPolicy::KeepBoth];

fn header(level: AckLevel, hlc: u64, sequence: u64, body: &[u8], late: Option<Late>) -> ProposalHeader {
    let writes = Ops::check_layout(body).expect("it is laid out").writes();
    ProposalHeader { level, retry: false, writes, client: [7; 16], sequence, hlc, origin: 1, late }
}

fn put(id: &str, payload: &[u8]) -> Vec<u8> {
    let mut batch = OpsBuilder::new();
    batch.put(id, &[1.0], payload).expect("a good put");
    batch.finish()
}

fn delete(id: &str) -> Vec<u8> {
    let mut batch = OpsBuilder::new();
    batch.delete(id).expect("a good delete");
    batch.finish()
}

fn lost(payload: &[u8]) -> Option<Value> {
    Some(Value::Put { vector: 1.0_f32.to_le_bytes().to_vec(), payload: payload.to_vec() })
}

#[test]
fn a_late_write_to_what_nobody_touched_is_applied_anew() {
    let mut shard = Shard::new();
    shard.offer(12, 50, &put("a", b"late"));
    assert_eq!(
        (shard.payload("a").as_deref(), shard.became(12)),
        (Some(&b"late"[..]), Some(Became::Applied))
    );
    let record = shard.machine.reader().records.get(b"a").expect("it is whole").expect("it is there");
    let (made, _) = Envelope::unwrap(&record.payload).expect("it is wrapped");
    let was = Some(Position::new(3, 12, 0));
    assert_eq!(made, Envelope { level: WriteLevel::One, hlc: 50, was }, "level and time of the first time");
    assert_eq!(position_of(record.version), Position::new(4, 21, 0), "and a place of its own");
}

#[test]
fn a_write_that_is_in_this_history_is_not_applied_again() {
    let mut shard = Shard::new();
    shard.write(AckLevel::Quorum, 60, &delete("a"));
    let outcome = shard.offer(10, 90, &put("a", b"late"));
    assert!(matches!(outcome, WriteOutcome::Done(result) if result.first == Position::new(3, 10, 0)));
    assert_eq!((shard.payload("a"), shard.became(10)), (None, None));
}

#[test]
fn what_a_retry_has_done_is_not_done_again() {
    let mut shard = Shard::new();
    let body = put("a", b"it");
    let retried = header(AckLevel::Quorum, 60, 1_012, &body, None);
    let (first, _) = shard.entry(retried, &body, 0);
    shard.write(AckLevel::One, 61, &put("a", b"later"));
    let outcome = shard.offer(12, 99, &body);
    assert!(matches!(outcome, WriteOutcome::Done(result) if result.first == first));
    assert_eq!((shard.payload("a").as_deref(), shard.became(12)), (Some(&b"later"[..]), None));
}

#[test]
fn offered_twice_it_comes_to_one_result() {
    let mut shard = Shard::new();
    shard.offer(12, 50, &put("a", b"late"));
    shard.write(AckLevel::One, 40, &put("a", b"older, but later here"));
    // As if the result had been forgotten: the entry in the conflict log is enough.
    shard.machine.beside.dedup = crate::dedup::DedupWindow::default();
    shard.offer(12, 50, &put("a", b"late"));
    assert_eq!(shard.payload("a").as_deref(), Some(&b"older, but later here"[..]));
    // And if that is gone too, the record itself says so.
    let mut shard = Shard::new();
    shard.offer(12, 50, &put("a", b"late"));
    shard.machine.beside.dedup = crate::dedup::DedupWindow::default();
    shard.machine.beside.conflicts = crate::conflicts::Conflicts::default();
    shard.offer(12, 50, &put("a", b"late"));
    assert_eq!(shard.became(12), Some(Became::AlreadyThere));
}

#[test]
fn of_two_at_one_the_newer_stays_and_the_other_is_kept() {
    let mut shard = Shard::new();
    shard.write(AckLevel::One, 40, &put("old", b"here"));
    shard.write(AckLevel::One, 60, &put("new", b"here"));
    shard.write(AckLevel::One, 40, &delete("gone"));
    shard.offer(12, 50, &put("old", b"late"));
    shard.offer(13, 50, &put("new", b"late"));
    shard.offer(14, 50, &put("gone", b"late"));
    assert_eq!((shard.became(12), shard.loser(12)), (Some(Became::Replaced), lost(b"here")));
    assert_eq!((shard.became(13), shard.loser(13)), (Some(Became::Lost), lost(b"late")));
    assert_eq!((shard.became(14), shard.loser(14)), (Some(Became::Replaced), Some(Value::Delete)));
    let payloads = ["old", "new", "gone"].map(|id| shard.payload(id).expect("it is there"));
    assert_eq!(payloads, [b"late".to_vec(), b"here".to_vec(), b"late".to_vec()]);
}

#[test]
fn to_keep_the_current_the_late_one_loses_though_it_is_newer() {
    let mut shard = Shard::new();
    shard.set_policy(ConflictPolicy::KeepCurrent);
    shard.write(AckLevel::One, 40, &put("old", b"here"));
    shard.write(AckLevel::One, 40, &delete("gone"));
    shard.offer(12, 50, &put("old", b"late"));
    shard.offer(13, 50, &put("gone", b"late"));
    shard.offer(14, 50, &put("untouched", b"late"));
    assert_eq!([12, 13].map(|index| shard.became(index)), [Some(Became::Lost); 2]);
    assert_eq!([12, 13].map(|index| shard.loser(index)), [lost(b"late"), lost(b"late")]);
    assert_eq!((shard.payload("old").as_deref(), shard.payload("gone")), (Some(&b"here"[..]), None));
    assert_eq!(shard.became(14), Some(Became::Applied), "that is no conflict");
    // What is decided once stays so; what comes after is decided by what counts then.
    shard.set_policy(ConflictPolicy::Newest);
    shard.offer(12, 50, &put("old", b"late"));
    shard.offer(15, 50, &put("old", b"later"));
    assert_eq!([12, 15].map(|index| shard.became(index)), [Some(Became::Lost), Some(Became::Replaced)]);
}

/// Of term 4, a record at `one` or above, and what is to be read beside it after a late put.
fn with_sibling(level: AckLevel, hlc: u64) -> Shard {
    let mut shard = Shard::new();
    shard.set_policy(ConflictPolicy::KeepBoth);
    shard.write(level, hlc, &put("a", b"here"));
    shard.offer(12, 50, &put("a", b"late"));
    shard
}

fn siblings(shard: &Shard) -> Vec<(Position, Vec<u8>)> {
    let found =
        shard.machine.siblings(&["a".to_owned()]).expect("they are few").remove("a").unwrap_or_default();
    found.into_iter().map(|it| (it.position, it.payload)).collect()
}

#[test]
fn siblings_beyond_an_answer_are_refused_before_they_are_copied() {
    let shard = with_sibling(AckLevel::Quorum, 40);
    let named = |times| vec!["a".to_owned(); times];
    let found = shard.machine.siblings(&named(SIBLINGS_MAX)).expect("an answer holds them");
    assert_eq!(found["a"].len(), 1, "what is named often is there once");
    let refused = shard.machine.siblings(&named(SIBLINGS_MAX + 1)).err().expect("one too many");
    assert!(refused.message.starts_with("87382 siblings of 699056 bytes"), "{}", refused.message);
    let mut shard = with_sibling(AckLevel::Quorum, 40);
    shard.offer(13, 50, &put("a", &[7; 60_000]));
    let refused = shard.machine.siblings(&named(1_200)).err().expect("72 MB of them");
    assert_eq!(refused.code, Code::TooLarge);
    assert!(shard.machine.siblings(&named(1_000)).is_ok());
}

#[test]
fn to_keep_both_the_loser_stays_readable() {
    let was = Position::new(3, 12, 0);
    for (level, hlc) in [(AckLevel::One, 60), (AckLevel::Quorum, 40), (AckLevel::All, 40)] {
        let shard = with_sibling(level, hlc);
        assert_eq!(shard.payload("a").as_deref(), Some(&b"here"[..]), "{level:?}");
        assert_eq!(siblings(&shard), [(was, b"late".to_vec())], "{level:?}");
    }
    // The newer one stays, here too; then it is the other that has a sibling.
    let shard = with_sibling(AckLevel::One, 40);
    assert_eq!(shard.payload("a").as_deref(), Some(&b"late"[..]));
    assert_eq!(siblings(&shard), [(Position::new(4, 22, 0), b"here".to_vec())]);
    assert_eq!(siblings(&copy_of(&shard)), siblings(&shard));
    // Elsewhere nothing is readable, though the conflict log has it; nor is a delete that lost.
    for policy in [ConflictPolicy::Newest, ConflictPolicy::KeepCurrent] {
        let mut shard = Shard::new();
        shard.set_policy(policy);
        shard.write(AckLevel::Quorum, 40, &put("a", b"here"));
        shard.offer(12, 50, &put("a", b"late"));
        assert_eq!((siblings(&shard), shard.loser(12)), (vec![], lost(b"late")), "{policy:?}");
    }
    let mut shard = with_sibling(AckLevel::Quorum, 40);
    shard.offer(13, 51, &delete("a"));
    assert_eq!((siblings(&shard).len(), shard.loser(13)), (1, Some(Value::Delete)));
}

#[test]
fn only_who_knows_the_version_resolves() {
    let version = |shard: &Shard| {
        let found = shard.machine.reader().records.get(b"a").expect("it is whole");
        position_of(found.expect("it is there").version)
    };
    let conditional = |version, is_put| {
        let mut batch = OpsBuilder::new();
        let condition = Some(slowdb_proto::Condition::IfVersion(version));
        if is_put { batch.put_if("a", &[1.0], b"both", condition) } else { batch.delete_if("a", condition) }
            .expect("good");
        batch.finish()
    };
    for is_put in [true, false] {
        let mut shard = with_sibling(AckLevel::Quorum, 40);
        let stale = version(&shard);
        shard.write(AckLevel::Quorum, 60, &put("a", b"unaware"));
        shard.write(AckLevel::Quorum, 60, &conditional(stale, is_put));
        assert_eq!(siblings(&shard).len(), 1, "a condition that does not hold changes nothing");
        let current = version(&shard);
        shard.write(AckLevel::Quorum, 60, &conditional(current, is_put));
        assert_eq!((siblings(&shard), shard.loser(12)), (vec![], None));
        assert_eq!(shard.payload("a").is_some(), is_put);
        // Offered again it does not come back.
        shard.machine.beside.dedup = crate::dedup::DedupWindow::default();
        shard.offer(12, 50, &put("a", b"late"));
        assert_eq!((siblings(&shard), shard.became(12)), (vec![], Some(Became::Lost)));
    }
    let mut shard = with_sibling(AckLevel::Quorum, 40);
    shard.write(AckLevel::Quorum, 60, &delete("a"));
    assert_eq!(siblings(&shard).len(), 1, "nor does a delete without a condition");
}

#[test]
fn the_policy_is_part_of_the_state() {
    let (mut shard, other) = (Shard::new(), Shard::new());
    let before = shard.machine.digest();
    assert_eq!(before, other.machine.digest());
    shard.set_policy(ConflictPolicy::KeepCurrent);
    let copy = copy_of(&shard);
    assert_eq!(copy.machine.policy(), ConflictPolicy::KeepCurrent);
    assert_eq!(copy.machine.digest(), shard.machine.digest());
    let kept = shard.machine.digest();
    shard.machine.beside.policy = ConflictPolicy::Newest;
    assert_ne!(shard.machine.digest(), kept, "the digest shows it");
}

#[test]
fn what_a_majority_acknowledged_stays_though_it_is_older() {
    for policy in POLICIES {
        let mut shard = Shard::new();
        shard.set_policy(policy);
        shard.write(AckLevel::Quorum, 40, &put("a", b"here"));
        shard.write(AckLevel::All, 40, &delete("b"));
        shard.offer(12, 50, &put("a", b"late"));
        shard.offer(13, 50, &put("b", b"late"));
        shard.offer(14, 50, &delete("a"));
        let payloads = (shard.payload("a"), shard.payload("b"));
        assert_eq!(payloads, (Some(b"here".to_vec()), None), "{policy:?}");
        assert_eq!([12, 13, 14].map(|index| shard.became(index)), [Some(Became::Lost); 3], "{policy:?}");
        assert_eq!(shard.loser(14), Some(Value::Delete));
    }
}

#[test]
fn writes_of_one_overtaken_leader_follow_one_another() {
    let mut shard = Shard::new();
    let mut both = OpsBuilder::new();
    both.put("a", &[1.0], b"first").expect("good");
    both.put("a", &[1.0], b"second").expect("good");
    shard.offer(12, 50, &both.finish());
    assert_eq!(shard.payload("a").as_deref(), Some(&b"second"[..]));
    // Its clock went back: the place in its log counts.
    shard.offer(14, 30, &put("a", b"third"));
    assert_eq!((shard.payload("a").as_deref(), shard.loser(14)), (Some(&b"third"[..]), None));
    shard.offer(13, 90, &delete("a"));
    assert_eq!(
        (shard.payload("a").as_deref(), shard.became(13)),
        (Some(&b"third"[..]), Some(Became::Superseded))
    );
}

#[test]
fn a_late_put_does_not_raise_the_dead() {
    let mut shard = Shard::new();
    shard.write(AckLevel::Quorum, 40, &delete("a"));
    assert_eq!(shard.machine.beside.tombstones.len(), 1, "though there was no record");
    let body = delete("b");
    let second = header(AckLevel::Quorum, 41, 90, &body, None);
    shard.entry(second, &body, 21);
    assert_eq!(shard.machine.beside.tombstones.horizon(), 21, "every member has passed the first");
    shard.offer(12, 50, &put("a", b"late"));
    assert_eq!(
        (shard.payload("a"), shard.became(12), shard.loser(12)),
        (None, Some(Became::Lost), lost(b"late"))
    );
    shard.offer(13, 50, &put("b", b"late"));
    assert_eq!((shard.payload("b"), shard.became(13)), (None, Some(Became::Lost)));
}

#[test]
fn without_room_for_what_loses_nothing_is_done() {
    let mut shard = Shard::new();
    let large = vec![7; 60_000];
    let mut index = 12;
    loop {
        let id = format!("id{index}");
        shard.write(AckLevel::Quorum, 40, &put(&id, b""));
        if shard.offer(index, 50, &put(&id, &large)) == WriteOutcome::NoRoom {
            break;
        }
        index += 1;
    }
    assert_eq!(shard.became(index), None);
    let digest = shard.machine.digest();
    let mut batch = OpsBuilder::new();
    batch.put("clean", &[1.0], b"late").expect("good");
    batch.put("id12", &[1.0], &large).expect("good");
    assert_eq!(
        shard.offer(index + 1, 50, &batch.finish()),
        WriteOutcome::NoRoom,
        "a batch is settled as a whole"
    );
    assert_eq!((shard.payload("clean"), shard.machine.digest()), (None, digest));
    shard.offer(index + 2, 50, &put("clean", b"late"));
    assert_eq!(shard.payload("clean").as_deref(), Some(&b"late"[..]), "what does not lose needs no room");
}

/// One entry of a random history.
#[derive(Clone, Debug)]
struct Step {
    id: u8,
    kind: u8,
    level: u8,
    hlc: u64,
    late: Option<u64>,
    behind: u64,
}

fn step() -> impl Strategy<Value = Step> {
    (0..4_u8, 0..6_u8, 0..3_u8, 0..9_u64, prop::option::of(11..19_u64), 0..12_u64)
        .prop_map(|(id, kind, level, hlc, late, behind)| Step { id, kind, level, hlc, late, behind })
}

fn take_step(shard: &mut Shard, step: &Step) {
    let (id, payload) = (format!("id{}", step.id), [step.hlc as u8; 3]);
    let body = match (step.kind, step.late) {
        (5, None) => OpsBuilder::set_policy(POLICIES[usize::from(step.id) % POLICIES.len()]),
        (0..3, _) => put(&id, &payload),
        _ => delete(&id),
    };
    shard.sequence += 1;
    let header = match step.late {
        Some(index) => {
            let late = Late { was: Position::new(3, index, 0), fork: 10 };
            header(AckLevel::One, step.hlc, 1_000 + index, &body, Some(late))
        }
        None => {
            let level = [AckLevel::One, AckLevel::Quorum, AckLevel::All][usize::from(step.level)];
            header(level, step.hlc, shard.sequence, &body, None)
        }
    };
    let floor = shard.index.saturating_sub(step.behind);
    shard.entry(header, &body, floor);
}

/// Another replica that got a snapshot of this one.
fn copy_of(shard: &Shard) -> Shard {
    let source = shard.machine.snapshot().expect("it can be shown");
    let mut machine = open(0);
    let mut staging = machine.stage(shard.index).expect("the disk works");
    let mut cursor = Some(0);
    while let Some(at) = cursor {
        let mut part = Vec::new();
        cursor = source.read(at, &mut part).expect("the disk works");
        staging.write(&part).expect("it is sound");
    }
    assert_eq!(staging.finish(), Ok(source.digest()));
    machine.install(shard.index).expect("it was staged");
    Shard { machine, ..*shard }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Two replicas apply the same entries; a third joins by a snapshot in between.
    #[test]
    fn replicas_that_apply_the_same_are_equal(steps in prop::collection::vec(step(), 1..60), at in 0_usize..60) {
        let (mut one, mut two) = (Shard::new(), Shard::new());
        let mut three = None;
        for (number, step) in steps.iter().enumerate() {
            if number == at {
                three = Some(copy_of(&one));
            }
            for shard in [Some(&mut one), Some(&mut two), three.as_mut()].into_iter().flatten() {
                take_step(shard, step);
            }
        }
        prop_assert_eq!(one.machine.digest(), two.machine.digest());
        if let Some(three) = &three {
            prop_assert_eq!(one.machine.digest(), three.machine.digest());
            prop_assert_eq!(one.machine.beside.conflicts.to_state(), three.machine.beside.conflicts.to_state());
            prop_assert_eq!(one.machine.beside.tombstones.to_state(), three.machine.beside.tombstones.to_state());
        }
    }
}

#[test]
fn what_lost_can_be_replayed_once() {
    let mut shard = Shard::new();
    shard.write(AckLevel::Quorum, 60, &put("a", b"stays"));
    shard.offer(12, 90, &put("a", b"late"));
    shard.write(AckLevel::Quorum, 60, &put("b", b"stays"));
    shard.offer(13, 90, &delete("b"));
    let (first, result) = shard.resolve(12, "a", true);
    assert_eq!((result.replaced, result.unmet), (1, vec![]));
    assert_eq!((shard.payload("a").as_deref(), shard.became(12)), (Some(&b"late"[..]), None));
    let record = shard.machine.reader().records.get(b"a").expect("it is whole").expect("it is there");
    let (made, _) = Envelope::unwrap(&record.payload).expect("it is wrapped");
    assert_eq!(made, Envelope { level: WriteLevel::Quorum, hlc: 99, was: None }, "a write like any other");
    assert_eq!(position_of(record.version), first);
    let (_, result) = shard.resolve(13, "b", true);
    assert_eq!((result.replaced, shard.payload("b"), shard.became(13)), (1, None, None));
    // Nothing is left of it, also not of what it counted for.
    let conflicts = shard.machine.conflicts();
    assert_eq!((conflicts.len(), conflicts.losers(), conflicts.digest()), (0, (0, 0), 0));
    let (_, result) = shard.resolve(12, "a", true);
    assert_eq!(result.unmet, [Unmet { write: 0, current: None }]);
    assert_eq!(shard.payload("a").as_deref(), Some(&b"late"[..]));
}

#[test]
fn what_lost_is_not_replayed_over_what_was_written_since_unless_that_is_wanted() {
    let mut shard = Shard::new();
    for (index, id) in [(12, "a"), (13, "b"), (14, "c")] {
        shard.write(AckLevel::Quorum, 60, &put(id, b"stays"));
        shard.offer(index, 90, &put(id, b"late"));
    }
    let written = shard.write(AckLevel::Quorum, 95, &put("a", b"since"));
    let deleted = shard.write(AckLevel::Quorum, 95, &delete("b"));
    for (index, id, since) in [(12, "a", written), (13, "b", deleted)] {
        let (_, result) = shard.resolve(index, id, true);
        assert_eq!(result.unmet, [Unmet { write: 0, current: Some(since) }], "{id}");
        assert_eq!(shard.became(index), Some(Became::Lost), "the conflict stays");
    }
    assert_eq!((shard.payload("a").as_deref(), shard.payload("b")), (Some(&b"since"[..]), None));
    // What won stands where that was decided: nothing was written since.
    shard.write(AckLevel::One, 70, &put("d", b"replaced"));
    shard.offer(15, 90, &put("d", b"late"));
    assert_eq!(shard.became(15), Some(Became::Replaced));
    for (index, id) in [(14, "c"), (15, "d")] {
        assert_eq!(shard.resolve(index, id, true).1.unmet, [], "{id}");
    }
    assert_eq!(shard.payload("c").as_deref(), Some(&b"late"[..]));
    assert_eq!(shard.payload("d").as_deref(), Some(&b"replaced"[..]));
    for (index, id) in [(12, "a"), (13, "b")] {
        assert_eq!(shard.replay_anyway(index, id).1.unmet, []);
        assert_eq!((shard.payload(id).as_deref(), shard.became(index)), (Some(&b"late"[..]), None), "{id}");
    }
}

#[test]
fn who_sends_a_write_again_that_came_late_and_lost_hears_of_it() {
    let mut shard = Shard::new();
    let stays = shard.write(AckLevel::Quorum, 60, &put("a", b"stays"));
    let mut batch = OpsBuilder::new();
    batch.put("b", &[1.0], b"late").expect("a good put");
    batch.put("a", &[1.0], b"late").expect("a good put");
    let body = batch.finish();
    shard.offer(12, 90, &body);
    let again = ProposalHeader { retry: true, ..header(AckLevel::Quorum, 99, 1_012, &body, None) };
    let (_, outcome) = shard.entry(again, &body, 0);
    let WriteOutcome::Done(result) = outcome else { panic!("{outcome:?}") };
    assert_eq!(result.unmet, [Unmet { write: 1, current: Some(stays) }]);
    assert_eq!(shard.payload("a").as_deref(), Some(&b"stays"[..]));
    assert_eq!(shard.payload("b").as_deref(), Some(&b"late"[..]));
}

#[test]
fn what_lost_can_be_discarded_and_notes_have_nothing_to_replay() {
    let mut shard = Shard::new();
    shard.write(AckLevel::Quorum, 60, &put("a", b"stays"));
    shard.offer(12, 90, &put("a", b"late"));
    shard.offer(13, 90, &put("b", b"late"));
    let (_, result) = shard.resolve(12, "b", false);
    assert_eq!(result.unmet, [Unmet { write: 0, current: None }], "an entry, but about another id");
    let decided = shard.machine.conflicts().get(Position::new(3, 13, 0)).expect("a note").decided;
    let (_, result) = shard.resolve(13, "b", true);
    assert_eq!(result.unmet, [Unmet { write: 0, current: Some(decided) }], "nothing lost");
    for (index, id) in [(12, "a"), (13, "b")] {
        let (_, result) = shard.resolve(index, id, false);
        assert_eq!((result.replaced, result.unmet, shard.became(index)), (0, vec![], None));
    }
    assert_eq!(shard.payload("a").as_deref(), Some(&b"stays"[..]));
    assert_eq!(shard.payload("b").as_deref(), Some(&b"late"[..]));
}

#[test]
fn a_resolution_is_not_done_late() {
    let mut shard = Shard::new();
    shard.write(AckLevel::Quorum, 60, &put("a", b"stays"));
    shard.offer(12, 90, &put("a", b"late"));
    let mut batch = OpsBuilder::new();
    batch.replay("a", Position::new(3, 12, 0), true).expect("a good replay");
    shard.offer(14, 95, &batch.finish());
    assert_eq!(shard.payload("a").as_deref(), Some(&b"stays"[..]));
    assert_eq!((shard.became(12), shard.became(14)), (Some(Became::Lost), Some(Became::Superseded)));
    assert_eq!(shard.loser(14), None);
}

#[test]
fn a_page_of_conflicts_says_where_the_next_begins() {
    let mut shard = Shard::new();
    for index in 12..16 {
        shard.write(AckLevel::Quorum, 60, &put("a", b"stays"));
        shard.offer(index, 90, &put("a", b"late"));
    }
    let page = shard.machine.conflicts().page(Position::new(3, 13, 0), 2, true);
    let was: Vec<u64> = page.entries.iter().map(|entry| entry.was.index).collect();
    assert_eq!((was, page.next), (vec![13, 14], Some(Position::new(3, 15, 0))));
    assert_eq!(page.losers.len(), 2 * (4 + 4), "vector and payload of each");
    let page = shard.machine.conflicts().page(Position::new(3, 15, 0), 2, false);
    assert_eq!((page.entries.len(), page.losers.len(), page.next), (1, 0, None));
}
