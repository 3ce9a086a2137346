//! The bounded hand-over from generator threads to connections.
//!
//! Owns one queue, ordered by batch number, between producers that block (std threads) and consumers that await (tasks). A consumer gets
//! the oldest batch once its release time has come: with several generator threads a batch that was finished early never holds back
//! one that is due sooner. Urgent batches are handed out before all others, and find a quarter more room. Invariants: the weights inside
//! (messages) exceed `capacity` and that quarter by one batch per producer at most; after [`Queue::close`] pushes fail and consumers get what is left, then `None`.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// A bounded queue of timed items.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    capacity: u64,
    state: Mutex<State<T>>,
    /// Signals producers: an item left, or the queue was closed.
    room: Condvar,
    /// Signals consumers: an item arrived or remains, or the queue was closed.
    ready: Notify,
}

#[derive(Debug)]
struct State<T> {
    /// The urgent ones, and the others.
    items: [BTreeMap<u64, Item<T>>; 2],
    weight: u64,
    /// Producers that wait for room, by the numbers of their items.
    waiting: BTreeMap<u64, Waiting>,
    /// Until when a producer last waited, if no consumer has found nothing to take since.
    held_until: Option<Instant>,
    closed: bool,
}

/// A time in which consumers were what held items up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// When the producer began to wait; or when it, or another, was last done with waiting, if consumers had something to take all along:
    /// however long its item took to make, nobody waited for that.
    pub(crate) from: Instant,
    /// When there was room.
    pub(crate) until: Instant,
    /// For how long the producer waited.
    pub(crate) waited: Duration,
}

/// A producer that waits for room.
#[derive(Debug)]
struct Waiting {
    weight: u64,
    capacity: u64,
    /// Since when there is some.
    room_at: Option<Instant>,
}

impl<T> State<T> {
    /// Into an empty queue everything goes; and a producer whose item is older than all inside must not wait for those to leave.
    fn has_room(&self, number: u64, weight: u64, capacity: u64) -> bool {
        let older = |items: &BTreeMap<u64, Item<T>>| {
            items.first_key_value().is_some_and(|(first, _)| *first < number)
        };
        self.weight + weight <= capacity || !self.items.iter().any(older)
    }

    /// Notes for whom there is room now. A producer may get a core only later, and that is not the queue's doing.
    fn note_room(&mut self, now: Instant) {
        let mut waiting = std::mem::take(&mut self.waiting);
        for (number, producer) in &mut waiting {
            if producer.room_at.is_none() && self.has_room(*number, producer.weight, producer.capacity) {
                producer.room_at = Some(now);
                self.held_until = Some(now);
            }
        }
        self.waiting = waiting;
    }
}

#[derive(Debug)]
struct Item<T> {
    release: Instant,
    weight: u64,
    value: T,
}

