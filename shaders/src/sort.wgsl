// Kernel: the points of a window in the order of their digits, the largest first. Twin: sort.rs.
//
// A counting sort in a group: each lane counts its part of the points by digit, in a column of its own; a sum over the columns and
// buckets makes places of the counts; each lane puts its points there. Points of one digit stay in the order of the rows, so that the
// result does not depend on which lane is faster.
//
// A point in the order: the digit's magnitude (bits 0 .. 7), whether it is to be taken negatively (8), R instead of A (9), and the row
// within the equation (from 10 on). Magnitude 0 comes last, and is not added. All points are subtracted, so that positive digits are
// the negative ones.

/// Per pair of buckets (the even one in the low half) and lane: the count, then the place of the lane's next point.
var<workgroup> counts: array<u32, 4160>;
/// Per window of the group and pair of buckets.
var<workgroup> sums: array<u32, 130>;

/// The i-th point of a window, before sorting.
fn unsorted(first: u32, rows: u32, window: u32, i: u32) -> u32 {
    let of_r = i >= rows;
    let row = select(i, i - rows, of_r);
    let word = word_load(((window >> 2u) + select(0u, 8u, of_r)) * params.rows + first + row);
    let digit = i32((word >> (8u * (window & 3u))) & 255u) - 128;
    return u32(abs(digit)) | select(0u, 256u, digit > 0) | select(0u, 512u, of_r) | (row << 10u);
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group_id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let equation = equation_rows(group_id.x / GROUPS);
    let s = share_of(group_id.x % GROUPS, lane, equation.y);
    for (var pair = 0u; pair < 65u; pair++) {
        counts[pair * 64u + lane] = 0u;
    }
    for (var i = s.start; i < s.end; i++) {
        let bucket = unsorted(equation.x, equation.y, s.window, i) & 255u;
        counts[(bucket >> 1u) * 64u + lane] += 1u << (16u * (bucket & 1u));
    }
    workgroupBarrier();
    // At most 4,096 points: the halves do not run into each other.
    let half = (s.first >> 5u) * 65u;
    for (var pair = lane - s.first; pair < 65u; pair += s.width) {
        var sum = 0u;
        for (var j = 0u; j < s.width; j++) {
            sum += counts[pair * 64u + s.first + j];
        }
        sums[half + pair] = sum;
    }
    workgroupBarrier();
    for (var pair = lane - s.first; pair < 65u; pair += s.width) {
        var odd = 0u;
        for (var larger = pair + 1u; larger < 65u; larger++) {
            let sum = sums[half + larger];
            odd += (sum & 0xffffu) + (sum >> 16u);
        }
        var even = odd + (sums[half + pair] >> 16u);
        for (var j = 0u; j < s.width; j++) {
            let at = pair * 64u + s.first + j;
            let count = counts[at];
            counts[at] = even | (odd << 16u);
            even += count & 0xffffu;
            odd += count >> 16u;
        }
    }
    workgroupBarrier();
    let order = order_of(equation.x, equation.y, s.window);
    for (var i = s.start; i < s.end; i++) {
        let point = unsorted(equation.x, equation.y, s.window, i);
        let bucket = point & 255u;
        let at = (bucket >> 1u) * 64u + lane;
        let place = (counts[at] >> (16u * (bucket & 1u))) & 0xffffu;
        counts[at] += 1u << (16u * (bucket & 1u));
        word_store(order + place, point);
    }
}
