//! Runs a deterministic core on threads and real time.
//!
//! One thread owns the core and takes turns: it hears what happened, lets the core think once, and carries out
//! what the core says. A second thread owns the log and makes everything that queued up durable with one sync.

use crate::ids::NodeId;
use crate::replicator::{Batch, Outgoing};
use crate::transport::{PeerEvent, Transport};
use crate::wal::{Location, Record, Wal, WalError};
use crate::{Now, TICK_MICROS};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self as std_mpsc, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;

/// Inputs that are taken in one turn.
const INPUTS_PER_TURN: usize = 256;
/// Bytes of records on their way to the disk above which no further input is taken.
const LOG_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Quiet after which the log is told that all of it is synced, so that later damage to its end is noticed.
const MARK_AFTER: Duration = Duration::from_millis(200);
/// Syncs between looks at the size of the log.
const GAUGE_TURNS: u32 = 64;
/// Length of the queues into the core.
const QUEUE_LEN: usize = 512;

/// A deterministic core, as the driver sees it; see [`crate::Replicator`] for the order of calls.
pub trait Core: Send + 'static {
    /// What is asked of it from outside.
    type Command: Send + 'static;
    /// What it wants done outside, other than messages and records.
    type Effect: Send + 'static;

    /// Something is asked.
    fn command(&mut self, now: Now, command: Self::Command);
    /// A frame arrived from another node.
    fn receive(&mut self, now: Now, from: &NodeId, meta: &[u8], body: &Bytes);
    /// Messages to a node were dropped, or the connection to it was lost.
    fn unreachable(&mut self, now: Now, node: &NodeId);
    /// One tick of time passed.
    fn tick(&mut self, now: Now);
    /// All batches up to this one are durable. Returns what may be sent now.
    fn persisted(&mut self, now: Now, batch: u64, locations: &[Location]) -> Vec<Outgoing>;
    /// Does all that can be done without waiting.
    fn flush(&mut self, now: Now) -> Turn<Self::Effect>;
}

/// What a core wants done.
#[derive(Debug)]
pub struct Turn<E> {
    /// To send now.
    pub messages: Vec<Outgoing>,
    /// To make durable.
    pub batch: Option<Batch>,
    /// Everything else.
    pub effects: Vec<E>,
}

/// Why a driver stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// It was asked to.
    Asked,
    /// The log failed; nothing is acknowledged any more.
    LogFailed(String),
    /// The core failed.
    CoreFailed(String),
    /// Another live process is this node.
    Duplicate(String),
}

/// A running core.
pub struct Driver<C: Core> {
    commands: mpsc::Sender<C::Command>,
    stop: watch::Sender<bool>,
    stopped: watch::Receiver<Option<Stopped>>,
    core: Option<JoinHandle<()>>,
    log: Option<JoinHandle<()>>,
    gauge: LogGauge,
}

/// Sends commands to a running core. Cheap to clone.
pub struct Commands<C: Core>(mpsc::Sender<C::Command>);

impl<C: Core> Clone for Commands<C> {
    fn clone(&self) -> Self {
        Commands(self.0.clone())
    }
}

impl<C: Core> Commands<C> {
    /// Queues a command; waits while the queue is full. False if the core is gone.
    pub async fn send(&self, command: C::Command) -> bool {
        self.0.send(command).await.is_ok()
    }

    /// Queues a command from a thread that may block. False if the core is gone.
    pub fn send_blocking(&self, command: C::Command) -> bool {
        self.0.blocking_send(command).is_ok()
    }
}

/// How large the log is, for `status`. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct LogGauge(Arc<[AtomicU64; 2]>);

impl LogGauge {
    /// Bytes of its files.
    pub fn disk_bytes(&self) -> u64 {
        self.0[0].load(Ordering::Relaxed)
    }

    /// Its segments, spares not counted.
    pub fn segments(&self) -> u64 {
        self.0[1].load(Ordering::Relaxed)
    }

    fn read(&self, wal: &Wal) {
        let stats = wal.stats();
        self.0[0].store(stats.disk_bytes, Ordering::Relaxed);
        self.0[1].store(stats.segments as u64, Ordering::Relaxed);
    }
}

struct Durable {
    batch: u64,
    bytes: usize,
    locations: Vec<Location>,
}

