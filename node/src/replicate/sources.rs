//! Whom a lane is taken from: its own node first, then whoever has more of it, in turn.
//!
//! Owns what is known of who was asked and to what avail. Rules: whose subscription ends, or brings nothing while somebody else has
//! more, is asked again only after a while, which doubles each time up to [`WAIT_MAX`] and is forgotten when a subscription to it makes the log
//! grow; meanwhile the others have their turn, and its claim to have more moves nobody. So a node that claims what it does not show, of its
//! own lane or another, costs a second, then a second in two, in four, and so on; and a lane of which anybody honest has more is had from
//! there. Bounded: one note for each peer and lane.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use weft_core::LaneId;

/// Wait after the first failure.
const WAIT_LEAST: Duration = Duration::from_secs(1);

/// The longest wait.
pub const WAIT_MAX: Duration = Duration::from_secs(32);

/// A subscription to another holder goes home after this long, whatever that holder claims to have more.
const HOME_AFTER: Duration = Duration::from_secs(60);

/// So often the time for the next batch doubles.
const PATIENCE_DOUBLES_MAX: u32 = 2;

/// A batch of which this much a second comes is waited for: half a megabit a second, so that a node behind a slow link gets the longest
/// batches that honest nodes seal in a minute, and whoever trickles less does not count as shipping.
pub const COMES_BYTES_PER_SECOND: u64 = 64 << 10;

/// Whether a batch comes of which so many bytes are there after so long.
pub fn comes(arrived: u64, idle: Duration) -> bool {
    let least = u128::from(COMES_BYTES_PER_SECOND) * idle.as_millis() / 1_000;
    arrived > 0 && u128::from(arrived) >= least
}

#[derive(Clone, Copy, Debug)]
struct Note {
    failures: u32,
    until: Instant,
}

/// What is to be decided on.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a, C> {
    /// The lane.
    pub lane: LaneId,
    /// Whether it is this node's: then nobody else is its node.
    pub own: bool,
    /// How much of it is here.
    pub size: u64,
    /// Peers that are connected.
    pub connected: &'a BTreeSet<LaneId>,
    /// How much of it a peer claims to have.
    pub claim: C,
    /// The moment.
    pub now: Instant,
}

/// Who was asked for what, and to what avail.
#[derive(Debug, Default)]
pub struct Sources {
    /// By lane and peer.
    notes: BTreeMap<(LaneId, LaneId), Note>,
    /// By lane: who but its own node was asked last.
    last: BTreeMap<LaneId, LaneId>,
}

impl Sources {
    /// A subscription has come to nothing.
    pub fn failed(&mut self, lane: LaneId, peer: LaneId, now: Instant) {
        let note = self.notes.entry((lane, peer)).or_insert(Note { failures: 0, until: now });
        let wait = WAIT_LEAST.saturating_mul(1 << note.failures.min(8)).min(WAIT_MAX);
        *note = Note { failures: note.failures.saturating_add(1), until: now + wait };
    }

    /// A subscription has made the log grow.
    pub fn served(&mut self, lane: LaneId, peer: LaneId) {
        self.notes.remove(&(lane, peer));
    }

    /// How long `peer` has for the next batch, where the usual one is `least`: longer after a failure, since a long batch on a slow link takes
    /// its time.
    pub fn patience(&self, lane: LaneId, peer: LaneId, least: Duration) -> Duration {
        let failures = self.notes.get(&(lane, peer)).map_or(0, |note| note.failures);
        least * (1 << failures.min(PATIENCE_DOUBLES_MAX))
    }

    /// Whether `peer` has ever come to nothing for `lane`, since it last served it.
    pub fn has_failed(&self, lane: LaneId, peer: LaneId) -> bool {
        self.notes.contains_key(&(lane, peer))
    }

    fn is_ready(&self, lane: LaneId, peer: LaneId, now: Instant) -> bool {
        self.notes.get(&(lane, peer)).is_none_or(|note| note.until <= now)
    }