impl<T> Queue<T> {
    /// An empty queue for items that weigh `capacity` together.
    pub(crate) fn new(capacity: u64) -> Self {
        Self {
            capacity,
            state: Mutex::new(State {
                items: [BTreeMap::new(), BTreeMap::new()],
                weight: 0,
                waiting: BTreeMap::new(),
                held_until: None,
                closed: false,
            }),
            room: Condvar::new(),
            ready: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts `value` in, to be handed out from `release` on, after all of lower `number` that are as `urgent`. Blocks while the queue is full, and tells from when
    /// until when it was, if so; gives the value back if the queue is closed.
    pub(crate) fn push(
        &self,
        number: u64,
        urgent: bool,
        release: Instant,
        weight: u64,
        value: T,
    ) -> Result<Option<Held>, T> {
        let capacity = if urgent { self.capacity + self.capacity / 4 } else { self.capacity };
        let which = usize::from(!urgent);
        let mut state = self.lock();
        let mut wait = None;
        while !state.closed && !state.has_room(number, weight, capacity) {
            wait.get_or_insert_with(|| (Instant::now(), state.held_until));
            // Room that another producer took was none.
            state.waiting.insert(number, Waiting { weight, capacity, room_at: None });
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let room_at = state.waiting.remove(&number).and_then(|waiting| waiting.room_at);
        if state.closed {
            return Err(value);
        }
        state.weight += weight;
        state.items[which].insert(number, Item { release, weight, value });
        // Not dry since it was full: whoever made this up waited for nobody, and what it made waits for all that is before it.
        let behind = state.held_until.filter(|_| wait.is_none());
        drop(state);
        self.ready.notify_one();
        let blocked = wait.map(|(began, held_until)| {
            let until = room_at.unwrap_or_else(Instant::now);
            Held { from: held_until.unwrap_or(began).min(began), until, waited: until - began }
        });
        Ok(blocked.or_else(|| {
            behind.map(|from| Held { from, until: Instant::now().max(from), waited: Duration::ZERO })
        }))
    }

    /// The oldest item, once it is due; `None` when the queue is closed and empty. Safe to cancel: an item is taken only by the poll
    /// that returns it.
    pub(crate) async fn pop(&self) -> Option<T> {
        loop {
            let notified = self.ready.notified();
            let wait_until = {
                let mut state = self.lock();
                let now = Instant::now();
                let due = state.items.iter_mut().find_map(|items| {
                    items.first_entry().filter(|entry| entry.get().release <= now).map(|entry| entry.remove())
                });
                if let Some(item) = due {
                    state.weight -= item.weight;
                    state.note_room(now);
                    let more = state.items.iter().any(|items| !items.is_empty());
                    drop(state);
                    self.room.notify_all();
                    if more {
                        // Another consumer may be asleep without a deadline.
                        self.ready.notify_one();
                    }
                    return Some(item.value);
                }
                state.held_until = None;
                let next = state
                    .items
                    .iter()
                    .filter_map(|items| items.values().next())
                    .map(|item| item.release)
                    .min();
                if next.is_none() && state.closed {
                    return None;
                }
                next
            };
            match wait_until {
                Some(release) => {
                    // Either end means: look again.
                    let _ = tokio::time::timeout_at(release.into(), notified).await;
                }
                None => notified.await,
            }
        }
    }

    /// Ends the queue: pushes fail from now on, consumers get what is inside and then `None`. With `discard` what is inside is dropped.
    pub(crate) fn close(&self, discard: bool) {
        let mut state = self.lock();
        state.closed = true;
        if discard {
            state.items.iter_mut().for_each(BTreeMap::clear);
            state.weight = 0;
        }
        drop(state);
        self.room.notify_all();
        // Reaches every `Notified` that exists, polled or not: a consumer makes its own before it looks at the queue.
        self.ready.notify_waiters();
    }

    /// Whether nothing is inside.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().items.iter().all(BTreeMap::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn length(held: Option<Held>) -> Duration {
        held.map_or(Duration::ZERO, |held| held.waited)
    }

    #[tokio::test]
    async fn items_leave_in_the_order_of_their_numbers() {
        let queue = Queue::new(8);
        let now = Instant::now();
        for number in [2, 0, 3, 1] {
            queue.push(number, false, now, 1, number).unwrap();
        }
        queue.close(false);
        for number in 0..4 {
            assert_eq!(queue.pop().await, Some(number));
        }
        assert_eq!(queue.pop().await, None);
    }

    #[tokio::test]
    async fn urgent_items_overtake_those_that_wait_and_find_room_where_those_do_not() {
        let queue = Queue::new(4);
        let now = Instant::now();
        for number in 0..4 {
            queue.push(number, false, now, 1, number).unwrap();
        }
        // Full for others, and not for this one; nor does it hold them back while it is not due.
        queue.push(9, true, now, 1, 9).unwrap();
        assert_eq!((queue.pop().await, queue.pop().await), (Some(9), Some(0)));
        queue.push(10, true, now + Duration::from_secs(60), 1, 10).unwrap();
        assert_eq!(queue.pop().await, Some(1));
    }

    #[tokio::test]
    async fn an_item_does_not_leave_before_its_release() {
        let queue = Queue::new(8);
        let release = Instant::now() + Duration::from_millis(30);
        queue.push(0, false, release, 1, ()).unwrap();
        queue.pop().await.unwrap();
        assert!(Instant::now() >= release);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn an_older_item_overtakes_one_that_is_waited_for() {
        let queue = Arc::new(Queue::new(8));
        let start = Instant::now();
        queue.push(1, false, start + Duration::from_secs(5), 1, 1).unwrap();
        let consumer = tokio::spawn({
            let queue = Arc::clone(&queue);
            async move { queue.pop().await }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        queue.push(0, false, start, 1, 0).unwrap();
        assert_eq!(consumer.await.unwrap(), Some(0));
        assert!(start.elapsed() < Duration::from_secs(4));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_full_queue_holds_its_producer_back_until_an_item_leaves() {
        let queue = Arc::new(Queue::new(2));
        let now = Instant::now();
        let producer = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || (0..10).map(|n| length(queue.push(n, false, now, 1, n).unwrap())).sum::<Duration>()
        });
        for number in 0..10 {
            tokio::time::sleep(Duration::from_millis(2)).await;
            assert!(queue.lock().weight <= 2);
            assert_eq!(queue.pop().await, Some(number));
        }
        let waited = producer.join().unwrap();
        assert!(waited >= Duration::from_millis(8), "and is told that it waited: {waited:?}");
    }

    /// The backlog is the target's doing, and a generator that gets no core once there is room again is not.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_producer_is_held_back_until_there_is_room_and_not_until_it_has_a_core() {
        let queue = Arc::new(Queue::new(1));
        let now = Instant::now();
        queue.push(0, false, now, 1, 0).unwrap();
        let producer = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.push(1, false, now, 1, 1).unwrap()
        });
        while queue.lock().waiting.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        let room = {
            // As `pop` does, but for what a busy machine does to the producer meanwhile.
            let mut state = queue.lock();
            state.items[1].clear();
            state.weight = 0;
            let room = Instant::now();
            state.note_room(room);
            queue.room.notify_all();
            std::thread::sleep(Duration::from_millis(100));
            room
        };
        let held = producer.join().unwrap().unwrap();
        assert_eq!(held.until, room);
        assert!(length(Some(held)) >= Duration::from_millis(20));
    }

    /// A target that takes faster than the producer makes: it never waits again, and all that it makes up for stands behind what is there.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn items_that_are_made_up_for_behind_others_are_held_until_consumers_find_nothing() {
        let queue = Arc::new(Queue::new(3));
        let now = Instant::now();
        (0..3).for_each(|number| assert!(queue.push(number, false, now, 1, number).unwrap().is_none()));
        let producer = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.push(3, false, now, 1, 3).unwrap().unwrap()
        });
        while queue.lock().waiting.is_empty() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        queue.pop().await.unwrap();
        let waited = producer.join().unwrap();
        queue.pop().await.unwrap();
        let behind = queue.push(4, false, now, 1, 4).unwrap().unwrap();
        assert_eq!((behind.from, behind.waited), (waited.until, Duration::ZERO));
        assert!(behind.until > behind.from, "until it was there");
        for _ in 0..3 {
            queue.pop().await.unwrap();
        }
        assert!(tokio::time::timeout(Duration::from_millis(5), queue.pop()).await.is_err(), "dry");
        assert!(queue.push(5, false, now, 1, 5).unwrap().is_none());
    }

    /// The first of two waits ends, the producer takes 30 ms and more to make its next item, and waits again.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_producer_that_is_slow_while_consumers_have_enough_to_take_holds_nothing_up() {
        for dry in [false, true] {
            let queue = Arc::new(Queue::new(2));
            let now = Instant::now();
            let (go, gone) = std::sync::mpsc::channel();
            let producer = std::thread::spawn({
                let queue = Arc::clone(&queue);
                move || {
                    let push = |number| queue.push(number, false, now, 1, number).unwrap();
                    assert!(push(0).is_none() && push(1).is_none());
                    let first = push(2).unwrap();
                    gone.recv().unwrap();
                    std::thread::sleep(Duration::from_millis(30));
                    if dry {
                        assert!(push(3).is_none() && push(4).is_none());
                    }
                    (first, push(5).unwrap())
                }
            });
            let pop_of_a_waiting_one = async || {
                while queue.lock().waiting.is_empty() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                queue.pop().await.unwrap();
                while !queue.lock().waiting.is_empty() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            };
            pop_of_a_waiting_one().await;
            if dry {
                for _ in 0..2 {
                    queue.pop().await.unwrap();
                }
                let nothing = tokio::time::timeout(Duration::from_millis(5), queue.pop()).await;
                assert!(nothing.is_err(), "it is still at work on its next");
            }
            go.send(()).unwrap();
            pop_of_a_waiting_one().await;
            let (first, second) = producer.join().unwrap();
            let gap = second.from - first.until;
            assert_eq!(gap >= Duration::from_millis(30), dry, "{gap:?}");
            assert!(gap.is_zero() != dry && second.until - second.from >= second.waited);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_item_is_lost_between_many_producers_and_consumers() {
        let queue = Arc::new(Queue::new(4));
        let now = Instant::now();
        let producers: Vec<_> = (0..3u64)
            .map(|producer| {
                let queue = Arc::clone(&queue);
                std::thread::spawn(move || {
                    for number in (0..300).map(|i| i * 3 + producer) {
                        queue.push(number, false, now, 1, number).unwrap();
                    }
                })
            })
            .collect();
        let consumers: Vec<_> = (0..3)
            .map(|_| {
                let queue = Arc::clone(&queue);
                tokio::spawn(async move {
                    let mut got = Vec::new();
                    while let Some(number) = queue.pop().await {
                        got.push(number);
                    }
                    got
                })
            })
            .collect();
        tokio::task::spawn_blocking(|| producers.into_iter().for_each(|thread| thread.join().unwrap()))
            .await
            .unwrap();
        queue.close(false);
        let mut got = Vec::new();
        for consumer in consumers {
            got.extend(consumer.await.unwrap());
        }
        got.sort_unstable();
        assert_eq!(got, (0..900).collect::<Vec<_>>());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn closing_wakes_everybody_and_refuses_what_comes_later() {
        let queue = Arc::new(Queue::new(1));
        let consumers: Vec<_> = (0..4)
            .map(|_| {
                let queue = Arc::clone(&queue);
                tokio::spawn(async move { queue.pop().await })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(10)).await;
        queue.close(true);
        for consumer in consumers {
            assert_eq!(consumer.await.unwrap(), None);
        }
        assert_eq!(queue.push(0, false, Instant::now(), 1, 7), Err(7));
    }
}