impl<C: Core> Driver<C> {
    /// Starts the two threads. Effects are handed to `perform` on the core's thread, so it must not block.
    ///
    /// # Errors
    /// If the system gives no thread.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(
        core: C,
        wal: Wal,
        transport: Transport,
        events: mpsc::Receiver<PeerEvent>,
        perform: impl FnMut(C::Effect) + Send + 'static,
    ) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Handle::current();
        let (commands, command_queue) = mpsc::channel(QUEUE_LEN);
        let (stop, stop_seen) = watch::channel(false);
        let (say_stopped, stopped) = watch::channel(None);
        let (to_log, batches) = std_mpsc::channel();
        let (durable, from_log) = mpsc::unbounded_channel();
        let log_stopped = say_stopped.clone();
        let gauge = LogGauge::default();
        let log_gauge = gauge.clone();
        let log = std::thread::Builder::new().name("log".into()).spawn(move || {
            if let Err(error) = write_log(wal, &batches, &durable, &log_gauge) {
                tracing::error!(%error, "the log failed: this node stops");
                log_stopped.send_if_modified(|current| {
                    let first = current.is_none();
                    current.get_or_insert(Stopped::LogFailed(error.to_string()));
                    first
                });
            }
        })?;
        let worker =
            Worker { core, transport, perform, clock: Clock::start(), to_log, log_bytes: 0, duplicate: None };
        let core = std::thread::Builder::new().name("core".into()).spawn(move || {
            let panicked = PanicGuard(Some(say_stopped.clone()));
            let why = runtime.block_on(worker.run(events, command_queue, from_log, stop_seen));
            panicked.defuse();
            say_stopped.send_if_modified(|current| {
                let first = current.is_none();
                current.get_or_insert(why);
                first
            });
        })?;
        Ok(Driver { commands, stop, stopped, core: Some(core), log: Some(log), gauge })
    }

    /// For sending commands.
    pub fn commands(&self) -> Commands<C> {
        Commands(self.commands.clone())
    }

    /// For seeing how large the log is.
    pub fn log_gauge(&self) -> LogGauge {
        self.gauge.clone()
    }

    /// Resolves when the driver has stopped, with the reason.
    pub fn stopped(&self) -> impl Future<Output = Stopped> + Send + 'static {
        let mut stopped = self.stopped.clone();
        async move {
            match stopped.wait_for(Option::is_some).await {
                Ok(why) => why.clone().unwrap_or(Stopped::Asked),
                // Neither thread had a chance to say why.
                Err(_) => Stopped::CoreFailed("the core's thread panicked".into()),
            }
        }
    }

    /// Stops both threads after what is queued for the log has been synced, and waits for them.
    pub fn stop(mut self) -> Stopped {
        self.stop.send_replace(true);
        let mut panicked = false;
        for thread in [self.core.take(), self.log.take()].into_iter().flatten() {
            panicked |= thread.join().is_err();
        }
        let why = self.stopped.borrow().clone().unwrap_or(Stopped::Asked);
        if panicked { Stopped::CoreFailed("a thread panicked".into()) } else { why }
    }
}

/// Says that the core failed, should its thread panic.
struct PanicGuard(Option<watch::Sender<Option<Stopped>>>);

impl PanicGuard {
    fn defuse(mut self) {
        self.0 = None;
    }
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        let Some(stopped) = &self.0 else { return };
        stopped.send_if_modified(|current| {
            let first = current.is_none();
            current.get_or_insert(Stopped::CoreFailed("the core's thread panicked".into()));
            first
        });
    }
}

struct Worker<C: Core, P> {
    core: C,
    transport: Transport,
    perform: P,
    clock: Clock,
    to_log: std_mpsc::Sender<Batch>,
    /// Bytes of records handed to the log and not yet durable.
    log_bytes: usize,
    /// What another node says of another process that is this one.
    duplicate: Option<String>,
}