    /// Who else has more of the lane and may be asked: the next one after who was asked last.
    fn other<C: Fn(LaneId) -> u64>(
        &self,
        question: &Question<'_, C>,
        but: &[Option<LaneId>],
    ) -> Option<LaneId> {
        let Question { lane, size, connected, claim, now, .. } = question;
        let last = self.last.get(lane).copied();
        let after = connected.iter().filter(|peer| last.is_some_and(|last| **peer > last));
        after.chain(connected.iter()).copied().find(|peer| {
            !but.contains(&Some(*peer)) && claim(*peer) > *size && self.is_ready(*lane, *peer, *now)
        })
    }

    /// Whether somebody but `peer` claims to have more, and has not been found not to.
    pub fn has_other<C: Fn(LaneId) -> u64>(&self, question: &Question<'_, C>, peer: LaneId) -> bool {
        self.other(question, &[Some(peer)]).is_some()
    }

    /// What others than `peer` claim to have at most, of those that have not been found not to.
    pub fn most_of_others<C: Fn(LaneId) -> u64>(&self, question: &Question<'_, C>, peer: LaneId) -> u64 {
        let Question { lane, connected, claim, now, .. } = question;
        let others = connected.iter().filter(|other| **other != peer && self.is_ready(*lane, **other, *now));
        others.map(|other| claim(*other)).max().unwrap_or(0)
    }

    /// Whether the subscription to `peer`, which began `since`, should go to the lane's own node: that is there, has at least as much as
    /// this node, and is not known to give nothing; and `peer` has brought what it claims to have, or has had long enough for it.
    pub fn goes_home<C: Fn(LaneId) -> u64>(
        &self,
        question: &Question<'_, C>,
        peer: LaneId,
        since: Instant,
    ) -> bool {
        let Question { lane, own, size, connected, claim, now } = question;
        !own && peer != *lane
            && connected.contains(lane)
            && claim(*lane) >= *size
            && (claim(peer) <= *size || now.saturating_duration_since(since) >= HOME_AFTER)
            && self.is_ready(*lane, *lane, *now)
    }

