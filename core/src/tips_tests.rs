//! Tests of the tip pool: its bounds, its promises about selections, its steady state against the Tangle
//! paper, and a flood.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use super::*;
use crate::ids::LaneId;
use crate::random::SplitMix64;

const ALL: [TipSelection; 3] =
    [TipSelection::Default, TipSelection::Urts, TipSelection::Mcmc { alpha: 0.05 }];

fn id(number: u64) -> MessageId {
    MessageId(crate::merkle::leaf_hash(&number.to_le_bytes()))
}

fn key(number: u64) -> DeviceKey {
    DeviceKey(crate::merkle::leaf_hash(&(number ^ u64::MAX).to_le_bytes()))
}

fn place(number: u64) -> Place {
    Place::new(LaneId(0), number)
}

fn roots() -> [MessageId; 2] {
    [id(u64::MAX), id(u64::MAX - 1)]
}

fn pool(selection: TipSelection, tips_max: usize) -> TipPool {
    TipPool::new(selection, roots(), tips_max, 42)
}

fn ids(tips: &[Tip]) -> Vec<MessageId> {
    tips.iter().map(|tip| tip.id).collect()
}

/// What must hold at any time, whatever happened.
fn check(pool: &TipPool) {
    assert!(pool.len() <= pool.tips_max);
    assert_eq!(pool.entries.len(), pool.live.len() + pool.free.len());
    assert_eq!(pool.issuers.len(), pool.live_issuers.len() + pool.free_issuers.len());
    let mut by_issuer: BTreeMap<u32, u32> = BTreeMap::new();
    for (at, slot) in pool.live.iter().enumerate() {
        let entry = &pool.entries[*slot as usize];
        assert_eq!(entry.at as usize, at);
        assert_eq!(pool.find(&entry.tip.id), Some(*slot));
        *by_issuer.entry(entry.issuer).or_default() += 1;
    }
    assert_eq!(by_issuer.len(), pool.live_issuers.len());
    for (at, slot) in pool.live_issuers.iter().enumerate() {
        let issuer = &pool.issuers[*slot as usize];
        assert_eq!(issuer.at as usize, at);
        assert_eq!(by_issuer[slot], issuer.tips);
        assert!(issuer.tips <= TIPS_PER_ISSUER_MAX);
        let mut length = 0;
        let mut walk = issuer.ends.newest;
        while walk != NONE {
            length += 1;
            walk = pool.entries[walk as usize].by_issuer.older;
        }
        assert_eq!(length, issuer.tips);
    }
}

#[test]
fn an_empty_pool_hands_out_the_genesis_roots() {
    for selection in ALL {
        let mut pool = pool(selection, 10);
        let mut random = SplitMix64::new(1);
        let tips = pool.select(8, &mut random);
        assert_eq!(tips, [0, 1].map(|i| Tip { id: roots()[i], place: Place::root(i as u8) }));
        assert_eq!(pool.select(1, &mut random).len(), 1);
        assert_eq!(pool.select(0, &mut random), []);
    }
}

#[test]
fn one_tip_is_made_up_to_two_parents_with_a_root() {
    for selection in ALL {
        let mut pool = pool(selection, 10);
        pool.insert(id(1), &key(1), place(1), &roots());
        assert_eq!(ids(&pool.select(8, &mut SplitMix64::new(1))), [id(1), roots()[0]]);
    }
}

#[test]
fn a_named_message_is_no_tip_any_more() {
    let mut pool = pool(TipSelection::Default, 10);
    pool.insert(id(1), &key(1), place(1), &roots());
    pool.insert(id(2), &key(2), place(2), &roots());
    pool.insert(id(3), &key(1), place(3), &[id(1), id(2)]);
    assert_eq!(ids(&pool.select(1, &mut SplitMix64::new(1))), [id(3)]);
    assert_eq!((pool.len(), pool.issuers()), (1, 1));
    pool.approve(&id(3));
    pool.approve(&id(3));
    assert!(pool.is_empty());
    check(&pool);
}

#[test]
fn a_selection_never_holds_two_equal_ids_and_reaches_every_tip() {
    for selection in ALL {
        let mut pool = pool(selection, 100);
        let mut random = SplitMix64::new(5);
        for number in 0..30 {
            pool.insert(id(number), &key(number % 7), place(number), &roots());
        }
        pool.set_witness(id(3), place(3));
        let mut seen = BTreeSet::new();
        for _ in 0..300 {
            let tips = pool.select(8, &mut random);
            let distinct: BTreeSet<_> = ids(&tips).into_iter().collect();
            assert_eq!((tips.len(), distinct.len()), (8, 8), "{selection:?}");
            seen.extend(distinct);
        }
        // Walks start in the older half of the window, and here they end where they start.
        let reachable = if matches!(selection, TipSelection::Mcmc { .. }) { 15 } else { 30 };
        assert_eq!(seen.len(), reachable, "{selection:?}");
        assert!(pool.select(100, &mut random).len() >= 25, "{selection:?}");
        assert_eq!(pool.len(), 30, "selecting takes nothing out");
        check(&pool);
    }
}