impl<C: Core, P: FnMut(C::Effect)> Worker<C, P> {
    async fn run(
        mut self,
        mut events: mpsc::Receiver<PeerEvent>,
        mut commands: mpsc::Receiver<C::Command>,
        mut from_log: mpsc::UnboundedReceiver<Durable>,
        mut stop: watch::Receiver<bool>,
    ) -> Stopped {
        let mut ticks = tokio::time::interval(Duration::from_micros(TICK_MICROS));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let open = self.log_bytes < LOG_BYTES_MAX;
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => return Stopped::Asked,
                durable = from_log.recv() => match durable {
                    Some(durable) => self.durable(&durable),
                    None => return Stopped::LogFailed("the log's thread ended".into()),
                },
                _ = ticks.tick() => self.core.tick(self.clock.now()),
                event = events.recv(), if open => match event {
                    Some(event) => self.event(event),
                    None => return Stopped::CoreFailed("the transport ended".into()),
                },
                command = commands.recv(), if open => match command {
                    Some(command) => self.core.command(self.clock.now(), command),
                    None => return Stopped::Asked,
                },
            }
            self.take_more(&mut events, &mut commands, &mut from_log);
            if let Some(why) = self.duplicate.take() {
                return Stopped::Duplicate(why);
            }
            self.turn();
        }
    }

    /// Takes what else has arrived, so that one turn serves it all.
    fn take_more(
        &mut self,
        events: &mut mpsc::Receiver<PeerEvent>,
        commands: &mut mpsc::Receiver<C::Command>,
        from_log: &mut mpsc::UnboundedReceiver<Durable>,
    ) {
        while let Ok(durable) = from_log.try_recv() {
            self.durable(&durable);
        }
        if self.log_bytes >= LOG_BYTES_MAX {
            return;
        }
        for _ in 0..INPUTS_PER_TURN {
            let event = events.try_recv().ok();
            let command = commands.try_recv().ok();
            if event.is_none() && command.is_none() {
                break;
            }
            if let Some(event) = event {
                self.event(event);
            }
            if let Some(command) = command {
                self.core.command(self.clock.now(), command);
            }
        }
    }

    fn event(&mut self, event: PeerEvent) {
        let now = self.clock.now();
        match event {
            PeerEvent::Frame { from, meta, body } => self.core.receive(now, &from, &meta, &body),
            PeerEvent::Unreachable { node } => self.core.unreachable(now, &node),
            PeerEvent::Duplicate { by, reason } => {
                tracing::error!(%by, %reason, "refused: this node stops");
                self.duplicate = Some(reason);
            }
        }
    }

    fn durable(&mut self, durable: &Durable) {
        self.log_bytes -= durable.bytes;
        let messages = self.core.persisted(self.clock.now(), durable.batch, &durable.locations);
        messages.into_iter().for_each(|frame| self.transport.send(frame));
    }

    fn turn(&mut self) {
        let turn = self.core.flush(self.clock.now());
        turn.messages.into_iter().for_each(|frame| self.transport.send(frame));
        if let Some(batch) = turn.batch {
            self.log_bytes += batch_bytes(&batch);
            // If the log is gone, the next turn hears it from its own channel.
            let _ = self.to_log.send(batch);
        }
        turn.effects.into_iter().for_each(&mut self.perform);
    }
}

/// Appends what is queued, syncs once, reports, until the core is gone.
fn write_log(
    mut wal: Wal,
    batches: &std_mpsc::Receiver<Batch>,
    durable: &mpsc::UnboundedSender<Durable>,
    gauge: &LogGauge,
) -> Result<(), WalError> {
    gauge.read(&wal);
    let mut turns = 0u32;
    loop {
        let first = match batches.recv_timeout(MARK_AFTER) {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => {
                match wal.mark() {
                    // The mark helps to tell damage from an end; without room for it there is just less to tell.
                    Ok(()) | Err(WalError::NoSpace { .. }) => continue,
                    Err(error) => return Err(error),
                }
            }
            Err(RecvTimeoutError::Disconnected) => return wal.close(),
        };
        let mut done = Durable { batch: first.number, bytes: 0, locations: Vec::new() };
        let mut frees = false;
        for batch in std::iter::once(first).chain(batches.try_iter()) {
            wal.append(&batch.records, &mut done.locations)?;
            done.batch = batch.number;
            done.bytes += batch_bytes(&batch);
            let freeing = |record: &Record| {
                matches!(record, Record::Compacted { .. } | Record::Snapshot { .. } | Record::Removed { .. })
            };
            frees |= batch.records.iter().any(freeing);
        }
        wal.sync()?;
        // Nobody waits for an answer any more if this fails: the core is gone.
        let _ = durable.send(done);
        turns = turns.wrapping_add(1);
        if frees {
            wal.release()?;
        }
        if frees || turns.is_multiple_of(GAUGE_TURNS) {
            gauge.read(&wal);
        }
    }
}

fn batch_bytes(batch: &Batch) -> usize {
    let data = |record: &Record| match record {
        Record::Entry { data, .. }
        | Record::Config { data, .. }
        | Record::Snapshot { data, .. }
        | Record::Overtaken { data, .. } => data.len(),
        _ => 0,
    };
    batch.records.iter().map(data).sum()
}

struct Clock {
    start: Instant,
}

impl Clock {
    fn start() -> Self {
        Clock { start: Instant::now() }
    }

    fn now(&self) -> Now {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { micros: self.start.elapsed().as_micros() as u64, wall_millis: wall.as_millis() as u64 }
    }
}
