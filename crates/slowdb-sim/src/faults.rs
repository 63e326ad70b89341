//! The schedule of faults: data, drawn before the run begins.
//!
//! The contract: the cluster must survive all of it, in any combination. Data that was synced stays, but for bit rot: bits
//! flip on the disk of a node that was stopped in good order, and so holds nothing that might pass for the end of its log
//! ([`Fault::Rot`]). One such disk at a time; all groups have two good copies then. Disks that lie are not on this menu.

use crate::options::Options;
use crate::random::Random;

/// Whom a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    Node(usize),
    /// Whoever leads this shard then.
    LeaderOf(u32),
}

/// How a node comes back that has lost its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Wiped {
    /// As if the cluster was still to be founded.
    Founds,
    /// As a new node that has the name of an old one.
    Joins,
}

/// A fault. Times are in microseconds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Fault {
    PowerLoss {
        target: Target,
        down: u64,
    },
    PowerLossAll {
        down: Vec<u64>,
    },
    PowerAtSync {
        node: usize,
        after: u64,
    },
    Kill {
        target: Target,
        down: u64,
    },
    FailSync {
        node: usize,
        after: u64,
    },
    FailWrite {
        node: usize,
        after: u64,
    },
    FullDisk {
        node: usize,
        room: u64,
        lasts: u64,
    },
    Shutdown {
        target: Target,
        down: u64,
    },
    /// `cut[from][to]` are the links that carry nothing; clients by the nodes that they cannot reach.
    Partition {
        cut: Vec<Vec<bool>>,
        clients: Vec<Vec<bool>>,
        lasts: u64,
    },
    /// The leader, with some clients, against all others.
    Isolate {
        target: Target,
        one_way: bool,
        clients_with: Vec<bool>,
        lasts: u64,
    },
    Pause {
        target: Target,
        lasts: u64,
    },
    SlowDisk {
        node: usize,
        factor: u64,
        lasts: u64,
    },
    /// Away for longer than nodes are waited for; and its disk may be lost meanwhile.
    Death {
        target: Target,
        down: u64,
        power: bool,
        wiped: Option<Wiped>,
    },
    /// A node is asked to stop, and bits flip on its disk while it is away.
    Rot {
        target: Target,
        down: u64,
        flips: u64,
    },
    Reset {
        from: usize,
        to: usize,
    },
    ClockJump {
        node: usize,
        millis: i64,
    },
}

/// The mean time between faults of a kind, and what draws one.
type Kind = (u64, fn(&Options, &mut Random) -> Fault);

/// Draws the faults of a run, with their times, in order.
pub(crate) fn draw(options: &Options, random: &mut Random) -> Vec<(u64, Fault)> {
    let faults = options.faults;
    let kinds: [Kind; 17] = [
        (faults.power_loss, power_loss),
        (faults.power_loss_leader, |o, r| {
            let target = leader(o, r);
            Fault::PowerLoss { target, down: r.between(o.faults.down) }
        }),
        (faults.power_loss_all, |o, r| {
            let down = (0..o.nodes_max()).map(|_| r.between(o.faults.down)).collect();
            Fault::PowerLossAll { down }
        }),
        (faults.power_at_sync, |o, r| Fault::PowerAtSync {
            node: r.index(o.nodes_max()),
            after: r.below(40),
        }),
        (faults.kill, |o, r| Fault::Kill { target: any(o, r), down: r.between(o.faults.down) }),
        (faults.fail_sync, |o, r| Fault::FailSync { node: r.index(o.nodes_max()), after: r.below(10) }),
        (faults.fail_write, |o, r| Fault::FailWrite { node: r.index(o.nodes_max()), after: r.below(30) }),
        (faults.full_disk, |o, r| Fault::FullDisk {
            node: r.index(o.nodes_max()),
            room: r.below(200_000),
            lasts: r.between(o.faults.lasts),
        }),
        (faults.shutdown, |o, r| Fault::Shutdown { target: any(o, r), down: r.between(o.faults.down) }),
        (faults.partition, partition),
        (faults.isolate_leader, isolate),
        (faults.pause, |o, r| Fault::Pause { target: any(o, r), lasts: r.between(o.faults.lasts) }),
        (faults.slow_disk, |o, r| Fault::SlowDisk {
            node: r.index(o.nodes_max()),
            factor: r.between((5, 60)),
            lasts: r.between(o.faults.lasts),
        }),
        (faults.reset, |o, r| Fault::Reset { from: r.index(o.nodes_max()), to: r.index(o.nodes_max()) }),
        (faults.clock_jump, |o, r| Fault::ClockJump {
            node: r.index(o.nodes_max()),
            millis: r.below(7_200_000) as i64 - 3_600_000,
        }),
        (options.changes.map_or(0, |changes| changes.death), death),
        (faults.rot, |o, r| {
            let (target, down) = (any(o, r), r.between(o.faults.down));
            Fault::Rot { target, down, flips: r.between((1, 40)) }
        }),
    ];
    let mut schedule = Vec::new();
    for (mean, make) in kinds.into_iter().filter(|(mean, _)| *mean > 0) {
        let mut at = options.faults_from;
        loop {
            at += random.between((mean / 4, mean * 7 / 4));
            if at >= options.faults_until {
                break;
            }
            schedule.push((at, make(options, random)));
        }
    }
    schedule.sort_by_key(|(at, _)| *at);
    schedule
}

fn leader(options: &Options, random: &mut Random) -> Target {
    Target::LeaderOf(random.below(u64::from(options.shards)) as u32)
}

fn any(options: &Options, random: &mut Random) -> Target {
    if random.chance(500) { leader(options, random) } else { Target::Node(random.index(options.nodes_max())) }
}

fn power_loss(options: &Options, random: &mut Random) -> Fault {
    let target = Target::Node(random.index(options.nodes_max()));
    Fault::PowerLoss { target, down: random.between(options.faults.down) }
}

/// Two sides, or single links one way.
fn partition(options: &Options, random: &mut Random) -> Fault {
    let nodes = options.nodes_max();
    let lasts = random.between(options.faults.lasts);
    let mut cut = vec![vec![false; nodes]; nodes];
    if random.chance(300) {
        for link in cut.iter_mut().flatten() {
            *link = random.chance(400);
        }
        return Fault::Partition { cut, clients: vec![vec![false; nodes]; options.clients], lasts };
    }
    let side: Vec<bool> = (0..nodes).map(|_| random.chance(500)).collect();
    for (from, row) in cut.iter_mut().enumerate() {
        for (to, link) in row.iter_mut().enumerate() {
            *link = side[from] != side[to];
        }
    }
    let clients = (0..options.clients)
        .map(|_| match random.below(3) {
            0 => vec![false; nodes],
            with => side.iter().map(|side| *side != (with == 1)).collect(),
        })
        .collect();
    Fault::Partition { cut, clients, lasts }
}

fn isolate(options: &Options, random: &mut Random) -> Fault {
    Fault::Isolate {
        target: leader(options, random),
        one_way: random.chance(200),
        clients_with: (0..options.clients).map(|_| random.chance(500)).collect(),
        lasts: random.between(options.faults.lasts),
    }
}

fn death(options: &Options, random: &mut Random) -> Fault {
    let target = any(options, random);
    let power = random.chance(500);
    let Some(changes) = options.changes else { return Fault::Kill { target, down: 0 } };
    let down = changes.node_down_after + random.between(changes.death_lasts);
    let wiped =
        random.chance(changes.wipe).then(|| random.pick(&[Wiped::Founds, Wiped::Joins, Wiped::Joins]));
    Fault::Death { target, down, power, wiped }
}
