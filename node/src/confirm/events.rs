//! The driver's queue: what it is told, bounded by number and by memory.
//!
//! Owns how much may wait. Invariants: what waits takes at most [`EVENT_BYTES_MAX`], or is one single event; order is that of each
//! sender. A batch in short or a witness may unfold to megabytes from a few kilobytes that a liar sends, so counting events alone would
//! bound nothing. Whoever sends waits for room: the driver waits for the disk and for nobody else, so there is always some again.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::driver::{EVENTS_QUEUED_MAX, Event};

/// Memory of everything that waits.
pub const EVENT_BYTES_MAX: usize = 64 << 20;

#[derive(Debug, Default)]
struct Room {
    taken: Mutex<Taken>,
    freed: Condvar,
}

#[derive(Debug, Default)]
struct Taken {
    bytes: usize,
    /// Nobody takes any more.
    closed: bool,
}

impl Room {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        // A number and a flag: whole at all times.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The driver is gone: the node ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("confirmation has ended")]
pub struct Gone;

/// Where events go in. Clones are ends of the same queue.
#[derive(Clone, Debug)]
pub struct EventSender {
    queue: Sender<Event>,
    room: Arc<Room>,
}

/// Where events come out.
#[derive(Debug)]
pub struct EventReceiver {
    queue: Receiver<Event>,
    room: Arc<Room>,
}

/// An empty queue.
#[must_use]
pub fn events() -> (EventSender, EventReceiver) {
    let (sender, receiver) = bounded(EVENTS_QUEUED_MAX);
    let room = Arc::<Room>::default();
    (EventSender { queue: sender, room: room.clone() }, EventReceiver { queue: receiver, room })
}

impl EventSender {
    /// Puts an event in; waits for room.
    ///
    /// # Errors
    /// [`Gone`].
    pub fn send(&self, event: Event) -> Result<(), Gone> {
        let bytes = event.held_bytes();
        if bytes > 0 {
            let mut taken = self.room.lock();
            while !taken.closed && taken.bytes > 0 && taken.bytes + bytes > EVENT_BYTES_MAX {
                taken = self.room.freed.wait(taken).unwrap_or_else(PoisonError::into_inner);
            }
            if taken.closed {
                return Err(Gone);
            }
            taken.bytes += bytes;
        }
        self.queue.send(event).map_err(|_| Gone)
    }

    /// Makes the driver look again. Where there is no room it is awake.
    pub fn wake(&self) {
        let _ = self.queue.try_send(Event::Wake);
    }
}

impl EventReceiver {
    fn took(&self, event: Event) -> Event {
        let bytes = event.held_bytes();
        if bytes > 0 {
            let mut taken = self.room.lock();
            taken.bytes = taken.bytes.saturating_sub(bytes);
            self.room.freed.notify_all();
        }
        event
    }

    /// The next event, if one comes in time.
    ///
    /// # Errors
    /// None came, or nobody is left to send one.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Event, RecvTimeoutError> {
        self.queue.recv_timeout(timeout).map(|event| self.took(event))
    }

    /// The next event; `None` when nobody is left to send one.
    pub fn recv(&self) -> Option<Event> {
        self.queue.recv().ok().map(|event| self.took(event))
    }

    /// The events that wait.
    pub fn try_iter(&self) -> impl Iterator<Item = Event> + '_ {
        self.queue.try_iter().map(|event| self.took(event))
    }
}

impl Drop for EventReceiver {
    fn drop(&mut self) {
        self.room.lock().closed = true;
        self.room.freed.notify_all();
    }
}

impl Event {
    /// Memory that it takes while it waits, if that is much.
    pub fn held_bytes(&self) -> usize {
        match self {
            Self::Stored(digest) | Self::Side(digest) | Self::Again(digest) => digest.held_bytes(),
            Self::Witness { witness, .. } => witness.held_bytes(),
            Self::Proven(_) => weft_core::FORK_PROOF_BYTES_MAX,
            Self::Formed { .. } | Self::Damaged(_) | Self::Wake | Self::Stop => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;
    use std::time::Duration;

    use weft_core::confirm::{Rejects, Witness};
    use weft_core::{LaneId, MessageId};

    use super::*;

    /// A witness that takes a megabyte.
    fn large() -> Arc<Witness> {
        let positions = (0..131_072).collect();
        Arc::new(Witness { rejects: vec![Rejects { lane: LaneId(0), positions }], ..Witness::default() })
    }

    fn event(number: u16, witness: &Arc<Witness>) -> Event {
        Event::Witness { validator: number, id: MessageId([0; 32]), witness: witness.clone() }
    }

    #[test]
    fn what_waits_for_the_driver_is_bounded_by_its_memory_and_whoever_sends_more_waits() {
        let (sender, receiver) = events();
        let sent = EVENTS_QUEUED_MAX as u16 / 4;
        let sending = thread::spawn(move || {
            let witness = large();
            for number in 0..sent {
                sender.send(event(number, &witness)).unwrap();
            }
        });
        let mut most = 0;
        for number in 0..sent {
            // Time for the sender to fill the queue as far as it may.
            if number % 64 == 0 {
                thread::sleep(Duration::from_millis(50));
            }
            most = most.max(receiver.room.lock().bytes);
            let Some(Event::Witness { validator, .. }) = receiver.recv() else { panic!("a witness") };
            assert_eq!(validator, number, "in order");
        }
        sending.join().unwrap();
        assert!(most <= EVENT_BYTES_MAX && most > EVENT_BYTES_MAX / 2, "{most}");
        assert_eq!(receiver.room.lock().bytes, 0);
    }

    #[test]
    fn a_sender_that_waits_for_room_goes_on_when_the_driver_ends() {
        let (sender, receiver) = events();
        let witness = large();
        let sending =
            thread::spawn(move || (0..1_000).find_map(|number| sender.send(event(number, &witness)).err()));
        thread::sleep(Duration::from_millis(50));
        drop(receiver);
        assert_eq!(sending.join().unwrap(), Some(Gone));
    }
}
