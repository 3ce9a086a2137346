//! Twin of `sort.wgsl`: the points of a window in the order of their digits.

use crate::bindings::Buffers;
use crate::equation::{GROUPS, equation_rows, order_of, share_of};

fn unsorted(buffers: &Buffers, first: usize, rows: usize, window: usize, i: usize) -> u32 {
    let of_r = i >= rows;
    let row = if of_r { i - rows } else { i };
    let word = buffers.tables[((window >> 2) + if of_r { 8 } else { 0 }) * buffers.rows + first + row];
    let digit = ((word >> (8 * (window & 3))) & 255).cast_signed() - 128;
    digit.unsigned_abs() | if digit > 0 { 256 } else { 0 } | if of_r { 512 } else { 0 } | ((row as u32) << 10)
}

/// One invocation. A group's lanes wait for each other, so that the first one's invocation runs the whole group.
pub fn main(buffers: &mut Buffers, id: usize) {
    if id % 64 != 0 {
        return;
    }
    let (equation, group) = (id / 64 / GROUPS, id / 64 % GROUPS);
    let (first, rows, _) = equation_rows(buffers, equation);
    let shares: Vec<_> = (0..64).map(|lane| share_of(group, lane, rows)).collect();
    let mut counts = vec![0u32; 65 * 64];
    let mut sums = [0u32; 130];
    for (lane, s) in shares.iter().enumerate() {
        for i in s.start..s.end {
            let bucket = unsorted(buffers, first, rows, s.window, i) & 255;
            counts[(bucket >> 1) as usize * 64 + lane] += 1 << (16 * (bucket & 1));
        }
    }
    for (lane, s) in shares.iter().enumerate() {
        for pair in (lane - s.first..65).step_by(s.width) {
            let mut sum = 0;
            for j in 0..s.width {
                sum += counts[pair * 64 + s.first + j];
            }
            sums[(s.first >> 5) * 65 + pair] = sum;
        }
    }
    for (lane, s) in shares.iter().enumerate() {
        for pair in (lane - s.first..65).step_by(s.width) {
            let half = (s.first >> 5) * 65;
            let mut odd = 0;
            for larger in pair + 1..65 {
                odd += (sums[half + larger] & 0xffff) + (sums[half + larger] >> 16);
            }
            let mut even = odd + (sums[half + pair] >> 16);
            for j in 0..s.width {
                let at = pair * 64 + s.first + j;
                let count = counts[at];
                counts[at] = even | (odd << 16);
                even += count & 0xffff;
                odd += count >> 16;
            }
        }
    }
    for (lane, s) in shares.iter().enumerate() {
        let order = order_of(buffers, first, rows, s.window);
        for i in s.start..s.end {
            let point = unsorted(buffers, first, rows, s.window, i);
            let bucket = point & 255;
            let at = (bucket >> 1) as usize * 64 + lane;
            let place = (counts[at] >> (16 * (bucket & 1))) & 0xffff;
            counts[at] += 1 << (16 * (bucket & 1));
            buffers.tables[order + place as usize] = point;
        }
    }
}