#[test]
fn the_default_hands_out_the_recent_witness_first() {
    let mut pool = pool(TipSelection::Default, 100);
    let mut random = SplitMix64::new(5);
    (0..10).for_each(|number| pool.insert(id(number), &key(number), place(number), &roots()));
    pool.set_witness(id(100), place(100));
    for _ in 0..20 {
        let tips = pool.select(2, &mut random);
        assert_eq!(tips[0], Tip { id: id(100), place: place(100) });
        assert_ne!(tips[1].id, id(100));
    }
    pool.set_witness(id(101), place(101));
    assert_eq!(ids(&pool.select(1, &mut random)), [id(101)]);
}

#[test]
fn the_default_draws_issuers_before_tips() {
    // One issuer with 50 tips, nine with one each: each issuer is drawn a tenth of the time, each of the 50 a
    // 50th of that.
    let mut pool = pool(TipSelection::Default, 100);
    (0..50).for_each(|number| pool.insert(id(number), &key(0), place(number), &roots()));
    (1..10).for_each(|issuer| pool.insert(id(100 + issuer), &key(issuer), place(100 + issuer), &roots()));
    let mut random = SplitMix64::new(8);
    let mut counts: BTreeMap<MessageId, u32> = BTreeMap::new();
    for _ in 0..50_000 {
        *counts.entry(pool.select(1, &mut random)[0].id).or_default() += 1;
    }
    assert_eq!(counts.len(), 59);
    for issuer in 1..10 {
        let count = counts[&id(100 + issuer)];
        assert!((4_700..5_300).contains(&count), "{count}");
    }
    for number in 0..50 {
        let count = counts[&id(number)];
        assert!((50..160).contains(&count), "{count}");
    }
}

#[test]
fn uniform_selection_draws_every_tip_alike() {
    let mut pool = pool(TipSelection::Urts, 100);
    (0..20).for_each(|number| pool.insert(id(number), &key(number / 15), place(number), &roots()));
    let mut random = SplitMix64::new(8);
    let mut counts: BTreeMap<MessageId, u32> = BTreeMap::new();
    for _ in 0..20_000 {
        for tip in pool.select(2, &mut random) {
            *counts.entry(tip.id).or_default() += 1;
        }
    }
    assert!(counts.len() == 20 && counts.values().all(|count| (1_800..2_200).contains(count)), "{counts:?}");
}

#[test]
fn a_full_pool_stays_at_its_limit_and_lets_the_oldest_go() {
    for selection in ALL {
        let mut pool = pool(selection, 50);
        for number in 0..500 {
            pool.insert(id(number), &key(number), place(number), &roots());
            check(&pool);
        }
        assert_eq!((pool.len(), pool.issuers(), pool.entries.len()), (50, 50, 50));
        assert!((450..500).all(|number| pool.contains(&id(number))));
        assert!(!pool.contains(&id(449)));
    }
}

#[test]
fn one_issuer_keeps_at_most_its_newest_64_tips() {
    let mut pool = pool(TipSelection::Default, 1_000);
    (0..200).for_each(|number| pool.insert(id(number), &key(1), place(number), &roots()));
    assert_eq!((pool.len(), pool.issuers()), (64, 1));
    assert!((136..200).all(|number| pool.contains(&id(number))));
    check(&pool);
    // The pool's own limit may be lower than an issuer's.
    let mut pool = self::pool(TipSelection::Default, 2);
    (0..200).for_each(|number| pool.insert(id(number), &key(1), place(number), &roots()));
    assert_eq!(pool.len(), 2);
    check(&pool);
}

#[test]
fn a_message_entered_twice_is_one_tip() {
    let mut pool = pool(TipSelection::Urts, 10);
    pool.insert(id(1), &key(1), place(1), &roots());
    pool.insert(id(1), &key(2), place(2), &roots());
    assert_eq!((pool.len(), pool.issuers()), (1, 1));
    check(&pool);
}

#[test]
fn the_pool_stays_sound_through_random_use() {
    for selection in ALL {
        let mut pool = pool(selection, 40);
        let mut random = SplitMix64::new(77);
        for number in 0..3_000 {
            let parents = match random.below(3) {
                0 => roots(),
                _ => {
                    let tips = pool.select(2, &mut random);
                    [tips[0].id, tips[1].id]
                }
            };
            pool.insert(id(number), &key(random.below(12)), place(number), &parents);
            if number % 16 == 0 {
                check(&pool);
            }
        }
    }
}

