//! What a run is made of: everything is drawn from its seed, and printed with a failure.

mod changes;

use crate::random::Random;
pub use changes::ChangeOptions;
use slowdb_proto::ConflictPolicy;
use std::fmt;

/// A range of microseconds, both ends included.
pub type Span = (u64, u64);

const MILLI: u64 = 1_000;
const SECOND: u64 = 1_000_000;

/// Which faults a run concentrates on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Profile {
    /// A mixture, different for each seed.
    General,
    /// No faults at all.
    Calm,
    /// No faults, and ten operations a second on three shards: how fast the simulator is.
    Light,
    /// The same on 16 shards.
    LightWide,
    /// Elections over and over, and power lost right after votes.
    Elections,
    /// Power lost on all nodes at once.
    PowerLoss,
    /// Leaders cut off from the majority, with clients on their side.
    Minority,
    /// Small log segments, used again and again, and power lost at any sync.
    Recycling,
    /// Records overwritten and deleted, checkpoints all the time, and power lost.
    Checkpoints,
    /// Messages that arrive long after they were sent.
    LateMessages,
    /// Nodes that join, go, die and come back, and replicas that move, under moderate faults.
    Changes,
    /// Bits that flip on the disk of one node at a time.
    BitRot,
}

impl Profile {
    /// As it is spelt on the command line.
    pub fn name(self) -> String {
        use clap::ValueEnum;
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }
}

/// A bug that is planted on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// What was only written counts as durable.
    AckBeforeSync,
    /// Term and vote are not written to the log.
    VoteNotPersisted,
    /// A quorum read does not ask a majority.
    ReadWithoutMajority,
    /// What an earlier use of a segment left behind passes for a part of the log.
    ChainNotChecked,
    /// A slot is reused while a durable checkpoint refers to it.
    SlotReusedEarly,
    /// An append of a deposed leader is accepted.
    TermNotChecked,
    /// A learner's copy counts for a majority.
    LearnerCounted,
    /// Votes are taken away before others are there.
    RemovalFirst,
    /// A replica is deleted when the catalog wants it gone, and not when its group is without it.
    RemovalByWish,
    /// A snapshot comes without the table of terms.
    SnapshotWithoutTerms,
    /// Ids of replicas are used twice.
    ReplicaIdReused,
    /// Members change without a joint configuration.
    JointSkipped,
    /// Members are changed by who knows less than was decided.
    StaleExecutor,
    /// A retry is executed as if it were the first attempt.
    RetryExecuted,
    /// A condition is decided by what the leader has when it is asked, not when the write is applied.
    ConditionByLeader,
    /// What is cut from a log, acknowledged by its leader alone, is not kept.
    CutNotKept,
    /// What a snapshot replaces, acknowledged by its leader alone, is not kept.
    ReplacedNotKept,
    /// What was overtaken is kept until it was offered, and not until it is settled.
    SettledUnheard,
    /// What was overtaken is applied whenever it is offered.
    LateAppliedAgain,
    /// Tombstones are dropped while somebody may still hold an earlier write.
    TombstonesDropped,
    /// A read does not wait for what its session has seen.
    SessionNotAwaited,
    /// Late writes win by their time, whatever the collection's conflict policy is.
    PolicyIgnored,
    /// To keep both, what lost is kept, but not to be read.
    SiblingDropped,
    /// What lost in a conflict is written whenever that is asked for.
    ReplayedAgain,
    /// A group is put to rest, and called as committed, whatever its members have of it.
    RestsUnsettled,
}

