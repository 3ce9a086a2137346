// Powers that need a long chain of squarings, and the memory of field elements. Twin: power.rs.

/// a^(2^252 - 3): with it a square root and an inverse are a few multiplications away.
///
/// Eleven steps `acc = acc^(2^n) * m`, in a loop, so that the kernel holds one squaring and one multiplication.
///
///   step  0  1  2  3   4   5   6   7    8    9    10
///   n     1  2  1  5  10  20  10  50  100   50     2
///   m     *  *  a  *   *   *  x10  *    *  x50     a      (* the value before the squarings)
///   acc = a^(2^e - 1), e = 2 4 5 10 20 40 50 100 200 250, and in the end a^((2^250 - 1) * 4 + 1).
fn power_252_3(a: Fe) -> Fe {
    var acc = a;
    var x10 = a;
    var x50 = a;
    for (var step = 0u; step < 11u; step++) {
        // Squarings per step, a byte each.
        let counts = select(select(0x023264u, 0x320a140au, step < 8u), 0x05010201u, step < 4u);
        let count = (counts >> (8u * (step & 3u))) & 255u;
        var m = acc;
        if (step == 2u || step == 10u) {
            m = a;
        } else if (step == 6u) {
            m = x10;
        } else if (step == 9u) {
            m = x50;
        }
        for (var i = 0u; i < count; i++) {
            acc = fe_sq(fe_bound(acc));
        }
        acc = fe_mul(fe_bound(acc), fe_bound(m));
        if (step == 3u) {
            x10 = acc;
        } else if (step == 6u) {
            x50 = acc;
        }
    }
    return acc;
}