/// Messages that see the tips of `delay` messages ago: each chooses its parents, and is entered `delay`
/// choices later. Tells the mean number of tips over the second half of the run.
fn steady_state(selection: TipSelection, parents: usize, delay: usize, messages: u64) -> f64 {
    let mut pool = pool(selection, TIPS_DEFAULT);
    let mut random = SplitMix64::new(20_261_101);
    let mut under_way: VecDeque<(u64, Vec<MessageId>)> = VecDeque::new();
    let (mut sum, mut samples) = (0usize, 0usize);
    for number in 0..messages {
        under_way.push_back((number, ids(&pool.select(parents, &mut random))));
        if under_way.len() > delay {
            let (number, parents) = under_way.pop_front().unwrap();
            pool.insert(id(number), &key(number), place(number), &parents);
        }
        if number > messages / 2 {
            sum += pool.len();
            samples += 1;
        }
    }
    assert!(pool.len() < TIPS_DEFAULT / 2, "the limit must not be what holds the number down");
    sum as f64 / samples as f64
}

/// Popov, "The Tangle", equation (1): L0 = k * lambda * h / (k - 1). Here lambda * h is the delay in
/// messages. The arrivals are evenly spaced instead of a Poisson process, and the derivation is a mean-field
/// one: 5 % tolerance, for a standard error well below 1 %.
#[test]
fn uniform_selection_settles_at_the_number_of_tips_that_the_tangle_paper_derives() {
    for (parents, delay) in [(2, 100), (2, 400), (3, 200), (8, 200)] {
        let measured = steady_state(TipSelection::Urts, parents, delay, 100 * delay as u64);
        let expected = (parents * delay) as f64 / (parents - 1) as f64;
        let ratio = measured / expected;
        assert!((0.95..1.05).contains(&ratio), "k = {parents}: {measured:.0} tips, expected {expected:.0}");
    }
}

#[test]
fn the_default_settles_there_too_when_every_message_has_its_own_issuer() {
    let ratio = steady_state(TipSelection::Default, 2, 200, 20_000) / 400.0;
    assert!((0.95..1.05).contains(&ratio), "{ratio}");
}

/// One issuer sends as many messages as all 1,000 others together and names only the roots: it approves
/// nothing and leaves a tip with every message. Honest messages name two tips. Tells the largest numbers of
/// honest tips and of all tips in the second half.
fn flood(selection: TipSelection) -> (usize, usize) {
    const DELAY: usize = 100;
    let mut pool = pool(selection, TIPS_DEFAULT);
    let mut random = SplitMix64::new(3);
    let mut under_way: VecDeque<(u64, u64, Vec<MessageId>)> = VecDeque::new();
    let (mut honest_max, mut all_max) = (0, 0);
    for number in 0..40_000 {
        let entry = if number % 2 == 0 {
            (number, 0, roots().to_vec())
        } else {
            (number, 1 + random.below(1_000), ids(&pool.select(2, &mut random)))
        };
        under_way.push_back(entry);
        if under_way.len() > DELAY {
            let (number, issuer, parents) = under_way.pop_front().unwrap();
            pool.insert(id(number), &key(issuer), place(number), &parents);
        }
        if number >= 20_000 && number % 50 == 0 {
            let flooder = pool.by_key.hash(&key(0).0);
            let flooder = pool.by_key.find(flooder, |slot| pool.issuers[slot as usize].key == key(0));
            let flooding = flooder.map_or(0, |slot| pool.issuers[slot as usize].tips as usize);
            honest_max = honest_max.max(pool.len() - flooding);
            all_max = all_max.max(pool.len());
        }
    }
    (honest_max, all_max)
}

#[test]
fn a_flood_by_one_issuer_at_half_the_rate_leaves_the_number_of_tips_bounded() {
    // 50 honest messages are under way at a time: their steady state without the flood is 100 tips.
    let (honest, all) = flood(TipSelection::Default);
    assert!(honest < 200, "{honest} honest tips");
    assert!(all < 200 + TIPS_PER_ISSUER_MAX as usize, "{all} tips");
}

#[test]
fn the_same_seed_gives_the_same_selections() {
    for selection in ALL {
        let run = || {
            let mut pool = pool(selection, 100);
            let mut random = SplitMix64::new(4);
            let mut all = Vec::new();
            for number in 0..500 {
                let tips = ids(&pool.select(2, &mut random));
                pool.insert(id(number), &key(number % 9), place(number), &tips);
                if number % 3 == 0 {
                    pool.insert(id(10_000 + number), &key(number % 5), place(number), &roots());
                }
                all.extend(tips);
            }
            all
        };
        assert_eq!(run(), run());
    }
}
