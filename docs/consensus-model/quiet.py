#!/usr/bin/env python3
"""Who has to speak when all is quiet: the rule of decision 0022, its hole, and the mend of decision 0033, as a small model.

Owns the question when a validator makes a witness, and nothing else: four validators of equal weight, of which the last one lies, and an
ingest node H; lanes do not fork, there are no operations, every message arrives. So a copy of a lane is a prefix of the lane, and a claim is
a size. Levels are those of docs/confirmation.md: certified is a quorum of cuts or a third of certified cuts, final is a quorum of certified
cuts, and a batch is applied once what it cites is final.

The story: validators speak in some of four rounds, in all ways there are (4,096); then until they have nothing left to say. The liar shows
H alone a cut and a certified cut of its own over the end of an honest lane. Where that makes it final at H, H cites it, as it may. An honest
lane must not be stuck: H's batch has to become final at every honest node.

    python3 quiet.py              with the mend: nothing may be stuck, exit code 1 if anything is
    python3 quiet.py --without    without it: the stuck cases must be found, exit code 1 if none is
"""
import sys

VALIDATORS = range(4)
LIAR, H = 3, 4
HONEST = [0, 1, 2]
NODES = HONEST + [H]
LANES = NODES
QUORUM, THIRD = 3, 2                      # of four: more than two thirds, more than one third


class Batch:
    def __init__(self, witness=None, cites=None):
        self.witness, self.cites = witness, cites or {}
        # Data matter, and so does a witness that covers data.
        self.matters = witness is None or witness.covers_data


class Witness:
    def __init__(self, cut, certified, covers_data=False):
        self.cut, self.certified, self.covers_data = cut, certified, covers_data


class Node:
    def __init__(self, number, mended):
        self.number, self.mended = number, mended
        self.copy = {lane: [] for lane in LANES}
        self.applied = {lane: 0 for lane in LANES}
        self.chain = {validator: [] for validator in VALIDATORS}
        self.cut = {lane: 0 for lane in LANES}            # last stated
        self.cert = {lane: 0 for lane in LANES}

    # ---------- counting
    def largest(self, lane, of, enough):
        """The largest size that `enough` validators claim, as far as it is held here."""
        claims = (max((of(w).get(lane, 0) for w in self.chain[v]), default=0) for v in VALIDATORS)
        return min(sorted(claims, reverse=True)[enough - 1], len(self.copy[lane]))

    def certified(self, lane):
        return max(self.largest(lane, lambda w: w.cut, QUORUM), self.largest(lane, lambda w: w.certified, THIRD))

    def final(self, lane):
        return self.largest(lane, lambda w: w.certified, QUORUM)

    # ---------- applying
    def waits_for(self, lane):
        """What the next batch of a lane cites and is not final here."""
        batches = self.copy[lane][self.applied[lane]:][:1]
        return {d: size for b in batches for d, size in b.cites.items() if self.final(d) < size}

    def apply_all(self):
        moved = True
        while moved:
            moved = False
            for lane in LANES:
                while self.applied[lane] < len(self.copy[lane]) and not self.waits_for(lane):
                    self.applied[lane] += 1
                    moved = True

    # ---------- stating
    def awaited(self, lane):
        """The mend: how far other lanes wait for this one, as far as it is held here."""
        if not self.mended:
            return 0
        sizes = [self.waits_for(other).get(lane, 0) for other in LANES if other != lane]
        return max(size if size <= len(self.copy[lane]) else 0 for size in sizes)

    def is_due(self, lane, stated, could):
        return any(b.matters for b in self.copy[lane][stated:could]) or stated < min(could, self.awaited(lane))

    def speak(self):
        self.apply_all()
        certified = {lane: min(self.certified(lane), self.applied[lane]) for lane in LANES}
        due = [lane for lane in LANES
               if self.is_due(lane, self.cut[lane], self.applied[lane]) or self.is_due(lane, self.cert[lane], certified[lane])]
        if not due:
            return False
        covers = any(b.witness is None for lane in LANES for b in self.copy[lane][self.cut[lane]:self.applied[lane]])
        # Whatever else has moved travels along.
        witness = Witness(dict(self.applied), certified, covers)
        self.cut, self.cert = dict(self.applied), certified
        self.chain[self.number].append(witness)
        self.copy[self.number].append(Batch(witness, {d: self.final(d) for d in LANES if d != self.number}))
        self.apply_all()
        return True


def deliver(nodes):
    for to in NODES:
        for source in NODES:
            nodes[to].copy[source] = list(nodes[source].copy[source])
        for validator in HONEST:
            nodes[to].chain[validator] = list(nodes[validator].chain[validator])
        nodes[to].apply_all()


def settle(nodes, rounds):
    for _ in range(rounds):
        deliver(nodes)
        spoke = [nodes[v].speak() for v in HONEST]
        if not any(spoke):
            return
    raise SystemExit('the committee never falls silent')


def story(mask, lane, mended):
    """None if the liar's word made nothing final at H; else whether H's batch became final everywhere."""
    nodes = {number: Node(number, mended) for number in NODES}
    for ingest in (0, 1):
        nodes[ingest].copy[ingest].append(Batch())
    for turn in range(4):
        deliver(nodes)
        for v in HONEST:
            if mask >> (3 * turn + v) & 1:
                nodes[v].speak()
    settle(nodes, 40)
    before = nodes[H].final(lane)
    end = {lane: len(nodes[H].copy[lane])}
    nodes[H].chain[LIAR].append(Witness(end, end))
    after = nodes[H].final(lane)
    if after <= before:
        return None
    nodes[H].copy[H].append(Batch(cites={lane: after}))
    settle(nodes, 40)
    size = len(nodes[H].copy[H])
    return all(nodes[number].final(H) >= size for number in NODES)


def main():
    mended = '--without' not in sys.argv[1:]
    cases = [(mask, lane) for mask in range(1 << 12) for lane in HONEST]
    told = [(case, verdict) for case in cases if (verdict := story(*case, mended)) is not None]
    stuck = [case for case, verdict in told if not verdict]
    print(f"{'with' if mended else 'without'} the mend: {len(told)} of {len(cases)} cases let H cite by the liar's word, "
          f'{len(stuck)} of them are stuck for ever' + (f', the first: mask {stuck[0][0]:#o}, lane {stuck[0][1]}' if stuck else ''))
    sys.exit(0 if told and bool(stuck) != mended else 1)


main()
