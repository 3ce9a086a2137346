//! One session on one QUIC stream: moves bytes between quinn and a sans-io machine.
//!
//! Owns the loop of a session. Invariants: both directions run in one task, so a session costs one task and
//! no channel; the machine is locked for as long as it takes to copy input or encode a reply, never across an
//! await; input waits when the machine wants none, so QUIC's flow control carries the back pressure to the
//! peer. Deadlines are the machine's.

use std::future::Future;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use quinn::{ReadError, RecvStream, SendStream, VarInt, WriteError};
use tokio::sync::Notify;

use crate::frame::ErrorCode;
use crate::session::{ClientEvent, ClientSession, End, ServerEvent, ServerSession};

/// Output given to quinn at once: enough for four segmented sends, little enough for the deadlines to see
/// progress.
const WRITE_BYTES: usize = 256 << 10;

/// Pieces of input taken from quinn at once. A piece is at most one datagram.
const READ_PIECES: usize = 16;

/// How long the end of a finished stream may take to reach the peer.
const FINISH_TIMEOUT: Duration = Duration::from_secs(5);

/// A sans-io session, as the loop sees it.
pub(crate) trait Machine: Send + 'static {
    type Event: Send;
    fn handle_input(&mut self, now: Instant, bytes: &[u8]) -> usize;
    fn wants_input(&self) -> bool;
    fn handle_finished(&mut self, now: Instant);
    fn handle_reset(&mut self, code: u64);
    fn handle_stopped(&mut self);
    fn handle_lost(&mut self);
    fn handle_timeout(&mut self, now: Instant);
    fn poll_timeout(&self) -> Option<Instant>;
    fn poll_transmit(&mut self, bytes_max: usize, out: &mut Vec<Bytes>);
    fn handle_transmitted(&mut self, now: Instant, bytes: usize);
    fn poll(&mut self) -> Option<Self::Event>;
    fn end(&self) -> Option<End>;
}

macro_rules! forward {
    ($machine:ty, $event:ty, { $($own:item)* }) => {
        impl Machine for $machine {
            type Event = $event;
            fn handle_input(&mut self, now: Instant, bytes: &[u8]) -> usize {
                self.handle_input(now, bytes)
            }
            fn handle_finished(&mut self, now: Instant) {
                self.handle_finished(now);
            }
            fn handle_lost(&mut self) {
                self.handle_lost();
            }
            fn handle_timeout(&mut self, now: Instant) {
                self.handle_timeout(now);
            }
            fn poll_timeout(&self) -> Option<Instant> {
                self.poll_timeout()
            }
            fn poll_transmit(&mut self, bytes_max: usize, out: &mut Vec<Bytes>) {
                self.poll_transmit(bytes_max, out);
            }
            fn handle_transmitted(&mut self, now: Instant, bytes: usize) {
                self.handle_transmitted(now, bytes);
            }
            fn poll(&mut self) -> Option<$event> {
                self.poll()
            }
            fn end(&self) -> Option<End> {
                self.end()
            }
            $($own)*
        }
    };
}

forward!(ServerSession, ServerEvent, {
    fn wants_input(&self) -> bool {
        self.wants_input()
    }
    // A client that wants no replies, or sends no further, is gone.
    fn handle_reset(&mut self, _code: u64) {
        self.handle_lost();
    }
    fn handle_stopped(&mut self) {
        self.handle_lost();
    }
});

forward!(ClientSession, ClientEvent, {
    fn wants_input(&self) -> bool {
        true
    }
    fn handle_reset(&mut self, code: u64) {
        self.handle_reset(code);
    }
    // The server reads no further: why, it says on its own side of the stream.
    fn handle_stopped(&mut self) {
        self.discard_output();
    }
});

/// A machine and the means to wake its loop.
#[derive(Debug)]
pub(crate) struct Link<M> {
    machine: Mutex<M>,
    /// There may be output, an earlier deadline, or an end.
    output: Notify,
    /// The machine may want input again, and with it events be handled; or the loop is to end.
    input: Notify,
    /// There may be room for a notice: output has fallen below its mark, or more was granted.
    pub(super) room: Notify,
}

impl<M: Machine> Link<M> {
    pub(crate) fn new(machine: M) -> Self {
        Self {
            machine: Mutex::new(machine),
            output: Notify::new(),
            input: Notify::new(),
            room: Notify::new(),
        }
    }

    /// The machine. A panic of a caller of ours leaves it whole: its methods do not call back.
    pub(crate) fn lock(&self) -> MutexGuard<'_, M> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called after anything that may make output or an end.
    pub(crate) fn wake(&self) {
        self.output.notify_one();
    }
}

/// What the owner of a session does with its events.
pub(crate) trait Handler<M: Machine>: Send {
    /// Whether events that came before the end are still to be handled after it.
    const HANDLES_AFTER_END: bool;

    /// Handles one event. No further input is read meanwhile.
    fn handle(&mut self, event: M::Event) -> impl Future<Output = ()> + Send;
}