impl Bug {
    /// All of them.
    pub const ALL: [Bug; 25] = [
        Bug::AckBeforeSync,
        Bug::VoteNotPersisted,
        Bug::ReadWithoutMajority,
        Bug::ChainNotChecked,
        Bug::SlotReusedEarly,
        Bug::TermNotChecked,
        Bug::LearnerCounted,
        Bug::RemovalFirst,
        Bug::RemovalByWish,
        Bug::SnapshotWithoutTerms,
        Bug::ReplicaIdReused,
        Bug::JointSkipped,
        Bug::StaleExecutor,
        Bug::RetryExecuted,
        Bug::ConditionByLeader,
        Bug::CutNotKept,
        Bug::ReplacedNotKept,
        Bug::SettledUnheard,
        Bug::LateAppliedAgain,
        Bug::TombstonesDropped,
        Bug::SessionNotAwaited,
        Bug::PolicyIgnored,
        Bug::SiblingDropped,
        Bug::ReplayedAgain,
        Bug::RestsUnsettled,
    ];

    /// The faults under which it shows.
    pub fn profile(self) -> Profile {
        match self {
            Bug::AckBeforeSync => Profile::PowerLoss,
            Bug::VoteNotPersisted => Profile::Elections,
            Bug::ReadWithoutMajority => Profile::Minority,
            Bug::ChainNotChecked => Profile::Recycling,
            Bug::SlotReusedEarly => Profile::Checkpoints,
            Bug::TermNotChecked => Profile::LateMessages,
            Bug::LearnerCounted => Profile::Minority,
            Bug::RetryExecuted => Profile::Minority,
            Bug::ConditionByLeader => Profile::Minority,
            Bug::CutNotKept
            | Bug::SettledUnheard
            | Bug::LateAppliedAgain
            | Bug::TombstonesDropped
            | Bug::SessionNotAwaited
            | Bug::PolicyIgnored
            | Bug::SiblingDropped
            | Bug::ReplayedAgain
            | Bug::ReplacedNotKept
            | Bug::RestsUnsettled => Profile::Minority,
            Bug::RemovalFirst
            | Bug::RemovalByWish
            | Bug::SnapshotWithoutTerms
            | Bug::ReplicaIdReused
            | Bug::JointSkipped
            | Bug::StaleExecutor => Profile::Changes,
        }
    }

    /// As it is called in reports.
    pub fn name(self) -> &'static str {
        match self {
            Bug::AckBeforeSync => "ack before sync",
            Bug::VoteNotPersisted => "vote without persisting",
            Bug::ReadWithoutMajority => "read without asking a majority",
            Bug::ChainNotChecked => "append not chained",
            Bug::SlotReusedEarly => "stale slot reused",
            Bug::TermNotChecked => "term not checked",
            Bug::LearnerCounted => "learner counted as voter",
            Bug::RemovalFirst => "removal before addition",
            Bug::RemovalByWish => "removal by wish",
            Bug::SnapshotWithoutTerms => "snapshot without terms",
            Bug::ReplicaIdReused => "replica id reused",
            Bug::JointSkipped => "joint step skipped",
            Bug::StaleExecutor => "stale catalog executor",
            Bug::RetryExecuted => "retry not deduplicated",
            Bug::ConditionByLeader => "condition decided by the leader",
            Bug::CutNotKept => "no quarantine on truncation",
            Bug::ReplacedNotKept => "no quarantine on snapshot install",
            Bug::SettledUnheard => "quarantine dropped unconfirmed",
            Bug::LateAppliedAgain => "reconciliation not deduplicated",
            Bug::TombstonesDropped => "tombstone dropped early",
            Bug::SessionNotAwaited => "session read not waiting",
            Bug::PolicyIgnored => "conflict policy ignored",
            Bug::SiblingDropped => "sibling dropped",
            Bug::ReplayedAgain => "replay applied twice",
            Bug::RestsUnsettled => "group at rest unsettled",
        }
    }
}

/// How the network behaves while there are faults. Chances are per thousand frames.
#[derive(Clone, Copy, Debug)]
pub struct NetOptions {
    /// One way.
    pub delay: Span,
    /// Lost.
    pub loss: u64,
    /// Delivered twice.
    pub duplicate: u64,
    /// Delivered out of order, as after a reconnection.
    pub reorder: u64,
    /// Delivered very late.
    pub late: u64,
    /// How late.
    pub late_by: Span,
    /// With a flipped bit.
    pub damage: u64,
    /// Sent into a partition, and delivered late all the same.
    pub held: u64,
}

