//! What passes between nodes, and between clients and nodes.

use crate::client::Step;
use crate::cluster::{Action, Cluster};
use crate::events::{Event, OpId};
use crate::node::Input;
use crate::operator::ASKERS;
use bytes::Bytes;
use slowdb_net::FrameOut;
use slowdb_proto::{KIND_REPLY, KIND_REQUEST, Reply, Request, RequestKind};
use slowdb_repl::Outgoing;
use slowdb_server::{Command, Fetch};

/// From this number on, who asks is a node that asks another one for a record.
const FETCHERS: usize = ASKERS * 2;
/// How long a node waits for a record that it asked another one for, in microseconds.
const FETCH_WITHIN: u64 = 1_000_000;

/// A record that a node asks another one for.
pub(crate) struct Fetching {
    node: usize,
    life: u32,
    number: u64,
}

/// Kind of the frames between nodes, as the transport has it.
const KIND_MESSAGES: u16 = 18;

impl Cluster {
    pub(crate) fn send(&mut self, from: usize, frame: Outgoing) {
        let Some(to) = self.names.iter().position(|name| *name == frame.to) else {
            return self.fail("transport", format!("node {from} sends to an unknown node {}", frame.to));
        };
        let life = self.nodes[to].life;
        if !self.network.is_connected(from, to, life) {
            return;
        }
        let Outgoing { lane, meta, body, .. } = frame;
        let fate = self.network.send(self.now, from, to, lane);
        self.log.note(self.now, (from, to, fate.arrives, meta.len()));
        let Some(first) = fate.arrives[0] else { return };
        let mut bytes = slowdb_net::encode(&FrameOut { kind: KIND_MESSAGES, meta, body })
            .expect("frames of nodes are small");
        if let Some(second) = fate.arrives[1] {
            self.at(second, Action::Frame { from, to, life, bytes: bytes.clone() });
        }
        if fate.damaged {
            self.network.damage(&mut bytes);
        }
        self.at(first, Action::Frame { from, to, life, bytes });
    }

    pub(crate) fn frame(&mut self, from: usize, to: usize, bytes: &[u8]) {
        match slowdb_net::decode(bytes, &self.limits) {
            Ok((frame, _)) => {
                self.input(to, Input::Frame { from, meta: frame.meta, body: frame.body });
            }
            // The transport gives the connection up.
            Err(_) => self.disconnect(from, to),
        }
    }

    /// A node asks another one for a record, as a client would.
    pub(crate) fn fetch(&mut self, node: usize, fetch: Fetch) {
        self.attempts += 1;
        let attempt = self.attempts;
        let life = self.nodes[node].life;
        self.fetches.insert(attempt, Fetching { node, life, number: fetch.number });
        self.after(FETCH_WITHIN, Action::FetchOver { attempt });
        let to = self.names.iter().position(|name| *name == fetch.node);
        let Some(to) = to.filter(|to| !self.network.is_cut(node, *to)) else { return };
        if let Some(at) = self.network.send_client(self.now, FETCHERS + node, to) {
            let timeout_ms = (FETCH_WITHIN / 1_000) as u32;
            let request = Request { cluster: None, timeout_ms, kind: RequestKind::Get(fetch.get) };
            let meta = slowdb_proto::encode_request(&request);
            let bytes = slowdb_net::encode(&FrameOut { kind: KIND_REQUEST, meta, body: Vec::new() })
                .expect("requests are small");
            self.at(at, Action::Request { client: FETCHERS + node, attempt, node: to, bytes });
        }
    }

    /// It was answered, or not in time.
    pub(crate) fn fetched(&mut self, attempt: u64, answer: Option<(Reply, Bytes)>) {
        let Some(Fetching { node, life, number }) = self.fetches.remove(&attempt) else { return };
        if self.lives(node, life) {
            self.input(node, Input::Command(Command::Fetched { number, answer }));
        }
    }