/// Runs a session to its end.
pub(crate) async fn run<M: Machine, H: Handler<M>>(
    link: &Link<M>,
    mut send: SendStream,
    mut recv: RecvStream,
    handler: &mut H,
) {
    {
        let mut writer = pin!(write(link, &mut send));
        let mut reader = pin!(read(link, &mut recv, handler));
        let mut reading = true;
        loop {
            tokio::select! {
                biased;
                () = &mut writer => break,
                () = &mut reader, if reading => reading = false,
            }
        }
        if H::HANDLES_AFTER_END && reading {
            link.input.notify_one();
            reader.await;
        }
    }
    let end = link.lock().end();
    match end {
        Some(End::Finish) => {
            // Fails only if the stream has ended already.
            let _ = send.finish();
            let _ = recv.stop(VarInt::from_u32(0));
            let _ = tokio::time::timeout(FINISH_TIMEOUT, send.stopped()).await;
        }
        Some(End::Reset(code)) => close_both(&mut send, &mut recv, code),
        None => close_both(&mut send, &mut recv, ErrorCode::Internal),
    }
    // What the owner's clones of the link would hold from now on is nothing.
    link.lock().handle_lost();
}

fn close_both(send: &mut SendStream, recv: &mut RecvStream, code: ErrorCode) {
    let code = VarInt::from_u32(code.code().into());
    let _ = send.reset(code);
    let _ = recv.stop(code);
}

async fn write<M: Machine>(link: &Link<M>, send: &mut SendStream) {
    let mut pieces: Vec<Bytes> = Vec::new();
    let mut sent = 0;
    let mut sleep = pin!(tokio::time::sleep(Duration::ZERO));
    let mut armed: Option<Instant> = None;
    loop {
        let (end, deadline) = {
            let mut machine = link.lock();
            if sent == pieces.len() {
                pieces.clear();
                sent = 0;
                machine.poll_transmit(WRITE_BYTES, &mut pieces);
            }
            (machine.end(), machine.poll_timeout())
        };
        match end {
            Some(End::Reset(_)) => return,
            Some(End::Finish) if pieces.is_empty() => return,
            _ => {}
        }
        // A deadline that moves away is looked at when the old one fires: timers are dearer than a needless
        // look.
        if let Some(deadline) = deadline
            && armed.is_none_or(|armed| deadline < armed)
        {
            sleep.as_mut().reset(deadline.into());
            armed = Some(deadline);
        }
        tokio::select! {
            biased;
            written = send.write_chunks(&mut pieces[sent..]), if sent < pieces.len() => match written {
                Ok(written) => {
                    sent += written.chunks;
                    let mut machine = link.lock();
                    let waited = !machine.wants_input();
                    machine.handle_transmitted(Instant::now(), written.bytes);
                    if waited && machine.wants_input() {
                        link.input.notify_one();
                        link.room.notify_waiters();
                    }
                }
                Err(error) => {
                    pieces.clear();
                    sent = 0;
                    match error {
                        WriteError::Stopped(_) => link.lock().handle_stopped(),
                        _ => link.lock().handle_lost(),
                    }
                }
            },
            () = link.output.notified() => {}
            () = &mut sleep, if armed.is_some() => {
                armed = None;
                link.lock().handle_timeout(Instant::now());
            }
        }
    }
}

async fn read<M: Machine, H: Handler<M>>(link: &Link<M>, recv: &mut RecvStream, handler: &mut H) {
    let mut pieces = [const { Bytes::new() }; READ_PIECES];
    let mut events = Vec::new();
    loop {
        let read = tokio::select! {
            read = recv.read_chunks(&mut pieces) => Some(read),
            () = link.input.notified() => None,
        };
        let filled = match read {
            None => 0,
            Some(Ok(Some(filled))) => filled,
            Some(Ok(None)) => {
                link.lock().handle_finished(Instant::now());
                0
            }
            Some(Err(ReadError::Reset(code))) => {
                link.lock().handle_reset(code.into_inner());
                0
            }
            Some(Err(_)) => {
                link.lock().handle_lost();
                0
            }
        };
        let ended = matches!(read, Some(Ok(None) | Err(_)));
        let mut at = 0;
        loop {
            let over = {
                let mut machine = link.lock();
                let now = Instant::now();
                while at < filled {
                    let taken = machine.handle_input(now, &pieces[at]);
                    pieces[at].advance(taken);
                    if !pieces[at].is_empty() {
                        break;
                    }
                    pieces[at] = Bytes::new();
                    at += 1;
                }
                while let Some(event) = machine.poll() {
                    events.push(event);
                }
                machine.end().is_some()
            };
            // Input may have made a reply, an error or an end.
            link.wake();
            for event in events.drain(..) {
                // A reply begins below the mark only, however many were asked for at once.
                while !link.lock().wants_input() {
                    link.input.notified().await;
                }
                handler.handle(event).await;
            }
            if over || (ended && at == filled) {
                return;
            }
            if at == filled {
                break;
            }
            link.input.notified().await;
        }
    }
}