impl NetOptions {
    /// The same network when nothing goes wrong.
    pub(crate) fn calm(self) -> Self {
        NetOptions { loss: 0, duplicate: 0, reorder: 0, late: 0, damage: 0, held: 0, ..self }
    }
}

/// Disks and what is on them.
#[derive(Clone, Copy, Debug)]
pub struct DiskOptions {
    /// How long a sync of the log takes.
    pub sync: Span,
    /// Size of a log segment.
    pub segment_bytes: u64,
    /// Segments kept for reuse.
    pub spare_segments: usize,
    /// Size of an extent of a vector file.
    pub extent_bytes: usize,
    /// Bytes after which a shard is checkpointed.
    pub checkpoint_bytes: u64,
    /// Ticks after which it is.
    pub checkpoint_ticks: u64,
    /// How long a checkpoint waits before it runs, and before it is reported.
    pub checkpoint: Span,
}

/// Mean time between faults of each kind, in microseconds; 0 for never.
#[derive(Clone, Copy, Debug, Default)]
pub struct FaultOptions {
    /// Power lost on one node.
    pub power_loss: u64,
    /// Power lost on a leader right after it changed.
    pub power_loss_leader: u64,
    /// Power lost on all nodes.
    pub power_loss_all: u64,
    /// Power lost on some nodes just after an election: a chance per thousand elections.
    pub power_loss_on_election: u64,
    /// Power lost on a node at one of its next syncs.
    pub power_at_sync: u64,
    /// A process killed.
    pub kill: u64,
    /// A sync that fails.
    pub fail_sync: u64,
    /// A write that fails half way.
    pub fail_write: u64,
    /// A disk that is full for a while.
    pub full_disk: u64,
    /// A node asked to stop.
    pub shutdown: u64,
    /// Nodes cut off from each other.
    pub partition: u64,
    /// A leader cut off from the others.
    pub isolate_leader: u64,
    /// A process stopped for a while.
    pub pause: u64,
    /// A slow disk for a while.
    pub slow_disk: u64,
    /// Connections reset.
    pub reset: u64,
    /// A wall clock that jumps.
    pub clock_jump: u64,
    /// Bits that flip on a disk. Only where nodes are removed and join ([`ChangeOptions`]).
    pub rot: u64,
    /// How long a node stays away.
    pub down: Span,
    /// How long a partition or pause lasts.
    pub lasts: Span,
}

/// Everything that a run is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where all of it comes from.
    pub seed: u64,
    /// Which faults it concentrates on.
    pub profile: Profile,
    /// Nodes.
    pub nodes: usize,
    /// Shards.
    pub shards: u32,
    /// Replicas of each.
    pub replication_factor: u32,
    /// Clients.
    pub clients: usize,
    /// How many of them only read.
    pub readers: usize,
    /// Ids in each shard.
    pub keys_per_shard: usize,
    /// When faults begin, in microseconds.
    pub faults_from: u64,
    /// When faults stop, in microseconds.
    pub faults_until: u64,
    /// Strict ids are written at `all` only, and not at `quorum` as well.
    pub strict_at_all: bool,
    /// What becomes of late writes that conflict.
    pub conflicts: ConflictPolicy,
    /// Of a thousand operations, so many list a log of conflicts, whose entries are replayed or discarded then.
    pub resolves: u64,
    /// Between two operations of a client.
    pub think: Span,
    /// How long a client waits for one answer.
    pub attempt: Span,
    /// How long a client tries.
    pub patience: Span,
    /// The network.
    pub net: NetOptions,
    /// The disks.
    pub disk: DiskOptions,
    /// The faults.
    pub faults: FaultOptions,
    /// How the cluster changes; `None` if it stays as it was founded.
    pub changes: Option<ChangeOptions>,
    /// What is planted, if anything.
    pub bug: Option<Bug>,
    /// The faults that strike, by their number in the schedule; all if not given. What is left out is all that differs.
    pub only_faults: Option<Vec<usize>>,
    /// The clients that do anything, by number; all if not given.
    pub only_clients: Option<Vec<usize>>,
}