    pub(crate) fn client(&mut self, client: usize) {
        let now = self.now;
        let up: Vec<usize> = (0..self.nodes.len()).filter(|node| self.nodes[*node].present).collect();
        let this = &mut self.clients[client];
        let step = if this.attempt.take().is_some() {
            this.timed_out(now)
        } else if this.current.is_some() {
            this.send(&self.options, &up)
        } else {
            let op = OpId(self.ops);
            let Some(begun) = this.begin(now, op, &self.keys, &self.options) else { return };
            let (shard, ask) = (begun.shard, begun.ask.clone());
            self.ops += 1;
            self.log.push(now, Event::Invoke { op, client, shard, ask });
            this.send(&self.options, &up)
        };
        self.step(client, step);
    }

    fn step(&mut self, client: usize, step: Step) {
        let delay = match step {
            Step::Send { node, within } => {
                self.send_request(client, node, within);
                within
            }
            Step::Wait { micros } => micros,
            Step::Done { op, outcome } => {
                self.log.push(self.now, Event::Return { op, outcome });
                self.random.between(self.options.think)
            }
            Step::Nothing => return,
        };
        let this = &mut self.clients[client];
        this.timer += 1;
        let timer = this.timer;
        self.after(delay, Action::Client { client, timer });
    }

    fn send_request(&mut self, client: usize, node: usize, within: u64) {
        let Some((op, retry, request, body)) = self.clients[client].request(within, &self.keys) else {
            return;
        };
        self.attempts += 1;
        let attempt = self.attempts;
        self.clients[client].attempt = Some(attempt);
        self.log.push(self.now, Event::Attempt { op, node, retry });
        if let Some(at) = self.network.send_client(self.now, client, node) {
            let meta = slowdb_proto::encode_request(&request);
            let frame = FrameOut { kind: KIND_REQUEST, meta, body: vec![body] };
            let bytes = slowdb_net::encode(&frame).expect("requests are small");
            self.at(at, Action::Request { client, attempt, node, bytes });
        }
    }

    pub(crate) fn request(&mut self, client: usize, attempt: u64, node: usize, bytes: &[u8]) {
        let decoded = slowdb_net::decode(bytes, &self.limits).map_err(|error| error.to_string());
        let request = decoded.and_then(|(frame, _)| {
            let request = slowdb_proto::decode_request(&frame.meta).map_err(|error| error.to_string())?;
            Ok((request, frame.body))
        });
        match request {
            Ok((request, body)) => {
                self.nodes[node].request(client, attempt, request, body);
                self.wake(node);
            }
            Err(why) => self.fail("wire", format!("a client's request cannot be read: {why}")),
        }
    }

    pub(crate) fn reply(
        &mut self,
        node: usize,
        client: usize,
        attempt: u64,
        reply: &Reply,
        body: Vec<Bytes>,
    ) {
        if let Some(at) = self.network.send_client(self.now, client, node) {
            let frame = FrameOut { kind: KIND_REPLY, meta: slowdb_proto::encode_reply(reply), body };
            let bytes = slowdb_net::encode(&frame).expect("replies are small");
            self.at(at, Action::Answer { client, attempt, bytes });
        }
    }

    pub(crate) fn answer(&mut self, client: usize, attempt: u64, bytes: &[u8]) {
        if client < ASKERS {
            if self.clients[client].attempt != Some(attempt) {
                return;
            }
            self.clients[client].attempt = None;
        }
        let decoded = slowdb_net::decode(bytes, &self.limits).map_err(|error| error.to_string());
        let reply = decoded.and_then(|(frame, _)| {
            let reply = slowdb_proto::decode_reply(&frame.meta).map_err(|error| error.to_string())?;
            Ok((reply, frame.body))
        });
        let (reply, body) = match reply {
            Ok(reply) => reply,
            Err(why) => return self.fail("wire", format!("a reply cannot be read: {why}")),
        };
        if client >= FETCHERS {
            return self.fetched(attempt, Some((reply, body)));
        }
        if client >= ASKERS {
            return self.asker_answered(client - ASKERS, attempt, reply);
        }
        let this = &mut self.clients[client];
        if let (Reply::Error(error), Some(current)) = (&reply, &this.current) {
            self.log.push(self.now, Event::Setback { op: current.op, code: error.code });
        }
        match this.answer(self.now, reply, &body, &self.keys, &self.options) {
            Ok(step) => self.step(client, step),
            Err(error) => {
                self.fail("content", format!("client {client} got something that nobody wrote: {error}"))
            }
        }
    }
}