    /// Who is asked next, after `but` has been.
    pub fn choose<C: Fn(LaneId) -> u64>(
        &mut self,
        question: &Question<'_, C>,
        but: Option<LaneId>,
    ) -> Option<LaneId> {
        let Question { lane, own, connected, .. } = question;
        let home = !own && connected.contains(lane);
        if home && but != Some(*lane) && !self.has_failed(*lane, *lane) {
            return Some(*lane);
        }
        // Its own node had the first try.
        let other = self.other(question, &[home.then_some(*lane), but]);
        if let Some(other) = other {
            self.last.insert(*lane, other);
        }
        // If nobody else is known to have more, what comes next comes from there.
        other.or_else(|| (home && but != Some(*lane)).then_some(*lane))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LANE: LaneId = LaneId(0);

    fn peers(numbers: &[u16]) -> BTreeSet<LaneId> {
        numbers.iter().map(|number| LaneId(*number)).collect()
    }

    /// Plays seconds in which nobody ships anything: who was asked in which second.
    fn play(
        lane: LaneId,
        own: bool,
        numbers: &[u16],
        claims: impl Fn(LaneId) -> u64,
        seconds: u64,
    ) -> Vec<u16> {
        let (mut sources, connected, start) = (Sources::default(), peers(numbers), Instant::now());
        let (mut asked, mut current) = (Vec::new(), None);
        for second in 0..seconds {
            let now = start + Duration::from_secs(second);
            let question = Question { lane, own, size: 10, connected: &connected, claim: &claims, now };
            if let Some(peer) = current {
                sources.failed(lane, peer, now);
            }
            current = sources.choose(&question, current);
            asked.push(current.map_or(u16::MAX, |peer| peer.0));
        }
        asked
    }

    #[test]
    fn a_batch_comes_as_long_as_it_comes_at_a_least_rate() {
        let second = Duration::from_secs(1);
        assert!(!comes(0, Duration::ZERO) && comes(1, Duration::ZERO));
        assert!(comes(COMES_BYTES_PER_SECOND, second) && !comes(COMES_BYTES_PER_SECOND - 1, second));
        assert!(comes(4 << 20, 60 * second) && !comes(4 << 20, 65 * second), "the longest batch");
    }

    #[test]
    fn when_the_lanes_node_gives_nothing_everybody_who_has_more_is_asked_in_turn() {
        let asked = play(LANE, false, &[0, 1, 2, 3], |peer| if peer == LaneId(2) { 5 } else { 20 }, 3);
        assert_eq!(asked, [0, 1, 3], "who has no more than this node is not asked");
    }

    #[test]
    fn whoever_claims_most_and_shows_nothing_is_not_asked_for_ever() {
        // Node 3 claims everything of lane 5, whose own node is gone.
        let claims = |peer: LaneId| if peer == LaneId(3) { u64::MAX } else { 20 };
        let asked = play(LaneId(5), false, &[1, 2, 3], claims, 60);
        assert!(asked[..3].contains(&1) && asked[..3].contains(&2), "{asked:?}");
        assert!(asked.iter().filter(|peer| **peer == 3).count() <= 7, "{asked:?}");
    }

    #[test]
    fn of_the_own_lane_everybody_who_claims_more_is_asked() {
        let claims = |peer: LaneId| if peer == LaneId(1) { u64::MAX } else { 20 };
        assert_eq!(play(LANE, true, &[1, 2, 3], claims, 3), [1, 2, 3]);
        assert_eq!(play(LANE, true, &[1, 2, 3], |_| 10, 2), [u16::MAX; 2], "nobody has more");
    }

    #[test]
    fn a_false_claim_moves_an_idle_lane_less_and_less_often() {
        let (mut sources, connected, start) = (Sources::default(), peers(&[0, 3]), Instant::now());
        let claim = |peer: LaneId| if peer == LaneId(3) { u64::MAX } else { 10 };
        let (mut current, mut away) = (LANE, 0);
        for second in 0..200 {
            let now = start + Duration::from_secs(second);
            let question = Question { lane: LANE, own: false, size: 10, connected: &connected, claim, now };
            if current == LANE && !sources.has_other(&question, LANE) {
                continue;
            }
            sources.failed(LANE, current, now);
            current = sources.choose(&question, Some(current)).unwrap();
            away += u32::from(current != LANE);
        }
        assert!((1..=11).contains(&away), "{away} of 200 seconds with somebody who has nothing");
    }

    #[test]
    fn a_subscription_goes_back_to_the_lanes_node_once_it_is_there_and_has_as_much() {
        let (mut sources, now) = (Sources::default(), Instant::now());
        let start = now;
        let ask = |sources: &Sources, numbers: &[u16], (home, there): (u64, u64), now| {
            let connected = peers(numbers);
            let claim = |peer: LaneId| if peer == LANE { home } else { there };
            let question = Question { lane: LANE, own: false, size: 10, connected: &connected, claim, now };
            sources.goes_home(&question, LaneId(2), start)
        };
        assert!(!ask(&sources, &[1, 2], (10, 10), now), "it is not there");
        assert!(!ask(&sources, &[0, 2], (9, 10), now), "it has less");
        assert!(ask(&sources, &[0, 2], (10, 10), now));
        assert!(!ask(&sources, &[0, 2], (u64::MAX, 20), now), "there is more to be had where it is");
        assert!(ask(&sources, &[0, 2], (10, u64::MAX), now + HOME_AFTER), "or so it claims, for ever");
        sources.failed(LANE, LANE, now);
        assert!(!ask(&sources, &[0, 2], (10, 10), now), "it has just come to nothing");
        assert!(ask(&sources, &[0, 2], (10, 10), now + WAIT_LEAST));
        sources.failed(LANE, LANE, now);
        assert!(!ask(&sources, &[0, 2], (10, 10), now + WAIT_LEAST), "for longer each time");
        assert_eq!(sources.patience(LANE, LANE, WAIT_LEAST), 4 * WAIT_LEAST, "and it has longer");
        sources.served(LANE, LANE);
        assert_eq!(sources.patience(LANE, LANE, WAIT_LEAST), WAIT_LEAST);
        assert!(ask(&sources, &[0, 2], (10, 10), now));
    }
}