impl Options {
    /// The run of a seed: mostly a mixture of everything, at times one thing in excess.
    pub fn of_seed(seed: u64) -> Self {
        use Profile as P;
        const IN_EXCESS: [Profile; 6] =
            [P::Elections, P::PowerLoss, P::Minority, P::Recycling, P::Checkpoints, P::LateMessages];
        let mut random = Random::new(seed ^ 0x9f0f_11e5);
        let profile = match random.below(100) {
            0..40 => Profile::General,
            40..70 => Profile::Changes,
            _ => random.pick(&IN_EXCESS),
        };
        Options::draw(seed, profile)
    }

    /// The run of a seed that concentrates on something.
    pub fn draw(seed: u64, profile: Profile) -> Self {
        let random = &mut Random::new(seed);
        let nodes = random.pick(&[3, 3, 3, 3, 3, 3, 3, 5, 2, 1]);
        let slow = random.pick(&[1, 1, 4]);
        let mut options = Options {
            seed,
            profile,
            nodes,
            shards: random.between((1, 4)) as u32,
            replication_factor: 3,
            clients: random.between((2, 6)) as usize,
            readers: random.pick(&[0, 0, 1]),
            keys_per_shard: random.pick(&[2, 4, 8]),
            faults_from: random.pick(&[0, 0, 2 * SECOND]),
            faults_until: random.between((10 * SECOND, 30 * SECOND)),
            strict_at_all: false,
            conflicts: ConflictPolicy::Newest,
            resolves: 0,
            think: (0, random.pick(&[5, 20, 100]) * MILLI),
            attempt: (100 * MILLI, random.pick(&[300, 800]) * MILLI),
            patience: (500 * MILLI, 4 * SECOND),
            net: NetOptions {
                delay: (50, random.pick(&[300, 2000, 8000])),
                loss: random.pick(&[0, 0, 10, 50]),
                duplicate: random.pick(&[0, 0, 10, 30]),
                reorder: random.pick(&[0, 0, 20, 200]),
                late: random.pick(&[0, 0, 5]),
                late_by: (50 * MILLI, 3 * SECOND),
                damage: random.pick(&[0, 0, 1]),
                held: random.pick(&[0, 0, 50]),
            },
            disk: DiskOptions {
                sync: (100, slow * random.pick(&[500, 3000, 10_000])),
                segment_bytes: random.pick(&[16, 16, 32, 128]) * 1024,
                spare_segments: random.pick(&[1, 1, 3]),
                extent_bytes: random.pick(&[4096, 65_536]),
                checkpoint_bytes: random.pick(&[1, 4, 16, 64]) * 1024,
                checkpoint_ticks: random.between((20, 400)),
                checkpoint: (MILLI, random.pick(&[5, 50, 400]) * MILLI),
            },
            faults: FaultOptions {
                down: (20 * MILLI, random.pick(&[500, 3000]) * MILLI),
                lasts: (50 * MILLI, random.pick(&[800, 4000]) * MILLI),
                ..FaultOptions::default()
            },
            changes: None,
            bug: None,
            only_faults: None,
            only_clients: None,
        };
        options.draw_faults(random);
        // Drawn apart, so that all else is what it would be without.
        let random = &mut random.fork(7);
        if profile == Profile::Changes || (profile == Profile::General && random.chance(500)) {
            options.changes = Some(ChangeOptions::draw(random));
        }
        if profile == Profile::BitRot {
            // Whose disk is lost can be removed once it is taken for down.
            options.changes = Some(ChangeOptions { node_down_after: 5 * SECOND, ..ChangeOptions::none(2) });
        }
        options.strict_at_all = random.fork(8).chance(120);
        if !matches!(profile, Profile::Light | Profile::LightWide) {
            options.draw_conflicts(&mut random.fork(10));
        }
        let random = &mut random.fork(9);
        if matches!(profile, Profile::General | Profile::Changes) && random.chance(100) {
            options.nodes = random.pick(&[4, 6, 7]);
            options.replication_factor = random.pick(&[3, 4, 5]);
        }
        options
    }

