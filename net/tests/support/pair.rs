//! A client and a server session, joined by two pipes, on virtual time.
#![allow(dead_code, reason = "each suite uses a part")]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use weft_net::frame::Frame;
use weft_net::session::{ClientEvent, ClientOptions, ClientSession, End, ServerEvent, ServerSession};
use weft_net::{AckLevel, SessionEnd, SessionLimits};

use super::{NETWORK, welcome_info};

/// One direction: bytes written and not yet delivered, of which the receiver's window takes so many.
#[derive(Default)]
pub(crate) struct Pipe {
    bytes: VecDeque<u8>,
    finished: bool,
    delivered_end: bool,
}

/// The two ends of a session and what lies between.
pub(crate) struct Pair {
    pub(crate) now: Instant,
    pub(crate) client: ClientSession,
    pub(crate) server: ServerSession,
    /// Largest piece delivered at once.
    pub(crate) piece_bytes: usize,
    /// Bytes that either pipe holds before its transport takes no more.
    pub(crate) pipe_bytes: usize,
    /// Whether the client takes what the server sends.
    pub(crate) client_reads: bool,
    pub(crate) client_events: Vec<ClientEvent>,
    pub(crate) server_events: Vec<ServerEvent>,
    /// What the server sent in all, undelivered or not.
    pub(crate) server_sent: Vec<u8>,
    up: Pipe,
    down: Pipe,
    up_held: VecDeque<Bytes>,
    down_held: VecDeque<Bytes>,
}

pub(crate) fn options() -> ClientOptions {
    ClientOptions { network: Some(NETWORK), ack_level: AckLevel::Durable, ..ClientOptions::default() }
}

impl Pair {
    pub(crate) fn new(limits: SessionLimits, options: ClientOptions) -> Self {
        let now = Instant::now();
        Self {
            now,
            client: ClientSession::new(options, now),
            server: ServerSession::new(limits, welcome_info(), now),
            piece_bytes: usize::MAX,
            pipe_bytes: usize::MAX,
            client_reads: true,
            client_events: Vec::new(),
            server_events: Vec::new(),
            server_sent: Vec::new(),
            up: Pipe::default(),
            down: Pipe::default(),
            up_held: VecDeque::new(),
            down_held: VecDeque::new(),
        }
    }

    /// A pair that has shaken hands.
    pub(crate) fn open(limits: SessionLimits) -> Self {
        let mut pair = Self::new(limits, options());
        pair.run();
        assert!(matches!(pair.client_events[..], [ClientEvent::Welcomed(_)]), "{:?}", pair.client_events);
        assert!(matches!(pair.server_events[..], [ServerEvent::Opened(_)]), "{:?}", pair.server_events);
        pair.client_events.clear();
        pair.server_events.clear();
        pair
    }

    /// Puts bytes of the test's making on the way to the server.
    pub(crate) fn inject(&mut self, bytes: &[u8]) {
        self.up.bytes.extend(bytes);
    }

    pub(crate) fn inject_frame(&mut self, frame: &Frame) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.inject(&bytes);
    }

    pub(crate) fn inject_to_client(&mut self, frame: &Frame) {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        self.down.bytes.extend(bytes);
    }

    /// Ends the client's side of the stream.
    pub(crate) fn finish_client(&mut self) {
        self.up.finished = true;
    }

    /// Moves bytes until nothing moves. Time stands still.
    pub(crate) fn run(&mut self) {
        while self.step() {}
    }

    /// One piece in each direction. False if there was nothing to move.
    pub(crate) fn step(&mut self) -> bool {
        let mut moved = false;
        let now = self.now;

        let mut pieces = Vec::new();
        self.client.poll_transmit(usize::MAX, &mut pieces);
        self.up_held.extend(pieces.drain(..));
        let taken = fill(&mut self.up, &mut self.up_held, self.pipe_bytes);
        if taken > 0 {
            moved = true;
            self.client.handle_transmitted(now, taken);
        }
        if self.client.end() == Some(End::Finish) {
            self.up.finished = true;
        }
        self.server.poll_transmit(usize::MAX, &mut pieces);
        for piece in &pieces {
            self.server_sent.extend_from_slice(piece);
        }
        self.down_held.extend(pieces.drain(..));
        let taken = fill(&mut self.down, &mut self.down_held, self.pipe_bytes);
        if taken > 0 {
            moved = true;
            self.server.handle_transmitted(now, taken);
        }
        match self.server.end() {
            Some(End::Finish) => self.down.finished = true,
            Some(End::Reset(code)) if !self.down.delivered_end => {
                self.down.delivered_end = true;
                self.client.handle_reset(code.code().into());
                moved = true;
            }
            _ => {}
        }

        let piece = front(&self.up, self.piece_bytes);
        let taken = self.server.handle_input(now, &piece);
        self.up.bytes.drain(..taken);
        moved |= taken > 0;
        if self.up.bytes.is_empty() && self.up.finished && !self.up.delivered_end {
            self.up.delivered_end = true;
            self.server.handle_finished(now);
            moved = true;
        }
        if self.client_reads {
            let piece = front(&self.down, self.piece_bytes);
            let taken = self.client.handle_input(now, &piece);
            self.down.bytes.drain(..taken);
            moved |= taken > 0;
            if self.down.bytes.is_empty() && self.down.finished && !self.down.delivered_end {
                self.down.delivered_end = true;
                self.client.handle_finished(now);
                moved = true;
            }
        }
        self.client_events.extend(std::iter::from_fn(|| self.client.poll()));
        self.server_events.extend(std::iter::from_fn(|| self.server.poll()));
        moved
    }

    /// Lets time pass, with every deadline on the way.
    pub(crate) fn advance(&mut self, by: Duration) {
        let until = self.now + by;
        loop {
            self.run();
            let next = [self.client.poll_timeout(), self.server.poll_timeout()].into_iter().flatten().min();
            match next {
                Some(next) if next <= until => {
                    self.now = self.now.max(next);
                    self.client.handle_timeout(self.now);
                    self.server.handle_timeout(self.now);
                }
                _ => break,
            }
        }
        self.now = until;
        self.run();
    }

    /// Submits one message of each length.
    pub(crate) fn submit(&mut self, lengths: &[u16]) -> u64 {
        let total = lengths.iter().map(|length| usize::from(*length)).sum();
        self.client.submit(self.now, lengths, vec![0x5A; total].into()).unwrap()
    }

    /// How the client's session ended, if it has.
    pub(crate) fn client_end(&self) -> Option<&SessionEnd> {
        self.client_events.iter().find_map(|event| match event {
            ClientEvent::Ended(end) => Some(end),
            _ => None,
        })
    }
}

fn front(pipe: &Pipe, bytes_max: usize) -> Vec<u8> {
    pipe.bytes.iter().take(bytes_max).copied().collect()
}

/// Moves what fits into the pipe, and returns how much.
fn fill(pipe: &mut Pipe, held: &mut VecDeque<Bytes>, limit: usize) -> usize {
    let mut taken = 0;
    while let Some(mut piece) = held.pop_front() {
        let room = limit.saturating_sub(pipe.bytes.len());
        let part = piece.split_to(room.min(piece.len()));
        pipe.bytes.extend(part.iter());
        taken += part.len();
        if !piece.is_empty() {
            held.push_front(piece);
            break;
        }
    }
    taken
}
