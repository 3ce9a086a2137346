// Kernel: the sum of (digit x point) over a lane's part of a window. Twin: accumulate.rs.
//
// The points come in falling order of their digits. `acc` is the sum of the points so far; whenever the digit falls by one, `acc` is
// added to `total`, so that in the end each point is in it as often as its digit says. Behind the last point the digit b that is left
// falls to 0 at once: total + b acc, by doubling. All three are the same addition with other operands, and each lane takes its own
// next one: lanes with other digits do not wait for one another. `total` lies in memory, where `acc` waits while `total` is worked on.

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group_id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let number = group_id.x / GROUPS;
    let equation = equation_rows(number);
    let s = share_of(group_id.x % GROUPS, lane, equation.y);
    let order = order_of(equation.x, equation.y, s.window);
    let place = lane_place(number, group_id.x % GROUPS, lane);
    var zero: Fe;
    var acc = point_identity();
    lanes_store(place, acc);
    var next = s.start;
    var b = 0u;
    if (next < s.end) {
        b = word_load(order + next) & 255u;
    }
    while (b != 0u) {
        var point = 0u;
        if (next < s.end) {
            point = word_load(order + next);
        }
        let digit = point & 255u;
        let adds = digit == b;
        let closes = !adds && (digit != 0u || (b & 1u) == 1u);
        var q: Summand;
        if (adds) {
            let negative = (point & 256u) != 0u;
            let at = summand_place(equation.x + (point >> 10u), (point >> 9u) & 1u);
            let plus = select(0u, 5u, negative);
            q.y_plus_x = lanes_load_fe(at + plus);
            q.y_minus_x = lanes_load_fe(at + 5u - plus);
            q.t2d = lanes_load_fe(at + 10u);
            if (negative) {
                q.t2d = fe_sub(zero, q.t2d);
            }
        } else {
            q = summand_of(acc);
            if (closes) {
                lanes_store(place + 20u, acc);
                acc = lanes_load(place);
            }
        }
        acc = point_add(acc, q, adds, true);
        if (adds) {
            next++;
        } else if (closes) {
            lanes_store(place, acc);
            acc = lanes_load(place + 20u);
            b--;
        } else {
            b >>= 1u;
        }
    }
}