    /// The run of a seed under which a bug shows; it is not planted.
    pub fn of_bug(seed: u64, bug: Bug) -> Self {
        let mut options = Options::draw(seed, bug.profile());
        if bug == Bug::LearnerCounted {
            // Of four replicas one is a learner.
            options.nodes = 4;
            options.replication_factor = 4;
        }
        match bug {
            Bug::SettledUnheard => options.net.loss = 250,
            Bug::PolicyIgnored => options.conflicts = ConflictPolicy::KeepCurrent,
            Bug::SiblingDropped => options.conflicts = ConflictPolicy::KeepBoth,
            Bug::ReplayedAgain => options.resolves = 50,
            // Somebody pauses long enough for groups to come to rest.
            Bug::RestsUnsettled => {
                (options.shards, options.clients, options.readers) = (4, 2, 0);
                options.think = (200 * MILLI, SECOND);
            }
            _ => {}
        }
        if bug == Bug::StaleExecutor {
            // Much is decided, and often somebody does not hear of it.
            (options.faults.partition, options.faults.isolate_leader) = (2 * SECOND, 3 * SECOND);
            options.faults.lasts = (SECOND, 4 * SECOND);
            if let Some(changes) = &mut options.changes {
                (changes.every, changes.joiners) = (SECOND / 2, 4);
            }
        }
        if bug == Bug::ReplacedNotKept {
            // Nobody joins; who is cut off for a while finds that the log it needs is gone.
            options.changes = Some(ChangeOptions { retained_bytes: 1024, ..ChangeOptions::none(0) });
            options.disk.checkpoint_bytes = 1024;
            options.disk.checkpoint_ticks = 20;
        }
        options
    }

    /// Nodes that there may ever be.
    pub fn nodes_max(&self) -> usize {
        self.nodes + self.changes.map_or(0, |changes| changes.joiners)
    }

    fn draw_conflicts(&mut self, random: &mut Random) {
        use ConflictPolicy as P;
        self.conflicts = random.pick(&[P::Newest, P::Newest, P::KeepCurrent, P::KeepBoth, P::KeepBoth]);
        self.resolves = random.pick(&[0, 0, 10, 50]);
    }

    fn draw_faults(&mut self, random: &mut Random) {
        let faults = &mut self.faults;
        let mut often = |seconds: Span| random.between((seconds.0 * SECOND, seconds.1 * SECOND));
        match self.profile {
            Profile::Calm => {
                self.net = self.net.calm();
            }
            Profile::Light | Profile::LightWide => {
                self.net = self.net.calm();
                self.nodes = 3;
                self.shards = if self.profile == Profile::Light { 3 } else { 16 };
                (self.clients, self.readers, self.keys_per_shard) = (2, 0, 2);
                self.think = (100 * MILLI, 300 * MILLI);
                (self.disk.checkpoint_bytes, self.disk.checkpoint_ticks) = (64 * 1024, 3_000);
                (self.faults_from, self.faults_until) = (0, 60 * SECOND);
            }
            Profile::General | Profile::Changes => {
                // Each kind is there in about half of the runs, or in a fifth.
                let share = if self.profile == Profile::General { 500 } else { 200 };
                for kind in [
                    &mut faults.power_loss,
                    &mut faults.power_loss_leader,
                    &mut faults.power_loss_all,
                    &mut faults.power_at_sync,
                    &mut faults.kill,
                    &mut faults.fail_sync,
                    &mut faults.fail_write,
                    &mut faults.full_disk,
                    &mut faults.shutdown,
                    &mut faults.partition,
                    &mut faults.isolate_leader,
                    &mut faults.pause,
                    &mut faults.slow_disk,
                    &mut faults.reset,
                    &mut faults.clock_jump,
                ] {
                    let mean = random.between((2 * SECOND, 12 * SECOND));
                    *kind = if random.chance(share) { mean } else { 0 };
                }
            }
            Profile::Elections => {
                self.nodes = 3;
                faults.power_loss_leader = often((1, 2));
                faults.power_loss = often((1, 2));
                faults.isolate_leader = often((2, 3));
                faults.power_loss_on_election = 400;
                faults.down = (MILLI, 60 * MILLI);
            }
            Profile::PowerLoss => {
                self.nodes = 3;
                faults.power_loss_all = often((1, 2));
                faults.power_loss = often((2, 4));
                faults.down = (MILLI, 200 * MILLI);
                self.disk.sync = (2 * MILLI, 30 * MILLI);
            }
            Profile::Minority => {
                self.nodes = 3;
                faults.isolate_leader = often((1, 3));
                // So that what comes late may be newer than what is there.
                faults.clock_jump = often((1, 4));
                faults.lasts = (300 * MILLI, 3 * SECOND);
                // One shard, so that nobody waits for another one's leader while this one's is cut off.
                self.shards = 1;
                self.clients = 6;
                self.readers = 3;
                self.attempt = (20 * MILLI, 120 * MILLI);
                self.keys_per_shard = 2;
                self.think = (0, 5 * MILLI);
            }
            Profile::Recycling => {
                self.nodes = 3;
                faults.power_at_sync = often((1, 2));
                faults.power_loss_all = often((1, 3));
                faults.down = (MILLI, 100 * MILLI);
                self.think = (0, 2 * MILLI);
                self.disk.segment_bytes = 16 * 1024;
                self.disk.spare_segments = 1;
                self.disk.checkpoint_bytes = 1024;
                self.disk.checkpoint = (MILLI, 5 * MILLI);
                self.disk.sync = (MILLI, 20 * MILLI);
            }
            Profile::Checkpoints => {
                self.nodes = 3;
                faults.power_loss_all = often((1, 3));
                faults.power_loss = often((1, 3));
                self.think = (0, 3 * MILLI);
                self.keys_per_shard = 8;
                self.disk.checkpoint_bytes = 2048;
                self.disk.checkpoint = (MILLI, 20 * MILLI);
            }
            Profile::BitRot => {
                self.nodes = 3;
                faults.rot = often((2, 4));
                faults.kill = often((2, 6));
                faults.power_loss = often((2, 6));
                faults.isolate_leader = often((3, 8));
                faults.down = (20 * MILLI, SECOND);
            }
            Profile::LateMessages => {
                self.nodes = 3;
                faults.isolate_leader = often((1, 2));
                faults.lasts = (400 * MILLI, 1200 * MILLI);
                self.net.late = 10;
                self.net.held = 700;
                self.net.late_by = (300 * MILLI, SECOND);
                self.clients = 6;
                self.disk.sync = (5 * MILLI, 80 * MILLI);
                self.think = (0, 5 * MILLI);
            }
        }
    }
}

impl fmt::Display for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {} ({:?}): {} nodes, {} shards of {} ids, {} clients ({} only read), faults from {} ms until {} ms, bug {:?}",
            self.seed,
            self.profile,
            self.nodes,
            self.shards,
            self.keys_per_shard,
            self.clients,
            self.readers,
            self.faults_from / 1000,
            self.faults_until / 1000,
            self.bug
        )?;
        writeln!(
            f,
            "  clients: think {:?}, attempt {:?}, patience {:?}; conflicts: {}, of 1000 operations {} list them",
            self.think,
            self.attempt,
            self.patience,
            self.conflicts.as_str(),
            self.resolves
        )?;
        writeln!(f, "  {:?}", self.net)?;
        writeln!(f, "  {:?}", self.disk)?;
        write!(f, "  {:?}", self.faults)?;
        if let Some(changes) = &self.changes {
            write!(f, "\n  {changes:?}")?;
        }
        Ok(())
    }
}
